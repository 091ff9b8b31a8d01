"""The options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.admin.output import Form

As = Annotated[
    Path | None,
    typer.Option(
        "--as",
        envvar="LETHE_CLIENT",
        help="Client profile: where to call and as whom (DIR/clients/NAME.yaml).",
    ),
]
Weights = Annotated[
    Path, typer.Option(envvar="LETHE_WEIGHTS_DIR", help="Folder with the model weights (make weights).")
]
Output = Annotated[Form, typer.Option("--output", "-o", help="Form of what is written to stdout.")]
SubjectFile = Annotated[
    Path | None,
    typer.Option("--subject-file", help="File whose only line is the subject's id; - reads stdin."),
]
Subject = Annotated[
    str | None,
    typer.Option("--subject", help="The subject's id; only with --opaque, because others see argv."),
]
Opaque = Annotated[
    bool, typer.Option("--opaque", help="Assure that the id of --subject names nobody to a stranger.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Stop after so many.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do it; without, it is only rehearsed.")]
Reason = Annotated[
    str,
    typer.Option(
        "--reason",
        help="Why, as a code of a-z, 0-9, _ and -, never free text: argv is no place for personal data. "
        "hold release, key rotate and retention sweep write it to the log, for ever; others show it back.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")]
Trust = Annotated[
    Path | None,
    typer.Option(
        "--trust",
        exists=True,
        dir_okay=False,
        help="File with the log's vkeys, had from elsewhere (lethe audit head --keys). "
        "Without it nothing is ever called valid.",
    ),
]
