"""What the roof reads before it builds: secrets from files, never in a message."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from audit.note import Signer
from gateway import compose
from gateway.adapters.inference_contract import ContractedInference
from gateway.adapters.inference_grpc import GrpcInference
from gateway.adapters.inference_oip import OipInference
from gateway.adapters.telemetry import only_known_fields
from gateway.admin.pki import Authority, write_secret
from gateway.bell import Bell
from gateway.deidentify import Limits
from gateway.deidentify.faces.names import DETECTOR
from gateway.errors import AuditUnavailable, StoreUnavailable
from gateway.ports.records import PackText
from gateway.settings import (
    ConfigInvalid,
    ContractSection,
    DeidentifySection,
    KeysSection,
    LetheBackend,
    MarkingSection,
    ObjectsSection,
    OipBackend,
    RecordsSection,
    S3Section,
    Settings,
)
from tests.fakes.inference import FakeInference
from tests.world import ORIGIN, World, settings

SEED = bytes(range(32))
CANARY = "p@ss/w:rd %25?#é"


def with_records(url: str, password: Path | None) -> Settings:
    return settings().model_copy(update={"records": RecordsSection(url=url, password_file=password)})


def with_seed(path: Path) -> Settings:
    made = settings()
    return made.model_copy(update={"audit": made.audit.model_copy(update={"signing_key": path})})


def test_without_a_password_file_the_url_is_taken_as_it_is() -> None:
    assert compose.records_url(with_records("sqlite:////a/b.db", None)) == "sqlite:////a/b.db"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://lethe@db:5433/lethe", "postgresql://lethe:s%2Fe@db:5433/lethe"),
        ("postgresql://lethe@db/lethe", "postgresql://lethe:s%2Fe@db/lethe"),
        ("postgresql://lethe:old@db/lethe", "postgresql://lethe:s%2Fe@db/lethe"),
        ("postgresql://lethe@[::1]:5433/lethe", "postgresql://lethe:s%2Fe@[::1]:5433/lethe"),
        ("postgresql://le%40the@db/lethe", "postgresql://le%40the:s%2Fe@db/lethe"),
    ],
)
def test_the_password_comes_from_its_file(tmp_path: Path, url: str, expected: str) -> None:
    (tmp_path / "password").write_text("s/e\n")
    assert compose.records_url(with_records(url, tmp_path / "password")) == expected


def test_a_password_of_any_letters_reads_back(tmp_path: Path) -> None:
    from sqlalchemy.engine import make_url

    (tmp_path / "password").write_text(CANARY)
    url = compose.records_url(with_records("postgresql://lethe@db/lethe", tmp_path / "password"))
    assert make_url(url).password == CANARY


def test_a_missing_password_file_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"records\.password_file"):
        compose.records_url(with_records("postgresql://lethe@db/lethe", tmp_path / "nothing"))


def test_each_tenant_signs_under_its_own_origin(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text(SEED.hex() + "\n")
    signers = compose.read_signers(with_seed(tmp_path / "seed"))
    assert set(signers) == {ORIGIN, "lethe.test/0b"}
    assert [key.vkey() for key in signers[ORIGIN]] == [Signer(ORIGIN, SEED).vkey()]


@pytest.mark.parametrize("text", ["", "not hex", "00" * 31, "00" * 33, None])
def test_a_seed_that_is_none_is_refused_without_being_quoted(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "seed").write_text(text)
    with pytest.raises(ConfigInvalid) as fault:
        compose.read_signers(with_seed(tmp_path / "seed"))
    assert "audit.signing_key" in str(fault.value)


def test_keys_that_retire_are_read_like_those_that_sign(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text(SEED.hex())
    made = with_seed(tmp_path / "seed")
    assert compose.read_retiring(made) == {ORIGIN: (), "lethe.test/0b": ()}
    both = {
        "retiring_signing_key": tmp_path / "seed",
        "retiring_signing_key_mldsa": tmp_path / "seed",
    }
    made = made.model_copy(update={"audit": made.audit.model_copy(update=both)})
    assert [key.algorithm for key in compose.read_retiring(made)[ORIGIN]] == ["ed25519", "ml-dsa-44"]
    (tmp_path / "seed").unlink()
    with pytest.raises(ConfigInvalid, match=r"audit\.retiring_signing_key"):
        compose.read_retiring(made)


def test_without_the_networks_files_no_gateway_starts_and_the_key_and_the_cure_are_named(
    tmp_path: Path,
) -> None:
    section = DeidentifySection(weights=tmp_path)
    with pytest.raises(ConfigInvalid, match=r"deidentify\.weights: .* run `make weights`"):
        compose.make_deidentifier(section, Limits())
    (tmp_path / DETECTOR).write_bytes(b"another network")
    with pytest.raises(ConfigInvalid, match=r"sha256 differs"):
        compose.make_deidentifier(section, Limits())


async def test_a_backend_that_does_not_answer_is_off_the_board_until_it_does() -> None:
    w = World()
    board = w.flows.backends
    w.backend.faults.is_down = True
    await board.look()
    assert board.known == {}
    w.backend.faults.is_down = False
    await board.look()
    assert board.known == {"studio": w.backend.facts}


async def test_packs_are_kept_once() -> None:
    w = World()
    for _ in range(2):
        await compose.keep_packs(w.flows)
    assert sorted(row.digest for row in w.records.all(PackText)) == sorted(
        pack.digest for pack in w.flows.packs.values()
    )


def test_folders_are_made_for_the_gateways_own_user(tmp_path: Path) -> None:
    made = with_records(f"sqlite:///{tmp_path}/data/lethe.db", None)
    folder = tmp_path / "data" / "objects"
    compose.make_folders(
        made.model_copy(update={"objects": made.objects.model_copy(update={"directory": folder})})
    )
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_the_stores_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = with_records("postgresql://lethe@db/lethe", None)
    with pytest.raises(StoreUnavailable):
        compose.make_folders(
            made.model_copy(
                update={"objects": made.objects.model_copy(update={"directory": tmp_path / "file" / "x"})}
            )
        )


def test_an_unknown_kind_of_database_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(ConfigInvalid, match=r"records\.url"):
        compose.make_folders(with_records("sqlite://host/lethe.db", None))


def with_keys(tmp_path: Path, **keys: object) -> Settings:
    section = KeysSection.model_validate({"directory": tmp_path / "keys", **keys})
    return settings().model_copy(update={"keys": section})


@pytest.mark.parametrize(
    ("kind", "section", "is_experimental"),
    [
        ("local", {}, False),
        ("pkcs11", {"module": "/m.so", "token": "lethe", "pin_file": "/pin", "has_copies": True}, False),
        ("aws", {"region": "eu-central-1", "waiting_days": 9}, True),
        ("transit", {"url": "https://bao.test:8200", "token_file": "/credential"}, True),
    ],
)
async def test_the_key_service_that_is_configured_is_opened(
    tmp_path: Path, kind: str, section: dict[str, object], is_experimental: bool
) -> None:
    chosen = with_keys(tmp_path, kind=kind, **({kind: section} if section else {}))
    async with contextlib.AsyncExitStack() as stack:
        keys = compose.open_keys(chosen, stack)
        assert (keys.name, keys.is_experimental) == (kind, is_experimental)
        assert keys.destroy_latency.days == (9 if kind == "aws" else 0)
        assert keys.copies_outside_our_control is (kind in {"pkcs11", "transit"})


async def test_a_missing_ca_of_the_transit_engine_is_named_by_its_key(tmp_path: Path) -> None:
    section = {"url": "https://bao.test", "token_file": "/credential", "ca": tmp_path / "none.pem"}
    with pytest.raises(ConfigInvalid, match=r"keys\.transit\.ca"):
        compose.far_keys(with_keys(tmp_path, kind="transit", transit=section))


async def test_a_bucket_without_its_extra_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.adapters.objects_s3", None)
    section = ObjectsSection(kind="s3", s3=S3Section(bucket="portraits", credentials=Path("/nonexistent")))
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(ConfigInvalid, match=r"lethe\[s3\]"):
            await compose.open_objects(section, stack)


def test_what_a_witness_objects_is_counted_each_time_and_told_once() -> None:
    watch = compose.Watch(CollectorRegistry())
    with structlog.testing.capture_logs() as said:
        for code, is_new in (
            ("cosigned", False),
            ("witness_timeout", False),
            ("witness_lied", True),
            ("witness_lied", False),
            ("witness_ahead", True),
            ("witness_proof_refused", True),
            ("witness_key_unknown", True),
        ):
            watch.heard("witness.test/w", code, is_new)
    told = [only_known_fields(None, "", dict(line)) for line in said]
    assert [(line["event"], line.get("alarm", line.get("detail")), line.get("witness")) for line in told] == [
        (event, what, name)
        for code, alarm in (
            ("witness_lied", "witness_lied"),
            ("witness_ahead", "log_forked"),
            ("witness_proof_refused", "log_forked"),
            ("witness_key_unknown", "witness_refuses"),
        )
        for event, what, name in (
            ("witness_objects", code, "witness.test/w"),
            ("alarm_raised", alarm, None),
        )
    ]
    value = watch.registry.get_sample_value
    assert value("lethe_witness_answers_total", {"witness": "witness.test/w", "code": "witness_lied"}) == 2
    assert value("lethe_alarms_total", {"alarm": "log_forked"}) == 2


async def test_an_alarm_of_what_runs_by_itself_ages_until_it_works_again() -> None:
    watch, bell = compose.Watch(CollectorRegistry()), Bell()
    ages: list[float | None] = []
    is_over = asyncio.Event()

    async def work() -> None:
        ages.append(watch.registry.get_sample_value("lethe_failing_seconds", {"alarm": "publish_failing"}))
        if len(ages) == 5:
            is_over.set()
        if len(ages) in {2, 3}:
            raise AuditUnavailable("too few witnesses", detail="quorum_not_met")

    loop = asyncio.create_task(compose._forever("publish_failing", 0.01, work, watch, bell))
    await asyncio.wait_for(is_over.wait(), 5)
    loop.cancel()
    assert ages[:3] == [None, None, 0]
    assert (ages[3] or 0) > 0
    assert ages[4] == 0
    assert watch.registry.get_sample_value("lethe_alarms_total", {"alarm": "publish_failing"}) == 1


async def test_a_signer_of_marks_is_tried_before_anything_is_served(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    root, stranger = Authority.create("a root", now), Authority.create("another", now)
    chain, key = root.issue_signer("a signer", now)
    section = MarkingSection(key=tmp_path / "key", chain=tmp_path / "chain", anchors=tmp_path / "roots")

    async def refused() -> str:
        with pytest.raises(ConfigInvalid) as fault:
            await compose.open_marker(section)
        return str(fault.value)

    assert "cannot be used" in await refused()
    write_secret(section.key, key)
    section.chain.write_bytes(chain)
    section.anchors.write_bytes(stranger.pem())
    assert "cannot be used" in await refused()
    section.anchors.write_bytes(root.pem())
    await compose.open_marker(section)
    section.key.chmod(0o640)
    assert "open to other users" in await refused()


# --- backends are what the configuration says ----------------------------------------------------


CONTRACT = {
    "region": "DE",
    "operator": "Example Hosting GmbH",
    "input_retention_s": 0,
    "output_retention_s": 0,
    "trains_on_inputs": False,
    "face_features": "detection",
    "styles": ["studio_grey"],
}


async def test_a_backend_that_denies_its_contract_stops_the_start_and_later_leaves_the_board() -> None:
    said = FakeInference(name="studio", region="US")
    held = ContractedInference(said, compose.contract(ContractSection(**CONTRACT)))
    board = compose.BackendBoard({"studio": held}, {"studio": "lethe"})
    await board.look()
    assert board.known == {}
    with pytest.raises(ConfigInvalid, match="contract_region"):
        compose.refuse_contradictions(board)
    said.facts = replace(said.facts, region="DE")
    await board.look()
    compose.refuse_contradictions(board)
    assert (board.known["studio"].operator, board.known["studio"].styles) == (
        "Example Hosting GmbH",
        ("studio_grey",),
    )


async def test_a_backend_that_does_not_answer_is_no_contradiction() -> None:
    silent = FakeInference(name="studio")
    silent.faults.is_down = True
    board = compose.BackendBoard({"studio": silent}, {"studio": "lethe"})
    await board.look()
    compose.refuse_contradictions(board)


@pytest.mark.parametrize(
    ("looked_for", "extracted"), [("none", False), ("detection", True), ("template", True)]
)
def test_a_template_counts_as_extracted_unless_no_faces_are_looked_for(
    looked_for: str, extracted: bool
) -> None:
    """law.md 2.3: true unless the backend declares `face_features: none`."""
    section = ContractSection(**{**CONTRACT, "face_features": looked_for})
    assert compose.contract(section).template_extracted is extracted


def test_a_door_is_made_by_the_kind_of_the_backend(tmp_path: Path) -> None:
    authority = Authority.create("test", datetime.now(UTC))
    chain, key = authority.issue("spiffe://test/gateway", datetime.now(UTC))
    files = {"ca": authority.pem(), "cert": chain, "key": key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    where = {"name": "one", "address": "127.0.0.1:1", **{name: tmp_path / name for name in files}}
    model = {"model": "portrait", "input": {"tensor": "IN"}, "output": {"tensor": "OUT"}}
    contract = ContractSection(**CONTRACT)

    async def kinds() -> list[type]:
        sections = [
            LetheBackend(**where),
            LetheBackend(**where, contract=contract),
            OipBackend(**where, kind="oip", contract=contract, **model),
        ]
        doors = [compose.inference(section) for section in sections]
        for door in doors:
            await door.close()
        return [type(door) for door in doors]

    assert asyncio.run(kinds()) == [GrpcInference, ContractedInference, OipInference]
