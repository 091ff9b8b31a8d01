"""A relay in front of a backend that keeps every byte it passes on.

It shows what a backend gets to see: the demo and the tests search in it.  It
knows no message; whatever crosses `lethe.backend.v1` is passed on as it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from lethe.backend.v1 import backend_pb2

CHANNEL_OPTIONS = [("grpc.max_receive_message_length", 1 << 20)]


@dataclass(frozen=True, slots=True)
class Identity:
    """Certificate chain, key, and the CA of whoever is on the other side, all PEM."""

    cert: bytes
    key: bytes
    ca: bytes


@dataclass(slots=True)
class Tap:
    """Listens, passes on, and keeps what passed.

    `to_backend` holds each request message, the method's path and the call's
    metadata; `from_backend` each response message.
    """

    to_backend: list[bytes] = field(default_factory=list)
    from_backend: list[bytes] = field(default_factory=list)
    _server: grpc.aio.Server | None = None
    _channel: grpc.aio.Channel | None = None

    async def start(self, address: str, target: str, *, listen: Identity, onward: Identity) -> None:
        """Begin to relay from `address` to `target`."""
        self._channel = grpc.aio.secure_channel(
            target,
            grpc.ssl_channel_credentials(onward.ca, onward.key, onward.cert),
            options=CHANNEL_OPTIONS,
        )
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS)
        for service in backend_pb2.DESCRIPTOR.services_by_name.values():
            table = {
                method.name: self._handler(f"/{service.full_name}/{method.name}")
                for method in service.methods
            }
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service.full_name, table),)
            )
        self._server.add_secure_port(
            address,
            grpc.ssl_server_credentials([(listen.key, listen.cert)], listen.ca, require_client_auth=True),
        )
        await self._server.start()

    async def stop(self) -> None:
        """Let both sides go."""
        if self._server is not None:
            await self._server.stop(None)
        if self._channel is not None:
            await self._channel.close()

    def _handler(self, path: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Return a handler of the widest kind: a unary call is a stream of one message."""

        async def relay(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            metadata = [
                (key, value) for key, value in context.invocation_metadata() if not key.startswith("grpc-")
            ]
            self.to_backend.append(path.encode())
            self.to_backend += [
                part.encode() if isinstance(part, str) else part for pair in metadata for part in pair
            ]
            assert self._channel is not None  # noqa: S101 - tells mypy what `start` did
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
            call = method(
                self._kept(requests, self.to_backend),
                timeout=context.time_remaining(),
            )
            try:
                async for response in call:
                    self.from_backend.append(response)
                    yield response
            except grpc.aio.AioRpcError as error:
                context.set_trailing_metadata(error.trailing_metadata())
                await context.abort(error.code(), error.details() or "")

        return grpc.stream_stream_rpc_method_handler(relay)

    @staticmethod
    async def _kept(messages: AsyncIterator[bytes], where: list[bytes]) -> AsyncIterator[bytes]:
        async for message in messages:
            where.append(message)
            yield message
