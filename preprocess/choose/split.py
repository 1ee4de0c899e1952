"""Songs parted into training and evaluation, by song, reproducibly."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from preprocess.schema import Song


def priority(seed: int, song_id: str, purpose: str) -> int:
    """A 64-bit number that depends on the seed, the song and the purpose alone; the smallest are taken first."""
    digest = hashlib.blake2b(f"{purpose}\x1f{seed}\x1f{song_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def split_songs(
    songs: Sequence[Song], num_eval: int, train_songs_per_artist: int, seed: int
) -> tuple[list[Song], list[Song]]:
    """Set songs aside for evaluation, from every genre in proportion to its size.

    Args:
        songs: Songs without duplicates.
        num_eval: Songs to set aside; fewer are when artists would lose their last training songs.
        train_songs_per_artist: At least so many songs of an artist stay in training when one is set aside.
        seed: Chooses among equals.
    """
    by_genre: dict[str, list[Song]] = {}
    for song in songs:
        by_genre.setdefault(song.genre or "", []).append(song)
    left = Counter(song.artist.casefold() for song in songs if song.artist)
    shares = share_out({genre: len(members) for genre, members in by_genre.items()}, num_eval)
    aside: set[int] = set()
    for genre in sorted(by_genre):
        members = sorted(by_genre[genre], key=lambda song: priority(seed, song.id, "evaluate"))
        num_aside = 0
        for song in members:
            artist = song.artist.casefold() if song.artist else None
            if num_aside == shares[genre]:
                break
            if artist is None or left[artist] > train_songs_per_artist:
                aside.add(id(song))
                num_aside += 1
                left[artist or ""] -= 1
    return [song for song in songs if id(song) not in aside], [song for song in songs if id(song) in aside]


def share_out(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Share a total out in proportion to sizes, by largest remainders; no share exceeds its size."""
    whole = sum(sizes.values())
    total = min(total, whole)
    exact = {name: total * size / whole for name, size in sizes.items()}
    shares = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares
