"""What every view is made of: leaves with their places, and what an export says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One leaf: its index in the log, its leaf hash, what it says, and its bytes."""

    index: int
    hash: bytes
    event: Mapping[str, Any]
    line: bytes


@dataclass(frozen=True, slots=True)
class Controller:
    """Who answers for the processing, in the words of the tenant's own facts; empty where not given."""

    name: str = ""
    contact: str = ""
    representative: str = ""
    officer: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What an export knows beside its leaves.

    There is no time of making in it: the same range and the same checkpoint give
    the same bytes.

    Attributes:
        checkpoint: The signed note.
        start: Index of the first leaf of the range.
        end: Index after its last.
        left: The compact range of [0, start) (`audit.ranges`).
        right: The compact range of [end, size).
        hashes: Every leaf hash of the range, where the rows are only some of its leaves; else empty.
        vkeys: The log's verifier keys that signed the checkpoint or sign the report.
        backends: Names of backends by their id, as the operator gives them; others are shown by id.
    """

    origin: str
    checkpoint: str
    size: int
    root: bytes
    start: int
    end: int
    vkeys: tuple[str, ...]
    controller: Controller = Controller()
    left: tuple[bytes, ...] = ()
    right: tuple[bytes, ...] = ()
    hashes: tuple[bytes, ...] = ()
    backends: Mapping[str, str] = field(default_factory=dict)


def instant(at_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 in UTC."""
    seconds, rest = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
