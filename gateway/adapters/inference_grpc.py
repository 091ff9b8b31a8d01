"""The door to a backend that speaks `lethe.backend.v1`, over mutual TLS.

A backend is a stranger.  What it is sent is a pseudonym, a style, a scrubbed
picture and prompt; what it sends is measured against the contract before it goes further,
because stages and names end up in records and on the wire.  Refusals carry
codes of ours and never its words: those may quote a picture or a prompt.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from lethe.backend.v1 import backend_pb2, backend_pb2_grpc

from gateway.adapters.backend_channel import (
    IMAGE_TYPES,
    MAX_SIDE,
    VERSION,
    Door,
    by_status,
    demand,
    options,
)
from gateway.errors import BackendProtocol, BackendUnavailable, ImageRejected, JobCancelled, LetheError
from gateway.ports.inference import BackendFacts, Progress, Result
from gateway.ports.marking import Source

CHUNK_BYTES: Final = 256 << 10
MAX_ANSWER_BYTES: Final = CHUNK_BYTES + 1024
MAX_ORDER_BYTES: Final = CHUNK_BYTES + (16 << 10)
"""Of one message: a chunk; a header has a prompt of at most 2,000 characters."""
MAX_RESULT_BYTES: Final = 64 << 20
MAX_MESSAGES: Final = 10_000
"""Of one answer: a backend that drips single bytes or floods stages is cut off."""
MAX_STYLES: Final = 64
MAX_MODELS: Final = 64

DOMAIN: Final = "lethe.dev"
IMAGE_DETAILS: Final = frozenset(
    {"no_face", "not_an_image", "unsupported_format", "too_many_pixels", "truncated", "multi_frame"}
)
"""Why a backend may reject a picture, as backend.proto lists it."""

_CODE = re.compile(r"[a-z0-9_]{1,32}")
_SOFTWARE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/()+-]{0,62}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REGION = re.compile(r"[A-Z]{2}|local")


class GrpcInference:
    """One backend behind `lethe.backend.v1`; an `Inference`.

    The connection is made when first needed and made again when it was lost.
    Nothing but `address` is contacted: no proxy from the environment, no
    service configuration from the DNS.
    """

    def __init__(
        self,
        *,
        name: str,
        address: str,
        server_name: str | None,
        ca: bytes,
        cert: bytes,
        key: bytes,
        timeout_s: float,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            name: What the configuration calls the backend.  What it calls itself is not used.
            address: Host and port.
            server_name: The name its certificate must carry, where that is not the host's.
            ca: The CA that its certificate must chain to, PEM.
            cert: Our chain, PEM.
            key: Our key, PEM.
            timeout_s: How long a job may take from first byte to last.
            max_result_bytes: The largest result that is taken.
        """
        self._name = name
        self._max_result_bytes = max_result_bytes
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        limits = options(server_name, max_receive=MAX_ANSWER_BYTES, max_send=MAX_ORDER_BYTES)
        self._door = Door(address, credentials, limits, timeout_s)
        self._stub = backend_pb2_grpc.InferenceBackendServiceStub(self._door.channel)

    async def describe(self) -> BackendFacts:
        """Return what the backend declares of itself, under the name we gave it."""
        said = await self._door.ask(self._stub.Describe, backend_pb2.DescribeRequest(), _refusal)
        return _facts(self._name, said)

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
        """Yield progress, then exactly one `Result`, once the backend has ended well.

        However this ends, the call has ended too, and with it the work.
        """
        self._door.need_open()
        header = backend_pb2.JobHeader(
            job_id=job_pseudonym,
            style=style,
            image_type=image_type,
            size_bytes=len(image),
            prompt=prompt,
            subject_id=subject_pseudonym,
        )
        order = _order(header, image)
        call = self._stub.Generate(order, timeout=self._door.timeout_s)
        answer = _Answer(self._name, self._max_result_bytes)
        refusal: LetheError | None = None
        try:
            async for message in call:
                progress = answer.take(message)
                if progress is not None:
                    yield progress
        except grpc.aio.AioRpcError as error:
            refusal = _refusal(error)
        except asyncio.CancelledError:
            if not self._door.is_ours_to_translate():
                raise
            refusal = BackendUnavailable(detail="closed")
        finally:
            call.cancel()
        # Raised out here, so that no chain leads to the backend's words.
        if refusal is not None:
            raise refusal
        yield answer.result()

    async def cancel(self, job_pseudonym: str) -> None:
        """Stop the job if it runs."""
        await self._door.ask(self._stub.Cancel, backend_pb2.CancelRequest(job_id=job_pseudonym), _refusal)

    async def forget(self, job_pseudonym: str) -> None:
        """Return once the backend says that it holds nothing of the job."""
        await self._door.ask(self._stub.Forget, backend_pb2.ForgetRequest(job_id=job_pseudonym), _refusal)

    async def close(self) -> None:
        """Let the connection go; what still runs ends as unavailable."""
        await self._door.close()


