"""One interceptor around every call: who, may they, by when, and how refusals leave.

It also gives sight: a span, metrics and one log line per call, with codes only.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import protovalidate
from google.rpc import status_pb2
from grpc_status import rpc_status

from gateway.caller import Caller
from gateway.errors import (
    DeadlineRequired,
    DeadlineTooShort,
    LetheError,
    MessageInvalid,
    RoleRequired,
)
from gateway.rpc import roles
from gateway.rpc.doorstep import Doorstep
from gateway.rpc.identity import Directory
from gateway.rpc.sight import CallSight, Sight
from gateway.rpc.status import to_status, unexpected

PREFIX = "/lethe.v1."
TLS = b"TLSv1.3"
TIMEOUT_METADATA = "lethe-timeout-ms"
"""Says the deadline where a client cannot: `buf curl` forbids `grpc-timeout`.  gRPC's own wins."""

NO_DEADLINE_NEEDED = frozenset({"GenerationService/WatchJob"})
BEGINS = frozenset(
    {
        "AnalyticsService/GetRecord",
        "ConsentService/RecordConsent",
        "GenerationService/CreateJob",
        "GenerationService/DownloadResult",
        "GenerationService/Generate",
        "NoticeService/PublishNotice",
        "SubjectService/UpsertSubject",
        "TenantService/UpdateTenant",
        "TrainingService/CreateDataset",
        "TrainingService/DownloadDataset",
    }
)
"""Calls that begin or extend processing: refused first where room runs out, so that all others go on."""
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
OPEN_SERVICES = ("/grpc.health.v1.", "/grpc.reflection.")

_MILLISECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)
_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Return who makes the call that is being served."""
    return _caller.get()


Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
RefusalLog = Callable[[Caller, str, LetheError], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Guard(grpc.aio.ServerInterceptor):
    """Names the caller, checks role, deadline and message, and translates refusals."""

    directory: Directory
    sight: Sight
    doorstep: Doorstep
    log_refusal: RefusalLog
    min_deadline_s: float
    max_deadline_s: float
    know: Callable[[Caller], Awaitable[None]]
    """Makes ready to name a person of the staff in the log; what it raises refuses the call."""
    need_room: Callable[[], None]
    """Returns if there is room for something new; what it raises refuses the calls of `BEGINS`."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler of one of our methods; health and reflection pass."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None:
            return handler
        if path.startswith(OPEN_SERVICES):
            return self._made(handler, lambda serve: self._noted(serve, is_check=path == HEALTH_CHECK))
        method = path.removeprefix(PREFIX)
        parent = dict(handler_call_details.invocation_metadata or ()).get("traceparent", "")
        return self._made(handler, lambda serve: self._guarded(serve, handler, method, str(parent)))

    def _made(self, handler: Any, wrap: Callable[[Any], Any]) -> Handler:
        """Return a handler of the same kind whose behaviour is wrapped."""
        kind = {
            (False, False): "unary_unary",
            (False, True): "unary_stream",
            (True, False): "stream_unary",
            (True, True): "stream_stream",
        }[handler.request_streaming, handler.response_streaming]
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        made: Handler = make(
            wrap(getattr(handler, kind)), handler.request_deserializer, handler.response_serializer
        )
        return made

    def _noted(self, serve: Any, *, is_check: bool) -> Any:
        """Return a method of health or reflection that also shows that its connection stands.

        A plain check is answered to every certificate of our CA, so that a probe needs no
        role; what may stay open is for callers we know, and not for ever.
        """
        if inspect.isasyncgenfunction(serve):

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                await self._noted_peer(context, is_check=is_check)
                async with asyncio.timeout(self.max_deadline_s):
                    async for response in serve(request, context):
                        yield response

            return stream

        async def unary(request: Any, context: Any) -> Any:
            await self._noted_peer(context, is_check=is_check)
            async with asyncio.timeout(self.max_deadline_s):
                return await serve(request, context)

        return unary

    async def _noted_peer(self, context: Any, *, is_check: bool) -> None:
        self.doorstep.enter(context.peer())
        try:
            auth = context.auth_context()
            _need_tls(auth)
            if not is_check:
                self._known(auth)
        except RoleRequired as refusal:
            await context.abort_with_status(rpc_status.to_status(to_status(refusal)))

    def _guarded(self, serve: Any, handler: Any, method: str, parent: str) -> Any:
        return (self._stream if handler.response_streaming else self._unary)(serve, method, parent)

    def _unary(self, serve: Any, method: str, parent: str) -> Any:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with self.sight.call(method, parent) as seen:
                try:
                    timeout = await self._admit(context, method)
                    checked = _checked(request)
                    async with asyncio.timeout(timeout):
                        return await serve(checked, context)
                except BaseException as fault:  # noqa: BLE001 - everything is translated, nothing swallowed
                    await self._refuse(context, fault, seen)

        return guarded

    def _stream(self, serve: Any, method: str, parent: str) -> Any:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            with self.sight.call(method, parent) as seen:
                try:
                    timeout = await self._admit(context, method)
                    checked = _checked(request)
                    async with asyncio.timeout(timeout):
                        async for response in serve(checked, context):
                            yield response
                except BaseException as fault:  # noqa: BLE001 - everything is translated, nothing swallowed
                    await self._refuse(context, fault, seen)

        return guarded

    async def _admit(self, context: grpc.aio.ServicerContext[Any, Any], method: str) -> float | None:
        """Name the caller, check the role and the deadline, and return the seconds that are left."""
        self.doorstep.enter(context.peer())
        auth = context.auth_context()
        _need_tls(auth)
        found = self._known(auth)
        _caller.set(found)
        if found.is_person:
            await self.know(found)
        if not roles.permits(found.role, method):
            refusal = RoleRequired(role=found.role.value)
            await self.log_refusal(found, method, refusal)
            raise refusal
        if method in BEGINS:
            self.need_room()  # and no leaf says so: there is no room for it
        remaining: float | None = context.time_remaining()
        # grpc answers a huge number where the client set no deadline.
        if remaining is None or remaining > 10 * 365 * 86400:
            remaining = _said_timeout_s(context)
        if remaining is None:
            if method in NO_DEADLINE_NEEDED:
                return self.max_deadline_s  # so that a forgotten watch does not hold its place for ever
            raise DeadlineRequired
        if remaining < self.min_deadline_s:
            raise DeadlineTooShort
        return min(remaining, self.max_deadline_s)

    def _known(self, auth: Mapping[str, Iterable[bytes]]) -> Caller:
        """Return who the certificate stands for.

        Raises:
            RoleRequired: Nobody we know (detail `identity_unknown`).
        """
        found = self.directory.find(auth)
        if found is None:
            raise RoleRequired("the certificate is of nobody we know", detail="identity_unknown")
        return found

    async def _refuse(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        fault: BaseException,
        seen: CallSight,
    ) -> None:
        """Abort with the status of the fault; what nobody foresaw says nothing but a trace id."""
        if isinstance(fault, (grpc.aio.AbortError, GeneratorExit)):
            raise fault
        if isinstance(fault, asyncio.CancelledError):
            seen.ended("CANCELLED", "CANCELLED")
            raise fault
        if isinstance(fault, TimeoutError):
            fault = DeadlineTooShort("the deadline passed while the call was served")
        if isinstance(fault, LetheError):
            status = to_status(fault)
            seen.ended(grpc_code(status), fault.code)
        else:
            status = unexpected(seen.trace_id)
            seen.failed(type(fault).__name__, _place(fault))
        await context.abort_with_status(rpc_status.to_status(status))


