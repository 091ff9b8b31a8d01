"""The studio behind the contract `lethe.backend.v1`.

It learns a pseudonym, a style, a picture and a prompt, of which it reads the colour
of the backdrop; it writes nothing to disk and logs codes only.  A client certificate
is demanded: whoever the given CA signs may send pictures, so the CA must be one for
gateways alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from lethe.backend.v1 import backend_pb2, backend_pb2_grpc

from gateway import errors, weights
from gateway.backends.studio import picture
from gateway.backends.studio.jobs import Benches, Job, Jobs, Owner
from gateway.backends.studio.picture import FORMATS, STYLES, Headshot, PictureRejected, Stopped

NAME = "studio"
DEVICE = "cpu"
DOMAIN = "lethe.dev"
CHUNK_BYTES = 256 << 10
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
LINGER_S = 2.0
NEVER_S = 10 * 365 * 86400
"""grpc answers a huge number of seconds where the client set no deadline."""

CODES: dict[type[errors.LetheError], grpc.StatusCode] = {
    errors.ImageRejected: grpc.StatusCode.INVALID_ARGUMENT,
    errors.MessageInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PayloadTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineRequired: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DeadlineTooShort: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.JobCancelled: grpc.StatusCode.CANCELLED,
}
"""Every refusal of this backend and its code, as the contract lists them."""

Context = grpc.aio.ServicerContext[Any, Any]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask for, and how long."""

    max_image_bytes: int = 32 << 20
    max_pixels: int = picture.MAX_PIXELS
    benches: int = min(4, os.cpu_count() or 1)
    waiting: int = 8
    upload_s: float = 30.0
    job_s: float = 120.0
    drain_s: float = 20.0


