"""`lethe audit fsck`: a published log, checked whole and offline."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gateway.admin import options
from gateway.admin.exits import FAILED, USAGE, VERDICTS
from gateway.admin.files import read_text
from gateway.admin.output import Form, emit, fail
from gateway.admin.progress import progress

SHOWN_EVERY = 1 << 16


def fsck(
    directory: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="The log as published: checkpoint and tile/."),
    ],
    trust: options.Trust = None,
    min_index: Annotated[
        int,
        typer.Option("--min-index", min=0, help="The log's minimum index: entries before it may be gone."),
    ] = 0,
    deep: Annotated[bool, typer.Option("--deep", help="Also read each entry as an event.")] = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Check a whole log offline: 0 valid, 4 not (the first fault is named), 5 consistent but no trust given.

    Example: lethe audit fsck /srv/log --trust trust.txt
    """
    from audit.errors import TrustInvalid
    from audit.fsck import folder_reader
    from audit.fsck import fsck as check
    from audit.trust import read_trust

    try:
        verifiers = read_trust(read_text(trust)) if trust else None
        with progress() as show:
            report = check(
                folder_reader(directory),
                verifiers,
                min_index=min_index,
                deep=deep,
                step=lambda entries: entries % SHOWN_EVERY or show(f"{entries:,} entries"),
            )
    except TrustInvalid as fault:
        fail(USAGE, "TRUST_INVALID", str(fault))
    except OSError as fault:
        fail(FAILED, "FILE_UNREADABLE", f"{directory}: {fault.strerror}")
    emit(asdict(report), output)
    if report.verdict == "invalid":
        fail(VERDICTS[report.verdict], "LOG_INVALID", report.fault)
    if report.verdict == "untrusted":
        fail(
            VERDICTS[report.verdict],
            "TRUST_MISSING",
            "consistent in itself, but no trust was given: not called valid",
        )
