"""The roof: the only room that knows every other.  It builds the doors and hands them to the flows."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from audit.errors import NoteInvalid, TrustInvalid
from audit.fsck import FsckReport, Step
from audit.keys import KeyBook
from audit.note import Algorithm, Signer
from audit.quorum import Policy
from audit.trust import Trust
from gateway import weights
from gateway.absence import Absence
from gateway.adapters import telemetry
from gateway.adapters.backup_file import BackupFile
from gateway.adapters.clock import SystemClock
from gateway.adapters.disk import Reserve
from gateway.adapters.dumps import forbid_dumps
from gateway.adapters.inference_comfyui import ComfyInference, Place, Workflow
from gateway.adapters.inference_contract import ContractedInference
from gateway.adapters.inference_grpc import GrpcInference
from gateway.adapters.inference_hosted import FalInference
from gateway.adapters.inference_http import Credential, HttpDoor, Tls
from gateway.adapters.inference_images import ImagesInference
from gateway.adapters.inference_oip import ModelMapping, OipInference, Tensor
from gateway.adapters.keys_local import LocalKeyring
from gateway.adapters.keys_split import FarKeys, SplitKeys
from gateway.adapters.lock_file import FileLock
from gateway.adapters.log_folder import LogFolder
from gateway.adapters.marking_c2pa import C2paMarker
from gateway.adapters.objects_local import FileObjects
from gateway.adapters.sql.records import is_sqlite, open_records, sqlite_path
from gateway.adapters.sql.snapshot import is_empty, load, snapshot
from gateway.adapters.survivors import FileSurvivors
from gateway.adapters.timestamp import HttpTimestamps
from gateway.adapters.witness_http import HttpWitness
from gateway.bell import Bell
from gateway.caller import Caller
from gateway.contract import under_contract
from gateway.controllers import ControllerFacts, Controllers
from gateway.debts import Debts
from gateway.deidentify import Scrubber
from gateway.deidentify.deidentified import Deidentifier
from gateway.deidentify.faces.names import needed
from gateway.deidentify.faces.pool import ImageDeidentifier
from gateway.deidentify.limits import Limits as ImageLimits
from gateway.deidentify.sandbox import ImageScrubber
from gateway.deidentify.text import PromptPolicy, PromptScrubber, TextScrubber
from gateway.errors import AuditUnavailable, LetheError, StoreUnavailable
from gateway.faces import Faces
from gateway.flows.analytics import Analytics
from gateway.flows.audit import Audit
from gateway.flows.backup import Backup
from gateway.flows.consent import Consents
from gateway.flows.dsr import HELD_CLASSES, Dsrs
from gateway.flows.erasure import Erasure
from gateway.flows.fsck import Fsck
from gateway.flows.fulfil import Fulfilment
from gateway.flows.generate import Generate, GenerateLimits
from gateway.flows.incident import BANDS, Incidents
from gateway.flows.job import Jobs
from gateway.flows.notice import Notices
from gateway.flows.propagate import Propagation
from gateway.flows.prune import Prune
from gateway.flows.publish import Publish, alarm_of
from gateway.flows.receipt import Receipts
from gateway.flows.register import STEPS, Register
from gateway.flows.release import Release
from gateway.flows.restore import Restoring
from gateway.flows.retention import Retention
from gateway.flows.revoke import Revoke, Revoked
from gateway.flows.rotation import Rotation
from gateway.flows.sequence import Sequence
from gateway.flows.stamp import Stamp
from gateway.flows.subject import Subjects
from gateway.flows.suppress import Suppress
from gateway.flows.sweep import Sweep, Swept
from gateway.flows.tenant import Tenants
from gateway.flows.training import Training
from gateway.flows.upload import QUEUE, Upload, UploadLimits
from gateway.holdings import in_order
from gateway.idempotency import Idempotency
from gateway.judge import Judge
from gateway.ledger import Ledger
from gateway.marking import Marks
from gateway.package import Packages
from gateway.package.gather import Gatherer
from gateway.packs import own_packs
from gateway.people import People
from gateway.ports.backup import Survivors
from gateway.ports.clock import Clock
from gateway.ports.files import LogFiles
from gateway.ports.inference import BackendFacts, BackendKind, Contract, Inference, Safeguards, Wanted
from gateway.ports.keys import KeyService
from gateway.ports.lock import CheckpointLock
from gateway.ports.marking import Marker, MarkingFailed
from gateway.ports.objects import ObjectStore
from gateway.ports.records import Leaf, LogHead, PackText, Records, Transaction
from gateway.ports.timestamp import TimestampInvalid, Timestamps
from gateway.ports.witness import Witness
from gateway.rpc import services as rpc
from gateway.rpc.analytics import AnalyticsService
from gateway.rpc.certificates import CertificateFiles, Reloader
from gateway.rpc.doorstep import Doorstep
from gateway.rpc.generation import GenerationService
from gateway.rpc.identity import Directory
from gateway.rpc.incident import IncidentService
from gateway.rpc.interceptors import Guard
from gateway.rpc.policy import PolicyService
from gateway.rpc.server import Services, make_server
from gateway.rpc.sight import Sight
from gateway.rpc.tenant import TenantService
from gateway.rpc.training import TrainingService
from gateway.settings import (
    BACKENDS,
    BackendSection,
    ComfyBackend,
    ConfigInvalid,
    ContractSection,
    DeidentifySection,
    FalBackend,
    HttpBackend,
    ImagesBackend,
    LetheBackend,
    MarkingSection,
    ObjectsSection,
    OipBackend,
    OtherBackend,
    PictureTensor,
    Settings,
    TimestampsSection,
    WitnessSection,
    is_private,
)
from gateway.transient import Transients
from gateway.vault import backup as backup_stream
from gateway.vault.custody import Custody
from gateway.vault.keys import KeyCache
from gateway.vault.safe import Safe
from policy.compiled import ready
from policy.pack import Pack, load_packs
from policy.retention import Line

if TYPE_CHECKING:
    from gateway.adapters.keys_pkcs11 import TokenPlace

KEY_CACHE_SIZE = 4096
KEY_CACHE_TTL = timedelta(minutes=5)
BACKEND_LOOK_S = 2.0
CONTRADICTIONS = ("contract_", "mapping_")
"""How the detail of a backend's fault begins that is one of the configuration, too."""
ROOM_LOOK_S = 5.0
EXPIRE_S = 5.0
"""How often at least what is due is destroyed; the rest of a sweep lists whole stores."""
STAMP_LOOK_S = 30.0
"""How often a checkpoint that is due is looked for, and an authority that failed is asked again."""
INCIDENT_LOOK_S = 60.0
SKEW = timedelta(seconds=5)
"""By how much a leaf's time may lag behind the log (the export verifier allows the same)."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything that lies outside: tests hand in fakes, `open_outside` opens the real ones."""

    clock: Clock
    records: Records
    objects: ObjectStore
    keys: KeyService
    scrubber: Scrubber
    deidentifier: Deidentifier
    prompts: TextScrubber
    confinement: Mapping[str, bool]
    backends: Mapping[str, Inference]
    lock: CheckpointLock
    witnesses: tuple[Witness, ...] = ()
    log_files: LogFiles | None = None
    timestamps: Timestamps | None = None
    marker: Marker | None = None
    survivors: Survivors | None = None
    need_room: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Flows:
    """Every verb, wired."""

    upload: Upload
    generate: Generate
    jobs: Jobs
    release: Release
    retention: Retention
    rotation: Rotation
    subjects: Subjects
    notices: Notices
    consents: Consents
    receipts: Receipts
    dsrs: Dsrs
    propagation: Propagation
    packages: Packages
    erasure: Erasure
    fulfilment: Fulfilment
    register: Register
    audit: Audit
    sequence: Sequence
    publish: Publish
    stamp: Stamp
    prune: Prune
    sweep: Sweep
    suppress: Suppress
    tenants: Tenants
    training: Training
    analytics: Analytics
    incidents: Incidents
    transients: Transients
    ledger: Ledger
    packs: Mapping[str, Pack]
    keys: KeyService
    records: Records
    backends: BackendBoard


