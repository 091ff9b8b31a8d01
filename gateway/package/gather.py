"""Gathers what is held of a person, from every holding, as one document and the files beside it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from audit import leaf as leaf_codec
from audit import proof, tree
from audit.note import Signer
from audit.payloads import Payload
from gateway import receipts
from gateway.controllers import ControllerFacts, Controllers
from gateway.errors import SubjectBlocked
from gateway.holdings import Held, Holdings, object_name, prompt_name
from gateway.ledger import Ledger
from gateway.logs import newest_checkpoint, tile_reader
from gateway.objects import backend_id
from gateway.package.answers import ANSWERS
from gateway.people import People, Person, Profile, evidence_binding
from gateway.ports.inference import BackendFacts
from gateway.ports.records import (
    Checkpoint,
    Consent,
    DatasetItem,
    Dsr,
    Hold,
    Job,
    Leaf,
    Notice,
    Record,
    Records,
    SealedPayload,
    Signal,
    StoredObject,
    Subject,
    SubjectKey,
    Transaction,
)
from gateway.receipts import Found
from gateway.vault.keys import open_column
from gateway.vault.payload import PayloadKey
from gateway.vault.safe import Safe
from policy.dsr import told
from policy.pack import Pack
from policy.terms import PACKAGE, DsrKind, Purpose

FORMAT = "lethe.dev/access-package/v1"
BATCH = 200
LIVE = ("live", "held")
"""The states of objects that are there."""
_SUFFIX = {"jpeg": "jpg"}

GATHERED: Mapping[type[Record], str] = {
    Subject: "subject",
    SubjectKey: "",  # a key says nothing of anyone; what it opens is here
    Consent: "consents",
    Signal: "signals",
    StoredObject: "images",
    Job: "jobs",
    Dsr: "requests",
    Hold: "holds",
    DatasetItem: "datasets",
    SealedPayload: "events",
}
"""Record kind with a subject to the part of the document that shows it; a test demands all of them."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A document, the small files beside it, and the pictures by the name of their file."""

    document: Mapping[str, Any]
    files: Mapping[str, bytes]
    pictures: Mapping[str, StoredObject]
    language: str


@dataclass(frozen=True, slots=True)
class Rows:
    """What the records hold of a person at one moment."""

    subject: Subject
    held: Sequence[Held]
    objects: Sequence[StoredObject]
    jobs: Sequence[Job]
    consents: Sequence[Consent]
    signal: Signal | None
    requests: Sequence[Dsr]
    holds: Sequence[Hold]
    items: Sequence[DatasetItem]


