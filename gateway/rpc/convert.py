"""From messages to domain values and back.  Malformed input was refused before; nothing here decides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from lethe.v1 import (
    audit_pb2,
    backend_pb2,
    common_pb2,
    consent_pb2,
    dsr_pb2,
    generation_pb2,
    notice_pb2,
    retention_pb2,
    subject_pb2,
    tenant_pb2,
)

from gateway import contract
from gateway.errors import MessageInvalid
from gateway.flows.audit import Wish
from gateway.flows.consent import ConsentDraft
from gateway.flows.notice import NoticeDraft, content_sha256
from gateway.flows.register import Figures
from gateway.flows.retention import Due
from gateway.flows.upload import JobOrder
from gateway.holdings import Held
from gateway.ledger import Receipt
from gateway.people import Guardian, Profile
from gateway.ports.inference import BackendFacts
from gateway.ports.records import Consent, Debt, Dsr, Hold, Job, Leaf, Notice, StoredObject, Subject
from policy.consent import Decision
from policy.consent_state import state_at
from policy.places import is_place
from policy.recipients import SETTLED
from policy.retention import Line
from policy.terms import Purpose

_BANDS = {
    subject_pb2.AGE_BAND_UNDER_13: "lt13",
    subject_pb2.AGE_BAND_13_TO_15: "13-15",
    subject_pb2.AGE_BAND_16_TO_17: "16-17",
    subject_pb2.AGE_BAND_ADULT: "adult",
}
_FLAGS = ("separate", "presented_separately", "highlighted", "condition_of_service", "two_step_confirmed")


def bare(name: str) -> str:
    """Return the id in a resource name: `jobs/1a` -> `1a`."""
    return name.partition("/")[2]


def instant(stamp: Timestamp) -> datetime:
    """Return a timestamp as an aware instant in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def maybe_instant(message: object, field: str) -> datetime | None:
    """Return a timestamp field, or None where it is absent."""
    return instant(getattr(message, field)) if message.HasField(field) else None  # type: ignore[attr-defined] # any message


def stamp(moment: datetime) -> Timestamp:
    """Return an instant as a timestamp."""
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def purpose_code(value: common_pb2.Purpose.ValueType) -> str:
    """Return `generate` for PURPOSE_GENERATE."""
    return common_pb2.Purpose.Name(value).removeprefix("PURPOSE_").lower()


def purpose_value(code: str) -> common_pb2.Purpose.ValueType:
    """Return PURPOSE_GENERATE for `generate`."""
    return common_pb2.Purpose.Value(f"PURPOSE_{code.upper()}")


def kind_code(value: common_pb2.DataKind.ValueType) -> str:
    """Return `original` for DATA_KIND_ORIGINAL."""
    return common_pb2.DataKind.Name(value).removeprefix("DATA_KIND_").lower()


def profile_code(value: common_pb2.FaceProfile.ValueType) -> str:
    """Return `landmarks` for FACE_PROFILE_LANDMARKS; empty where it is not said."""
    return common_pb2.FaceProfile.Name(value).removeprefix("FACE_PROFILE_").lower() if value else ""


def profile_value(code: str) -> common_pb2.FaceProfile.ValueType:
    """Return FACE_PROFILE_LANDMARKS for `landmarks`; a code of before there were profiles is not said."""
    known = common_pb2.FaceProfile.DESCRIPTOR.values_by_name.get(f"FACE_PROFILE_{code.upper()}")
    return common_pb2.FACE_PROFILE_UNSPECIFIED if known is None else common_pb2.FaceProfile.Value(known.name)


def receipt(given: Receipt | None) -> common_pb2.AuditReceipt | None:
    """Return a receipt's message, or None."""
    if given is None:
        return None
    return common_pb2.AuditReceipt(origin=given.origin, event_id=given.event_id, leaf_hash=given.leaf_hash)


def job_order(header: generation_pb2.JobHeader) -> JobOrder:
    """Return what an upload's header asks for.

    Raises:
        MessageInvalid: Other people are depicted: releases are not built yet.
    """
    if any(depicted.WhichOneof("who") == "other" for depicted in header.depicted):
        raise MessageInvalid(
            "pictures of other people are not taken yet",
            violations=(("header.depicted", "depicted.not_built"),),
        )
    return JobOrder(
        subject_id=bare(header.subject),
        is_uploader=all(depicted.is_subject for depicted in header.depicted),
        purpose=purpose_code(header.purpose),
        notice_id=bare(header.notice),
        style=header.parameters.style,
        prompt=header.parameters.prompt,
        backend_hint=header.backend_hint,
        request_id=header.request_id,
    )


