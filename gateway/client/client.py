"""A client of the gateway: mutual TLS, deadlines, retries where they are safe, uploads and downloads."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lethe.v1 import (
    analytics_pb2_grpc,
    audit_pb2_grpc,
    backend_pb2_grpc,
    consent_pb2_grpc,
    dsr_pb2,
    dsr_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    incident_pb2_grpc,
    key_pb2_grpc,
    notice_pb2_grpc,
    policy_pb2_grpc,
    retention_pb2_grpc,
    subject_pb2_grpc,
    tenant_pb2_grpc,
    training_pb2_grpc,
)

from gateway.client.profile import ClientFiles, ProfileInvalid, read_profile

CHUNK = 256 << 10
ATTEMPTS = 4
FIRST_PAUSE_S = 0.2
GENERATE_TIMEOUT_S = 600.0
T = TypeVar("T")
Upload = TypeVar("Upload", generation_pb2.CreateJobRequest, generation_pb2.GenerateRequest)


class Refused(Exception):
    """The gateway refused: `reason` is the machine-readable word, `detail` narrows it."""

    def __init__(self, code: str, reason: str, detail: str, message: str, metadata: dict[str, str]) -> None:
        """Keep what the gateway said."""
        super().__init__(message)
        self.code, self.reason, self.detail, self.metadata = code, reason, detail, metadata


class Client:
    """One connection to a gateway; use it as an async context manager.

    Every call but `watch` has a deadline, `timeout_s` unless it is told another.
    A call that the gateway could not take (UNAVAILABLE) is repeated with growing
    pauses.  A call that makes something carries a `request_id`, so a repetition
    never makes it twice; the others change nothing when they are repeated,
    except that a repeated deletion may answer NOT_FOUND.
    """

    def __init__(self, files: ClientFiles, timeout_s: float = 30.0) -> None:
        """Prepare the connection; nothing is sent yet.

        Raises:
            OSError: A file cannot be read.
        """
        credentials = grpc.ssl_channel_credentials(
            files.ca.read_bytes(), files.key.read_bytes(), files.cert.read_bytes()
        )
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", 1 << 20)]
        if files.server_name:
            options.append(("grpc.ssl_target_name_override", files.server_name))
        self.timeout_s = timeout_s
        self.channel = grpc.aio.secure_channel(files.address, credentials, options=options)
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.subjects = subject_pb2_grpc.SubjectServiceStub(self.channel)
        self.notices = notice_pb2_grpc.NoticeServiceStub(self.channel)
        self.consents = consent_pb2_grpc.ConsentServiceStub(self.channel)
        self.dsrs = dsr_pb2_grpc.DsrServiceStub(self.channel)
        self.retention = retention_pb2_grpc.RetentionServiceStub(self.channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(self.channel)
        self.policy = policy_pb2_grpc.PolicyServiceStub(self.channel)
        self.backends = backend_pb2_grpc.BackendServiceStub(self.channel)
        self.keys = key_pb2_grpc.KeyServiceStub(self.channel)
        self.incidents = incident_pb2_grpc.IncidentServiceStub(self.channel)
        self.training = training_pb2_grpc.TrainingServiceStub(self.channel)
        self.analytics = analytics_pb2_grpc.AnalyticsServiceStub(self.channel)
        self.tenant = tenant_pb2_grpc.TenantServiceStub(self.channel)

    @classmethod
    def from_profile(cls, path: Path, timeout_s: float = 30.0) -> Self:
        """Return a client as the profile at `path` says.

        Raises:
            ProfileInvalid: It cannot be used.
        """
        try:
            return cls(read_profile(path), timeout_s)
        except OSError as error:
            raise ProfileInvalid(f"{path}: a file cannot be read ({type(error).__name__})") from error

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the connection go."""
        await self.channel.close()

    async def call(self, method: Callable[..., Awaitable[T]], request: object) -> T:
        """Make a unary call.

        Raises:
            Refused: The gateway refused, or could not be reached after some attempts.
        """
        identify(request)
        for attempt in range(ATTEMPTS):
            try:
                return await method(request, timeout=self.timeout_s)
            except grpc.aio.AioRpcError as error:
                await _pause_or_refuse(error, attempt)
        raise AssertionError("unreachable")

    async def create_job(
        self, header: generation_pb2.JobHeader, image: bytes
    ) -> generation_pb2.CreateJobResponse:
        """Upload an image and queue a job; see `call` for what is raised."""
        identify(header)

        async def upload(_request: object, timeout: float) -> generation_pb2.CreateJobResponse:  # noqa: ASYNC109 - grpc's own parameter
            return await self.generation.CreateJob(
                _upload(generation_pb2.CreateJobRequest, header, image), timeout=timeout
            )

        return await self.call(upload, None)

    async def generate(
        self, header: generation_pb2.JobHeader, image: bytes, timeout_s: float = GENERATE_TIMEOUT_S
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        """Run one job in one call and yield what the gateway says: jobs, result, chunks, receipt.

        It is repeated only while nothing was answered: a call that broke later
        has ended its job, because nobody waits for it any more.

        Raises:
            Refused: The gateway refused, or the job gave no result.
        """
        identify(header)
        for attempt in range(ATTEMPTS):
            has_answered = False
            try:
                parts = _upload(generation_pb2.GenerateRequest, header, image)
                async for answer in self.generation.Generate(parts, timeout=timeout_s):
                    has_answered = True
                    yield answer
            except grpc.aio.AioRpcError as error:
                await _pause_or_refuse(error, ATTEMPTS - 1 if has_answered else attempt)
            else:
                return

    async def watch(self, job: str) -> AsyncIterator[generation_pb2.Job]:
        """Yield a job whenever it changes, until it has ended.

        The gateway ends a watch after its longest deadline, so that a forgotten one
        does not hold its place; this one then looks again.
        """
        request = generation_pb2.WatchJobRequest(name=job)
        while True:
            try:
                async for answer in self.generation.WatchJob(request):
                    yield answer.job
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise refusal(error) from error
            else:
                return

    async def download(self, job: str) -> tuple[generation_pb2.ResultHeader, bytes]:
        """Return a job's result; a broken download is resumed where it stopped."""
        header, image = generation_pb2.ResultHeader(), bytearray()
        for attempt in range(ATTEMPTS):
            request = generation_pb2.DownloadResultRequest(name=job, offset=len(image))
            try:
                async for answer in self.generation.DownloadResult(request, timeout=self.timeout_s):
                    if answer.WhichOneof("part") == "result":
                        header = answer.result
                    else:
                        image += answer.chunk
                break
            except grpc.aio.AioRpcError as error:
                await _pause_or_refuse(error, attempt)
        return header, bytes(image)

    async def package(self, dsr: str, write: Callable[[bytes], object]) -> dsr_pb2.PackageHeader:
        """Write the package of a request piece by piece, and return what it is.

        A broken download is resumed where it stopped.

        Raises:
            Refused: The gateway refused, could not be reached after some attempts, or gave another file
                than it said (`PACKAGE_DIFFERS`).
        """
        header, digest, size = dsr_pb2.PackageHeader(), hashlib.sha256(), 0
        for attempt in range(ATTEMPTS):
            request = dsr_pb2.DownloadPackageRequest(name=dsr, offset=size)
            try:
                async for answer in self.dsrs.DownloadPackage(request, timeout=GENERATE_TIMEOUT_S):
                    if answer.HasField("package"):
                        header = answer.package
                    write(answer.chunk)
                    digest.update(answer.chunk)
                    size += len(answer.chunk)
                break
            except grpc.aio.AioRpcError as error:
                await _pause_or_refuse(error, attempt)
        if (size, digest.hexdigest()) != (header.size_bytes, header.sha256):
            raise Refused(
                "DATA_LOSS", "PACKAGE_DIFFERS", "", "the file is not the one that was announced", {}
            )
        return header

    async def stream(
        self, call: Callable[..., Any], request: object, timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """Yield the answers of a streaming call; it is never repeated."""
        try:
            async for answer in call(request, timeout=timeout_s or self.timeout_s):
                yield answer
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error


def identify(request: object) -> None:
    """Give a request that can carry a `request_id` one, unless it has it."""
    if getattr(request, "request_id", None) == "":
        request.request_id = str(uuid.uuid4())  # type: ignore[attr-defined] # asked just now


async def _pause_or_refuse(error: grpc.aio.AioRpcError, attempt: int) -> None:
    """Wait before the next attempt where there may be one, else raise what the gateway said."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt == ATTEMPTS - 1:
        raise refusal(error) from error
    await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)


def _upload(kind: type[Upload], header: generation_pb2.JobHeader, image: bytes) -> Iterator[Upload]:
    yield kind(header=header)
    for start in range(0, len(image), CHUNK):
        yield kind(chunk=image[start : start + CHUNK])


def refusal(error: grpc.aio.AioRpcError) -> Refused:
    """Return what a gRPC error says, with the reason from its `ErrorInfo`."""
    info, fields = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        for message in (info, fields):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    code, metadata = error.code().name, dict(info.metadata)
    # Fields and rules are named, values are not, so a person may read them.
    at_fault = "; ".join(f"{fault.field}: {fault.description}" for fault in fields.field_violations)
    text = " | ".join(part for part in (error.details() or "", at_fault) if part)
    return Refused(code, info.reason or code, metadata.get("detail", ""), text, metadata)
