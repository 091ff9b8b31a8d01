"""What only key services far away must answer: AWS KMS on moto, a transit engine on a double."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from gateway.adapters import keys_aws
from gateway.adapters.keys_aws import AwsKeys
from gateway.adapters.keys_local import DESTROYED, EPOCHS, LocalKeyring
from gateway.adapters.keys_split import SplitKeys, name_of, read_names
from gateway.adapters.keys_transit import ATTEMPTS, TransitKeys
from gateway.errors import KeyServiceUnavailable
from gateway.ports.keys import EpochDestroyed
from tests.contract.test_keys import ASKING, EPOCH, HANDLE, KEY, OTHERS
from tests.fakes.transit import Engine, serving

REGION = "eu-central-1"


@pytest.fixture
def ring(tmp_path) -> LocalKeyring:
    return LocalKeyring.create(tmp_path / "register")


@pytest.fixture
async def aws(ring) -> AsyncIterator[SplitKeys]:
    with mock_aws():
        far = AwsKeys.connect(region=REGION, namespace="test")
        yield SplitKeys(far, ring)
        await far.close()


@pytest.fixture
def engine() -> Engine:
    return Engine("s.4711")


@pytest.fixture
async def transit(ring, engine, tmp_path) -> AsyncIterator[SplitKeys]:
    credential = tmp_path / "credential"
    credential.touch(mode=0o600)
    credential.write_text("s.4711\n")
    with serving(engine) as url:
        far = TransitKeys.connect(url=url, token_file=credential, pause_s=0.0)
        yield SplitKeys(far, ring)
        await far.close()


async def detail_of(keys: SplitKeys, method: str = "wrap") -> str:
    with pytest.raises(KeyServiceUnavailable) as refusal:
        await ASKING[method](keys)
    assert "4711" not in str(refusal.value)
    return refusal.value.detail


# --- the register nearby -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ASKING)
async def test_without_the_register_nothing_is_answered(aws, ring, method):
    ring.directory.rename(ring.directory.with_name("away"))
    assert await detail_of(aws, method) == "enoent"


async def test_epoch_keys_are_far_and_all_else_is_near(aws, ring):
    await aws.create_epoch(EPOCH)
    await aws.fence(HANDLE)
    await aws.destroy_epoch(OTHERS[0])
    assert list((ring.directory / EPOCHS).glob("*.key")) == []
    assert [name.name for name in (ring.directory / DESTROYED).iterdir()]
    assert await ring.is_fenced(HANDLE)
    assert await aws.mac("acme", "handle", b"id") == await ring.mac("acme", "handle", b"id")


@pytest.mark.parametrize("kind", ["aws", "transit"])
async def test_a_destruction_that_broke_off_after_its_bar_is_finished(aws, transit, kind):
    keys = {"aws": aws, "transit": transit}[kind]
    await keys.create_epoch(EPOCH)
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    await keys.near.bar(EPOCH)
    with pytest.raises(EpochDestroyed):
        await keys.unwrap(EPOCH, wrapped, b"")
    assert await keys.epochs() == ()
    assert await keys.far.epochs() == set()


def test_names_of_epochs_read_back_and_foreign_ones_are_passed_over():
    epochs = [EPOCH, *OTHERS, replace(EPOCH, tenant="a.b-c_d")]
    names = [name_of(epoch) for epoch in epochs]
    assert all(name.isalnum() and name.islower() for name in names)
    foreign = ["", "other", names[0] + "a", names[0].upper(), "a-b", "é"]
    assert set(epochs) == set(read_names([*names, *foreign]))


# --- AWS KMS -------------------------------------------------------------------------------------


def kms() -> object:
    return boto3.client("kms", region_name=REGION)


async def test_a_key_of_kms_is_scheduled_for_deletion_and_loses_its_alias(aws):
    """That KMS then refuses it, and destroys it after the days, is not enforced by moto."""
    await aws.create_epoch(EPOCH)
    key_id = aws.far._find(aws.far._alias(EPOCH))
    tags = kms().list_resource_tags(KeyId=key_id)["Tags"]
    assert tags == [{"TagKey": "lethe-epoch", "TagValue": str(EPOCH)}]
    await aws.destroy_epoch(EPOCH)
    assert aws.far._state(key_id) == "PendingDeletion"
    assert aws.far._find(aws.far._alias(EPOCH)) is None
    assert aws.destroy_latency == timedelta(days=7)


async def test_a_key_that_lost_the_race_for_the_alias_is_scheduled_for_deletion(aws, monkeypatch):
    await aws.create_epoch(EPOCH)
    wrapped = await aws.wrap(EPOCH, KEY, b"")
    monkeypatch.setattr(AwsKeys, "_find", lambda *_: None)
    await aws.create_epoch(EPOCH)
    monkeypatch.undo()
    states = [aws.far._state(key["KeyId"]) for key in kms().list_keys()["Keys"]]
    assert sorted(states) == ["Enabled", "PendingDeletion"]
    assert await aws.unwrap(EPOCH, wrapped, b"") == KEY


async def test_two_namespaces_of_one_account_do_not_meet(aws, ring):
    await aws.create_epoch(EPOCH)
    other = SplitKeys(AwsKeys.connect(region=REGION, namespace="tes"), ring)
    assert await other.epochs() == ()
    with pytest.raises(EpochDestroyed):
        await other.wrap(EPOCH, KEY, b"")


async def test_what_kms_logs_of_a_binding_is_a_digest(aws):
    context = keys_aws._context(EPOCH, b"binding of somebody")
    assert context["lethe:epoch"] == str(EPOCH)
    assert "somebody" not in str(context)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("ThrottlingException", "throttling"),
        ("AccessDeniedException", "access_denied"),
        ("KMSInternalException", "kmsinternal"),
        ("DisabledException", "disabled"),
        ("KMSInvalidStateException", "kmsinvalid_state"),
    ],
)
async def test_an_error_of_kms_is_no_answer(aws, monkeypatch, code, detail):
    await aws.create_epoch(EPOCH)

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "about 4711"}}, "Encrypt")

    monkeypatch.setattr(aws.far.client, "encrypt", refuse)
    assert await detail_of(aws) == detail


async def test_a_kms_that_cannot_be_reached_is_no_answer(aws, monkeypatch):
    def vanish(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://kms.test/4711")

    monkeypatch.setattr(aws.far.client, "encrypt", vanish)
    assert await detail_of(aws) == "endpoint_connection"


async def test_a_key_that_waits_for_its_deletion_is_destroyed(aws, monkeypatch):
    await aws.create_epoch(EPOCH)
    kms().schedule_key_deletion(KeyId=aws.far._find(aws.far._alias(EPOCH)), PendingWindowInDays=7)

    def refuse(**_: object) -> None:
        raise ClientError({"Error": {"Code": "KMSInvalidStateException"}}, "Encrypt")

    monkeypatch.setattr(aws.far.client, "encrypt", refuse)
    with pytest.raises(EpochDestroyed):
        await aws.wrap(EPOCH, KEY, b"")


# --- transit -------------------------------------------------------------------------------------


async def test_a_key_of_the_engine_cannot_be_exported_and_is_deletable_only_when_it_is_deleted(
    transit, engine
):
    await transit.create_epoch(EPOCH)
    (key,) = engine.keys.values()
    assert (key["type"], key["exportable"], key["allow_plaintext_backup"], key["derived"]) == (
        "aes256-gcm96",
        False,
        False,
        False,
    )
    assert key["deletion_allowed"] is False
    await transit.destroy_epoch(EPOCH)
    assert engine.keys == {}


async def test_an_engine_that_would_make_a_missing_key_is_not_asked_to(transit, engine):
    engine.upserts = True
    with pytest.raises(EpochDestroyed):
        await transit.wrap(EPOCH, KEY, b"")
    assert engine.keys == {}


async def test_copies_are_declared_unless_the_operator_says_otherwise(transit):
    assert transit.copies_outside_our_control is True
    assert transit.is_experimental is True


async def test_what_passes_is_asked_again(transit, engine):
    await transit.create_epoch(EPOCH)
    engine.answers = [429, 503, 500]
    assert await transit.unwrap(EPOCH, await transit.wrap(EPOCH, KEY, b"b"), b"b") == KEY


@pytest.mark.parametrize(
    ("status", "detail", "times"),
    [
        (503, "sealed", ATTEMPTS),
        (429, "throttled", ATTEMPTS),
        (403, "permission_denied", 1),
        (418, "http_418", 1),
    ],
)
async def test_an_error_of_the_engine_is_no_answer(transit, engine, status, detail, times):
    await transit.create_epoch(EPOCH)
    engine.answers = [status] * times
    assert await detail_of(transit) == detail
    assert engine.answers == []


async def test_a_renewed_credential_is_used_at_once(transit, engine):
    await transit.create_epoch(EPOCH)
    engine.credential = "s.4712"
    assert await detail_of(transit) == "permission_denied"
    transit.far.token_file.write_text("s.4712")
    await transit.wrap(EPOCH, KEY, b"")
    transit.far.token_file.chmod(0o644)
    assert await detail_of(transit) == "credential_mode"


async def test_an_engine_that_cannot_be_reached_is_no_answer(transit):
    away = replace(transit.far, client=httpx.AsyncClient(base_url="http://127.0.0.1:1", trust_env=False))
    assert await detail_of(SplitKeys(away, transit.near)) == "unreachable"
    await away.close()


async def test_an_odd_answer_is_none(transit, engine, monkeypatch):
    await transit.create_epoch(EPOCH)
    monkeypatch.setattr(engine, "_post_encrypt", lambda *_: (200, {"data": None}), raising=False)
    assert await detail_of(transit) == "answer_malformed"


async def test_the_engine_sees_neither_key_nor_credential_in_a_name(transit, engine):
    await transit.create_epoch(EPOCH)
    await transit.wrap(EPOCH, KEY, b"b")
    assert all("4711" not in path for path in engine.asked)
