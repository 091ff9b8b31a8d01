"""Signed notes with Ed25519 keys (c2sp.org/signed-note)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit import b64
from audit.errors import NoteInvalid

MAX_NOTE_CHARS = 256 * 1024
MAX_SIGNATURES = 64
MAX_NAME_CHARS = 255
MAX_VKEY_CHARS = 1024
_ED25519 = b"\x01"
_ID_BYTES = 4
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_VKEY = re.compile(r"([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")
_LINE = re.compile("\u2014 ([^ ]+) ([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: whose it claims to be, and the bytes after the key id."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Verifier:
    """An Ed25519 key under a name; name and key id together name the key."""

    name: str
    public_key: bytes

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Return the key of a verifier key text `name+id+base64`.

        Raises:
            NoteInvalid: Malformed, an id that is not that of the key, or not Ed25519.
        """
        match = _VKEY.fullmatch(vkey) if len(vkey) <= MAX_VKEY_CHARS else None
        data = b64.decode(match[3]) if match else None
        if match is None or not data or not _is_name(match[1]):
            raise NoteInvalid("vkey_malformed", "a verifier key is name+id+base64")
        if not data.startswith(_ED25519):
            raise NoteInvalid("vkey_type", "only Ed25519 verifier keys (type 1) are taken")
        if len(data) != 33:
            raise NoteInvalid("vkey_malformed", "an Ed25519 key has 32 bytes")
        found = cls(match[1], data[1:])
        if found.key_id.hex() != match[2]:
            raise NoteInvalid("vkey_id", "the id is not that of the key")
        return found

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name || newline || type || key)."""
        named = self.name.encode() + b"\n" + _ED25519 + self.public_key
        return hashlib.sha256(named).digest()[:_ID_BYTES]

    def vkey(self) -> str:
        """Return the verifier key text."""
        return f"{self.name}+{self.key_id.hex()}+{b64.encode(_ED25519 + self.public_key)}"

    def made(self, signature: Signature) -> bool:
        """Return whether the signature names this key; it may still be false."""
        return signature.name == self.name and signature.key_id == self.key_id

    def holds(self, body: str, signature: Signature) -> bool:
        """Return whether the signature is this key's over `body`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature.value, body.encode())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """A named Ed25519 key; `seed` is its 32 secret bytes."""

    name: str
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise NoteInvalid("key_name")
        if len(self.seed) != 32:
            raise NoteInvalid("key_seed_length")

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self._private.public_key().public_bytes_raw())

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def vkey(self) -> str:
        """Return the verifier key text."""
        return self.verifier.vkey()

    def sign(self, text: str) -> str:
        """Return the note of `text`, which ends in a newline; the same text gives the same note.

        Raises:
            NoteInvalid: The text has no final newline, or control characters.
        """
        if not text.endswith("\n") or _CONTROL.search(text):
            raise NoteInvalid("note_text")
        signed = self.verifier.key_id + self._private.sign(text.encode())
        return f"{text}\n\u2014 {self.name} {b64.encode(signed)}\n"


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


def _signature(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    data = b64.decode(match[2]) if match else None
    if match is None or data is None or len(data) <= _ID_BYTES or not _is_name(match[1]):
        raise NoteInvalid("note_signature_line")
    return Signature(match[1], data[:_ID_BYTES], data[_ID_BYTES:])


def _is_name(name: str) -> bool:
    """Return whether `name` may name a key: not empty, no space, no plus, no control character."""
    if not 0 < len(name) <= MAX_NAME_CHARS or "+" in name or _CONTROL.search(name):
        return False
    return not any(char.isspace() for char in name)
