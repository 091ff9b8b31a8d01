"""Payloads of audit events: sealed under the subject's `audit` key, committed to by the leaf."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from audit import canonical, seal
from audit.errors import JsonInvalid, OpeningInvalid
from gateway.ports.records import SubjectKey
from gateway.vault.box import derive, open_box, prefixed, seal_box
from gateway.vault.errors import SealBroken

BOX_LABEL = b"lethe.dev/audit/v1"
TOKEN_LABEL = b"lethe.dev/audit-token/v1"
BUCKET = 256
MAX_BYTES = 1 << 20
_LENGTH = 4


@dataclass(frozen=True, slots=True)
class PayloadKey:
    """What seals the payloads of one subject, taken from the subject's `audit` key of a month.

    `holder` is that key's record: whoever writes a payload checks that it still stands.
    """

    holder: SubjectKey
    box_key: bytes = field(repr=False)
    token_key: bytes = field(repr=False)

    @classmethod
    def of(cls, holder: SubjectKey, key: bytes) -> PayloadKey:
        """Return the keys that an opened subject key gives."""
        return cls(holder, derive(key, BOX_LABEL), derive(key, TOKEN_LABEL))

    def token(self, nonce: bytes) -> str:
        """Return the subject's token in the event with that nonce, in hex (`audit.seal.token`)."""
        return seal.token(self.token_key, nonce, self.holder.cls).hex()

    def seal(
        self,
        origin: str,
        nonce: bytes,
        payload: Mapping[str, Any],
        random: Callable[[int], bytes] = os.urandom,
    ) -> tuple[list[str], bytes]:
        """Return the seal for the leaf and the blob for the records.

        The blob tells how long the payload is only in steps of 256 bytes.

        Raises:
            JsonInvalid: The payload is outside the restricted profile, or too large.
        """
        text = canonical.encode(dict(payload))
        if len(text) > MAX_BYTES:
            raise JsonInvalid("json_too_large")
        salt = random(seal.SALT_BYTES)
        commitment = seal.commit_payload(text, salt)
        plain = salt + len(text).to_bytes(_LENGTH, "big") + text
        plain += bytes(-len(plain) % BUCKET)
        blob = seal_box(self.box_key, plain, _aad(commitment, origin, self.holder.cls))
        return [self.token(nonce), self.holder.cls, commitment.hex()], blob

    def open(self, origin: str, entry: list[str], blob: bytes) -> tuple[bytes, bytes]:
        """Return the salt and the payload that a seal of the log `origin` fixes.

        Raises:
            SealBroken: Another key, another seal, or altered bytes.
        """
        commitment = bytes.fromhex(entry[2])
        plain = open_box(self.box_key, blob, _aad(commitment, origin, entry[1]))
        salt, rest = plain[: seal.SALT_BYTES], plain[seal.SALT_BYTES :]
        length = int.from_bytes(rest[:_LENGTH], "big")
        payload = rest[_LENGTH : _LENGTH + length]
        try:
            seal.check_payload(commitment, payload, salt)
        except OpeningInvalid as error:
            raise SealBroken("a payload is not what its leaf committed to") from error
        return salt, payload


def _aad(commitment: bytes, origin: str, cls: str) -> bytes:
    return prefixed(BOX_LABEL, commitment, origin.encode(), cls.encode())
