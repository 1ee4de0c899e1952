"""Two made-up songs, and a catalogue of others, that the statements of statements.txt speak of."""

from __future__ import annotations

from preprocess.knowledge import CorpusFigures, Knowledge, KnownSong
from preprocess.schema import Song
from preprocess.tasks.counts import CorpusCounts
from preprocess.tasks.statistics import CorpusStatistics

_CHORUS = """\
[Chorus]
Oh, carry me home, carry me home
Down the gravel road where the wild dogs roam
Carry me home before the river runs dry
Carry me home and I'll tell you why"""

_COUNTRY = f"""\
[Verse 1]
Copper rain on a tin roof town
Mama's old truck and the sun going down
I packed my heart in a cardboard case
And I left my tears on my mother's face

{_CHORUS}

[Verse 2]
Daddy prayed by the kitchen light
Said a family's strong if it holds on tight
I kissed him once and I told him true
Every road I ride brings me back to you

{_CHORUS}"""

_HIP_HOP = """\
[Verse 1]
I started with a dollar and a dream on the block
Counting every penny to the beat of the clock
They told me I would never make it out of the cold
Now the penthouse shines and the records are sold

[Hook]
We came up, we came up, from the bottom to the top
We came up, we came up, and we never gonna stop"""

SONGS = {
    "A": Song(
        "a",
        _COUNTRY,
        "Copper Rain",
        "The Marlow Sisters",
        "Country",
        1987,
        "Dust and Diamonds",
        ("home", "family"),
    ),
    "B": Song(
        "b", _HIP_HOP, "Top of It", "Kid Lantern & Nova Reyes", "Hip-Hop", 2004, None, ("success", "struggle")
    ),
}
"""By the letter that the statements give them."""

_CATALOGUE = (
    KnownSong("1", "Blue Window", "Jo Winter", "Folk", 1979, "Windows"),
    KnownSong("2", "Slow Water", "Jo Winter", "Folk", 1981, "Windows"),
    KnownSong("3", "Glass Horses", "Heart", "Rock", 1976),
    KnownSong("4", "Any Answer", "Yes", "Rock", 1972),
    KnownSong("5", "Night Shift", "Kid Lantern & Nova Reyes", "Hip-Hop", 2005),
    KnownSong("6", "Streetlight", "Kid Lantern", "Hip-Hop", 2001),
    KnownSong("7", "Tin Roof", "The Marlow Sisters", "Country", 1989),
    KnownSong("8", "Prairie", "America", "Folk", 1974),
    KnownSong("9", "Wire", "The Band", "Rock", 1970),
)


def make_knowledge() -> Knowledge:
    """The catalogue; no songs were counted."""
    return Knowledge(_CATALOGUE, CorpusFigures.of(CorpusStatistics(CorpusCounts())))
