"""Strict Base 64 (RFC 4648 section 4): one text for one value."""

from __future__ import annotations

import base64
import binascii


def encode(data: bytes) -> str:
    """Return the padded standard encoding."""
    return base64.b64encode(data).decode("ascii")


def decode(text: str) -> bytes | None:
    """Return the bytes, or None where `text` is not exactly what `encode` gives.

    Whitespace, a missing or superfluous pad, and set bits that carry no data are refused.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if encode(data) == text else None