@dataclass(slots=True)
class BackendBoard:
    """What each backend last declared of itself; one that does not answer is not on it."""

    backends: Mapping[str, Inference]
    kinds: Mapping[str, str]
    known: dict[str, BackendFacts] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """Why a backend is not on the board: the detail of its refusal."""

    async def look(self) -> None:
        """Ask every backend, all at once, and forget those that do not answer."""

        async def ask(name: str, backend: Inference) -> None:
            try:
                self.known[name] = await backend.describe()
                self.faults.pop(name, None)
            except LetheError as fault:
                self.known.pop(name, None)
                self.faults[name] = fault.detail

        await asyncio.gather(*(ask(name, backend) for name, backend in self.backends.items()))


def flows(
    settings: Settings,
    outside: Outside,
    signers: Mapping[str, tuple[Signer, ...]],
    alarm: Callable[..., None] = lambda _name, *_places: None,
    retiring: Mapping[str, tuple[Signer, ...]] | None = None,
    heard: Callable[[str, str, bool], None] = lambda _witness, _code, _is_new: None,
) -> Flows:
    """Hand each flow the doors it needs and no others.

    `alarm` hears of what a person must look at, and where; `heard` what witnesses answer (`Publish`).
    """
    clock, records, objects, keys = outside.clock, outside.records, outside.objects, outside.keys
    origins = {name: tenant.log_origin for name, tenant in settings.tenants.items()}
    controllers = Controllers(
        {
            name: ControllerFacts(
                name=t.controller.name,
                contact=t.controller.contact,
                establishments=t.controller.establishments,
                targets=t.controller.targets,
                time_zone=t.time_zone,
                calendar=t.calendar,
                is_training_on=t.training,
                recipients={code: one.model_dump(mode="json") for code, one in sorted(t.recipients.items())},
            )
            for name, t in settings.tenants.items()
        }
    )
    packs = load_packs(own_packs(settings.policy.packs_dir))
    for pack in packs.values():
        ready(pack)
    policies = read_policies(settings)
    ledger = Ledger(clock, origins)
    custody = Custody(
        records,
        keys,
        clock,
        KeyCache(KEY_CACHE_SIZE, KEY_CACHE_TTL, clock),
        lambda _number: alarm("subject_key_lost"),
        survivors=outside.survivors,
    )
    people = People(records, keys, custody, timedelta(days=settings.audit.payload_term_days))
    judge = Judge(packs, controllers, ledger)
    marks = make_marks(settings.marking, judge, outside.marker)
    idempotency = Idempotency(keys, clock)
    safe = Safe(custody, objects, clock)
    faces = Faces(outside.deidentifier, settings.deidentify.max_faces)
    holdings = in_order(ledger)
    board = BackendBoard(outside.backends, {section.name: section.kind for section in settings.backends})
    gatherer = Gatherer(
        records, people, holdings, packs, controllers, ledger, safe, lambda: board.known, signers
    )
    packages = Packages(gatherer, safe, clock)
    bell = Bell()
    jobs = settings.jobs
    poll_s = jobs.poll_ms / 1000
    debts = Debts(records, clock, settings.sweep.tries, lambda kind: alarm("debt_set_aside", kind))
    transients = Transients(settings.limits.max_transient_bytes)
    zero_retention = frozenset(name for name, tenant in settings.tenants.items() if tenant.zero_retention)
    # A call that takes a picture in and gives the result back lasts no longer.
    transient_ttl = timedelta(seconds=settings.listen.max_deadline_s)
    return Flows(
        upload=Upload(
            records=records,
            people=people,
            judge=judge,
            ledger=ledger,
            idempotency=idempotency,
            keys=keys,
            safe=safe,
            faces=faces,
            prompts=outside.prompts,
            backends=lambda: board.known,
            clock=clock,
            limits=UploadLimits(
                max_image_bytes=settings.limits.max_image_bytes,
                max_in_flight=settings.limits.max_uploads_in_flight,
                max_receive_s=settings.limits.max_upload_s,
                original_ttl=timedelta(hours=jobs.original_ttl_h),
                output_ttl=timedelta(hours=jobs.output_ttl_h),
                max_backend_retention_s=jobs.max_backend_retention_s,
                transient_ttl=transient_ttl,
                lease=timedelta(seconds=jobs.lease_s),
            ),
            transients=transients,
            zero_retention=zero_retention,
            marks=marks,
            bell=bell,
        ),
        generate=Generate(
            records=records,
            people=people,
            judge=judge,
            ledger=ledger,
            safe=safe,
            objects=objects,
            scrubber=outside.scrubber,
            backends=outside.backends,
            known=lambda: board.known,
            clock=clock,
            limits=GenerateLimits(
                lease=timedelta(seconds=jobs.lease_s),
                attempts=jobs.attempts,
                output_ttl=timedelta(hours=jobs.output_ttl_h),
                poll_s=poll_s,
                max_backend_retention_s=jobs.max_backend_retention_s,
                transient_ttl=transient_ttl,
            ),
            transients=transients,
            debts=debts,
            marks=marks,
            subject_spans={
                section.name: timedelta(days=section.pseudonym_days)
                for section in settings.backends
                if section.pseudonym == "subject"
            },
            bell=bell,
        ),
        jobs=Jobs(records, people, ledger, objects, clock, poll_s, bell),
        release=Release(records, people, judge, ledger, safe, clock, transients, marks),
        retention=Retention(records, people, packs, _terms(settings), ledger, idempotency, clock),
        rotation=Rotation(
            records, custody, keys, ledger, clock, timedelta(hours=settings.keys.destroy_within_h), debts
        ),
        subjects=Subjects(records, people, ledger, idempotency, holdings, objects, clock),
        notices=Notices(records, ledger, idempotency, clock),
        consents=Consents(records, people, judge, ledger, idempotency, objects, clock, poll_s),
        receipts=Receipts(records, people, ledger, controllers, signers, clock),
        dsrs=Dsrs(
            records,
            people,
            judge,
            holdings,
            packs,
            controllers,
            ledger,
            idempotency,
            clock,
            two_person=settings.access.two_person,
        ),
        propagation=Propagation(records, people, judge, ledger, clock),
        packages=packages,
        erasure=Erasure(
            records,
            holdings,
            custody,
            keys,
            objects,
            people,
            judge,
            HELD_CLASSES,
            ledger,
            clock,
            lease=timedelta(seconds=jobs.lease_s),
            poll_s=poll_s,
            absence=Absence(records, objects, keys, custody.cache, ledger),
            on_found=lambda *places: alarm("erasure_incomplete", *places),
        ),
        fulfilment=Fulfilment(
            records,
            ledger,
            objects,
            packs,
            clock,
            lease=timedelta(seconds=jobs.lease_s),
            judge=judge,
            make_package=packages.make,
        ),
        register=Register(records, packs, controllers, clock),
        audit=Audit(records, ledger, signers, policies, custody),
        sequence=Sequence(records, outside.lock, signers, clock, ledger, retiring or {}),
        publish=Publish(
            records,
            clock,
            ledger,
            policies,
            outside.witnesses,
            outside.log_files,
            heard,
        ),
        stamp=Stamp(
            records,
            clock,
            origins,
            outside.timestamps,
            timedelta(seconds=stamping.interval_s if (stamping := settings.audit.timestamps) else 0),
            outside.log_files,
        ),
        prune=Prune(records, ledger, clock, _days(settings.audit.entry_term_days), outside.log_files),
        sweep=Sweep(
            records,
            objects,
            ledger,
            clock,
            timedelta(seconds=settings.sweep.orphan_grace_s),
            keys,
            judge,
            debts,
        ),
        suppress=Suppress(
            records,
            objects,
            keys,
            custody,
            holdings,
            judge,
            packs,
            ledger,
            clock,
            outside.lock,
            signers,
            HELD_CLASSES,
            outside.log_files,
            outside.survivors,
            lambda *what: alarm("restore_lost", *what),
        ),
        transients=transients,
        ledger=ledger,
        incidents=Incidents(records, people, judge, packs, controllers, ledger, idempotency, clock),
        training=Training(
            records,
            people,
            judge,
            controllers,
            ledger,
            idempotency,
            safe,
            objects,
            faces,
            clock,
            term=timedelta(hours=jobs.output_ttl_h),
            lease=timedelta(seconds=jobs.lease_s),
        ),
        analytics=Analytics(records, people, judge, ledger, safe, faces, clock),
        tenants=Tenants(records, controllers, ledger, idempotency, clock),
        packs=packs,
        keys=keys,
        records=records,
        backends=board,
    )