def _order(header: backend_pb2.JobHeader, image: bytes) -> Iterator[backend_pb2.GenerateRequest]:
    """Yield the header, then the picture in chunks."""
    yield backend_pb2.GenerateRequest(header=header)
    for start in range(0, len(image), CHUNK_BYTES):
        yield backend_pb2.GenerateRequest(chunk=image[start : start + CHUNK_BYTES])


class _Answer:
    """What a backend has sent so far: progress, then the result's header, then its bytes."""

    def __init__(self, name: str, max_bytes: int) -> None:
        self._name = name
        self._max_bytes = max_bytes
        self._messages = 0
        self._percent = 0
        self._header: backend_pb2.ResultHeader | None = None
        self._image = bytearray()

    def take(self, message: backend_pb2.GenerateResponse | None) -> Progress | None:
        """Return the progress that `message` tells, if it does.

        Raises:
            BackendProtocol: The message breaks the contract; the detail says how.
        """
        # grpc gives None where the bytes are no message.
        if message is None:
            raise BackendProtocol(detail="message_garbled")
        self._messages += 1
        demand(self._messages <= MAX_MESSAGES, "too_many_messages")
        part = message.WhichOneof("part")
        if part == "progress":
            return self._take_progress(message.progress)
        if part == "result":
            self._take_header(message.result)
        elif part == "chunk":
            self._take_chunk(message.chunk)
        else:
            raise BackendProtocol(detail="message_empty")
        return None

    def _take_progress(self, progress: backend_pb2.Progress) -> Progress:
        demand(self._header is None, "progress_after_result")
        demand(self._percent <= progress.percent <= 100, "bad_percent")
        demand(_CODE.fullmatch(progress.stage), "bad_stage")
        self._percent = progress.percent
        return Progress(progress.percent, progress.stage)

    def _take_header(self, header: backend_pb2.ResultHeader) -> None:
        demand(self._header is None, "two_results")
        demand(header.image_type in IMAGE_TYPES, "bad_image_type")
        demand(header.size_bytes > 0, "bad_size")
        demand(header.size_bytes <= self._max_bytes, "result_too_large")
        demand(0 < header.width <= MAX_SIDE and 0 < header.height <= MAX_SIDE, "bad_dimensions")
        demand(_SOFTWARE.fullmatch(header.backend), "bad_name")
        demand(_DEVICE.fullmatch(header.device), "bad_device")
        demand(_SHA256.fullmatch(header.model_digest), "bad_digest")
        self._header = header

    def _take_chunk(self, chunk: bytes) -> None:
        header = self._header
        if header is None:
            raise BackendProtocol(detail="chunk_before_result")
        demand(0 < len(chunk) <= CHUNK_BYTES, "bad_chunk")
        demand(len(self._image) + len(chunk) <= header.size_bytes, "more_than_announced")
        self._image += chunk

    def result(self) -> Result:
        """Return the result of an answer that has ended.

        Raises:
            BackendProtocol: There is none, or bytes are missing.
        """
        header = self._header
        if header is None:
            raise BackendProtocol(detail="no_result")
        demand(len(self._image) == header.size_bytes, "less_than_announced")
        return Result(
            image=bytes(self._image),
            image_type=header.image_type,
            backend=self._name,
            device=header.device,
            model_digest=header.model_digest,
        )


