"""Every method of the contract, called without the client that knows them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from gateway.rpc.wire import ALL

METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}/{method.name}": method for service in ALL for method in service.methods
}


@dataclass(frozen=True)
class Answer:
    """How a call ended: code, reason and detail, and all the words that came back."""

    code: str
    reason: str = ""
    detail: str = ""
    words: bytes = b""
    messages: tuple[bytes, ...] = ()


async def ask(
    channel: grpc.aio.Channel,
    method: str,
    *messages: bytes,
    timeout_s: float | None = 10.0,
    metadata: Iterable[tuple[str, str | bytes]] = (),
    path: str = "",
    **options: Any,
) -> Answer:
    """Call `Service/Method` with these serialized messages; without one, an empty one or an empty stream."""
    known = METHODS[method]
    kind = (
        f"{'stream' if known.client_streaming else 'unary'}_{'stream' if known.server_streaming else 'unary'}"
    )
    # An empty serializer is given, because without one grpc wants messages that serialize themselves.
    call = getattr(channel, kind)(path or f"/lethe.v1.{method}", request_serializer=bytes)
    given = iter(messages) if known.client_streaming else (messages[0] if messages else b"")
    try:
        going = call(given, timeout=timeout_s, metadata=tuple(metadata), **options)
        answers = [answer async for answer in going] if known.server_streaming else [await going]
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    return Answer("OK", messages=tuple(answers))


def refusal(error: grpc.aio.AioRpcError) -> Answer:
    """Return what a refusal says."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    for part in status.details if status is not None else ():
        if part.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            part.Unpack(info)
    words = repr((error.details(), error.debug_error_string(), *(error.initial_metadata() or ())))
    trailing = b" ".join(
        f"{name}=".encode() + (value if isinstance(value, bytes) else value.encode())
        for name, value in error.trailing_metadata() or ()
    )
    return Answer(
        error.code().name, info.reason, info.metadata.get("detail", ""), words.encode() + b" " + trailing
    )


def scrape(address: str) -> str:
    """Return the text of a Prometheus endpoint on loopback."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def sample(text: str, name: str) -> float:
    """Return the value of a sample in such a text, 0 where it is missing."""
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0