@dataclass(frozen=True, slots=True)
class MutualTls:
    """Files (PEM): the server's chain and key, and the CA that clients must chain to."""

    cert: Path
    key: Path
    ca: Path

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate.

        Raises:
            OSError: A file cannot be read.
        """
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_credentials(
            [pair], root_certificates=self.ca.read_bytes(), require_client_auth=True
        )


@dataclass(frozen=True, slots=True)
class UnsafePlaintextOnLoopback:
    """No encryption and no proof of who calls.  For tests; another address is refused."""


class Studio(backend_pb2_grpc.InferenceBackendServiceServicer):
    """The service: one talk per job, from header to last byte."""

    def __init__(self, models: dict[str, bytes], limits: Limits, region: str = "local") -> None:
        """Build the benches from checked model files."""
        self.limits = limits
        self.benches = Benches(models, limits.benches)
        self.jobs = Jobs(limits.benches + limits.waiting)
        self._manifest = weights.named(*picture.MODELS)
        self._digest = weights.digest(f"{NAME}/{picture.VERSION}", self._manifest)
        self._region = region

    async def Describe(
        self, _request: backend_pb2.DescribeRequest, _context: Context
    ) -> backend_pb2.DescribeResponse:
        """Say who we are; every claim here is kept by the code of this package."""
        return backend_pb2.DescribeResponse(
            name=NAME,
            version=picture.VERSION,
            device=DEVICE,
            model_digest=self._digest,
            models=[backend_pb2.Model(name=model.name, sha256=model.sha256) for model in self._manifest],
            styles=sorted(STYLES),
            region=self._region,
            retention_seconds=0,
            trains_on_inputs=False,
            face_features=backend_pb2.DescribeResponse.FACE_FEATURES_DETECTION,
            supports_cancel=True,
            supports_forget=True,
            max_pixels=self.limits.max_pixels,
            max_image_bytes=self.limits.max_image_bytes,
            # The backdrop is drawn; nothing of the person is.
            picture_source=backend_pb2.DescribeResponse.PICTURE_SOURCE_COMPOSITE_SYNTHETIC,
            takes_prompts=True,
        )

    async def Generate(  # type: ignore[override] # grpc.aio also takes a coroutine that writes, whose clean-up runs at once
        self, requests: AsyncIterator[backend_pb2.GenerateRequest], context: Context
    ) -> None:
        """Work on one picture; a refusal, a cancellation and a fault each leave as one status."""
        answer = Answer(context)
        try:
            async with asyncio.timeout(_patience(context, self.limits.job_s)):
                await self._job(requests, context, answer)
        except errors.LetheError as refusal:
            await _linger(requests)
            await answer.end(_status(refusal))
        except TimeoutError:
            await answer.end(_status(errors.DeadlineTooShort()))
        except Exception as fault:  # noqa: BLE001 - whatever it is, only its class is told, and only to the log
            log.error("job_failed", fault=type(fault).__name__)  # noqa: TRY400 - a traceback may quote input
            await answer.end(status_pb2.Status(code=code_pb2.INTERNAL, message="internal error"))

    async def Cancel(
        self, request: backend_pb2.CancelRequest, context: Context
    ) -> backend_pb2.CancelResponse:
        """Stop a job."""
        self.jobs.cancel(_owner(context), request.job_id)
        return backend_pb2.CancelResponse()

    async def Forget(
        self, request: backend_pb2.ForgetRequest, context: Context
    ) -> backend_pb2.ForgetResponse:
        """Stop a job and answer once nothing of it is left."""
        await self.jobs.forget(_owner(context), request.job_id)
        return backend_pb2.ForgetResponse()

    async def _job(
        self, requests: AsyncIterator[backend_pb2.GenerateRequest], context: Context, answer: Answer
    ) -> None:
        header = await _header(requests, self.limits)
        owner = _owner(context)
        job = await self.jobs.enter(owner, header.job_id)
        try:
            job.talk = asyncio.create_task(self._talk(job, header, requests, answer))
            await job.talk
        except asyncio.CancelledError:
            # Cancel and Forget end the talk alone; where the call itself ended, so do we.
            if not job.stopped.is_set():
                raise
            raise errors.JobCancelled from None
        finally:
            self.jobs.leave(owner, header.job_id, job)

    async def _talk(
        self,
        job: Job,
        header: backend_pb2.JobHeader,
        requests: AsyncIterator[backend_pb2.GenerateRequest],
        answer: Answer,
    ) -> None:
        async with asyncio.timeout(self.limits.upload_s):
            image = await _receive(requests, header.size_bytes)
        shot = await self._work(job, header, image, answer)
        del image
        await answer.write(backend_pb2.GenerateResponse(result=self._result(shot)))
        for start in range(0, len(shot.image), CHUNK_BYTES):
            chunk = shot.image[start : start + CHUNK_BYTES]
            await answer.write(backend_pb2.GenerateResponse(chunk=chunk))

    async def _work(self, job: Job, header: backend_pb2.JobHeader, image: bytes, answer: Answer) -> Headshot:
        """Return the headshot; the client hears of each stage meanwhile."""
        stages: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        stages.put_nowait((1, "queued"))
        relay = asyncio.create_task(_relay(stages, answer))
        try:
            shot = await self.benches.headshot(
                job,
                image,
                header.image_type,
                picture.wished(header.style, header.prompt),
                report=lambda percent, stage: stages.put_nowait((percent, stage)),
                max_pixels=self.limits.max_pixels,
            )
        except PictureRejected as rejected:
            raise errors.ImageRejected(detail=rejected.detail) from rejected
        except Stopped as stopped:
            raise errors.JobCancelled from stopped
        except asyncio.CancelledError:
            relay.cancel()
            raise
        finally:
            stages.put_nowait(None)
            await asyncio.gather(relay, return_exceptions=True)
        return shot

    def _result(self, shot: Headshot) -> backend_pb2.ResultHeader:
        return backend_pb2.ResultHeader(
            image_type="jpeg",
            size_bytes=len(shot.image),
            width=shot.width,
            height=shot.height,
            backend=NAME,
            device=DEVICE,
            model_digest=self._digest,
        )


class Answer:
    """Writes to one client.

    INVARIANT: a write that has begun is never cut off: grpc could not end the
    call while the write is out, and the refusal would be lost.
    """

    def __init__(self, context: Context) -> None:
        """Take the call's context; nothing else writes to it."""
        self._context = context
        self._writing: asyncio.Future[None] | None = None

    async def write(self, message: backend_pb2.GenerateResponse) -> None:
        """Send a message; being cancelled here leaves the write to finish by itself."""
        self._writing = asyncio.ensure_future(self._context.write(message))
        # Where the client has gone nobody waits for the write, and its failure is no news.
        self._writing.add_done_callback(lambda write: write.cancelled() or write.exception())
        await asyncio.shield(self._writing)

    async def end(self, status: status_pb2.Status) -> None:
        """End the call with a status, once the last write is through."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await self._context.abort_with_status(rpc_status.to_status(status))


async def _relay(stages: asyncio.Queue[tuple[int, str] | None], answer: Answer) -> None:
    """Tell the client each stage until None comes."""
    while (stage := await stages.get()) is not None:
        progress = backend_pb2.Progress(percent=stage[0], stage=stage[1])
        await answer.write(backend_pb2.GenerateResponse(progress=progress))


async def _linger(requests: AsyncIterator[backend_pb2.GenerateRequest]) -> None:
    """Take what the client still sends, for at most `LINGER_S`, and drop it.

    A client that is cut off while it writes may report the failed write and
    lose the refusal (grpc.aio does).
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            async for _ in requests:
                pass


def _patience(context: Context, most_s: float) -> float:
    """Return how many seconds the job may take.

    Raises:
        DeadlineRequired: The call carries no deadline.
    """
    remaining = context.time_remaining()
    if remaining is None or remaining > NEVER_S:  # type: ignore[redundant-expr] # the stubs do not know its None
        raise errors.DeadlineRequired
    return min(remaining, most_s)


