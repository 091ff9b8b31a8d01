"""Refusals in domain words.

Each class is one reason of the contract; it is raised where it is noticed and
translated once, in `gateway.rpc.status`.  Messages and details carry codes and
numbers, never a person's data.
"""

from __future__ import annotations

from typing import ClassVar


class LetheError(Exception):
    """A refusal or failure that the caller is told about.

    `reason` is the machine-readable word of the contract, `detail` narrows it
    (`IMAGE_REJECTED` / `truncated`), `metadata` holds further codes.
    """

    reason: ClassVar[str] = ""

    def __init__(self, message: str = "", *, detail: str = "", **metadata: str) -> None:
        """Say what happened, in words without personal data."""
        super().__init__(message or (self.__doc__ or "").split("\n", 1)[0])
        self.detail = detail
        self.metadata = metadata

    @property
    def code(self) -> str:
        """The machine-readable word that leaves on the wire and enters the log."""
        return self.reason


class PolicyDenied(LetheError):
    """Policy does not permit the processing."""

    reason = "DENY"

    def __init__(
        self,
        reason_code: str,
        *,
        pack: str,
        citations: tuple[str, ...] = (),
        violations: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Keep the `DENY_*` code, the pack that decided, its citations, and the fields that fall short."""
        super().__init__(f"policy refuses: {reason_code}")
        self._code = reason_code
        self.violations = violations
        self.metadata = {"deciding_pack": pack, "citations": "; ".join(citations)}

    @property
    def code(self) -> str:
        """The `DENY_*` code of the rule that decided."""
        return self._code


class MarkingUnavailable(LetheError):
    """The result cannot be marked as artificial, so there is none."""

    reason = "MARKING_UNAVAILABLE"


class NoticeUnknown(LetheError):
    """No such notice was published."""

    reason = "NOTICE_UNKNOWN"


class SubjectUnknown(LetheError):
    """No such subject is known to this controller."""

    reason = "SUBJECT_UNKNOWN"


class SubjectBlocked(LetheError):
    """The subject is being erased, was erased, or is blocked."""

    reason = "SUBJECT_BLOCKED"


class ObjectExpired(LetheError):
    """The object's term is over."""

    reason = "OBJECT_EXPIRED"


class HoldActive(LetheError):
    """A legal hold forbids the destruction."""

    reason = "HOLD_ACTIVE"


class ImageRejected(LetheError):
    """The bytes are not an image that may be processed."""

    reason = "IMAGE_REJECTED"


class PayloadTooLarge(LetheError):
    """More bytes than the configured limit."""

    reason = "PAYLOAD_TOO_LARGE"


class IdempotencyConflict(LetheError):
    """The request_id was used before with other content."""

    reason = "IDEMPOTENCY_CONFLICT"


class BackendUnavailable(LetheError):
    """No inference backend can take the job."""

    reason = "BACKEND_UNAVAILABLE"


class BackendProtocol(LetheError):
    """The inference backend broke its contract."""

    reason = "BACKEND_PROTOCOL"


class BackendRetentionTooLong(LetheError):
    """The backend keeps what it is sent for longer than the rules allow."""

    reason = "BACKEND_RETENTION_TOO_LONG"


class ResidencyNoTarget(LetheError):
    """No backend runs where the laws that protect the person let the picture go."""

    reason = "RESIDENCY_NO_TARGET"


class JobCancelled(LetheError):
    """The job was cancelled."""

    reason = "JOB_CANCELLED"


class AuditUnavailable(LetheError):
    """The audit log cannot take the event, so nothing is done."""

    reason = "AUDIT_UNAVAILABLE"


class KeyServiceUnavailable(LetheError):
    """The key service does not answer, so nothing is opened or sealed."""

    reason = "KEY_SERVICE_UNAVAILABLE"


class StoreUnavailable(LetheError):
    """The records or the object store do not answer."""

    reason = "STORE_UNAVAILABLE"


class DiskReserve(LetheError):
    """Free space is below the reserve; nothing was written."""

    reason = "DISK_RESERVE"


class PolicyUnavailable(LetheError):
    """The rule book cannot answer, so nothing is permitted."""

    reason = "POLICY_UNAVAILABLE"


class PreviewStale(LetheError):
    """What is held has changed since the preview, or the approval names none; `detail` says which."""

    reason = "PREVIEW_STALE"


class SecondPersonRequired(LetheError):
    """The approver must be another person than the one who opened the request."""

    reason = "SECOND_PERSON_REQUIRED"


class IdentityRequired(LetheError):
    """Who asks is not sure enough for what is asked; `needed` and `methods` name what would do."""

    reason = "IDENTITY_REQUIRED"


class MandateRequired(LetheError):
    """An agent showed nothing by which they may act for the subject; `mandates` names what would do."""

    reason = "MANDATE_REQUIRED"


class ExtensionRefused(LetheError):
    """The time for an answer cannot be extended; `detail` says why."""

    reason = "EXTENSION_REFUSED"


class RoleRequired(LetheError):
    """The caller's role does not permit the method."""

    reason = "ROLE_REQUIRED"


class RateLimited(LetheError):
    """Too many requests are in flight; try again later."""

    reason = "RATE_LIMITED"


class DeadlineRequired(LetheError):
    """The call carries no deadline."""

    reason = "DEADLINE_REQUIRED"


class DeadlineTooShort(LetheError):
    """The deadline has passed or leaves no time for the work."""

    reason = "DEADLINE_TOO_SHORT"


class MessageInvalid(LetheError):
    """The message breaks a rule of its schema.

    `violations` lists (field path, rule id); values are left out on purpose.
    """

    reason = "MESSAGE_INVALID"

    def __init__(
        self, message: str = "", *, violations: tuple[tuple[str, str], ...] = (), detail: str = ""
    ) -> None:
        """Name the fields at fault."""
        super().__init__(message, detail=detail)
        self.violations = violations


class NotFound(LetheError):
    """No such resource; a resource of another tenant answers the same."""

    reason = "NOT_FOUND"


class MethodNotBuilt(LetheError):
    """The method is part of the contract and not built yet."""

    reason = "METHOD_NOT_BUILT"


class FactUnknown(LetheError):
    """A fact key that no rule knows."""

    reason = "FACT_UNKNOWN"


class ScrubberUnavailable(LetheError):
    """The scrubber cannot be run, so no image is taken."""

    reason = "SCRUBBER_UNAVAILABLE"


class PromptRejected(LetheError):
    """Free text cannot be forwarded."""

    reason = "PROMPT_REJECTED"


class TrainingOff(LetheError):
    """Training sets are not switched on for this controller."""

    reason = "TRAINING_OFF"


class DeidentificationRequired(LetheError):
    """What is done about faces is not what the purpose asks for, or a regime asks for more than that."""

    reason = "DEIDENTIFICATION_REQUIRED"


class StateConflict(LetheError):
    """The resource is not in a state that allows this."""

    reason = "STATE_CONFLICT"


class LeaseLost(StateConflict):
    """Another worker has taken the work over, or it has ended."""


class ZeroRetention(LetheError):
    """This controller keeps no picture: only `Generate` takes one, and gives the result back at once."""

    reason = "ZERO_RETENTION"


class InputLost(LetheError):
    """The job's input is gone, so the job cannot be finished."""

    reason = "INPUT_LOST"
