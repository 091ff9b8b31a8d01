"""`lethe audit fsck`: a log checked whole, as it is published or in the gateway's own database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.admin.exits import FAILED, USAGE, VERDICTS
from gateway.admin.output import Form, emit, fail
from gateway.admin.progress import progress

if TYPE_CHECKING:
    from audit.fsck import FsckReport, Step
    from audit.trust import Trust

SHOWN_EVERY = 1 << 16
T = TypeVar("T")


def believed(trust: Path | None, *logs: Path) -> Trust | None:
    """Return what a trust file says: keys, keys with the sizes they may sign, or a policy with its quorum."""
    from audit.errors import TrustInvalid
    from audit.folder import read_trust_file
    from audit.trust import read_trust

    try:
        return read_trust(read_trust_file(trust, *logs)) if trust else None
    except TrustInvalid as fault:
        fail(USAGE, "TRUST_INVALID", str(fault))
    except OSError as fault:
        fail(FAILED, "FILE_UNREADABLE", f"{trust}: {fault.strerror}")


def check_folder(directory: Path, trust: Path | None, min_index: int, *, deep: bool, output: Form) -> None:
    """Check a published log and end the command as it deserves."""
    from audit.fsck import folder_reader, fsck

    verifiers = believed(trust, directory)
    try:
        report = watched(
            lambda step: fsck(folder_reader(directory), verifiers, min_index=min_index, deep=deep, step=step)
        )
    except OSError as fault:
        fail(FAILED, "FILE_UNREADABLE", f"{directory}: {fault.strerror}")
    emit(asdict(report), output)
    judge(report)


def check_logs(reports: list[FsckReport], output: Form) -> None:
    """Show what the logs of a database were found to be; end the command as the first bad one deserves."""
    emit(
        {"logs": [asdict(report) for report in reports]},
        output,
        rows="logs",
        columns=("origin", "verdict", "size", "entries", "pruned", "tiles"),
    )
    for report in reports:
        judge(report)


def watched(check: Callable[[Step], T]) -> T:
    """Run a check and show its progress."""
    with progress() as show:
        return check(lambda entries: entries % SHOWN_EVERY or show(f"{entries:,} entries"))


def judge(report: FsckReport) -> None:
    """End the command where the log is not valid."""
    if report.verdict == "invalid":
        fail(VERDICTS[report.verdict], "LOG_INVALID", report.fault)
    if report.verdict == "untrusted":
        fail(
            VERDICTS[report.verdict],
            "TRUST_MISSING",
            "consistent in itself, but no trust was given: not called valid",
        )
