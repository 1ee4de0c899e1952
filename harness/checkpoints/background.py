"""A save that goes on in a thread while training goes on: at most one, and its outcome is the same on all ranks.

The thread's collectives run in a group that nothing else uses while it lives. Every rank starts saves in the same
order and makes the same collectives in each, whatever its disk does, so they pair up. The training thread hears of the
outcome only where all ranks' threads have ended: at the end of each step it asks, in a second group, whether they
have. So a failure is raised by all ranks after the same step, and none is left waiting in the next step's collective.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from harness.dist import HostGroup, is_true_everywhere


class BackgroundSave:
    """One save in a thread of its own.

    Args:
        action: What to run.
        group: Through which the ranks' training threads ask each other.
    """

    def __init__(self, action: Callable[[], None], group: HostGroup) -> None:
        self._action = action
        self._group = group
        self._failure: Exception | None = None
        # Not a daemon: an interpreter that ends waits for the save.
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=False)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._action()
        except Exception as error:  # noqa: BLE001 - raised where training hears of it
            self._failure = error

    def has_ended_everywhere(self) -> bool:
        """Whether every rank's thread has ended; every rank must call this."""
        return is_true_everywhere(not self._thread.is_alive(), self._group)

    def join(self) -> None:
        """Wait for this rank's thread.

        Raises:
            UserError: The save failed.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
