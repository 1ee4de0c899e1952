"""The project's own made-up songs, with ground truth: artists of measurable styles, seeded, in any number.

    write_corpus("songs.parquet", generate_songs(10_000, seed=0), "genius", 10_000)

The words are in `data/`, one file a genre; `grammar` bends them to a singer's person, `palette` compiles what
one artist can sing, `songwriter` writes a song, `output` writes files.
"""

from preprocess.corpus.material import Album, Artist, list_artists, load_themes
from preprocess.corpus.output import Shape, write_corpus
from preprocess.corpus.songwriter import Length, generate_songs, write_song

ARTISTS: tuple[Artist, ...] = list_artists()
"""All invented artists, by genre in the order of `schema.GENRES`."""

THEMES: tuple[str, ...] = tuple(theme.name for theme in load_themes())
"""All themes a song may carry."""

__all__ = [
    "ARTISTS",
    "THEMES",
    "Album",
    "Artist",
    "Length",
    "Shape",
    "generate_songs",
    "list_artists",
    "write_corpus",
    "write_song",
]