@dataclass(frozen=True, slots=True)
class Said:
    """An entry of the log about the person: the leaf, which seal is theirs, and its opening."""

    leaf: Leaf
    slot: int
    salt: bytes
    payload: bytes
    proof: str = ""

    @property
    def event(self) -> Mapping[str, Any]:
        """Return the leaf's fields."""
        return leaf_codec.decode(self.leaf.line)


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Reads a person's data from all holdings."""

    records: Records
    people: People
    holdings: Holdings
    packs: Mapping[str, Pack]
    controllers: Controllers
    ledger: Ledger
    safe: Safe
    backends: Callable[[], Mapping[str, BackendFacts]]
    signers: Mapping[str, tuple[Signer, ...]]
    random: Callable[[int], bytes] = os.urandom

    async def gather(self, dsr: Dsr, at: datetime) -> Gathered:
        """Return what a package for the request holds; portability has only what the person provided.

        Raises:
            SubjectBlocked: The subject is erased, or is being erased.
            KeyServiceUnavailable, StoreUnavailable: Something does not open now.
        """
        rows = await self.records.transact(partial(self._rows, dsr=dsr))
        profile = await self.people.open_profile(rows.subject)
        is_access = dsr.kind == DsrKind.ACCESS
        found = [one for one in rows.objects if one.kind != PACKAGE and (is_access or _provided(one, rows))]
        # What was refused of it is told of, and withheld.
        objects = [one for one in found if one.object_id not in dsr.refused_parts]
        withheld = [one for one in found if told(dsr.refused_parts.get(one.object_id, ""))]
        untold = {part for part, ground in dsr.refused_parts.items() if not told(ground)}
        hidden = {name for part in untold for name in (object_name(part), prompt_name(part))}
        # A copy in a training set is sealed once more under the set's key; `datasets` tells of it.
        pictures = _named([one for one in objects if one.purpose != Purpose.TRAIN])
        controller = await self.controllers.now(self.records, dsr.tenant)
        consents = {
            _receipt_name(n): await self._consent(c, at) for n, c in enumerate(rows.consents, start=1)
        }
        signed = await self._receipts(rows, profile, consents, controller, at)
        said = [one async for one in self._said(dsr)] if is_access else []
        document = {
            **self._frame(dsr, controller, at),
            "subject": _subject(profile),
            "images": [
                _image(name, stored, await self.safe.open_prompt(stored)) for name, stored in pictures.items()
            ],
            "withheld": [_withheld(one, dsr) for one in withheld],
            "consents": [
                {"file": name, "receipt": _signed_name(name) if name in signed else None, **record}
                for name, record in consents.items()
            ],
            "signals": _signal(rows.signal),
        }
        files = {name: as_json(record) for name, record in consents.items()}
        files |= {_signed_name(name): content for name, content in signed.items()}
        if is_access:
            since = _since(rows)
            document |= {
                "subject": {**_subject(profile), **_standing(rows.subject)},
                "held": [_held(held, since) for held in rows.held if held.name not in hidden],
                "jobs": [_job(job) for job in rows.jobs],
                "requests": [_request(asked) for asked in rows.requests],
                "holds": [_hold(hold) for hold in rows.holds],
                "datasets": [_item(item) for item in rows.items],
                "recipients": await self._recipients(dsr.tenant, rows, said),
                "events": [_event(one) for one in said],
            }
            for one in said:
                files |= _files_of(one)
        else:
            document["jobs"] = [_choice(job) for job in rows.jobs if job.is_uploader]
        return Gathered(document, files, pictures, _language(rows.consents))

    def _rows(self, tx: Transaction, dsr: Dsr) -> Rows:
        mine = {"tenant": dsr.tenant, "handle": dsr.handle}
        subject = tx.get(Subject, dsr.tenant, dsr.handle or "")
        if subject is None or subject.state == "blocked":
            raise SubjectBlocked
        objects = tx.find(
            StoredObject, equal=mine, among={"state": LIVE}, order_by=("created_at", "object_id")
        )
        return Rows(
            subject,
            self.holdings.locate(tx, dsr.tenant, subject.handle),
            objects,
            tx.find(Job, equal=mine, order_by=("created_at", "job_id")),
            [
                receipts.numbered(tx, consent, self.random)
                for consent in tx.find(Consent, equal=mine, order_by=("given_at", "consent_id"))
            ],
            next(iter(tx.find(Signal, equal=mine)), None),
            tx.find(Dsr, equal=mine, order_by=("received_at", "dsr_id")),
            tx.find(Hold, equal=mine, order_by=("placed_at", "hold_id")),
            tx.find(DatasetItem, equal=mine, order_by=("added_at", "item_id")),
        )

    def _frame(self, dsr: Dsr, controller: ControllerFacts, at: datetime) -> dict[str, Any]:
        pack = self.packs[dsr.regime]
        rights = [
            {"right": kind.value, "layer": right.available, "citations": list(pack.cited(right.cite))}
            for kind, right in pack.rules.rights.items()
            if right.available != "none"
        ]
        answers = ANSWERS.get(pack.id) if dsr.kind == DsrKind.ACCESS else None
        own = pack.cited(pack.rules.rights[DsrKind(dsr.kind)].cite)
        return {
            "format": FORMAT,
            "kind": dsr.kind,
            "law": {
                "id": pack.id,
                "title": pack.rules.pack.title,
                "authority": pack.rules.pack.regulator,
                "version": pack.version,
                "sha256": pack.digest,
            },
            "request": {"id": f"dsrs/{dsr.dsr_id}", "received_at": _iso(dsr.received_at)},
            "made_at": _iso(at),
            "controller": {
                "name": controller.name,
                "contact": controller.contact,
                "time_zone": controller.time_zone,
            },
            "rights": rights,
            "answers": {part: list(cites) for part, cites in (answers or {"copy": own}).items()},
        }

    async def _consent(self, consent: Consent, at: datetime) -> dict[str, Any]:
        """Return the record of a consent with its evidence, as a person may see it.

        Raises:
            KeyServiceUnavailable: Its key is lost.
            SealBroken: The evidence is not what was sealed.
        """
        key = await self.people.custody.open_by_id(consent.key_id)
        evidence = json.loads(open_column(key, consent.sealed_evidence, evidence_binding(consent)))
        return {
            "consent": f"consents/{consent.consent_id}",
            "purpose": consent.purpose,
            "form": consent.form,
            "flags": list(consent.flags),
            "given_by": consent.given_by,
            "via": consent.via,
            "term_shown": consent.term_shown,
            "notice": f"notices/{consent.notice_id}",
            "notice_version": consent.notice_version,
            "notice_language": consent.notice_language,
            "notice_sha256": consent.notice_sha256,
            "given_at": _iso(consent.given_at),
            "expires_at": _iso(consent.expires_at),
            "is_expired": consent.expires_at is not None and consent.expires_at <= at,
            "withdrawn_at": _iso(consent.withdrawn_at),
            "withdrawn_via": consent.withdrawn_via,
            "superseded_by": f"consents/{consent.superseded_by}" if consent.superseded_by else "",
            "regimes": list(consent.regimes),
            "evidence": evidence,
        }

    async def _receipts(
        self,
        rows: Rows,
        profile: Profile,
        consents: Mapping[str, Mapping[str, Any]],
        controller: ControllerFacts,
        at: datetime,
    ) -> dict[str, bytes]:
        """Return the signed receipt of each consent whose event is published and kept, by its record's file.

        Rule:
            ISO/IEC TS 27560: a receipt is for the person.
        """
        origin = self.ledger.origins[rows.subject.tenant]
        found = await self.records.transact(partial(_recorded, origin=origin, consents=rows.consents))
        person, signer = Person(rows.subject, profile), self.signers[origin][0]
        signed: dict[str, bytes] = {}
        for (name, record), consent in zip(consents.items(), rows.consents, strict=True):
            if consent.consent_id in found:
                notice, leaf, tlog_proof = found[consent.consent_id]
                made = Found(consent, notice, leaf_codec.decode(leaf.line), record["evidence"], person)
                signed[name] = receipts.issue(made, controller, signer, tlog_proof, at)
        return signed

    # the log

    async def _said(self, dsr: Dsr) -> AsyncIterator[Said]:
        """Yield the entries about the person in the log's order, those without a place last."""
        origin = self.ledger.origins[dsr.tenant]
        head = await self.records.transact(partial(newest_checkpoint, origin=origin))
        found: list[tuple[Leaf, SealedPayload]] = []
        keys: dict[str, PayloadKey] = {}
        after = ""
        while batch := await self.records.transact(partial(_payloads, handle=dsr.handle or "", after=after)):
            found += batch
            after = batch[-1][1].event_id
        found.sort(key=lambda pair: (pair[0].seq is None, pair[0].seq or 0, pair[1].event_id, pair[1].slot))
        for start in range(0, len(found), BATCH):
            some = found[start : start + BATCH]
            leaves = [leaf for leaf, _ in some]
            proofs = await self.records.transact(partial(_proofs, origin=origin, head=head, leaves=leaves))
            for leaf, row in some:
                entry = leaf_codec.decode(leaf.line)["seals"][row.slot]
                if row.key_id not in keys:
                    keys[row.key_id] = await self._key(row.key_id)
                salt, payload = keys[row.key_id].open(origin, entry, row.blob)
                yield Said(leaf, row.slot, salt, payload, proofs.get(leaf.event_id, ""))

    async def _key(self, key_id: str) -> PayloadKey:
        record = await self.records.transact(lambda tx: tx.get(SubjectKey, key_id))
        if record is None:
            raise SubjectBlocked
        return PayloadKey.of(record, await self.people.custody.open(record))

    async def _recipients(self, tenant: str, rows: Rows, said: Sequence[Said]) -> list[dict[str, Any]]:
        """Return each backend that was sent a picture of the person, also by jobs that are gone.

        Decisions about the person name their jobs; a job's dispatch names the backend.

        Rule:
            CJEU C-154/21: the actual recipients, not only their categories.
        """
        origin, known = self.ledger.origins[tenant], self.backends()
        names = {backend_id(name): name for name in {*known, *(job.backend for job in rows.jobs)}}
        theirs = {job.job_id for job in rows.jobs} | {
            one.event["job"] for one in said if one.leaf.ty == "decision.made" and "job" in one.event
        }
        sent: dict[str, list[int]] = {}
        async for leaf in self._dispatched(origin):
            event = leaf_codec.decode(leaf.line)
            if event["job"] in theirs:
                sent.setdefault(event["bak"], []).append(event["t"])
        return [_recipient(bak, names.get(bak, ""), known, sent[bak]) for bak in sorted(sent)]

    async def _dispatched(self, origin: str) -> AsyncIterator[Leaf]:
        """Yield every dispatch: a place in the log does not say which of two events was first."""
        above = -1
        for leaf in await self.records.transact(
            lambda tx: tx.find(Leaf, equal={"log": origin, "seq": None, "ty": "job.dispatched"})
        ):
            yield leaf
        while batch := await self.records.transact(partial(_sends, origin=origin, above=above)):
            for leaf in batch:
                yield leaf
            above = batch[-1].seq or 0