def _terms(settings: Settings) -> dict[str, tuple[Line, ...]]:
    """Return the terms that this deployment is told, by tenant, as lines of the retention schedule."""
    hours = {"original": settings.jobs.original_ttl_h, "output": settings.jobs.output_ttl_h}
    told = {kind: f"PT{length:g}H" for kind, length in hours.items()}
    told["audit"] = f"P{settings.audit.payload_term_days}D"
    nothing = {**told, **dict.fromkeys(hours, "PT0S")}  # in memory while a call lasts, and never stored
    return {
        name: tuple(
            Line("deployment", "house", kind, None, length, "", ("This gateway's configuration",))
            for kind, length in (nothing if tenant.zero_retention else told).items()
        )
        for name, tenant in settings.tenants.items()
    }


def _days(number: int | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)


def services(wired: Flows) -> Services:
    """Put each flow behind its service of the contract; what is missing here answers METHOD_NOT_BUILT."""
    origins = wired.ledger.origins
    board = wired.backends
    return Services(
        {
            "lethe.v1.GenerationService": GenerationService(
                wired.upload, wired.jobs, wired.release, wired.consents
            ),
            "lethe.v1.SubjectService": rpc.SubjectService(wired.subjects, wired.consents),
            "lethe.v1.NoticeService": rpc.NoticeService(wired.notices),
            "lethe.v1.ConsentService": rpc.ConsentService(
                wired.consents, wired.receipts, wired.audit, wired.upload.people
            ),
            "lethe.v1.DsrService": rpc.DsrService(
                wired.dsrs, wired.register, wired.propagation, wired.packages, wired.audit
            ),
            "lethe.v1.RetentionService": rpc.RetentionService(
                wired.retention, wired.sweep, wired.upload.people
            ),
            "lethe.v1.AuditService": rpc.AuditService(wired.audit),
            "lethe.v1.PolicyService": PolicyService(wired.packs),
            "lethe.v1.BackendService": rpc.BackendService(board.kinds, lambda: board.known),
            "lethe.v1.KeyService": rpc.KeyService_(wired.keys, wired.records, wired.rotation),
            "lethe.v1.IncidentService": IncidentService(wired.incidents),
            "lethe.v1.AnalyticsService": AnalyticsService(wired.analytics),
            "lethe.v1.TrainingService": TrainingService(wired.training),
            "lethe.v1.TenantService": TenantService(wired.tenants, origins),
        }
    )


def records_url(settings: Settings) -> str:
    """Return the database URL with the password from its file."""
    section = settings.records
    if section.password_file is None:
        return section.url
    try:
        password = section.password_file.read_text().strip()
    except OSError as error:
        raise ConfigInvalid("records.password_file cannot be read") from error
    parts = urlsplit(section.url)
    user, place = parts.username or "", parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))


def read_signers(settings: Settings) -> dict[str, tuple[Signer, ...]]:
    """Return the signers of each tenant's log, Ed25519 first; the keys' name is the log's origin.

    Raises:
        ConfigInvalid: A seed cannot be read.
    """
    section = settings.audit
    return _signers(settings, "signing_key", section.signing_key, section.signing_key_mldsa)


def read_retiring(settings: Settings) -> dict[str, tuple[Signer, ...]]:
    """Return the signers of each tenant's log that hand over to those of `read_signers`, if there are any.

    Raises:
        ConfigInvalid: A seed cannot be read.
    """
    section = settings.audit
    return _signers(
        settings, "retiring_signing_key", section.retiring_signing_key, section.retiring_signing_key_mldsa
    )


def _signers(
    settings: Settings, name: str, ed25519: Path | None, mldsa: Path | None
) -> dict[str, tuple[Signer, ...]]:
    files: dict[Algorithm, Path | None] = {"ed25519": ed25519, "ml-dsa-44": mldsa}
    try:
        seeds = {name: bytes.fromhex(path.read_text().strip()) for name, path in files.items() if path}
        return {
            tenant.log_origin: tuple(Signer(tenant.log_origin, seed, name) for name, seed in seeds.items())
            for tenant in settings.tenants.values()
        }
    except (OSError, ValueError, NoteInvalid) as error:
        raise ConfigInvalid(f"audit.{name} cannot be read") from error


