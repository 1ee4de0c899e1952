"""Hostfiles that are wrong, one kind of fault each: every one is refused, with its line and what to write instead."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cluster import hostfile as hostfile_module
from harness.cluster.hostfile import parse_hostfile
from preprocess.errors import PreflightError

REMEDY = re.compile(
    "expected|write|leave|put|delete|save|name the file|check the path|needs a name|nothing was started"
)
"""What tells a reader what to do."""

BAD_LINES = {
    # Slots.
    "no slots": "node2",
    "a bare number": "node2 4",
    "a colon for the slots, as OpenMPI and MPICH write": "node2:2",
    "blanks around =": "node2 slots = 2",
    "a blank before =": "node2 slots =2",
    "a blank after =": "node2 slots= 2",
    "slots without a number": "node2 slots=",
    "a colon for =": "node2 slots:2",
    "two =": "node2 slots==2",
    "capitals": "node2 SLOTS=2",
    "singular": "node2 slot=2",
    "another key": "node2 gpus=2",
    "OpenMPI's second key": "node2 slots=2 max_slots=4",
    "slots twice": "node2 slots=2 slots=2",
    "a letter behind the number": "node2 slots=2x",
    "zero": "node2 slots=0",
    "many zeros": "node2 slots=0000",
    "negative": "node2 slots=-1",
    "a plus sign": "node2 slots=+2",
    "a fraction": "node2 slots=1.5",
    "an exponent": "node2 slots=1e1",
    "hexadecimal": "node2 slots=0x2",
    "octal": "node2 slots=0o2",
    "an underscore": "node2 slots=1_0",
    "a thousands separator": "node2 slots=1,000",
    "one too many": "node2 slots=1025",
    "past 64 bits": "node2 slots=18446744073709551617",
    "four thousand digits": f"node2 slots={'9' * 4999}",
    "Arabic-Indic digits": "node2 slots=٣",
    "full-width digits": "node2 slots=\uff12",
    "a superscript digit": "node2 slots=²",
    "not a number": "node2 slots=nan",
    "quoted slots": 'node2 slots="2"',
    "a range of slots": "node2 slots=1-2",
    "devices for slots": "node2 slots=0,1",
    "a command for slots": "node2 slots=$(nproc)",
    "a comment without a blank before it": "node2 slots=2#two",
    "a semicolon at the end": "node2 slots=2;",
    "a comma at the end": "node2 slots=2,",
    # Names.
    "no name": "slots=2",
    "the columns the other way round": "slots=2 node2",
    "two names": "node2 node3 slots=1",
    "an ssh option": "-oProxyCommand=touch${IFS}canary slots=1",
    "a single dash": "- slots=1",
    "a dash behind": "node2- slots=1",
    "an underscore first": "_node2 slots=1",
    "a dot first": ".node2 slots=1",
    "a dot behind": "node2. slots=1",
    "two dots": "node..2 slots=1",
    "only dots": ".. slots=1",
    "a user": "me@node2 slots=1",
    "a user and a password": "me:pw@node2 slots=1",
    "a port": "node2:2222 slots=1",
    "an ssh address": "ssh://node2 slots=1",
    "IPv6": "fe80::1 slots=1",
    "IPv6 in brackets": "[fe80::1] slots=1",
    "IPv6 with a zone": "fe80::1%eth0 slots=1",
    "a range as SLURM and pdsh write": "node[1-3] slots=1",
    "a list": "node2,node3 slots=1",
    "a brace list": "node{2,3} slots=1",
    "a wildcard": "node* slots=1",
    "a question mark": "node? slots=1",
    "pdsh's file of hosts": "^hosts slots=1",
    "pdsh's exclusion": "/node.*/ slots=1",
    "pdsh's sequence": "node%h slots=1",
    "a path": "./node2 slots=1",
    "a home": "~node2 slots=1",
    "a command": "node2;date slots=1",
    "a pipe to a command": "node2|date slots=1",
    "a command in the background": "node2&date slots=1",
    "a substitution": "$(date) slots=1",
    "backticks": "`date` slots=1",
    "a variable": "$HOSTNAME slots=1",
    "a redirection": "node2>x slots=1",
    "an exclamation mark": "node2! slots=1",
    "double quotes": '"node2" slots=1',
    "single quotes": "'node2' slots=1",
    "a backslash": "node\\2 slots=1",
    "a line continued": "node2 slots=1 \\",
    "a part of 64 characters": f"{'n' * 64} slots=1",
    "254 characters": f"{'.'.join(['n' * 63] * 3)}.{'n' * 62} slots=1",
    "a line of 100,000 characters": f"{'n' * 100_000} slots=1",
    "a byte past 255": "10.0.0.256 slots=1",
    "three numbers": "10.0.1 slots=1",
    "one number": "167772161 slots=1",
    "five numbers": "10.0.0.0.1 slots=1",
    "octal numbers": "010.0.0.1 slots=1",
    "hexadecimal numbers": "0x7f.1 slots=1",
    "a hexadecimal number": "0x7f000001 slots=1",
    "a network": "10.0.0.0/24 slots=1",
    "no address": "0.0.0.0 slots=1",
    "broadcast": "255.255.255.255 slots=1",
    "multicast": "224.0.0.1 slots=1",
    # Twice the same host.
    "the same host": "node1 slots=1",
    "the same host in capitals": "NODE1 slots=1",
    "the same host with a dot": "node1. slots=1",
    "this machine by name and address": "127.0.0.1 slots=1",
    "this machine by another of its addresses": "127.0.0.53 slots=1",
    # Characters.
    "a Cyrillic look-alike": "n\u043ede2 slots=1",
    "a full-width name": "\uff4e\uff4f\uff44\uff452 slots=1",
    "an umlaut": "knöten slots=1",
    "a soft hyphen": "node\u00ad2 slots=1",
    "a zero-width space": "node\u200b2 slots=1",
    "a zero-width joiner": "node2\u200d slots=1",
    "a second byte order mark": "\ufeffnode2 slots=1",
    "a no-break space between": "node2\u00a0slots=1",
    "an ideographic space between": "node2\u3000slots=1",
    "an en dash": "node\u20132 slots=1",
    "curly quotes": "“node2” slots=1",
    "an ideographic full stop": "node2。example slots=1",
    "text turned round": "node2\u202e1=stols slots=1",
    "a line separator": "node2 slots=1\u2028node3 slots=1",
    "a next-line sign": "node2 slots=1\u0085node3 slots=1",
    "NUL": "node2\0 slots=1",
    "a vertical tab between": "node2\x0bslots=1",
    "a form feed between": "node2\x0cslots=1",
    "a backspace": "node2\b1 slots=1",
    "a colour": "\x1b[31mnode2\x1b[0m slots=1",
    "a terminal's title": "\x1b]0;owned\x07node2 slots=1",
    "old Mac line ends": "node2 slots=1\rnode3 slots=1",
    # Other formats.
    "YAML": "- node2: 1",
    "JSON": '{"node2": 1}',
    "INI": "[hosts]",
    "Ansible": "node2 ansible_host=10.0.0.2",
    "TOML": "node2 = 1",
    "CSV": "node2,1",
    "HTML": "<html>",
    "a Slurm node list": "node2(x1)",
    "a // comment": "// node2 slots=1",
    "a ; comment": "; node2 slots=1",
    "markdown": "* node2 slots=1",
    "a merge conflict": "<<<<<<< HEAD",
}

GOOD_LINES = {
    "plain": "node2 slots=2",
    "CRLF": "node2 slots=2\r",
    "a tab": "node2\tslots=2",
    "blanks around": "  node2   slots=2  ",
    "tabs around": "\t\tnode2\t \tslots=2\t",
    "a comment behind": "node2 slots=2 # été 雨",
    "a comment behind a tab": "node2 slots=2\t#x",
    "a comment and CRLF": "node2 slots=2 # x\r",
    "a zero before the number": "node2 slots=02",
    "the most slots": "node2 slots=1024",
    "an address": "10.0.0.2 slots=1",
    "a full name": "node2.rack-1.example.org slots=1",
    "an underscore inside": "gpu_node_2 slots=1",
    "a digit first": "2node slots=1",
    "a name in Punycode": "xn--knten-jua.example slots=1",
    "63 characters": f"{'n' * 63} slots=1",
    "253 characters": f"{'.'.join(['n' * 63] * 3)}.{'n' * 61} slots=1",
    "a name that only begins like a number": "0xnode slots=1",
}


def write(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "hosts"
    path.write_bytes(f"# three hosts\nnode1 slots=2\nlocalhost slots=1\n{line}\nnode9 slots=1\n".encode())
    return path


def test_the_table_holds_eighty_kinds() -> None:
    assert len(BAD_LINES) >= 80
    assert len(set(BAD_LINES.values())) == len(BAD_LINES)


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_malformed_line_is_refused_by_file_and_line_with_what_to_write(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, BAD_LINES[kind])
    with pytest.raises(PreflightError) as caught:
        parse_hostfile(path)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert message.startswith(f"{path}:4: ")
    assert REMEDY.search(message)
    assert len(message) < len(str(path)) + 600
    assert message.isprintable()  # nothing that a terminal obeys


@pytest.mark.parametrize("kind", GOOD_LINES)
def test_a_harmless_spelling_is_accepted(tmp_path: Path, kind: str) -> None:
    assert len(parse_hostfile(write(tmp_path, GOOD_LINES[kind])).hosts) == 4


def test_a_parser_that_splits_as_python_does_and_takes_all_digits_fails_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostfile_module, "_ODD", re.compile("(?!)"))
    monkeypatch.setattr(hostfile_module, "_SLOTS", re.compile(r"slots=(\d+)"))
    monkeypatch.setattr(hostfile_module, "_NAME", re.compile(r"\S+"))
    accepted = 0
    for line in BAD_LINES.values():
        try:
            parse_hostfile(write(tmp_path, line))
            accepted += 1
        except PreflightError:
            continue
    assert accepted > 20


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte, without taking it from the disk


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such hostfile"),
    "a folder": (lambda path: path.mkdir(), "folder"),
    "a pipe that nobody writes to": (make_fifo, "pipe"),
    "a socket": (make_socket, "socket"),
    "a device that never ends": (lambda path: path.symlink_to("/dev/zero"), "device"),
    "a terminal or nothing": (lambda path: path.symlink_to("/dev/null"), "device"),
    "a link to itself": (make_loop, "cannot read"),
    "a link to nothing": (make_dangling, "no such hostfile"),
    "a terabyte": (make_large, "larger than"),
    "a million lines": (lambda path: path.write_bytes(b"node1 slots=1\n" * 1_000_000), "larger than"),
    "a line of two megabytes": (lambda path: path.write_bytes(b"n" * (2 << 20)), "larger than"),
    "nothing at all": (lambda path: path.touch(), "names no host"),
    "blank lines": (lambda path: path.write_text("\n \n\t\n\r\n"), "names no host"),
    "comments alone": (lambda path: path.write_text("# node1 slots=1\n"), "names no host"),
    "a byte order mark alone": (lambda path: path.write_bytes(b"\xef\xbb\xbf"), "names no host"),
    "UTF-16": (lambda path: path.write_bytes("node1 slots=1\n".encode("utf-16")), ":1: .*UTF-8"),
    "UTF-32": (lambda path: path.write_bytes("node1 slots=1\n".encode("utf-32")), ":1: .*UTF-8"),
    "Latin-1 on line 2": (
        lambda path: path.write_bytes(b"node1 slots=1\nkn\xf6ten slots=1\n"),
        ":2: .*UTF-8",
    ),
    "an ELF program": (lambda path: path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(90)), ":1: "),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08\x00"), ":1: .*UTF-8"),
    "bytes cut in a character": (lambda path: path.write_bytes(b"node1 slots=1\n\xe2\x82"), ":2: .*UTF-8"),
    "an overlong NUL": (lambda path: path.write_bytes(b"node1\xc0\x80 slots=1\n"), ":1: .*UTF-8"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_hostfile_is_refused_at_once_with_its_path(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 characters
    path = Path("hosts")
    make, said = FILES[kind]
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(PreflightError, match=said) as caught:
            parse_hostfile(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith("hosts:")
    assert REMEDY.search(str(caught.value))


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(PreflightError, match="cannot read the hostfile: Permission denied; check"):
        parse_hostfile(write_hosts(tmp_path))


def write_hosts(tmp_path: Path) -> Path:
    (tmp_path / "hosts").touch()
    return tmp_path / "hosts"


@pytest.mark.parametrize("number", [1, 2, 77, 999])
def test_the_line_that_is_named_is_the_one_that_is_wrong(tmp_path: Path, number: int) -> None:
    lines = [f"node{i} slots=1" for i in range(1, 1000)]
    lines[number - 1] = "node* slots=1"
    path = tmp_path / "hosts"
    path.write_text("\r\n".join(lines))
    with pytest.raises(PreflightError, match=f"^{re.escape(str(path))}:{number}: "):
        parse_hostfile(path)


def test_the_command_ends_with_3_and_one_line_and_starts_nothing(tmp_path: Path) -> None:
    config, hosts = tmp_path / "run.yaml", write(tmp_path, "\x1b]0;owned\x07$(touch canary) slots=1")
    config.write_text(f"output_dir: {tmp_path}/run\nmodel: {{path: none}}\ndata: {{path: none}}\n")
    command = [sys.executable, "-m", "harness", "launch", "--hostfile", str(hosts), "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {hosts}:4: ")
    assert done.stderr.rstrip("\n").isprintable()
    assert not (tmp_path / "canary").exists()