def job(record: Job) -> generation_pb2.Job:
    """Return a job's message; whose job it is stays out of it."""
    failure = None
    if record.reason:
        failure = generation_pb2.Job.Failure(reason=record.reason, detail=record.detail)
    return generation_pb2.Job(
        name=f"jobs/{record.job_id}",
        purpose=purpose_value(record.purpose),
        state=generation_pb2.Job.State.Value(f"STATE_{record.state.upper()}"),
        percent=record.percent,
        stage=record.stage,
        backend=f"backends/{record.backend}",
        input_object=f"objects/{record.input_object}",
        result_object=f"objects/{record.result_object}" if record.result_object else "",
        failure=failure,
        create_time=stamp(record.created_at),
        update_time=stamp(record.updated_at),
        expire_time=stamp(record.expires_at),
    )


def result_header(stored: StoredObject) -> generation_pb2.ResultHeader:
    """Return what is said of a result before its bytes."""
    return generation_pb2.ResultHeader(
        object=f"objects/{stored.object_id}",
        image_type=stored.image_type,
        size_bytes=stored.size_bytes,
        width=stored.width,
        height=stored.height,
        expire_time=stamp(stored.expires_at),
    )


def package_header(stored: StoredObject) -> dsr_pb2.PackageHeader:
    """Return what is said of a package before its bytes."""
    return dsr_pb2.PackageHeader(
        object=f"objects/{stored.object_id}",
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        expire_time=stamp(stored.expires_at),
    )


def profile(message: subject_pb2.Subject) -> Profile:
    """Return what a message tells of a subject.

    Raises:
        MessageInvalid: It names a place that ISO 3166 does not know.
    """
    for field in ("residence", "location"):
        if getattr(message, field) and not is_place(getattr(message, field)):
            raise MessageInvalid("no such place", violations=((f"subject.{field}", "place.unknown"),))
    guardian = None
    if message.HasField("guardian"):
        guardian = Guardian(message.guardian.verified_method, message.guardian.relation)
    return Profile(
        subject_id=bare(message.name),
        residence=message.residence,
        location=message.location,
        birth_year=message.birth_year,
        age_band=_BANDS.get(message.age_band, ""),
        guardian=guardian,
    )


def subject(record: Subject, known: Profile) -> subject_pb2.Subject:
    """Return a subject's message."""
    made = subject_pb2.Subject(
        name=f"subjects/{known.subject_id}",
        residence=known.residence,
        location=known.location,
        state=subject_pb2.Subject.State.Value(f"STATE_{record.state.upper()}"),
        create_time=stamp(record.created_at),
        update_time=stamp(record.updated_at),
    )
    if known.birth_year:
        made.birth_year = known.birth_year
    elif known.age_band:
        made.age_band = next(band for band, code in _BANDS.items() if code == known.age_band)
    if known.guardian is not None:
        made.guardian.verified_method = known.guardian.verified_method
        made.guardian.relation = known.guardian.relation
    return made


def stored_data(held: Held) -> subject_pb2.StoredData:
    """Return one thing that is held."""
    return subject_pb2.StoredData(
        name=held.name,
        key_class=held.cls,
        kind=held.kind,
        purpose=held.purpose,
        size_bytes=held.size_bytes,
        expire_time=stamp(held.expires_at) if held.expires_at else None,
        rule=held.rule,
    )


def term(line: Line) -> retention_pb2.RetentionRule:
    """Return one line of the retention schedule."""
    made = retention_pb2.RetentionRule(
        term=line.at_most,
        rule="; ".join(line.citations),
        regime=line.pack.upper(),
        item=line.kind,
        at_least=line.at_least,
    )
    made.kind = _data_kind(line.kind)
    if line.purpose is not None:
        made.purpose = purpose_value(line.purpose.value)
    return made


