"""A log with payloads, some of which are destroyed: what is opened, erased and withheld in its exports."""

from __future__ import annotations

from typing import Any

from audit import export, leaf, seal
from audit.payloads import Payload
from tests.unit.audit.logs import START_MS, event

EXPIRES_MS = START_MS + 86_400_000
DISCLOSING = export.Terms("auditor", "audit", "lethe/test", ("audit", "profile"), EXPIRES_MS)
TEXTS = [b'{"a":"\xc3\xa9\\n"}', b'{"b":1}', b'{"c":[true]}', b"{}"]
SALTS = [bytes([place]) * 32 for place in range(len(TEXTS))]


def sealing(ty: str, place: int, *classes_and_texts: tuple[str, int], **changes: Any) -> bytes:
    made = event(ty, at_ms=START_MS + 1000 * place, start=100 * place, **changes)
    seals = [
        [f"{place:016x}{which:016x}", cls, seal.commit_payload(TEXTS[which], SALTS[which]).hex()]
        for cls, which in classes_and_texts
    ]
    return leaf.encode({**made, "seals": seals})


LOG = [
    sealing("subject.upserted", 0, ("profile", 0), ("audit", 1)),
    sealing("signal.recorded", 1, ("audit", 2)),
    sealing("payload.erased", 2, nseal=1),
    sealing("subject.restricted", 3, ("audit", 3)),
    sealing("payload.expired", 4, cls="audit", nseal=1),
    sealing("subject.unrestricted", 5),
]
OPENED = [
    Payload(0, 0, "opened", SALTS[0], TEXTS[0]),
    Payload(0, 1, "erased", by=2),
    Payload(1, 0, "opened", SALTS[2], TEXTS[2]),
    Payload(3, 0, "erased", by=4),
]
