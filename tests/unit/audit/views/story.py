"""A log that reads like a gateway's: weeks of people, jobs, requests and erasures, over all event types."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from audit import checkpoint, leaf, ranges, tree
from audit.note import Signer
from audit.views import Context, Controller, Row

ORIGIN = "log.example/7f3a"
SIGNER = Signer(ORIGIN, bytes(range(32)))
STRANGER = Signer(ORIGIN, bytes(32))
START_MS = 1_790_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
PACKS = [{"id": "gdpr", "sha256": "ab" * 32}, {"id": "ccpa", "sha256": "cd" * 32}]
KEPT = [{"cls": "evidence", "rule": "GDPR Art. 17(3)(b),(e); GDPR Art. 7(1)", "until": START_MS + 900 * DAY}]
CONTROLLER = Controller(
    "Studio Bergmann GmbH",
    "privacy@studio-bergmann.example",
    "none: established in the EU",
    "M. Okafor, dpo@studio-bergmann.example",
)
DENIALS = ("DENY_NO_EXPLICIT_CONSENT", "DENY_MINOR_GUARDIAN_REQUIRED", "DENY_WITHDRAWN", "DENY_OPT_OUT")


class Story:
    """Writes events at a clock of its own; the same seed tells the same story."""

    def __init__(self, seed: int = 7) -> None:
        self.chance = random.Random(seed)
        self.now = START_MS
        self.events: list[dict[str, Any]] = []
        self.backends = [self.id(), self.id()]
        self.notice = self.id()

    def id(self) -> str:
        return self.chance.randbytes(16).hex()

    def say(self, ty: str, at_ms: int | None = None, **fields: Any) -> None:
        by = "sys:lethe" if ty.startswith(("object.", "payload.", "log.", "key.")) else "svc:webshop"
        actor = f"tok:{self.id()}" if ty.startswith(("dsr.a", "dsr.ref", "audit.", "export.")) else by
        event = leaf.new_event(
            ty, at_ms=at_ms or self.now, actor=actor, random=self.chance.randbytes, **fields
        )
        if ty in {"consent.recorded", "job.created", "dsr.received"}:
            event["seals"] = [[self.id(), "audit", self.chance.randbytes(32).hex()]]
        self.events.append(event)

    def person(self, fate: str) -> None:
        """Tell one person's dealings; `fate` is what becomes of them."""
        begun = self.now = START_MS + self.chance.randrange(24 * DAY)
        consent, job, kept = self.id(), self.id(), self.id()
        self.say("subject.upserted", age=self.chance.choice(["adult", "adult", "16-17"]))
        purposes = {"pur": "generate"}
        self.say(
            "consent.recorded",
            con=consent,
            **purposes,
            form="explicit",
            flags=["separate"],
            ntc=self.notice,
            minor="own",
            exp=begun + 365 * DAY,
        )
        self.now += self.chance.randrange(HOUR)
        if fate == "denied":
            self.decide("deny", self.chance.choice(DENIALS), job)
            return
        self.decide("allow", "ALLOW_EXPLICIT_CONSENT", job)
        original, output = self.id(), kept
        backend = self.chance.choice(self.backends)
        self.say("object.sealed", obj=original, cat="original", exp=self.now + DAY, **purposes)
        self.say(
            "image.scrubbed",
            obj=original,
            kind="bystanders",
            meas={"exif": 4711, "trailer_image": 0},
            nface=2,
            nhead=1,
        )
        self.say("prompt.scrubbed", job=job, obj=original, ents={"person": 1, "email": 2})
        self.say("job.created", job=job, bak=backend, obj=original, kind="bystanders", **purposes)
        self.now += 4_000
        self.say("job.dispatched", job=job, bak=backend, land="DE", ctr="c" * 64, sent=["original", "prompt"])
        self.now += 21_000
        if fate == "failed":
            self.say("job.failed", job=job, bak=backend, rc="BACKEND_UNAVAILABLE")
            self.say("object.destroyed", obj=original, cat="original", why="job_done")
            return
        self.say(
            "object.sealed",
            obj=output,
            cat="output",
            exp=self.now + (30 if fate in {"kept", "open", "erased"} else 7) * DAY,
            **purposes,
        )
        self.say("image.marked", obj=output, cert="ce" * 32, src="generated")
        self.say("job.succeeded", job=job, bak=backend, obj=output, dig="ef" * 32, mark=["manifest"])
        self.say("result.released", job=job, obj=output)
        late = 9 * MINUTE if fate == "late" else -HOUR
        self.say("object.destroyed", self.now + DAY + late, obj=original, cat="original", why="expired")
        if fate in {"erased", "open"}:
            self.request(fate, consent, output)
        elif fate == "withdrawn":
            self.now += 2 * DAY
            self.say("consent.withdrawn", con=consent, **purposes, meth="api")
            self.say("object.destroyed", obj=output, cat="output", why="withdrawn")
        elif fate != "kept":
            self.say("object.destroyed", self.now + 7 * DAY - HOUR, obj=output, cat="output", why="expired")

    def decide(self, dec: str, code: str, job: str) -> None:
        self.say(
            "decision.made",
            pur="generate",
            dec=dec,
            rc=code,
            pol=PACKS,
            packs=["ccpa", "gdpr"],
            age="adult",
            minor="none",
            sig=[],
            layer="legal",
            cat="original",
            form="explicit",
            flags=["separate"],
            job=job,
        )

    def request(self, fate: str, consent: str, output: str) -> None:
        """Tell an erasure, or one that is still open."""
        self.now += self.chance.randrange(DAY, 3 * DAY)
        dsr = self.id()
        self.say(
            "dsr.received",
            dsr=dsr,
            dkind="erasure",
            due=self.now + 45 * DAY,
            reg=self.chance.choice(["gdpr", "ccpa", "pipeda"]),
        )
        if fate == "open":
            return
        self.now += self.chance.randrange(HOUR, 3 * DAY)
        self.say("dsr.approved", dsr=dsr)
        self.say("subject.blocked", dsr=dsr)
        self.say("consent.withdrawn", con=consent, pur="generate", meth="erasure")
        self.say("object.destroyed", obj=output, cat="output", why="erasure")
        self.say("payload.erased", nseal=3)
        self.say("erasure.incomplete", dsr=dsr, where=["object_store"])
        self.now += 8_000
        self.say(
            "subject.erased",
            dsr=dsr,
            cls=["content", "profile"],
            kept=KEPT,
            nobj=1,
            ncon=1,
            njob=1,
            nkey=4,
            nowed=0,
            meth="key_destroyed_bytes_deleted",
            t1=self.now,
            opn="12" * 32,
            t2=self.now + DAY,
        )

    def rest(self) -> None:
        """Tell whatever no person's fate brings about, once each."""
        self.now = START_MS + 25 * DAY
        dsr = {kind: self.id() for kind in ("access", "opt_out", "correction")}
        for kind, request in dsr.items():
            self.say("dsr.received", dsr=request, dkind=kind, reg="gdpr", due=self.now + 31 * DAY)
        self.say("dsr.verified", dsr=dsr["access"], meth="two_data_points", out="shown")
        self.say("dsr.partrefused", dsr=dsr["access"], rc="GDPR_15_4_OTHERS", objs=[self.id()])
        self.say("dsr.paused", dsr=dsr["access"])
        self.say("dsr.resumed", self.now + HOUR, dsr=dsr["access"], due=self.now + 32 * DAY)
        self.now += DAY
        self.say("dsr.extended", dsr=dsr["access"], rc="COMPLEXITY", due=self.now + 92 * DAY)
        self.now += 2 * DAY
        recipient = self.id()
        self.say("dsr.approved", dsr=dsr["access"], rcp=[recipient])
        self.say("dsr.propagated", dsr=dsr["access"], rcp=recipient, out="told")
        self.say("dsr.fulfilled", dsr=dsr["access"], out="complied_in_part")
        self.say("dsr.refused", dsr=dsr["opt_out"], rc="MANIFESTLY_UNFOUNDED")
        self.say("dsr.cancelled", dsr=dsr["correction"])
        job = self.id()
        self.say("job.created", job=job, bak=self.backends[0], pur="retain_output", obj=self.id())
        self.say("job.stopping", job=job)
        self.say("job.cancelled", job=job, why="cancelled")
        self.say("job.deleted", job=job)
        self.say("upload.refused", rc="IMAGE_REJECTED", det="truncated", pur="generate")
        self.say("access.refused", mthd="AuditService/Export", rc="ROLE_REQUIRED")
        self.say("access.refused", mthd="DsrService/ApproveDsr", rc="SECOND_PERSON_REQUIRED")
        self.say("signal.recorded", sig=["gpc", "limit_spi"])
        self.say("subject.restricted")
        self.say("subject.unrestricted")
        for is_freed in (True, False):
            obj, hold = self.id(), self.id()
            self.say("object.sealed", obj=obj, cat="output", exp=self.now + MINUTE, pur="generate")
            self.say("hold.placed", hld=hold, cls=["content"], rule="GDPR Art. 17(3)(e)")
            self.say("object.held", self.now + 2 * MINUTE, obj=obj, cat="output", hld=hold, why="expired")
            if is_freed:
                self.say("hold.released", self.now + HOUR, hld=hold, why="released")
                self.say("object.freed", self.now + HOUR, obj=obj, cat="output")
                self.say("object.destroyed", self.now + HOUR, obj=obj, cat="output", why="expired")
        obj = self.id()
        self.say("object.transient", obj=obj, cat="original", exp=self.now + HOUR, pur="generate")
        self.say("object.destroyed", self.now + MINUTE, obj=obj, cat="original", why="job_done")
        self.say("object.stuck", obj=obj, rc="STORE_UNAVAILABLE", ntry=12)
        self.say("forget.ended", dsr=self.id(), bak=self.id(), how="given_up", ntry=12)
        self.say("retention.swept", rc="COMPLAINT", nobj=2, nowed=1)
        self.say("consent.invalidated", con=self.id(), pur="generate")
        self.say("consent.renewal", con=self.id(), ntc=self.notice)
        self.say("object.kept", obj=self.id(), cat="output", pur="retain_output", con=self.id())
        obj = self.id()
        self.say("object.sealed", obj=obj, cat="package", exp=self.now + 30 * DAY)
        self.say("package.made", dsr=dsr["access"], obj=obj, dig="9a" * 32, size=4711)
        self.say("package.released", dsr=dsr["access"], obj=obj)
        self.say("record.expired", con=self.id())
        self.say("payload.expired", cls="audit", month="2026-08", nseal=12)
        self.say("key.rotated", nkey=40, nepo=5)
        dst, item = self.id(), self.id()
        self.say("dataset.created", dst=dst, ver=1, exp=self.now + DAY)
        self.say("dataset.added", dst=dst, itm=item, job=self.id(), obj=self.id(), con=self.id())
        self.say("dataset.completed", dst=dst, nobj=1)
        self.say("dataset.released", dst=dst, nobj=1)
        self.say("dataset.reduced", dst=dst, itm=item, why="withdrawn")
        self.say("dataset.expired", dst=dst)
        self.say("landmarks.refused", obj=self.id(), rc="DENY_NO_EXPLICIT_CONSENT")
        self.say("landmarks.released", obj=self.id(), pur="analytics", nface=1, sim=87)
        said = {"inc": self.id(), "ikind": "access", "at": self.now - DAY, "packs": ["gdpr"]}
        self.say("incident.recorded", **said, ver=1, auth="open", subj="open", due=self.now + 2 * DAY)
        self.say("tenant.updated", ver=1, chg=["establishments"], est=["DE"])
        self.say("log.rekeyed", old=["0a1b2c3d"], new=["4e5f6071"])
        self.say("log.keyrevoked", key=["0a1b2c3d"], rc="KEY_STOLEN", **{"from": 2})
        self.say("log.disputed", why="lied", wit=["0a1b2c3d"], size=3)
        self.say("log.pruned", to=4096)
        made = {"bkp": self.id(), "size": 5}
        self.say("backup.created", **made, root="56" * 32, nobj=2, ngone=0, dig="78" * 32)
        lost = dict.fromkeys(("nsub", "nkey", "nobj", "njob", "ncon", "nseal", "ndsr", "nres"), 0)
        self.say("backup.restored", **made, at=self.now - DAY, **lost)
        self.say("audit.read", mthd="AuditService/ListEvents", nrow=50)
        self.say("export.created", **{"from": 0, "to": 7, "size": 7, "root": "34" * 32, "open": ["audit"]})


