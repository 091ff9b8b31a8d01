"""What parent and worker say to each other: a small JSON header and a body of bytes, both bounded."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

PREFIX: Final = struct.Struct("!II")
"""Length of the header, length of the body."""
MAX_HEADER: Final = 4096
OVERHEAD: Final = 4096
"""A scrubbed picture may be longer than the cap on its input by what is made anew, and by no more."""


class BadFrame(Exception):
    """The other side does not keep to the protocol."""


def encode(header: dict[str, Any], body_bytes: int = 0) -> bytes:
    """Return everything of a frame that comes before its body."""
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > MAX_HEADER:
        raise BadFrame
    return PREFIX.pack(len(text), body_bytes) + text


def lengths(prefix: bytes, max_body: int) -> tuple[int, int]:
    """Return the lengths of header and body that `prefix` announces."""
    header_bytes, body_bytes = PREFIX.unpack(prefix)
    if header_bytes > MAX_HEADER or body_bytes > max_body:
        raise BadFrame
    return header_bytes, body_bytes


def decode(text: bytes) -> dict[str, Any]:
    """Return a frame's header."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFrame from error
    if not isinstance(header, dict):
        raise BadFrame
    return header