def _data_kind(kind: str) -> common_pb2.DataKind.ValueType:
    """Return the value of a kind of data that is collected; a package is none."""
    known = common_pb2.DataKind.DESCRIPTOR.values_by_name.get(f"DATA_KIND_{kind.upper()}")
    return common_pb2.DATA_KIND_UNSPECIFIED if known is None else common_pb2.DataKind.Value(known.name)


def due(found: Due) -> retention_pb2.DueItem:
    """Return something that is due."""
    return retention_pb2.DueItem(
        object=f"objects/{found.stored.object_id}",
        kind=_data_kind(found.stored.kind),
        expire_time=stamp(found.stored.expires_at),
        hold=f"holds/{found.hold_id}" if found.hold_id else "",
    )


def hold(record: Hold, subject_id: str) -> retention_pb2.Hold:
    """Return a hold, with its subject's name where there still is one."""
    return retention_pb2.Hold(
        name=f"holds/{record.hold_id}",
        subject=f"subjects/{subject_id}" if subject_id else "",
        rule=record.rule,
        create_time=stamp(record.placed_at),
        retain_until_time=stamp(record.until) if record.until else None,
        key_classes=record.classes,
        dsr=f"dsrs/{record.dsr_id}" if record.dsr_id else "",
    )


def debt(record: Debt) -> retention_pb2.Debt:
    """Return what is owed."""
    return retention_pb2.Debt(
        kind=retention_pb2.Debt.Kind.Value(f"KIND_{record.kind.upper()}"),
        item=record.item,
        dsr=f"dsrs/{record.about}" if record.about else "",
        tries=record.tries,
        reason=record.code,
        create_time=stamp(record.since),
        retry_time=stamp(record.retry_at) if record.retry_at else None,
    )


def notice_draft(message: notice_pb2.Notice, request_id: str) -> NoticeDraft:
    """Return the notice to publish."""
    return NoticeDraft(
        notice_id=bare(message.name),
        language=message.language,
        title=message.title,
        body=message.text,
        purposes=tuple(sorted(purpose_code(value) for value in message.purposes)),
        shown={
            "retention_term": message.retention_term,
            "recipients": list(message.recipients),
            "transfer_countries": list(message.transfer_countries),
            "withdrawal_method": message.withdrawal_method,
            "layers": [{"title": layer.title, "text": layer.text} for layer in message.layers],
            # Left out where empty: versions from before there was the field keep their digest.
            **({"serves": sorted(message.serves)} if message.serves else {}),
        },
        request_id=request_id,
    )


def notice(record: Notice) -> notice_pb2.Notice:
    """Return a notice's message."""
    return notice_pb2.Notice(
        name=f"notices/{record.notice_id}",
        version=record.version,
        language=record.language,
        title=record.title,
        text=record.body,
        purposes=[purpose_value(code) for code in record.purposes],
        sha256=record.sha256,
        publish_time=stamp(record.published_at),
        content_sha256=content_sha256(record),
        layers=[
            notice_pb2.NoticeLayer(
                title=layer["title"],
                text=layer["text"],
                sha256=hashlib.sha256(layer["text"].encode()).hexdigest(),
            )
            for layer in record.shown.get("layers", ())
        ],
        **{name: said for name, said in record.shown.items() if name != "layers"},
    )


def consent_draft(message: consent_pb2.Consent, request_id: str) -> ConsentDraft:
    """Return the consent to record."""
    return ConsentDraft(
        subject_id=bare(message.subject),
        purpose=purpose_code(message.purpose),
        form=consent_pb2.Consent.Form.Name(message.form).removeprefix("FORM_").lower(),
        flags=tuple(flag for flag in _FLAGS if getattr(message, flag)),
        notice_id=bare(message.notice),
        notice_version=message.notice_version,
        notice_language=message.notice_language,
        notice_sha256=message.notice_sha256,
        given_at=maybe_instant(message, "give_time"),
        expires_at=maybe_instant(message, "expire_time"),
        given_by=message.by,
        via=message.via,
        term_shown=message.term_shown,
        evidence={
            "act": consent_pb2.Consent.Act.Name(message.act).removeprefix("ACT_").lower(),
            "channel": message.channel,
            "ui_version": message.ui_version,
            "signature": message.signature.hex(),
            "withdrawal_method_shown": message.withdrawal_method_shown,
            "controller_shown": message.controller_shown,
            "data_categories": [kind_code(kind) for kind in message.data_categories],
            "recipients_shown": list(message.recipients_shown),
            "transfer_countries_shown": list(message.transfer_countries_shown),
            "age_evidence": message.age_evidence,
            "guardian": _guardian(message),
        },
        request_id=request_id,
    )