def read_policies(settings: Settings) -> dict[str, Policy]:
    """Return what each log needs to be published beside its own signatures: the configured quorum.

    Raises:
        ConfigInvalid: The policy file is none.
    """
    asked = Policy((), (), (), "none")
    if settings.audit.policy is not None:
        try:
            asked = Policy.parse(settings.audit.policy.read_bytes())
        except (OSError, TrustInvalid) as error:
            raise ConfigInvalid("audit.policy is no tlog-policy") from error
    return {tenant.log_origin: replace(asked, logs=()) for tenant in settings.tenants.values()}


def witness(section: WitnessSection) -> HttpWitness:
    """Return the door to one witness."""
    try:
        return HttpWitness(section.url, section.vkey, timeout_s=section.timeout_s, ca=section.ca)
    except (OSError, NoteInvalid, ValueError) as error:
        raise ConfigInvalid("audit.witnesses: a key or a certificate cannot be read") from error


def timestamps(section: TimestampsSection) -> HttpTimestamps:
    """Return the door to the timestamping authority.

    Raises:
        ConfigInvalid: Its certificates cannot be read.
    """
    try:
        return HttpTimestamps(
            section.url, section.roots.read_bytes(), timeout_s=section.timeout_s, ca=section.ca
        )
    except (OSError, TimestampInvalid) as error:
        raise ConfigInvalid("audit.timestamps: a certificate cannot be read") from error


async def open_marker(section: MarkingSection) -> Marker:
    """Return the door to the signer of marks, once it has signed for a blank picture and is believed.

    Raises:
        ConfigInvalid: A file cannot be read, or the certificate is not one to sign with today.
    """
    try:
        if not is_private(section.key):
            raise ConfigInvalid("marking.key: the file is open to other users")
        marker = C2paMarker(
            section.key.read_bytes(), section.chain.read_bytes(), section.anchors.read_bytes()
        )
        await marker.rehearse()
    except (OSError, ValueError, TypeError, MarkingFailed) as error:
        raise ConfigInvalid("marking: the key or a certificate cannot be used") from error
    return marker


def make_marks(section: MarkingSection | None, judge: Judge, marker: Marker | None) -> Marks:
    """Return what asks for marks, told who else puts one on."""
    watermark = frozenset({"watermark"})
    return Marks(
        judge,
        marker,
        elsewhere=watermark if section is not None and section.watermark_elsewhere else frozenset(),
        waived=watermark if section is not None and section.unsafe_no_watermark else frozenset(),
    )


def inference(section: BackendSection) -> Inference:
    """Return the door to one backend, by its kind.

    Raises:
        ConfigInvalid: A file cannot be read, or the kind refuses what the section says.
    """
    try:
        return _inference(section)
    except OSError as error:
        raise ConfigInvalid(f"backends.{section.name}: a file cannot be read") from error
    except ValueError as error:
        raise ConfigInvalid(f"backends.{section.name}: {error}") from error


def _inference(section: BackendSection) -> Inference:
    """Return the door; what lies at a path that the section names is read here, once."""
    if isinstance(section, OipBackend):
        return OipInference(
            name=section.name,
            address=section.address,
            server_name=section.server_name,
            ca=section.ca.read_bytes(),
            cert=section.cert.read_bytes() if section.cert else None,
            key=section.key.read_bytes() if section.key else None,
            timeout_s=section.timeout_s,
            contract=contract(section.contract),
            mapping=ModelMapping(
                model=section.model,
                version=section.model_version,
                input=tensor(section.input),
                output=tensor(section.output),
                prompt=section.prompt_tensor or "",
                style=section.style_tensor or "",
            ),
        )
    if isinstance(section, HttpBackend):
        return _http_inference(section)
    if isinstance(section, OtherBackend):
        return _other_inference(section)
    if not isinstance(section, LetheBackend):
        raise ConfigInvalid(f"backends.{section.name}.kind: there is no such kind")
    spoken = GrpcInference(
        name=section.name,
        address=section.address,
        server_name=section.server_name,
        ca=section.ca.read_bytes(),
        cert=section.cert.read_bytes(),
        key=section.key.read_bytes(),
        timeout_s=section.timeout_s,
    )
    return ContractedInference(spoken, contract(section.contract)) if section.contract else spoken


def _http_inference(section: HttpBackend) -> Inference:
    """Return the door to a backend that says nothing of itself, behind HTTP."""
    declared = under_contract(
        contract(section.contract),
        name=section.name,
        version="unknown",
        device="hosted",
        model_digest=hashlib.sha256(getattr(section, "model", "").encode()).hexdigest(),
    )
    scheme = "Key" if isinstance(section, FalBackend) else "Bearer"
    door = _http_door(section, section.url, section.credential, scheme)
    if isinstance(section, ImagesBackend):
        return ImagesInference(
            door, declared, model=section.model, styles=section.styles, parameters=section.parameters
        )
    if isinstance(section, FalBackend):
        return FalInference(
            door,
            _http_door(section, section.platform_url, section.platform_credential, scheme),
            declared,
            model=section.model,
            styles=section.styles,
            parameters=section.parameters,
            image_field=section.image_field,
            expires_s=section.expires_s,
            poll_s=section.poll_s,
        )
    if isinstance(section, ComfyBackend):
        workflow = Workflow.read(
            section.workflow.read_bytes(),
            image=Place.parse(section.image),
            output=section.output,
            prompt=Place.parse(section.prompt) if section.prompt else None,
            seed=Place.parse(section.seed) if section.seed else None,
            prefix=Place.parse(section.prefix) if section.prefix else None,
        )
        return ComfyInference(
            door,
            declared,
            workflow,
            styles=section.styles,
            poll_s=section.poll_s,
            frees_memory=section.frees_memory,
        )
    raise ConfigInvalid(f"backends.{section.name}.kind: there is no such kind")


def _http_door(section: HttpBackend, url: str, credential: Path | None, scheme: str) -> HttpDoor:
    return HttpDoor(
        url,
        timeout_s=section.timeout_s,
        tls=Tls(section.ca, section.cert, section.key, section.server_name),
        credential=Credential(credential, scheme) if credential else None,
    )


def _other_inference(section: OtherBackend) -> Inference:
    """Return the door that another package brings, held to the contract."""
    found = tuple(entry_points(group=BACKENDS, name=section.kind))
    if len(found) != 1:
        raise ConfigInvalid(f"backends.{section.name}.kind: {len(found)} packages bring it")
    make: BackendKind = found[0].load()
    held_to = contract(section.contract)
    spoken = make(Wanted(section.name, held_to, section.timeout_s, section.options, section.files))
    return ContractedInference(spoken, held_to)


def contract(section: ContractSection) -> Contract:
    """Return what the operator has in writing of a backend."""
    said = section.model_dump(exclude={"face_features", "safeguards"})
    safeguards = Safeguards(**section.safeguards.model_dump(exclude_none=True))
    # A detector's landmarks are a landmark map, if only for a moment (law.md 2.3).
    return Contract(**said, template_extracted=section.face_features != "none", safeguards=safeguards)


