"""Every flow wired as `compose` wires it, over fakes and a clock that stands still."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from audit.note import Signer
from gateway import compose
from gateway.caller import Caller, Role
from gateway.deidentify import Mode, Scrubbed, ScrubberUnavailable
from gateway.deidentify.limits import Limits
from gateway.deidentify.text import PromptPolicy, ScrubbedText
from gateway.deidentify.text import scrub as scrub_text
from gateway.deidentify.walker import scrub
from gateway.errors import (
    AuditUnavailable,
    BackendUnavailable,
    KeyServiceUnavailable,
    PreviewStale,
    StoreUnavailable,
)
from gateway.flows.consent import ConsentDraft
from gateway.flows.dsr import DsrDraft
from gateway.flows.notice import NoticeDraft
from gateway.flows.upload import Accepted, JobOrder
from gateway.people import Profile
from gateway.ports.records import Consent, Dsr, Job, Record, StoredObject, kinds
from gateway.settings import Settings
from tests import invariants
from tests.doors import When, around
from tests.fakes.clock import FrozenClock
from tests.fakes.faces import FakeDeidentifier
from tests.fakes.inference import FACTS, FakeInference, paint
from tests.fakes.keys import FakeKeys
from tests.fakes.lock import FakeLock
from tests.fakes.marking import FakeMarker
from tests.fakes.objects import FakeObjects
from tests.fakes.records import MemoryRecords

TENANT, OTHER_TENANT = "acme", "other"
ORIGIN = "lethe.test/0a"
SHOWN = {
    "withdrawal_method": "one tap in the app",
    "recipients": ["studio"],
    "transfer_countries": ["DE"],
}
SECRET = b"home at 52.5200 north, 13.4050 east"
PORTRAIT = paint(b"a portrait", "studio_grey", SECRET)
APP = Caller(TENANT, "app", Role.SERVICE, is_person=False)
OFFICER = Caller(TENANT, "officer", Role.PRIVACY_OFFICER, is_person=True)
SECOND = Caller(TENANT, "second", Role.PRIVACY_OFFICER, is_person=True)
STRANGER = Caller(OTHER_TENANT, "app", Role.SERVICE, is_person=False)
LEASE = timedelta(seconds=30)


@functools.cache
def settings() -> Settings:
    """Return settings of two tenants; no file they name exists."""
    controller = {"name": "Example", "contact": "privacy@lethe.test"}
    nowhere = "/nonexistent"
    return Settings(
        listen={"cert": nowhere, "key": nowhere, "client_ca": nowhere},
        records={"url": "sqlite:////nonexistent/lethe.db"},
        objects={"directory": nowhere},
        keys={"directory": nowhere},
        audit={"signing_key": nowhere},
        marking={"key": nowhere, "chain": nowhere, "anchors": nowhere, "unsafe_no_watermark": True},
        tenants={
            TENANT: {"log_origin": ORIGIN, "controller": controller},
            OTHER_TENANT: {"log_origin": "lethe.test/0b", "controller": controller},
        },
        callers=(),
        backends=(),
        jobs={"poll_ms": 10, "lease_s": LEASE.total_seconds(), "attempts": 3},
    )


class PlainScrubber:
    """The walker in process, whatever mode is asked for; `is_down` makes it unavailable."""

    def __init__(self) -> None:
        self.is_down = False

    async def scrub(self, data: bytes | bytearray, mode: Mode = "canonical") -> Scrubbed:
        if self.is_down:
            raise ScrubberUnavailable
        return replace(scrub(bytes(data), Limits()), mode=mode)


class PlainPrompts:
    """The prompt scrubber in process; `is_down` makes it unavailable, `actions` is its policy."""

    def __init__(self) -> None:
        self.is_down = False
        self.actions: dict[str, str] = {}

    async def scrub(self, text: str) -> ScrubbedText:
        if self.is_down:
            raise ScrubberUnavailable
        return scrub_text(text, PromptPolicy(self.actions))


FAULTS: dict[str, Callable[[], Exception]] = {
    "records": StoreUnavailable,
    "objects": StoreUnavailable,
    "keys": KeyServiceUnavailable,
    "inference": BackendUnavailable,
    "scrubber": ScrubberUnavailable,
    "faces": ScrubberUnavailable,
    "lock": AuditUnavailable,
}


@dataclass
class Trip:
    """The hook at every door: notes each call, and does something at the `at`-th one (0 is the first)."""

    calls: list[str] = field(default_factory=list)
    at: int = -1
    when: When = "before"
    act: Callable[[str], None] | None = None

    def __call__(self, point: str, when: When, *, wrote: bool) -> None:
        if when == "before":
            self.calls.append(point)
        if self.act is not None and when == self.when and len(self.calls) - 1 == self.at:
            act, self.act = self.act, None
            act(point)

    def lose(self, at: int, when: When) -> None:
        """Let the `at`-th call from now on fail: before it is made, or after it was."""
        self.calls.clear()
        self.at, self.when, self.act = at, when, _fail

    def do(self, at: int, when: When, act: Callable[[str], None]) -> None:
        """Do something else there."""
        self.calls.clear()
        self.at, self.when, self.act = at, when, act


def _fail(point: str) -> None:
    fault: Exception = FAULTS[point.partition(".")[0]]()
    raise fault


class World:
    """The house over fakes."""

    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.records = MemoryRecords()
        self.keys = FakeKeys()
        self.objects = FakeObjects(self.clock.now)
        self.scrubber = PlainScrubber()
        self.faces = FakeDeidentifier()
        self.prompts = PlainPrompts()
        self.lock = FakeLock()
        self.marker = FakeMarker()
        self.backend = FakeInference(replace(FACTS, name="studio"))
        self.trip = Trip()
        self.outside = compose.Outside(
            clock=self.clock,
            records=self.records,
            objects=self.objects,
            keys=self.keys,
            scrubber=self.scrubber,
            deidentifier=self.faces,
            prompts=self.prompts,
            confinement={},
            backends={"studio": self.backend},
            lock=self.lock,
            marker=self.marker,
        )
        self.settings = settings()
        self.signers = {
            tenant.log_origin: (Signer(tenant.log_origin, bytes([number]) * 32),)
            for number, tenant in enumerate(self.settings.tenants.values())
        }
        self.retiring: dict[str, tuple[Signer, ...]] = {}
        self.flows = self.process()

    def rekey(self, number: int) -> None:
        """Configure new keys of every log, and the present ones as those that retire; start a new process."""
        self.retiring = self.signers
        self.signers = {
            origin: (Signer(origin, bytes([number]) * 32), Signer(origin, bytes([number]) * 32, "ml-dsa-44"))
            for origin in self.signers
        }
        self.flows = self.process()

    def process(self) -> compose.Flows:
        """Return the flows of another process over the same outside: it shares no memory with the first."""
        wired = compose.flows(
            self.settings,
            around(self.outside, self.trip),
            self.signers,
            retiring=self.retiring,
        )
        wired.backends.known["studio"] = self.backend.facts
        return wired

    @property
    def packages(self) -> dict[str, str]:
        """The packages that there are, by request."""
        rows = self.records.all(StoredObject)
        return {row.dsr_id: row.object_id for row in rows if row.kind == "package" and row.wrapped_dek}

    # what people do

    async def publish(self, *purposes: str, **more: Any) -> None:
        shown = {**SHOWN, **more}
        draft = NoticeDraft("portraits", "en", "Your portrait", "We make a portrait.", purposes, shown)
        await self.flows.notices.publish(OFFICER, draft)

    async def ready(self, *subjects: str) -> None:
        """Publish the notice; each subject is known and has consented."""
        await self.publish("generate", "retain_output")
        for subject in subjects:
            await self.know(subject)
            await self.consent(subject)

    async def know(self, subject: str, residence: str = "DE") -> None:
        await self.flows.subjects.upsert(APP, Profile(subject, residence=residence, birth_year=1980))

    async def agree_to_terms(self, subject: str) -> None:
        """Let someone accept terms, where a record of that may be kept; it permits nothing."""
        await self.know(subject, "JP")
        await self.consent(subject, form="implied", via="terms_of_service")

    async def consent(self, subject: str, purpose: str = "generate", **changes: Any) -> Consent:
        consent, _ = await self.flows.consents.record(APP, consent_draft(subject, purpose, **changes))
        return consent

    async def upload(self, subject: str, request_id: str = "", image: bytes = PORTRAIT) -> Accepted:
        return await self.flows.upload.run(APP, order(subject, request_id=request_id), chunks(image))

    def keep_nothing(self) -> None:
        """Configure the tenant so that no picture is stored, and start a new process."""
        tenants = self.settings.tenants
        changed = {**tenants, TENANT: tenants[TENANT].model_copy(update={"zero_retention": True})}
        self.settings = self.settings.model_copy(update={"tenants": changed})
        self.flows = self.process()

    async def work(self, flows: compose.Flows | None = None) -> None:
        """Work on jobs until none is ready."""
        while await (flows or self.flows).generate.run_one():
            pass

    async def portrait(self, subject: str) -> Job:
        """Return a finished job."""
        accepted = await self.upload(subject)
        await self.work()
        return self.job(accepted.job.job_id)

    async def released(self, job_id: str) -> bytes:
        """Return a result as the controller gets it."""
        released = await self.flows.release.run(APP, job_id)
        return b"".join([chunk async for chunk in released.chunks])

    async def open(self, subject: str, kind: str, **more: Any) -> Dsr:
        """Open a request of a subject."""
        opened, _ = await self.flows.dsrs.create(OFFICER, DsrDraft(subject, kind, **more))
        return opened

    async def request(self, subject: str, kind: str = "erasure", **more: Any) -> Dsr:
        """Return an approved request that nobody has begun yet."""
        opened = await self.open(subject, kind, **more)
        return await self.approve(opened.dsr_id)

    async def approve(self, dsr_id: str) -> Dsr:
        """Look at a request, and approve what was seen; look again where something came in between."""
        while True:
            seen = await self.flows.dsrs.preview(SECOND, dsr_id)
            try:
                approved, _ = await self.flows.dsrs.approve(SECOND, dsr_id, seen.etag)
            except PreviewStale:
                continue
            return approved

    async def erase(self, subject: str) -> Dsr:
        """Erase a subject and return the request."""
        opened = await self.request(subject)
        await self.carry_out()
        return self.dsr(opened.dsr_id)

    async def log(self) -> None:
        """Sequence what waits, and publish it."""
        await self.flows.sequence.run()
        await self.flows.publish.run()

    async def carry_out(self, flows: compose.Flows | None = None) -> None:
        """Carry out every approved request that is ready."""
        while await (flows or self.flows).erasure.run_one():
            pass
        while await (flows or self.flows).fulfilment.run_one():
            pass

    # what a test looks at

    @property
    def rows(self) -> invariants.Rows:
        return {kind: self.records.all(kind) for kind in kinds()}

    def count(self, kind: type[Record]) -> int:
        return len(self.records.all(kind))

    def job(self, job_id: str) -> Job:
        return next(job for job in self.records.all(Job) if job.job_id == job_id)

    def dsr(self, dsr_id: str) -> Dsr:
        return next(dsr for dsr in self.records.all(Dsr) if dsr.dsr_id == dsr_id)

    def events(self, ty: str) -> list[dict[str, Any]]:
        return invariants.events(self.rows)[ty]

    async def handle(self, subject: str) -> str:
        return (await self.keys.mac(TENANT, "handle", subject.encode())).hex()

    def live(self) -> set[str]:
        return {row.object_id for row in self.records.all(StoredObject) if row.state == "live"}

    def check(self) -> None:
        """INVARIANT: effects and leaves belong together, and what is live has its bytes."""
        invariants.check(self.rows)
        assert self.live() <= set(self.objects.held)

    async def settle(self) -> None:
        """Let time pass and the background work go on until everything has come to its end."""
        for _ in range(4):
            self.clock.advance(LEASE + timedelta(minutes=15))
            await self.work()
            await self.flows.generate.settle()
            await self.carry_out()
            await self.flows.sweep.run()
        await self.log()
        self.check()
        invariants.check_bytes(self.rows, self.objects.held)


def consent_draft(subject: str, purpose: str = "generate", **changes: Any) -> ConsentDraft:
    made: dict[str, Any] = {
        "subject_id": subject,
        "purpose": purpose,
        "form": "explicit",
        "flags": ("separate",),
        "notice_id": "portraits",
        "notice_version": 1,
        "notice_language": "en",
        "notice_sha256": "",
        "given_at": None,
        "expires_at": None,
        "given_by": "",
        "via": "",
        "term_shown": "",
        "evidence": {"act": "checkbox", "channel": "web"},
    }
    return ConsentDraft(**{**made, **changes})


def order(subject: str, **changes: Any) -> JobOrder:
    made: dict[str, Any] = {
        "subject_id": subject,
        "is_uploader": True,
        "purpose": "generate",
        "notice_id": "portraits",
        "style": "studio_grey",
    }
    return JobOrder(**{**made, **changes})


async def chunks(image: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(image), size):
        yield image[start : start + size]
        await asyncio.sleep(0)