def _guardian(message: consent_pb2.Consent) -> dict[str, str] | None:
    """Return how a guardian's consent was established, or None where the subject consented."""
    if message.by != "guardian" and not message.HasField("guardian"):
        return None
    verified_at = maybe_instant(message.guardian, "verify_time")
    return {
        "relation": message.guardian.relation,
        "verified_method": message.guardian.verified_method,
        "verified_at": verified_at.isoformat() if verified_at else "",
    }


def consent(record: Consent, now: datetime, subject_id: str = "") -> consent_pb2.Consent:
    """Return a consent's message as it stands now; sealed evidence stays sealed."""
    made = consent_pb2.Consent(
        name=f"consents/{record.consent_id}",
        subject=f"subjects/{subject_id}" if subject_id else "",
        purpose=purpose_value(record.purpose),
        form=consent_pb2.Consent.Form.Value(f"FORM_{record.form.upper()}"),
        notice=f"notices/{record.notice_id}",
        notice_version=record.notice_version,
        notice_language=record.notice_language,
        notice_sha256=record.notice_sha256,
        via=record.via,
        by=record.given_by,
        term_shown=record.term_shown,
        give_time=stamp(record.given_at),
        expire_time=stamp(record.expires_at) if record.expires_at else None,
        withdraw_time=stamp(record.withdrawn_at) if record.withdrawn_at else None,
        superseded_by=f"consents/{record.superseded_by}" if record.superseded_by else "",
        regimes=record.regimes,
        withdraw_channel=record.withdrawn_via,
        state=consent_pb2.Consent.State.Value(
            f"STATE_{state_at(record.state, record.expires_at, now).upper()}"
        ),
        renew_time=stamp(record.renew_at) if record.renew_at else None,
        receipt=f"receipts/{record.receipt_id}" if record.receipt_id else "",
    )
    for flag in set(record.flags) & set(_FLAGS):
        setattr(made, flag, True)
    return made


def decision(made: Decision) -> consent_pb2.Decision:
    """Return a decision's message."""
    return consent_pb2.Decision(
        allowed=made.allowed,
        reason_code=made.reason_code,
        deciding_pack=made.deciding_pack,
        citations=made.citations,
        policy=[common_pb2.PolicyRef(id=pack, sha256=digest) for pack, digest in made.policy],
        layer=made.layer,
    )


def dsr(record: Dsr, methods: tuple[str, ...] = ()) -> dsr_pb2.Dsr:
    """Return a request's message; whose request it is stays out of it.  `methods` would show who asks."""
    return dsr_pb2.Dsr(
        name=f"dsrs/{record.dsr_id}",
        kind=dsr_pb2.Dsr.Kind.Value(f"KIND_{record.kind.upper()}"),
        regime=record.regime,
        state=dsr_pb2.Dsr.State.Value(f"STATE_{record.state.upper()}"),
        receive_time=stamp(record.received_at),
        due_date=record.due_on,
        extended_due_date=record.extended_due_on,
        target_date=record.internal_target_on,
        reason_code=record.reason_code,
        certificate=f"certificates/{record.certificate_id}" if record.certificate_id else "",
        step=record.step,
        ack_date=record.ack_on,
        extend_time=stamp(record.extended_at) if record.extended_at else None,
        extension_reason=record.extension_reason,
        verified_by=record.verified_by,
        verification_failures=record.failures,
        sufficient_methods=methods,
        mandate=record.mandate,
        duplicate_of=f"dsrs/{record.duplicate_of}" if record.duplicate_of else "",
        about=f"dsrs/{record.about}" if record.about else "",
        purposes=map(purpose_value, record.purposes),
        policy=[
            common_pb2.PolicyRef(id=pack, sha256=record.policy[pack])
            # The invoked one first, whatever order the database gave them back in.
            for pack in sorted(record.policy, key=lambda pack: (pack != record.regime, pack))
        ],
        outcome=record.outcome,
        answer_time=stamp(record.answered_at) if record.answered_at else None,
        pause_time=(
            stamp(datetime.fromisoformat(record.clock["asked_at"])) if "asked_at" in record.clock else None
        ),
        refused_parts=[
            dsr_pb2.RefusedPart(
                part=part if part in set(Purpose) else f"objects/{part}",
                reason_code=record.refused_parts[part],
            )
            for part in sorted(record.refused_parts)
        ],
        recipients=[propagation(code, record.recipients[code]) for code in sorted(record.recipients)],
        recipients_unconfirmed=sum(one["state"] not in SETTLED for one in record.recipients.values()),
    )


