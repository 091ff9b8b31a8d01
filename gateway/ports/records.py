"""The door to the records, and the values that live behind it.

Records are frozen values; a change is `tx.put(replace(record, ...))`.  Ids are
16 random bytes in lowercase hex unless said otherwise, instants are aware and in
UTC, `sealed_*` and `wrapped_*` are ciphertext.  `handle` is the row handle of a
subject, HMAC(tenant lookup key, the caller's id) in hex: the caller's own id
appears nowhere in clear.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from policy.terms import PACKAGE, KeyClass

R = TypeVar("R", bound="Record")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """Base of everything that is kept."""


@dataclass(frozen=True, slots=True)
class Subject(Record):
    """A person whose data a controller processes through us.

    `state` is `active`, `restricted` (storage only, GDPR Art. 18) or `blocked`
    (an erasure has begun).  `sealed_profile` holds the caller's id, residence,
    location, age facts and guardian under the `profile` class.
    """

    tenant: str
    handle: str
    state: str
    key_id: str
    sealed_profile: bytes
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SubjectKey(Record):
    """A subject key wrapped under an epoch key.

    `handle` is None once the subject is erased and only a kept class (evidence,
    dsr) still needs the key.  `epoch` is the text form of `Epoch`.
    """

    key_id: str
    tenant: str
    handle: str | None
    cls: str
    month: str
    epoch: str
    wrapped: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ClosedEpoch(Record):
    """An epoch (text form) that is being rolled: no subject key is minted under it any more."""

    epoch: str
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class PackText(Record):
    """A policy pack as it stood when a decision named it by digest; exports carry it."""

    digest: str
    pack_id: str
    version: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Notice(Record):
    """One version of a privacy notice in one language; `thing_id` is its random id in the log.

    `shown` is what else it states: term, recipients, countries, how to withdraw, shorter layers.
    `is_spread` once the consents to earlier versions have been looked through for renewal.
    """

    tenant: str
    notice_id: str
    version: int
    language: str
    thing_id: str
    title: str
    body: str
    sha256: str
    purposes: tuple[str, ...]
    shown: Mapping[str, Any]
    published_at: datetime
    is_spread: bool = True


@dataclass(frozen=True, slots=True)
class Consent(Record):
    """Proof that a subject consented to one purpose (GDPR Art. 7(1)).

    `flags` are codes (`separate`, `presented_separately`, `highlighted`,
    `condition_of_service`, `two_step_confirmed`, `signature`).  Who, how and the
    signature artefact are in `sealed_evidence` under the `evidence` class.
    `state` follows `policy.consent_state`; that a term has run out is not written.
    `event_id` is the event in the log that recorded it, `receipt_id` the number of its
    receipt, `renew_at` since when it is to be asked for anew, as its notice has changed.
    """

    consent_id: str
    tenant: str
    handle: str | None
    key_id: str
    purpose: str
    form: str
    flags: tuple[str, ...]
    given_by: str
    via: str
    term_shown: str
    notice_id: str
    notice_version: int
    notice_language: str
    notice_sha256: str
    given_at: datetime
    expires_at: datetime | None
    withdrawn_at: datetime | None
    withdrawn_via: str
    superseded_by: str
    regimes: tuple[str, ...]
    sealed_evidence: bytes
    keep_until: datetime | None = None
    state: str = "given"
    event_id: str = ""
    receipt_id: str = ""
    renew_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Signal(Record):
    """The opt-out signals of a subject (CCPA: GPC, limit use of sensitive data)."""

    tenant: str
    handle: str
    gpc: bool
    limit_spi: bool
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class StoredObject(Record):
    """A sealed object.  `wrapped_dek` is empty once its key is destroyed; the bytes follow.

    `state` is `live`, `held` (its term is over, or it was to go, and a legal hold
    stops that: it is kept and not used), `destroyed` (key gone, bytes still to be reaped)
    or `transient` (never sealed: its bytes are in memory only, see `gateway.transient`).
    `purpose` is what it was sealed for; `kept_for` the one it is kept for since that ended.
    A package (`kind`) answers the request `dsr_id`, and `sha256` is the digest of its file, which the
    log names, too; of pictures neither is kept.
    `sealed_prompt` is the scrubbed prompt that came with an original, under the object's own key.
    """

    object_id: str
    tenant: str
    handle: str
    key_id: str
    job_id: str
    kind: str
    purpose: str
    image_type: str
    width: int
    height: int
    size_bytes: int
    wrapped_dek: bytes
    state: str
    created_at: datetime
    expires_at: datetime
    kept_for: str = ""
    dsr_id: str = ""
    sha256: str = ""
    sealed_prompt: bytes = b""

    @property
    def basis(self) -> str:
        """The purpose by which it may be used now."""
        return self.kept_for or self.purpose

    @property
    def cls(self) -> KeyClass:
        """Return the class of the subject key that wraps the object's own key."""
        return KeyClass.DSR if self.kind == PACKAGE else KeyClass.CONTENT


