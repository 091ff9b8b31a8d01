"""`lethe certificate`: what a person holds in hand after an erasure, read and checked offline."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.admin import options
from gateway.admin.audit import judge
from gateway.admin.exits import UNVERIFIED, USAGE
from gateway.admin.files import read_bytes, read_text
from gateway.admin.output import Form, emit, fail, say

if TYPE_CHECKING:
    from audit.verify import CertificateReport

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Certificates of erasure, offline.")

FIRST_INSTANT_MS = 10**12

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The certificate (tlog-proof).")]
Opening = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="Its opening; default: the file beside it, if there is one."
    ),
]


@app.command()
def show(file: File, opening: Opening = None, output: options.Output = Form.TABLE) -> None:
    """Show what a certificate says, without vouching for it.

    Example: lethe certificate show erasure.tlog-proof
    """
    report = _report(file, opening, None)
    if report.verdict == "invalid":
        fail(UNVERIFIED, "PROOF_INVALID", report.fault)
    tree = asdict(report)
    del tree["verdict"], tree["fault"]
    emit(_for_eyes(tree) if output is Form.TABLE else tree, output)
    say("note: shown, not verified; lethe certificate verify does that")


@app.command()
def verify(
    file: File, opening: Opening = None, trust: options.Trust = None, output: options.Output = Form.TABLE
) -> None:
    """Verify a certificate: 0 valid, 4 not (the fault is named), 5 consistent but no trust given.

    Example: lethe certificate verify erasure.tlog-proof --trust trust.txt
    """
    report = _report(file, opening, trust)
    emit(_for_eyes(asdict(report)) if output is Form.TABLE else asdict(report), output)
    judge(report.verdict, report.fault)


def _for_eyes(tree: Any) -> Any:
    """Return the tree with its instants as people write them; no count in it is as large as one."""
    if isinstance(tree, dict):
        return {name: _for_eyes(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_for_eyes(value) for value in tree]
    if isinstance(tree, int) and tree >= FIRST_INSTANT_MS:
        return datetime.fromtimestamp(tree / 1000, UTC).isoformat(timespec="milliseconds")
    return tree


def _report(file: Path, opening: Path | None, trust: Path | None) -> CertificateReport:
    from audit.errors import TrustInvalid
    from audit.verify import CertificateReport, verify_certificate

    beside = file.with_suffix(".opening.json")
    if opening is None and beside.is_file():
        opening = beside
    try:
        text = read_bytes(file).decode("utf-8")
    except UnicodeDecodeError:
        return CertificateReport("invalid", "not UTF-8: this is no certificate")
    try:
        return verify_certificate(
            text, read_bytes(opening) if opening else None, read_text(trust) if trust else None
        )
    except TrustInvalid as fault:
        fail(USAGE, "TRUST_INVALID", str(fault))
