"""The only table from refusals to gRPC codes, and the only maker of error details (AIP-193)."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway import errors

DOMAIN = "lethe.dev"

CODES: dict[type[errors.LetheError], grpc.StatusCode] = {
    errors.PolicyDenied: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MarkingUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.NoticeUnknown: grpc.StatusCode.NOT_FOUND,
    errors.SubjectUnknown: grpc.StatusCode.NOT_FOUND,
    errors.SubjectBlocked: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ObjectExpired: grpc.StatusCode.FAILED_PRECONDITION,
    errors.HoldActive: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ImageRejected: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PayloadTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.IdempotencyConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.BackendUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.BackendProtocol: grpc.StatusCode.INTERNAL,
    errors.BackendRetentionTooLong: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ResidencyNoTarget: grpc.StatusCode.FAILED_PRECONDITION,
    errors.JobCancelled: grpc.StatusCode.CANCELLED,
    errors.AuditUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.KeyServiceUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DiskReserve: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.PolicyUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.PreviewStale: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SecondPersonRequired: grpc.StatusCode.PERMISSION_DENIED,
    errors.IdentityRequired: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MandateRequired: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ExtensionRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RoleRequired: grpc.StatusCode.PERMISSION_DENIED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineRequired: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DeadlineTooShort: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.MessageInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.MethodNotBuilt: grpc.StatusCode.UNIMPLEMENTED,
    errors.FactUnknown: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ScrubberUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.PromptRejected: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TrainingOff: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeidentificationRequired: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StateConflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InputLost: grpc.StatusCode.DATA_LOSS,
    errors.ZeroRetention: grpc.StatusCode.FAILED_PRECONDITION,
}

RETRY_AFTER_S: dict[type[errors.LetheError], int] = {
    errors.BackendUnavailable: 2,
    errors.AuditUnavailable: 1,
    errors.KeyServiceUnavailable: 2,
    errors.StoreUnavailable: 2,
    errors.PolicyUnavailable: 5,
    errors.ScrubberUnavailable: 2,
    errors.RateLimited: 1,
    errors.DiskReserve: 30,
}


def to_status(refusal: errors.LetheError) -> status_pb2.Status:
    """Return the `google.rpc.Status` of a refusal, with its `ErrorInfo` and what else applies."""
    code = CODES[_listed(type(refusal))]
    metadata = dict(refusal.metadata)
    if refusal.detail:
        metadata["detail"] = refusal.detail
    details = [error_details_pb2.ErrorInfo(reason=refusal.code, domain=DOMAIN, metadata=metadata)]
    packed = [_any(detail) for detail in details]
    if isinstance(refusal, (errors.MessageInvalid, errors.PolicyDenied)) and refusal.violations:
        faults = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=rule, reason=refusal.code)
            for field, rule in refusal.violations
        ]
        packed.append(_any(error_details_pb2.BadRequest(field_violations=faults)))
    pause = RETRY_AFTER_S.get(_listed(type(refusal)))
    if pause is not None:
        packed.append(_any(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=pause))))
    return status_pb2.Status(code=code.value[0], message=str(refusal), details=packed)


def unexpected(trace_id: str) -> status_pb2.Status:
    """Return what a caller learns of a fault that no class describes: nothing but a trace id."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"trace_id": trace_id})
    return status_pb2.Status(code=code_pb2.INTERNAL, message="internal error", details=[_any(info)])


def _listed(kind: type[errors.LetheError]) -> type[errors.LetheError]:
    """Return the nearest class that the table lists."""
    for candidate in kind.__mro__:
        if candidate in CODES:
            return candidate
    raise KeyError(kind)


def _any(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type] # any protobuf message
    return packed
