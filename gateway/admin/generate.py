"""`lethe generate`: one portrait in, one picture out."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.admin import options
from gateway.admin.exits import FAILED
from gateway.admin.files import STDIN, read_bytes, read_text, refuse_existing, write_whole
from gateway.admin.output import Form, document, emit, fail
from gateway.admin.person import subject_name
from gateway.admin.progress import progress
from gateway.admin.session import talk
from gateway.admin.words import fill, resource
from policy.terms import Purpose

if TYPE_CHECKING:
    from lethe.v1 import generation_pb2 as pb

    from gateway.client import Client


def generate(
    photo: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The portrait; its name stays here.")
    ],
    out: Annotated[Path, typer.Option(help="Where the picture goes.")],
    notice: Annotated[str, typer.Option(help="The notice the subject saw: notices/ID.")],
    style: Annotated[str, typer.Option(help="The style, see lethe backend list.")],
    purpose: Annotated[Purpose, typer.Option(help="What it is processed for.")] = Purpose.GENERATE,
    prompt_file: Annotated[Path | None, typer.Option(help="File with a prompt; - reads stdin.")] = None,
    backend: Annotated[str, typer.Option(help="The backend to prefer: backends/ID.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the picture.")] = 600.0,
    force: options.Force = False,
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Have a picture made of the subject, who is the person depicted and uploads it themselves.

    Example: lethe generate me.jpg --out headshot.jpg --notice notices/studio --style studio_grey \
--subject-file id.txt --as clients/app.yaml
    """
    from lethe.v1 import generation_pb2 as pb

    if prompt_file == subject_file == STDIN:
        raise typer.BadParameter("stdin can be the subject or the prompt, not both")
    refuse_existing(out, force)
    header = pb.JobHeader(
        subject=subject_name(subject_file, subject, opaque),
        depicted=[pb.Depicted(is_subject=True)],
        notice=resource("notices", notice),
        parameters=pb.GenerationParameters(style=style, prompt=read_text(prompt_file) if prompt_file else ""),
        backend_hint=resource("backends", backend) if backend else "",
    )
    fill(header, {"purpose": purpose})
    image = read_bytes(photo)
    answers = talk(profile, lambda client: _generate(client, header, image, timeout))
    picture = b"".join(answer.chunk for answer in answers)
    told: dict[str, Any] = {
        which: document(getattr(a, which))
        for a in answers
        if (which := a.WhichOneof("part")) and which != "chunk"
    }
    if len(picture) != int(told.get("result", {}).get("size_bytes", -1)):
        fail(FAILED, "RESULT_INCOMPLETE", "the answer ended before the picture did")
    write_whole(out, picture)
    emit(told, output)


async def _generate(
    client: Client, header: pb.JobHeader, photo: bytes, timeout_s: float
) -> list[pb.GenerateResponse]:
    """Return all that the gateway answered, showing how far it is."""
    answers: list[pb.GenerateResponse] = []
    try:
        with progress() as step:
            async for answer in client.generate(header, photo, timeout_s):
                answers.append(answer)
                if answer.WhichOneof("part") == "job":
                    step(f"{answer.job.percent} % {answer.job.stage}")
    except asyncio.CancelledError:
        await _cancel(client, answers)
        raise
    return answers


async def _cancel(client: Client, answers: list[pb.GenerateResponse]) -> None:
    """Cancel the job of an interrupted command: with its request_id it would go on without us."""
    from lethe.v1 import generation_pb2 as pb

    from gateway.client import Refused

    job = next((answer.job.name for answer in answers if answer.WhichOneof("part") == "job"), "")
    if job:
        with contextlib.suppress(Refused):
            await client.call(client.generation.CancelJob, pb.CancelJobRequest(name=job))
