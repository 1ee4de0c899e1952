"""A process that has imported the harness once and forks ranks, each of which runs a module's `main` like `python -m`.

Starting Python with torch and DeepSpeed takes seconds, a fork takes none. A forked rank is a process like any other:
it has its own session, environment, log file and exit code, and dies by itself. Requests and answers are lines of
JSON on stdin and stdout:

    {"module": M, "arguments": [...], "environment": {...}, "log": PATH}  →  {"pid": P}
    a rank that ends                                                     →  {"pid": P, "code": C}
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
from importlib import import_module
from typing import Any

PRELOADED = (
    "harness.train",
    "peft",
    "transformers.models.llama.modeling_llama",
    "deepspeed.runtime.zero.muon.muon_optimizer",  # which compiles, and so imports half of torch
)


def main() -> int:
    """Import what ranks need, say so, and fork until stdin ends."""
    for name in PRELOADED:
        import_module(name)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(writer)
    tell({"ready": os.getpid()})
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(reader, selectors.EVENT_READ)
        waiting = b""
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if key.fd == reader:
                    reap()
                    continue
                if not data:
                    return 0
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    pid = os.fork()
                    if pid == 0:
                        signal.set_wakeup_fd(-1)
                        selector.close()
                        os.close(reader)
                        os.close(writer)
                        return become(request)
                    tell({"pid": pid})


def tell(value: dict[str, int]) -> None:
    """Write an answer."""
    os.write(1, json.dumps(value).encode() + b"\n")


def reap() -> None:
    """Tell the exit codes of the ranks that have ended; minus the signal's number for a killed one."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        tell({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def become(request: dict[str, Any]) -> int:
    """Run the module's `main` in this fork; what it returns or raises ends the process as it would end any."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(number, target)
    os.closerange(3, 256)
    os.environ.update(request["environment"])
    sys.argv = [request["module"], *request["arguments"]]
    code: int = import_module(request["module"]).main(request["arguments"])
    return code


if __name__ == "__main__":
    sys.exit(main())
