"""What the doors to backends over gRPC have in common: a channel, and what a failed call means.

A backend is a stranger: nothing of its words is kept, for they may quote a picture or a prompt.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from gateway.errors import BackendProtocol, BackendUnavailable, LetheError

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

CALL_S: Final = 10.0
"""Deadline of every call but the one that carries a picture."""
MAX_SIDE: Final = 65_535
IMAGE_TYPES: Final = frozenset({"jpeg", "png", "webp"})
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")

_BY_STATUS: Final = {
    grpc.StatusCode.UNAVAILABLE: "unreachable",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "busy",
    grpc.StatusCode.DEADLINE_EXCEEDED: "deadline",
    # Nobody of ours cancelled: the call was cut, as at a restart.
    grpc.StatusCode.CANCELLED: "cut_off",
}
"""The statuses of a backend that cannot answer now, where it gives no reason."""

_LOST_WRITE: Final = "Internal error from Core"
"""What grpc.aio says where the stream ended while it wrote; the true status is lost."""
_OVERSIZE: Final = "larger than max"
"""What grpc says, as RESOURCE_EXHAUSTED, of a message over `grpc.max_receive_message_length`."""


def options(server_name: str | None, *, max_receive: int, max_send: int) -> list[tuple[str, Any]]:
    """Return the options of a channel on which nothing but the address is contacted.

    No proxy from the environment, no service configuration from the DNS; messages of
    at most so many bytes in each direction.
    """
    chosen: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_receive),
        ("grpc.max_send_message_length", max_send),
        ("grpc.max_metadata_size", 8 << 10),
        ("grpc.absolute_max_metadata_size", 16 << 10),
        # A compressed message could only be a bomb: pictures do not compress.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        # A repetition is the flow's decision: it asks policy again first.
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    if server_name:
        chosen.append(("grpc.ssl_target_name_override", server_name))
    return chosen


def demand(holds: object, detail: str) -> None:
    """Refuse the backend unless `holds`; `detail` names what is wrong, never what was sent."""
    if not holds:
        raise BackendProtocol(detail=detail)


def by_status(error: grpc.aio.AioRpcError) -> LetheError:
    """Return what a failed call means where its status is all that is said."""
    code, said = error.code(), error.details() or ""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _OVERSIZE in said:
        return BackendProtocol(detail="message_too_large")
    if code is grpc.StatusCode.INTERNAL and said == _LOST_WRITE:
        return BackendUnavailable(detail="cut_off")
    if code in _BY_STATUS:
        return BackendUnavailable(detail=_BY_STATUS[code])
    return BackendProtocol(detail=f"status_{code.name.lower()}")


class Door:
    """A channel to one backend, which may be closed under those who wait at it.

    The connection is made when first needed and made again when it was lost.
    """

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials,
        chosen: Sequence[tuple[str, Any]],
        timeout_s: float,
    ) -> None:
        """Prepare the connection; nothing is sent yet.  `timeout_s` bounds every call."""
        self.channel = grpc.aio.secure_channel(address, credentials, options=chosen)
        self.timeout_s = timeout_s
        self._is_closed = False

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        meaning: Callable[[grpc.aio.AioRpcError], LetheError] = by_status,
    ) -> _Response:
        """Make a call that carries no picture; `meaning` says what its failure means.

        Raises:
            BackendUnavailable: It cannot be reached or has no time.
            BackendProtocol: It refused, or what it said is no message.
        """
        self.need_open()
        try:
            response: _Response | None = await method(request, timeout=min(CALL_S, self.timeout_s))
        except grpc.aio.AioRpcError as error:
            refusal = meaning(error)
        except asyncio.CancelledError:
            if not self.is_ours_to_translate():
                raise
            refusal = BackendUnavailable(detail="closed")
        else:
            # grpc gives None where the bytes are no message.
            if response is not None:
                return response
            refusal = BackendProtocol(detail="message_garbled")
        if not isinstance(refusal, (BackendUnavailable, BackendProtocol)):
            refusal = BackendProtocol(detail="unexpected_reason")
        raise refusal

    def need_open(self) -> None:
        """Return where the door is open.

        Raises:
            BackendUnavailable: It was closed.
        """
        if self._is_closed:
            raise BackendUnavailable(detail="closed")

    def is_ours_to_translate(self) -> bool:
        """Tell whether a cancellation is the closing of this door, not that of the caller's task."""
        task = asyncio.current_task()
        return self._is_closed and task is not None and not task.cancelling()

    async def close(self) -> None:
        """Let the connection go; what still runs ends as unavailable."""
        self._is_closed = True
        await self.channel.close()
