"""Signed notes (c2sp.org/signed-note), with the signatures that logs and witnesses make.

Three signature types are known: Ed25519 over the text, and the two timestamped
ones of c2sp.org/tlog-cosignature, which are over checkpoints only.  Signatures of
other types, and by unknown keys, are ignored as the specification has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from audit import b64
from audit.errors import CheckpointInvalid, NoteInvalid
from audit.head import MAX_NAME_BYTES, MAX_TIME_S, cosigned_head, cosigned_text

MAX_NOTE_CHARS = 256 * 1024
MAX_SIGNATURES = 64
MAX_VKEY_CHARS = 2048
_ID_BYTES = 4
_TIME_BYTES = 8
_SEED_BYTES = 32
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")
_LINE = re.compile("\u2014 ([^ ]+) ([A-Za-z0-9+/=]+)")

Algorithm = Literal["ed25519", "ml-dsa-44"]


class KeyType(IntEnum):
    """The signature types that are known, by their byte in a verifier key."""

    ED25519 = 1
    COSIGNATURE_V1 = 4
    ML_DSA_44 = 6


_KEY_BYTES = {KeyType.ED25519: 32, KeyType.COSIGNATURE_V1: 32, KeyType.ML_DSA_44: 1312}


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: whose it claims to be, and the bytes after the key id."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under a name; name and key id together name the key."""

    name: str
    public_key: bytes
    type: KeyType = KeyType.ED25519

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Return the key of a verifier key text `name+id+base64`.

        Raises:
            NoteInvalid: Malformed, an id that is not that of the key, or a type that is not known.
        """
        match = _VKEY.fullmatch(vkey) if len(vkey) <= MAX_VKEY_CHARS else None
        data = b64.decode(match[3]) if match else None
        if match is None or not data or not _is_key_name(match[1]):
            raise NoteInvalid("vkey_malformed", "a verifier key is name+id+base64")
        if data[0] not in _KEY_BYTES:
            raise NoteInvalid("vkey_type", "only verifier keys of types 1, 4 and 6 are taken")
        found = cls(match[1], data[1:], KeyType(data[0]))
        if len(found.public_key) != _KEY_BYTES[found.type]:
            raise NoteInvalid("vkey_malformed", "a key of this type has another length")
        if found.key_id.hex() != match[2]:
            raise NoteInvalid("vkey_id", "the id is not that of the key")
        return found

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name || newline || type || key)."""
        named = self.name.encode() + b"\n" + self._typed_key
        return hashlib.sha256(named).digest()[:_ID_BYTES]

    @property
    def _typed_key(self) -> bytes:
        return bytes([self.type]) + self.public_key

    def vkey(self) -> str:
        """Return the verifier key text."""
        return f"{self.name}+{self.key_id.hex()}+{b64.encode(self._typed_key)}"

    def made(self, signature: Signature) -> bool:
        """Return whether the signature names this key; it may still be false."""
        return signature.name == self.name and signature.key_id == self.key_id

    def holds(self, body: str, signature: Signature) -> bool:
        """Return whether the signature is this key's over `body`."""
        try:
            at_s, value = _timed(self.type, signature.value)
            message = _message(self.type, self.name, body, at_s)
            # Public keys have two classes without a common one; both verify so.
            key: Ed25519PublicKey | MLDSA44PublicKey
            if self.type is KeyType.ML_DSA_44:
                key = MLDSA44PublicKey.from_public_bytes(self.public_key)
            else:
                key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(value, message)
        except (InvalidSignature, CheckpointInvalid, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A named secret key of a log; `seed` is its 32 secret bytes, for either algorithm.

    An Ed25519 key signs any text.  An ML-DSA-44 key signs checkpoints only: the
    specification has no other use for it.
    """

    name: str
    seed: bytes = field(repr=False)
    algorithm: Algorithm = "ed25519"

    def __post_init__(self) -> None:
        check_secret(self.name, self.seed)

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return public_half(self.name, self.seed, self._type)

    @property
    def _type(self) -> KeyType:
        return KeyType.ML_DSA_44 if self.algorithm == "ml-dsa-44" else KeyType.ED25519

    def vkey(self) -> str:
        """Return the verifier key text."""
        return self.verifier.vkey()

    def sign(self, text: str) -> str:
        """Return the note of `text`, which ends in a newline; the same text gives the same note.

        Raises:
            NoteInvalid: The text has no final newline, or control characters; or the key is
                for checkpoints only.
        """
        if self._type is not KeyType.ED25519:
            raise NoteInvalid("note_key_type", "a key of this type signs checkpoints only")
        return assemble(text, [self.line(text, 0)])

    def line(self, body: str, at_s: int) -> str:
        """Return the signature line over a checkpoint's body, without its line end.

        Args:
            at_s: POSIX time, which an Ed25519 signature has no place for.

        Raises:
            NoteInvalid: The time is beyond what can be stated.
            CheckpointInvalid: An ML-DSA-44 key signs checkpoints only.
        """
        return signature_line(self.name, self.seed, self._type, body, at_s)


def check_secret(name: str, seed: bytes) -> None:
    """Return if these make a secret key.

    Raises:
        NoteInvalid: The name names no key, or the seed is not 32 bytes.
    """
    if not _is_key_name(name):
        raise NoteInvalid("key_name")
    if len(seed) != _SEED_BYTES:
        raise NoteInvalid("key_seed_length")


def public_half(name: str, seed: bytes, key_type: KeyType) -> Verifier:
    """Return the public key that belongs to a seed."""
    return Verifier(name, _private(seed, key_type).public_key().public_bytes_raw(), key_type)


def signature_line(name: str, seed: bytes, key_type: KeyType, body: str, at_s: int) -> str:
    """Return the signature line of a key over `body`, without its line end.

    Raises:
        NoteInvalid: The time is beyond what can be stated.
        CheckpointInvalid: ML-DSA-44 is over checkpoints only.
    """
    if not 0 <= at_s <= MAX_TIME_S:
        raise NoteInvalid("signature_time", "a time is 0 to 2^63 - 1 seconds")
    private = _private(seed, key_type)
    key_id = Verifier(name, private.public_key().public_bytes_raw(), key_type).key_id
    time = b"" if key_type is KeyType.ED25519 else at_s.to_bytes(_TIME_BYTES, "big")
    value = time + private.sign(_message(key_type, name, body, at_s))
    return f"\u2014 {name} {b64.encode(key_id + value)}"


def signed_at(verifier: Verifier, signature: Signature) -> int:
    """Return the POSIX time that a signature of this key states, 0 where its type states none.

    Only what `holds` has found true means anything.

    Raises:
        NoteInvalid: Too short, or a time beyond what can be stated.
    """
    try:
        return _timed(verifier.type, signature.value)[0]
    except ValueError:
        raise NoteInvalid("signature_time", "the signature states no time") from None


def assemble(text: str, lines: Iterable[str]) -> str:
    """Return the note of a text and its signature lines.

    Raises:
        NoteInvalid: The text has no final newline, or control characters.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteInvalid("note_text")
    return "".join((text, "\n", *(f"{line}\n" for line in lines)))


def add_signatures(text: str, lines: Iterable[str]) -> str:
    """Return the note with signature lines appended; those that it has already are left out.

    Nothing is verified.

    Args:
        lines: As `signature_line` gives them; a line end is taken too.

    Raises:
        NoteInvalid: The note or a line is malformed, or it becomes larger than any verifier takes.
    """
    parse(text)
    standing = text.rpartition("\n\n")[2].split("\n")
    added = dict.fromkeys(line.removesuffix("\n") for line in lines)
    for line in added:
        _signature(line)
    grown = text + "".join(f"{line}\n" for line in added if line not in standing)
    parse(grown)
    return grown


def parse(text: str) -> tuple[str, list[Signature]]:
    """Return the body and the signatures of a note, none of them verified.

    Raises:
        NoteInvalid: Not a note, or beyond the caps.
    """
    if len(text) > MAX_NOTE_CHARS:
        raise NoteInvalid("note_too_large")
    if _CONTROL.search(text):
        raise NoteInvalid("note_control_character")
    body, gap, signed = text.rpartition("\n\n")
    if not gap or not signed.endswith("\n"):
        raise NoteInvalid("note_malformed", "a note is text, an empty line, and signature lines")
    lines = signed[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteInvalid("note_too_many_signatures")
    return body + "\n", [_signature(line) for line in lines]


def open_note(text: str, verifiers: Sequence[Verifier]) -> tuple[str, list[Verifier]]:
    """Return the body of a note and which of `verifiers` signed it.

    Signatures by unknown keys are ignored.

    Raises:
        NoteInvalid: Malformed, a known key's signature is false, or no known key signed.
    """
    body, signatures = parse(text)
    signed: list[Verifier] = []
    for signature in signatures:
        for verifier in verifiers:
            if not verifier.made(signature):
                continue
            if not verifier.holds(body, signature):
                raise NoteInvalid("note_signature", "the signature of a known key is false")
            if verifier not in signed:
                signed.append(verifier)
    if not signed:
        raise NoteInvalid("note_unknown_keys", "no known key has signed")
    return body, signed


def _private(seed: bytes, key_type: KeyType) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    if key_type is KeyType.ML_DSA_44:
        return MLDSA44PrivateKey.from_seed_bytes(seed)
    return Ed25519PrivateKey.from_private_bytes(seed)


def _message(key_type: KeyType, name: str, body: str, at_s: int) -> bytes:
    """Return the bytes that a key of this type and name signs for a body."""
    match key_type:
        case KeyType.ED25519:
            return body.encode()
        case KeyType.COSIGNATURE_V1:
            return cosigned_text(body, at_s)
        case KeyType.ML_DSA_44:
            return cosigned_head(name, body, at_s)


def _timed(key_type: KeyType, value: bytes) -> tuple[int, bytes]:
    """Return the time that a signature states, and the signature proper.

    Raises:
        ValueError: There is no time where the type has one.
    """
    if key_type is KeyType.ED25519:
        return 0, value
    at_s = int.from_bytes(value[:_TIME_BYTES], "big")
    if len(value) <= _TIME_BYTES or at_s > MAX_TIME_S:
        raise ValueError("no time that can be stated")
    return at_s, value[_TIME_BYTES:]


def _signature(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    data = b64.decode(match[2]) if match else None
    if match is None or data is None or len(data) <= _ID_BYTES or not _is_name(match[1]):
        raise NoteInvalid("note_signature_line")
    return Signature(match[1], data[:_ID_BYTES], data[_ID_BYTES:])


def _is_key_name(name: str) -> bool:
    """Return whether `name` may name a key that is used: one that can be signed, so at most 255 bytes."""
    return _is_name(name) and len(name.encode()) <= MAX_NAME_BYTES


def _is_name(name: str) -> bool:
    """Return whether `name` may name a key: not empty, no space, no plus, no control character."""
    if not name or "+" in name or _CONTROL.search(name):
        return False
    return not any(char.isspace() for char in name)