def lines(people: int = 24, seed: int = 7) -> list[bytes]:
    """Return the leaves of a story, in the order of their times."""
    story = Story(seed)
    story.say("notice.published", ntc=story.notice, pur=["generate", "retain_output"])
    fates = ("kept", "done", "denied", "late", "erased", "withdrawn", "failed", "open", "erased", "done")
    for number in range(people):
        story.person(fates[number % len(fates)])
    story.rest()
    return [leaf.encode(event) for event in sorted(story.events, key=lambda event: event["t"])]


def rows(entries: Sequence[bytes], start: int = 0) -> list[Row]:
    return [
        Row(start + place, leaf.leaf_hash(line), leaf.decode(line), line)
        for place, line in enumerate(entries)
    ]


def context(
    entries: Sequence[bytes], start: int = 0, end: int | None = None, signer: Signer = SIGNER, **changes: Any
) -> Context:
    """Return the context of an export of `entries[start:end]`, of a log of all `entries`."""
    hashes = [tree.hash_leaf(line) for line in entries]
    end = len(entries) if end is None else end
    root = tree.root_of_leaves(hashes)
    given = {
        "origin": signer.name,
        "checkpoint": checkpoint.sign(signer.name, len(entries), root, signer, 1_792_000_000),
        "size": len(entries),
        "root": root,
        "start": start,
        "end": end,
        "vkeys": (signer.vkey(),),
        "controller": CONTROLLER,
        "left": ranges.edge(0, start, reader(hashes)),
        "right": ranges.edge(end, len(entries), reader(hashes)),
    }
    return Context(**{**given, **changes})


def reader(hashes: Sequence[bytes]) -> tree.NodeReader:
    return lambda level, index: tree.root_of_leaves(hashes[index << level : (index + 1) << level])
