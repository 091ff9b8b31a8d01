"""A witness in memory that keeps the contract and can be told to break it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import checkpoint, note, tree
from audit.checkpoint import Checkpoint
from audit.errors import ProofInvalid
from gateway.ports.witness import WitnessConflict, WitnessRefused, WitnessUnavailable


@dataclass
class WitnessFaults:
    """What goes wrong next.

    `lose` makes a call raise `WitnessUnavailable` before the witness saw it,
    `lose_reply` after it did everything.  `is_down` makes every call raise,
    `hang()` makes calls wait until `release()`, `refuses` is a code to refuse with,
    `lies` makes it answer with a cosignature of another checkpoint.
    """

    is_down: bool = False
    refuses: str = ""
    lies: bool = False
    lost: int = 0
    lost_replies: int = 0
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go.set()

    def lose(self, times: int = 1) -> None:
        self.lost += times

    def lose_reply(self, times: int = 1) -> None:
        self.lost_replies += times

    def hang(self) -> None:
        """Make calls wait; `hung` is set once one does."""
        self.hung.clear()
        self.go.clear()

    def release(self) -> None:
        self.go.set()


class FakeWitness:
    """Cosigns (Ed25519 cosignature/v1) what extends what it knows; `known` is what it cosigned last.

    It trusts every origin, and leaves the log's signature to the caller's tests.
    A lie is a well-formed line over another root: who does not verify, takes it.
    """

    def __init__(
        self,
        name: str = "witness.example/w1",
        *,
        seed: bytes = bytes(range(32, 64)),
        now_s: Callable[[], int] = lambda: 1_790_000_000,
    ) -> None:
        self.name = name
        self.faults = WitnessFaults()
        self.known: dict[str, Checkpoint] = {}
        self.calls: Counter[str] = Counter()
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._now_s = now_s

    def vkey(self) -> str:
        material = b"\x04" + self._key.public_key().public_bytes_raw()
        return f"{self.name}+{self._key_id().hex()}+{base64.b64encode(material).decode()}"

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: str) -> tuple[str, ...]:
        await self._suffer()
        body, found = _opened(checkpoint)
        self.calls[found.origin] += 1
        known = self.known.get(found.origin, Checkpoint(found.origin, 0, tree.EMPTY_ROOT))
        if old != known.size or (old == found.size and found.root != known.root):
            raise WitnessConflict(known.size)
        try:
            tree.verify_consistency(
                first=old, second=found.size, first_root=known.root, second_root=found.root, proof=proof
            )
        except ProofInvalid as error:
            raise WitnessRefused("witness_proof_refused") from error
        self.known[found.origin] = found
        if self.faults.lost_replies:
            self.faults.lost_replies -= 1
            raise WitnessUnavailable("the reply was lost")
        if self.faults.lies:
            body = f"{found.origin}\n{found.size}\n{base64.b64encode(bytes(32)).decode()}\n"
        return (self.cosign(body),)

    def cosign(self, body: str) -> str:
        """Return the signature line over a note's body (c2sp.org/tlog-cosignature, Ed25519)."""
        at_s = self._now_s()
        signed = self._key.sign(f"cosignature/v1\ntime {at_s}\n{body}".encode())
        value = self._key_id() + at_s.to_bytes(8, "big") + signed
        return f"\u2014 {self.name} {base64.b64encode(value).decode()}"

    async def _suffer(self) -> None:
        if not self.faults.go.is_set():
            self.faults.hung.set()
            await self.faults.go.wait()
        if self.faults.is_down:
            raise WitnessUnavailable
        if self.faults.lost:
            self.faults.lost -= 1
            raise WitnessUnavailable("the call was lost")
        if self.faults.refuses:
            raise WitnessRefused(self.faults.refuses)

    def _key_id(self) -> bytes:
        material = b"\x04" + self._key.public_key().public_bytes_raw()
        return hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4]


def _opened(text: str) -> tuple[str, Checkpoint]:
    body, _ = note.parse(text)
    return body, checkpoint.parse(body)
