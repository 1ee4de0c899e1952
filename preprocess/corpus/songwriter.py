"""One song from (seed, number): artist, album and themes are drawn, then lines, set out in sections.

Only `Random.random` is used: its sequence for a given text seed is the same on every machine and Python version.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from math import gcd
from typing import Literal, TypeVar

from preprocess.corpus.grammar import SONG_SLOTS, Line, capitalize_line, capitalize_title
from preprocess.corpus.material import Artist, list_artists
from preprocess.corpus.palette import Couplet, Palette, Verse, build_palette
from preprocess.errors import ConfigError
from preprocess.schema import GENRES, Song

Length = Literal["short", "full"]
T = TypeVar("T")

SOURCE = "made-up corpus"
SHORT_FORM = ("V4", "C")
_SECTIONS = {
    "I": "Intro",
    "V": "Verse",
    "P": "Pre-Chorus",
    "C": "Chorus",
    "L": "Hook",
    "B": "Bridge",
    "O": "Outro",
}
_OWN_SHARE = 0.7
_ERA_SHARE = {"short": 0.35, "full": 0.8}
_PREFERRED_SHARE = 0.8
_THEME_HOOK_SHARE = 0.5
_TAIL_SHARE = 0.3
_GUEST_SHARE = 0.2


@cache
def list_orders(num_items: int) -> tuple[tuple[int, ...], ...]:
    """Orders that run through a list by a fixed stride, so that no item comes twice."""
    return tuple(
        tuple((start + k * stride) % num_items for k in range(num_items))
        for stride in range(1, num_items + 1)
        if gcd(stride, num_items) == 1
        for start in range(num_items)
    )


def count_couplets(artist: Artist, form: Sequence[str]) -> int:
    """Couplets that the verses of a form use up under the artist's rhyme scheme."""
    num_lines = sum(int(section[1:]) for section in form if section[0] == "V")
    per_line = {"AABB": 0.5, "ABAB": 0.5, "ABCB": 0.75, "none": 1.0}[artist.scheme]
    return round(num_lines * per_line)


