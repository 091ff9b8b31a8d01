"""A log of two events, the second of which is an erasure: its export and its certificate."""

from __future__ import annotations

import json
from dataclasses import dataclass

from audit import checkpoint, export, leaf, proof, tree
from audit.note import Signer
from audit.seal import commit_opening

ORIGIN = "lethe.test/small"
AT_MS = 1_772_366_400_000
DSR = "d" * 32
SALT = bytes(32)


@dataclass(frozen=True)
class SmallLog:
    """What the gateway would hand out of such a log."""

    trust: str
    export: dict[str, bytes]
    certificate: str
    opening: bytes


def small_log() -> SmallLog:
    signer = Signer(ORIGIN, bytes(range(32)))
    stated = {"dsr": f"dsrs/{DSR}", "erased_classes": ["content"], "kept_classes": []}
    stated |= {"unreadable_here_ms": AT_MS, "unreadable_in_backups_ms": None}
    payload = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    received = leaf.new_event(
        "dsr.received",
        at_ms=AT_MS,
        actor="svc:app",
        random=lambda n: b"\1" * n,
        dsr=DSR,
        dkind="erasure",
        reg="gdpr",
    )
    erased = leaf.new_event(
        "subject.erased",
        at_ms=AT_MS,
        actor="sys:lethe",
        random=lambda n: b"\2" * n,
        dsr=DSR,
        cls=["content"],
        kept=[],
        nobj=1,
        ncon=1,
        njob=1,
        nkey=1,
        nowed=0,
        meth="key_destroyed_bytes_deleted",
        t1=AT_MS,
        opn=commit_opening(payload.encode(), SALT).hex(),
    )
    lines = [leaf.encode(received), leaf.encode(erased)]
    hashes = [leaf.leaf_hash(line) for line in lines]
    signed = checkpoint.sign(ORIGIN, 2, tree.root_of_leaves(hashes), signer)
    return SmallLog(
        trust=signer.vkey() + "\n",
        export=export.build(
            origin=ORIGIN,
            checkpoint=signed,
            keys=f"{signer.vkey()}\n",
            policy=export.trust_policy(signer.verifier),
            start=0,
            end=2,
            entries=enumerate(lines),
            nodes=lambda _level, _index: b"",
            packs={},
            signer=signer,
            terms=export.Terms("auditor", "audit", "lethe/test"),
        ),
        certificate=proof.write(index=1, hashes=[hashes[0]], checkpoint=signed, extra=lines[1]),
        opening=json.dumps({"payload": payload, "salt": SALT.hex()}).encode(),
    )