def _owner(context: Context) -> Owner:
    """Return the names in the client's certificate."""
    auth = context.auth_context()
    names = [*auth.get("x509_subject_alternative_name", ())] or [*auth.get("x509_common_name", ())]
    return tuple(sorted(name.decode(errors="replace") for name in names))


async def _header(
    requests: AsyncIterator[backend_pb2.GenerateRequest], limits: Limits
) -> backend_pb2.JobHeader:
    """Return the header if it can be taken.

    Raises:
        MessageInvalid: It is missing or breaks a rule; the fields are named.
        ImageRejected: The type is none we decode.
        PayloadTooLarge: More bytes are announced than we take.
    """
    async with asyncio.timeout(limits.upload_s):
        first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("part") != "header":
        raise errors.MessageInvalid("the first message is the header", violations=(("header", "required"),))
    header = first.header
    if not JOB_ID.fullmatch(header.job_id):
        raise errors.MessageInvalid("bad pseudonym", violations=(("header.job_id", "string.pattern"),))
    if header.style not in STYLES:
        raise errors.MessageInvalid("unknown style", violations=(("header.style", "style.unknown"),))
    if header.size_bytes <= 0:
        raise errors.MessageInvalid("no size", violations=(("header.size_bytes", "int64.gt"),))
    if header.size_bytes > limits.max_image_bytes:
        raise errors.PayloadTooLarge(limit=str(limits.max_image_bytes))
    if header.image_type not in FORMATS:
        raise errors.ImageRejected(detail="unsupported_format")
    return header


async def _receive(requests: AsyncIterator[backend_pb2.GenerateRequest], size: int) -> bytes:
    """Return the picture once exactly `size` bytes have come and the client has finished.

    Raises:
        MessageInvalid: More or fewer came, or something that is no chunk.
    """
    image = bytearray()
    async for request in requests:
        if request.WhichOneof("part") != "chunk" or not 0 < len(request.chunk) <= CHUNK_BYTES:
            raise errors.MessageInvalid("not a chunk", violations=(("chunk", "bytes.len"),))
        if len(image) + len(request.chunk) > size:
            raise errors.MessageInvalid("more bytes than announced", violations=(("chunk", "size_bytes"),))
        image += request.chunk
    if len(image) != size:
        raise errors.MessageInvalid("fewer bytes than announced", violations=(("chunk", "size_bytes"),))
    return bytes(image)


def _status(refusal: errors.LetheError) -> status_pb2.Status:
    """Return the `google.rpc.Status` of a refusal: its code and its `ErrorInfo` (AIP-193)."""
    metadata = dict(refusal.metadata)
    if refusal.detail:
        metadata["detail"] = refusal.detail
    status = status_pb2.Status(code=CODES[type(refusal)].value[0], message=str(refusal))
    info = error_details_pb2.ErrorInfo(reason=refusal.reason, domain=DOMAIN, metadata=metadata)
    status.details.add().Pack(info)
    if isinstance(refusal, errors.MessageInvalid):
        faults = error_details_pb2.BadRequest()
        for path, rule in refusal.violations:
            faults.field_violations.add(field=path, description=rule, reason=refusal.reason)
        status.details.add().Pack(faults)
    return status


def make_server(
    studio: Studio, address: str, security: MutualTls | UnsafePlaintextOnLoopback
) -> tuple[grpc.aio.Server, str]:
    """Return the server, bound but not started, and its address with the port that was taken.

    Raises:
        OSError: A certificate file cannot be read.
        RuntimeError: The address cannot be bound, or the certificates cannot be used.
        ValueError: Plaintext was asked for on an address that is not loopback.
    """
    host = address.rpartition(":")[0]
    limits = studio.limits
    server = grpc.aio.server(
        # Room for Describe, Cancel and Forget while every place for a job is taken.
        maximum_concurrent_rpcs=2 * (limits.benches + limits.waiting) + 16,
        options=[
            ("grpc.max_receive_message_length", CHUNK_BYTES + 1024),
            ("grpc.max_send_message_length", CHUNK_BYTES + 1024),
            ("grpc.max_metadata_size", 8 << 10),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
            ("grpc.http2.max_ping_strikes", 2),
            # Pictures do not compress; a compressed message could only be a bomb.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.so_reuseport", 0),
        ],
    )
    backend_pb2_grpc.add_InferenceBackendServiceServicer_to_server(studio, server)
    if isinstance(security, MutualTls):
        port = server.add_secure_port(address, security.credentials())
    elif host in LOOPBACK:
        port = server.add_insecure_port(address)
    else:
        raise ValueError("plaintext is for loopback alone")
    return server, f"{host}:{port}"
