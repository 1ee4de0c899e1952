"""Start a module as a rank under mpirun or srun: `rank.py MODULE ARGUMENT…`.

These name a process's place among the ranks in variables of their own; here they get the names that torch reads.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import MutableMapping

PLACES = {
    "RANK": ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"),
    "LOCAL_RANK": ("OMPI_COMM_WORLD_LOCAL_RANK", "PALS_LOCAL_RANKID", "MPI_LOCALRANKID", "SLURM_LOCALID"),
    "WORLD_SIZE": ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"),
    "LOCAL_SIZE": ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"),
}
"""For each of torch's variables, where the runners write it, the first that is set wins."""


def adopt_place(environment: MutableMapping[str, str]) -> None:
    """Set RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_SIZE from what the runner set, where they are not set yet.

    Raises:
        SystemExit: The rank cannot be told; a process that took itself for the only one would train alone.
    """
    for name, sources in PLACES.items():
        found = next((environment[source] for source in sources if environment.get(source)), None)
        if name not in environment and found is not None:
            environment[name] = found
    missing = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name not in environment]
    if missing:
        print(
            f"error: the launcher set none of {', '.join(PLACES[missing[0]])}; {missing[0]} is unknown",
            file=sys.stderr,
        )
        raise SystemExit(3)


def main() -> None:
    """Entry point of the file."""
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    adopt_place(os.environ)
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