def _payloads(tx: Transaction, handle: str, after: str) -> list[tuple[Leaf, SealedPayload]]:
    """Return some payloads about the person with their leaves; those of one event stay together."""
    rows = tx.find(
        SealedPayload,
        equal={"handle": handle},
        above={"event_id": after},
        order_by=("event_id", "slot"),
        limit=BATCH,
    )
    if len(rows) == BATCH and rows[0].event_id != rows[-1].event_id:
        rows = [row for row in rows if row.event_id != rows[-1].event_id]
    leaves = {leaf.event_id: leaf for leaf in tx.find(Leaf, among={"event_id": [r.event_id for r in rows]})}
    # An entry is pruned only once nothing of its payloads is there: each row has its leaf.
    return [(leaves[row.event_id], row) for row in rows]


def _recorded(
    tx: Transaction, origin: str, consents: Sequence[Consent]
) -> dict[str, tuple[Notice, Leaf, str]]:
    """Return by consent the notice that was shown, the event that recorded it and that event's proof.

    A consent from before its event was noted, or whose event is not published or not kept, is left out.
    """
    ids = [consent.event_id for consent in consents if consent.event_id]
    leaves = {leaf.event_id: leaf for leaf in tx.find(Leaf, among={"event_id": ids})}
    proofs = _proofs(tx, origin, newest_checkpoint(tx, origin), list(leaves.values()))
    shown = {
        consent.consent_id: tx.get(
            Notice, consent.tenant, consent.notice_id, consent.notice_version, consent.notice_language
        )
        for consent in consents
        if consent.event_id in proofs
    }
    return {
        consent.consent_id: (notice, leaves[consent.event_id], proofs[consent.event_id])
        for consent in consents
        if (notice := shown.get(consent.consent_id)) is not None
    }