def recipient(code: str, known: Mapping[str, Any]) -> tenant_pb2.Recipient:
    """Return a recipient's message."""
    return tenant_pb2.Recipient(
        name=f"recipients/{code}",
        title=known["name"],
        role=tenant_pb2.Recipient.Role.Value(f"ROLE_{known['role'].upper()}"),
        country=known["country"],
        channel=known["channel"],
    )


def propagation(code: str, entry: Mapping[str, Any]) -> dsr_pb2.Propagation:
    """Return the message of how far a recipient of a request is."""

    def at(name: str) -> Timestamp | None:
        return stamp(datetime.fromisoformat(entry[name])) if name in entry else None

    return dsr_pb2.Propagation(
        recipient=recipient(code, entry),
        state=dsr_pb2.Propagation.State.Value(f"STATE_{entry['state'].upper()}"),
        ground=entry.get("ground", ""),
        tell_time=at("told_at"),
        acknowledge_time=at("acknowledged_at"),
    )


def figures(counted: Figures) -> dsr_pb2.GetFiguresResponse.Figures:
    """Return the message of what became of the requests of one kind."""
    return dsr_pb2.GetFiguresResponse.Figures(
        kind=dsr_pb2.Dsr.Kind.Value(f"KIND_{counted.kind.upper()}"),
        received=counted.received,
        complied=counted.complied,
        complied_in_part=counted.complied_in_part,
        denied=counted.denied,
        cancelled=counted.cancelled,
        open=counted.open,
        recipients_confirmed=counted.recipients_confirmed,
        recipients_unconfirmed=counted.recipients_unconfirmed,
        median_days=counted.median_days,
    )


def event(leaf: Leaf) -> audit_pb2.Event:
    """Return a leaf's message."""
    return audit_pb2.Event(
        index=leaf.seq or 0,
        event_id=leaf.event_id,
        type=leaf.ty,
        event_time=stamp(leaf.queued_at),
        leaf=leaf.line,
        leaf_hash=leaf.leaf_hash,
    )


def backend(name: str, kind: str, facts: BackendFacts | None) -> backend_pb2.Backend:
    """Return what holds of a backend, or that it does not answer."""
    if facts is None:
        return backend_pb2.Backend(name=f"backends/{name}", reachable=False, kind=kind)
    return backend_pb2.Backend(
        name=f"backends/{name}",
        reachable=True,
        kind=kind,
        version=facts.version,
        device=facts.device,
        model_digest=facts.model_digest,
        styles=facts.styles,
        region=facts.region,
        retention_seconds=facts.retention_s,
        trains_on_inputs=facts.trains_on_inputs,
        template_extracted=facts.template_extracted,
        supports_cancel=facts.supports_cancel,
        supports_forget=facts.supports_forget,
        operator=facts.operator,
        output_retention_seconds=facts.output_retention_s,
        contracted=facts.is_contracted,
        contract=contract.text(facts).decode(),
        contract_digest=contract.digest(facts),
    )


def wish(request: audit_pb2.ExportRequest) -> Wish:
    """Return which export is asked for."""

    def milliseconds(name: str) -> int | None:
        at = maybe_instant(request, name)
        return None if at is None else int(at.timestamp() * 1000)

    return Wish(
        start=request.from_index,
        end=request.to_index,
        size=request.checkpoint_size,
        previous=request.previous_size,
        types=tuple(sorted(set(request.types))),
        from_ms=milliseconds("start_time"),
        until_ms=milliseconds("end_time"),
        complete=request.complete,
        disclosed=tuple(sorted(set(request.disclosed_classes))),
        expires_ms=milliseconds("expire_time"),
        recipient=request.recipient or "auditor",
        purpose=request.purpose or "audit",
    )
