"""Which event is evidence for which control.

An event shows what happened; whether a control is met is for whoever audits it
to say.  Citations are to the texts in force; ISO/IEC 27701 is cited by the
numbers of 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Control:
    """A control, and the event types that are evidence for it.

    Attributes:
        key: Its anchor in the page.
        asks: What the text asks for, in our words.
        detail: The tables shown under it (`audit.views.sections`).
        see: Controls under which more of its evidence is shown.
    """

    key: str
    law: str
    title: str
    asks: str
    types: tuple[str, ...]
    detail: tuple[str, ...] = ()
    see: tuple[str, ...] = ()


_DSR = (
    "dsr.received",
    "dsr.verified",
    "dsr.partrefused",
    "dsr.paused",
    "dsr.resumed",
    "dsr.extended",
    "dsr.approved",
    "dsr.fulfilled",
    "dsr.refused",
    "dsr.cancelled",
)
_PACKAGES = ("package.made", "package.released")
_JOBS = ("job.created", "job.dispatched", "job.succeeded", "job.failed", "job.stopping", "job.cancelled")

CONTROLS = (
    Control(
        "gdpr-5-2",
        "GDPR Art. 5(2)",
        "Accountability",
        "Be able to demonstrate that the principles were kept: each decision, each reading of this log "
        "and each change to the log itself is an entry.",
        (
            "decision.made",
            "notice.published",
            "subject.upserted",
            "tenant.updated",
            "audit.read",
            "export.created",
            "backup.created",
            "backup.restored",
            "log.disputed",
            "log.pruned",
            "log.rekeyed",
            "log.keyrevoked",
        ),
        ("decisions",),
    ),
    Control(
        "gdpr-5-1-e",
        "GDPR Art. 5(1)(e)",
        "Storage limitation",
        "Keep data no longer than is necessary: every object is stored with the instant by which it is to be "
        "destroyed.",
        (
            "object.sealed",
            "object.transient",
            "object.destroyed",
            "hold.placed",
            "hold.released",
            "object.held",
            "object.freed",
            "object.stuck",
            "retention.swept",
            "record.expired",
            "payload.expired",
            "log.pruned",
            "backup.restored",
        ),
        ("deletions", "late"),
    ),
    Control(
        "gdpr-7",
        "GDPR Art. 7",
        "Conditions for consent",
        "Be able to demonstrate consent (7(1)); let it be withdrawn at any time, as easily as it was given "
        "(7(3)).",
        (
            "notice.published",
            "consent.recorded",
            "consent.renewal",
            "consent.withdrawn",
            "consent.invalidated",
            "object.kept",
            "signal.recorded",
            "decision.made",
            "dataset.added",
            "dataset.reduced",
        ),
        ("consents",),
    ),
    Control(
        "gdpr-15",
        "GDPR Art. 15",
        "Access by the data subject",
        "Answer requests without undue delay, within one month of receipt (12(3)); extend or refuse only "
        "with reasons.",
        (*_DSR, *_PACKAGES),
        ("clocks", "requests"),
    ),
    Control(
        "gdpr-17",
        "GDPR Art. 17",
        "Erasure",
        "Erase without undue delay when asked and nothing exempts; say what was kept, and by which rule.",
        (
            *_DSR,
            "subject.blocked",
            "erasure.incomplete",
            "subject.erased",
            "forget.ended",
            "object.destroyed",
            "payload.erased",
            "job.deleted",
            "job.cancelled",
            "backup.restored",
        ),
        ("erasures", "payloads"),
        see=("gdpr-15",),
    ),
    Control(
        "gdpr-18",
        "GDPR Art. 18, 21",
        "Restriction and objection",
        "Mark stored data so that it is not processed further; heed signals of objection.",
        ("subject.restricted", "subject.unrestricted", "subject.blocked", "signal.recorded"),
        see=("gdpr-15",),
    ),
    Control(
        "gdpr-19",
        "GDPR Art. 19",
        "Telling recipients",
        "Tell each recipient of an erasure, correction or restriction, unless that is impossible or takes "
        "disproportionate effort; backends are asked to forget, and answer themselves.",
        ("dsr.approved", "dsr.propagated", "forget.ended"),
        see=("gdpr-15", "gdpr-17"),
    ),
    Control(
        "gdpr-30",
        "GDPR Art. 30",
        "Records of processing",
        "Keep a record of purposes, categories, recipients and time limits; the full record is in "
        "article30.csv and article30.json beside this page.",
        (
            "notice.published",
            "image.scrubbed",
            "prompt.scrubbed",
            "object.sealed",
            "object.transient",
            *_JOBS,
            "result.released",
            "landmarks.released",
            "dataset.created",
            "dataset.completed",
            "dataset.released",
            "dataset.expired",
        ),
        ("processing",),
    ),
    Control(
        "aia-50",
        "AI Act (EU) 2024/1689 Art. 50(2)",
        "Marking of generated pictures",
        "Mark outputs in a machine-readable and detectable form. A watermark is put on by the backend, "
        "or was waived; each entry says which layers were demanded, and which waived.",
        ("image.marked", "job.succeeded", "result.released"),
    ),
    Control(
        "gdpr-33",
        "GDPR Art. 33, 34",
        "Breaches",
        "Document every breach (33(5)), tell the authority within 72 hours unless a risk is "
        "unlikely, and the persons concerned where the risk is high.",
        ("incident.recorded", "record.expired"),
    ),
    Control(
        "ccpa-7101",
        "CCPA, 11 CCR 7101",
        "Records of consumer requests",
        "Keep for at least 24 months the date and nature of each request and of its answer, and the basis of "
        "a denial.",
        (*_DSR, *_PACKAGES, "signal.recorded"),
        see=("gdpr-15",),
    ),
    Control(
        "ccpa-1798-105",
        "CCPA, Cal. Civ. Code 1798.105",
        "Right to delete",
        "Delete on a verifiable request, have service providers delete too, and name what is exempt.",
        (*_DSR, "dsr.propagated", "subject.erased", "object.destroyed", "payload.erased", "job.deleted"),
        see=("gdpr-15", "gdpr-17"),
    ),
    Control(
        "pipeda-4-1",
        "PIPEDA Sch. 1 cl. 4.1",
        "Accountability",
        "Answer for personal information under one's control, also where others process it (4.1.3).",
        ("decision.made", "job.dispatched", "access.refused", "audit.read", "export.created", *_DSR),
        see=("gdpr-5-2", "gdpr-15", "soc2-cc7-2"),
    ),
    Control(
        "soc2-cc7-2",
        "SOC 2 CC7.2",
        "Monitoring for anomalies",
        "Watch the system for anomalies that may be malicious acts, disasters or errors: whatever was "
        "refused or failed is an entry.",
        (
            "access.refused",
            "upload.refused",
            "landmarks.refused",
            "job.failed",
            "erasure.incomplete",
            "object.stuck",
            "audit.read",
            "key.rotated",
            "log.disputed",
            "log.rekeyed",
            "log.keyrevoked",
            "log.pruned",
        ),
        ("refusals",),
    ),
    Control(
        "iso27701-7-2",
        "ISO/IEC 27701 7.2.4, 7.2.8",
        "Consent and records",
        "Obtain and record consent by a documented process; keep records related to processing.",
        ("notice.published", "consent.recorded", "decision.made", "object.sealed"),
        see=("gdpr-7", "gdpr-30"),
    ),
    Control(
        "iso27701-7-3",
        "ISO/IEC 27701 7.3.4, 7.3.6, 7.3.9",
        "Obligations to people",
        "Provide ways to modify or withdraw consent, to access, correct and erase; handle requests.",
        (
            "consent.withdrawn",
            "subject.restricted",
            "subject.unrestricted",
            "subject.erased",
            *_DSR,
            *_PACKAGES,
        ),
        see=("gdpr-7", "gdpr-15", "gdpr-17"),
    ),
    Control(
        "iso27701-7-4",
        "ISO/IEC 27701 7.4.5, 7.4.7, 7.4.8",
        "De-identification, retention, disposal",
        "Remove what is not needed, keep no longer than necessary, and dispose by documented means.",
        (
            "image.scrubbed",
            "prompt.scrubbed",
            "object.destroyed",
            "job.deleted",
            "record.expired",
            "payload.erased",
            "payload.expired",
        ),
        see=("gdpr-5-1-e", "gdpr-17"),
    ),
)
"""In the order of the page."""

SAID: Mapping[str, str] = MappingProxyType(
    {
        "access.refused": "A call was refused by role, rate or form",
        "audit.read": "Somebody read this log",
        "backup.created": "A backup of records and objects was made",
        "backup.restored": "A backup was restored, and whatever had ended since was ended again",
        "consent.recorded": "A consent was given",
        "consent.invalidated": "A consent was found never to have been valid",
        "consent.renewal": "A consent is to be asked for anew, as its notice has changed",
        "consent.withdrawn": "A consent was withdrawn",
        "dataset.added": "A copy of a result went into a training set, by virtue of a consent to that",
        "dataset.completed": "A version of a training set was finished",
        "dataset.created": "A version of a training set was begun",
        "dataset.expired": "A training set came to its end",
        "dataset.reduced": "A picture left a training set; copies of the set that were given out are stale",
        "dataset.released": "A training set was handed out",
        "decision.made": "The rule books permitted or denied a step",
        "dsr.approved": "A request of a data subject was approved",
        "dsr.cancelled": "A request was cancelled by its maker",
        "dsr.extended": "The time for an answer to a request was extended, with a reason",
        "dsr.fulfilled": "A request of a data subject was answered",
        "dsr.partrefused": "A part of a request was refused, with a reason; the rest goes on",
        "dsr.paused": "A question to the person stopped the clock of a request",
        "dsr.propagated": "A recipient was told of a request, acknowledged it, or need not be told",
        "dsr.received": "A request of a data subject arrived; its clock runs",
        "dsr.refused": "A request was refused, with a reason",
        "dsr.resumed": "The person answered, and the clock of a request went on",
        "dsr.verified": "It was checked who makes a request",
        "erasure.incomplete": "After an erasure something was found that should be gone; no certificate yet",
        "export.created": "An export of this log was made",
        "forget.ended": "After an erasure a backend confirmed that it forgot, or is not asked any more",
        "hold.placed": "A legal hold was placed on what is kept of a person",
        "hold.released": "A legal hold was released, or came to its end",
        "image.marked": "A result was marked as artificial, by a signed manifest",
        "image.scrubbed": "Metadata was removed from an image, and heads masked as its purpose says",
        "prompt.scrubbed": "Personal data was replaced in a prompt",
        "incident.recorded": "A breach was entered in the register, or what was known of it later",
        "job.cancelled": "A generation job was cancelled",
        "job.created": "A generation job was accepted",
        "job.deleted": "A job and its results were deleted",
        "job.dispatched": "A job was forwarded to an inference backend",
        "job.failed": "A job failed",
        "job.stopping": "A job is being stopped",
        "job.succeeded": "A job succeeded",
        "key.rotated": "Subject keys were wrapped anew, and the keys that wrapped them destroyed",
        "landmarks.refused": "The abstract record of a picture was asked for and refused",
        "landmarks.released": "The abstract record of a picture was handed out: bins, and no face",
        "log.disputed": "A witness disputed the log's head, or answered with a false cosignature",
        "log.keyrevoked": "A retired signing key of the log is not believed any more from a size on",
        "log.pruned": "Old entries of the log are not kept any more; their hashes are",
        "log.rekeyed": "The log's signing keys changed",
        "notice.published": "A privacy notice was published",
        "object.destroyed": "An object's key and bytes were destroyed",
        "object.freed": "No hold stops an object's destruction any more",
        "object.held": "A legal hold stopped an object's destruction",
        "object.kept": "An object is kept by another consent than the one that ended",
        "object.sealed": "An object was encrypted and stored until a stated instant",
        "object.stuck": "The bytes of a destroyed object could not be removed; nothing opens them",
        "object.transient": "A picture was in memory only, until a stated instant at the latest",
        "package.made": "The package that answers a request for access or portability was made",
        "package.released": "A package was handed out",
        "payload.erased": "Sealed payloads of this log were destroyed by an erasure",
        "payload.expired": "Sealed payloads of this log were destroyed at the end of their term",
        "record.expired": "The record of a consent, request or breach reached its term",
        "result.released": "A result was handed out",
        "retention.swept": "An officer had everything destroyed at once whose term was over",
        "signal.recorded": "An opt-out signal was recorded",
        "subject.blocked": "Processing for a person was barred ahead of an erasure",
        "subject.erased": "A person was erased, and a certificate issued",
        "subject.restricted": "Processing for a person was restricted",
        "subject.unrestricted": "A restriction was lifted",
        "subject.upserted": "A person's facts were recorded or changed",
        "tenant.updated": "Facts of the controller were changed; decisions are made by them from then on",
        "upload.refused": "An upload was refused",
    }
)
"""Event type to what it says, for readers who do not know our names."""