def _proofs(tx: Transaction, origin: str, head: Checkpoint | None, leaves: Sequence[Leaf]) -> dict[str, str]:
    """Return the proof of each leaf that the checkpoint covers, by its event's id."""
    if head is None:
        return {}
    read = tile_reader(tx, origin)
    return {
        leaf.event_id: proof.write(
            index=leaf.seq,
            hashes=tuple(tree.inclusion_proof(leaf.seq, head.size, read)),
            checkpoint=head.note,
            extra=leaf.line,
        )
        for leaf in leaves
        if leaf.seq is not None and leaf.seq < head.size
    }


def _sends(tx: Transaction, origin: str, above: int) -> list[Leaf]:
    return tx.find(
        Leaf,
        equal={"log": origin, "ty": "job.dispatched"},
        above={"seq": above},
        order_by=("seq",),
        limit=BATCH,
    )


# --- as JSON -------------------------------------------------------------------------------------


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()


def as_json(value: object) -> bytes:
    """Return a value as JSON that a person can read, too."""
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).encode() + b"\n"


def _provided(stored: StoredObject, rows: Rows) -> bool:
    """Return whether the person gave this: a picture that they uploaded themselves, and no result."""
    by = {job.job_id: job.is_uploader for job in rows.jobs}
    return stored.kind == "original" and by.get(stored.job_id, False)


