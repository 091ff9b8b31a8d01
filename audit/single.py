"""One event alone: its proof out of an export, and what such a proof is worth in the hand of a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from audit import canonical, export, leaf, note, proof, ranges, tree
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.checkpoint import parse as parse_checkpoint
from audit.errors import AuditError
from audit.trust import Trust, read_trust


@dataclass(frozen=True, slots=True)
class ProofReport:
    """What the proof of one event is worth.

    Attributes:
        verdict: `untrusted` says that it leads to its checkpoint and that nobody knows whose log it is.
        fault: The first fault, a sentence that begins with its code; empty where there is none.
        size: Of the log at the proof's checkpoint.
        leaf: The event; empty where the proof does not hold.
    """

    verdict: Literal["valid", "invalid", "untrusted"]
    fault: str = ""
    origin: str = ""
    index: int = 0
    size: int = 0
    leaf: Mapping[str, Any] = field(default_factory=dict)


def verify_proof(tlog_proof: str, trust: str | None) -> ProofReport:
    """Return what the proof of an event is worth, by the keys of `trust`.

    Args:
        tlog_proof: Text of a `*.tlog-proof` file; its `extra` line is the leaf.
        trust: Text of a trust file (`read_trust`), or None: then at best `untrusted`.

    Raises:
        TrustInvalid: No key can be taken from `trust`.
    """
    believed = None if trust is None else read_trust(trust)
    try:
        found, head, event = opened(tlog_proof, believed)
    except AuditError as error:
        return ProofReport("invalid", str(error))
    return ProofReport("valid" if believed else "untrusted", "", head.origin, found.index, head.size, event)


def opened(tlog_proof: str, trust: Trust | None) -> tuple[proof.TlogProof, Checkpoint, dict[str, Any]]:
    """Return a proof, its checkpoint and the event that it carries; without trust nobody vouches for them.

    Raises:
        AuditError: It is no proof, does not lead to its checkpoint, carries no event, or the
            checkpoint is not all that `trust` asks for.
    """
    found = proof.parse(tlog_proof)
    if trust is None:
        head = parse_checkpoint(note.parse(found.checkpoint)[0])
    else:
        head = open_checkpoint(found.checkpoint, trust)
    return found, head, leaf.decode(proof.check(found, head, None))


def place_of(files: Mapping[str, bytes], event_id: str) -> int | None:
    """Return where in the log an event lies that an export holds, or None if it holds no such event.

    Args:
        files: An export that was verified; what erased a payload of it counts, too.

    Raises:
        AuditError: The export was not verified.
    """
    held = export.exported(files)
    proven = (proof.parse(files[path].decode()) for path in files if export.is_proof_path(path))
    held += [(one.index, one.extra or b"") for one in proven]
    return next((index for index, line in held if leaf.decode(line)["id"] == event_id), None)


def prove(files: Mapping[str, bytes], index: int) -> str | None:
    """Return the proof that a leaf is in the log, from an export alone, or None if it does not hold the leaf.

    A proof that lies in the export is returned as it is; any other is made of the
    entries, or of their hashes, and the edges, and leads to the export's checkpoint.

    Args:
        files: An export that was verified.

    Raises:
        AuditError: The export was not verified.
    """
    carried = files.get(export.proof_path(index))
    if carried is not None:
        return carried.decode()
    entries = dict(export.exported(files))
    if index not in entries:
        return None
    stated = canonical.parse(files[export.MANIFEST], len(files[export.MANIFEST]))
    start, end, size = stated["from"], stated["to"], stated["size"]
    if stated["kind"] == "range":
        hashes = list(map(tree.hash_leaf, entries.values()))
    else:
        hashes = ranges.parse_leaves(files[export.LEAF_HASHES], end - start)
    left = ranges.parse(files[export.LEFT_EDGE], 0, start)
    right = ranges.parse(files[export.RIGHT_EDGE], end, size)
    path = tree.inclusion_proof(index, size, ranges.reader(start, left, hashes, size, right))
    return proof.write(
        index=index, hashes=path, checkpoint=files[export.CHECKPOINT].decode(), extra=entries[index]
    )