def _facts(name: str, said: backend_pb2.DescribeResponse) -> BackendFacts:
    """Return what a backend declared, under the name we know it by.

    Where it does not say that it looks for no faces, a template counts as
    extracted: a detector's landmarks are a landmark map, if only for a moment,
    and the gateway cannot see what becomes of them.

    Raises:
        BackendProtocol: A declaration is missing, or is none that the contract knows.

    Rule:
        law.md 2.3: true unless the backend declares `face_features: none`.
    """
    demand(_SOFTWARE.fullmatch(said.name), "bad_name")
    demand(VERSION.fullmatch(said.version), "bad_version")
    demand(_DEVICE.fullmatch(said.device), "bad_device")
    demand(_SHA256.fullmatch(said.model_digest), "bad_digest")
    demand(len(said.models) <= MAX_MODELS, "bad_models")
    demand(all(_FILE.fullmatch(m.name) and _SHA256.fullmatch(m.sha256) for m in said.models), "bad_models")
    demand(0 < len(said.styles) <= MAX_STYLES, "bad_styles")
    demand(all(_CODE.fullmatch(style) for style in said.styles), "bad_styles")
    demand(_REGION.fullmatch(said.region), "bad_region")
    # A negative term would pass every upper bound that policy sets.
    demand(said.retention_seconds >= 0, "bad_retention")
    demand(said.max_pixels >= 0 and said.max_image_bytes >= 0, "bad_limits")
    return BackendFacts(
        name=name,
        version=said.version,
        device=said.device,
        model_digest=said.model_digest,
        styles=tuple(dict.fromkeys(said.styles)),
        region=said.region,
        retention_s=said.retention_seconds,
        trains_on_inputs=said.trains_on_inputs,
        template_extracted=said.face_features != backend_pb2.DescribeResponse.FACE_FEATURES_NONE,
        supports_cancel=said.supports_cancel,
        supports_forget=said.supports_forget,
        source=_SOURCES.get(said.picture_source, "generated"),
        takes_prompts=said.takes_prompts,
        max_image_bytes=said.max_image_bytes,
        max_pixels=said.max_pixels,
    )


_SOURCES: Final[dict[int, Source]] = {
    backend_pb2.DescribeResponse.PICTURE_SOURCE_COMPOSITE_GENERATED: "composite_generated",
    backend_pb2.DescribeResponse.PICTURE_SOURCE_COMPOSITE_SYNTHETIC: "composite_synthetic",
    backend_pb2.DescribeResponse.PICTURE_SOURCE_ENHANCED: "enhanced",
}
"""What a backend does not say, or says in words that are newer than ours, counts as generated."""

_UNAVAILABLE: Final = {"RATE_LIMITED": "busy", "DEADLINE_TOO_SHORT": "deadline"}
_PROTOCOL: Final = {"MESSAGE_INVALID": "message_refused", "DEADLINE_REQUIRED": "deadline_refused"}
"""We keep to the contract, so a backend that says we do not reads another one."""


def _refusal(error: grpc.aio.AioRpcError) -> LetheError:
    """Return what a failed call means to us; nothing of the backend's words is kept."""
    try:
        info = _error_info(error)
    except (ValueError, DecodeError):
        return BackendProtocol(detail="status_garbled")
    return by_status(error) if info is None else _by_reason(info)


def _error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    """Return the contract's `ErrorInfo`, or None: a proxy in between may have ended the call.

    Raises:
        ValueError, DecodeError: The details are garbage or contradict the status.
    """
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            if info.domain == DOMAIN:
                return info
    return None


def _by_reason(info: error_details_pb2.ErrorInfo) -> LetheError:
    if info.reason == "JOB_CANCELLED":
        return JobCancelled()
    if info.reason == "IMAGE_REJECTED":
        detail = info.metadata.get("detail", "")
        if detail not in IMAGE_DETAILS:
            return BackendProtocol(detail="bad_detail")
        return ImageRejected(detail=detail)
    if info.reason == "PAYLOAD_TOO_LARGE":
        # Sending the same picture again would not make it smaller.
        return ImageRejected(detail="too_large")
    if info.reason in _UNAVAILABLE:
        return BackendUnavailable(detail=_UNAVAILABLE[info.reason])
    return BackendProtocol(detail=_PROTOCOL.get(info.reason, "unknown_reason"))
