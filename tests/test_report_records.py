"""The report's smaller files and lines: hashes, attempts, ceilings, a profile, events."""

from __future__ import annotations

import json
from pathlib import Path

from harness.report import write_report
from tests.test_report import PageReader, write_metrics, write_run


def test_hashes_attempts_ceilings_and_a_profile_are_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    sums = {"code": "c0de" * 16, "shards": {"train": {"data-00000-of-00001.arrow": "5a" * 32}}}
    (run / "hashes.json").write_text(json.dumps(sums), encoding="utf-8")
    write_adapter(run / "adapter")
    checkpoint = run / "checkpoint-240"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text('{"fingerprint": {"data": "%s"}}' % ("da7a" * 16))
    (run / "launch").mkdir()
    attempt = {"began": 1.0, "ended": 61.0, "exit_code": 6, "why": "lost node3", "step": 9, "steps_lost": 2}
    done = attempt | {"exit_code": 0, "steps_lost": 0}
    (run / "launch" / "attempts.jsonl").write_text(f"{json.dumps(attempt)}\n{json.dumps(done)}\n")
    card = {"rank": 0, "host": "node1", "device": "cuda:0", "card": "L40S", "peak_tflops": 362.0}
    card |= {"matmul_tflops": 281.25, "matmul_dtype": "bf16", "copy_gb_per_s": 700.0}
    slow = card | {"rank": 1, "host": "node2", "matmul_tflops": 140.5}
    (run / "ceilings.json").write_text(
        json.dumps({"format_version": 1, "ranks": [card, slow], "allreduce_gbps": None})
    )
    (run / "profile").mkdir()
    (run / "profile" / "summary.json").write_text(json.dumps(PROFILE))
    page = write_report(run).read_text(encoding="utf-8")
    texts = PageReader(page).texts
    for text in (
        "c0dec0dec0dec0de",
        "da7ada7ada7ada7a",
        "5a5a5a5a5a5a5a5a",
        "base model (256 sampled weights)",
    ):
        assert text in texts
    assert any("One attempt of 2 to run this failed, and it ended well; 2 steps" in text for text in texts)
    assert "<mark>140.5</mark>" in page
    assert {"aten::addmm", "all_reduce", "Longest gaps"} <= set(texts)
    assert {"profile", "events"} <= set(PageReader(page).ids)


def write_adapter(folder: Path) -> None:
    header = json.dumps({"__metadata__": {"base_samples": "{}"}}).encode()
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


PROFILE = {
    "format_version": 1,
    "asked": "10:11",
    "steps": [10],
    "world_size": 1,
    "ranks": [
        {
            "rank": 0,
            "host": "node1",
            "device": "cpu",
            "trace": "rank0.trace.json.gz",
            "trace_bytes": 10,
            "trace_note": None,
            "steps": [{"step": 10, "time_s": 1.5}],
            "step_time_s": 1.5,
            "operator_s": 1.2,
            "communication_exposed_s": 0.1,
            "gap_s": 0.2,
            "between_steps_s": 0.1,
            "parts": [
                {
                    "part": "forward",
                    "time_s": 1.5,
                    "operator_s": 1.2,
                    "communication_exposed_s": 0.1,
                    "gap_s": 0.2,
                }
            ],
            "operators": [
                {"name": "aten::addmm", "self_s": 0.5, "share": 0.33, "calls": 120, "part": "forward"}
            ],
            "communication": [
                {"collective": "all_reduce", "calls": 6, "time_s": 0.2, "exposed_s": 0.1, "bytes": 4096}
            ],
            "gaps": [
                {
                    "step": 10,
                    "part": "data",
                    "start_s": 0.01,
                    "time_s": 0.05,
                    "after": "aten::copy_",
                    "before": None,
                }
            ],
        }
    ],
    "notes": [],
    "flops": None,
}


def test_steps_left_out_and_memory_that_ran_out_are_told_with_what_to_do(tmp_path: Path) -> None:
    write_metrics(tmp_path, num_steps=5)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    reason = "the loss of micro-step 1 on rank 2 is not finite"
    third = json.loads(lines[2]) | {"loss": None, "non_finite": ["loss"], "skipped": reason}
    event = {
        "kind": "event",
        "step": 4,
        "event": "out of memory",
        "ranks": [1],
        "reason": "CUDA out of memory",
    }
    lines = [*lines[:2], json.dumps(third), json.dumps(event | {"taken": {"rows": 4}}), *lines[3:]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = PageReader(write_report(tmp_path).read_text(encoding="utf-8")).texts
    assert f"One step was left out, at step 3: {reason}." in texts
    assert "Memory ran out at step 4 on rank 1; the step was taken again with rows 4." in texts
    assert not any("another figure was not a finite number" in text for text in texts)


def test_ceilings_and_a_profile_of_another_version_are_left_out_with_a_line(tmp_path: Path) -> None:
    write_metrics(tmp_path, num_steps=5)
    (tmp_path / "profile").mkdir()
    for name in ("ceilings.json", "profile/summary.json"):
        (tmp_path / name).write_text('{"format_version": 99, "ranks": [{}]}')
    texts = PageReader(write_report(tmp_path).read_text(encoding="utf-8")).texts
    assert sum("is of format 99, expected 1: left out." in text for text in texts) == 2
