"""What a log and a witness say to each other, and how a witness decides (c2sp.org/tlog-witness)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from audit import b64, checkpoint, note, tree
from audit.cosign import COSIGNING
from audit.errors import AuditError, NoteInvalid, ProofInvalid, WitnessInvalid
from audit.head import MAX_SIZE, Checkpoint
from audit.keys import KeyBook
from audit.note import Verifier

MAX_PROOF_HASHES = 63
MAX_REQUEST_BYTES = 16 * 1024
"""No limit of the specification: what the widely run witness of transparency-dev reads, and ours."""
MAX_RESPONSE_BYTES = 64 * 1024
SIZE_TYPE = "text/x.tlog.size"
"""The content type of an answer 409 that names the size the witness knows."""

BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 400, 403, 404, 409, 422
REFUSALS = {
    BAD_REQUEST: "witness_bad_request",
    FORBIDDEN: "witness_key_unknown",
    NOT_FOUND: "witness_origin_unknown",
    UNPROCESSABLE: "witness_proof_refused",
}
"""What each status means by which a witness refuses for good."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """A log asks to have `checkpoint`, a signed note, cosigned: it extends the tree of `old` leaves."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: str

    @property
    def origin(self) -> str:
        """The origin that the checkpoint claims, not verified."""
        return self.checkpoint.partition("\n")[0]

    def write(self) -> bytes:
        """Return the body of the request.

        Raises:
            WitnessInvalid: A proof of more than 63 hashes, or a body that no witness need read.
        """
        _check_proof(self.proof)
        lines = [f"old {self.old}", *map(b64.encode, self.proof), "", self.checkpoint]
        data = "\n".join(lines).encode()
        if len(data) > MAX_REQUEST_BYTES:
            raise WitnessInvalid("witness_request_too_large", "witnesses read at most 16 KiB of a request")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Request:
        """Return the request of a body; of the checkpoint nothing is verified.

        Raises:
            WitnessInvalid: Not exactly as the specification has it, or beyond the caps.
        """
        if len(data) > MAX_REQUEST_BYTES:
            raise WitnessInvalid("witness_request_too_large", "a request has at most 16 KiB")
        try:
            head, gap, text = data.decode("utf-8").partition("\n\n")
        except UnicodeDecodeError:
            raise WitnessInvalid("witness_request_encoding", "a request is UTF-8") from None
        first, *lines = head.split("\n")
        old = _number(first.removeprefix("old ")) if first.startswith("old ") else None
        proof = tuple(map(b64.decode, lines))
        if not gap or old is None:
            raise WitnessInvalid("witness_request_malformed", "a request begins with a line `old SIZE`")
        hashes = tuple(hashed for hashed in proof if hashed is not None)
        if len(hashes) != len(proof):
            raise WitnessInvalid("witness_request_malformed", "a line of the proof is no base64")
        _check_proof(hashes)
        return cls(old, hashes, text)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The witness makes `head` its newest of the log, durably, and only then cosigns it."""

    head: Checkpoint


@dataclass(frozen=True, slots=True)
class Conflict:
    """The witness knows the log at `size`, and not as it was asked (409)."""

    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The witness does not cosign; `status` is one of `REFUSALS`, `code` says why."""

    status: int
    code: str


def decide(asked: Request, keys: KeyBook | None, known: Checkpoint | None) -> Accepted | Conflict | Refused:
    """Return what a witness answers.

    Between reading `known` and keeping an accepted head nobody else may keep one.

    Args:
        asked: What the log sends.
        keys: The keys of the log of that origin; None if the witness does not follow it.
        known: The newest head of that log that the witness cosigned; None if it never did.

    Rule:
        c2sp.org/tlog-witness, add-checkpoint: 404 for an origin, 403 for keys that are not
        known, 400 for an old size above the new one, 409 for another size than the one known
        or another root of the same size, 422 for a proof that does not hold.
    """
    try:
        checkpoint.parse(note.parse(asked.checkpoint)[0])
    except AuditError as fault:
        return Refused(BAD_REQUEST, fault.code)
    if keys is None:
        return Refused(NOT_FOUND, "origin_unknown")
    try:
        head = keys.open(asked.checkpoint)
    except AuditError as fault:
        return Refused(FORBIDDEN, fault.code)
    known = known or Checkpoint(head.origin, 0, tree.EMPTY_ROOT)
    if asked.old > head.size:
        return Refused(BAD_REQUEST, "old_above_new")
    if asked.old != known.size or (head.size == known.size and head.root != known.root):
        return Conflict(known.size)
    try:
        tree.verify_consistency(
            first=known.size,
            second=head.size,
            first_root=known.root,
            second_root=head.root,
            proof=asked.proof,
        )
    except ProofInvalid as fault:
        return Refused(UNPROCESSABLE, fault.code)
    return Accepted(head)


def write_size(size: int) -> bytes:
    """Return the body of an answer 409; its type is `SIZE_TYPE`."""
    return f"{size}\n".encode()


def parse_size(data: bytes) -> int:
    """Return the size that an answer 409 names.

    Raises:
        WitnessInvalid: Not a decimal number and a line end.
    """
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    size = _number(text[:-1]) if text.endswith("\n") else None
    if size is None:
        raise WitnessInvalid("witness_size_malformed", "the size is not a decimal number")
    return size


def write_lines(lines: Sequence[str]) -> bytes:
    """Return the body of an answer 200: the cosignature lines, each with its line end."""
    return "".join(f"{line}\n" for line in lines).encode()


def cosignatures(data: bytes, checkpoint_text: str, verifier: Verifier) -> tuple[str, ...]:
    """Return the lines of an answer 200 that are this witness's over the checkpoint, without line ends.

    Lines by keys that are not known are left out, as the specification has it.

    Raises:
        WitnessInvalid: Not signature lines, a false one of this key, or none by it.
    """
    if verifier.type not in COSIGNING:
        raise WitnessInvalid("witness_key_type", "a key of this type does not cosign")
    if len(data) > MAX_RESPONSE_BYTES:
        raise WitnessInvalid("witness_response_too_large", "the answer is longer than any cosignatures")
    body, _ = note.parse(checkpoint_text)
    try:
        text = data.decode("utf-8")
        _, signatures = note.parse(f"{body}\n{text}")
    except (UnicodeDecodeError, NoteInvalid):
        raise WitnessInvalid("witness_response_malformed", "the answer is no signature lines") from None
    # The answer may not smuggle in a text of its own: what was parsed is our body and its lines.
    lines = text.split("\n")[:-1]
    if len(lines) != len(signatures):
        raise WitnessInvalid("witness_response_malformed", "the answer is no signature lines")
    made = [(line, sign) for line, sign in zip(lines, signatures, strict=True) if verifier.made(sign)]
    if not made:
        raise WitnessInvalid(
            "witness_cosignature_missing", "the answer has no signature of the witness's key"
        )
    if not all(verifier.holds(body, sign) for _, sign in made):
        raise WitnessInvalid("witness_cosignature_false", "a cosignature is not over this checkpoint")
    return tuple(dict.fromkeys(line for line, _ in made))


def _check_proof(proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF_HASHES:
        raise WitnessInvalid("witness_proof_too_long", "a proof has at most 63 hashes")
    if any(len(hashed) != tree.HASH_BYTES for hashed in proof):
        raise WitnessInvalid("witness_proof_hash_length", "a hash has 32 bytes")


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SIZE:
        return None
    return int(text)