def tensor(section: PictureTensor) -> Tensor:
    """Return which tensor holds a picture, and how."""
    return Tensor(section.tensor, section.form, section.batched)


def refuse_contradictions(board: BackendBoard) -> None:
    """Refuse to start where a backend that answers is not the one that the configuration describes.

    One that changes later is off the board for as long as it differs.

    Raises:
        ConfigInvalid: It says what its contract denies, or has other tensors (`contract_*`, `mapping_*`).
    """
    for name, detail in sorted(board.faults.items()):
        if detail.startswith(CONTRADICTIONS):
            raise ConfigInvalid(f"backends.{name}: the backend is another than the one described ({detail})")


def keyring(settings: Settings) -> Path:
    """Return the directory of the local keyring; what `load` accepted has one where it needs one."""
    if settings.keys.directory is None:
        raise ConfigInvalid("keys.directory: missing")
    return settings.keys.directory


def token_place(settings: Settings) -> TokenPlace:
    """Return which token of which module is the key service."""
    from gateway.adapters.keys_pkcs11 import TokenPlace

    section = settings.keys.pkcs11
    if section is None:
        raise ConfigInvalid("keys.pkcs11: missing")
    return TokenPlace(section.module, section.token, section.pin_file, section.serial)


def open_keys(settings: Settings, stack: contextlib.AsyncExitStack) -> KeyService:
    """Return the key service that is configured; what it needs an extra for is imported only here."""
    if settings.keys.pkcs11 is not None and settings.keys.kind == "pkcs11":
        from gateway.adapters.keys_pkcs11 import TokenKeys

        section = settings.keys.pkcs11
        token = TokenKeys(token_place(settings), deadline_s=section.timeout_s, has_copies=section.has_copies)
        stack.push_async_callback(token.close)
        return token
    near = LocalKeyring(keyring(settings))
    far = far_keys(settings)
    if far is None:
        return near
    stack.push_async_callback(far.close)
    return SplitKeys(far, near)


def far_keys(settings: Settings) -> FarKeys | None:
    """Return the service that holds the epoch keys, where it is not the local keyring."""
    section = settings.keys
    if section.kind == "aws" and section.aws is not None:
        from gateway.adapters.keys_aws import AwsKeys

        return AwsKeys.connect(**section.aws.model_dump())
    if section.kind == "transit" and section.transit is not None:
        from gateway.adapters.keys_transit import TransitKeys

        try:
            return TransitKeys.connect(**section.transit.model_dump())
        except OSError as error:
            raise ConfigInvalid("keys.transit.ca cannot be read") from error
    return None


def room(settings: Settings) -> Callable[[], None]:
    """Return what raises where the records' file system has no room for something new; see `Reserve`."""
    section = settings.records
    if not is_sqlite(section.url):
        return lambda: None
    return Reserve(sqlite_path(section.url), section.reserve_bytes).need_room


async def make_keys(settings: Settings) -> None:
    """Make what the key service hangs on, once.

    Raises:
        FileExistsError: It is there, or what is left of one.
        KeyServiceUnavailable: The key service does not answer.
        OSError: The disk refuses.
    """
    if settings.keys.kind == "pkcs11":
        from gateway.adapters.keys_pkcs11 import TokenKeys

        await TokenKeys.create(token_place(settings))
    else:
        LocalKeyring.create(keyring(settings))


def make_deidentifier(section: DeidentifySection, limits: ImageLimits) -> ImageDeidentifier:
    """Return the workers that see to faces, not started yet.

    Raises:
        ConfigInvalid: A model file is missing, or is another than the manifest's.
    """
    try:
        files = weights.read(
            weights.directory(section.weights), weights.named(*needed(mask_text=section.mask_text))
        )
    except weights.WeightsInvalid as error:
        raise ConfigInvalid(f"deidentify.weights: {error}") from error
    return ImageDeidentifier(
        limits,
        files,
        max_similarity=round(section.max_similarity * 1000),
        workers=section.workers,
        timeout_s=section.timeout_s,
    )


async def open_objects(section: ObjectsSection, stack: contextlib.AsyncExitStack) -> ObjectStore:
    """Return the object store, to be closed with `stack`.

    Raises:
        ConfigInvalid: The extra it needs is not installed, or a file it names cannot be read.
        StoreUnavailable: It does not answer, or cannot keep what the gateway promises.
    """
    if section.directory is not None:
        return FileObjects(section.directory, reserve_bytes=section.reserve_bytes)
    if section.s3 is None:
        raise ConfigInvalid("objects: neither a directory nor a bucket")
    try:
        from gateway.adapters.objects_s3 import S3Objects
    except ModuleNotFoundError as error:
        raise ConfigInvalid("objects.kind s3 needs the extra `s3`: pip install 'lethe[s3]'") from error
    opened = await S3Objects.open(section.s3)
    stack.callback(opened.close)
    return opened


@contextlib.asynccontextmanager
async def open_outside(settings: Settings) -> AsyncIterator[Outside]:
    """Open everything that lies outside, and close it again in the opposite order.

    Raises:
        SchemaMismatch: The database wants `lethe migrate`, or a newer Lethe.
        ConfigInvalid: A file that the configuration names cannot be read.
    """
    async with contextlib.AsyncExitStack() as stack:
        records = open_records(records_url(settings))
        stack.push_async_callback(records.close)
        await records.check_schema()
        backends = {section.name: inference(section) for section in settings.backends}
        for backend in backends.values():
            stack.push_async_callback(backend.close)
        limits = ImageLimits(max_bytes=settings.limits.max_image_bytes, max_pixels=settings.limits.max_pixels)
        scrubber = ImageScrubber(
            limits, workers=settings.limits.scrub_workers, timeout_s=settings.limits.scrub_timeout_s
        )
        deidentifier = make_deidentifier(settings.deidentify, limits)
        for pool in (scrubber, deidentifier):
            await pool.start()
            stack.push_async_callback(pool.close)
        prompts = PromptScrubber(
            PromptPolicy(settings.prompts.actions), settings.prompts.timeout_s, settings.prompts.ner
        )
        await prompts.start()
        stack.push_async_callback(prompts.close)
        lock = FileLock(lock_directory(settings))
        stack.callback(lock.close)
        witnesses = tuple(map(witness, settings.audit.witnesses))
        for door in witnesses:
            stack.push_async_callback(door.close)
        stamping = timestamps(settings.audit.timestamps) if settings.audit.timestamps else None
        if stamping is not None:
            stack.push_async_callback(stamping.close)
        yield Outside(
            clock=SystemClock(),
            records=records,
            objects=await open_objects(settings.objects, stack),
            keys=open_keys(settings, stack),
            scrubber=scrubber,
            deidentifier=deidentifier,
            prompts=prompts,
            confinement={
                wall: stands and deidentifier.confinement[wall] and prompts.confinement[wall]
                for wall, stands in scrubber.confinement.items()
            },
            backends=backends,
            lock=lock,
            witnesses=witnesses,
            log_files=LogFolder(settings.audit.published) if settings.audit.published else None,
            timestamps=stamping,
            marker=await open_marker(settings.marking) if settings.marking else None,
            survivors=FileSurvivors(survivors_directory(settings)),
            need_room=room(settings),
        )


