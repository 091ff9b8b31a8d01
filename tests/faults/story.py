"""A gateway in a process of its own, the story told to it, and what must hold of the folder it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lethe.v1 import audit_pb2, dsr_pb2, generation_pb2, subject_pb2

from gateway.adapters.sql.records import open_records
from gateway.admin.folder import Layout
from gateway.client import Client, Refused, read_profile
from gateway.ports.records import StoredObject
from tests import gateway as house
from tests import invariants
from tests.places import Parts, Place, make_place

SUBJECT = "person-4711-who-is-killed-for"
SURVIVOR = "person-4712-who-stays"
DAY_S = 86_400
UPLOAD_ID = "6d4f1c1e-4f8e-4a57-8e5c-0d6f3f6c1a01"
ERASURE_ID = "6d4f1c1e-4f8e-4a57-8e5c-0d6f3f6c1a02"
PATIENCE_S = 40.0
GRACE_S = 5.0
"""The sweeper's grace where bytes cannot be made to look older: longer than a put and its commit take."""

PLACE = os.environ.get("LETHE_PLACE", "files")
"""On what the gateways are killed: `files`, or `bucket` (PostgreSQL and S3)."""


class Zygote:
    """A process with everything imported, which forks gateways."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.gateway", "--zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def fork(self, layout: Layout, *arguments: str) -> int:
        """Start a gateway on the folder and return its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        (layout.root / "up").unlink(missing_ok=True)
        self._process.stdin.write(json.dumps([str(layout.config), *arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    try:
        yield made
    finally:
        made.close()


def lives(pid: int) -> bool:
    """Tell whether the process is there; the zygote's dead leave no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until_dead(pid: int) -> None:
    while lives(pid):  # noqa: ASYNC110 - a process tells nobody
        await asyncio.sleep(0.01)


@dataclass
class House:
    """A place, and the gateway that runs on it now."""

    place: Place
    zygote: Zygote
    pid: int = 0
    address: str = ""

    @property
    def layout(self) -> Layout:
        return self.place.layout

    @asynccontextmanager
    async def open(self, *arguments: str) -> AsyncIterator[None]:
        """Run a gateway; when the block ends it is told to end, unless it is dead already."""
        self.pid = self.zygote.fork(self.layout, *arguments)
        try:
            up = self.layout.root / "up"
            async with asyncio.timeout(PATIENCE_S):
                while not up.exists() and lives(self.pid):  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.01)
            self.address = up.read_text() if up.exists() else ""
            yield
        finally:
            if lives(self.pid):
                os.kill(self.pid, signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                await until_dead(self.pid)
                await self.place.alone()

    def client(self, name: str) -> Client:
        return Client(replace(read_profile(self.layout.profile(name)), address=self.address), 20.0)

    def said(self) -> str:
        """Return what the gateways wrote to their log."""
        return (self.layout.root / "gateway.log").read_text()

    async def rows(self) -> invariants.Rows:
        """Return every row, read from the database itself."""
        records = open_records(self.place.settings.records.url)
        try:
            return await records.transact(invariants.everything)
        finally:
            await records.close()

    def age_bytes(self) -> None:
        """Let the sweeper's grace be over for what lies there: in a bucket it cannot look older."""
        if self.place.parts.seaweed is not None:
            self.place.configure("sweep", orphan_grace_s=GRACE_S)
            return
        for path in self.layout.objects.glob("??/??/*"):
            os.utime(path, (time.time() - DAY_S,) * 2)

    async def swept(self) -> None:
        """Return once the sweeper has had its turn at what no row claims, in a bucket after its grace."""
        if self.place.parts.seaweed is None:
            return
        async with asyncio.timeout(PATIENCE_S):
            while True:
                live = {row.object_id for row in (await self.rows())[StoredObject] if row.state == "live"}
                if live == self.place.stored() and not self.place.drafts():
                    return
                await asyncio.sleep(0.2)


def prepared(directory: Path, made_by: Zygote, parts: Parts) -> House:
    """Make a folder in which two subjects consented and the survivor has a result."""
    return asyncio.run(_prepared(directory, made_by, parts))


async def _prepared(directory: Path, made_by: Zygote, parts: Parts) -> House:
    place = await make_place(
        directory,
        parts,
        jobs={"poll_ms": 20, "lease_s": 0.8},
        listen={"drain_s": 0.2, "address": "127.0.0.1:0"},
        sweep={"interval_s": 0.1, "orphan_grace_s": 600.0},
    )
    done = house.lethe("migrate", "--config", place.layout.config)
    assert done.returncode == 0, done.stderr
    made = House(place, made_by)
    await _prepare(made)
    return made


async def _prepare(made: House) -> None:
    async with made.open(), made.client("app") as app, made.client("officer") as officer:
        await house.publish_notice(officer)
        for subject in (SUBJECT, SURVIVOR):
            await house.add_subject(app, subject)
            await house.consent(app, subject)
        job = await app.create_job(house.header(SURVIVOR), house.PORTRAIT.read_bytes())
        ended = await house.finished(app, job.job.name)
        assert ended.state == generation_pb2.Job.STATE_SUCCEEDED, (ended, made.said())
        (made.layout.root / "survivor-job").write_text(job.job.name)


async def copied(template: House, directory: Path) -> House:
    """Return a copy of the house, with nobody in it."""
    place = await template.place.copied(directory, with_keys=True)
    (directory / "gateway.log").unlink()
    return House(place, template.zygote)


@dataclass
class Story:
    """Upload, generation, release, erasure, certificate, export; goes on where it was broken off."""

    house: House
    job: str = ""
    result: bytes = b""
    dsr: str = ""
    is_approving: bool = False
    certificate: dsr_pb2.GetCertificateResponse | None = None
    export: dict[str, bytes] = field(default_factory=dict)

    async def until_killed(self) -> None:
        """Tell the story until the gateway dies; if it is told to the end, the kill never came."""
        if not self.house.address:
            return
        telling = asyncio.create_task(self.tell())
        death = asyncio.create_task(until_dead(self.house.pid))
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wait({telling, death}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done() and isinstance(telling.exception(), Refused):
                    await death  # the connection broke first
                assert death.done() or not telling.done(), "the story ended and nobody was killed"
        finally:
            telling.cancel()
            death.cancel()
            await asyncio.gather(telling, death, return_exceptions=True)

    async def tell(self) -> None:
        async with AsyncExitStack() as stack:
            app, officer, second, auditor = [
                await stack.enter_async_context(self.house.client(name))
                for name in ("app", "officer", "second-officer", "auditor")
            ]
            if not self.is_approving:
                await self._portrait(app)
                await self._request(officer)
            await self._erasure(second)
            self.export = await exported(auditor)

    async def _portrait(self, app: Client) -> None:
        header = house.header(SUBJECT, request_id=UPLOAD_ID)
        made = await app.create_job(header, house.PORTRAIT.read_bytes())
        assert self.job in {"", made.job.name}  # a repeated request_id is answered with the same job
        self.job = made.job.name
        ended = await house.finished(app, self.job)
        assert ended.state == generation_pb2.Job.STATE_SUCCEEDED, ended
        _, self.result = await app.download(self.job)

    async def _request(self, officer: Client) -> None:
        opened = await officer.call(
            officer.dsrs.CreateDsr,
            dsr_pb2.CreateDsrRequest(
                subject=f"subjects/{SUBJECT}", kind=dsr_pb2.Dsr.KIND_ERASURE, request_id=ERASURE_ID
            ),
        )
        assert self.dsr in {"", opened.dsr.name}
        self.dsr = opened.dsr.name

    async def _erasure(self, second: Client) -> None:
        self.is_approving = True
        await house.approve(second, self.dsr)
        done = await house.fulfilled(second, self.dsr)
        request = dsr_pb2.GetCertificateRequest(name=done.certificate)
        async with asyncio.timeout(PATIENCE_S):
            while self.certificate is None:
                try:
                    self.certificate = await second.call(second.dsrs.GetCertificate, request)
                except Refused as refused:
                    if refused.detail != "not_sequenced":
                        raise
                    await asyncio.sleep(0.02)


@dataclass
class RequestStory(Story):
    """A correction from the letter to the answer; goes on where it was broken off."""

    async def tell(self) -> None:
        async with AsyncExitStack() as stack:
            officer, second = [
                await stack.enter_async_context(self.house.client(name))
                for name in ("officer", "second-officer")
            ]
            name = await self._opened(officer)
            await self._prepared(officer, name)
            await house.approve(second, name)
            await house.fulfilled(second, name)

    @staticmethod
    async def _opened(officer: Client) -> str:
        right = subject_pb2.Subject(name=f"subjects/{SURVIVOR}", residence="FR", birth_year=1980)
        request = dsr_pb2.CreateDsrRequest(
            subject=right.name, kind=dsr_pb2.Dsr.KIND_CORRECTION, correction=right, request_id=ERASURE_ID
        )
        return (await officer.call(officer.dsrs.CreateDsr, request)).dsr.name

    @staticmethod
    async def _prepared(officer: Client, name: str) -> None:
        """Do what is still to be done before the approval."""
        found = (await officer.call(officer.dsrs.GetDsr, dsr_pb2.GetDsrRequest(name=name))).dsr
        if found.state == dsr_pb2.Dsr.STATE_RECEIVED:
            verify = dsr_pb2.VerifyIdentityRequest(name=name, method="two_data_points")
            await officer.call(officer.dsrs.VerifyIdentity, verify)
        if not found.HasField("extend_time"):
            extend = dsr_pb2.ExtendDsrRequest(name=name, reason_code="COMPLEXITY")
            await officer.call(officer.dsrs.ExtendDsr, extend)
        await officer.call(officer.dsrs.PreviewDsr, dsr_pb2.PreviewDsrRequest(name=name))


async def exported(auditor: Client) -> dict[str, bytes]:
    files: dict[str, bytearray] = {}
    name = ""
    async for part in auditor.stream(auditor.audit.Export, audit_pb2.ExportRequest()):
        if part.WhichOneof("part") == "file":
            name = part.file
            files[name] = bytearray()
        else:
            files[name] += part.chunk
    return {name: bytes(content) for name, content in files.items()}
