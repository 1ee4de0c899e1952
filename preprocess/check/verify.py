"""Whether a data set is what its manifest says: bytes, rows, masks, trees, prompts, counts, tokenizer, splits.

Every check looks at what is on disk and recomputes; nothing is taken from the code that wrote it but the format.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from preprocess.check.crossing_checks import check_lyrics, check_songs
from preprocess.check.frame import Frame, hash_prompt, make_frame
from preprocess.check.report import CHECKS, MAX_FINDINGS_KEPT, VerifyReport, print_report
from preprocess.check.split_checks import OnRows, check_counts, check_split
from preprocess.durable import sha256_of
from preprocess.errors import ConfigError, DataError
from preprocess.manifest import Manifest, list_side_files, read_manifest
from preprocess.prompt import FormatName, PromptFormat, find_format
from preprocess.tokenizer import load_tokenizer

__all__ = [
    "CHECKS",
    "MAX_FINDINGS_KEPT",
    "VerifyReport",
    "find_damage",
    "print_report",
    "refuse_damage",
    "verify_dataset",
]


def verify_dataset(folder: Path, on_rows: OnRows | None = None) -> VerifyReport:
    """Check a data set and refuse a damaged one.

    Args:
        folder: The data set.
        on_rows: Called with the number of rows just checked, for a progress bar.

    Raises:
        DataError: Something is wrong; the message gives the first findings.
    """
    report = find_damage(folder, on_rows)
    refuse_damage(report)
    return report


def refuse_damage(report: VerifyReport) -> None:
    """Refuse a data set in which something is wrong.

    Raises:
        DataError: Something is; the message gives the first findings.
    """
    if not report.ok:
        first = "\n".join(f"  {finding}" for finding in report.findings[:5])
        raise DataError(
            f"{report.folder}: {report.num_found.total()} findings; the data set is not what was built. The first:\n"
            f"{first}\nCopy it again or build it again"
        )


def find_damage(folder: Path, on_rows: OnRows | None = None) -> VerifyReport:
    """Check a data set and report everything that is wrong.

    Args:
        folder: The data set.
        on_rows: Called with the number of rows just checked, for a progress bar.

    Raises:
        DataError: The folder has no manifest that can be read, so there is nothing to compare with.
    """
    manifest = read_manifest(folder)
    report = VerifyReport(str(folder))
    frame = _check_tokenizer(folder, manifest, report)
    counts = {
        split: check_split(folder, split, manifest, frame, report, on_rows) for split in manifest.splits
    }
    for split, count in counts.items():
        if count.complete:
            check_counts(split, count, manifest.splits[split], report)
    check_songs(folder, manifest, counts, report)
    if frame is not None:
        check_lyrics(folder, manifest, frame, report)
    _check_files(folder, manifest, report)
    return report


def _check_tokenizer(folder: Path, manifest: Manifest, report: VerifyReport) -> Frame | None:
    """What prompts begin and end with, or None when prompts cannot be compared."""
    report.num_checked["tokenizer"] += 1
    try:
        tokenizer = load_tokenizer(folder / "tokenizer")
    except ConfigError as error:
        report.add("tokenizer", "tokenizer", str(error))
        return None
    if tokenizer.sha256 != manifest.tokenizer_sha256:
        found, expected = tokenizer.sha256[:12], manifest.tokenizer_sha256[:12]
        report.add("tokenizer", "tokenizer", f"sha256 {found}…, the ids were made with {expected}…")
        return None
    try:
        prompt = find_format(tokenizer, manifest.system, cast("FormatName", manifest.prompt_format))
        found_format = (
            tokenizer.vocab_size,
            prompt.name,
            prompt.stop_token,
            tokenizer.special_id(prompt.stop_token),
        )
    except ConfigError as error:
        report.add("tokenizer", "tokenizer", str(error))
        return None
    wanted = (manifest.vocab_size, manifest.prompt_format, manifest.stop_token, manifest.stop_token_id)
    if found_format != wanted:
        message = f"vocabulary, format, stop token are {found_format}, the manifest says {wanted}"
        report.add("tokenizer", "tokenizer", message)
        return None
    _check_prompt(manifest, prompt, report)
    return make_frame(tokenizer, prompt)


def _check_prompt(manifest: Manifest, prompt: PromptFormat, report: VerifyReport) -> None:
    report.num_checked["prompt"] += 1
    found, expected = hash_prompt(prompt)[:12], manifest.prompt_sha256[:12]
    if found != expected:
        message = (
            f"renders with sha256 {found}…, the examples were rendered with {expected}…: this version of the program "
            "writes prompts otherwise than the one that built the data set"
        )
        report.add("prompt", f"prompt format {prompt.name}", message)


def _check_files(folder: Path, manifest: Manifest, report: VerifyReport) -> None:
    """The files beside the splits must have the bytes that the manifest names."""
    try:
        listed = list_side_files(manifest)
    except DataError as error:
        report.add("files", "manifest.json", str(error))
        return
    for name, expected in listed.items():
        report.num_checked["files"] += 1
        path = folder / name
        if not path.is_file():
            report.add("files", name, "missing; the manifest lists it")
        elif sha256_of(path) != expected:
            report.add("files", name, "is not the file that was written (sha256 differs)")