class Draft:
    """A song being written: the dice, the words used so far, and the couplets still to be sung."""

    def __init__(self, dice: Callable[[], float], palette: Palette, length: Length) -> None:
        """Draw the facts of the song: album, themes, people, hook.

        Args:
            dice: Uniform numbers in [0, 1).
            palette: What the artist can sing.
            length: "short" for a verse and a chorus, "full" for the artist's own form.
        """
        self.dice = dice
        self.palette = palette
        self.artist = palette.artist
        self.length = length
        self.used: set[str] = set()
        self.album = self.pick(self.artist.albums)
        self.themes = self.draw_themes()
        self.form = self.artist.form if length == "full" else SHORT_FORM
        self.cry = self.pick(self.artist.cries)
        from_theme = dice() < _THEME_HOOK_SHARE
        self.hook = self.fill(self.pick(palette.theme_hooks[self.themes[0]] if from_theme else palette.hooks))
        self.phrase = self.hook.split(",", 1)[0]
        theme = palette.themes[self.themes[0]]
        self.theme_couplets = [theme[i] for i in self.pick(list_orders(len(theme)))]
        self.deck = self.stack_deck()

    def pick(self, items: Sequence[T]) -> T:
        """Draw one item."""
        return items[int(self.dice() * len(items))]

    def draw_themes(self) -> tuple[str, ...]:
        """Draw one to three different themes, mostly of the artist's favourites; the first is the song's main one."""
        roll = self.dice()
        num_themes = 1 if roll < 0.35 else 2 if roll < 0.8 or self.length == "short" else 3
        themes: list[str] = []
        while len(themes) < num_themes:
            pool = self.artist.themes if self.dice() < _PREFERRED_SHARE else tuple(self.palette.themes)
            theme = self.pick(pool)
            if theme not in themes:
                themes.append(theme)
        return tuple(themes)

    def fill(self, line: Line) -> str:
        """Fill a line's slots, with words that the song has not used yet while there are any."""
        if not line.pools:
            return line.text
        words = []
        for pool in line.pools:
            start = int(self.dice() * len(pool))
            word = next((w for w in pool[start:] + pool[:start] if w not in self.used), pool[start])
            self.used.add(word)
            words.append(word)
        return line.text % tuple(words)

    def stack_deck(self) -> list[Couplet]:
        """Couplets for the verses in order: the artist's and the genre's, with themes and decade dealt in."""
        palette, dice = self.palette, self.dice
        self.required = required = [self.pick(palette.themes[theme]) for theme in self.themes[1:]]
        if not {"a", "b"} <= set(self.artist.chorus):
            required.append(self.theme_couplets[1])
        if dice() < _ERA_SHARE[self.length]:
            year = self.album.year
            era = palette.eras[f"{year // 10 * 10}s"]
            required.append(self.pick([couplet for couplet in era if couplet.first_year <= year]))
        own = [palette.own[i] for i in self.pick(list_orders(len(palette.own)))]
        shared = [palette.genre[i] for i in self.pick(list_orders(len(palette.genre)))]
        num_free = max(1, count_couplets(self.artist, self.form) - len(required))
        deck = [
            own.pop() if own and (dice() < _OWN_SHARE or not i) else shared.pop() for i in range(num_free)
        ]
        for couplet in required:
            deck.insert(1 + int(dice() * len(deck)), couplet)
        return deck + shared[:3]

    def take(self, avoid: frozenset[int] = frozenset()) -> Couplet:
        """Take the next couplet, the next that does not rhyme with `avoid` if one of the next four does not."""
        for i, couplet in enumerate(islice(self.deck, 4)):
            if not couplet.families & avoid:
                return self.deck.pop(i)
        return self.deck.pop(0)

    def arrange(self, num_lines: int) -> list[Verse]:
        """Lay couplets out in the artist's rhyme scheme, until there are `num_lines` verses."""
        scheme, verses, last = self.artist.scheme, list[Verse](), frozenset[int]()
        while len(verses) < num_lines:
            one = self.take(last)
            if scheme == "none":
                verses.append(one.first)
            elif scheme == "AABB" or num_lines - len(verses) < 4:
                verses += [one.first, one.second]
            else:
                two = self.take(one.families)
                if scheme == "ABAB":
                    verses += [one.first, two.first, one.second, two.second]
                else:
                    three = self.take(one.families | two.families)
                    # A theme or a decade is told in a whole couplet, so it takes the two lines that rhyme.
                    one, two, three = sorted((one, two, three), key=lambda c: c not in self.required)
                    verses += [two.first, one.first, three.first, one.second]
            last = one.families
        return verses

    def write_verse(self, num_lines: int) -> list[str]:
        """A verse with the artist's asides and refrain."""
        lines = [self.fill(line) for verse in self.arrange(num_lines) for line in verse]
        if self.artist.tails:
            lines = [
                f"{line} {self.pick(self.artist.tails)}" if self.dice() < _TAIL_SHARE else line
                for line in lines
            ]
        return lines + [self.fill(line) for line in self.palette.refrain]

    def write_couplet(self, couplet: Couplet) -> list[str]:
        """The lines of a couplet as they stand."""
        return [self.fill(line) for line in couplet.first + couplet.second]

    def write_chorus(self) -> list[str]:
        """The chorus by the artist's pattern; the hook is sung whole once, then its phrase; "short" says all once."""
        couplet = self.theme_couplets[0]
        pattern = self.artist.chorus
        if self.length == "short":
            pattern = "".join(dict.fromkeys(pattern))
        parts = {
            "R": [self.cry],
            "a": [self.fill(line) for line in couplet.first],
            "b": [self.fill(line) for line in couplet.second],
        }
        lines = []
        for i, letter in enumerate(pattern):
            if letter != "H":
                lines += parts[letter]
            elif "H" in pattern[:i] or (self.length == "short" and "ab" in pattern):
                lines.append(self.phrase)
            else:
                lines += self.hook.split(", ") if self.artist.split else [self.hook]
        return lines

    def write_section(self, section: str) -> list[str]:
        """Lines of a section, given by its letter and, for verses and bridges, its number of lines."""
        kind = section[0]
        if kind == "V":
            return self.write_verse(int(section[1:]))
        if kind == "C":
            return self.write_chorus()
        if kind == "I":
            return [self.cry, self.cry]
        if kind == "L":
            return [self.phrase, self.phrase, self.phrase, self.cry]
        if kind == "O":
            return [self.phrase, self.phrase]
        return self.write_couplet(self.theme_couplets[2 if kind == "P" else 3])

    def label_sections(self) -> list[str]:
        """Headers of the sections as Genius has them: with the artist's name, bare, or none at all."""
        roll = self.dice()
        if roll >= 0.75:
            return [""] * len(self.form)
        named = roll < 0.4
        features = self.palette.features
        guest = self.pick(features) if named and features and self.dice() < _GUEST_SHARE else ""
        num_verses = sum(section[0] == "V" for section in self.form)
        labels, verse = [], 0
        for section in self.form:
            label, singer = _SECTIONS[section[0]], self.artist.name
            if section[0] == "V":
                verse += 1
                label += f" {verse}" if num_verses > 1 else ""
                singer = guest if guest and verse == 2 else singer
            labels.append(f"[{label}: {singer}]\n" if named else f"[{label}]\n")
        return labels

    def write(self) -> tuple[str, str]:
        """Write the song out: (title, lyrics)."""
        written: dict[str, str] = {}
        blocks = []
        for section, label in zip(self.form, self.label_sections(), strict=True):
            if section[0] == "V" or section not in written:
                written[section] = "\n".join(map(capitalize_line, self.write_section(section)))
            blocks.append(label + written[section])
        fillings = {"NAME": self.pick(self.artist.names), "TOWN": self.pick(self.artist.towns)}
        lyrics, title = "\n\n".join(blocks), self.phrase
        for slot, mark in SONG_SLOTS.items():
            lyrics, title = lyrics.replace(mark, fillings[slot]), title.replace(mark, fillings[slot])
        return capitalize_title(title), lyrics


