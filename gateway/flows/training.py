"""Training sets: copies of results of those who opted in, under a key that ends the whole set."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from gateway.caller import Caller
from gateway.controllers import Controllers
from gateway.errors import (
    DeidentificationRequired,
    ImageRejected,
    KeyServiceUnavailable,
    LeaseLost,
    LetheError,
    NotFound,
    ObjectExpired,
    PolicyDenied,
    StateConflict,
    StoreUnavailable,
    SubjectBlocked,
    SubjectUnknown,
    TrainingOff,
)
from gateway.faces import Faces
from gateway.idempotency import Idempotency, Ticket
from gateway.judge import Case, Judge, Verdict
from gateway.ledger import Ledger, Receipt
from gateway.objects import discard_unkept, log_object
from gateway.paging import Page, page
from gateway.people import People, Profile
from gateway.ports.clock import Clock
from gateway.ports.objects import ObjectStore
from gateway.ports.records import (
    Consent,
    Dataset,
    DatasetItem,
    Job,
    Records,
    StoredObject,
    Subject,
    Transaction,
)
from gateway.vault.box import derive, open_box, seal_box
from gateway.vault.errors import SealBroken
from gateway.vault.safe import Draft, Safe
from policy import training
from policy.consent_state import STANDING, state_at
from policy.retention import retention_month
from policy.terms import KeyClass, Purpose

LARGEST = 5_000
"""Pictures in one version."""
BATCH = 100
CHUNK = 256 << 10
ASK_AGAIN = timedelta(seconds=1)
"""After so long a withdrawal stops a picture that is on its way to a slow reader."""
BOX_LABEL = b"lethe.dev/dataset-item/v1"
PSEUDONYM_LABEL = b"lethe.dev/dataset-pseudonym/v1"
TRAIN = Purpose.TRAIN.value
NO_OPT_IN = "DENY_NO_SEPARATE_CONSENT"


@dataclass(frozen=True, slots=True)
class DatasetDraft:
    """A training set to make: the next version of `label`, of at most `max_size` pictures (0: `LARGEST`).

    `profile` is what is done about faces; the usual for the purpose where it is empty.
    """

    label: str
    max_size: int = 0
    request_id: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True)
class ShownDataset:
    """A training set, and the items that were in it and are to be removed from every copy."""

    record: Dataset
    removed: tuple[str, ...]


class _Full(Exception):
    """The training set holds as many pictures as were asked for."""


@dataclass(frozen=True, slots=True)
class Training:
    """Makes training sets and gives them out.

    Whether a picture may be in one is asked of policy inside each transaction that takes it
    in or lets it out, and again while it goes out.  A worker copies one picture after another
    (`run_one`); whatever was copied when it dies stays, and another goes on behind it.

    A copy is an object like any other, under a key of its own and the subject's, and inside
    sealed once more under the set's key: an erasure ends the copies of one subject in every
    set, the end of a set's key all copies in it.
    """

    records: Records
    people: People
    judge: Judge
    controllers: Controllers
    ledger: Ledger
    idempotency: Idempotency
    safe: Safe
    objects: ObjectStore
    faces: Faces
    clock: Clock
    term: timedelta
    lease: timedelta
    random: Callable[[int], bytes] = os.urandom

    # --- what an officer asks for ---

    async def create(self, caller: Caller, draft: DatasetDraft) -> tuple[Dataset, Receipt | None]:
        """Begin the next version of a training set; the worker fills it.

        Raises:
            TrainingOff: The controller has not switched training on.
            DeidentificationRequired: What is to be done about faces is not enough for training.
        """
        profile = self.faces.profile(Purpose.TRAIN, draft.profile)
        content = json.dumps([draft.label, draft.max_size, draft.profile]).encode()
        ticket = await self.idempotency.ticket(caller.tenant, "CreateDataset", draft.request_id, content)
        repeated = await self.records.transact(lambda tx: self._begun(tx, caller, ticket))
        if repeated is not None:
            return repeated, None
        dataset_id = self.random(16).hex()
        now = self.clock.now()
        # No subject's id holds a NUL, so that the key is nobody's.
        handle = await self.people.handle(caller.tenant, f"dataset\0{dataset_id}")
        held = await self.people.custody.obtain(
            caller.tenant, handle, KeyClass.CONTENT.value, retention_month(now + self.term)
        )

        def commit(tx: Transaction) -> tuple[Dataset, Receipt | None]:
            known = self._begun(tx, caller, ticket)
            if known is not None:
                tx.remove(held.record)
                return known, None
            same = {"tenant": caller.tenant, "label": draft.label}
            versions = [row.version for row in tx.find(Dataset, equal=same)]
            made = Dataset(
                dataset_id=dataset_id,
                tenant=caller.tenant,
                label=draft.label,
                version=max(versions, default=0) + 1,
                state="building",
                max_size=min(draft.max_size or LARGEST, LARGEST),
                size=0,
                skipped={},
                key_id=held.record.key_id,
                cursor="",
                lease_owner="",
                lease_until=None,
                created_at=now,
                expires_at=now + self.term,
                profile=profile,
            )
            tx.add(made)
            self.idempotency.remember(tx, ticket, dataset_id)
            ends = int(made.expires_at.timestamp() * 1000)
            return made, self.ledger.record(
                tx,
                caller.tenant,
                "dataset.created",
                caller,
                dst=dataset_id,
                ver=made.version,
                exp=ends,
                kind=profile,
            )

        return await self.records.transact(commit)

    def _begun(self, tx: Transaction, caller: Caller, ticket: Ticket | None) -> Dataset | None:
        """Return what the same call began before; refuse a new one where training is off."""
        known = self.idempotency.recall(tx, ticket)
        if known is not None:
            return _own(tx, caller, known)
        self._refuse_off(tx, caller.tenant)
        return None

    async def get(self, caller: Caller, dataset_id: str) -> ShownDataset:
        """Return a training set, and which items are to be removed from every copy of it.

        Raises:
            NotFound: There is none in the caller's tenant.
        """

        def read(tx: Transaction) -> ShownDataset:
            record = _own(tx, caller, dataset_id)
            gone = tx.find(
                DatasetItem, equal={"dataset_id": dataset_id, "state": "removed"}, order_by=("item_id",)
            )
            return ShownDataset(record, tuple(item.item_id for item in gone))

        return await self.records.transact(read)

    async def list(self, caller: Caller, size: int, token: str) -> Page[Dataset]:
        """Return a page of the training sets, by label and version."""
        rows = await self.records.transact(lambda tx: tx.find(Dataset, equal={"tenant": caller.tenant}))
        rows.sort(key=_key)
        return page(rows, size, _key, ("datasets", caller.tenant), token)

    async def download(self, caller: Caller, dataset_id: str) -> AsyncIterator[bytes]:
        """Yield a training set as a tar file, in chunks of at most 256 KiB, one picture in memory at a time.

        Each picture is asked for before it is opened, before its first byte leaves, and
        while it does.  What is not permitted now is left out.  `manifest.json` comes last
        and lists what went before it.

        Raises:
            NotFound: There is none in the caller's tenant.
            TrainingOff: The controller has switched training off.
            DeidentificationRequired: It was made before faces were seen to.
            StateConflict: It is not finished, or has ended (detail: its state).
            PolicyDenied, SubjectBlocked: A picture that had begun may not go on.
        """
        dataset = await self.records.transact(lambda tx: self._release(tx, caller, dataset_id))
        key = await self.people.custody.open_by_id(dataset.key_id)
        given: list[dict[str, Any]] = []
        left_out, after = 0, ""
        while items := await self.records.transact(partial(_live, dataset_id=dataset_id, after=after)):
            for item in items:
                opened = await self._opened(caller, dataset, key, item)
                if opened is None:
                    left_out += 1
                    continue
                image, profile, line = opened
                async for chunk in self._member(caller, dataset, item, profile, image, line["file"]):
                    yield chunk
                given.append(line)
            after = items[-1].item_id
        manifest = await self._manifest(caller, dataset, given, left_out)
        for chunk in _pieces(_header("manifest.json", len(manifest), dataset) + _padded(manifest)):
            yield chunk
        yield tarfile.NUL * (2 * tarfile.BLOCKSIZE)

    def _release(self, tx: Transaction, caller: Caller, dataset_id: str) -> Dataset:
        dataset = _own(tx, caller, dataset_id)
        self._refuse_off(tx, caller.tenant)
        self.faces.profile(Purpose.TRAIN, dataset.profile)
        self._refuse_unfinished(dataset)
        self.ledger.record(tx, caller.tenant, "dataset.released", caller, dst=dataset_id, nobj=dataset.size)
        return dataset

    def _refuse_unfinished(self, dataset: Dataset) -> None:
        if dataset.state not in {"ready", "stale"} or dataset.expires_at <= self.clock.now():
            raise StateConflict("the training set is not to be had", detail=dataset.state)

    async def _opened(
        self, caller: Caller, dataset: Dataset, key: bytes, item: DatasetItem
    ) -> tuple[bytes, Profile, dict[str, Any]] | None:
        """Return a picture, whose it is and its line in the manifest; None if it may not go out."""
        handle = item.handle
        if handle is None:
            return None
        try:
            subject = await self.records.transact(lambda tx: _subject(tx, dataset.tenant, handle))
            profile = await self.people.open_profile(subject)
            stored, consent = await self.records.transact(
                lambda tx: self._may_leave(tx, caller, dataset, item, profile)
            )
            boxed = await self.safe.open(stored)
        except LetheError as refusal:
            if not _is_final(refusal):
                raise
            return None
        try:
            image = open_box(derive(key, BOX_LABEL), boxed, item.item_id.encode())
        except SealBroken as error:
            raise KeyServiceUnavailable("a picture of a training set does not open") from error
        pseudonym = hmac.digest(derive(key, PSEUDONYM_LABEL), handle.encode(), "sha256")[:16].hex()
        return (
            image,
            profile,
            {
                "item": item.item_id,
                "file": f"items/{item.item_id}.{item.image_type}",
                "subject": pseudonym,
                "sha256": item.sha256,
                "size_bytes": len(image),
                "profile": dataset.profile,
                "similarity_thousandths": item.similarity,
                "consent_form": consent.form,
                "notice": f"notices/{consent.notice_id}",
                "notice_version": consent.notice_version,
            },
        )

    async def _member(
        self,
        caller: Caller,
        dataset: Dataset,
        item: DatasetItem,
        profile: Profile,
        image: bytes,
        name: str,
    ) -> AsyncIterator[bytes]:
        """Yield one file of the tar; whether it may go out is asked first, and again of a slow reader."""

        def ask(tx: Transaction) -> None:
            self._may_leave(tx, caller, dataset, item, profile)

        await self.records.transact(ask)
        asked_at = self.clock.now()
        for piece in _pieces(_header(name, len(image), dataset) + _padded(image)):
            if self.clock.now() - asked_at > ASK_AGAIN:
                await self.records.transact(ask)
                asked_at = self.clock.now()
            yield piece

    def _may_leave(
        self, tx: Transaction, caller: Caller, dataset: Dataset, item: DatasetItem, profile: Profile
    ) -> tuple[StoredObject, Consent]:
        """Return the copy and the consent by virtue of which it may be given out now."""
        self._refuse_unfinished(_own(tx, caller, dataset.dataset_id))
        standing = tx.get(DatasetItem, item.item_id)
        stored = tx.get(StoredObject, item.object_id)
        if standing is None or standing.state != "live" or standing.handle is None:
            raise ObjectExpired
        if stored is None or stored.state != "live" or stored.expires_at <= self.clock.now():
            raise ObjectExpired
        _, consent = self._permit(tx, dataset.tenant, standing.handle, profile)
        return stored, consent

    async def _manifest(
        self, caller: Caller, dataset: Dataset, given: Sequence[Mapping[str, Any]], left_out: int
    ) -> bytes:
        shown = await self.get(caller, dataset.dataset_id)
        tree = {
            "dataset": f"datasets/{dataset.dataset_id}",
            "label": dataset.label,
            "version": dataset.version,
            "created": dataset.created_at.isoformat(),
            "expires": dataset.expires_at.isoformat(),
            "profile": dataset.profile,
            "items": [dict(line) for line in given],
            "removed": list(shown.removed),
            "left_out": left_out,
            "refused": dict(sorted(shown.record.refused.items())),
        }
        return json.dumps(tree, indent=1, sort_keys=True).encode()

    # --- the gate ---

    def _refuse_off(self, tx: Transaction, tenant: str) -> None:
        if not self.controllers.at(tx, tenant).is_training_on:
            raise TrainingOff

    def _permit(self, tx: Transaction, tenant: str, handle: str, profile: Profile) -> tuple[Verdict, Consent]:
        """Return the decision and the opt-in by virtue of which a picture of the subject may train now.

        Raises:
            TrainingOff: The controller has not switched training on.
            SubjectUnknown, SubjectBlocked: There is nobody any more to ask for.
            PolicyDenied: Law or house denies it, or there is no opt-in of its own.
            DeidentificationRequired: A regime asks for more than a copy without the person's face.
        """
        self._refuse_off(tx, tenant)
        now = self.clock.now()
        verdict = self.judge.decide(tx, tenant, handle, Case(profile, TRAIN, now, kind="output"))
        if not verdict.allowed:
            raise self.judge.refusal(verdict)
        same = {"tenant": tenant, "handle": handle, "purpose": TRAIN}
        standing = [
            consent
            for consent in tx.find(Consent, equal=same, order_by=("given_at", "consent_id"))
            if state_at(consent.state, consent.expires_at, now) in STANDING
            and consent.given_at <= now
            and training.is_opt_in(consent.form, consent.flags)
        ]
        if not standing:
            raise PolicyDenied(NO_OPT_IN, pack="house", citations=("GDPR Art. 7(2), (4), Rec. 43",))
        lacking = training.unmet(verdict.decision.packs)
        if lacking:
            pack, rule = next(iter(lacking.items()))
            raise DeidentificationRequired(deciding_pack=pack, citations=rule)
        return verdict, standing[-1]

    # --- the worker ---

    async def run_one(self) -> bool:
        """Fill one training set that was begun, and return whether there was one.

        A failure leaves it where it stands; the lease runs out and another goes on.
        """
        owner = self.random(8).hex()
        claimed = await self.records.transact(lambda tx: self._claim(tx, owner))
        if claimed is None:
            return False
        # Switched off, ended, or another's by now: it is not ours to fill any more.
        with contextlib.suppress(TrainingOff, LeaseLost):
            await self._fill(claimed)
        return True

    async def _fill(self, claimed: Dataset) -> None:
        while consent := await self.records.transact(partial(self._next, dataset=claimed)):
            refused: Counter[str] = Counter()
            try:
                code = await self._take_all(claimed, consent, refused)
            except _Full:
                break
            await self.records.transact(
                partial(
                    self._advance,
                    dataset=claimed,
                    consent_id=consent.consent_id,
                    code=code,
                    refused=refused,
                )
            )
        await self.records.transact(lambda tx: self._complete(tx, claimed))

    def _claim(self, tx: Transaction, owner: str) -> Dataset | None:
        now = self.clock.now()
        building = tx.find(Dataset, equal={"state": "building"}, order_by=("created_at", "dataset_id"))
        ready = [
            row
            for row in building
            if (row.lease_until is None or row.lease_until <= now)
            and self.controllers.at(tx, row.tenant).is_training_on
        ]
        if not ready:
            return None
        claimed = replace(ready[0], lease_owner=owner, lease_until=now + self.lease)
        tx.put(claimed)
        return claimed

    def _mine(self, tx: Transaction, dataset: Dataset) -> Dataset:
        """Return the training set as it stands, with the lease renewed, if it is still ours to fill."""
        standing = tx.get(Dataset, dataset.dataset_id)
        if standing is None or standing.lease_owner != dataset.lease_owner or standing.state != "building":
            raise LeaseLost
        renewed = replace(standing, lease_until=self.clock.now() + self.lease)
        tx.put(renewed)
        return renewed

    def _next(self, tx: Transaction, dataset: Dataset) -> Consent | None:
        """Return the next consent to train that was not withdrawn, in the order of their random ids."""
        standing = self._mine(tx, dataset)
        found = tx.find(
            Consent,
            equal={"tenant": dataset.tenant, "purpose": TRAIN, "withdrawn_at": None, "superseded_by": ""},
            above={"consent_id": standing.cursor},
            order_by=("consent_id",),
            limit=1,
        )
        return found[0] if found else None

    def _advance(
        self, tx: Transaction, dataset: Dataset, consent_id: str, code: str, refused: Mapping[str, int]
    ) -> None:
        """Go on behind a consent, and count what was left out of it: once, for nobody comes back to it."""
        standing = self._mine(tx, dataset)
        skipped = Counter(standing.skipped)
        if code:
            skipped[code] += 1
        tx.put(
            replace(
                standing,
                cursor=consent_id,
                skipped=dict(skipped),
                refused=dict(Counter(standing.refused) + Counter(refused)),
            )
        )

    def _complete(self, tx: Transaction, dataset: Dataset) -> None:
        standing = self._mine(tx, dataset)
        tx.put(replace(standing, state="ready", cursor="", lease_owner="", lease_until=None))
        self.ledger.record(
            tx, dataset.tenant, "dataset.completed", None, dst=dataset.dataset_id, nobj=standing.size
        )

    async def _take_all(self, dataset: Dataset, consent: Consent, refused: Counter[str]) -> str:
        """Take the pictures of whoever consented; return why nothing was to be taken, or nothing.

        Pictures that cannot be made as the set wants them are counted in `refused`.
        """
        handle = consent.handle
        if handle is None:
            return SubjectUnknown.reason
        try:
            subject = await self.records.transact(lambda tx: _subject(tx, dataset.tenant, handle))
            profile = await self.people.open_profile(subject)
            await self.records.transact(lambda tx: self._permit(tx, dataset.tenant, handle, profile))
        except LetheError as refusal:
            if not _is_final(refusal):
                raise
            return refusal.code
        taken, code = 0, ""
        for source in await self.records.transact(partial(_sources, dataset=dataset, handle=handle)):
            try:
                await self._take(dataset, source, profile)
                taken += 1
            except LetheError as refusal:
                if not _is_final(refusal):
                    raise
                code = refusal.code
                if isinstance(refusal, ImageRejected):
                    refused[refusal.detail] += 1
        return "" if taken else code

    async def _take(self, dataset: Dataset, source: StoredObject, profile: Profile) -> None:
        """Copy one picture into the training set: bytes first, then everything else in one commit."""
        clean = await self.faces.see_to(await self.safe.open(source), Purpose.TRAIN, dataset.profile)
        picture = clean.picture
        key = await self.people.custody.open_by_id(dataset.key_id)
        item_id = self.random(16).hex()
        now = self.clock.now()

        def until(tx: Transaction) -> datetime:
            verdict, _ = self._permit(tx, dataset.tenant, source.handle, profile)
            return self.judge.term(verdict, "output", now, dataset.expires_at - now)

        stored = await self.safe.seal(
            Draft(
                tenant=dataset.tenant,
                handle=source.handle,
                job_id=dataset.dataset_id,
                kind="output",
                purpose=TRAIN,
                image_type=picture.format,
                width=picture.width,
                height=picture.height,
                image=seal_box(derive(key, BOX_LABEL), picture.data, item_id.encode()),
                expires_at=await self.records.transact(until),
            )
        )

        def commit(tx: Transaction) -> None:
            standing = self._mine(tx, dataset)
            if standing.size >= standing.max_size:
                raise _Full
            taken_from = tx.get(StoredObject, source.object_id)
            if taken_from is None or taken_from.state != "live":
                raise ObjectExpired
            verdict, consent = self._permit(tx, dataset.tenant, source.handle, profile)
            self.judge.record(tx, None, _subject(tx, dataset.tenant, source.handle), verdict)
            kept = replace(stored, expires_at=min(stored.expires_at, until(tx)))
            tx.add(
                kept,
                DatasetItem(
                    item_id=item_id,
                    dataset_id=dataset.dataset_id,
                    tenant=dataset.tenant,
                    handle=source.handle,
                    state="live",
                    job_id=source.job_id,
                    source_object=source.object_id,
                    object_id=kept.object_id,
                    consent_id=consent.consent_id,
                    image_type=picture.format,
                    sha256=hashlib.sha256(picture.data).hexdigest(),
                    added_at=now,
                    removed_at=None,
                    similarity=clean.similarity,
                ),
            )
            tx.put(replace(standing, size=standing.size + 1))
            log_object(tx, self.ledger, None, kept, clean)
            self.ledger.record(
                tx,
                dataset.tenant,
                "dataset.added",
                None,
                dst=dataset.dataset_id,
                itm=item_id,
                job=source.job_id,
                obj=kept.object_id,
                con=consent.consent_id,
                kind=clean.profile,
            )

        try:
            await self.records.transact(commit)
        except (LetheError, _Full):
            await discard_unkept(self.records, self.objects, stored)
            raise


def _is_final(refusal: LetheError) -> bool:
    """Return whether asking again later would answer the same, so that a picture is left out for good."""
    lost = {"object_lost", "key_lost", "profile_broken"}
    if isinstance(refusal, (StoreUnavailable, KeyServiceUnavailable)):
        return refusal.detail in lost
    finals = (
        PolicyDenied,
        DeidentificationRequired,
        SubjectBlocked,
        SubjectUnknown,
        ObjectExpired,
        ImageRejected,
    )
    return isinstance(refusal, finals)


def _own(tx: Transaction, caller: Caller, dataset_id: str) -> Dataset:
    found = tx.get(Dataset, dataset_id)
    if found is None or found.tenant != caller.tenant:
        raise NotFound
    return found


def _subject(tx: Transaction, tenant: str, handle: str) -> Subject:
    subject = tx.get(Subject, tenant, handle)
    if subject is None:
        raise SubjectUnknown
    if subject.state == "blocked":
        raise SubjectBlocked
    return subject


def _sources(tx: Transaction, dataset: Dataset, handle: str) -> list[StoredObject]:
    """Return the results of a subject that may be copied and are not in the training set yet.

    Results of pictures that the subject uploaded of themselves: of others there is no release.
    """
    same = {"tenant": dataset.tenant, "handle": handle}
    items = tx.find(DatasetItem, equal={**same, "dataset_id": dataset.dataset_id})
    taken = {item.source_object for item in items}
    found = tx.find(
        StoredObject, equal={**same, "kind": "output", "state": "live"}, order_by=("created_at", "object_id")
    )
    jobs = {job.job_id for job in tx.find(Job, equal=same) if job.is_uploader}
    return [r for r in found if r.purpose != TRAIN and r.job_id in jobs and r.object_id not in taken]


def _live(tx: Transaction, dataset_id: str, after: str) -> list[DatasetItem]:
    return tx.find(
        DatasetItem,
        equal={"dataset_id": dataset_id, "state": "live"},
        above={"item_id": after},
        order_by=("item_id",),
        limit=BATCH,
    )


def _key(dataset: Dataset) -> str:
    return f"{dataset.label} {dataset.version:09d}"


def _header(name: str, size: int, dataset: Dataset) -> bytes:
    """Return the header of a file in the tar; nothing in it tells more than the training set's own time."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(dataset.created_at.timestamp()), 0o600
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padded(data: bytes) -> bytes:
    return data + tarfile.NUL * (-len(data) % tarfile.BLOCKSIZE)


def _pieces(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
