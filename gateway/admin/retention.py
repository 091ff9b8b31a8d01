"""`lethe retention`: how long things are kept, what is due, and what is owed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin import options
from gateway.admin.output import Form, say, show
from gateway.admin.session import pages, talk
from gateway.admin.words import moment, reason_code

if TYPE_CHECKING:
    from lethe.v1 import retention_pb2 as pb

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Retention: terms, and what is due.")


class Publish(StrEnum):
    """A form in which the schedule can be published."""

    MARKDOWN = "markdown"
    HTML = "html"


@app.command()
def schedule(
    publish: Annotated[
        Publish | None, typer.Option(help="Print a page to publish, by regime, in this form.")
    ] = None,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """Show how long each kind of data is kept, and by which rule; the shortest term that applies wins.

    Example: lethe retention schedule --publish markdown --as clients/auditor.yaml > retention.md
    """
    from lethe.v1 import retention_pb2 as pb

    answer = talk(profile, lambda client: client.call(client.retention.GetSchedule, pb.GetScheduleRequest()))
    if publish is None:
        show(answer, output, rows="rules", columns=("regime", "item", "purpose", "term", "at_least", "rule"))
    else:
        typer.echo((markdown if publish is Publish.MARKDOWN else html)(answer.rules), nl=False)


@app.command()
def due(
    before: Annotated[str, typer.Option(help="Due until then, with its offset; else now.")] = "",
    after: Annotated[str, typer.Option(help="Begin behind this page token.")] = "",
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List the objects whose term has ended or ends, earliest first, and the hold that keeps one beyond.

    Example: lethe retention due --before 2027-01-01T00:00:00Z --as clients/officer.yaml
    """
    from lethe.v1 import retention_pb2 as pb

    def asked(size: int, token: str) -> pb.ListDueRequest:
        request = pb.ListDueRequest(page_size=size, page_token=token)
        if before:
            request.before_time.CopyFrom(moment(before))
        return request

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(client.retention.ListDue, asked(size, token)),
            "items",
            limit,
            after,
        ),
    )
    show(answer, output, rows="items", columns=("object", "kind", "expire_time", "hold"))


@app.command()
def sweep(
    why: options.Reason,
    profile: options.As = None,
    apply: options.Apply = False,
    output: options.Output = Form.TABLE,
) -> None:
    """Destroy now whatever is due, and try again what was set aside; a rehearsal says how much that is.

    The gateway does the same by itself every `sweep.interval_s`, but for what was set aside.
    `lethe retention due` and `debts` list it one by one.

    Example: lethe retention sweep --reason complaint --apply --as clients/officer.yaml
    """
    from lethe.v1 import retention_pb2 as pb

    request = pb.SweepRequest(validate_only=not apply, reason_code=reason_code(why))
    show(talk(profile, lambda client: client.call(client.retention.Sweep, request)), output)
    if not apply:
        say("rehearsal: nothing was changed; --apply sweeps")


@app.command()
def debts(
    after: Annotated[str, typer.Option(help="Begin behind this page token.")] = "",
    limit: options.Limit = 100,
    profile: options.As = None,
    output: options.Output = Form.TABLE,
) -> None:
    """List what could not be destroyed yet: tried again at its time, or set aside where it has none.

    Example: lethe retention debts --as clients/officer.yaml
    """
    from lethe.v1 import retention_pb2 as pb

    answer = talk(
        profile,
        lambda client: pages(
            lambda size, token: client.call(
                client.retention.ListDebts, pb.ListDebtsRequest(page_size=size, page_token=token)
            ),
            "debts",
            limit,
            after,
        ),
    )
    show(
        answer, output, rows="debts", columns=("kind", "item", "tries", "reason", "create_time", "retry_time")
    )


_HEAD = ("What", "For", "Kept at most", "Kept at least", "Rule")


def markdown(rules: Iterable[pb.RetentionRule]) -> str:
    """Return the schedule as Markdown, a table for each regime."""
    parts = ["# Retention schedule\n"]
    for regime, lines in _by_regime(rules):
        parts.append(f"\n## {regime}\n\n| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}\n")
        parts += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines]
    return "".join(parts)


def html(rules: Iterable[pb.RetentionRule]) -> str:
    """Return the schedule as a page without scripts or styles from elsewhere."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Retention schedule</title>\n',
        "<h1>Retention schedule</h1>\n",
    ]
    for regime, lines in _by_regime(rules):
        head = "".join(f'<th scope="col">{cell}</th>' for cell in _HEAD)
        parts.append(f"<h2>{escape(regime)}</h2>\n<table><thead><tr>{head}</tr></thead><tbody>\n")
        parts += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>\n" for line in lines]
        parts.append("</tbody></table>\n")
    return "".join([*parts, "</html>\n"])


def _by_regime(rules: Iterable[pb.RetentionRule]) -> list[tuple[str, list[tuple[str, ...]]]]:
    from lethe.v1.common_pb2 import Purpose

    found: dict[str, list[tuple[str, ...]]] = {}
    for rule in rules:
        purpose = Purpose.Name(rule.purpose).removeprefix("PURPOSE_").lower() if rule.purpose else ""
        line = (rule.item, purpose or "any purpose", rule.term or "-", rule.at_least or "-", rule.rule)
        found.setdefault(rule.regime, []).append(line)
    return sorted(found.items())
