"""Small logs, exports and certificates for the tests of `audit`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from audit import checkpoint, export, leaf, payloads, proof, tree
from audit.note import Signer
from audit.seal import commit_opening

ORIGIN = "log.example/7f3a"
SIGNER = Signer(ORIGIN, bytes(range(32)))
STRANGER = Signer(ORIGIN, bytes(32))
TRUST = f"# from the operator's page\n{SIGNER.vkey()}\n"
START_MS = 1_790_000_000_000

PACK = b"pack:\n  id: gdpr\n"
PACK_DIGEST = hashlib.sha256(PACK).hexdigest()
ID = "0123456789abcdef0123456789abcdef"
HASH = "ab" * 32
TERMS = export.Terms("auditor", "audit", "lethe/test")
RULE = "GDPR Art. 17(3)(b),(e); GDPR Art. 7(1)"

EXAMPLES: dict[str, dict[str, Any]] = {
    "audit.read": {"mthd": "AuditService/ListEvents", "nrow": 50, "from": 0, "to": 50},
    "log.pruned": {"to": 256},
    "log.rekeyed": {"old": ["0a1b2c3d"], "new": ["4e5f6071", "8293a4b5"]},
    "payload.erased": {"nseal": 12},
    "payload.expired": {"cls": "audit", "month": "2026-03", "nseal": 3},
    "access.refused": {"mthd": "AuditService/Export", "rc": "ROLE_REQUIRED"},
    "consent.recorded": {
        "con": ID,
        "pur": "generate",
        "form": "explicit",
        "flags": ["highlighted", "separate"],
        "ntc": ID,
        "exp": START_MS,
        "minor": "own",
    },
    "consent.withdrawn": {"con": ID, "pur": "train", "meth": "api"},
    "decision.made": {
        "pur": "generate",
        "dec": "deny",
        "rc": "DENY_NO_EXPLICIT_CONSENT",
        "pol": [{"id": "gdpr", "sha256": PACK_DIGEST}],
        "packs": ["gdpr"],
        "age": "13-15",
        "minor": "guardian",
        "sig": ["gpc"],
        "layer": "legal",
        "cat": "original",
        "form": "explicit",
        "flags": ["separate"],
        "job": ID,
        "at": START_MS,
        "law": "gdpr",
        "base": [ID],
        "yes": ["consents", "place", "uploader"],
        "no": ["gpc"],
        "told": ["collection"],
        "under": ["gdpr.0"],
        "rcp": {"role": "processor", "land": "US", "mech": "SCC"},
        "cons": [
            {
                "st": "standing",
                "form": "explicit",
                "flags": ["separate", "terms"],
                "con": ID,
                "by": "guardian",
            }
        ],
    },
    "dataset.added": {"dst": ID, "itm": ID, "job": ID, "obj": ID, "con": ID},
    "dataset.completed": {"dst": ID, "nobj": 3},
    "dataset.created": {"dst": ID, "ver": 1, "exp": START_MS},
    "dataset.expired": {"dst": ID},
    "dataset.reduced": {"dst": ID, "itm": ID, "why": "withdrawn"},
    "dataset.released": {"dst": ID, "nobj": 3},
    "dsr.approved": {"dsr": ID, "rcp": [ID]},
    "dsr.cancelled": {"dsr": ID},
    "dsr.extended": {"dsr": ID, "rc": "COMPLEXITY", "due": START_MS},
    "dsr.fulfilled": {"dsr": ID, "out": "complied"},
    "dsr.partrefused": {"dsr": ID, "rc": "GDPR_15_4_OTHERS", "objs": [ID]},
    "dsr.paused": {"dsr": ID},
    "dsr.resumed": {"dsr": ID, "due": START_MS},
    "dsr.propagated": {"dsr": ID, "rcp": ID, "out": "told"},
    "dsr.received": {"dsr": ID, "dkind": "erasure", "reg": "gdpr", "due": START_MS},
    "dsr.refused": {"dsr": ID, "rc": "MANIFESTLY_UNFOUNDED"},
    "dsr.verified": {"dsr": ID, "meth": "account_session", "out": "shown"},
    "erasure.incomplete": {"dsr": ID, "where": ["object_store", "consent"]},
    "export.created": {"from": 0, "to": 7, "size": 7, "root": HASH},
    "hold.placed": {"hld": ID, "cls": ["content"], "rule": "GDPR Art. 17(3)(e)", "until": START_MS},
    "hold.released": {"hld": ID, "why": "released", "rc": "CASE_CLOSED"},
    "image.marked": {"obj": ID, "cert": HASH, "src": "composite_synthetic"},
    "image.scrubbed": {
        "obj": ID,
        "kind": "redact",
        "meas": {"exif": 4711, "trailer_image": 0},
        "mode": "canonical",
        "nface": 2,
        "nhead": 2,
        "sim": 12,
    },
    "prompt.scrubbed": {"obj": ID, "job": ID, "ents": {"person": 1, "email": 2}},
    "incident.recorded": {
        "inc": ID,
        "ver": 1,
        "ikind": "access",
        "at": START_MS,
        "packs": ["gdpr"],
        "auth": "open",
        "subj": "exempt",
        "due": START_MS + 1,
    },
    "job.cancelled": {"job": ID, "why": "withdrawn"},
    "job.created": {"job": ID, "bak": ID, "pur": "generate", "obj": ID},
    "job.deleted": {"job": ID},
    "job.dispatched": {"job": ID, "bak": ID},
    "job.failed": {"job": ID, "bak": ID, "rc": "BACKEND_UNAVAILABLE", "det": "bad_digest"},
    "job.stopping": {"job": ID},
    "job.succeeded": {"job": ID, "bak": ID, "obj": ID, "dig": HASH},
    "key.rotated": {"nkey": 3, "nepo": 2, "rc": "COPY_LOST"},
    "landmarks.refused": {"obj": ID, "rc": "IMAGE_REJECTED", "det": "verifier_linked"},
    "landmarks.released": {"obj": ID, "pur": "analytics", "nface": 1, "sim": 87},
    "notice.published": {"ntc": ID, "pur": ["generate", "retain_output"]},
    "object.destroyed": {"obj": ID, "cat": "original", "why": "job_done"},
    "object.held": {"obj": ID, "cat": "output", "hld": ID, "why": "expired"},
    "object.freed": {"obj": ID, "cat": "output"},
    "object.sealed": {"obj": ID, "cat": "output", "exp": START_MS, "pur": "generate"},
    "object.stuck": {"obj": ID, "rc": "STORE_UNAVAILABLE", "ntry": 12},
    "forget.ended": {"dsr": ID, "bak": ID, "how": "confirmed", "ntry": 2},
    "retention.swept": {"rc": "COMPLAINT", "nobj": 3, "nowed": 1},
    "object.transient": {"obj": ID, "cat": "original", "exp": START_MS, "pur": "generate"},
    "package.made": {"dsr": ID, "obj": ID, "dig": HASH, "size": 4711},
    "package.released": {"dsr": ID, "obj": ID, "from": 262144},
    "record.expired": {"con": ID},
    "result.released": {"job": ID, "obj": ID},
    "signal.recorded": {"sig": ["gpc", "limit_spi"]},
    "subject.blocked": {"dsr": ID},
    "subject.erased": {
        "dsr": ID,
        "cls": ["content", "profile"],
        "kept": [{"cls": "evidence", "rule": RULE, "until": START_MS}, {"cls": "dsr", "rule": "11 CCR 7101"}],
        "nobj": 2,
        "ncon": 1,
        "njob": 0,
        "nkey": 3,
        "nowed": 0,
        "meth": "key_destroyed_bytes_deleted",
        "t1": START_MS,
        "t2": START_MS + 1,
        "opn": HASH,
    },
    "subject.restricted": {},
    "subject.unrestricted": {},
    "subject.upserted": {"age": "adult"},
    "tenant.updated": {"ver": 2, "chg": ["targets", "time_zone"], "tgt": ["DE", "US-CA"]},
    "upload.refused": {"rc": "IMAGE_REJECTED", "det": "truncated", "pur": "generate"},
    "backup.created": {"bkp": ID, "size": 5, "root": HASH, "nobj": 2, "ngone": 1, "dig": HASH},
    "backup.restored": {
        "bkp": ID,
        "at": START_MS,
        "size": 5,
        **dict.fromkeys(("nsub", "nkey", "nobj", "njob", "ncon", "nseal", "ndsr", "nres"), 1),
    },
    "log.keyrevoked": {"key": ["0a1b2c3d"], "from": 4, "rc": "KEY_STOLEN"},
    "log.disputed": {"why": "ahead", "wit": ["0a1b2c3d"], "size": 5, "known": 9},
    "consent.invalidated": {"con": ID, "pur": "train"},
    "consent.renewal": {"con": ID, "ntc": ID},
    "object.kept": {"obj": ID, "cat": "output", "pur": "retain_output", "con": ID},
}


def counter(start: int = 0) -> Any:
    """Return a source of bytes that are different each time and the same in each run."""
    state = [start]

    def random(size: int) -> bytes:
        state[0] += 1
        return hashlib.sha256(state[0].to_bytes(8, "big")).digest()[:size]

    return random


def event(ty: str, *, at_ms: int = START_MS, start: int = 0, **changes: Any) -> dict[str, Any]:
    fields = {**EXAMPLES[ty], **changes}
    return leaf.new_event(ty, at_ms=at_ms, actor="sys:lethe", random=counter(start), **fields)


def lines(types: Sequence[str] = tuple(EXAMPLES)) -> list[bytes]:
    """Return one leaf for each of `types`, a second apart."""
    return [
        leaf.encode(event(ty, at_ms=START_MS + 1000 * place, start=100 * place))
        for place, ty in enumerate(types)
    ]


def root(entries: Sequence[bytes]) -> bytes:
    return tree.root_of_leaves(map(tree.hash_leaf, entries))


def head(entries: Sequence[bytes], signer: Signer = SIGNER) -> str:
    return checkpoint.sign(signer.name, len(entries), root(entries), signer)


def exported(log: Sequence[bytes] | None = None, signer: Signer = SIGNER, **changes: Any) -> dict[str, bytes]:
    """Return an export of a whole log, or of what `changes` say of it; payloads are withheld."""
    log = lines() if log is None else log
    given: dict[str, Any] = {
        "origin": signer.name,
        "checkpoint": head(log, signer),
        "keys": f"{signer.vkey()}\n",
        "policy": export.trust_policy(signer.verifier),
        "start": 0,
        "end": len(log),
        "nodes": reader([tree.hash_leaf(line) for line in log]),
        "packs": {PACK_DIGEST: PACK},
        "signer": signer,
        "terms": TERMS,
        **changes,
    }
    if "entries" not in given:
        given["entries"] = list(enumerate(log))[given["start"] : given["end"]]
    if "found" not in given:
        given["found"] = payloads.withheld(export.read(given["entries"]).placed())
    return export.build(**given)


def resigned(files: dict[str, bytes], signer: Signer = SIGNER, /, **stated: Any) -> dict[str, bytes]:
    """Return the files with a manifest and a signature that fit them: a forger who has a key.

    What the manifest is to say otherwise is `stated`; None leaves a field out.
    """
    listed = {path: content for path, content in files.items() if not path.startswith("manifest.")}
    value = json.loads(files["manifest.json"])
    value["files"] = {path: hashlib.sha256(content).hexdigest() for path, content in listed.items()}
    value = {name: item for name, item in {**value, **stated}.items() if item is not None}
    manifest = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    signature = signer.sign(export.statement(value["origin"], manifest)).encode()
    return {**listed, "manifest.json": manifest, "manifest.sig": signature}


def reader(hashes: Sequence[bytes]) -> tree.NodeReader:
    """Return a reader over leaf hashes that knows only complete subtrees."""

    def read(level: int, index: int) -> bytes:
        part = hashes[index << level : (index + 1) << level]
        assert len(part) == 1 << level
        return naive_root(part)

    return read


def naive_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root as RFC 6962 section 2.1 defines it, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hashlib.sha256(b"\1" + naive_root(hashes[:split]) + naive_root(hashes[split:])).digest()


def statement(erased: dict[str, Any], **changes: Any) -> bytes:
    """Return the payload of an opening that says what the leaf says."""
    stated = {
        "certificate": f"certificates/{ID}",
        "dsr": f"dsrs/{erased['dsr']}",
        "erased_classes": erased["cls"],
        "kept_classes": erased["kept"],
        "unreadable_here_ms": erased["t1"],
        "unreadable_in_backups_ms": erased.get("t2"),
        "key_service": "local",
    }
    return json.dumps({**stated, **changes}, sort_keys=True, separators=(",", ":")).encode()


def certificate(
    payload: bytes | None = None, ty: str = "subject.erased", **changes: Any
) -> tuple[str, bytes]:
    """Return a certificate as a tlog-proof, and its opening."""
    salt = bytes(range(32))
    fields = {**EXAMPLES[ty], **changes}
    if ty == "subject.erased":
        payload = statement(fields) if payload is None else payload
        fields["opn"] = commit_opening(payload, salt).hex()
    payload = payload or b"{}"
    line = leaf.encode(
        leaf.new_event(ty, at_ms=START_MS + 3500, actor="sys:lethe", random=counter(9), **fields)
    )
    entries = lines(["job.created", "job.deleted", "subject.upserted"])
    entries.insert(2, line)
    hashes = [tree.hash_leaf(entry) for entry in entries]
    path = tree.inclusion_proof(2, len(entries), reader(hashes))
    text = proof.write(index=2, hashes=path, checkpoint=head(entries), extra=line)
    return text, json.dumps({"payload": payload.decode(), "salt": salt.hex()}, sort_keys=True).encode()