@dataclass(frozen=True, slots=True)
class Job(Record):
    """One generation.  `state`: queued, running, succeeded, failed, cancelled, expired.

    `lease_owner` and `lease_until` say which process works on it; a lease that
    ran out may be taken by any.  `backend_job` is the per-backend pseudonym;
    `is_forget_owed` until the backend confirmed that it keeps nothing of it;
    `is_uploader` where the subject is the person in the picture and uploaded it.
    """

    job_id: str
    tenant: str
    handle: str
    purpose: str
    state: str
    style: str
    backend: str
    backend_job: str
    input_object: str
    result_object: str
    percent: int
    stage: str
    reason: str
    detail: str
    is_cancel_requested: bool
    attempt: int
    lease_owner: str
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    is_forget_owed: bool = False
    is_uploader: bool = True


@dataclass(frozen=True, slots=True)
class Dsr(Record):
    """A data-subject request and its statutory clock.

    `state` follows `policy.dsr`.  `step` counts the finished steps of an
    erasure, so that a restart goes on where it stopped.  `opened_by` and
    `approved_by` are caller identities of services, or per-event tokens.

    `policy` maps the packs that applied when it was submitted to their digests.
    `due_on` is the day that counts: once the time is extended, the later one.
    `due_key` orders what is open by that day, and is None once it is over.
    `verified_by` is the method by which identity was shown, `failures` how often
    it was not.  `mandate` is what an agent showed, empty where the subject asked.
    `duplicate_of` is the open request of the same subject for the same.
    `purposes` are those that a withdrawal or an objection names; none means all.
    `preview` is what the newest previews showed, by etag, until the approval.  `wish_key` and
    `sealed_wish` are the profile as a correction wants it, sealed as a profile is;
    `wish_age` is its band of age.

    `recipients` are those to be told of what it changes, by their code, as they stood at the
    approval: `id` in the log, `name`, `role`, `country`, `channel`, `state` (`policy.recipients`),
    `ground` where they are not told, and when they were told and acknowledged.  `owed_key` is as
    `due_key`, while one of them has neither acknowledged nor is excused.

    `refused_parts` maps what is refused of it, an object's id or a purpose, to the ground.

    `clock` is what moved the days: `identity`, the day it was shown where that counts anew;
    `asked_at`, while a question stops the clock; `pauses`, first and last days of those that did.
    """

    dsr_id: str
    tenant: str
    handle: str | None
    kind: str
    regime: str
    state: str
    step: int
    opened_by: str
    approved_by: str
    reason_code: str
    received_at: datetime
    due_on: str
    extended_due_on: str
    internal_target_on: str
    counts: Mapping[str, Any]
    certificate_id: str
    lease_owner: str
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime
    keep_until: datetime | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    ack_on: str = ""
    due_key: str | None = None
    extended_at: datetime | None = None
    extension_reason: str = ""
    verified_by: str = ""
    failures: int = 0
    mandate: str = ""
    duplicate_of: str = ""
    about: str = ""
    purposes: tuple[str, ...] = ()
    preview: Mapping[str, Any] = field(default_factory=dict)
    wish_key: str = ""
    sealed_wish: bytes = b""
    wish_age: str = ""
    package_id: str = ""
    outcome: str = ""
    answered_at: datetime | None = None
    recipients: Mapping[str, Any] = field(default_factory=dict)
    owed_key: str | None = None
    clock: Mapping[str, Any] = field(default_factory=dict)
    refused_parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold(Record):
    """A duty to keep what is held of a subject; it stands while its row is there, up to `until`.

    `rule` is the citation that demands it, `classes` the key classes it covers, `dsr_id`
    the request that placed it, or empty where a person did.
    """

    hold_id: str
    tenant: str
    handle: str
    rule: str
    classes: tuple[str, ...]
    until: datetime | None
    placed_at: datetime
    dsr_id: str = ""


