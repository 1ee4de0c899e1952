"""Sent to a host as text: tell its addresses and a free port, be told its place, become a measuring rank.

The standard library alone; `sys.executable` is the Python that the ranks of a run have.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys

MARK = "lyrics-link: "
PORTS = range(20000, 30000)


def find_port() -> int:
    """A port that nobody listens on."""
    for port in random.sample(PORTS, 100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("no free port among 100 tried")


addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
print(MARK + json.dumps({"addresses": addresses, "port": find_port()}), flush=True)
order = json.loads(sys.stdin.buffer.readline())
os.chdir(order["folder"])
os.environ.update(order["variables"])
os.execv(sys.executable, [sys.executable, "-m", "harness.cluster.doctor.link_rank"])
