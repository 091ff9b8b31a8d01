"""What a gateway answers to what it must not take, and that nothing of it stays: the table of the issue."""

from __future__ import annotations

import asyncio
import io
import itertools
import secrets
import struct
import uuid
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lethe.v1 import audit_pb2, common_pb2, consent_pb2, dsr_pb2, generation_pb2, notice_pb2, subject_pb2

from gateway.adapters.disk import Reserve
from gateway.adapters.objects_local import FileObjects
from gateway.adapters.sql.records import sqlite_path
from gateway.client import Client, Refused
from gateway.client.client import refusal
from gateway.ports.records import Job, StoredObject
from gateway.settings import load
from tests.fakes.inference import FakeInference
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    add_tenant,
    consent,
    erase,
    finished,
    header,
    make_folder,
    publish_notice,
    running,
)
from tests.integration.conftest import GATEWAY_DATABASES, SUBJECT
from tests.postgres import Postgres, running_postgres
from tests.unit.deidentify import plant

pb = generation_pb2
IMAGE = PORTRAIT.read_bytes()
MAX_BYTES = 1 << 20
CHUNK = 256 << 10


# --- talking, and looking at what is left ------------------------------------------------------


def parts(head: pb.JobHeader | None, image: bytes = IMAGE) -> list[pb.CreateJobRequest]:
    """Return the messages of an upload."""
    chunks = [image[start : start + CHUNK] for start in range(0, len(image), CHUNK)]
    made = [pb.CreateJobRequest(chunk=chunk) for chunk in chunks]
    return [pb.CreateJobRequest(header=head), *made] if head else made


async def send(
    app: Client, messages: Iterable[pb.CreateJobRequest] | AsyncIterator[pb.CreateJobRequest], **options: Any
) -> Refused:
    """Upload, once and without any repetition, and return how it was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await app.generation.CreateJob(messages, **{"timeout": 20.0, **options})
    return refusal(caught.value)


def said(refused: Refused) -> tuple[str, str, str]:
    return refused.code, refused.reason, refused.detail


async def until(holds: Callable[[], Awaitable[object]], patience_s: float = 15.0) -> None:
    """Return once `holds` does."""
    async with asyncio.timeout(patience_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Rest:
    """What rests in a gateway."""

    jobs: frozenset[str]
    objects: frozenset[str]
    files: frozenset[Path]
    refusals: int

    @classmethod
    async def of(cls, gateway: Gateway) -> Rest:
        return cls(
            frozenset(job.job_id for job in await gateway.rows(Job)),
            frozenset(stored.object_id for stored in await gateway.rows(StoredObject)),
            frozenset(gateway.object_files()),
            len(await gateway.leaves("upload.refused")),
        )


def pieces(data: bytes) -> list[bytes]:
    """Return pieces from all over, each too long to occur by chance."""
    step = max(32, len(data) // 16)
    return [
        piece for at in range(0, len(data), step) if len(piece := data[at : at + 24]) == 24 and any(piece)
    ]


def is_readable(data: bytes, *folders: Path) -> bool:
    """Tell whether a piece of `data` stands in a file below one of the folders."""
    wanted = pieces(data)
    contents = (path.read_bytes() for root in folders for path in root.rglob("*") if path.is_file())
    return any(piece in content for content in contents for piece in wanted)


async def good_upload(gateway: Gateway, subject: str = SUBJECT) -> None:
    """Demand that the service goes on working."""
    async with gateway.client("app") as app:
        made = await app.create_job(header(subject), IMAGE)
        assert (await finished(app, made.job.name)).state == pb.Job.STATE_SUCCEEDED

    await at_rest(gateway)


async def at_rest(gateway: Gateway) -> None:
    """Return once the originals of finished jobs are gone, which follows their end."""

    async def is_at_rest() -> bool:
        return {stored.kind for stored in await gateway.rows(StoredObject)} == {"output"}

    await until(is_at_rest)


# --- the table -------------------------------------------------------------------------------


def huge() -> bytes:
    """Return a PNG of a few bytes that promises 400 million pixels."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return plant.joined([(b"IHDR", head), (b"IDAT", b"\x78\x9c\x03\0\0\0\0\x01"), (b"IEND", b"")])


