"""Which records are shown: the newest of each program, machine and command, and those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.recorded import Record, read_records
from preprocess.errors import DataError


@dataclass(frozen=True, slots=True)
class History:
    """The records of one program on one machine by one command, oldest first; at least one."""

    records: tuple[Record, ...]

    @property
    def newest(self) -> Record:
        """The last that was appended."""
        return self.records[-1]


def read_histories(results: Path) -> list[History]:
    """Every history, by program.

    Raises:
        DataError: The folder holds no record, or a damaged file.
    """
    records = [record for path in sorted(results.glob("*.jsonl")) for record in read_records(path)]
    if not records:
        raise DataError(f"{results}: no records there. Make one with `python -m bench NAME --record`.")
    grouped: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        grouped.setdefault((record.name, name_machine(record), record.command), []).append(record)
    return [History(tuple(group)) for group in grouped.values()]


def name_machine(record: Record) -> str:
    """A machine in a few words: processor, threads, memory; and the card, where a program names one."""
    machine = record.machine
    card = record.facts.get("card_name", "cpu")
    words = [str(machine.get("cpu")), f"{machine.get('usable_threads') or machine.get('threads')} threads"]
    words += [f"{machine.get('ram_gib')} GiB"] + ([] if card == "cpu" else [str(card)])
    return ", ".join(words)


def list_doubts(histories: Sequence[History]) -> list[str]:
    """What a reader must know of the newest records: those made beside other work, or of uncommitted files."""
    loaded, changed = [], []
    for record in (history.newest for history in histories):
        threads = record.machine.get("usable_threads") or record.machine.get("threads") or 1
        load = max(record.load_average[:1] + record.load_average_at_end[:1], default=0.0)
        if load > 1.5 * threads:
            loaded.append(f"{record.name} ({load:.1f})")
        if record.commit is None or record.commit.endswith("+"):
            changed.append(record.name)
    doubts = [f"Made beside other work, by load average: {', '.join(loaded)}."] if loaded else []
    return doubts + (
        [f"Made with files that no commit holds: {', '.join(dict.fromkeys(changed))}."] if changed else []
    )
