"""A demo in a terminal: both answers growing side by side, then with the truth check's marks."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.demo.items import ELLIPSIS, Demo, DemoItem, Mark, Reply, Version, shorten
from harness.demo.prompts import Prompt
from harness.demo.speaker import Said
from harness.demo.stored import Source
from harness.demo.wording import LEGEND, SIGNS, describe_confidence
from harness.evaluation.truth.claims import Verdict
from preprocess.outside_text import visible

STYLES: dict[Verdict, str] = {"supported": "green", "contradicted": "red", "not checkable": "dim"}
HEADINGS: dict[Version, str] = {"before": "before", "after": "after"}

NUM_SHOWN_WHILE_GROWING = 700
"""Characters of a growing answer, from its end: a table that is taller than the terminal shows its top alone."""

REFRESH_PER_S = 10


class LiveTable:
    """Shows each question with its growing answers, and leaves them with their marks.

    Off a terminal nothing grows: each question appears when it is answered.

    Args:
        console: Where.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._texts: dict[Version, str] = {}
        self._live: Live | None = None

    def begin(self, prompt: Prompt) -> None:
        """Show a question."""
        if not self.console.is_terminal:
            return
        print_question(
            prompt.song.title, prompt.song.artist, shorten(prompt.song.lyrics), prompt.question, self.console
        )
        self._texts = {"before": ""}
        self._live = Live(
            self._table(), console=self.console, refresh_per_second=REFRESH_PER_S, transient=True
        )
        self._live.start()

    def hear(self, said: Said) -> None:
        """Show what was said so far."""
        self._texts[said.version] = said.text
        if self._live is not None:
            self._live.update(self._table())

    def end(self, item: DemoItem) -> None:
        """Show the whole answers; a stored item's question too, for it need not be the one that was begun."""
        if self._live is None or item.is_stored:
            self.stop()
            print_item(item, self.console)
            return
        self.stop()
        print_answers(item, self.console)

    def stop(self) -> None:
        """Take the growing table away, if there is one."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        return side_by_side({version: plain(tail(text)) for version, text in self._texts.items()})


def tail(text: str) -> str:
    """The end of a text that is too long to be shown while it grows."""
    if len(text) <= NUM_SHOWN_WHILE_GROWING:
        return text
    return f"{ELLIPSIS} {text[-NUM_SHOWN_WHILE_GROWING:]}"


def side_by_side(texts: dict[Version, Text]) -> Table:
    """A column for each version."""
    table = Table(expand=True)
    for version in texts:
        table.add_column(HEADINGS[version], ratio=1)
    table.add_row(*texts.values())
    return table


def print_question(
    title: str | None, artist: str | None, lyrics_excerpt: str, question: str, console: Console
) -> None:
    """What is asked of which song."""
    facts = " by ".join(fact for fact in (title, artist) if fact)
    console.rule(plain(facts or "lyrics"))
    console.print(plain(lyrics_excerpt, style="dim"))
    console.print(plain(f"\n{question}", style="bold"))


def print_item(item: DemoItem, console: Console) -> None:
    """One question with its answers."""
    print_question(item.title, item.artist, item.lyrics_excerpt, item.question, console)
    print_answers(item, console)


def print_answers(item: DemoItem, console: Console) -> None:
    """The answers side by side, what is wrong in them, and the right one."""
    if item.is_stored:
        console.print(plain(f"stored answers of {item.date}", style="yellow"))
    table = side_by_side({version: mark_text(reply) for version, reply in item.replies.items()})
    table.add_section()
    table.add_row(*(plain(describe_reply(reply), style="dim") for reply in item.replies.values()))
    console.print(table)
    for version, reply in item.replies.items():
        for mark in reply.marks:
            if mark.verdict == "contradicted":
                said = " ".join(reply.text[mark.start : mark.end].split())
                console.print(plain(f"✗ {HEADINGS[version]}: {said}: {mark.why}", style="red"))
    if item.expected is not None:
        console.print(plain(f"expected: {item.expected}\n", style="green"))


def mark_text(reply: Reply) -> Text:
    """An answer with a sign behind each claim."""
    text = Text()
    for stretch in reply.stretches:
        style = "" if stretch.mark is None else style_of(stretch.mark)
        text.append(visible(stretch.text), style=style)
        if stretch.mark is not None and stretch.mark.kind != "none":
            text.append(f" {SIGNS[stretch.mark.verdict]}", style=f"bold {style}")
    return text


def style_of(mark: Mark) -> str:
    """Colour of a claim; a sentence without one has none."""
    return "" if mark.kind == "none" else STYLES[mark.verdict]


def describe_reply(reply: Reply) -> str:
    """Confidence, checked claims and speed, in words."""
    told = [describe_confidence(reply.confidence, reply.likeliest)] if reply.confidence is not None else []
    counts = [f"{reply.count(verdict)} {SIGNS[verdict]}" for verdict in SIGNS if reply.count(verdict)]
    told += [" ".join(counts)] if counts else []
    told += [f"{reply.tokens_per_s:,.1f} tokens/s"] if reply.tokens_per_s else []
    return " · ".join(told)


def print_demo(demo: Demo, console: Console) -> None:
    """Each question with its answers side by side. Lyrics and answers are never read as markup."""
    for item in demo.items:
        print_item(item, console)
    print_summary(demo, console)


def print_summary(demo: Demo, console: Console) -> None:
    """What the reader must know, and the speed."""
    if any(reply.checked for item in demo.items for reply in item.replies.values()):
        console.print(plain(LEGEND, style="dim"))
    if demo.note:
        console.print(plain(demo.note))
    if demo.num_tokens:
        speed = f", {demo.num_tokens / demo.seconds:,.1f} tokens/s" if demo.seconds > 0 else ""
        console.print(plain(f"{demo.num_tokens:,} tokens in {demo.seconds:,.1f} s{speed}"))


def print_source(source: Source, console: Console) -> None:
    """What gave stored answers."""
    hashes = ", ".join(f"{name} {sha256[:12]}…" for name, sha256 in source.hashes)
    console.print(plain(f"Stored answers of {source.date}, by {source.model} ({hashes}).", style="yellow"))


def plain(text: str, style: str = "") -> Text:
    """Somebody's text for the terminal: no markup, control characters as pictures."""
    return Text(visible(text), style=style)
