"""A backend in memory that keeps the contract and can be told to break it."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

from PIL import Image

from gateway.errors import BackendProtocol, BackendUnavailable, ImageRejected, JobCancelled
from gateway.ports.inference import BackendFacts, Progress, Result
from tests.fakes.keys import Faults

FACTS = BackendFacts(
    name="fake",
    version="1",
    device="cpu",
    model_digest=hashlib.sha256(b"fake").hexdigest(),
    styles=("studio_blue", "studio_grey", "studio_warm"),
    region="local",
    retention_s=0,
    trains_on_inputs=False,
    template_extracted=True,
    supports_cancel=True,
    supports_forget=True,
    source="composite_generated",
)
STAGES = ((1, "queued"), (50, "paint"), (92, "encode"))


@dataclass(frozen=True)
class Seen:
    """One call as the backend got it: everything it was ever told."""

    method: str
    job_pseudonym: str = ""
    style: str = ""
    image: bytes = b""
    image_type: str = ""
    prompt: str = ""
    subject_pseudonym: str = ""


@dataclass(eq=False)
class Running:
    """A job that is not over."""

    stopped: asyncio.Event = field(default_factory=asyncio.Event)


class FakeInference:
    """Paints a small real JPEG after each picture; deterministic.

    `faults` makes it unreachable, `hold()` makes jobs wait in the stage "held"
    until `release()`, `rejects` is the detail with which pictures are rejected,
    `breaks` the detail of a broken contract; with `ends_without_result` it even
    breaks the port's.  `metadata` is written into each result, as servers do with their workflow.
    `seen` is all it was given, `running` all it holds.
    """

    def __init__(self, facts: BackendFacts = FACTS, **changes: object) -> None:
        self.facts = replace(facts, **changes)
        self.faults = Faults(BackendUnavailable)
        self.rejects = ""
        self.breaks = ""
        self.ends_without_result = False
        self.metadata = b""
        self.seen: list[Seen] = []
        self.running: dict[str, Running] = {}
        self.held = asyncio.Event()
        self.is_closed = False
        self._go = asyncio.Event()
        self._go.set()

    def hold(self) -> None:
        """Make jobs wait; `held` is set once one does."""
        self.held.clear()
        self._go.clear()

    def release(self) -> None:
        """Let the jobs that wait go on."""
        self._go.set()

    def everything_seen(self) -> bytes:
        """Return all that it was ever given, as bytes to search for what it must not know."""
        texts = [
            f"{call.method} {call.job_pseudonym} {call.style} {call.image_type} "
            f"{call.prompt} {call.subject_pseudonym}"
            for call in self.seen
        ]
        return b"\n".join([*(text.encode() for text in texts), *(call.image for call in self.seen)])

    async def describe(self) -> BackendFacts:
        self._answer(Seen("describe"))
        return self.facts

    async def generate(
        self,
        job_pseudonym: str,
        style: str,
        image: bytes,
        image_type: str,
        *,
        prompt: str = "",
        subject_pseudonym: str = "",
    ) -> AsyncGenerator[Progress | Result]:
        self._answer(Seen("generate", job_pseudonym, style, image, image_type, prompt, subject_pseudonym))
        await self._stop(job_pseudonym)
        job = self.running[job_pseudonym] = Running()
        try:
            for percent, stage in STAGES:
                yield Progress(percent, stage)
                _need_standing(job)
            if not self._go.is_set():
                yield Progress(95, "held")
                await self._wait(job)
            self._refuse(style)
            self.faults.after("generate")
            if not self.ends_without_result:
                yield self._result(image, style)
        finally:
            if self.running.get(job_pseudonym) is job:
                del self.running[job_pseudonym]

    async def cancel(self, job_pseudonym: str) -> None:
        self._answer(Seen("cancel", job_pseudonym))
        await self._stop(job_pseudonym)
        self.faults.after("cancel")

    async def forget(self, job_pseudonym: str) -> None:
        self._answer(Seen("forget", job_pseudonym))
        await self._stop(job_pseudonym)
        self.faults.after("forget")

    async def close(self) -> None:
        self.is_closed = True

    def _answer(self, call: Seen) -> None:
        """Note a call that arrived; one that did not arrive told the backend nothing."""
        if self.is_closed:
            raise BackendUnavailable(detail="closed")
        self.faults.before(call.method)
        self.seen.append(call)

    async def _stop(self, job_pseudonym: str) -> None:
        job = self.running.pop(job_pseudonym, None)
        if job is not None:
            job.stopped.set()

    async def _wait(self, job: Running) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._go, job.stopped)]
        self.held.set()
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        _need_standing(job)

    def _refuse(self, style: str) -> None:
        if self.rejects:
            raise ImageRejected(detail=self.rejects)
        if self.breaks:
            raise BackendProtocol(detail=self.breaks)
        if style not in self.facts.styles:
            raise BackendProtocol(detail="message_refused")

    def _result(self, image: bytes, style: str) -> Result:
        return Result(
            image=paint(image, style, self.metadata),
            image_type="jpeg",
            backend=self.facts.name,
            device=self.facts.device,
            model_digest=self.facts.model_digest,
        )


def _need_standing(job: Running) -> None:
    if job.stopped.is_set():
        raise JobCancelled


def paint(image: bytes, style: str, metadata: bytes = b"") -> bytes:
    """Return a JPEG of 64 x 80 whose pixels follow the picture's bytes and the style."""
    seed = hashlib.sha256(style.encode() + b"\0" + image).digest()
    tile = Image.frombytes("RGB", (2, 5), seed[:30])
    picture = tile.resize((64, 80), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if metadata:
        exif = Image.Exif()
        exif[0x010E] = metadata.decode("latin-1")  # ImageDescription
        picture.save(file, "JPEG", quality=90, exif=exif, comment=metadata)
    else:
        picture.save(file, "JPEG", quality=90)
    return file.getvalue()
