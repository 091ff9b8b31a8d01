"""Finds a subject by the caller's own id, and opens what is known of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from gateway.caller import Caller, staff_id
from gateway.errors import KeyServiceUnavailable, SubjectBlocked, SubjectUnknown
from gateway.ports.keys import KeyService
from gateway.ports.records import Consent, Records, Subject, SubjectKey, Transaction
from gateway.vault.custody import Custody
from gateway.vault.errors import SealBroken
from gateway.vault.keys import Binding, open_column, seal_column
from gateway.vault.payload import PayloadKey
from policy.terms import KeyClass

_YOUNGEST = {"lt13": 0, "13-15": 13, "16-17": 16, "adult": 18}


@dataclass(frozen=True, slots=True)
class Guardian:
    """Who holds parental responsibility, and how that was verified (GDPR Art. 8(2))."""

    verified_method: str = ""
    relation: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the controller told us of a subject; rests sealed under the `profile` class.

    `residence` and `location` are ISO 3166 codes (`DE`, `US-CA`) or empty for
    not known.  Either `birth_year` or `age_band` (`lt13`, `13-15`, `16-17`,
    `adult`) may be given.
    """

    subject_id: str
    residence: str = ""
    location: str = ""
    birth_year: int = 0
    age_band: str = ""
    guardian: Guardian | None = None

    def age(self, at: datetime) -> int | None:
        """Return the youngest age in whole years that fits what is known, or None if nothing is.

        With only a year of birth the birthday may still lie ahead, so the
        protective answer is one year less.
        """
        if self.birth_year:
            return max(0, at.year - self.birth_year - 1)
        return _YOUNGEST.get(self.age_band)

    def to_json(self) -> bytes:
        """Return the bytes that are sealed."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Profile:
        """Read the sealed bytes back."""
        tree: dict[str, Any] = json.loads(data)
        guardian = tree.pop("guardian")
        return cls(**tree, guardian=Guardian(**guardian) if guardian else None)


@dataclass(frozen=True, slots=True)
class Person:
    """A subject's record and their opened profile."""

    subject: Subject
    profile: Profile


def profile_binding(tenant: str, handle: str) -> Binding:
    """Return the associated data of a sealed profile."""
    return Binding(tenant=tenant, handle=handle, cls=KeyClass.PROFILE.value, item="profile", purpose="")


def evidence_binding(consent: Consent) -> Binding:
    """Return the associated data of sealed evidence; it names the key, since evidence outlives the handle."""
    return Binding(
        tenant=consent.tenant,
        handle=consent.key_id,
        cls=KeyClass.EVIDENCE.value,
        item=consent.consent_id,
        purpose=consent.purpose,
    )


@dataclass(frozen=True, slots=True)
class People:
    """Finds and opens subjects."""

    records: Records
    keys: KeyService
    custody: Custody
    payload_term: timedelta = timedelta(days=731)
    """How long the payloads of audit events are kept; their keys die by the month."""

    async def payload_key(self, tenant: str, handle: str) -> PayloadKey:
        """Return what seals payloads about the subject now.

        Raises:
            SubjectBlocked: The subject is fenced.
            KeyServiceUnavailable: The key service does not answer.
        """
        month = f"{self.custody.clock.now() + self.payload_term:%Y-%m}"
        held = await self.custody.obtain(tenant, handle, KeyClass.AUDIT.value, month)
        return PayloadKey.of(held.record, held.key)

    async def staff_key(self, caller: Caller) -> PayloadKey:
        """Return what seals the name of a person of the staff: they are data subjects, too.

        Raises:
            SubjectBlocked: They were erased; their access should have gone first.
            KeyServiceUnavailable: The key service does not answer.
        """
        return await self.payload_key(caller.tenant, await self.handle(caller.tenant, staff_id(caller)))

    async def handle(self, tenant: str, subject_id: str) -> str:
        """Return the row handle of a caller's id: HMAC under the tenant's lookup key, in hex."""
        return (await self.keys.mac(tenant, "handle", subject_id.encode())).hex()

    async def known(self, tenant: str, subject_id: str) -> Subject:
        """Return the subject's record; their profile stays sealed.

        Raises:
            SubjectUnknown: Not known to this tenant.
            SubjectBlocked: An erasure has begun or is done.
        """
        handle = await self.handle(tenant, subject_id)
        subject = await self.records.transact(lambda tx: tx.get(Subject, tenant, handle))
        if subject is None:
            if await self.keys.is_fenced(handle):
                raise SubjectBlocked
            raise SubjectUnknown
        if subject.state == "blocked":
            raise SubjectBlocked
        return subject

    async def find(self, tenant: str, subject_id: str) -> Person:
        """Return the subject with their profile; see `known`."""
        subject = await self.known(tenant, subject_id)
        return Person(subject, await self.open_profile(subject))

    async def profile(self, tenant: str, handle: str | None) -> Profile | None:
        """Return the profile behind a handle, or None where there is nobody any more, or it is lost.

        What is lost must not hold up an erasure; a key service that does not answer may.
        """
        subject = await self.records.transact(partial(_with_profile_key, tenant=tenant, handle=handle or ""))
        if subject is None:
            return None
        try:
            return await self.open_profile(subject)
        except KeyServiceUnavailable as error:
            if error.detail in {"key_lost", "profile_broken"}:
                return None
            raise

    async def open_profile(self, subject: Subject) -> Profile:
        """Return the opened profile of a subject.

        Raises:
            KeyServiceUnavailable: Its key is lost, or it does not open (detail `profile_broken`).
        """
        key = await self.custody.open_by_id(subject.key_id)
        binding = profile_binding(subject.tenant, subject.handle)
        try:
            return Profile.from_json(open_column(key, subject.sealed_profile, binding))
        except SealBroken as error:
            raise KeyServiceUnavailable("a profile does not open", detail="profile_broken") from error

    async def subject_ids(self, tenant: str, handles: set[str]) -> dict[str, str]:
        """Return the caller's id for each handle that still has a profile."""
        names: dict[str, str] = {}
        for handle in handles:
            subject = await self.records.transact(partial(_with_profile_key, tenant=tenant, handle=handle))
            if subject is not None:
                names[handle] = (await self.open_profile(subject)).subject_id
        return names

    async def seal_profile(self, tenant: str, handle: str, profile: Profile) -> tuple[str, bytes]:
        """Return the id of the profile key and the sealed profile."""
        held = await self.custody.obtain(tenant, handle, KeyClass.PROFILE.value)
        return held.record.key_id, seal_column(held.key, profile.to_json(), profile_binding(tenant, handle))


def _with_profile_key(tx: Transaction, tenant: str, handle: str) -> Subject | None:
    """Return the subject if there is one whose profile can still be opened."""
    subject = tx.get(Subject, tenant, handle)
    return subject if subject is not None and tx.get(SubjectKey, subject.key_id) is not None else None
