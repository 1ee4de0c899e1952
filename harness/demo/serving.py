"""Serve the demo's page on this machine."""

from __future__ import annotations

import socket

import uvicorn
from rich.console import Console

from harness.demo.web import HOST, Questions, make_app
from preprocess.errors import PreflightError


def serve(questions: Questions, listener: socket.socket, console: Console) -> None:
    """Answer requests until Ctrl-C.

    Args:
        questions: What is answered from.
        listener: As `listen` gives it.
        console: Told the page's address.
    """
    port = listener.getsockname()[1]
    console.print(f"demo: http://{HOST}:{port}/   (Ctrl-C ends it)", markup=False, highlight=False)
    make_server(questions, port).run(sockets=[listener])


def make_server(questions: Questions, port: int) -> uvicorn.Server:
    """A server that will be given its listening socket."""
    settings = uvicorn.Config(
        make_app(questions, port),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(settings)


def listen(port: int) -> socket.socket:
    """A socket on the loopback address, which no other machine reaches.

    Args:
        port: 0 for any free one.

    Raises:
        PreflightError: The port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # a browser that is quicker than the server waits instead of being refused
    except OSError as error:
        listener.close()
        raise PreflightError(f"port {port} of {HOST}: {error.strerror}; take another with --port") from error
    return listener
