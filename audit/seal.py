"""Commitments: a leaf fixes what an opening must say without saying it."""

from __future__ import annotations

import hashlib
import hmac

from audit.errors import OpeningInvalid

OPENING_LABEL = b"lethe.dev/opening/v1\0"
SALT_BYTES = 32


def commit_opening(payload: bytes, salt: bytes) -> bytes:
    """Return the commitment SHA-256(label || salt || payload), 32 bytes.

    The salt is 32 random bytes that live only in the opening: without it the
    commitment tells nothing, and nobody can open it in two ways.

    Raises:
        OpeningInvalid: The salt has another length; the label and it must not run into the payload.
    """
    if len(salt) != SALT_BYTES:
        raise OpeningInvalid("opening_salt_length")
    return hashlib.sha256(OPENING_LABEL + salt + payload).digest()


def check_opening(commitment: bytes, payload: bytes, salt: bytes) -> None:
    """Return if `payload` and `salt` open `commitment`.

    Raises:
        OpeningInvalid: They do not.
    """
    if not hmac.compare_digest(commit_opening(payload, salt), commitment):
        raise OpeningInvalid("opening_differs", "the opening is not what the leaf committed to")
