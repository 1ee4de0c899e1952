"""The demo's page: complete, escaped, without a script in a file, no wider than a phone; the local server's manners."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.demo.command import list_cards
from harness.demo.items import Demo, DemoItem
from harness.demo.page import DemoPage, make_page, render_item, render_page, write_page
from harness.demo.prompts import Prompt, choose_prompts, read_songs
from harness.demo.serving import listen, make_server
from harness.demo.speaker import Asking, Said, Speaker, open_data, open_speaker
from harness.demo.stored import Stored
from harness.demo.web import HOST, Questions, make_app, send_events
from harness.evaluation.questions import open_held_out
from preprocess.errors import PreflightError
from tests.browser import CHROMIUM, open_browser
from tests.demos import make_adapter, make_asked, make_item, settings_of
from tests.hostile import HOSTILE
from tests.test_demo_answers import SOURCE, FailingSpeaker
from tests.test_security_songs import Dangers
from tests.toys import make_model_dir, make_tokenizer

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def test_the_page_shows_answers_marks_confidence_and_where_they_come_from() -> None:
    items = [make_item(), make_item(is_stored=True)]
    live = replace(SOURCE, model="package:live", adapter_sha256="01" * 32)
    page = render_page(make_page(Demo(items, 1.0, 2, failure="at question 2 of 2: X: y"), live, SOURCE))
    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())
    for shown in (
        "live answers of 2026-11-28",
        "stored answers of 2026-11-28",
        "likeliest name: Ada Vale, 31%",
        "11.5 tokens/s",
        "Expected The artist is Jo Winter.",
        "Generation failed at question 2 of 2: X: y Answers marked as stored stand in",
        "✗ contradicted: Ada Vale the artist is Jo Winter",
        "✓ 1 supported ? 1 not checkable",
        "Live answers 2026-11-28, package:live",
        "Stored answers 2026-11-28, package:toy",
        "adapter cdcdcdcdcdcdcdcd… data",
    ):
        assert shown in text
    assert 'Ada Vale<sup aria-hidden="true">✗</sup><span class="unseen"> (contradicted)</span>' in page
    assert "It is a song.</p>" in page.replace("\n", "")


@pytest.mark.parametrize("web", [False, True])
def test_no_level_of_the_headings_is_left_out(*, web: bool) -> None:
    page = render_page(DemoPage([make_item()], [], tasks=("artist",) if web else ()), web=web)
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert all(deeper - level <= 1 for level, deeper in itertools.pairwise(levels))


def test_a_page_names_only_the_sources_of_what_it_shows() -> None:
    assert [title for title, _ in make_page(Demo([make_item()], 1.0, 2), SOURCE, SOURCE).sources] == [
        "Live answers"
    ]
    stored = make_page(Demo([make_item(is_stored=True)], 1.0, 2), None, SOURCE)
    assert [title for title, _ in stored.sources] == ["Stored answers"]


def hostile_items() -> list[DemoItem]:
    return [
        replace(
            make_item(text),
            title=text,
            artist=text,
            lyrics_excerpt=text,
            question=text,
            expected=text,
            song_id=text,
            task=text,
            likeliest_before=text,
            claims_before=(replace(make_item().claims_before[0], start=0, end=len(text), why=text),),
        )
        for text in HOSTILE
    ]


def test_the_file_holds_no_attack_no_script_and_no_address(tmp_path: Path) -> None:
    page = DemoPage(hostile_items(), [("Live", replace(SOURCE, model=HOSTILE[3]))], HOSTILE[-9], HOSTILE[-8])
    write_page(tmp_path / "page.html", page)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("alert(1)") >= 100
    assert Dangers(text).found == []
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:\"" in text


def test_a_card_of_the_server_is_escaped_too() -> None:
    for item in hostile_items():
        assert set(Dangers(render_item(item, can_ask=True, failure=item.question)).found) <= {"button"}


@needs_chromium
def test_a_browser_opens_the_file_light_dark_and_on_a_phone_without_complaint(tmp_path: Path) -> None:
    wide = replace(make_item("W" * 300), title="W" * 200, claims_before=())
    write_page(
        tmp_path / "page.html", make_page(Demo([wide, make_item(is_stored=True)], 1.0, 2), SOURCE, SOURCE)
    )
    url = (tmp_path / "page.html").as_uri()
    with open_browser(tmp_path) as browser:
        browser.open(url)
        assert browser.look(1280) <= 1280
        light = browser.run("getComputedStyle(document.body).backgroundColor")
        assert browser.look(360, dark=True) <= 360
        assert browser.run("getComputedStyle(document.body).backgroundColor") != light
        assert (browser.complaints, browser.requests) == ([], [url])
        broken = (tmp_path / "page.html").read_text("utf-8").replace("</body>", "<script>1</script></body>")
        (tmp_path / "broken.html").write_text(broken, encoding="utf-8")
        browser.open((tmp_path / "broken.html").as_uri())
        assert any("violates" in complaint for complaint in browser.complaints)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Questions:
    data = make_asked(tmp_path_factory.mktemp("data"))
    model_dir = make_model_dir(tmp_path_factory.mktemp("model"), make_tokenizer().vocab_size)
    adapter = make_adapter(model_dir, tmp_path_factory.mktemp("adapter"))
    speaker = open_speaker(settings_of(model_dir), open_data(data), adapter)
    prompts = choose_prompts(open_held_out(data), read_songs(data), 2)
    items = [
        replace(make_item(is_stored=True), title=f"Stored {i}", song_id=prompt.song.id, task=prompt.task)
        for i, prompt in enumerate(prompts)
    ]
    page = DemoPage(items, [("Stored answers", SOURCE)], tasks=("artist", "genre", "themes"))
    stored = {(item.song_id, item.task): item for item in items}
    return Questions(page, speaker, prompts, stored, Asking(8))


@contextmanager
def serve(questions: Questions) -> Iterator[int]:
    with listen(0) as listener:
        port: int = listener.getsockname()[1]
        server = make_server(questions, port)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.fixture(scope="module")
def port(questions: Questions) -> Iterator[int]:
    with serve(questions) as port:
        yield port


def request(
    port: int, method: str, path: str, body: str | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, None if body is None else body.encode(), given)
    answer = connection.getresponse()
    found = (answer.status, dict(answer.getheaders()), answer.read().decode())
    connection.close()
    return found


def ask(port: int, body: Any, **headers: str) -> tuple[int, Any]:
    status, _, text = request(
        port, "POST", "/ask", json.dumps(body), **({"Content_Type": "application/json"} | headers)
    )
    if status != 200:
        return status, text
    return status, [json.loads(event.removeprefix("data: ")) for event in text.strip().split("\n\n")]


def test_the_server_gives_the_page_with_a_policy_and_its_script(port: int) -> None:
    status, headers, page = request(port, "GET", "/")
    assert status == 200
    assert "Stored 0" in page
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    status, headers, script = request(port, "GET", "/demo.js")
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/javascript")
    assert "use strict" in script
    assert request(port, "GET", "/docs")[0] == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content_Type": "text/plain"}, 400),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 400),
    ],
)
def test_requests_of_other_sites_are_refused(port: int, headers: dict[str, str], status: int) -> None:
    assert ask(port, {"lyrics": "la", "task": "artist"}, **headers)[0] == status


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_its_own_requests_pass(port: int, host: str) -> None:
    own = f"{host}:{port}"
    assert ask(port, {"lyrics": "la", "task": "artist"}, Host=own, Origin=f"http://{own}")[0] == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ([], "expected a JSON object"),
        ({}, "no such question"),
        ({"song": "x", "task": "artist"}, "no such question"),
        ({"lyrics": " ", "task": "artist"}, "empty"),
        ({"lyrics": "la \ud800", "task": "artist"}, "surrogate"),
        ({"lyrics": "la", "question": "\ud800"}, "no UTF-8"),
        ({"lyrics": "la"}, "question is empty"),
        ({"lyrics": "la", "task": "nothing"}, "not known"),
        ({"lyrics": "la " * 200_000, "task": "artist"}, "characters"),
        ({"lyrics": "la " * 900_000, "task": "artist"}, "bytes"),
    ],
)
def test_what_cannot_be_asked_is_told(port: int, body: Any, told: str) -> None:
    status, text = ask(port, body)
    assert status == 400
    assert told in text


def test_an_answer_grows_in_both_columns_and_ends_in_a_card(port: int, questions: Questions) -> None:
    (song, task), *_ = questions.prompts
    status, events = ask(port, {"song": song, "task": task})
    assert status == 200
    assert {event["version"] for event in events[:-1]} == {"before", "after"}
    assert events[-1]["kind"] == "item"
    assert "live answers of" in events[-1]["html"]


def test_own_lyrics_are_answered(port: int) -> None:
    status, events = ask(port, {"lyrics": "Sing of 1 < 2 & the river", "question": "What is it about?"})
    assert status == 200
    assert "Sing of 1 &lt; 2 &amp; the river" in events[-1]["html"]


def test_what_must_be_known_of_own_lyrics_stands_on_their_card(port: int) -> None:
    (*_, event) = ask(port, {"lyrics": "Sing of the river", "task": "structure"})[1]
    assert "The data set has no task structure" in event["html"]
    (*_, event) = ask(port, {"lyrics": "Sing of the river", "task": "artist"})[1]
    assert 'class="note" dir' not in event["html"]


def test_without_a_model_only_the_page_is_there(questions: Questions) -> None:
    silent = Questions(DemoPage(questions.page.items, []), None, [], {}, Asking(2))
    with serve(silent) as port:
        page = request(port, "GET", "/")[2]
        assert ask(port, {"lyrics": "la", "task": "artist"}) == (
            503,
            "no model is loaded: start with --run RUN",
        )
    assert "Stored 0" in page
    assert "<form" not in page
    assert "Ask the model" not in page


def test_each_question_has_a_card_and_a_button_stands_where_it_can_be_asked(questions: Questions) -> None:
    first, second = questions.prompts.values()
    kept = questions.stored[first.song.id, first.task]
    stored = Stored(SOURCE, (kept, make_item(is_stored=True)))
    cards = list_cards([first, second], stored, is_live=True)
    assert cards[0] is kept
    assert (cards[1].song_id, cards[1].question) == (second.song.id, second.question)
    assert list_cards([first, second], stored, is_live=False) == [kept]
    assert list_cards([second], stored, is_live=False) == list(stored.items)
    page = DemoPage([*cards, make_item(is_stored=True)], [])
    articles = render_page(page, web=True, askable=questions.askable).split("<article")[1:]
    assert ["Ask the model now" in article for article in articles] == [True, True, False]
    assert ["not asked yet" in article for article in articles] == [False, True, False]
    assert ['class="answer"' in article for article in articles] == [True, False, True]


def test_one_question_at_a_time(port: int, questions: Questions) -> None:
    with questions.is_busy:
        assert ask(port, {"lyrics": "la", "task": "artist"})[1][0]["failure"].startswith("another question")
    assert ask(port, {"lyrics": "la", "task": "artist"})[1][-1]["kind"] == "item"


def test_a_reader_who_leaves_frees_the_model_and_what_the_answer_holds(questions: Questions) -> None:
    closed: list[bool] = []

    def go_on() -> Generator[dict[str, str], None, None]:
        try:
            while True:
                yield {"kind": "said"}
        finally:
            closed.append(questions.is_busy.locked())

    events = go_on()

    async def leave() -> None:
        sent = send_events(questions, events)
        assert await anext(sent) == 'data: {"kind": "said"}\n\n'
        await sent.aclose()

    asyncio.run(leave())
    assert closed == [True], "the next answer waits for the memory of this one"
    assert not questions.is_busy.locked()


def test_on_the_port_of_http_a_browser_names_none(questions: Questions) -> None:
    assert make_app(questions, 80).hosts == {"127.0.0.1", "localhost", "127.0.0.1:80", "localhost:80"}
    assert make_app(questions, 8765).hosts == {"127.0.0.1:8765", "localhost:8765"}


def test_a_taken_port_is_told(port: int) -> None:
    with pytest.raises(PreflightError, match="--port"):
        listen(port)


def press(number: int) -> str:
    return f"document.querySelectorAll('button.again')[{number}].click()"


@needs_chromium
def test_a_browser_asks_and_live_answers_replace_the_stored_ones(
    tmp_path: Path, port: int, questions: Questions
) -> None:
    with open_browser(tmp_path) as browser:
        browser.open(f"http://{HOST}:{port}/")
        browser.run(press(0))
        browser.wait("document.querySelector('#questions article').innerText.includes('live answers of')")
        assert browser.run("document.querySelectorAll('.badge.stored').length") == 1
        browser.run(
            "document.querySelector('textarea').value = 'Sing of 1 < 2 & the river\\nSing of the rain'"
        )
        browser.wait("!document.querySelector('form button').disabled")
        browser.run("document.querySelector('form').requestSubmit()")
        browser.wait("document.querySelector('#own').innerText.includes('live answers of')")
        assert "1 < 2 & the river" in browser.run("document.querySelector('#own blockquote').innerText")
        assert browser.look(360) <= 360
        assert browser.complaints == []
        assert all(url.startswith(f"http://{HOST}:{port}/") for url in browser.requests if url != "data:,")


@needs_chromium
def test_in_a_browser_the_stored_answers_stay_where_generating_fails(
    tmp_path: Path, questions: Questions
) -> None:
    assert questions.speaker is not None
    failing: Any = FailingSpeaker(questions.speaker, 0)
    failing.data = questions.speaker.data
    broken = Questions(questions.page, failing, list(questions.prompts.values()), questions.stored, Asking(8))
    with serve(broken) as port, open_browser(tmp_path) as browser:
        browser.open(f"http://{HOST}:{port}/")
        browser.run(press(1))
        browser.wait("document.querySelector('.failed') !== null")
        card = browser.run("document.querySelectorAll('#questions article')[1].innerText")
        assert "Generation failed: OutOfMemoryError: no memory left. The stored answers are shown." in card
        assert "Stored 1" in card
        assert "Jo Winter" in card
        assert browser.complaints == []


class PausingSpeaker:
    """Says two tokens, and the rest when it is told to."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self.data = speaker.data
        self.may_go_on = threading.Event()

    def ask(self, prompt: Prompt, asking: Asking) -> Iterator[Said | DemoItem]:
        for number, event in enumerate(self.speaker.ask(prompt, asking)):
            if number == 2:
                self.may_go_on.wait(120)
            yield event


@needs_chromium
def test_in_a_browser_nothing_stored_stands_beside_a_growing_answer_and_the_focus_stays(
    tmp_path: Path, questions: Questions
) -> None:
    assert questions.speaker is not None
    pausing: Any = PausingSpeaker(questions.speaker)
    slow = Questions(questions.page, pausing, list(questions.prompts.values()), questions.stored, Asking(8))
    with serve(slow) as port, open_browser(tmp_path) as browser:
        browser.open(f"http://{HOST}:{port}/")
        browser.run("document.querySelectorAll('button.again')[0].focus()")
        browser.run(press(0))
        browser.wait("document.querySelector('.growing') !== null")
        first = "document.querySelector('#questions article')"
        assert browser.run(f"{first}.querySelectorAll('.answer:not(.growing)').length") == 0
        assert browser.run(f"{first}.querySelector('.badge').innerText") == "live, being written"
        assert browser.run("document.querySelectorAll('.badge.stored').length") == 1
        pausing.may_go_on.set()
        browser.wait(f"{first}.innerText.includes('live answers of')")
        assert browser.run(f"document.activeElement === {first}")
        assert browser.run("document.getElementById('told').textContent").startswith("Answered: ")
        assert browser.complaints == []