@dataclass(frozen=True, slots=True)
class Debt(Record):
    """Work on one thing that failed, or is still to be done; it names the thing and nobody.

    `kind` and `item` say what (`gateway.debts`), `about` the request (a dsr's id) for which
    it is done, or nothing.  `tries` failed so far, the last with the reason `code`; it is
    tried again from `retry_at` on, or set aside where that is None.
    """

    kind: str
    item: str
    tenant: str
    about: str
    tries: int
    code: str
    since: datetime
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class TenantVersion(Record):
    """The facts of a controller from `changed_at` on; the highest version counts.

    None in `establishments` or `targets` is a fact that was not said: then it counts as met.
    `thresholds` maps codes to whether they are met; a code that is not there was not said.
    `recipients` maps codes to `name`, `role`, `country` and `channel` of those who get data.
    """

    tenant: str
    version: int
    name: str
    contact: str
    establishments: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    time_zone: str
    calendar: str | None
    thresholds: Mapping[str, Any]
    is_training_on: bool
    changed_at: datetime
    recipients: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Incident(Record):
    """A breach in the register (GDPR Art. 33(5)), as it was recorded last.

    All free text is in `sealed_text`, under a key of the incident's own.  `regimes` are the
    packs that apply.  `authority` and `subjects` say what was done about telling them: `told_at`
    (ISO 8601), or `rule`, the citation by which they need not be told.  `due_at` is the last
    instant of the earliest clock that nothing was done about.
    """

    incident_id: str
    tenant: str
    version: int
    kind: str
    data_categories: tuple[str, ...]
    residences: tuple[str, ...]
    about_subjects: int
    about_records: int
    aware_at: datetime
    authority: Mapping[str, Any]
    subjects: Mapping[str, Any]
    regimes: tuple[str, ...]
    due_at: datetime | None
    key_id: str
    sealed_text: bytes
    recorded_at: datetime
    updated_at: datetime
    keep_until: datetime


@dataclass(frozen=True, slots=True)
class Dataset(Record):
    """One version of a training set.

    `state` is `building` (a worker copies pictures; `cursor` is the consent it has come to),
    `ready`, or `stale` (something that was in it has been removed).  `skipped` counts subjects
    who were left out by reason, `refused` pictures that could not be made as `profile` wants them,
    by detail.  `profile` is what is done about faces; `metadata_free` in sets of before that was done.
    `key_id` is the key without which no picture in it opens.
    """

    dataset_id: str
    tenant: str
    label: str
    version: int
    state: str
    max_size: int
    size: int
    skipped: Mapping[str, Any]
    key_id: str
    cursor: str
    lease_owner: str
    lease_until: datetime | None
    created_at: datetime
    expires_at: datetime
    profile: str = "metadata_free"
    refused: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetItem(Record):
    """One picture of a training set: `live`, or `removed` and then nothing but its id and when.

    The copy is the object `object_id`, made of the output `source_object` of `job_id` by
    virtue of the consent `consent_id`; `similarity` is what was measured then between both, in thousandths.
    """

    item_id: str
    dataset_id: str
    tenant: str
    handle: str | None
    state: str
    job_id: str
    source_object: str
    object_id: str
    consent_id: str
    image_type: str
    sha256: str
    added_at: datetime
    removed_at: datetime | None
    similarity: int | None = None


@dataclass(frozen=True, slots=True)
class Certificate(Record):
    """What a finished erasure hands out: its leaf's event id and the opening of its commitment."""

    certificate_id: str
    tenant: str
    dsr_id: str
    event_id: str
    opening: bytes
    issued_at: datetime
    keep_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Remembered(Record):
    """An answered `request_id`: a keyed digest of the content, and the resource it made."""

    tenant: str
    method: str
    request_id: str
    digest: str
    resource: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Leaf(Record):
    """An audit leaf, queued with the change it describes; `seq` is None until it is sequenced."""

    event_id: str
    log: str
    ty: str
    line: bytes
    leaf_hash: bytes
    queued_at: datetime
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class SealedPayload(Record):
    """What one seal of a leaf fixes, encrypted under the subject's `audit` key of `month`; or its tombstone.

    `slot` is the seal's place in the leaf.  Once destroyed, `blob` is empty,
    `handle` None, and `erased_by` the id of the event that says so.
    """

    event_id: str
    slot: int
    log: str
    handle: str | None
    key_id: str
    month: str
    blob: bytes
    erased_by: str = ""


@dataclass(frozen=True, slots=True)
class Tile(Record):
    """A tile of a log's tree (C2SP tlog-tiles): up to 256 hashes of 32 bytes, from subtree 256 * index on."""

    log: str
    level: int
    index: int
    hashes: bytes


@dataclass(frozen=True, slots=True)
class LogHead(Record):
    """How far a log is sequenced.  `note` is the newest checkpoint that we signed, perhaps unpublished.

    Leaves below `min_index` are not kept any more; their hashes are.
    """

    log: str
    size: int
    root: bytes
    note: str
    min_index: int = 0


@dataclass(frozen=True, slots=True)
class LogKeys(Record):
    """All keys that a log ever signed with and the sizes that each may sign: a `keys.txt` (`audit.keys`).

    `handover` is the checkpoint of the newest rotation, signed by the old and the new keys; empty
    before there was one, and until it is signed.
    """

    log: str
    text: str
    handover: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint(Record):
    """A published checkpoint of a log (C2SP signed note), with the witnesses' cosignatures.

    The newest is always there; an older one only while `is_kept`, because an
    export was made of it or an authority stamped it.  `timestamp` is that
    authority's response over the note (RFC 3161, DER).
    """

    log: str
    size: int
    root: bytes
    note: str
    signed_at: datetime
    is_kept: bool = False
    timestamp: bytes | None = None


