"""What is told of measured links, and two ranks that measure on this machine."""

from __future__ import annotations

import io
import json
import socket
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.cluster.doctor.link import gather, measure_links
from harness.cluster.doctor.link_report import LinkReport, check_link, describe_slowest, print_links
from harness.cluster.doctor.sockets import find_used_addresses, list_interfaces
from harness.cluster.hostfile import parse_hostfile
from harness.planning.speed import read_link

HOSTS = ("a", "b", "c")
FAST, SLOW = 1.25e9, 12.5e6
"""Bytes a second of 10 Gb/s and of 100 Mb/s."""


def make_report(slow: dict[str, float] | None = None, hosts: tuple[str, ...] = HOSTS) -> LinkReport:
    """A report in which some pairs, as "ab", have another rate on the way there."""
    results: list[dict[str, Any]] = [
        {"backend": "gloo", "reduces": [{"bytes": 1 << 10, "median_s": 1e-3}], "pairs": [], "used": []}
        for _ in hosts
    ]
    for rank, result in enumerate(results):
        # The slowest rank's time counts: 64 MiB in a second.
        result["reduces"].append({"bytes": 1 << 26, "median_s": 1.0 if rank == 1 else 0.5})
        result["used"] = [{"address": f"10.0.0.{rank}", "interface": "eth0"}]
    for low, high in combinations(range(len(hosts)), 2):
        there = (slow or {}).get(hosts[low] + hosts[high], FAST)
        pair = {"low": low, "high": high, "latency_s": 1e-4, "there_bytes_per_s": there}
        results[low]["pairs"].append({**pair, "back_bytes_per_s": FAST})
    return gather(hosts, results)


def test_the_rate_of_a_link_is_what_a_ring_sends_through_it() -> None:
    report = make_report()
    assert report.bus_bytes_per_s == pytest.approx((1 << 26) * 2 * 2 / 3)
    assert report.reduces[-1].algorithm_bytes_per_s == 1 << 26
    found = report.to_json()
    assert found["gbps"] == pytest.approx(8 * (1 << 26) * 4 / 3 / 1e9)
    assert found["gb_per_s"] * 8 == pytest.approx(found["gbps"])
    assert json.loads(json.dumps(found)) == found


def test_the_plan_reads_what_was_measured(tmp_path: Path) -> None:
    report = make_report().to_json()
    (tmp_path / "link.json").write_text(json.dumps(report))
    assert read_link(str(tmp_path / "link.json")) == report["gbps"]


def test_a_host_is_named_when_all_its_links_are_slow_and_a_link_when_one_is() -> None:
    alike = make_report()
    assert alike.slow_hosts == ()
    assert "the links are alike" in describe_slowest(alike)
    host = make_report({"ab": SLOW, "bc": SLOW * 1.1})
    assert host.slow_hosts == ("b",)
    assert "a <-> b, 100 Mb/s, 100.0 times slower" in describe_slowest(host)
    assert describe_slowest(host).endswith("every link of b is slow")
    link = make_report({"ac": SLOW})
    assert link.slow_hosts == ()
    assert describe_slowest(link) == "slowest link: a <-> c, 100 Mb/s, 100.0 times slower than the fastest"


def test_uneven_links_are_a_warning_and_none_at_all_a_refusal() -> None:
    assert check_link(HOSTS, make_report()).verdict == "fine"
    check = check_link(HOSTS, make_report({"ab": SLOW, "bc": SLOW}))
    assert (check.verdict, check.marked) == ("warn", {"b": "warn"})
    assert check.cells == {"a": "10.0 Gb/s", "b": "100 Mb/s", "c": "10.0 Gb/s"}
    assert check_link(HOSTS, make_report({"ac": SLOW})).marked == {"a": "warn", "c": "warn"}
    failed = check_link(HOSTS, "b: no answer for 90 s")
    assert (failed.verdict, failed.marked) == ("refuse", {"b": "refuse"})


def test_the_tables_tell_sizes_pairs_and_interfaces() -> None:
    stream = io.StringIO()
    print_links(make_report({"ac": SLOW}), Console(file=stream, width=80))
    text = stream.getvalue()
    for part in (
        "64 MiB",
        "1 KiB",
        "a <-> c",
        "100 us",
        "b through eth0 (10.0.0.1)",
        "slowest link: a <-> c",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_addresses_that_a_process_talks_through_are_its_own_connections() -> None:
    assert list_interfaces()["127.0.0.1"] == "lo"
    before = find_used_addresses(())  # what earlier tests of this process have left open
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert {"address": "127.0.0.1", "interface": "lo"} in find_used_addresses(())
            assert find_used_addresses({port}) == before


def test_two_ranks_on_this_machine_measure_their_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    report = measure_links(parse_hostfile(tmp_path / "hosts"))
    assert report.backend == "gloo"
    assert report.hosts == ("localhost:0", "localhost:1")
    assert [pair.hosts for pair in report.pairs] == [report.hosts]
    sizes = [one.num_bytes for one in report.reduces]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1 << 10
    assert report.bus_bytes_per_s > 1e6
    assert all(used for used in report.used.values())
    assert check_link(["localhost"], report).cells["localhost"]
