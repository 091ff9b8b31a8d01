"""A gateway that answers as its script says, for every method of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2, symbol_database
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from lethe.v1 import (  # noqa: F401 - importing them makes their services known
    audit_pb2,
    backend_pb2,
    consent_pb2,
    dsr_pb2,
    generation_pb2,
    incident_pb2,
    key_pb2,
    notice_pb2,
    retention_pb2,
    subject_pb2,
    tenant_pb2,
    training_pb2,
)


@dataclass(frozen=True)
class Refusal:
    """What the scripted gateway refuses with."""

    code: grpc.StatusCode
    reason: str
    message: str = "no"
    metadata: dict[str, str] = field(default_factory=dict)

    def status(self) -> Any:
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="lethe.dev", metadata=self.metadata))
        made = status_pb2.Status(code=self.code.value[0], message=self.message, details=[info])
        return rpc_status.to_status(made)


NOT_BUILT = Refusal(grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_BUILT", "not built yet")


@dataclass
class Gateway(grpc.GenericRpcHandler):
    """Answers each method with what `script` holds: a message, a list of them, a refusal, or a function."""

    script: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        path = handler_call_details.method.removeprefix("/lethe.v1.")
        service, _, name = path.partition("/")
        pool = symbol_database.Default().pool
        method = pool.FindServiceByName(f"lethe.v1.{service}").methods_by_name[name]

        def serve(request: Any, context: grpc.ServicerContext) -> Any:
            self.calls.append((path, list(request) if method.client_streaming else request))
            self.callers += [value.decode() for value in context.auth_context().get("peer_spiffe_id", ())]
            answer = self.script.get(path, NOT_BUILT)
            if isinstance(answer, Callable):
                answer = answer(request)
            if isinstance(answer, Refusal):
                context.abort_with_status(answer.status())
            return answer

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            for part in serve(request, context):
                if isinstance(part, Refusal):
                    context.abort_with_status(part.status())
                yield part

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.client_streaming, method.server_streaming]
        return make(
            stream if method.server_streaming else serve,
            GetMessageClass(method.input_type).FromString,
            GetMessageClass(method.output_type).SerializeToString,
        )

    def asked(self, path: str) -> Any:
        """Return the only request of a method."""
        (request,) = [request for called, request in self.calls if called == path]
        return request
