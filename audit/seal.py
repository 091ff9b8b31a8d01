"""Commitments: a leaf fixes what is said elsewhere without saying it, and forgets it with its salt.

A *seal* stands in the leaf, one per (subject, class): `[token, class, commitment]`.
What it fixes, the *payload*, rests encrypted off the log under the subject's own
key.  When key and bytes are gone, the seal says nothing of anyone: its salt had
256 random bits, and its token is another one in every event (decision 0018).
"""

from __future__ import annotations

import hashlib
import hmac

from audit.errors import OpeningInvalid

OPENING_LABEL = b"lethe.dev/opening/v1\0"
PAYLOAD_LABEL = b"lethe.dev/payload/v1\0"
TOKEN_LABEL = b"lethe.dev/token/v1\0"
SALT_BYTES = 32
TOKEN_BYTES = 16


def commit_opening(payload: bytes, salt: bytes) -> bytes:
    """Return what a leaf `subject.erased` commits to: SHA-256(label || salt || payload), 32 bytes.

    The salt is 32 random bytes that live only in the opening: without it the
    commitment tells nothing, and nobody can open it in two ways.

    Raises:
        OpeningInvalid: The salt has another length; the label and it must not run into the payload.
    """
    return _commit(OPENING_LABEL, payload, salt)


def check_opening(commitment: bytes, payload: bytes, salt: bytes) -> None:
    """Return if `payload` and `salt` open `commitment`.

    Raises:
        OpeningInvalid: They do not.
    """
    _check(OPENING_LABEL, commitment, payload, salt)


def commit_payload(payload: bytes, salt: bytes) -> bytes:
    """Return the commitment of a seal, as `commit_opening` does under a label of its own.

    It commits to plaintext: AES-GCM ciphertext could be opened in two ways.
    """
    return _commit(PAYLOAD_LABEL, payload, salt)


def check_payload(commitment: bytes, payload: bytes, salt: bytes) -> None:
    """Return if `payload` and `salt` are what a seal fixes.

    Raises:
        OpeningInvalid: They are not.
    """
    _check(PAYLOAD_LABEL, commitment, payload, salt)


def token(key: bytes, nonce: bytes, cls: str) -> bytes:
    """Return the token of a subject in the event with that nonce, 16 bytes.

    Two events of one subject have nothing in common for who lacks the `key`.  Who is
    given it finds every event of the subject by trying all leaves, and so sees
    that an answer to an access request is complete (GDPR Art. 15).

    Args:
        key: 32 bytes, of the subject alone.
        nonce: The leaf's `n`.
        cls: The class that the seal names.
    """
    return hmac.digest(key, TOKEN_LABEL + nonce + cls.encode(), "sha256")[:TOKEN_BYTES]


def _commit(label: bytes, payload: bytes, salt: bytes) -> bytes:
    if len(salt) != SALT_BYTES:
        raise OpeningInvalid("opening_salt_length")
    return hashlib.sha256(label + salt + payload).digest()


def _check(label: bytes, commitment: bytes, payload: bytes, salt: bytes) -> None:
    if not hmac.compare_digest(_commit(label, payload, salt), commitment):
        raise OpeningInvalid("opening_differs", "the opening is not what the leaf committed to")