def grpc_code(status: status_pb2.Status) -> str:
    """Return the name of a status's code."""
    return next(code.name for code in grpc.StatusCode if code.value[0] == status.code)


def _place(fault: BaseException) -> str:
    """Return where a fault was raised as `file:line`, without its message: that may quote input."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}" if trace else ""


def _said_timeout_s(context: grpc.aio.ServicerContext[Any, Any]) -> float | None:
    """Return the seconds that the metadata `lethe-timeout-ms` gives the call, or None."""
    for name, value in context.invocation_metadata() or ():
        if name == TIMEOUT_METADATA and isinstance(value, str) and _MILLISECONDS.fullmatch(value):
            return int(value) / 1000
    return None


def _need_tls(auth: Mapping[str, Iterable[bytes]]) -> None:
    """Refuse a call that came over anything older than TLS 1.3; see `gateway/__init__.py`.

    Raises:
        RoleRequired: It did (detail `tls_version`).
    """
    if TLS not in auth.get("ssl_tls_version", ()):
        raise RoleRequired("calls are taken over TLS 1.3 only", detail="tls_version")


def _checked(request: Any) -> Any:
    """Check a message, or each message of a stream, against the rules of its schema."""
    return (
        _each_checked(request)
        if inspect.isasyncgen(request) or hasattr(request, "__aiter__")
        else _check(request)
    )


async def _each_checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _check(request)


def _check(message: Any) -> Any:
    """Return the message if it keeps the rules; one that nobody will read comes unparsed, and passes.

    Raises:
        MessageInvalid: It does not; fields and rules are named, values are not.
    """
    if isinstance(message, bytes):
        return message
    violations = protovalidate.collect_violations(message)
    if violations:
        raise MessageInvalid(
            "the message breaks a rule of its schema",
            violations=tuple((_path(v.proto.field), v.proto.rule_id) for v in violations),
        )
    return message


def _path(field: Any) -> str:
    return ".".join(element.field_name for element in field.elements)
