"""Between the words of the command line and the messages of the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
import yaml

from gateway.admin.files import read_text

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

M = TypeVar("M", bound="Message")
_REASON = re.compile(r"[a-z0-9_-]{2,64}", re.ASCII)
_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,63}", re.ASCII)


def resource(collection: str, name: str) -> str:
    """Return `jobs/ID` for `jobs/ID` or `ID`.

    Raises:
        typer.BadParameter: It is a resource of another kind.
    """
    kind, slash, bare = name.rpartition("/")
    if (slash and kind != collection) or not bare:
        raise typer.BadParameter(f"a name here is {collection}/ID")
    return f"{collection}/{bare}"


def reason(text: str) -> str:
    """Return a reason that is a code.

    Raises:
        typer.BadParameter: It is free text; it is not repeated.
    """
    if not _REASON.fullmatch(text):
        raise typer.BadParameter("--reason is a code of 2 to 64 characters a-z, 0-9, _ and -")
    return text


def reason_code(text: str) -> str:
    """Return a reason as the wire writes it: `identity_unproven` becomes `IDENTITY_UNPROVEN`.

    Raises:
        typer.BadParameter: It is no code; it is not repeated.
    """
    code = text.upper().replace("-", "_")
    if not _CODE.fullmatch(code):
        raise typer.BadParameter("--reason is a code of 3 to 64 characters A-Z, 0-9 and _, a letter first")
    return code


def moment(text: str) -> Timestamp:
    """Return an instant given as ISO 8601 with its offset.

    Raises:
        typer.BadParameter: It is none, or has no offset.
    """
    from google.protobuf.timestamp_pb2 import Timestamp

    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("an instant is written like 2026-03-01T09:30:00+01:00") from error
    if instant.tzinfo is None:
        raise typer.BadParameter("an instant needs its offset: 2026-03-01T09:30:00Z")
    made = Timestamp()
    made.FromDatetime(instant.astimezone(UTC))
    return made


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON or YAML file, or stdin for `-`; every YAML scalar stays a word.

    Raises:
        typer.BadParameter: It holds none.
    """
    text = read_text(path)
    try:
        # YAML reads NO as false and 010 as 8: the country Norway must stay a word.
        tree = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, Loader=yaml.BaseLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise typer.BadParameter(f"{path}: neither JSON nor YAML") from error
    if not isinstance(tree, dict):
        raise typer.BadParameter(f"{path}: holds no mapping")
    return tree


def fill(message: M, tree: Mapping[str, Any]) -> M:
    """Set the fields that `tree` names, with the JSON mapping, and return the message.

    An enum may be written as its short word: `adult` for AGE_BAND_ADULT.

    Raises:
        typer.BadParameter: An unknown field, or a value that does not fit.  The
            field is named, the value is not: it may be personal data.
    """
    from google.protobuf.json_format import ParseDict, ParseError

    fields = message.DESCRIPTOR.fields_by_name
    for name, value in tree.items():
        if name not in fields:
            raise typer.BadParameter(f"unknown field {name!r}; known are {', '.join(sorted(fields))}")
        try:
            ParseDict({name: _long(fields[name], value)}, message)
        except ParseError:
            raise typer.BadParameter(f"the value of {name!r} does not fit") from None
    return message


def _long(field: Any, value: object) -> object:
    """Return the full name of an enum's short word, and everything else as it is."""
    if field.enum_type is None:
        return value
    prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    if isinstance(value, list):
        return [_long(field, one) for one in value]
    is_short = isinstance(value, str) and value.islower()
    return prefix + str(value).upper() if is_short else value
