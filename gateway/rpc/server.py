"""The grpc.aio server: every service of the contract, health, reflection, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.errors import MethodNotBuilt
from gateway.rpc.interceptors import Guard, Handler
from gateway.rpc.wire import ALL
from gateway.settings import Listen


@dataclass(frozen=True, slots=True)
class Services:
    """The servicers that are built, by full service name."""

    servicers: dict[str, object]

    def built(self, service: str, method: str) -> bool:
        """Tell whether a method is built: its servicer's own class defines it."""
        servicer = self.servicers.get(service)
        return servicer is not None and method in vars(type(servicer))


@dataclass(frozen=True, slots=True)
class Server:
    """A bound server, its address with the port that was taken, and its health service."""

    rpc: grpc.aio.Server
    address: str
    health: health.aio.HealthServicer

    async def drain(self, grace_s: float) -> None:
        """Say that we are not serving any more, let calls finish for `grace_s` seconds, and end."""
        await self.health.enter_graceful_shutdown()
        await self.rpc.stop(grace_s)


async def make_server(
    services: Services, guard: Guard, credentials: grpc.ServerCredentials, listen: Listen
) -> Server:
    """Return the server, bound but not started."""
    server = grpc.aio.server(
        interceptors=[guard],
        maximum_concurrent_rpcs=listen.max_concurrent_calls,
        options=[
            ("grpc.max_receive_message_length", listen.max_message_bytes),
            ("grpc.max_send_message_length", listen.max_message_bytes),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
            ("grpc.http2.max_ping_strikes", 2),
            # Portraits do not compress; a compressed message could only be a bomb.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.so_reuseport", 0),
        ],
    )
    for service in ALL:
        server.add_generic_rpc_handlers((_handlers(service, services),))
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [service.full_name for service in ALL]
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = server.add_secure_port(listen.address, credentials)
    for name in ["", *names]:
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    return Server(server, f"{listen.address.rpartition(':')[0]}:{port}", checks)


def _handlers(service: ServiceDescriptor, services: Services) -> grpc.GenericRpcHandler:
    table = {method.name: _handler(service, method, services) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, table)


def _handler(service: ServiceDescriptor, method: MethodDescriptor, services: Services) -> Handler:
    """Return the handler of one method: the servicer's, or a refusal where it is not built."""
    from google.protobuf.message_factory import GetMessageClass

    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    if not services.built(service.full_name, method.name):
        # Without a deserializer: what nobody reads is not parsed, so every message gets this answer.
        return _make(method)(_unbuilt_stream if method.server_streaming else _unbuilt)
    serve = getattr(services.servicers[service.full_name], method.name)
    return _make(method)(serve, request.FromString, response.SerializeToString)


def _make(method: MethodDescriptor) -> Callable[..., Handler]:
    return {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]


async def _unbuilt(_request: object, _context: object) -> object:
    """Refuse: the method is in the contract and not built yet."""
    raise MethodNotBuilt


async def _unbuilt_stream(_request: object, _context: object) -> AsyncIterator[object]:
    """Refuse a streaming method that is not built yet."""
    raise MethodNotBuilt
    yield  # pragma: no cover - makes this a generator
