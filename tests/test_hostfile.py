from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cluster.hostfile import Host, format_hostfile, parse_hostfile
from preprocess.errors import PreflightError

SHIPPED = Path(__file__).parent.parent / "hostfiles"


def parse(tmp_path: Path, text: str | bytes) -> tuple[Host, ...]:
    path = tmp_path / "hosts"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return parse_hostfile(path).hosts


def refusal(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(PreflightError) as caught:
        parse(tmp_path, text)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_hosts_keep_their_order_their_slots_and_their_lines(tmp_path: Path) -> None:
    hosts = parse(tmp_path, "# a comment\n\nnode2 slots=2\nnode1.example.org slots=1\n10.0.0.3 slots=8\n")
    assert hosts == (Host("node2", 2, 3), Host("node1.example.org", 1, 4), Host("10.0.0.3", 8, 5))


def test_world_size_is_the_sum_of_the_slots(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("a slots=2\nb slots=3\n")
    assert parse_hostfile(path).world_size == 5


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfnode1 slots=2\n",
        b"node1 slots=2\r\n\r\n",
        b"node1\tslots=2",
        b"\t node1 \t slots=2 \t\n",
        b"node1 slots=2 # four cards, two of them broken\n",
        b"  # indented\n#node9 slots=2\nnode1 slots=2\n",
    ],
    ids=[
        "byte order mark",
        "CRLF",
        "tab, no last newline",
        "blanks around",
        "comment after",
        "comments before",
    ],
)
def test_harmless_spellings_read_as_the_same_host(tmp_path: Path, text: bytes) -> None:
    (host,) = parse(tmp_path, text)
    assert (host.name, host.slots) == ("node1", 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("node2 slots = 2", "slots = 2"),
        ("node2 slots=2x", "slots=2x"),
        ("node2 slots=0", "slots=0"),
        ("node2 slots=-1", "slots=-1"),
        ("node2 slots=1.5", "slots=1.5"),
        ("node2 slots=٢", "slots=٢"),
        ("node2 slots=1000000000000000000000", "expected 1 to"),
        ("node2", "no slots"),
        ("node2 4", "expected"),
        ("node2 slots=2 max_slots=4", "max_slots=4"),
        ("slots=2", "no host name"),
        ("node1 slots=4", "line 1 already"),
        ("NODE1 slots=4", "line 1 already"),
        ("-oProxyCommand=date slots=1", "no host name"),
        ("node[1-3] slots=1", "no host name"),
        ("node2,node3 slots=1", "no host name"),
        ("^hosts slots=1", "no host name"),
        ("node2;date slots=1", "no host name"),
        ("$(date) slots=1", "no host name"),
        ("me@node2 slots=1", "~/.ssh/config"),
        ("fe80::1 slots=1", "IPv6"),
        ("10.0.0.256 slots=1", "IPv4"),
        ("10.0.1 slots=1", "IPv4"),
        ("node2- slots=1", "no host name"),
        ("node..2 slots=1", "no host name"),
        ("\u00a0node2\u200b slots=1", "NO-BREAK SPACE"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    message = refusal(tmp_path, f"node1 slots=2\n# comment\n{line}\n")
    assert message.startswith(f"{tmp_path / 'hosts'}:3: ")
    assert said in message


def test_a_missing_hostfile_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no such hostfile; nothing was started"):
        parse_hostfile(tmp_path / "hostfiel")


def test_a_folder_an_empty_file_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="folder"):
        parse_hostfile(tmp_path)
    assert "names no host" in refusal(tmp_path, "# nothing but a comment\n\n")
    assert "UTF-8" in refusal(tmp_path, "node1 slots=1\n".encode("utf-16"))


def test_the_written_hostfile_reads_back_as_the_same_hosts(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(b"\xef\xbb\xbf# c\r\nnode1\tslots=02 # x\r\n10.0.0.7 slots=1\r\n")
    text = format_hostfile(parse_hostfile(path))
    assert text == "node1 slots=2\n10.0.0.7 slots=1\n"
    again = [(host.name, host.slots) for host in parse(tmp_path, text)]
    assert again == [("node1", 2), ("10.0.0.7", 1)]


def test_the_shipped_hostfiles_are_valid() -> None:
    assert parse_hostfile(SHIPPED / "local").names == ("localhost",)
    assert parse_hostfile(SHIPPED / "three_nodes").world_size == 3


@given(name=st.text(min_size=1, max_size=40))
def test_no_accepted_name_can_be_an_option_or_hold_a_shell_character(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-name"
    path.write_text(f"{name} slots=1\n", encoding="utf-8", errors="replace", newline="")
    try:
        names = parse_hostfile(path).names
    except PreflightError:
        return
    for accepted in names:
        assert accepted[0].isalnum()
        assert set(accepted) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