@dataclass(frozen=True, slots=True)
class WitnessedSize(Record):
    """The size of a log that a witness cosigned last, as far as we know."""

    log: str
    witness: str
    size: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A column in which something was seen; `is_known` where the table is one of ours."""

    table: str
    column: str
    is_known: bool


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search saw and how far it reached.

    `unread` counts the tables that the database shows and does not let us read.
    """

    seen: frozenset[Seen]
    tables: int
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Restore(Record):
    """A backup that was restored and is not settled yet: as long as there is one, nothing is served.

    `digest` is the SHA-256 of its file.  `logs` maps the origin of each log to its
    size in the backup; `settled` to the place up to which what happened since has
    been made good; `counts` to what was done so far, by name.
    """

    backup_id: str
    digest: str
    made_at: datetime
    logs: Mapping[str, Any]
    settled: Mapping[str, Any]
    counts: Mapping[str, Any]


STANDING = ("live", "held", "transient")
"""The states of a `StoredObject` that is there."""

PICTURES = ("original", "output")
"""The kinds of a `StoredObject` that is a picture."""


class Duplicate(Exception):
    """A record with this key, or this unique value, exists."""


class Missing(Exception):
    """No record with this key exists."""


class Transaction(Protocol):
    """One transaction; nothing of it is seen by others unless all of it is.

    Inside, reads see a single consistent state and the whole is serialisable:
    what was read still holds at commit.
    """

    def add(self, *records: Record) -> None:
        """Insert the records.

        Raises:
            Duplicate: The key of one is taken.
        """

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return the record with that primary key, or None."""

    def find(
        self,
        kind: type[R],
        *,
        equal: Mapping[str, Any] | None = None,
        among: Mapping[str, Sequence[Any]] | None = None,
        below: Mapping[str, Any] | None = None,
        above: Mapping[str, Any] | None = None,
        order_by: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[R]:
        """Return the records for which every condition holds.

        `equal` compares with `=` (None means IS NULL), `among` with IN, `below`
        with `<=`, `above` with `>` (each on non-null values).  `order_by` names
        fields, ascending, or descending with a leading `-`.
        """

    def count(self, kind: type[Record], *, equal: Mapping[str, Any] | None = None) -> int:
        """Return how many records match."""

    def put(self, *records: Record) -> None:
        """Replace the records that have the same keys.

        Raises:
            Missing: There is none for one of them.
        """

    def remove(self, *records: Record) -> None:
        """Delete the records by key; one that is gone already is no error."""

    def change(self, kind: type[Record], *, equal: Mapping[str, Any], to: Mapping[str, Any]) -> int:
        """Set the fields `to` in every record that matches, in one statement; return how many there were."""

    def discard(
        self, kind: type[Record], *, equal: Mapping[str, Any], below: Mapping[str, Any] | None = None
    ) -> int:
        """Delete every record that matches, in one statement; return how many there were."""


class Records(Protocol):
    """The records of all tenants.

    `StoreUnavailable` is raised when the database cannot be reached, is full or
    broken; nothing of the transaction then persists, except that a commit whose
    answer was lost may have (callers repeat under the same ids).
    """

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as one serialisable transaction and return its result once it is durable.

        `work` is plain code without side effects outside the transaction: it may
        be run again when the database reports a conflict.  If it raises, nothing
        is kept and the exception passes through.
        """

    async def scour(self) -> None:
        """Remove traces of deleted rows that the database would keep (WAL, free pages), where it can."""

    async def search(
        self, needles: Collection[bytes], *, skip: Collection[tuple[type[Record], str]] = ()
    ) -> Searched:
        """Look for the needles in every column of every table that the database itself knows of.

        What tables there are is asked of the database's catalogue, so one that this code
        does not know is searched as well.  A text is searched as UTF-8, bytes as they are,
        anything else in the database's own text form; the case of letters counts.  Each
        table is searched as it stands at one moment, in bounded memory, and nobody who
        writes is held up.  The columns (fields) in `skip` are left out.
        """

    async def close(self) -> None:
        """Let the database go."""


SUBJECT_TABLES: tuple[type[Record], ...] = (
    Subject,
    SubjectKey,
    Consent,
    Signal,
    StoredObject,
    Job,
    Dsr,
    Hold,
    SealedPayload,
    DatasetItem,
)
"""Every record kind with a `handle`; a test compares this with the fields themselves."""


def kinds() -> Iterable[type[Record]]:
    """Yield every record kind."""
    # `slots=True` makes each class anew; until it is collected, the first one is listed too.
    return [kind for kind in Record.__subclasses__() if globals().get(kind.__name__) is kind]
