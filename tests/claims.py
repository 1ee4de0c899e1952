"""Reads the answers of all tasks and re-derives every number and every quoted word from lyrics alone, slowly.

An answer is read from its start to its end: what no rule here knows is an error, so no statement stays unchecked.
What is measured of one song (`preprocess.measure`) has its own tests; all counting over songs is done again here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial

from preprocess.measure.rhyme import words_rhyme
from preprocess.measure.song import Measures, measure_song
from preprocess.measure.words import PERSONS, find_words
from preprocess.schema import Example, Song
from preprocess.tasks.main_themes import main_themes

COUNT = r"once|twice|\d+ times"
QUOTED = r'"([^"]*)"'
SHARE = r"(?:\d+%|\d\.\d%|\d+)"


class FalseClaimError(AssertionError):
    """An answer that says something false, or something that cannot be checked."""


def check(holds: object, what: str) -> None:
    if not holds:
        raise FalseClaimError(what)


def number(times: str) -> int:
    return {"once": 1, "twice": 2}.get(times) or int(times.split()[0])


@cache
def measure(song: Song) -> Measures:
    return measure_song(song.lyrics, song.language)


@cache
def sung_lines(song: Song) -> list[str]:
    lines = [line.strip() for line in song.lyrics.split("\n")]
    return [line for line in lines if line and not re.fullmatch(r"\[[^\[\]]+\]", line)]


@cache
def sung_words(song: Song) -> list[str]:
    return [word for line in sung_lines(song) for word in find_words(line)]


@cache
def word_set(song: Song) -> frozenset[str]:
    return frozenset(sung_words(song))


@cache
def theme_set(song: Song) -> frozenset[str]:
    return frozenset(theme.theme for theme in main_themes(song, measure(song)))


def normal(line: str) -> str:
    return " ".join(find_words(line))


def bare(line: str) -> str:
    """The words of a line without what it has in parentheses, unless that is all."""
    return normal(re.sub(r"\([^()]*\)", " ", line)) or normal(line)


def sings(word: str, song: Song) -> bool:
    return word in word_set(song)


def is_about(theme: str, song: Song) -> bool:
    return theme in theme_set(song)


def check_share(told: str, count: int, total: int) -> None:
    """A share as it is told: "12%", "2.4%", or a number of songs."""
    if not told.endswith("%"):
        check(int(told) == count and total < 50, f"{told} for {count} of {total}")
        return
    half = 0.05 if "." in told else 0.5
    check(abs(100 * count / total - float(told[:-1])) <= half + 1e-9, f"{told} for {count} of {total}")


class Corpus:
    """Training songs, counted anew for each claim."""

    def __init__(self, songs: Sequence[Song]) -> None:
        self.songs = songs


class Reader:
    """Checks the claims of one answer.

    Args:
        example: The example.
        song: The song that it is about.
        corpus: The training songs.
    """

    def __init__(self, example: Example, song: Song, corpus: Corpus) -> None:
        self.example = example
        self.song = song
        self.corpus = corpus
        self.genre = [other for other in corpus.songs if other.genre == song.genre]
        self.artist = [other for other in self.genre if other.artist == song.artist]
        self.decade = [other for other in corpus.songs if other.decade == song.decade]
        self.num_checked = 0
        self.of_song = example.task != "analysis"

    def read(self, text: str, rules: Iterable[tuple[str, Callable[..., None]]]) -> None:
        """Check a text from its start to its end."""
        compiled = [(re.compile(pattern), rule) for pattern, rule in rules]
        while text:
            for pattern, rule in compiled:
                match = pattern.match(text)
                if match:
                    rule(*match.groups())
                    self.num_checked += 1
                    text = text[match.end() :].lstrip(" ")
                    break
            else:
                raise FalseClaimError(f"no rule for {text!r} ({self.example.task})")

    # What is said of the song alone.

    def words(self, told: str) -> None:
        pairs = re.findall(rf"{QUOTED} ({COUNT})", told)
        check(pairs, told)
        for word, count in pairs:
            check(sung_words(self.song).count(word) == number(count), told)

    def line(self, line: str, count: str) -> None:
        sung = [normal(other) for other in sung_lines(self.song)]
        check(any(line in other for other in sung_lines(self.song)), line)
        check(sung.count(normal(line)) == number(count), f"{line} {count}")

    def refrain(self, line: str, place: str, count: str) -> None:
        stanzas = {tuple(map(bare, part)) for part in self.stanzas()}
        index = -1 if place == "ends" else 0
        check(sum(stanza[index] == bare(line) for stanza in stanzas) >= int(count), f"{line} {place} {count}")

    def stanzas(self) -> list[list[str]]:
        text = re.sub(r"(?m)^\s*\[[^\[\]\n]+\]\s*$", "", self.song.lyrics)
        parts = [
            [line.strip() for line in part.split("\n") if line.strip()] for part in re.split(r"\n\s*\n", text)
        ]
        return [part for part in parts if part]

    def opening(self, count: str, opening: str) -> None:
        lines = {normal(line) for line in sung_lines(self.song)}
        check(
            sum(f"{line} ".startswith(f"{opening} ") for line in lines) == int(count),
            f"{count} begin with {opening}",
        )

    def pronoun(self, person: str, count: str) -> None:
        counts = {
            name: sum(sung_words(self.song).count(form) for form in forms) for name, forms in PERSONS.items()
        }
        check(person in counts and counts[person] == number(count), f"{person} {count}")
        check(all(counts[person] > other for name, other in counts.items() if name != person), person)

    def length(self, lines: str, words: str) -> None:
        check(len(sung_lines(self.song)) == int(lines), lines)
        check(f"{len(sung_words(self.song)) / int(lines):.1f}" == words, words)

    def variety(self, different: str, words: str) -> None:
        check(len(word_set(self.song)) == int(different), different)
        check(len(sung_words(self.song)) == int(words), words)

    def repeated(self, repeated: str, lines: str) -> None:
        keys = [normal(line) for line in sung_lines(self.song)]
        check(len(keys) == int(lines), lines)
        check(len(keys) - len(set(keys)) == int(repeated), repeated)

    def shown(self, told: str) -> None:
        for phrase in re.findall(QUOTED, told):
            check(any(f" {phrase} " in f" {normal(line)} " for line in sung_lines(self.song)), phrase)

    def mood(self, mood: str, told: str) -> None:
        check(any(found.theme == mood for found in measure(self.song).moods), mood)
        self.shown(told)

    # What is said of other songs.

    def group(self, told: str) -> Sequence[Song]:
        if "artist's" in told:
            return self.artist
        if "from then" in told:
            return self.decade
        return self.genre if "counted" in told else self.corpus.songs

    def compare(self, tests: Sequence[Callable[[Song], bool]], *told: tuple[str, Sequence[str]]) -> None:
        """Check how many songs of a group, then of a whole, pass each of some tests."""
        groups = []
        for name, shares in told:
            songs = self.group(name)
            groups.append({song.id for song in songs})
            total = re.search(r"\d+(?= |$)", name.replace(str(self.song.genre), ""))
            english = [song for song in songs if measure(song).is_english]
            check(("English" in name) == (len(english) < len(songs)), f"{name!r}: languages")
            check((total is None) == (len(english) >= 50), f"{name!r}: {len(english)} songs")
            check(total is None or int(total[0]) == len(english), f"{name!r}: {len(english)} songs")
            check(len(shares) == len(tests), f"{name}: {shares}")
            for share, test in zip(shares, tests, strict=True):
                check_share(share, sum(map(test, english)), len(english))
        check(groups[0] <= groups[1] and len(groups[0]) >= 5, f"{told}: not a part")

    def word_figures(self, group: str, told: str, whole: str, shares: str) -> None:
        pairs = re.findall(rf"({SHARE}) (?:sing )?{QUOTED}", told)
        check(pairs, told)
        check(not self.of_song or all(word in word_set(self.song) for _, word in pairs), told)
        tests = [partial(sings, word) for _, word in pairs]
        self.compare(tests, (group, [share for share, _ in pairs]), (whole, shares.split(" and ")))

    def theme_figures(self, group: str, share: str, theme: str, whole: str, other: str) -> None:
        self.compare([partial(is_about, theme)], (group, [share]), (whole, [other]))

    def lines_compared(self, own: str, group: str, mean: str, others: str) -> None:
        for told, songs in ((own, [self.song]), (mean, self.group(group)), (others, self.corpus.songs)):
            words, lines = (sum(len(part(song)) for song in songs) for part in (sung_words, sung_lines))
            check(f"{words / lines:.1f}" == told, f"{told} words a line")
        check(abs(float(own) - float(mean)) <= abs(float(own) - float(others)) + 0.1, "nearer")

    def similar_any(self, told: str, words: str, theme: str | None = None, decade: str | None = None) -> None:
        """One of the songs of that title and artist shares what is said."""
        match = re.fullmatch(rf"{QUOTED} by (.+)|[Aa] song by (.+)|{QUOTED}", told)
        check(match, told)
        assert match
        title, artist = match[1] or match[4], match[2] or match[3]
        found = [
            song
            for song in self.corpus.songs
            if song.artist == artist and (title is None or (song.title or "").replace('"', "'") == title)
        ]
        check(
            any(self.shares(song, words, theme, decade) for song in found),
            f"{told}: {words}, {theme}, {decade}",
        )

    def shares(self, other: Song, words: str, theme: str | None, decade: str | None) -> bool:
        quoted = re.findall(QUOTED, words)
        both = word_set(self.song) & word_set(other)
        return (
            other.id != self.song.id
            and (other.artist is None or other.artist != self.song.artist)
            and len(quoted) > 1
            and both.issuperset(quoted)
            and (theme is None or theme in theme_set(self.song) & theme_set(other))
            and (decade is None or decade == other.decade == self.song.decade)
        )

    # What is said of the artist against the genre, in the task "style".

    def style_word(self, share: str, english: str | None, other: str, word: str) -> None:
        self.style_share(partial(sings, word), share, english, other)

    def style_pronoun(self, share: str, english: str | None, other: str, person: str) -> None:
        self.style_share(lambda song: measure(song).person == person, share, english, other)

    def style_scheme(self, share: str, english: str | None, other: str, scheme: str) -> None:
        self.style_share(lambda song: measure(song).rhyme_scheme == scheme, share, english, other)

    def style_theme(self, share: str, english: str | None, other: str, theme: str) -> None:
        self.style_share(partial(is_about, theme), share, english, other)

    def style_share(self, has: Callable[[Song], bool], share: str, english: str | None, other: str) -> None:
        check(bool(english) == any(not measure(song).is_english for song in self.genre), "languages")
        self.check_artist()
        for told, songs in ((share, self.artist), (other, self.genre)):
            read = [song for song in songs if measure(song).is_english]
            self.check_part(told, sum(map(has, read)), len(read))

    def check_part(self, told: str, count: int, total: int) -> None:
        """A share that stands alone: "9%" or "5 of 12"."""
        part, _, whole = told.partition(" of ")
        check(bool(whole) == (total < 50) and (not whole or int(whole) == total), f"{told}: {total}")
        check_share(part, count, total)

    def style_chorus(self, share: str, other: str) -> None:
        for told, songs in ((share, self.artist), (other, self.genre)):
            self.check_part(told, sum(measure(song).has_chorus for song in songs), len(songs))

    def style_lines(self, longer: str, own: str, genre: str) -> None:
        for told, songs in ((own, self.artist), (genre, self.genre)):
            words, lines = (sum(len(part(song)) for song in songs) for part in (sung_words, sung_lines))
            check(f"{words / lines:.1f}" == told, f"{told} words a line")
        check((float(own) > float(genre)) == (longer == "longer"), longer)

    def style_variety(self, more: str, own: str, genre: str) -> None:
        for told, songs in ((own, self.artist), (genre, self.genre)):
            different = sum(len(word_set(song)) for song in songs)
            check(
                f"{100 * different / sum(len(sung_words(song)) for song in songs):.0f}" == told,
                f"{told}% different",
            )
        check((int(own) > int(genre)) == (more == "more"), more)

    def check_artist(self) -> None:
        check(len(self.artist) >= 5, f"{len(self.artist)} songs of the artist")

    # What is said of the form.

    def sections(self, told: str) -> None:
        kinds: Counter[str] = Counter()
        for heading in re.findall(r"(?m)^\[([A-Za-z-]+)[ \d]*\]$", self.song.lyrics):
            kinds[heading.lower()] += 1
        for part in re.split(r", | and ", told):
            match = re.fullmatch(rf"(?:an? |(\d+) )([a-z-]+)(?: that comes ({COUNT}))?", part)
            check(match, part)
            assert match
            count = int(match[1] or 1) if match[3] is None else number(match[3])
            kind = re.sub(r"(?<=us)es$|s$", "", match[2]) if match[1] and count > 1 else match[2]
            check(kinds[kind] == count, f"{part}: {kinds}")

    def stanza_form(self, count: str, letters: str | None) -> None:
        stanzas = [tuple(map(bare, part)) for part in self.stanzas()]
        check(len(stanzas) == int(count), f"{count} stanzas of {len(stanzas)}")
        if letters:
            check(len(letters) == len(stanzas), letters)
            for one, first in zip(letters, stanzas, strict=True):
                for other, second in zip(letters, stanzas, strict=True):
                    check(one == other or first != second, f"{letters}: equal stanzas")
                    common = len(set(first) & set(second))
                    check(
                        one != other or 2 * common >= min(len(set(first)), len(set(second))),
                        f"{letters}: not alike",
                    )

    def rhymes(self, scheme: str | None, first: str, second: str) -> None:
        rhyme = measure(self.song).rhyme
        assert rhyme
        check(scheme is None or rhyme.scheme == scheme, f"{scheme} for {rhyme}")
        check(words_rhyme(first, second), f"{first} with {second}")
        self.shown(f'"{first}" "{second}"')

    def some_rhyme(self, rhymed: str, lines: str, first: str, second: str) -> None:
        rhyme = measure(self.song).rhyme
        assert rhyme
        check((rhyme.num_rhymed, rhyme.num_lines) == (int(rhymed), int(lines)), f"{rhymed} of {lines}")
        self.rhymes(None, first, second)

    def no_rhyme(self) -> None:
        check(measure(self.song).rhyme and not measure(self.song).rhyme.pairs, "no rhyme")  # type: ignore[union-attr]

    # Facts.

    def fact(self, told: str, true: object) -> None:
        check(told == str(true), f"{told!r} for {true!r}")

    def themes(self, plural: str, told: str) -> None:
        names = [name for part in told.split(", ") for name in part.split(" and ")]
        check((len(names) > 1) == (plural == "themes are"), told)
        check(set(names) <= theme_set(self.song), told)

    def themes_with_words(self, told: str) -> None:
        for name in re.split(r"(?:, | and )(?![^(]*\))", told):
            theme, _, words = name.partition(' ("')
            check(theme in theme_set(self.song), theme)
            self.shown(f'"{words}')


def rules_of(reader: Reader) -> list[tuple[str, Callable[..., None]]]:
    """The sentences that any answer may hold."""
    song = reader.song
    group = (
        r"((?:the artist's|the)[^,;\"]* songs(?: counted)?(?: from then)?|all(?: \d+)?(?: English songs)?)"
    )
    share = rf"({SHARE}(?: of \d+)?)"
    style = rf"{share}( of the English ones)? \(genre: {share}\)"
    return [
        (rf"The song sings ((?:{QUOTED} (?:{COUNT})(?: and )?)+)\.", lambda told, *_: reader.words(told)),
        (rf"This one sings ({QUOTED}(?: and {QUOTED})?)\.", lambda told, *_: reader.shown(told)),
        (rf"The line {QUOTED} comes ({COUNT})\.", reader.line),
        (rf"The line {QUOTED} (ends|begins) (\d+) different stanzas\.", reader.refrain),
        (rf"(\d+) different lines begin with {QUOTED}\.", reader.opening),
        (rf"The leading pronoun is {QUOTED}: it comes ({COUNT}) with its forms\.", reader.pronoun),
        (r"The song has (\d+) lines of ([\d.]+) words on average\.", reader.length),
        (r"(\d+) of its (\d+) words are different\.", reader.variety),
        (r"(\d+) of its (\d+) lines (?:has|have) come before\.", reader.repeated),
        (r"The song has (\d+) stanzas(?: in the form ([A-Z]+))?\.", reader.stanza_form),
        (r"The song has ([^.]+)\.", reader.sections),
        (rf"It mostly rhymes ([A-C]+); {QUOTED} rhymes with {QUOTED}\.", reader.rhymes),
        (
            rf"Counting returning stanzas once, (\d+) of (\d+) lines rhyme, as {QUOTED} with {QUOTED}\.",
            reader.some_rhyme,
        ),
        (r"It has no full rhymes\.", reader.no_rhyme),
        (
            rf"Its lines have ([\d.]+) words on average, those of {group} ([\d.]+), those of all ([\d.]+)\.",
            reader.lines_compared,
        ),
        (
            rf"Of {group}, ({SHARE} sing {QUOTED}(?: and {SHARE} {QUOTED})?); of {group}, ({SHARE}(?: and {SHARE})?)\.",
            lambda group, told, _, __, *rest: reader.word_figures(group, told, *rest),
        ),
        (rf"Of {group}, ({SHARE}) have (.+?) as a main theme; of {group}, ({SHARE})\.", reader.theme_figures),
        (
            rf"(?:They|The themes|It|The theme) shows? in ({QUOTED}[^.]*)\.",
            lambda told, *_: reader.shown(told),
        ),
        (r"The mood is ([\w &-]+) \((.*?)\)\.", reader.mood),
        (rf"The artist is ({re.escape(song.artist or '')})\.", lambda told: reader.fact(told, song.artist)),
        (r"The genre is (.+?)\.(?= |$)", lambda told: reader.fact(told, song.genre)),
        (r"The song is from the (\w+)\.", lambda told: reader.fact(told, song.decade)),
        (r"Its year is (\d+)\.", lambda told: reader.fact(told, song.year)),
        (r"The main (themes are|theme is) ([^.]+)\.", reader.themes),
        (rf"{style} sing {QUOTED}[;.]", reader.style_word),
        (rf"{style} have {QUOTED} as the leading pronoun[;.]", reader.style_pronoun),
        (rf"{style} have ([A-C]{{4,6}}) as the leading rhyme scheme[;.]", reader.style_scheme),
        (rf"{share} \(genre: {share}\) have a chorus[;.]", reader.style_chorus),
        (r"their lines are (longer|shorter), ([\d.]+) words \(genre: ([\d.]+)\)[;.]", reader.style_lines),
        (r"their words are (more|less) varied, (\d+)% different \(genre: (\d+)%\)[;.]", reader.style_variety),
        (rf"{style} have (.+?) as a main theme[;.]", reader.style_theme),
        (r"The artist's songs:", reader.check_artist),
        (
            rf"Among {re.escape(str(song.genre))} songs, those of {re.escape(str(song.artist))} stand out:",
            reader.check_artist,
        ),
    ]


def similar_rules(reader: Reader) -> list[tuple[str, Callable[..., None]]]:
    name = rf"({QUOTED}(?: by .+?)?|[Aa] song by .+?)"
    shared = (
        rf"both sing ({QUOTED}(?:(?:, | and ){QUOTED})*)"
        r"(?:; ([^;.\"]+?) is a theme of both)?(?:; both are from the (\w+))?\."
    )

    def rule(told: str, _: str, words: str, *rest: str | None) -> None:
        reader.similar_any(told, words, *rest[-2:])

    def further(told: str, *words: str) -> None:
        reader.similar_any(told, words[-3])

    return [
        (rf"It is nearest to {name}: {shared}", rule),
        (rf"{name} sings ({QUOTED} and {QUOTED}) too\.", further),
    ]


def check_answer(example: Example, song: Song, corpus: Corpus) -> int:
    """Check every statement of an answer.

    Returns:
        Number of sentences checked.

    Raises:
        FalseClaimError: One is false, or of a form that no rule knows.
    """
    reader = Reader(example, song, corpus)
    if example.task == "similar":
        reader.read(example.answer, similar_rules(reader))
    elif example.task == "generation":
        check(example.answer and song.lyrics.startswith(example.answer), "lyrics")
        reader.num_checked = 1
    elif example.task == "analysis":
        check_analysis(example.answer, reader)
    else:
        reader.read(example.answer, rules_of(reader))
    return reader.num_checked


def check_analysis(answer: str, reader: Reader) -> None:
    song = reader.song
    lines = dict(re.findall(r"^\*\*(.+?)\*\*: (.+)$", answer, re.MULTILINE))
    expected = ["Artist Style", "Genre Elements", "Lyrical Themes", "Cultural Context", "Similar Works"]
    check(len(lines) >= 3 and list(lines) == [heading for heading in expected if heading in lines], answer)
    check(answer.count("\n") == len(lines) - 1, answer)
    rules = rules_of(reader)
    if "Artist Style" in lines:
        reader.read(lines["Artist Style"], rules)
    check(("Genre Elements" in lines) == (song.genre is not None), answer)
    if song.genre is not None:
        genre = f"{song.genre}."
        check(lines["Genre Elements"].startswith(genre), lines["Genre Elements"])
        reader.read(lines["Genre Elements"].removeprefix(genre).strip(), rules)
    themes, _, mood = lines["Lyrical Themes"].removesuffix(".").partition("; the mood is ")
    reader.themes_with_words(themes)
    if mood:
        reader.read(f"The mood is {mood}.", rules)
    check(("Cultural Context" in lines) == (song.year is not None), answer)
    if song.year is not None:
        context = f"The {song.decade} ({song.year})."
        check(lines["Cultural Context"].startswith(context), lines["Cultural Context"])
        reader.read(lines["Cultural Context"].removeprefix(context).strip(), rules)
    if "Similar Works" in lines:
        works = lines["Similar Works"]
        match = re.fullmatch(r'(.+) \(("[^"]*", "[^"]*")\)\.', works)
        check(match, works)
        assert match
        reader.similar_any(match[1], match[2])
        reader.num_checked += 1
