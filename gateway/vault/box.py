"""A box: a few bytes sealed in one piece, and the labelled keys that boxes are sealed under.

A box is `nonce (12) || ciphertext || tag (16)`, AES-256-GCM under a random nonce.
Boxes hold keys and columns, which fit in memory; objects use `gateway.vault.stream`.

Rule:
    NIST SP 800-38D, 8.3: at most 2**32 boxes with random nonces under one key.
    RFC 5869: HKDF with SHA-256, no salt (the input keys are uniformly random), the label as info.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.vault.errors import SealBroken

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
"""How much longer a box is than what is in it."""


def need_key(secret: bytes | bytearray) -> None:
    """Refuse what is not a 32-byte key.

    Raises:
        ValueError: It has another length.
    """
    if len(secret) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")


def prefixed(*fields: bytes) -> bytes:
    """Return the fields behind one another, each after its length (4 bytes, big-endian).

    No two lists of fields give the same bytes.
    """
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def derive(secret: bytes | bytearray, info: bytes) -> bytes:
    """Return the 32-byte key that `secret` gives for `info`: one secret, one key per use."""
    need_key(secret)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(bytes(secret))


def seal_box(kek: bytes, plaintext: bytes | bytearray, aad: bytes) -> bytes:
    """Return a box with `plaintext` under `kek`, bound to `aad`; it is 28 bytes longer."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(kek).encrypt(nonce, plaintext, aad)


def open_box(kek: bytes, box: bytes, aad: bytes) -> bytes:
    """Return what is in the box.

    Raises:
        SealBroken: Another key, other associated data, or altered bytes.
    """
    if len(box) < OVERHEAD_BYTES:
        raise SealBroken("shorter than an empty box")
    try:
        return AESGCM(kek).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], aad)
    except InvalidTag as error:
        raise SealBroken("a box does not open") from error


def rebox(old: bytes, new: bytes, boxes: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
    """Return what is in each (box, aad) under `old` in a new box under `new`, None where it does not open."""
    opening, sealing, nonces = AESGCM(old), AESGCM(new), os.urandom(NONCE_BYTES * len(boxes))
    made: list[bytes | None] = []
    for start, (box, aad) in zip(range(0, len(nonces), NONCE_BYTES), boxes, strict=True):
        nonce = nonces[start : start + NONCE_BYTES]
        try:
            inside = opening.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], aad)
            made.append(nonce + sealing.encrypt(nonce, inside, aad))
        except (InvalidTag, ValueError):  # a value that is too short is no box
            made.append(None)
    return made
