"""A small model of an honest gateway: whatever it is told to do, its log keeps every promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from audit import leaf
from tests.unit.audit.logs import PACK_DIGEST, START_MS, counter

HOUR_MS = 3_600_000
TERM_MS = 24 * HOUR_MS
Event = dict[str, Any]


def decide(
    event: Mapping[str, Any], facts: Mapping[str, Any] | None, packs: Mapping[str, bytes]
) -> Mapping[str, Any]:
    """Allow what has a standing consent: so small that one sees which policy replay asks."""
    if event["pol"][0]["sha256"] not in packs:
        raise LookupError("pack_unreadable")
    if facts is not None and facts["at"] == "never":
        raise ValueError("facts_malformed")
    standing = [one["con"] for one in event["cons"] if one["st"] == "standing"]
    if facts is not None:
        standing = standing if facts["consented"] else []
    return {"dec": "allow" if standing else "deny", "base": standing, "rcp": None}


@dataclass
class Job:
    job: str
    obj: str
    con: str
    handle: int
    is_running: bool = False
    result: str = ""


@dataclass
class Gateway:
    """Writes events as the real one does: one after the other, at least a second apart."""

    random: Random
    now: int = START_MS
    events: list[Event] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    consents: dict[str, int] = field(default_factory=dict)
    withdrawn: dict[int, str] = field(default_factory=dict)
    ended: list[Job] = field(default_factory=list)
    dsrs: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    notice: str = ""

    def id(self) -> str:
        return self.random.randbytes(16).hex()

    def log(self, ty: str, **fields: Any) -> None:
        self.now += self.random.randint(1_000, 60_000)
        random = counter(len(self.events) * 10)
        self.events.append(leaf.new_event(ty, at_ms=self.now, actor="sys:lethe", random=random, **fields))

    # what people do

    def publish(self) -> None:
        self.notice = self.id()
        self.log("notice.published", ntc=self.notice, pur=["generate"])

    def consent(self) -> None:
        con, who = self.id(), self.random.randint(0, 2)
        if not self.notice or who in self.consents.values():
            return
        self.consents[con] = who
        said = {"pur": "generate", "form": "explicit", "flags": ["separate"], "minor": "own"}
        self.log("consent.recorded", con=con, ntc=self.notice, **said)

    def upload(self) -> None:
        who = self.random.randint(0, 2)
        con = next((con for con, whose in self.consents.items() if whose == who), "")
        if not con and who not in self.withdrawn:
            return
        if not con:
            self.decide("deny", self.withdrawn[who], "withdrawn")
            return
        job = Job(self.id(), self.id(), con, who)
        self.decide("allow", con, "standing", job=job.job)
        self.seal(job.obj, "original")
        self.log("job.created", job=job.job, bak="b" * 32, pur="generate", obj=job.obj, kind="bystanders")
        self.jobs[job.job] = job

    def decide(self, dec: str, con: str, state: str, **ids: str) -> None:
        self.log(
            "decision.made",
            pur="generate",
            dec=dec,
            rc="ALLOW_EXPLICIT_CONSENT" if dec == "allow" else "DENY_CONSENT_WITHDRAWN",
            pol=[{"id": "gdpr", "sha256": PACK_DIGEST}],
            packs=["gdpr"],
            age="adult",
            minor="none",
            sig=[],
            layer="legal",
            cat="original",
            at=self.now,
            cons=[{"st": state, "form": "explicit", "flags": ["separate"], "con": con}],
            base=[con] if dec == "allow" else [],
            **ids,
        )

    def seal(self, obj: str, kind: str) -> None:
        done = "bystanders" if kind == "original" else "metadata"
        self.log("image.scrubbed", obj=obj, kind=done, meas={})
        self.live[obj] = self.now + TERM_MS
        self.log("object.sealed", obj=obj, cat=kind, exp=self.live[obj], pur="generate")

    def destroy(self, obj: str, kind: str, why: str) -> None:
        if self.live.pop(obj, None) is not None:
            self.log("object.destroyed", obj=obj, cat=kind, why=why)

    def dispatch(self) -> None:
        for job in list(self.jobs.values()):
            if self.random.random() < 0.5:
                job.is_running = True
                self.log("job.dispatched", job=job.job, bak="b" * 32)

    def finish(self) -> None:
        for job in [job for job in self.jobs.values() if job.is_running]:
            if self.random.random() < 0.5:
                self.end(job, "job.failed", rc="BACKEND_UNAVAILABLE", bak="b" * 32)
                continue
            job.result = self.id()
            self.seal(job.result, "output")
            self.end(job, "job.succeeded", obj=job.result, bak="b" * 32)

    def end(self, job: Job, ty: str, **fields: Any) -> None:
        self.log(ty, job=job.job, **fields)
        self.destroy(job.obj, "original", "job_done")
        self.ended.append(self.jobs.pop(job.job))

    def release(self) -> None:
        for job in self.ended:
            if job.result in self.live and self.live[job.result] > self.now + 60_000:
                self.log("result.released", job=job.job, obj=job.result)

    def withdraw(self) -> None:
        if not self.consents:
            return
        con = self.random.choice(sorted(self.consents))
        who = self.consents.pop(con)
        self.withdrawn[who] = con
        self.log("consent.withdrawn", con=con, pur="generate", meth="api")
        for job in [job for job in self.jobs.values() if job.con == con]:
            if job.is_running:
                self.log("job.stopping", job=job.job)
            self.end(job, "job.cancelled", why="withdrawn")
        for job in [job for job in self.ended if job.con == con]:
            self.destroy(job.result, "output", "withdrawn")

    def delete(self) -> None:
        if self.ended:
            job = self.ended.pop()
            self.destroy(job.result, "output", "deleted")
            self.log("job.deleted", job=job.job)

    def request(self) -> None:
        dsr = self.id()
        self.dsrs[dsr] = "received"
        self.kinds[dsr] = ("erasure", "access")[len(self.kinds) % 2]
        due = self.now + 365 * 24 * HOUR_MS
        self.log("dsr.received", dsr=dsr, dkind=self.kinds[dsr], reg="gdpr", due=due)
        if self.random.random() < 0.5:
            self.log("dsr.paused", dsr=dsr)
            self.log("dsr.resumed", dsr=dsr, due=due)
        if self.random.random() < 0.5:
            self.log("dsr.verified", dsr=dsr, meth="two_data_points", out="shown")
        if self.random.random() < 0.5:
            self.log("dsr.extended", dsr=dsr, rc="COMPLEXITY", due=due + 60 * 24 * HOUR_MS)

    def decide_request(self) -> None:
        for dsr in [dsr for dsr, state in self.dsrs.items() if state == "received"]:
            self.dsrs[dsr] = self.random.choice(["approved", "refused", "cancelled"])
            fields = {"rc": "MANIFESTLY_UNFOUNDED"} if self.dsrs[dsr] == "refused" else {}
            if self.dsrs[dsr] == "approved":
                fields = {"rcp": [self.id(), self.id()]}
            self.log(f"dsr.{self.dsrs[dsr]}", dsr=dsr, **fields)
            for recipient, ends in zip(fields.get("rcp", ()), ("acknowledged", "excused"), strict=False):
                if ends == "acknowledged":
                    self.log("dsr.propagated", dsr=dsr, rcp=recipient, out="told")
                why = {"why": "impossible"} if ends == "excused" else {}
                self.log("dsr.propagated", dsr=dsr, rcp=recipient, out=ends, **why)

    def erase(self) -> None:
        for dsr in [dsr for dsr, state in self.dsrs.items() if state == "approved"]:
            self.dsrs[dsr] = "answered"
            if self.kinds[dsr] != "erasure":
                self.log("dsr.fulfilled", dsr=dsr, out="complied")
                continue
            self.log("subject.blocked", dsr=dsr)
            counts = dict.fromkeys(("nobj", "ncon", "njob", "nkey", "nowed"), 0)
            self.log(
                "subject.erased",
                dsr=dsr,
                cls=["content", "profile"],
                kept=[{"cls": "evidence", "rule": "GDPR Art. 7(1)"}],
                meth="key_destroyed_bytes_deleted",
                t1=self.now,
                t2=self.now + HOUR_MS,
                opn="0" * 64,
                **counts,
            )

    def wait(self) -> None:
        """Let up to half a day pass; the sweeper comes before anything is late."""
        until = self.now + self.random.randint(0, TERM_MS // 2)
        for obj, exp in sorted(self.live.items(), key=lambda item: item[1]):
            if exp < until:
                self.now = max(self.now, exp)
                job = next((job for job in self.jobs.values() if job.obj == obj), None)
                if job is not None:
                    self.end(job, "job.cancelled", why="expired")
                else:
                    kind = "output" if any(job.result == obj for job in self.ended) else "original"
                    self.destroy(obj, kind, "expired")
        self.now = max(self.now, until)

    def rows(self) -> list[tuple[int, Event]]:
        return list(enumerate(self.events))


DEEDS = (
    "publish",
    "consent",
    "upload",
    "dispatch",
    "finish",
    "release",
    "withdraw",
    "delete",
    "request",
    "decide_request",
    "erase",
    "wait",
)


def lived(seed: int, deeds: list[str]) -> Gateway:
    """Return a gateway that did these things."""
    gateway = Gateway(Random(seed))
    gateway.publish()
    for deed in deeds:
        getattr(gateway, deed)()
    return gateway
