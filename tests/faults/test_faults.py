"""Faults injected into real runs from outside: a few of each kind here, the whole campaign in the slow tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.faults import ON_HOSTS, PARTS, measure
from bench.faults.disk import DiskFault, count_operations, faulty_disk_server, try_disk_fault
from bench.faults.ranks import ForkServer
from bench.faults.setting import Reference, Setting, make_reference, make_setting
from bench.faults.stops import try_stop
from tests.cluster import missing_means

MISSING = missing_means()


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return make_setting(tmp_path_factory.mktemp("faults"), num_steps=6)


@pytest.fixture(scope="module")
def server(setting: Setting) -> Iterator[ForkServer]:
    with faulty_disk_server(setting.root) as started:
        yield started


@pytest.fixture(scope="module")
def reference(setting: Setting, server: ForkServer) -> Reference:
    return make_reference(setting, [server])


@pytest.fixture(scope="module")
def operations(setting: Setting, server: ForkServer) -> list[str]:
    return count_operations(server, setting, "counted", 1, 0)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("write", "kill"), ("fsync", "enospc")],
)
def test_a_disk_that_fails_in_the_second_save_spoils_that_save_alone(
    setting: Setting,
    server: ForkServer,
    reference: Reference,
    operations: list[str],
    kind: str,
    mode: str,
) -> None:
    numbers = [n for n, text in enumerate(operations, 1) if text.startswith(f"{kind} ") and "-4" in text]
    number = numbers[len(numbers) // 2]
    fault = DiskFault(number, operations[number - 1], mode)
    trial = try_disk_fault(server, setting, reference, fault, 1)
    assert trial.survived, trial


@pytest.mark.parametrize(("moment", "number"), [("backward:3", "SIGTERM")])
def test_a_run_that_is_stopped_goes_on_bit_for_bit(
    setting: Setting, server: ForkServer, reference: Reference, moment: str, number: str
) -> None:
    trial = try_stop(setting, [server], reference, moment, number)
    assert trial.survived, trial


@pytest.mark.parametrize("build", ["forgotten-moments"])
def test_a_build_that_resumes_wrongly_is_found_out(
    setting: Setting, server: ForkServer, reference: Reference, build: str
) -> None:
    trial = try_stop(setting, [server], reference, "between:4", "SIGKILL", "tests.faults.broken", [build])
    assert trial.wrong, trial


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in PARTS if part not in ON_HOSTS])
def test_every_fault_of_the_campaign_is_survived(part: str) -> None:
    outcome = measure(quick=False, only=part)
    assert outcome.failures == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.skipif(bool(MISSING), reason=f"a cluster {MISSING}")
@pytest.mark.parametrize("part", ON_HOSTS)
def test_every_fault_on_three_hosts_is_survived(part: str) -> None:
    outcome = measure(quick=False, only=part)
    assert outcome.failures == []