def _named(objects: Sequence[StoredObject]) -> dict[str, StoredObject]:
    names = {}
    for number, stored in enumerate(objects, start=1):
        suffix = _SUFFIX.get(stored.image_type, stored.image_type)
        names[f"images/{number:03}-{stored.kind}.{suffix}"] = stored
    return names


def _receipt_name(number: int) -> str:
    return f"receipts/{number:03}.json"


def _signed_name(name: str) -> str:
    """Return the name of the signed receipt that goes with a record of `_receipt_name`."""
    return f"{name}ld"


def _language(consents: Sequence[Consent]) -> str:
    """Return the language of the notice that the person read last."""
    return consents[-1].notice_language.lower().partition("-")[0] if consents else ""


def _subject(profile: Profile) -> dict[str, Any]:
    guardian = asdict(profile.guardian) if profile.guardian else None
    return {
        "id": profile.subject_id,
        "residence": profile.residence,
        "location": profile.location,
        "birth_year": profile.birth_year or None,
        "age_band": profile.age_band,
        "guardian": guardian,
    }


def _standing(subject: Subject) -> dict[str, Any]:
    return {"known_since": _iso(subject.created_at), "state": subject.state}


def _image(name: str, stored: StoredObject, prompt: str) -> dict[str, Any]:
    came_with = {"prompt": prompt} if prompt else {}
    return {
        **came_with,
        "file": name,
        "object": f"objects/{stored.object_id}",
        "job": f"jobs/{stored.job_id}",
        "kind": stored.kind,
        "purpose": stored.purpose,
        "type": stored.image_type,
        "width": stored.width,
        "height": stored.height,
        "size_bytes": stored.size_bytes,
        "state": stored.state,
        "created_at": _iso(stored.created_at),
        "expires_at": _iso(stored.expires_at),
    }


def _withheld(stored: StoredObject, dsr: Dsr) -> dict[str, Any]:
    """Return that a picture is not in the package, and by which ground."""
    return {
        "object": f"objects/{stored.object_id}",
        "kind": stored.kind,
        "reason_code": dsr.refused_parts[stored.object_id],
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "job": f"jobs/{job.job_id}",
        "purpose": job.purpose,
        "style": job.style,
        "uploaded_by": "you" if job.is_uploader else "other",
        "backend": job.backend,
        "state": job.state,
        "reason": job.reason,
        "created_at": _iso(job.created_at),
        "updated_at": _iso(job.updated_at),
        "expires_at": _iso(job.expires_at),
    }


def _choice(job: Job) -> dict[str, Any]:
    """Return what the person chose."""
    return {
        "job": f"jobs/{job.job_id}",
        "purpose": job.purpose,
        "style": job.style,
        "created_at": _iso(job.created_at),
    }


