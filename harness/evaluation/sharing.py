"""How ranks share the songs of an evaluation: each song is one rank's, and what they found comes together as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from preprocess.outside_text import parse_json

T = TypeVar("T")


def _alone(own: bytes) -> list[bytes]:
    return [own]


def _at_once(action: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the action gives
    return action()


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among those that share an evaluation.

    Attributes:
        rank: 0 … size - 1.
        size: Processes over all hosts.
        gather: Gives the bytes of all ranks in rank order, on every rank; all must call it in the same order.
        together: Runs an action on every rank; where it fails on one, all fail instead of waiting for it.
    """

    rank: int = 0
    size: int = 1
    gather: Callable[[bytes], list[bytes]] = _alone
    together: Callable[[Callable[[], Any]], Any] = _at_once

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's part: every item is in exactly one rank's, and parts differ in length by at most one."""
        return list(items[self.rank :: self.size])

    def gather_records(self, records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The records of all ranks, rank 0's first, on every rank.

        Raises:
            ValueError: A record is no JSON, or holds a number that is not finite.
        """
        lines = "\n".join(json.dumps(record, allow_nan=False, ensure_ascii=False) for record in records)
        parts = (part.decode("utf-8") for part in self.gather(lines.encode("utf-8")))
        return [parse_json(line) for part in parts for line in part.split("\n") if line]


ALONE = Ranks()