@dataclass(slots=True)
class Watch:
    """Alarms and gauges of what runs in the background."""

    registry: CollectorRegistry
    alarms: Counter = field(init=False)
    answers: Counter = field(init=False)
    failing: Gauge = field(init=False)
    queue: Gauge = field(init=False)
    incidents: Gauge = field(init=False)
    due: Gauge = field(init=False)
    _counted: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Register the metrics."""
        self.alarms = Counter(
            "lethe_alarms", "Things a person must look at.", ("alarm",), registry=self.registry
        )
        self.answers = Counter(
            "lethe_witness_answers",
            "What witnesses answered to a head.",
            ("witness", "code"),
            registry=self.registry,
        )
        self.failing = Gauge(
            "lethe_failing_seconds",
            "For how long what the alarm names has not worked.",
            ("alarm",),
            registry=self.registry,
        )
        self.queue = Gauge("lethe_swept_objects", "Objects the last sweep ended.", registry=self.registry)
        self.incidents = Gauge(
            "lethe_incidents_due", "Breaches by the time left.", ("left",), registry=self.registry
        )
        self.due = Gauge(
            "lethe_requests_due",
            "Open requests of data subjects that are due within so many days, overdue ones included.",
            ("days",),
            registry=self.registry,
        )

    def count_due(self, left: Mapping[int, int]) -> None:
        """Show how many open requests are due in so many days; more that are due today raise the alarm."""
        for days, number in left.items():
            self.due.labels(str(days)).set(number)
        self._count("request_due", left[STEPS[0]])

    def alarm(self, name: str, *places: str) -> None:
        """Raise an alarm: counted, and one line in the log, or one for each place."""
        self.alarms.labels(name).inc()
        for where in [{"place": place} for place in places] or [{}]:
            structlog.get_logger().error("alarm_raised", alarm=name, **where)

    def press(self, left: Mapping[str, int]) -> None:
        """Show how many breaches wait to be told of; more than before in a band is an alarm."""
        for band in BANDS:
            number = left.get(band, 0)
            self.incidents.labels(band).set(number)
            self._count(f"incident_{band}", number)

    def _count(self, alarm: str, number: int) -> None:
        """Raise an alarm where there are more of what it is about than at the last count."""
        if number > self._counted.get(alarm, 0):
            self.alarm(alarm)
        self._counted[alarm] = number

    def heard(self, witness: str, code: str, is_new: bool) -> None:
        """Count what a witness answered; raise an alarm where it is new and neither consent nor an outage."""
        self.answers.labels(witness, code).inc()
        if is_new:
            structlog.get_logger().warning("witness_objects", witness=witness, detail=code)
            self.alarm(alarm_of(code))


async def serve(
    settings: Settings,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    wrap: Callable[[Outside], Outside] = lambda outside: outside,
) -> None:
    """Run the gateway until `stop` is set, then drain.

    `ready` is called with the bound address once calls are taken.  `wrap` may put
    something between the flows and their doors: a fault, a recorder, a meter.
    """
    registry = CollectorRegistry()
    watch = Watch(registry)
    provider = telemetry.set_up_traces(settings.telemetry.otlp_endpoint)
    sight = Sight(telemetry.tracer(provider), registry)
    signers, retiring = read_signers(settings), read_retiring(settings)
    if any(tenant.zero_retention for tenant in settings.tenants.values()):
        refuse_dumps()
    async with open_outside(settings) as opened:
        outside = wrap(opened)
        wired = flows(settings, outside, signers, watch.alarm, retiring, watch.heard)
        await refuse_past(wired)
        await keep_packs(wired)
        await settle_restore(wired)
        await refuse_rollback(wired)
        with contextlib.suppress(LetheError):
            await wired.publish.run()
        await wired.backends.look()
        refuse_contradictions(wired.backends)
        warn_of_confinement(outside.confinement, watch)
        listen = settings.listen
        doorstep = Doorstep(registry, watch.alarm, listen.refused_alarm_per_minute, listen.handshake_grace_s)
        reloader = Reloader(
            CertificateFiles(listen.cert, listen.key, listen.client_ca),
            alarm=lambda _fault: watch.alarm("certificate_bad"),
            knock=doorstep.knock,
        )
        guard = Guard(
            directory(settings),
            sight,
            doorstep,
            refusal_log(wired),
            listen.min_deadline_ms / 1000,
            float(listen.max_deadline_s),
            acquaintance(wired),
            outside.need_room,
        )
        try:
            server = await make_server(services(wired), guard, reloader.credentials(), listen)
        except RuntimeError as error:
            raise ConfigInvalid("listen.address cannot be listened on") from error
        close_metrics = metrics_port(settings, registry)
        await server.rpc.start()
        ready(server.address)
        structlog.get_logger().info("gateway_ready", address=server.address)
        tasks = background(settings, wired, reloader, doorstep, watch, outside.need_room)
        try:
            await stop.wait()
        finally:
            await server.drain(listen.drain_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            wired.transients.clear()
            with contextlib.suppress(LetheError):
                await wired.sequence.run()
                await wired.publish.run()
            await asyncio.to_thread(provider.shutdown)
            await asyncio.to_thread(close_metrics)
            structlog.get_logger().info("gateway_stopped")


def background(
    settings: Settings,
    wired: Flows,
    reloader: Reloader,
    doorstep: Doorstep,
    watch: Watch,
    need_room: Callable[[], None],
) -> list[asyncio.Task[None]]:
    """Start the loops that work without a caller."""

    async def watch_door() -> None:
        reloader.refresh()
        doorstep.count()

    async def look_for_room() -> None:
        need_room()

    async def forget_keys() -> None:
        wired.upload.people.custody.cache.expire()

    def note(swept: Swept) -> None:
        watch.queue.set(swept.expired)
        if swept.expired or swept.reaped or swept.orphans:
            structlog.get_logger().info(
                "swept", expired=swept.expired, reaped=swept.reaped, orphans=swept.orphans
            )

    async def press() -> None:
        watch.press(await wired.incidents.pressing())

    async def watch_due() -> None:
        watch.count_due(await wired.register.left())

    async def expire() -> None:
        note(Swept(await wired.sweep.expire(), 0, 0))

    async def sweep() -> None:
        note(await wired.sweep.run())
        await wired.rotation.retire()

    async def until_idle(run_one: Callable[[], Awaitable[bool]]) -> None:
        while await run_one():
            pass

    poll_s = settings.jobs.poll_ms / 1000
    loops: list[tuple[str, float, Callable[[], Awaitable[object]]]] = [
        ("sequence_failing", settings.audit.sequence_interval_ms / 1000, wired.sequence.run),
        ("publish_failing", settings.audit.sequence_interval_ms / 1000, wired.publish.run),
        ("expire_failing", min(EXPIRE_S, settings.sweep.interval_s), expire),
        ("sweep_failing", settings.sweep.interval_s, sweep),
        ("timestamp_failing", STAMP_LOOK_S, wired.stamp.run),
        ("incident_watch_failing", INCIDENT_LOOK_S, press),
        ("prune_failing", settings.sweep.interval_s, wired.prune.run),
        ("door_watch_failing", settings.listen.reload_s, watch_door),
        ("backend_watch_failing", BACKEND_LOOK_S, wired.backends.look),
        ("disk_reserve", ROOM_LOOK_S, look_for_room),
        ("key_cache_failing", KEY_CACHE_TTL.total_seconds() / 10, forget_keys),
        ("forget_failing", BACKEND_LOOK_S, wired.generate.settle),
        ("transient_failing", poll_s, wired.generate.tend),
        ("training_failing", BACKEND_LOOK_S, lambda: until_idle(wired.training.run_one)),
        ("erasure_failing", poll_s, lambda: until_idle(wired.erasure.run_one)),
        ("fulfilment_failing", poll_s, lambda: until_idle(wired.fulfilment.run_one)),
        ("due_watch_failing", settings.sweep.interval_s, watch_due),
    ]
    loops += [
        ("generate_failing", poll_s, lambda: until_idle(wired.generate.run_one))
    ] * settings.jobs.workers
    bell = wired.generate.bell
    return [asyncio.create_task(_forever(name, every, work, watch, bell)) for name, every, work in loops]


async def _forever(
    name: str, every_s: float, work: Callable[[], Awaitable[object]], watch: Watch, bell: Bell
) -> None:
    """Do `work` again and again; a failure raises the alarm once, and it ages until it works again.

    The workers' loop is woken by an upload, too.
    """
    failing_since: float | None = None
    with bell.listen(QUEUE if name == "generate_failing" else name) as ear:
        while True:
            try:
                await work()
                if failing_since is not None:
                    watch.failing.labels(name).set(0)
                failing_since = None
            except Exception as fault:  # noqa: BLE001 - a loop that dies silently would fail open
                now = time.monotonic()
                if failing_since is None:
                    failing_since = now
                    watch.alarm(name)
                    structlog.get_logger().error("loop_failed", alarm=name, fault=type(fault).__name__)
                watch.failing.labels(name).set(now - failing_since)
            await ear.wait(every_s)


def directory(settings: Settings) -> Directory:
    """Return the callers by identity."""
    return Directory({c.identity: Caller(c.tenant, c.name, c.role, c.is_person) for c in settings.callers})


def refusal_log(wired: Flows) -> Callable[[Caller, str, LetheError], Awaitable[None]]:
    """Return what writes a refused access to the log."""

    async def write(caller: Caller, method: str, refusal: LetheError) -> None:
        await wired.records.transact(
            lambda tx: wired.ledger.record(
                tx, caller.tenant, "access.refused", caller, mthd=method, rc=refusal.code
            )
        )

    return write


def acquaintance(wired: Flows) -> Callable[[Caller], Awaitable[None]]:
    """Return what makes the log name a person of the staff under a key of their own."""

    async def know(person: Caller) -> None:
        wired.ledger.know(person, await wired.upload.people.staff_key(person))

    return know


async def refuse_rollback(wired: Flows) -> None:
    """Sequence what waits, and refuse to start where the log lacks what was signed (R12).

    Raises:
        ConfigInvalid: The database is older than the checkpoint lock, or holds another past;
            or the configured keys are neither the log's nor take over from them.
    """
    try:
        await wired.sequence.run()
    except AuditUnavailable as error:
        if error.detail in {"log_rolled_back", "log_changed"}:
            raise ConfigInvalid(
                f"{error.detail}: the database and the checkpoint lock do not agree; nothing is signed"
            ) from error
        if error.detail in {"log_key_retired", "log_key_missing", "log_key_unknown"}:
            raise ConfigInvalid(
                f"{error.detail}: audit.signing_key and the keys of the log do not agree; nothing is signed"
            ) from error
        raise


async def settle_restore(wired: Flows) -> None:
    """End again what had ended since a backup that was restored; nothing is served before that.

    Raises:
        ConfigInvalid: The log could not go on where it stopped, or does not know the backup.
    """
    try:
        if await wired.suppress.run():
            structlog.get_logger().info("restore_settled")
    except AuditUnavailable as error:
        if error.detail in {"log_tail_missing", "log_changed", "backup_unknown"}:
            raise ConfigInvalid(
                f"{error.detail}: {error}; nothing is served (docs/how-to/back-up-and-restore.md)"
            ) from error
        raise


def refuse_dumps() -> None:
    """Let no crash, and no other process of this user, put this one's memory on a disk.

    Raises:
        ConfigInvalid: This system cannot promise it, so pictures in memory could still reach a disk.
    """
    try:
        forbid_dumps()
    except OSError as error:
        raise ConfigInvalid(
            "tenants: zero_retention needs a system that lets core dumps be turned off"
        ) from error


async def refuse_past(wired: Flows) -> None:
    """Refuse to start while the clock is behind the log by more than the declared skew.

    A log whose last leaf is pruned has none that tells: that leaf was older than the term.

    Raises:
        ConfigInvalid: It is; a leaf written now would lie in the past of the log.
    """

    def newest(tx: Transaction) -> list[Leaf]:
        heads = [tx.get(LogHead, origin) for origin in wired.ledger.origins.values()]
        last = [{"log": head.log, "seq": head.size - 1} for head in heads if head is not None]
        return [leaf for equal in last for leaf in tx.find(Leaf, equal=equal, limit=1)]

    latest = wired.upload.clock.now() + SKEW
    if any(leaf.queued_at > latest for leaf in await wired.records.transact(newest)):
        raise ConfigInvalid("the clock is behind the newest event of the audit log")


async def keep_packs(wired: Flows) -> None:
    """Keep the text of every loaded pack: exports carry each pack that a decision names."""

    def keep(tx: Transaction) -> None:
        for pack in wired.packs.values():
            if tx.get(PackText, pack.digest) is None:
                tx.add(PackText(pack.digest, pack.id, pack.version, pack.source_bytes))

    await wired.records.transact(keep)


def warn_of_confinement(walls: Mapping[str, bool], watch: Watch) -> None:
    """Say loudly which walls around the scrubbers this kernel cannot build."""
    structlog.get_logger().info(
        "scrubber_confined", landlock=walls["landlock"], seccomp=walls["seccomp"], rlimits=walls["rlimits"]
    )
    if not (walls["landlock"] and walls["seccomp"]):
        watch.alarm("scrubber_weakly_confined")


def metrics_port(settings: Settings, registry: CollectorRegistry) -> Callable[[], None]:
    """Serve metrics where an address is configured, and return what ends that.

    Raises:
        ConfigInvalid: The address cannot be listened on.
    """
    if not settings.telemetry.metrics_address:
        return lambda: None
    host, _, port = settings.telemetry.metrics_address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), addr=host or "127.0.0.1", registry=registry)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigInvalid("telemetry.metrics_address cannot be listened on") from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


async def fsck_database(
    settings: Settings, trust: Trust | None, *, deep: bool, step: Step
) -> list[FsckReport]:
    """Return what each log in the database was found to be; no server and no other door is needed.

    Without `trust` the configured keys count, retiring ones too, and the configured policy's quorum:
    a database is not asked whom to believe about itself.

    Raises:
        SchemaMismatch: The database wants `lethe migrate`, or a newer Lethe.
        ConfigInvalid: A file that the configuration names cannot be read.
        StoreUnavailable: The database does not answer.
    """
    signers, retiring, policies = read_signers(settings), read_retiring(settings), read_policies(settings)
    own = {
        origin: Trust(
            KeyBook.of(signer.verifier for signer in (*keys, *retiring.get(origin, ()))), policies[origin]
        )
        for origin, keys in signers.items()
    }
    records = open_records(records_url(settings))
    try:
        await records.check_schema()
        check = Fsck(records, {origin: trust or own[origin] for origin in own})
        return [await check.run(origin, deep=deep, step=step) for origin in own]
    finally:
        await records.close()


async def revoke_keys(
    settings: Settings, key_ids: Collection[str], since: int | datetime, reason: str, *, rehearse: bool
) -> tuple[Revoked, ...]:
    """Revoke keys of the logs in the database, beside a gateway that runs or not; see `flows.revoke`.

    Raises:
        SchemaMismatch: The database wants `lethe migrate`, or a newer Lethe.
        NotFound, StateConflict, AuditUnavailable: As the flow says.
        StoreUnavailable: The database does not answer.
    """
    records = open_records(records_url(settings))
    try:
        await records.check_schema()
        origins = {name: tenant.log_origin for name, tenant in settings.tenants.items()}
        revoke = Revoke(records, Ledger(SystemClock(), origins))
        return await revoke.run(key_ids, since, reason, rehearse=rehearse)
    finally:
        await records.close()


def lock_directory(settings: Settings) -> Path:
    """Return where the heads of the logs are locked."""
    if settings.audit.lock is not None:
        return settings.audit.lock
    keys = keyring(settings)
    return keys.with_name(f"{keys.name}.lock")


def survivors_directory(settings: Settings) -> Path:
    """Return where the survivors of rolled epochs rest."""
    if settings.backup.survivors is not None:
        return settings.backup.survivors
    keys = settings.keys.directory or lock_directory(settings)
    return keys.with_name(f"{keys.name}.survivors")


def make_lock(settings: Settings) -> None:
    """Make the lock of the logs' heads, unless there is one.

    Raises:
        AuditUnavailable: The disk refuses.
    """
    FileLock.create(lock_directory(settings)).close()


def make_folders(settings: Settings) -> None:
    """Create the folders that the gateway writes to, for its own user only.

    Raises:
        ConfigInvalid: The records' URL is not one of ours.
        StoreUnavailable: The disk refuses.
    """
    folders = [settings.objects.directory] if settings.objects.directory else []
    if settings.audit.published is not None:
        folders.append(settings.audit.published)
    scheme = settings.records.url.partition(":")[0]
    if scheme not in {"sqlite", "postgresql", "postgres"}:
        raise ConfigInvalid("records.url begins with sqlite:/// or postgresql://")
    try:
        if is_sqlite(settings.records.url):
            folders.append(sqlite_path(settings.records.url).parent)
    except ValueError as error:
        raise ConfigInvalid(f"records.url: {error}") from error
    try:
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable("a folder cannot be made", detail="folder") from error


async def back_up(
    settings: Settings, out: Path, recipient: bytes, step: Callable[[str], None]
) -> Mapping[str, object]:
    """Make a backup beside a gateway that runs, and return its manifest; see `flows.backup`.

    Raises:
        BackupInvalid: The recipient is none.
        ConfigInvalid: The log is not published, so that nothing could ever be restored.
        AuditUnavailable: The log cannot take the event.
        SchemaMismatch: The database wants `lethe migrate`, or a newer Lethe.
        StateConflict: A restore has not been settled.
        StoreUnavailable: A store does not answer, or the file cannot be written.
    """
    if settings.audit.published is None:
        raise ConfigInvalid("audit.published is needed: no restore without the log's tail")
    seal = partial(backup_stream.seal, backup_stream.read_recipient(recipient))
    url, clock, signers = records_url(settings), SystemClock(), read_signers(settings)
    files = LogFolder(settings.audit.published)
    async with contextlib.AsyncExitStack() as stack:
        records = open_records(url)
        stack.push_async_callback(records.close)
        await records.check_schema()
        lock = stack.enter_context(contextlib.closing(FileLock(lock_directory(settings))))
        witnesses = tuple(map(witness, settings.audit.witnesses))
        for door in witnesses:
            stack.push_async_callback(door.close)
        ledger = Ledger(clock, {name: tenant.log_origin for name, tenant in settings.tenants.items()})
        sequence = Sequence(records, lock, signers, clock, ledger, read_retiring(settings))
        publish = Publish(records, clock, ledger, read_policies(settings), witnesses, files)

        async def lay_out() -> None:
            await sequence.run()
            with contextlib.suppress(LetheError):  # too few witnesses now: the gateway goes on trying
                await publish.run()

        sink = BackupFile(out, seal)
        stack.callback(sink.discard)
        making = Backup(
            records,
            await open_objects(settings.objects, stack),
            ledger,
            clock,
            lay_out,
        )
        return await making.run(await stack.enter_async_context(snapshot(url)), sink, step)


async def restore(
    settings: Settings, backup: Path, identity: bytes, step: Callable[[str], None]
) -> Mapping[str, object]:
    """Read a backup into empty stores and return its manifest; see `flows.restore`.

    Raises:
        BackupInvalid: The identity is none or another, or the file is not a whole backup.
        StateConflict: A store is not empty.
        AuditUnavailable: There is no lock, or the log could not go on.
        SchemaMismatch: The backup is of a newer Lethe.
        StoreUnavailable: A store does not answer.
        OSError: The file cannot be read.
    """
    key = backup_stream.read_identity(identity)
    url = records_url(settings)

    def frames() -> Iterator[backup_stream.Frame]:
        with backup.open("rb") as file:
            yield from backup_stream.open_(key, file)

    with backup.open("rb") as file:
        digest = await asyncio.to_thread(lambda: hashlib.file_digest(file, "sha256").hexdigest())
    async with contextlib.AsyncExitStack() as stack:
        lock = stack.enter_context(contextlib.closing(FileLock(lock_directory(settings))))
        restoring = Restoring(
            frames=frames,
            load=partial(load, url),
            is_empty=partial(is_empty, url),
            objects=await open_objects(settings.objects, stack),
            lock=lock,
            signers=read_signers(settings),
            files=LogFolder(settings.audit.published) if settings.audit.published else None,
        )
        return await restoring.run(digest, step)
