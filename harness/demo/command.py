"""`harness demo`: what answers, and where the answers go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from socket import socket

from rich.console import Console

from harness.demo.asking import FAILURES, Audience, Nobody, ask_all, fail, tell_error
from harness.demo.choosing import DemoOptions, choose_questions
from harness.demo.items import Demo, DemoItem, join_notes, write_demo
from harness.demo.page import DemoPage, make_page, write_page
from harness.demo.prompts import Prompt, list_lyrics_tasks
from harness.demo.speaker import OpenData, Speaker, open_data, open_speaker, unasked_item
from harness.demo.stored import Stored, describe_source, read_stored, write_stored
from harness.demo.terminal import LiveTable, print_demo, print_source, print_summary
from harness.subject import Subject
from preprocess.errors import ConfigError, UserError
from preprocess.terminal import make_console, print_json


def run_demo(subject: Subject | None, options: DemoOptions) -> None:
    """Ask, or show what is stored where there is no model, and put the answers where they are wanted.

    Raises:
        ConfigError: The options do not go together, or ask for a model where none is named.
        UserError: The model, the data set or a file is missing or damaged.
    """
    options.check()
    stored = read_stored(options.stored)
    console = make_console(error=options.json)
    if subject is None:
        show_stored(stored, options, console)
        return
    with redirect_stdout(sys.stderr):  # a library that warns there would spoil the JSON
        try:
            data, prompts, note = prepare(subject, options)
        except UserError as error:
            if options.html is not None:
                page = DemoPage(stored.items, [("Stored answers", stored.source)], failure=tell_error(error))
                write_page(options.html, page)
            raise
    if options.web:
        serve_live(subject, data, prompts, note, stored, options, console)
        return
    ask_and_show(subject, data, prompts, note, stored, options, console)


def show_stored(stored: Stored, options: DemoOptions, console: Console) -> None:
    """Show stored answers, with no model at all."""
    if options.needs_model:
        raise ConfigError(
            "pass --run RUN, or --model MODEL and --data DATA (and --adapter ADAPTER): without a model there are only "
            "the stored answers about the shipped examples"
        )
    items = list(stored.items)[: options.examples]
    demo = Demo(items, 0.0, 0)
    if options.web:
        page = DemoPage(items, [("Stored answers", stored.source)], note="No model is loaded.")
        with open_listener(options.port) as listener:
            serve_page(page, None, [], stored, options, listener, console)
        return
    if options.html is not None:
        write_page(options.html, make_page(demo, None, stored.source))
        console.print(f"page: {options.html}", markup=False, highlight=False, soft_wrap=True)
    if options.json:
        print_json(demo.to_json())
    elif options.html is None:
        print_source(stored.source, console)
        print_demo(demo, console)


def prepare(subject: Subject, options: DemoOptions) -> tuple[OpenData, list[Prompt], str | None]:
    """The questions, before any model is loaded, and what the reader must know."""
    data = open_data(subject.data)
    prompts, note = choose_questions(data, options)
    return data, prompts, join_notes([data.note, note])


def ask_and_show(
    subject: Subject,
    data: OpenData,
    prompts: Sequence[Prompt],
    note: str | None,
    stored: Stored,
    options: DemoOptions,
    console: Console,
) -> None:
    """Ask every question, and put the answers where they are wanted; fails at the end if generating failed."""
    table = LiveTable(console)
    audience: Audience = Nobody() if options.json else table
    try:
        with redirect_stdout(sys.stderr):
            load = partial(open_speaker, subject.settings, data, subject.adapter)
            demo, failure = ask_all(load, prompts, options.asking, audience, stored.by_question())
    finally:
        table.stop()
    demo = replace(demo, note=join_notes([note, demo.note]))
    if options.json:
        print_json(demo.to_json())
    else:
        print_summary(demo, console)
    keep(subject, data, demo, stored, options, console)
    if failure is not None:
        fail(failure)


def keep(
    subject: Subject,
    data: OpenData,
    demo: Demo,
    stored: Stored,
    options: DemoOptions,
    console: Console,
) -> None:
    """Write the files that were asked for, and `demo.json` into the run's folder."""
    asks_own = options.lyrics is not None or options.question is not None
    if subject.output is not None and not asks_own and demo.failure is None:
        write_demo(subject.output, demo)
    if options.html is None and options.store is None:
        return
    today = datetime.now(UTC).date().isoformat()
    live = None
    if any(not item.is_stored for item in demo.items):
        live = describe_source(subject.settings.path, subject.adapter, data.manifest, today)
    if options.store is not None and demo.failure is None and live is not None:
        write_stored(options.store, demo, live)
        console.print(f"stored: {options.store}", markup=False, highlight=False, soft_wrap=True)
    if options.html is not None:
        write_page(options.html, make_page(demo, live, stored.source))
        console.print(f"page: {options.html}", markup=False, highlight=False, soft_wrap=True)


def serve_live(
    subject: Subject,
    data: OpenData,
    prompts: Sequence[Prompt],
    note: str | None,
    stored: Stored,
    options: DemoOptions,
    console: Console,
) -> None:
    """Take the port, load the model and serve the page; a model that cannot be loaded is named on it.

    Raises:
        ConfigError: The library that serves pages is not installed.
        PreflightError: The port is taken.
    """
    with open_listener(options.port) as listener:
        speaker, failure = None, None
        try:
            speaker = open_speaker(subject.settings, data, subject.adapter)
        except FAILURES as error:
            failure = tell_error(error)
            console.print(f"the model cannot be loaded: {failure}", markup=False, highlight=False)
        items = list_cards(prompts, stored, is_live=speaker is not None)
        page = DemoPage(
            items,
            [("Stored answers", stored.source)] if any(item.is_stored for item in items) else [],
            note=note,
            failure=failure,
            tasks=[] if speaker is None else list_lyrics_tasks(data.manifest.tasks),
        )
        serve_page(page, speaker, prompts, stored, options, listener, console)


def list_cards(prompts: Sequence[Prompt], stored: Stored, *, is_live: bool) -> list[DemoItem]:
    """The questions that a served page shows: with their stored answers, else, where a model can be asked, without.

    Without a model, and where none of them has a stored answer, all that is stored.
    """
    known = stored.by_question()
    cards = [known.get((prompt.song.id, prompt.task)) or unasked_item(prompt) for prompt in prompts]
    return cards if is_live else [card for card in cards if card.is_stored] or list(stored.items)


def open_listener(port: int) -> socket:
    """Take a port of this machine.

    Raises:
        ConfigError: The library that serves pages is not installed.
        PreflightError: The port is taken.
    """
    try:
        from harness.demo.serving import listen
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--web needs the package {error.name}; pip install 'lyrics-harness[web]', or pip install starlette uvicorn"
        ) from error
    return listen(port)


def serve_page(
    page: DemoPage,
    speaker: Speaker | None,
    prompts: Sequence[Prompt],
    stored: Stored,
    options: DemoOptions,
    listener: socket,
    console: Console,
) -> None:
    """Serve the page until Ctrl-C."""
    from harness.demo.serving import serve
    from harness.demo.web import Questions

    serve(Questions(page, speaker, prompts, stored.by_question(), options.asking), listener, console)
