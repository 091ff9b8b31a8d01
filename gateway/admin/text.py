"""`lethe text`: the prompt scrubber alone, offline; no server and no configuration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin.exits import FAILED, PARTLY, REFUSED, USAGE
from gateway.admin.files import STDIN, read_text
from gateway.admin.output import fail, say

if TYPE_CHECKING:
    from gateway.deidentify.text import PromptPolicy, ScrubbedText

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Prompts.")


@app.callback()
def text() -> None:
    """Scrub prompts, offline."""


@app.command()
def scrub(
    report: Annotated[
        bool, typer.Option("--report", help="Say on stderr what was found where: JSON, one line for each.")
    ] = False,
    drop: Annotated[
        list[str] | None, typer.Option(help="Leave this entity out instead of masking it.")
    ] = None,
    refuse: Annotated[list[str] | None, typer.Option(help="Refuse a prompt that holds this entity.")] = None,
    ner: Annotated[
        bool, typer.Option("--ner", help="Look for names with the model of the extra `ner`, too.")
    ] = False,
) -> None:
    """Scrub prompts from stdin to stdout, each line one prompt of at most 2000 characters.

    Line n answers line n.  A report has offsets and entities, never the text.  A refused
    prompt is an empty line, named on stderr, and makes the exit code 5 (all refused: 3).

    Example: lethe text scrub --report < prompts.txt
    """
    from gateway.deidentify.text import PromptPolicy
    from gateway.settings import MODEL

    if ner and not all(map(find_spec, MODEL)):
        fail(USAGE, "CONFIG_INVALID", "--ner needs the extra `ner`: pip install 'lethe[ner]'")
    actions = {**dict.fromkeys(drop or (), "drop"), **dict.fromkeys(refuse or (), "refuse")}
    try:
        policy = PromptPolicy(actions)
    except ValueError:
        fail(USAGE, "ENTITY_UNKNOWN", "there is no such entity; docs/reference/prompts.md lists them")
    # Not splitlines: what else counts as the end of a line there is a character of a prompt here.
    lines = read_text(STDIN).removesuffix("\n").split("\n")
    refused = 0
    for number, answer in enumerate(asyncio.run(_scrubbed(lines, policy, ner)), 1):
        if isinstance(answer, str):
            refused += 1
            say(f"error: PROMPT_REJECTED ({answer}): line {number}")
            typer.echo("")
            continue
        typer.echo(answer.text)
        if report:
            found = [
                {"start": one.start, "end": one.end, "entity": one.entity, "action": one.action}
                for one in answer.found
            ]
            typer.echo(json.dumps({"line": number, "found": found}), err=True)
    if refused:
        raise typer.Exit(REFUSED if refused == len(lines) else PARTLY)


async def _scrubbed(lines: Sequence[str], policy: PromptPolicy, ner: bool) -> list[ScrubbedText | str]:
    """Return each line scrubbed, or why it is refused."""
    from gateway.deidentify.errors import ScrubberUnavailable
    from gateway.deidentify.text import PromptRefused, PromptScrubber

    scrubber = PromptScrubber(policy, has_model=ner)
    answers: list[ScrubbedText | str] = []
    try:
        await scrubber.start()
        for line in lines:
            try:
                answers.append(await scrubber.scrub(line))
            except PromptRefused as refusal:
                answers.append(refusal.detail)
    except ScrubberUnavailable:
        fail(FAILED, "SCRUBBER_UNAVAILABLE", "the scrubber cannot be run, or was too slow")
    finally:
        await scrubber.close()
    return answers
