"""What a command prints: results on stdout in one of three forms, everything else on stderr.

JSON and YAML are the JSON mapping of the wire's messages with the field names of
the .proto files; a field that is empty or false is there all the same.  Tables
are for eyes: what a stranger wrote cannot steer the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message

PIPE_WIDTH = 4096


class Form(StrEnum):
    """How results are written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def fail(code: int, reason: str, message: str, detail: str = "") -> NoReturn:
    """Say on stderr what went wrong and end with `code`."""
    narrowed = f" ({detail})" if detail else ""
    say(f"error: {reason}{narrowed}: {message}")
    raise typer.Exit(code)


def say(text: str) -> None:
    """Write one line to stderr."""
    typer.echo(printable(text).replace("\n", "\\n"), err=True)


def printable(text: str) -> str:
    """Return `text` with every character that could steer a terminal made visible."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def document(message: Message) -> dict[str, Any]:
    """Return a message as a mapping: JSON mapping, snake_case names, empty fields included."""
    from google.protobuf.json_format import MessageToDict

    made: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return made


def show(message: Message, form: Form, *, rows: str = "", columns: Sequence[str] = ()) -> None:
    """Print a message; as a table, the repeated field `rows` with `columns`, or all fields."""
    emit(document(message), form, rows=rows, columns=columns)


def emit(tree: Mapping[str, Any], form: Form, *, rows: str = "", columns: Sequence[str] = ()) -> None:
    """Print a mapping; see `show`."""
    if form is Form.JSON:
        typer.echo(json.dumps(tree, indent=2))
    elif form is Form.YAML:
        import yaml

        typer.echo(yaml.safe_dump(dict(tree), sort_keys=False), nl=False)
    elif rows:
        _table(columns, [[_at(row, column) for column in columns] for row in tree.get(rows, ())])
    else:
        _table(("field", "value"), [[name, value] for name, value in flat(tree) if value])


def flat(tree: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, text) for everything in a tree of mappings and lists."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from flat(value, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        for index, item in enumerate(tree):
            yield from flat(item, f"{path}.{index}")
    else:
        yield path, _text(tree)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = "" if value is None else str(value)
    # An enum that was not said is nothing to show: `ACT_UNSPECIFIED` reads as if something were wrong.
    return "" if text.isupper() and text.endswith("_UNSPECIFIED") else text


def _at(row: Mapping[str, Any], path: str) -> str:
    value: object = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return _text(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; into a pipe it is never folded, so that `cut` and `grep` see whole ids."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
