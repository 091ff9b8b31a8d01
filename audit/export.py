"""Exports: a folder that an auditor verifies without us."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from audit import b64, canonical, leaf
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import CheckpointInconsistent, ExportInvalid
from audit.frontier import Frontier
from audit.note import Signer, Verifier
from audit.tree import hash_leaf

FORMAT = "lethe.dev/audit-export/v1"
RANGE_FORMAT = "lethe.dev/compact-range/v1"

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
CHECKPOINT, ENTRIES, PAYLOADS = "checkpoint", "entries.jsonl", "payloads.jsonl"
RIGHT_EDGE, CONSISTENCY = "proofs/right-edge", "consistency"
KEYS, POLICY, EVENTS_CSV, GUIDE = "keys.txt", "policy.txt", "events.csv", "VERIFY.md"

_GUIDE = f"""# How to verify this export

You need the log's verifier key (a "vkey"), and you need it from elsewhere: from the operator's publication,
or kept from an earlier audit. `{KEYS}` in this folder says which key signed, but whoever forges an export
forges that file too. Put the key, one a line, into a file `trust.txt` (a C2SP tlog-policy with
`quorum none` is taken as well).

Either of these checks everything offline:

    lethe audit verify DIR --trust trust.txt
    python -m audit.verify DIR --trust trust.txt

The second needs only Python, the package `cryptography` and Lethe's folder `audit/`. Exit status: 0 valid,
4 not (the first fault is named on stderr), 5 consistent in itself but no trust was given, 2 wrong usage.

What is checked:

1. `{SIGNATURE}` is a C2SP signed note over the SHA-256 of `{MANIFEST}`, and that lists the SHA-256 of every
   other file.
2. `{CHECKPOINT}` is a C2SP checkpoint by the log's key, and that key's name is the log's origin.
3. Each line of `{ENTRIES}` is a leaf, byte for byte. The RFC 6962 tree over SHA-256(00 || line) has the
   checkpoint's root and size, so no event was left out, changed or moved.
4. Each leaf is in the closed schema, event ids are unique, and no time lags by more than 5 s behind one
   before it.
5. `{RIGHT_EDGE}` holds the roots of the complete subtrees of the range, the largest first, in base64.
6. `{CONSISTENCY}` says from where this export goes on; one that starts at 0 has nothing to prove.
7. `policy/<sha256>.yaml` is there, byte for byte, for each rule book that a decision names.
8. `{EVENTS_CSV}` is derived, and is what deriving it again gives. `{PAYLOADS}` is empty: no leaf has a seal.

