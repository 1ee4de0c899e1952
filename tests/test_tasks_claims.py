from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from preprocess.corpus import generate_songs
from preprocess.schema import Example, Song
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.instruct import assert_no_leak, make_examples_batch
from preprocess.tasks.load import OWN_TASKS
from preprocess.tasks.statistics import CorpusStatistics
from tests.claims import COUNT, QUOTED, Corpus, FalseClaimError, check_answer, measure

HYMNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "hymns.jsonl"


def made_up() -> list[Song]:
    """Cleaned songs, some without a fact, some in German."""
    songs = []
    for n, song in enumerate(generate_songs(420, 11)):
        lyrics = re.sub(r"(?m)^\[([^\]:]+):[^\]]*\]", r"[\1]", song.lyrics)
        songs.append(replace(song, lyrics=lyrics, themes=() if n % 2 else song.themes))
    german = "Die Nacht war lang und ich war allein\n\nDie Sterne sind so kalt\nWir waren in der Stadt"
    foreign = [
        Song(f"de{n}", german + "\nUnd dann" * n, f"Nacht {n}", songs[n % 2].artist, "Pop", 1995)
        for n in range(8)
    ]
    return [*songs, *foreign]


def hymns() -> list[Song]:
    found = []
    for number, line in enumerate(HYMNS.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        themes = tuple(row["topics"]) if number % 2 else ()
        found.append(
            Song(
                f"h{number}",
                row["lyrics"],
                row["title"],
                row["artist"],
                row["tag"],
                row["year"],
                themes=themes,
            )
        )
    return found


def statistics(songs: Sequence[Song]) -> CorpusStatistics:
    counts = CorpusCounts()
    for song in songs:
        counts.add(song, measure(song))
    return CorpusStatistics(counts)


class Made:
    """Songs and the examples that are made of them."""

    def __init__(self, songs: Sequence[Song], seed: int) -> None:
        self.songs = songs
        self.corpus = Corpus(songs)
        made = make_examples_batch(
            songs,
            tasks=OWN_TASKS,
            seed=seed,
            corpus=statistics(songs),
            measures=[measure(song) for song in songs],
        )
        self.examples = list(zip(songs, made, strict=True))

    def __iter__(self) -> Iterator[tuple[Song, Example]]:
        return ((song, example) for song, examples in self.examples for example in examples)


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(made_up(), seed=5)


def test_every_statement_about_made_up_songs_is_true(made: Made) -> None:
    checked: Counter[str] = Counter()
    for song, example in made:
        checked[example.task] += check_answer(example, song, made.corpus)
    assert set(checked) == set(OWN_TASKS)
    assert all(count > 100 for count in checked.values()), checked
    assert checked.total() > 6000


@pytest.mark.skipif(not HYMNS.is_file(), reason="the hymns are not at hand")
def test_every_statement_about_hymns_is_true() -> None:
    hymnal = Made(hymns(), seed=6)
    checked = sum(check_answer(example, song, hymnal.corpus) for song, example in hymnal)
    assert checked > 3000


def falsified(answer: str) -> Iterator[str]:
    """An answer with one number, count word or quoted word changed, in each place where it has one."""
    for match in re.finditer(
        rf"\d+(?:\.\d+)?|{QUOTED}|\b(?:{COUNT})\b|\blonger\b|\bshorter\b|\bmore varied\b", answer
    ):
        told = match[0]
        changed = {"once": "twice", "twice": "3 times", "longer": "shorter", "shorter": "longer"}.get(told)
        if changed is None and told[0].isdigit():
            changed = (
                f"{float(told) + 7:.1f}"
                if "." in told
                else re.sub(r"\d+", lambda m: str(int(m[0]) + 7), told)
            )
        changed = changed or ("less varied" if told == "more varied" else '"xylophone quartz"')
        yield answer[: match.start()] + changed + answer[match.end() :]


def test_an_answer_with_one_thing_changed_is_found_out(made: Made) -> None:
    tried: Counter[str] = Counter()
    for song, example in list(made)[:400]:
        if example.task == "generation":
            continue
        for answer in falsified(example.answer):
            with pytest.raises(FalseClaimError):
                check_answer(replace(example, answer=answer), song, made.corpus)
            tried[example.task] += 1
    assert all(tried[task] > 20 for task in OWN_TASKS if task != "generation"), tried


def test_a_sentence_that_no_rule_knows_is_found_out(made: Made) -> None:
    song, example = next((song, example) for song, example in made if example.task == "genre")
    with pytest.raises(FalseClaimError, match="no rule"):
        check_answer(
            replace(example, answer=f"{example.answer} It reflects a characteristic approach."),
            song,
            made.corpus,
        )


def test_no_instruction_contains_its_answer(made: Made) -> None:
    for song, example in made:
        assert_no_leak(example)
        quoted = set(re.findall(QUOTED, example.answer))
        assert not any(f'"{word}"' in example.instruction for word in quoted)
        if example.task in ("artist", "genre", "context", "themes", "similar", "structure"):
            assert song.artist is None or song.artist not in example.instruction


def test_answers_are_short_and_begin_with_their_stem(made: Made) -> None:
    lengths: dict[str, list[int]] = {}
    for _, example in made:
        stem = OWN_TASKS[example.task].answer_stem
        assert example.answer.startswith((stem, stem.replace("themes are", "theme is")))
        lengths.setdefault(example.task, []).append(len(re.findall(r"\w+|[^\w\s]", example.answer)))
    lengths.pop("generation")
    assert all(sum(of) / len(of) < (160 if task == "analysis" else 60) for task, of in lengths.items())


def test_evidence_varies_with_the_seed_and_the_fact_does_not() -> None:
    songs = made_up()[:60]
    corpus = statistics(songs)
    by_seed = [make_examples_batch(songs, tasks=["genre"], seed=seed, corpus=corpus) for seed in range(6)]
    for same in zip(*by_seed, strict=True):
        assert len({(example.label) for examples in same for example in examples}) == 1
    assert sum(len({examples[0].answer for examples in same}) > 1 for same in zip(*by_seed, strict=True)) > 40