def animation() -> bytes:
    frames = [plant.picture().rotate(turn) for turn in (0, 90)]
    return plant.encode(frames[0], "PNG", save_all=True, append_images=frames[1:])


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("run.sh", "echo")
    return IMAGE + file.getvalue()


@dataclass(frozen=True)
class Row:
    """An upload, what it is answered, and whether a subject is concerned."""

    code: str
    reason: str
    detail: str = ""
    image: Callable[[], bytes] = lambda: IMAGE
    head: dict[str, Any] = field(default_factory=dict)
    subject: str = SUBJECT
    messages: Callable[[pb.JobHeader], list[pb.CreateJobRequest]] | None = None
    is_logged: bool = True

    def upload(self) -> list[pb.CreateJobRequest]:
        head = header(self.subject, **self.head)
        return self.messages(head) if self.messages else parts(head, self.image())


def rejected(detail: str, image: Callable[[], bytes]) -> Row:
    return Row("INVALID_ARGUMENT", "IMAGE_REJECTED", detail, image)


def invalid(messages: Callable[[pb.JobHeader], list[pb.CreateJobRequest]], *, is_logged: bool) -> Row:
    return Row("INVALID_ARGUMENT", "MESSAGE_INVALID", messages=messages, is_logged=is_logged)


ROWS = {
    "not an image": rejected("not_an_image", lambda: b"Dear Sir or Madam, " * 200),
    "empty": rejected("not_an_image", lambda: b""),
    "another format": rejected("unsupported_format", lambda: plant.encode(plant.picture(), "BMP")),
    "truncated": rejected("truncated", lambda: IMAGE[: len(IMAGE) // 2]),
    "too many pixels": rejected("too_many_pixels", huge),
    "polyglot": rejected("polyglot", archive),
    "several frames": rejected("multi_frame", animation),
    "oversized": Row(
        "RESOURCE_EXHAUSTED", "PAYLOAD_TOO_LARGE", image=lambda: IMAGE + bytes(MAX_BYTES - len(IMAGE) + 1)
    ),
    "no consent": Row("FAILED_PRECONDITION", "DENY_NO_EXPLICIT_CONSENT", subject="nobody-asked"),
    "withdrawn consent": Row("FAILED_PRECONDITION", "DENY_CONSENT_WITHDRAWN", subject="went-away"),
    "erased subject": Row("FAILED_PRECONDITION", "SUBJECT_BLOCKED", subject="erased"),
    "unknown subject": Row("NOT_FOUND", "SUBJECT_UNKNOWN", subject="never-heard-of"),
    "unknown notice": Row("NOT_FOUND", "NOTICE_UNKNOWN", head={"notice": "notices/other"}),
    "unknown backend": Row("UNAVAILABLE", "BACKEND_UNAVAILABLE", head={"backend_hint": "backends/other"}),
    "unknown style": Row(
        "INVALID_ARGUMENT", "MESSAGE_INVALID", head={"parameters": pb.GenerationParameters(style="oil")}
    ),
    "prompt": Row(
        "INVALID_ARGUMENT",
        "PROMPT_REJECTED",
        "backend_takes_none",
        head={"parameters": pb.GenerationParameters(style="studio_grey", prompt="with a hat")},
    ),
    "second header": invalid(lambda head: [*parts(head), *parts(head)], is_logged=True),
    "chunk of 256 KiB and a byte": invalid(
        lambda head: [*parts(head, b""), pb.CreateJobRequest(chunk=bytes(CHUNK + 1))], is_logged=True
    ),
    "chunk before the header": invalid(lambda head: parts(None) + parts(head, b""), is_logged=False),
    "nothing at all": invalid(lambda _head: [], is_logged=False),
    "header without a subject": invalid(lambda _head: parts(pb.JobHeader()), is_logged=False),
}


@dataclass(frozen=True)
class Standing:
    """A gateway that stands for the whole table, and where its bytes lie."""

    gateway: Gateway
    folders: tuple[Path, ...]


@pytest_asyncio.fixture(scope="class", loop_scope="class", params=GATEWAY_DATABASES)
async def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    """One gateway for the table, with a subject for each of its cases."""
    root, url, folders = tmp_path_factory.mktemp("bad"), "", ()
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url, folders = await server.create(f"lethe_{secrets.token_hex(6)}"), (server.home / "data",)
    layout = make_folder(root / "dev", records_url=url, limits={"max_image_bytes": MAX_BYTES})
    async with (
        running(layout) as gateway,
        gateway.client("app") as app,
        gateway.client("officer") as officer,
    ):
        await publish_notice(officer)
        for subject in (SUBJECT, "nobody-asked", "went-away", "erased"):
            await add_subject(app, subject)
        for subject in (SUBJECT, "went-away", "erased"):
            await consent(app, subject)
        which = consent_pb2.SubjectPurpose(subject="subjects/went-away", purpose=common_pb2.PURPOSE_GENERATE)
        await app.call(
            app.consents.WithdrawConsent, consent_pb2.WithdrawConsentRequest(subject_purpose=which)
        )
        await erase(gateway, "erased")
        await good_upload(gateway)
        yield Standing(gateway, (layout.root, *folders))


@pytest.mark.asyncio(loop_scope="class")
class TestTable:
    @pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
    async def test_it_is_refused_by_its_name_and_nothing_stays(self, standing, row: Row) -> None:
        gateway, messages = standing.gateway, row.upload()
        before = await Rest.of(gateway)
        async with gateway.client("app") as app:
            assert said(await send(app, messages)) == (row.code, row.reason, row.detail)

        after = await Rest.of(gateway)
        assert after == replace(before, refusals=before.refusals + row.is_logged)
        if row.is_logged:
            leaf = (await gateway.leaves("upload.refused"))[-1]
            assert (leaf["rc"], leaf.get("det", ""), leaf["pur"]) == (row.reason, row.detail, "generate")
            assert row.subject not in str(leaf)
        assert not is_readable(b"".join(m.chunk for m in messages), *standing.folders)
        await good_upload(gateway)

    async def test_a_request_id_with_other_content_is_refused(self, standing) -> None:
        gateway, same = standing.gateway, str(uuid.uuid4())
        async with gateway.client("app") as app:
            first = await app.create_job(header(SUBJECT, request_id=same), IMAGE)
            await finished(app, first.job.name)
            await at_rest(gateway)
            before = await Rest.of(gateway)
            other = plant.encode(plant.picture(), "JPEG")
            for messages in (
                parts(header(SUBJECT, request_id=same), other),
                parts(
                    header(SUBJECT, request_id=same, parameters=pb.GenerationParameters(style="studio_warm"))
                ),
            ):
                refused = await send(app, messages)
                assert said(refused) == ("ALREADY_EXISTS", "IDEMPOTENCY_CONFLICT", "")
            assert await Rest.of(gateway) == replace(before, refusals=before.refusals + 2)

    async def test_a_message_over_the_limit_ends_the_upload(self, standing) -> None:
        """Even where a whole picture came before it: what follows an error is no end of the upload."""
        gateway = standing.gateway
        before = await Rest.of(gateway)
        messages = [*parts(header(SUBJECT)), pb.CreateJobRequest(chunk=bytes(2 << 20))]
        async with gateway.client("app") as app:
            assert (await send(app, messages)).code == "RESOURCE_EXHAUSTED"

            async def is_logged() -> bool:
                return len(await gateway.leaves("upload.refused")) > before.refusals

            await until(is_logged)
        after = await Rest.of(gateway)
        assert (after.jobs, after.objects, after.files) == (before.jobs, before.objects, before.files)
        await good_upload(gateway)

    async def test_a_call_without_a_deadline_is_refused(self, standing) -> None:
        gateway = standing.gateway
        before = await Rest.of(gateway)
        async with gateway.client("app") as app:
            refused = await send(app, parts(header(SUBJECT)), timeout=None)
        assert said(refused) == ("INVALID_ARGUMENT", "DEADLINE_REQUIRED", "")
        assert await Rest.of(gateway) == before

    @pytest.mark.parametrize("end", ["deadline", "hang-up"])
    async def test_a_caller_who_goes_away_mid_upload_leaves_nothing(self, standing, end: str) -> None:
        gateway = standing.gateway
        before, over = await Rest.of(gateway), asyncio.Event()

        async def stalling() -> AsyncIterator[pb.CreateJobRequest]:
            for message in parts(header(SUBJECT)):
                yield message
            await over.wait()

        async with gateway.client("app") as app:
            if end == "deadline":
                assert (await send(app, stalling(), timeout=0.6)).code == "DEADLINE_EXCEEDED"
            else:
                call = app.generation.CreateJob(stalling(), timeout=20)
                await call.wait_for_connection()
                await asyncio.sleep(0.2)
                call.cancel()
                with suppress(asyncio.CancelledError):
                    await call

            async def is_logged() -> bool:
                return len(await gateway.leaves("upload.refused")) > before.refusals

            await until(is_logged)
            over.set()
        assert (await gateway.leaves("upload.refused"))[-1]["rc"] == "DEADLINE_TOO_SHORT"
        assert await Rest.of(gateway) == replace(before, refusals=before.refusals + 1)
        assert not is_readable(IMAGE, *standing.folders)
        await good_upload(gateway)

    async def test_a_picture_without_a_face_ends_the_job_and_the_original(self, standing) -> None:
        gateway = standing.gateway
        before = await Rest.of(gateway)
        gateway.backend.rejects = "no_face"
        try:
            async with gateway.client("app") as app:
                with pytest.raises(Refused) as caught:
                    async for _answer in app.generate(header(SUBJECT), IMAGE):
                        pass
        finally:
            gateway.backend.rejects = ""
        assert said(caught.value) == ("INVALID_ARGUMENT", "IMAGE_REJECTED", "no_face")
        failed = (await gateway.leaves("job.failed"))[-1]
        assert (failed["rc"], failed["det"]) == ("IMAGE_REJECTED", "no_face")

        async def is_gone() -> bool:
            after = await Rest.of(gateway)
            return (after.objects, after.files) == (before.objects, before.files)

        await until(is_gone)


# --- what fails around the gateway -------------------------------------------------------------


async def prepared(gateway: Gateway) -> None:
    async with gateway.client("app") as app, gateway.client("officer") as officer:
        await publish_notice(officer)
        await add_subject(app, SUBJECT)
        await consent(app, SUBJECT)


async def refused_once(gateway: Gateway, expected: tuple[str, str, str], *, is_logged: bool = True) -> None:
    """Demand this answer to a good upload, that nothing of it stays, and that it is in the log."""
    before = await Rest.of(gateway)
    async with gateway.client("app") as app:
        assert said(await send(app, parts(header(SUBJECT)))) == expected
    assert await Rest.of(gateway) == replace(before, refusals=before.refusals + is_logged)
    if is_logged:
        assert (await gateway.leaves("upload.refused"))[-1]["rc"] == expected[1]


async def test_a_full_disk_takes_no_upload_until_there_is_room(layout) -> None:
    room = [1 << 40]

    def small(outside):
        objects = FileObjects(layout.objects, reserve_bytes=1 << 20, free=lambda _folder: room[0])
        return replace(outside, objects=objects)

    async with running(layout, wrap=small) as gateway:
        await prepared(gateway)
        for free in (0, (1 << 20) + 1000):
            room[0] = free
            await refused_once(gateway, ("RESOURCE_EXHAUSTED", "DISK_RESERVE", ""))
        assert list((layout.objects / "tmp").iterdir()) == []
        room[0] = 1 << 40
        await good_upload(gateway)


async def test_where_the_databases_disk_runs_full_nothing_begins_and_the_rights_of_people_go_on(
    tmp_path: Path,
) -> None:
    """R11: what is refused leaves no leaf; what goes on does, and gets its place and its proof."""
    room = [1 << 40]
    layout = make_folder(tmp_path / "dev")
    database = sqlite_path(load(layout.config).records.url)
    reserve = Reserve(database, 1 << 20, free=lambda _folder: room[0])

    async with running(layout, wrap=lambda outside: replace(outside, need_room=reserve.need_room)) as gateway:
        await prepared(gateway)
        await good_upload(gateway)
        async with gateway.client("app") as app, gateway.client("officer") as officer:
            given = await consent(app, SUBJECT)
            room[0] = (1 << 20) + database.stat().st_size - 1
            refused = ("RESOURCE_EXHAUSTED", "DISK_RESERVE", "records")
            before = await Rest.of(gateway)
            assert said(await send(app, parts(header(SUBJECT)))) == refused
            for begin in (
                lambda: add_subject(app, "somebody-else"),
                lambda: consent(app, SUBJECT),
                lambda: publish_notice(officer),
            ):
                with pytest.raises(Refused) as no:
                    await begin()
                assert said(no.value) == refused
            assert await Rest.of(gateway) == before
            await app.call(app.consents.WithdrawConsent, consent_pb2.WithdrawConsentRequest(name=given))
        done = await erase(gateway, SUBJECT)
        async with gateway.client("officer") as officer:
            request = dsr_pb2.GetCertificateRequest(name=done.certificate)

            async def is_proven() -> bool:
                with suppress(Refused):  # the leaf waits for its place
                    return bool((await officer.call(officer.dsrs.GetCertificate, request)).tlog_proof)
                return False

            await until(is_proven)
        room[0] = 1 << 40
        async with gateway.client("app") as app:
            await add_subject(app, "somebody-else")


async def test_a_dead_postgresql_is_said_and_comes_back_by_itself(tmp_path) -> None:
    with running_postgres() as server:
        layout = make_folder(tmp_path / "dev", records_url=await server.create("lethe"))
        async with running(layout) as gateway:
            await prepared(gateway)
            server.kill()
            async with gateway.client("app") as app:
                refused = await send(app, parts(header(SUBJECT)))
                assert said(refused)[:2] == ("UNAVAILABLE", "STORE_UNAVAILABLE")
                again = await send(app, parts(header(SUBJECT)))
                assert said(again)[:2] == ("UNAVAILABLE", "STORE_UNAVAILABLE")
            assert gateway.object_files() == []
            server.start()
            assert (await gateway.rows(Job), await gateway.rows(StoredObject)) == ([], [])
            await good_upload(gateway)
            assert not is_readable(IMAGE, layout.root, server.home / "data")


async def test_a_missing_sqlite_file_is_said_and_comes_back_by_itself(tmp_path) -> None:
    layout = make_folder(tmp_path / "dev")
    async with running(layout) as gateway:
        await prepared(gateway)
        moved = layout.database.with_name("moved.db")
        layout.database.rename(moved)
        async with gateway.client("app") as app:
            refused = await send(app, parts(header(SUBJECT)))
        assert said(refused)[:2] == ("UNAVAILABLE", "STORE_UNAVAILABLE")
        assert gateway.object_files() == []
        assert not layout.database.exists()
        moved.rename(layout.database)
        assert (await gateway.rows(Job), await gateway.rows(StoredObject)) == ([], [])
        await good_upload(gateway)


async def test_a_dead_backend_is_said_before_a_byte_is_taken(layout) -> None:
    backend = FakeInference()
    backend.faults.is_down = True
    async with running(layout, backend=backend) as gateway:
        await prepared(gateway)
        await refused_once(gateway, ("UNAVAILABLE", "BACKEND_UNAVAILABLE", ""))
        backend.faults.is_down = False

        async def is_back() -> bool:
            with suppress(Refused):
                async with gateway.client("app") as app:
                    await app.create_job(header(SUBJECT), IMAGE)
                return True
            return False

        await until(is_back)


async def test_a_backend_that_keeps_pictures_gets_none(layout) -> None:
    async with running(layout, backend=FakeInference(retention_s=3600)) as gateway:
        await prepared(gateway)
        await refused_once(gateway, ("FAILED_PRECONDITION", "BACKEND_RETENTION_TOO_LONG", ""))


async def test_a_backend_that_dies_once_gets_the_job_again(gateway, app, ready) -> None:
    gateway.backend.faults.lose_reply("generate")
    made = await app.create_job(header(SUBJECT), IMAGE)
    assert (await finished(app, made.job.name)).state == pb.Job.STATE_SUCCEEDED
    sent = [call.job_pseudonym for call in gateway.backend.seen if call.method == "generate"]
    assert len(sent) == 2
    assert len({*sent}) == 1


async def test_a_backend_that_dies_in_every_attempt_fails_the_job_and_ends_the_original(
    gateway, app, ready
) -> None:
    gateway.backend.faults.lose_reply("generate", 10)
    made = await app.create_job(header(SUBJECT), IMAGE)
    ended = await finished(app, made.job.name)
    assert (ended.state, ended.failure.reason) == (pb.Job.STATE_FAILED, "BACKEND_UNAVAILABLE")
    assert len(await gateway.leaves("job.dispatched")) == 3
    assert [leaf["rc"] for leaf in await gateway.leaves("job.failed")] == ["BACKEND_UNAVAILABLE"]

    async def is_gone() -> bool:
        return not await gateway.rows(StoredObject) and not gateway.object_files()

    await until(is_gone)
    gateway.backend.faults.lost_replies.clear()
    await good_upload(gateway)


@pytest.mark.parametrize("fault", ["missing", "readable by others", "malformed"])
async def test_a_root_key_that_cannot_be_used_is_said_and_comes_back_by_itself(gateway, ready, fault) -> None:
    root = gateway.layout.keys / "root.key"
    content = root.read_bytes()
    if fault == "missing":
        root.rename(root.with_name("away"))
        detail = "enoent"
    elif fault == "malformed":
        root.write_bytes(b"not a key\n")
        detail = "key_malformed"
    else:
        root.chmod(0o644)
        detail = "key_mode"
    await refused_once(gateway, ("UNAVAILABLE", "KEY_SERVICE_UNAVAILABLE", detail))
    if fault == "missing":
        root.with_name("away").rename(root)
    root.write_bytes(content)
    root.chmod(0o600)
    await good_upload(gateway)


# --- another tenant ------------------------------------------------------------------------------

OTHER = "other"


async def status_of(call: Any) -> tuple[str, str, bytes]:
    """Return the whole answer to a call that is refused: code, message and every detail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drain(call)
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.domain == "lethe.dev"
    return caught.value.code().name, info.reason, status.SerializeToString(deterministic=True)


async def drain(call: Any) -> None:
    if isinstance(call, grpc.aio.UnaryStreamCall):
        async for _answer in call:
            pass
    else:
        await call


Ask = Callable[[Client, str], Any]


def by_name(service: str, method: str, request: type, /, **fields: Any) -> Ask:
    return lambda client, name: getattr(getattr(client, service), method)(
        request(name=name, **fields), timeout=20
    )


def by_subject(service: str, method: str, request: type, /, **fields: Any) -> Ask:
    return lambda client, name: getattr(getattr(client, service), method)(
        request(subject=name, **fields), timeout=20
    )


GENERATE = common_pb2.PURPOSE_GENERATE
QUESTIONS: dict[str, list[tuple[str, Ask]]] = {
    "job": [
        ("app", by_name("generation", "GetJob", pb.GetJobRequest)),
        ("app", by_name("generation", "WatchJob", pb.WatchJobRequest)),
        ("app", by_name("generation", "CancelJob", pb.CancelJobRequest)),
        ("app", by_name("generation", "DownloadResult", pb.DownloadResultRequest)),
        ("app", by_name("generation", "DownloadResult", pb.DownloadResultRequest, offset=1 << 40)),
        ("app", by_name("generation", "DeleteJob", pb.DeleteJobRequest)),
    ],
    "object": [("app", by_name("subjects", "DeleteObject", subject_pb2.DeleteObjectRequest))],
    "subject": [
        ("app", by_name("subjects", "GetSubject", subject_pb2.GetSubjectRequest)),
        ("app", by_name("subjects", "RestrictSubject", subject_pb2.RestrictSubjectRequest, restricted=True)),
        ("app", by_subject("subjects", "ListStoredData", subject_pb2.ListStoredDataRequest)),
        ("app", by_subject("consents", "ListConsents", consent_pb2.ListConsentsRequest)),
        ("app", by_subject("consents", "CheckConsent", consent_pb2.CheckConsentRequest, purpose=GENERATE)),
        ("app", by_subject("consents", "RecordSignal", consent_pb2.RecordSignalRequest, gpc=True)),
        (
            "officer",
            by_subject("dsrs", "CreateDsr", dsr_pb2.CreateDsrRequest, kind=dsr_pb2.Dsr.KIND_ERASURE),
        ),
        (
            "app",
            lambda client, name: client.subjects.RectifySubject(
                subject_pb2.RectifySubjectRequest(subject=subject_pb2.Subject(name=name, residence="FR")),
                timeout=20,
            ),
        ),
        (
            "app",
            lambda client, name: client.consents.WithdrawConsent(
                consent_pb2.WithdrawConsentRequest(
                    subject_purpose=consent_pb2.SubjectPurpose(subject=name, purpose=GENERATE)
                ),
                timeout=20,
            ),
        ),
        (
            "app",
            lambda client, name: client.generation.CreateJob(
                iter(parts(header(name.removeprefix("subjects/")))), timeout=20
            ),
        ),
    ],
    "notice": [("auditor", by_name("notices", "GetNotice", notice_pb2.GetNoticeRequest))],
    "consent": [
        ("app", by_name("consents", "GetConsent", consent_pb2.GetConsentRequest)),
        ("app", by_name("consents", "WithdrawConsent", consent_pb2.WithdrawConsentRequest)),
        ("app", by_name("consents", "GetReceipt", consent_pb2.GetReceiptRequest)),
        ("officer", by_name("consents", "InvalidateConsent", consent_pb2.InvalidateConsentRequest)),
    ],
    "dsr": [
        ("officer", by_name("dsrs", "GetDsr", dsr_pb2.GetDsrRequest)),
        ("officer", by_name("dsrs", "PreviewDsr", dsr_pb2.PreviewDsrRequest)),
        ("officer", by_name("dsrs", "ApproveDsr", dsr_pb2.ApproveDsrRequest)),
        ("officer", by_name("dsrs", "ApproveDsr", dsr_pb2.ApproveDsrRequest, validate_only=True)),
        ("officer", by_name("dsrs", "RefuseDsr", dsr_pb2.RefuseDsrRequest, reason_code="UNFOUNDED")),
        ("officer", by_name("dsrs", "ExtendDsr", dsr_pb2.ExtendDsrRequest, reason_code="COMPLEXITY")),
        ("officer", by_name("dsrs", "VerifyIdentity", dsr_pb2.VerifyIdentityRequest, method="login")),
        ("officer", by_name("dsrs", "CancelDsr", dsr_pb2.CancelDsrRequest)),
        ("officer", by_name("dsrs", "DownloadPackage", dsr_pb2.DownloadPackageRequest)),
    ],
    "certificate": [("auditor", by_name("dsrs", "GetCertificate", dsr_pb2.GetCertificateRequest))],
    "event": [
        (
            "auditor",
            lambda client, name: client.audit.GetInclusionProof(
                audit_pb2.GetInclusionProofRequest(event_id=name), timeout=20
            ),
        )
    ],
}
NOBODYS = {
    "subject": "subjects/never-heard-of",
    "notice": "notices/never-heard-of",
    "event": "0" * 32,
    **{kind: f"{kind}s/{'0' * 32}" for kind in ("job", "object", "consent", "dsr", "certificate")},
}


async def test_what_belongs_to_another_tenant_is_answered_as_what_does_not_exist(layout) -> None:
    add_tenant(layout, OTHER)
    async with running(layout) as gateway:
        await prepared(gateway)
        foreign = await made_things(gateway)
        before = await gateway.leaves()
        origin = gateway.settings.tenants["demo"].log_origin
        differing, answered = [], set()
        clients = {role: gateway.client(f"{OTHER}-{role}") for role in ("app", "officer", "auditor")}
        try:
            for kind, questions in QUESTIONS.items():
                for (role, ask), name in itertools.product(questions, foreign[kind]):
                    theirs = await status_of(ask(clients[role], name))
                    nobodys = await status_of(ask(clients[role], NOBODYS[kind]))
                    answered.add(theirs[:2])
                    if theirs != nobodys:
                        differing.append((kind, name, theirs, nobodys))
            jobs = [
                await clients["app"].call(
                    clients["app"].generation.ListJobs, pb.ListJobsRequest(subject=name)
                )
                for name in (f"subjects/{SUBJECT}", NOBODYS["subject"])
            ]
        finally:
            for client in clients.values():
                await client.channel.close()
        assert differing == []
        assert {code for code, reason in answered if reason != "METHOD_NOT_BUILT"} == {"NOT_FOUND"}
        assert jobs[0] == jobs[1] == pb.ListJobsResponse()

        # Nothing of it was touched, and its own log knows nothing of the attempts.
        async with gateway.client("app") as app, gateway.client("auditor") as auditor:
            assert (await app.download(foreign["job"][0]))[1]
            head = await auditor.call(auditor.audit.GetCheckpoint, audit_pb2.GetCheckpointRequest())
            assert head.checkpoint.startswith(origin)
        ours = [leaf for leaf in await gateway.leaves() if leaf not in before]
        assert {leaf["ty"] for leaf in ours} <= {"upload.refused", "result.released"}


async def made_things(gateway: Gateway) -> dict[str, list[str]]:
    """Return the names of one of everything that the first tenant has, an erased subject's included."""
    async with gateway.client("app") as app, gateway.client("officer") as officer:
        made = await app.create_job(header(SUBJECT), IMAGE)
        job = await finished(app, made.job.name)
        listing = consent_pb2.ListConsentsRequest(subject=f"subjects/{SUBJECT}")
        consents = [found.name for found in (await app.call(app.consents.ListConsents, listing)).consents]
        opened = await officer.call(
            officer.dsrs.CreateDsr,
            dsr_pb2.CreateDsrRequest(subject=f"subjects/{SUBJECT}", kind=dsr_pb2.Dsr.KIND_ERASURE),
        )
        await add_subject(app, "erased")
        done = await erase(gateway, "erased")
    return {
        "job": [job.name],
        "object": [job.result_object],
        "subject": [f"subjects/{SUBJECT}", "subjects/erased"],
        "notice": ["notices/portraits"],
        "consent": consents,
        "dsr": [opened.dsr.name, done.name],
        "certificate": [done.certificate],
        "event": [made.receipt.event_id],
    }