def _signal(signal: Signal | None) -> dict[str, Any] | None:
    if signal is None:
        return None
    return {"gpc": signal.gpc, "limit_spi": signal.limit_spi, "recorded_at": _iso(signal.recorded_at)}


def _request(dsr: Dsr) -> dict[str, Any]:
    return {
        "request": f"dsrs/{dsr.dsr_id}",
        "kind": dsr.kind,
        "law": dsr.regime,
        "state": dsr.state,
        "received_at": _iso(dsr.received_at),
        "due_on": dsr.due_on,
        "extended_due_on": dsr.extended_due_on,
        "reason_code": told(dsr.reason_code),
    }


def _hold(hold: Hold) -> dict[str, Any]:
    return {
        "hold": f"holds/{hold.hold_id}",
        "rule": hold.rule,
        "classes": list(hold.classes),
        "placed_at": _iso(hold.placed_at),
        "until": _iso(hold.until),
    }


def _item_name(item: DatasetItem) -> str:
    return f"datasets/{item.dataset_id}/items/{item.item_id}"


def _item(item: DatasetItem) -> dict[str, Any]:
    return {
        "item": _item_name(item),
        "object": f"objects/{item.object_id}",
        "consent": f"consents/{item.consent_id}",
        "added_at": _iso(item.added_at),
    }


def _since(rows: Rows) -> dict[str, datetime | None]:
    """Return since when each thing is held, by its name."""
    return {
        "profile": rows.subject.created_at,
        "signals": rows.signal.recorded_at if rows.signal else None,
        **{f"objects/{stored.object_id}": stored.created_at for stored in rows.objects},
        **{prompt_name(stored.object_id): stored.created_at for stored in rows.objects},
        **{f"jobs/{job.job_id}": job.created_at for job in rows.jobs},
        **{f"consents/{consent.consent_id}": consent.given_at for consent in rows.consents},
        **{f"dsrs/{asked.dsr_id}": asked.received_at for asked in rows.requests},
        **{f"holds/{hold.hold_id}": hold.placed_at for hold in rows.holds},
        **{_item_name(item): item.added_at for item in rows.items},
    }


def _held(held: Held, since: Mapping[str, datetime | None]) -> dict[str, Any]:
    return {
        "name": held.name,
        "class": held.cls,
        "kind": held.kind,
        "purpose": held.purpose,
        "size_bytes": held.size_bytes,
        "since": _iso(since.get(held.name)),
        "until": _iso(held.expires_at),
        "rule": held.rule,
    }


def _event(said: Said) -> dict[str, Any]:
    index, event = said.leaf.seq, said.event
    return {
        "index": index,
        "id": said.leaf.event_id,
        "type": said.leaf.ty,
        "at": _iso(datetime.fromtimestamp(event["t"] / 1000, UTC)),
        "says": json.loads(said.payload),
        "proof": f"events/{index:09}.tlog-proof" if said.proof else None,
        "opening": f"events/{index:09}-{said.slot}.json" if said.proof else None,
    }


def _files_of(said: Said) -> dict[str, bytes]:
    """Return the proof of an entry, and the opening of its payload as a line of `payloads.jsonl`."""
    shown = _event(said)
    if not said.proof:
        return {}
    opened = Payload(shown["index"], said.slot, "opened", salt=said.salt, payload=said.payload)
    return {shown["proof"]: said.proof.encode(), shown["opening"]: opened.line() + b"\n"}


def _recipient(
    bak: str, name: str, known: Mapping[str, BackendFacts], times: Sequence[int]
) -> dict[str, Any]:
    facts = known.get(name)
    first, last = (_iso(datetime.fromtimestamp(edge / 1000, UTC)) for edge in (min(times), max(times)))
    return {
        "id": bak,
        "name": name,
        "region": facts.region if facts else "",
        "retention_s": facts.retention_s if facts else None,
        "trains_on_inputs": facts.trains_on_inputs if facts else None,
        "count": len(times),
        "first_at": first,
        "last_at": last,
    }
