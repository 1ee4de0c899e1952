"""A small page on this machine alone: `harness demo --web`.

    GET  /          the page: stored answers, and a form where a model is there
    GET  /demo.js   its script
    POST /ask       {"song", "task"} or {"lyrics", "task" | "question"}; server-sent events, each a JSON object:
                    {"kind": "said", "version", "heading", "text"}, at last {"kind": "item", "html"} or
                    {"kind": "failed", "failure", "html"}

It listens on 127.0.0.1. A page of another site that leads a name of its own here (DNS rebinding) is refused by the
Host header, one that sends questions from elsewhere by its Origin and by the JSON content type. One question is
answered at a time.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncGenerator, Collection, Generator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from harness.demo.asking import FAILURES, StoredItems, tell_error
from harness.demo.items import DemoItem
from harness.demo.lyrics import check_lyrics, prompt_lyrics
from harness.demo.page import HEADINGS, DemoPage, render_item, render_page
from harness.demo.prompts import Prompt
from harness.demo.speaker import Asking, Said, Speaker
from preprocess.errors import ConfigError, UserError
from preprocess.outside_text import parse_json

LOG = logging.getLogger(__name__)

HOST = "127.0.0.1"
HTTP_PORT = 80
"""A browser leaves this one out of the Host header and of the Origin."""

MAX_BODY_BYTES = 2**20

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LoopbackOnly:
    """Lets requests through that a browser on this machine sends for this page, and no others.

    Args:
        app: The application behind it.
        port: The port that it is served on.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        names = {HOST, "localhost"}
        self.hosts = {f"{name}:{port}" for name in names}
        if port == HTTP_PORT:
            self.hosts |= names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request by its headers with 403, or hand it on."""
        if scope["type"] == "http" and not self._is_own(Request(scope)):
            await PlainTextResponse("not for this host or from this page", 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_own(self, request: Request) -> bool:
        host, origin = request.headers.get("host"), request.headers.get("origin")
        if host not in self.hosts or len(request.headers.getlist("host")) != 1:
            return False
        return origin is None or origin.removeprefix("http://") == host


class Questions:
    """What the page's requests are answered from.

    Args:
        page: The start page.
        speaker: The model, or None.
        prompts: The questions that can be asked by song and task.
        stored: Answers to fall back on.
        asking: How answers are generated.
    """

    def __init__(
        self,
        page: DemoPage,
        speaker: Speaker | None,
        prompts: Sequence[Prompt],
        stored: StoredItems,
        asking: Asking,
    ) -> None:
        self.page = page
        self.speaker = speaker
        self.prompts: dict[tuple[str | None, str | None], Prompt] = {
            (prompt.song.id, prompt.task): prompt for prompt in prompts
        }
        self.stored = stored
        self.asking = asking
        self.is_busy = threading.Lock()

    @property
    def askable(self) -> Collection[tuple[str | None, str | None]]:
        """Song and task of what can be asked by these two; nothing without a model."""
        return () if self.speaker is None else self.prompts.keys()

    def find_prompt(self, speaker: Speaker, body: Mapping[str, Any]) -> tuple[Prompt, str]:
        """The question that a request puts, and what the reader must know of it, or "".

        Raises:
            ConfigError: It puts none.
            DataError: Its lyrics are none.
        """
        texts = {key: value for key, value in body.items() if isinstance(value, str)}
        if "lyrics" in texts:
            lyrics = check_lyrics(texts["lyrics"], "the lyrics")
            task, question = texts.get("task"), texts.get("question")
            prompt, note = prompt_lyrics(
                speaker.data.manifest,
                speaker.data.tokenizer,
                speaker.data.prompt,
                lyrics,
                task=task,
                question=question,
                max_new_tokens=self.asking.max_new_tokens,
            )
            return prompt, note or ""
        key = (texts.get("song", ""), texts.get("task"))
        if key not in self.prompts:
            raise ConfigError("no such question")
        return self.prompts[key], ""

    def answer(
        self, speaker: Speaker, prompt: Prompt, note: str = ""
    ) -> Generator[dict[str, str], None, None]:
        """The events of one answer. A failure is one of them, with the stored answer where there is one."""
        key = (prompt.song.id, prompt.task)
        can_ask = key in self.prompts
        try:
            for event in speaker.ask(prompt, self.asking):
                if isinstance(event, Said):
                    heading = HEADINGS[event.version]
                    yield {"kind": "said", "version": event.version, "heading": heading, "text": event.text}
                else:
                    yield {"kind": "item", "html": render_item(event, can_ask=can_ask, note=note)}
        except FAILURES as error:
            LOG.warning("the demo's generation failed: %s", tell_error(error))
            kept: DemoItem | None = self.stored.get(key)
            html = "" if kept is None else render_item(kept, can_ask=can_ask, failure=tell_error(error))
            yield {"kind": "failed", "failure": tell_error(error), "html": html}


async def send_events(
    questions: Questions, events: Generator[dict[str, str], None, None]
) -> AsyncGenerator[str, None]:
    """Server-sent events, each as soon as a worker thread has made it.

    A reader who leaves frees the model, and what the unfinished answer holds of its memory.
    """
    if not questions.is_busy.acquire(blocking=False):
        yield encode_event({"kind": "failed", "failure": "another question is being answered", "html": ""})
        return
    try:
        while (event := await run_in_threadpool(next, events, None)) is not None:
            yield encode_event(event)
    finally:
        events.close()
        questions.is_busy.release()


def encode_event(event: Mapping[str, str]) -> str:
    """A server-sent event; JSON holds no line end of its own."""
    return f"data: {json.dumps(event, ensure_ascii=False, allow_nan=False)}\n\n"


async def read_body(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request.

    Raises:
        ConfigError: It is another type, too large, or no JSON object.
    """
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise ConfigError("expected application/json")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            raise ConfigError(f"more than {MAX_BODY_BYTES:,} bytes")
    try:
        body = parse_json(content)
    except ValueError as error:
        raise ConfigError(f"not JSON ({error})") from error
    if not isinstance(body, dict):
        raise ConfigError("expected a JSON object")
    return body


def make_app(questions: Questions, port: int) -> LoopbackOnly:
    """The application.

    Args:
        questions: What it answers from.
        port: The port that it will be served on; requests for another are refused.
    """

    async def show_page(_: Request) -> Response:
        return HTMLResponse(render_page(questions.page, web=True, askable=questions.askable), headers=HEADERS)

    async def show_script(_: Request) -> Response:
        script = files("harness.demo").joinpath("demo.js").read_text(encoding="utf-8")
        return Response(script, media_type="text/javascript", headers=HEADERS)

    async def ask(request: Request) -> Response:
        if questions.speaker is None:
            return PlainTextResponse("no model is loaded: start with --run RUN", 503, headers=HEADERS)
        try:
            prompt, note = questions.find_prompt(questions.speaker, await read_body(request))
        except UserError as error:
            return PlainTextResponse(str(error), 400, headers=HEADERS)
        events = questions.answer(questions.speaker, prompt, note)
        return StreamingResponse(
            send_events(questions, events), media_type="text/event-stream", headers=HEADERS
        )

    routes = [
        Route("/", show_page),
        Route("/demo.js", show_script),
        Route("/ask", ask, methods=["POST"]),
    ]
    return LoopbackOnly(Starlette(routes=routes), port)
