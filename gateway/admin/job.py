"""`lethe job`: generation jobs, their results and their end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin import options
from gateway.admin.exits import DONE, exit_code
from gateway.admin.files import refuse_existing, write_whole
from gateway.admin.output import Form, fail, say, show
from gateway.admin.person import maybe_subject_name
from gateway.admin.progress import progress
from gateway.admin.session import pages, talk
from gateway.admin.words import reason, resource

if TYPE_CHECKING:
    from lethe.v1 import generation_pb2 as pb

    from gateway.client import Client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Generation jobs.")

Name = Annotated[str, typer.Argument(help="The job: jobs/ID.")]


@app.command("list")
def list_(
    limit: options.Limit = 100,
    profile: options.As = None,
    subject_file: options.SubjectFile = None,
    subject: options.Subject = None,
    opaque: options.Opaque = False,
    output: options.Output = Form.TABLE,
) -> None:
    """List jobs, of one subject where one is named.

    Example: lethe job list --as clients/app.yaml
    """
    from lethe.v1 import generation_pb2 as pb

    whose = maybe_subject_name(subject_file, subject, opaque)
    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.generation.ListJobs,
                pb.ListJobsRequest(subject=whose, page_size=size, page_token=token),
            ),
            "jobs",
            limit,
        ),
    )
    columns = ("name", "purpose", "state", "percent", "backend", "create_time", "failure.reason")
    show(answer, output, rows="jobs", columns=columns)


@app.command("show")
def show_(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Show a job.

    Example: lethe job show jobs/ID --as clients/app.yaml
    """
    show(talk(profile, lambda client: _get(client, resource("jobs", name))), output)


@app.command()
def watch(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Follow a job to its end and show it; one without a result ends with an error.

    Example: lethe job watch jobs/ID --as clients/app.yaml
    """
    last = talk(profile, lambda client: _follow(client, resource("jobs", name)))
    show(last, output)
    code = _ending(last)
    if code != DONE:
        why = last.failure.reason or last.State.Name(last.state).removeprefix("STATE_")
        fail(code, why, "the job gave no result", last.failure.detail)


@app.command()
def cancel(name: Name, profile: options.As = None, output: options.Output = Form.TABLE) -> None:
    """Stop a job.

    Example: lethe job cancel jobs/ID --as clients/app.yaml
    """
    from lethe.v1 import generation_pb2 as pb

    request = pb.CancelJobRequest(name=resource("jobs", name))
    show(talk(profile, lambda client: client.call(client.generation.CancelJob, request)), output)


@app.command()
def delete(
    name: Name,
    why: options.Reason,
    apply: options.Apply = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Destroy a finished job, its original and its result; a rehearsal shows the job.

    Example: lethe job delete jobs/ID --reason customer_asked --apply --as clients/app.yaml
    """
    from lethe.v1 import generation_pb2 as pb

    whole, code = resource("jobs", name), reason(why)
    if not apply:
        show(talk(profile, lambda client: _get(client, whole)), output)
        say(f"rehearsal ({code}): nothing was changed; --apply destroys the job and its pictures")
        return
    request = pb.DeleteJobRequest(name=whole)
    show(talk(profile, lambda client: client.call(client.generation.DeleteJob, request)), output)


@app.command()
def download(
    name: Name,
    out: Annotated[Path, typer.Option(help="Where the picture goes.")],
    force: options.Force = False,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Download a job's result.

    Example: lethe job download jobs/ID --out portrait.jpg --as clients/app.yaml
    """
    refuse_existing(out, force)
    header, picture = talk(profile, lambda client: client.download(resource("jobs", name)))
    write_whole(out, picture)
    show(header, output)


async def _get(client: Client, name: str) -> pb.GetJobResponse:
    from lethe.v1 import generation_pb2 as pb

    return await client.call(client.generation.GetJob, pb.GetJobRequest(name=name))


async def _follow(client: Client, name: str) -> pb.Job:
    """Return a job once it has ended."""
    from lethe.v1 import generation_pb2 as pb

    last = pb.Job(name=name)
    with progress() as step:
        async for last in client.watch(name):
            step(f"{last.percent} % {last.stage}")
    return last


def _ending(job: pb.Job) -> int:
    return DONE if job.state == job.STATE_SUCCEEDED else exit_code(job.failure.reason)
