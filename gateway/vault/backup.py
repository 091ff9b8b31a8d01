"""The backup file: one sealed stream, which only the holder of an identity can open.

    file   = "lethe-backup/1" LF || header LF || stream
    header = {"key": the file key sealed to the recipient (base64), "to": the recipient's fingerprint}
    stream = Tink streaming AEAD (`gateway.vault.stream`) under the file key, bound to the lines before it
    frame  = kind (1 byte) || length (4 bytes, big-endian) || body; the stream holds frames and nothing else

The file key is random and sealed with HPKE (DHKEM X25519, HKDF-SHA256,
AES-256-GCM), so who makes backups cannot read them.  Anybody who knows the
recipient could make such a file: that it is ours the log says, by its digest.

Rule:
    RFC 9180: HPKE, base mode.
    docs/reference/backup.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import IO

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from gateway.vault import stream
from gateway.vault.box import KEY_BYTES, prefixed
from gateway.vault.errors import BackupInvalid, SealBroken

MAGIC = b"lethe-backup/"
VERSION = b"1"
INFO = b"lethe.dev/backup/v1"
READ_BYTES = 1 << 20
MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = 64 << 20

_HEAD_BYTES = 5
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

Frame = tuple[bytes, bytes]
"""A kind and a body."""


def make_identity() -> tuple[bytes, bytes]:
    """Return a new identity and its recipient, both as PEM."""
    identity = X25519PrivateKey.generate()
    return (
        identity.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        identity.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def read_recipient(pem: bytes) -> X25519PublicKey:
    """Return the recipient in a PEM file.

    Raises:
        BackupInvalid: It holds something else (`recipient`).
    """
    try:
        found = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BackupInvalid("recipient", "the recipient is no X25519 public key in PEM") from error
    if not isinstance(found, X25519PublicKey):
        raise BackupInvalid("recipient", "the recipient is no X25519 public key in PEM")
    return found


def read_identity(pem: bytes) -> X25519PrivateKey:
    """Return the identity in a PEM file.

    Raises:
        BackupInvalid: It holds something else (`identity`).
    """
    try:
        found = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BackupInvalid("identity", "the identity is no X25519 private key in PEM") from error
    if not isinstance(found, X25519PrivateKey):
        raise BackupInvalid("identity", "the identity is no X25519 private key in PEM")
    return found


def fingerprint(recipient: X25519PublicKey) -> str:
    """Return the first 16 bytes of the SHA-256 of the raw public key, in hex."""
    return hashlib.sha256(recipient.public_bytes_raw()).hexdigest()[:32]


def seal(recipient: X25519PublicKey, frames: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the backup file that holds `frames`, cut anyhow, in pieces of at most 1 MiB."""
    file_key = os.urandom(KEY_BYTES)
    sealed = _SUITE.encrypt(file_key, recipient, INFO)
    header = {"key": base64.b64encode(sealed).decode(), "to": fingerprint(recipient)}
    lines = MAGIC + VERSION + b"\n" + json.dumps(header, sort_keys=True).encode() + b"\n"
    yield lines
    yield from stream.seal(file_key, _binding(lines), frames)


def open_(identity: X25519PrivateKey, file: IO[bytes]) -> Iterator[Frame]:
    """Yield the frames of a backup file; only the end of the iterator says that nothing is missing.

    Raises:
        BackupInvalid: No backup or of another version (`version`), sealed to somebody else
            (`identity`), or altered, cut or lengthened (`broken`).
    """
    first = file.readline(MAX_HEADER_BYTES)
    if first != MAGIC + VERSION + b"\n":
        if first.startswith(MAGIC):
            raise BackupInvalid("version", "the backup is of another version; use the Lethe that reads it")
        raise BackupInvalid("version", "the file is no backup")
    second = file.readline(MAX_HEADER_BYTES)
    file_key = _file_key(identity, second)
    pieces = iter(lambda: file.read(READ_BYTES), b"")
    try:
        yield from read_frames(stream.open_(file_key, _binding(first + second), pieces))
    except SealBroken as error:
        raise BackupInvalid("broken", "the backup was altered, or is not whole") from error


def frame(kind: bytes, body: bytes) -> bytes:
    """Return the bytes of a frame.

    Raises:
        ValueError: The kind is not one byte, or the body too large.
    """
    if len(kind) != 1 or len(body) > MAX_BODY_BYTES:
        raise ValueError("a frame has a kind of one byte and at most 64 MiB")
    return kind + len(body).to_bytes(4, "big") + body


def read_frames(chunks: Iterable[bytes]) -> Iterator[Frame]:
    """Yield the frames in `chunks`, which are cut anyhow.

    Raises:
        BackupInvalid: They end within a frame, or one is too large (`broken`).
    """
    held = bytearray()
    for chunk in chunks:
        held += chunk
        at = 0
        while len(held) - at >= _HEAD_BYTES:
            size = int.from_bytes(held[at + 1 : at + _HEAD_BYTES], "big")
            if size > MAX_BODY_BYTES:
                raise BackupInvalid("broken", "a frame is too large")
            end = at + _HEAD_BYTES + size
            if end > len(held):
                break
            yield bytes(held[at : at + 1]), bytes(held[at + _HEAD_BYTES : end])
            at = end
        del held[:at]
    if held:
        raise BackupInvalid("broken", "the backup ends within a frame")


def _binding(lines: bytes) -> bytes:
    return prefixed(INFO, lines)


def _file_key(identity: X25519PrivateKey, line: bytes) -> bytes:
    try:
        header = json.loads(line)
        sealed, to = base64.b64decode(header["key"], validate=True), header["to"]
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise BackupInvalid("broken", "the backup has no header") from error
    if to != fingerprint(identity.public_key()):
        raise BackupInvalid("identity", "the backup is sealed to another identity")
    try:
        file_key = _SUITE.decrypt(sealed, identity, INFO)
    except (InvalidTag, ValueError) as error:
        raise BackupInvalid("broken", "the key of the backup does not open") from error
    if len(file_key) != KEY_BYTES:
        raise BackupInvalid("broken", "the key of the backup is none")
    return file_key