def write_song(index: int, seed: int, artists: Sequence[Artist], length: Length = "full") -> Song:
    """Write song number `index` of a seed; it depends on nothing else but the artists to draw from and the length."""
    dice = random.Random(f"{seed}:{index}").random  # a text seed goes through SHA-512, not through hash()
    palette = build_palette(artists[int(dice() * len(artists))].name)
    draft = Draft(dice, palette, length)
    title, lyrics = draft.write()
    return Song(
        id=f"made-{index:06d}",
        lyrics=lyrics,
        title=title,
        artist=draft.artist.name,
        genre=draft.artist.genre,
        year=draft.album.year,
        album=draft.album.title,
        themes=draft.themes,
        source=SOURCE,
    )


def generate_songs(
    num_songs: int,
    seed: int,
    *,
    length: Length = "full",
    artists_per_genre: int | None = None,
) -> Iterator[Song]:
    """Generate songs one by one, in constant memory; song i is the same whatever `num_songs` is.

    Args:
        num_songs: How many.
        seed: Seed of the whole corpus.
        length: "short" for one verse and one chorus, "full" for the artist's own form.
        artists_per_genre: Draw from the first so many artists of each genre only; None for all.

    Raises:
        ConfigError: A negative number of songs, an unknown length, or no or more artists than there are.
    """
    if num_songs < 0:
        raise ConfigError(f"Got {num_songs} songs; expected a number of 0 or more.")
    if length not in ("short", "full"):
        raise ConfigError(f"Got the length {length!r}; expected 'short' or 'full'.")
    most = len(list_artists()) // len(GENRES)
    if artists_per_genre is not None and not 1 <= artists_per_genre <= most:
        raise ConfigError(f"Got {artists_per_genre} artists per genre; expected 1 to {most}.")
    artists = list_artists(artists_per_genre)
    return (write_song(index, seed, artists, length) for index in range(num_songs))
