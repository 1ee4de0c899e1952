"""Checks of what is read: the model, the shards, and files that the config names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.cluster.doctor.ask import HostAnswer
from harness.cluster.doctor.findings import MISSING, Check, Situation, read_fact
from harness.cluster.doctor.software import compare_hashes, shorten

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def check_model(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """The same model everywhere, byte for byte."""
    check = Check("model")
    if situation.model is None:
        return check
    found = {answer.name: read_fact(answer, "model") or {} for answer in answers}
    absent = [host for host, model in found.items() if not model.get("files")]
    check.cells.update(dict.fromkeys(absent, MISSING))
    present = {host: _digests(model["files"]) for host, model in found.items() if host not in absent}
    if present:
        compare_hashes(check, present, "copy the model's files there again")
    if absent:
        _tell_absence(check, absent, situation)
    return check


def _tell_absence(check: Check, absent: Sequence[str], situation: Situation) -> None:
    name = situation.model or ""
    offline = any(situation.environment.get(variable, "") in ("1", "true") for variable in _OFFLINE)
    hub = not name.startswith((".", "/", "~", "package:")) and not name.endswith(".gguf") and not offline
    if hub:
        check.add(
            "warn",
            absent,
            f"{name} is not in the hub's cache; each rank will download it when the run starts",
            f"download it before, there: hf download {name}",
        )
    else:
        check.add("refuse", absent, f"no model {name}", "copy it there under the same path")


def check_shards(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """Every file of the data set is what its manifest says, on every host."""
    check = Check("shards")
    if situation.data_error:
        check.cells.update({answer.name: MISSING for answer in answers})
        check.add("refuse", [answer.name for answer in answers], situation.data_error, "see there")
        return check
    for answer in answers:
        files = read_fact(answer, "data")
        if not situation.data_hashes or files is None:
            continue
        check.cells[answer.name] = shorten(_digests(files))
        if bad := [
            name for name, wanted in situation.data_hashes.items() if _is_wrong(files.get(name), wanted)
        ]:
            what = "is missing" if files.get(bad[0]) is None else "has other bytes than the manifest tells"
            more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
            check.cells[answer.name] = f"{len(bad)} of {len(files)} bad"
            check.add(
                "refuse",
                [answer.name],
                f"{bad[0]} {what}{more}",
                "copy the data set there again, or build it there with the same command",
            )
    return check


def _is_wrong(found: Mapping[str, object] | None, wanted: str | None) -> bool:
    """Whether a file is missing or not what it should be; without digests only its presence is known."""
    return found is None or (None not in (wanted, found["sha256"]) and found["sha256"] != wanted)


def check_config_files(answers: Sequence[HostAnswer], situation: Situation) -> Check:
    """A DeepSpeed file that the config names by path is the same everywhere."""
    check = Check("ds config")
    files = {answer.name: _digests(read_fact(answer, "config_files") or {}) for answer in answers}
    if any(files.values()):
        compare_hashes(check, files, "copy the file there under the same path")
    return check


def _digests(files: Mapping[str, Mapping[str, object] | None]) -> dict[str, str | None]:
    """A digest by name, or the size where it was not hashed."""
    return {
        name: None if entry is None else str(entry["sha256"] or f"{entry['bytes']} bytes")
        for name, entry in files.items()
    }