By hand: `sha256sum` for the first step; for a leaf, `printf '\\0%s' "$LINE" | sha256sum`.
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the entries of an export say, read once."""

    events: tuple[dict[str, Any], ...]
    hashes: tuple[bytes, ...]
    frontier: Frontier

    def counts(self) -> dict[str, int]:
        """Return how many events there are of each type."""
        return dict(Counter(event["ty"] for event in self.events))

    def packs(self) -> set[str]:
        """Return the digests of all rule books that a decision names."""
        return {named["sha256"] for event in self.events for named in event.get("pol", ())}


def build(
    *, origin: str, checkpoint: str, entries: Sequence[bytes], packs: Mapping[str, bytes], signer: Signer
) -> dict[str, bytes]:
    """Return the files of an export of the whole log up to `checkpoint`, by path.

    The same range and the same stored checkpoint give the same bytes.  Of
    `packs` (SHA-256 in hex to source) only those that a decision names go in:
    what is loaded later does not change what was exported before.

    Args:
        checkpoint: The signed note; its size may be less than the log's today.
        entries: Exactly that many leaves, in order.

    Raises:
        ExportInvalid: A rule book is missing, or differs from its digest.
        CheckpointInconsistent: The entries are not those of the checkpoint.
        LeafInvalid, NoteInvalid, CheckpointInvalid: An input is malformed or not signed by `signer`.
    """
    head = open_checkpoint(checkpoint, [signer.verifier])
    if head.origin != origin:
        raise ExportInvalid("export_origin", "the checkpoint is of another log")
    reading = read(entries)
    confirm(reading, head)
    files = {
        CHECKPOINT: checkpoint.encode(),
        ENTRIES: b"".join(line + b"\n" for line in entries),
        PAYLOADS: b"",
        RIGHT_EDGE: right_edge(reading.frontier),
        CONSISTENCY: consistency(head.size),
        KEYS: f"{signer.vkey()}\n".encode(),
        POLICY: trust_policy(signer.verifier),
        EVENTS_CSV: table(reading),
        GUIDE: _GUIDE.encode(),
        **_policies(reading.packs(), packs),
    }
    files[MANIFEST] = manifest(head, reading, files)
    files[SIGNATURE] = signer.sign(statement(origin, files[MANIFEST])).encode()
    return files


def read(entries: Iterable[bytes]) -> Reading:
    """Return the events of leaves and the edge of the tree over them.

    Raises:
        LeafInvalid: One is not a leaf.
    """
    events: list[dict[str, Any]] = []
    hashes: list[bytes] = []
    frontier = Frontier()
    for line in entries:
        events.append(leaf.decode(line))
        hashes.append(hash_leaf(line))
        frontier, _ = frontier.append(hashes[-1])
    return Reading(tuple(events), tuple(hashes), frontier)


def confirm(reading: Reading, head: Checkpoint) -> None:
    """Return if the entries are those of the checkpoint.

    Raises:
        CheckpointInconsistent: They are not.
    """
    if reading.frontier.size != head.size:
        raise CheckpointInconsistent("entries_size", "there are not as many entries as the checkpoint says")
    if reading.frontier.root() != head.root:
        raise CheckpointInconsistent("entries_root", "the entries do not have the checkpoint's root")


def manifest(head: Checkpoint, reading: Reading, files: Mapping[str, bytes]) -> bytes:
    """Return the manifest over `files`, which are all but the manifest and its signature."""
    value = {
        "format": FORMAT,
        "origin": head.origin,
        "from": 0,
        "to": head.size,
        "size": head.size,
        "root": head.root.hex(),
        "counts": reading.counts(),
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
    }
    return canonical.encode(value) + b"\n"


def statement(origin: str, manifest_bytes: bytes) -> str:
    """Return the text that is signed for a manifest.

    It can be no checkpoint: the second line of one is a number.
    """
    return f"{FORMAT}\n{origin}\nsha256 {hashlib.sha256(manifest_bytes).hexdigest()}\n"


def right_edge(frontier: Frontier) -> bytes:
    """Return the compact range [0, size) as text.

    A header, the range, then the roots of its complete subtrees in base64, the largest first.
    """
    peaks = "".join(f"{b64.encode(peak)}\n" for peak in frontier.peaks)
    return f"{RANGE_FORMAT}\nrange 0 {frontier.size}\n{peaks}".encode()


def consistency(size: int) -> bytes:
    """Return what links this export to one before it: it starts at 0, so there is nothing to prove."""
    return canonical.encode({"from": 0, "to": size, "hashes": [], "state": "starts_at_zero"}) + b"\n"


def trust_policy(verifier: Verifier) -> bytes:
    """Return a C2SP tlog-policy that trusts the log's key and asks for no witness."""
    return f"log {verifier.vkey()}\nquorum none\n".encode()


def table(reading: Reading) -> bytes:
    """Return the events as CSV, derived: index, leaf hash, type, time (UTC), event id."""
    rows = ["index,leaf_hash,type,time,id"]
    for index, (event, hashed) in enumerate(zip(reading.events, reading.hashes, strict=True)):
        cells = (str(index), hashed.hex(), event["ty"], _instant(event["t"]), event["id"])
        rows.append(",".join(map(cell, cells)))
    return "".join(f"{row}\n" for row in rows).encode()


def cell(text: str) -> str:
    """Return `text` as a CSV cell that no spreadsheet takes for a formula.

    The closed schema already keeps such text out; this holds if it ever widens.
    """
    if text.startswith(("=", "+", "-", "@", "\t", "\r")):
        text = f"'{text}"
    if any(char in text for char in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def policy_path(digest: str) -> str:
    """Return where a rule book lies in an export."""
    return f"policy/{digest}.yaml"


def _policies(named: Iterable[str], packs: Mapping[str, bytes]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for digest in sorted(named):
        if digest not in packs:
            raise ExportInvalid("pack_missing", "a decision names a rule book that is not there")
        if hashlib.sha256(packs[digest]).hexdigest() != digest:
            raise ExportInvalid("pack_differs", "a rule book differs from its digest")
        files[policy_path(digest)] = packs[digest]
    return files


def _instant(at_ms: int) -> str:
    seconds, rest = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
