"""What only an object store in a bucket must answer: versions, refusals at the start, and a bad network."""

# ruff: noqa: ASYNC240 - a test may well read a small file on its own loop

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters import s3_bucket
from gateway.adapters.objects_s3 import MARKER, PART_BYTES, S3Objects
from gateway.admin.pki import Authority
from gateway.errors import StoreUnavailable
from gateway.ports.objects import ObjectExists, ObjectMissing
from gateway.settings import ConfigInvalid, S3Section
from tests.proxy import Proxy, proxy_before
from tests.seaweed import SECRET, Seaweed, running_seaweed

ID = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
MIB = 1 << 20
LARGE = PART_BYTES + 3 * MIB
"""Needs two parts."""


async def feed(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), MIB):
        yield content[start : start + MIB]


async def read(objects: S3Objects, object_id: str = ID) -> bytes:
    return b"".join([chunk async for chunk in objects.get(object_id)])


async def listed(objects: S3Objects) -> dict[str, int]:
    return {found.object_id: found.size_bytes async for found in objects.list()}


async def held(objects: S3Objects) -> set[str]:
    return {object_id async for object_id in objects.versions()}


@asynccontextmanager
async def opened(section: dict[str, Any]) -> AsyncIterator[S3Objects]:
    objects = await S3Objects.open(S3Section(**section))
    try:
        yield objects
    finally:
        objects.close()


async def refusal(section: dict[str, Any]) -> str:
    """Return the detail with which the store is refused."""
    with pytest.raises(StoreUnavailable) as caught:
        await S3Objects.open(S3Section(**section))
    return caught.value.detail


class Raw:
    """The bucket as its owner sees it, behind the store's back."""

    def __init__(self, server: Seaweed, section: dict[str, Any]) -> None:
        self.client = server.client()
        self.at = {"Bucket": section["bucket"]}
        self.prefix = section["prefix"]

    def key(self, object_id: str = ID) -> dict[str, str]:
        return {**self.at, "Key": self.prefix + object_id}

    def everything(self) -> list[str]:
        """Return what lies under the prefix: versions, markers and uploads, but not the store's marker."""
        found = self.client.list_object_versions(**self.at, Prefix=self.prefix)
        uploads = self.client.list_multipart_uploads(**self.at, Prefix=self.prefix)
        entries = [*found.get("Versions", ()), *found.get("DeleteMarkers", ()), *uploads.get("Uploads", ())]
        names = [entry["Key"].removeprefix(self.prefix) for entry in entries]
        return sorted(name for name in names if name != MARKER)


@pytest.fixture(params=["plain", "versioned"])
def section(request, seaweed) -> dict[str, Any]:
    return seaweed.section(seaweed.bucket(versioned=request.param == "versioned"))


@pytest.fixture
async def objects(section) -> AsyncIterator[S3Objects]:
    async with opened(section) as objects:
        yield objects


@pytest.fixture
def raw(seaweed, section) -> Iterator[Raw]:
    raw = Raw(seaweed, section)
    yield raw
    raw.client.close()


@pytest.fixture
async def proxy(seaweed) -> AsyncIterator[Proxy]:
    async with proxy_before(seaweed.port) as proxy:
        yield proxy


@pytest.fixture
async def behind(section, proxy) -> AsyncIterator[S3Objects]:
    """The store through the proxy, impatient."""
    async with opened({**section, "endpoint": proxy.url, "timeout_s": 1.0}) as objects:
        proxy.seen.clear()
        yield objects


# --- large objects -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, LARGE])
async def test_what_needs_parts_comes_back_and_is_never_overwritten(objects, raw, size):
    content = os.urandom(size)
    assert await objects.put(ID, feed(content)) == size
    assert await objects.put(ID, feed(content)) == size
    for other in (content[:-1], content + b"x", bytes(size), b"small"):
        with pytest.raises(ObjectExists):
            await objects.put(ID, feed(other))
    assert await read(objects) == content
    assert raw.everything() == [ID]


async def test_large_puts_at_once_of_the_same_bytes_all_succeed(objects, raw):
    """Of other bytes, several may: SeaweedFS compares before it ends an upload, not while it does."""
    content = os.urandom(LARGE)
    assert {LARGE} == set(await asyncio.gather(*(objects.put(ID, feed(content)) for _ in range(3))))
    assert await read(objects) == content
    await objects.delete(ID)
    assert raw.everything() == []


@pytest.mark.parametrize("reason", [ConnectionResetError, asyncio.CancelledError])
async def test_a_large_put_whose_source_breaks_off_leaves_nothing(objects, raw, reason):
    async def failing() -> AsyncIterator[bytes]:
        async for chunk in feed(bytes(LARGE)):
            yield chunk
        raise reason

    with pytest.raises(reason):
        await objects.put(ID, failing())
    assert raw.everything() == []


# --- versions ------------------------------------------------------------------------------------


async def test_a_deletion_takes_every_version_every_marker_and_every_upload(objects, raw):
    await objects.put(ID, feed(b"first"))
    raw.client.delete_object(**raw.key())
    await objects.put(ID, feed(b"second"))
    raw.client.put_object(**raw.key(), Body=b"third")
    raw.client.create_multipart_upload(**raw.key())
    await objects.put(OTHER, feed(b"other"))
    await objects.delete(ID)
    assert raw.everything() == [OTHER]
    assert await held(objects) == {OTHER}
    with pytest.raises(ObjectMissing):
        await read(objects)


async def test_what_only_history_holds_is_in_versions_and_not_in_the_listing(seaweed):
    section = seaweed.section(seaweed.bucket(versioned=True))
    raw = Raw(seaweed, section)
    async with opened(section) as objects:
        await objects.put(ID, feed(b"abc"))
        raw.client.delete_object(**raw.key())
        assert await listed(objects) == {}
        assert await held(objects) == {ID}
        await objects.delete(ID)
        assert await held(objects) == set()
    raw.client.close()


async def test_an_unfinished_upload_is_listed_so_that_the_sweeper_removes_it(objects, raw):
    raw.client.create_multipart_upload(**raw.key())
    (found,) = [stored async for stored in objects.list()]
    assert (found.object_id, found.size_bytes) == (ID, 0)
    assert abs((datetime.now(UTC) - found.stored_at).total_seconds()) < 60
    assert await held(objects) == {ID}
    await objects.delete(ID)
    assert raw.everything() == []


async def test_more_than_a_page_is_listed_and_deleted(objects, raw, monkeypatch):
    ids = {f"{number:032x}" for number in range(7)}
    for object_id in ids:
        await objects.put(object_id, feed(b"x"))
    monkeypatch.setattr(s3_bucket, "PAGE", 2)
    assert await held(objects) == ids
    for object_id in ids:
        await objects.delete(object_id)
    assert raw.everything() == []


async def test_ids_that_begin_alike_are_told_apart(objects, raw):
    await objects.put(ID, feed(b"abc"))
    raw.client.put_object(**raw.key(ID + "0"), Body=b"foreign")
    await objects.delete(ID)
    assert raw.everything() == [ID + "0"]
    assert await held(objects) == set()


async def test_objects_survive_a_restart_and_two_gateways_share_them(objects, section):
    await objects.put(ID, feed(b"abc"))
    async with opened(section) as other:
        assert await read(other) == b"abc"


# --- what is refused at the start ----------------------------------------------------------------


async def test_a_prefix_that_holds_something_else_is_not_taken(seaweed, section, raw):
    raw.client.put_object(**raw.key("holiday.jpg"), Body=b"x")
    assert await refusal(section) == "not_a_store"
    assert raw.everything() == ["holiday.jpg"]


async def test_a_store_of_another_layout_is_not_taken(section, raw):
    raw.client.put_object(**raw.key(MARKER), Body=b"lethe objects, layout 2\n")
    assert await refusal(section) == "not_a_store"


async def test_opening_leaves_the_marker_and_nothing_else(objects, raw):
    assert raw.everything() == []
    found = raw.client.list_objects_v2(**raw.at, Prefix=raw.prefix)
    assert [entry["Key"] for entry in found["Contents"]] == [raw.prefix + MARKER]


async def test_a_bucket_that_is_not_there_is_refused(seaweed):
    assert await refusal(seaweed.section("nowhere")) == "no_bucket"


async def test_credentials_that_do_not_fit_are_refused_and_never_told(seaweed, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = seaweed.credentials("canary-wrong-secret")
    section = seaweed.section(seaweed.bucket(versioned=False), credentials=wrong)
    with pytest.raises(StoreUnavailable) as caught:
        await S3Objects.open(S3Section(**section))
    assert caught.value.detail == "access_denied"
    told = "".join(map(repr, (caught.value, caught.value.__cause__, s3_bucket.Credentials.read(Path(wrong)))))
    for secret in ("canary-wrong-secret", SECRET):
        assert secret not in told
        assert secret not in caplog.text
        assert secret not in Path("/proc/self/cmdline").read_text()
        assert secret not in Path("/proc/self/environ").read_text()


async def test_a_bucket_with_a_default_retention_is_refused(seaweed):
    client = seaweed.client()
    client.create_bucket(Bucket="retaining", ObjectLockEnabledForBucket=True)
    # Object Lock alone locks nothing: only what puts ask for, and ours do not.
    async with opened(seaweed.section("retaining")) as objects:
        await objects.put(ID, feed(b"abc"))
        await objects.delete(ID)
        assert await held(objects) == set()
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    client.put_object_lock_configuration(Bucket="retaining", ObjectLockConfiguration=lock)
    assert await refusal(seaweed.section("retaining")) == "retention"
    client.close()


async def test_a_legal_hold_makes_the_deletion_fail_and_not_lie(seaweed):
    client = seaweed.client()
    client.create_bucket(Bucket="holding", ObjectLockEnabledForBucket=True)
    section = seaweed.section("holding")
    async with opened(section) as objects:
        await objects.put(ID, feed(b"abc"))
        where = {"Bucket": "holding", "Key": section["prefix"] + ID}
        client.put_object_legal_hold(**where, LegalHold={"Status": "ON"})
        with pytest.raises(StoreUnavailable) as caught:
            await objects.delete(ID)
        assert caught.value.detail == "access_denied"
        assert await held(objects) == {ID}
        client.put_object_legal_hold(**where, LegalHold={"Status": "OFF"})
        await objects.delete(ID)
        assert await held(objects) == set()
    client.close()


async def test_a_store_that_overwrites_is_refused(section, monkeypatch):
    real = S3Objects._create

    async def careless(self: S3Objects, name: str, content: bytes) -> bool:
        await real(self, name, content)
        return True

    monkeypatch.setattr(S3Objects, "_create", careless)
    assert await refusal(section) == "no_conditional_put"


async def test_a_store_whose_uploads_overwrite_is_refused(section, raw):
    def careless(params: dict[str, Any], **_more: Any) -> None:
        params["headers"].pop("If-None-Match")

    objects = S3Objects(S3Section(**section))
    events = objects._doors().bucket._client.meta.events
    events.register("before-call.s3.CompleteMultipartUpload", careless)
    with pytest.raises(StoreUnavailable) as caught:
        await objects._open_store()
    objects.close()
    assert caught.value.detail == "no_conditional_end"
    assert raw.everything() == []


# --- credentials, certificates, environment ------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604])
async def test_credentials_that_others_may_read_are_refused(seaweed, mode):
    section = seaweed.section()
    Path(section["credentials"]).chmod(mode)
    with pytest.raises(ConfigInvalid, match="open to other users"):
        S3Objects(S3Section(**section))


@pytest.mark.parametrize("text", ["", "canary", "[default]\naws_access_key_id = canary\n", "[other]\n"])
async def test_a_credentials_file_without_a_key_is_refused_and_not_quoted(seaweed, text):
    section = seaweed.section()
    Path(section["credentials"]).write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        S3Objects(S3Section(**section))
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_credentials_that_change_are_taken_up_without_a_restart(objects, section):
    path = Path(section["credentials"])
    good = path.read_text()
    path.write_text(good.replace(SECRET, "another"))
    for ask in (objects.put(ID, feed(b"abc")), objects.delete(ID), read(objects), listed(objects)):
        with pytest.raises(StoreUnavailable) as caught:
            await ask
        assert caught.value.detail == "access_denied"
    path.write_text("half-writ")  # what cannot be read changes nothing
    path.write_text(good)
    assert await objects.put(ID, feed(b"abc")) == 3


async def test_the_environment_has_no_say(seaweed, section, monkeypatch):
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "CONFIG_FILE"):
        monkeypatch.setenv(f"AWS_{name}", "canary")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    s3_bucket._session.cache_clear()
    async with opened(section) as objects:
        await objects.put(ID, feed(bytes(LARGE)))
        await objects.delete(ID)


async def test_tls_is_verified_against_the_configured_authority(tmp_path):
    now = datetime.now(UTC)
    authority, stranger = Authority.create("store", now), Authority.create("stranger", now)
    cert, key = authority.issue("spiffe://lethe.test/s3", now, hosts=("localhost", "127.0.0.1"))
    for name, content in (
        ("cert", cert),
        ("key", key),
        ("ca", authority.pem()),
        ("other", stranger.pem()),
    ):
        (tmp_path / name).write_bytes(content)
    with running_seaweed(tls=(tmp_path / "cert", tmp_path / "key")) as server:
        place = {"endpoint": server.tls_url, "unsafe_http": False, "timeout_s": 5.0}
        section = server.section(server.bucket(versioned=True), **place)
        async with opened({**section, "ca": tmp_path / "ca"}) as objects:
            await objects.put(ID, feed(bytes(LARGE)))
            assert len(await read(objects)) == LARGE
            await objects.delete(ID)
        for ca in (tmp_path / "other", None):
            assert await refusal({**section, "ca": ca}) == "unreachable"


# --- a bad network -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize("kind", ["lose", "lose reply", "busy"])
async def test_a_put_that_meets_one_fault_is_stored_once_or_may_be_repeated(behind, proxy, raw, kind, size):
    content = os.urandom(size)
    step = "PUT" if size == 3 else "POST"
    proxy.fail(kind, step)
    try:
        assert await behind.put(ID, feed(content)) == size
    except StoreUnavailable:
        assert await behind.put(ID, feed(content)) == size
    assert await read(behind) == content
    # A beginning whose reply was lost leaves an upload without parts; it goes with the object.
    assert set(raw.everything()) == {ID}
    await behind.delete(ID)
    assert raw.everything() == []


@pytest.mark.parametrize("what", ["POST", "uploadId"])
async def test_a_large_put_whose_every_reply_is_lost_is_repeated_and_leaves_one_object(
    behind, proxy, raw, what
):
    content = os.urandom(LARGE)
    proxy.fail("lose reply", what, times=3)
    try:
        await behind.put(ID, feed(content))
    except StoreUnavailable:
        proxy.faults.clear()
        assert await behind.put(ID, feed(content)) == LARGE
    assert await read(behind) == content
    await behind.delete(ID)
    assert raw.everything() == []


async def test_a_small_put_whose_replies_are_lost_finds_its_own_bytes_and_no_others(behind, proxy, raw):
    proxy.fail("lose reply", "PUT", times=3)
    try:
        await behind.put(ID, feed(b"abc"))
    except StoreUnavailable:
        proxy.faults.clear()
    with pytest.raises(ObjectExists):
        await behind.put(ID, feed(b"abd"))
    assert await behind.put(ID, feed(b"abc")) == 3
    assert raw.everything() == [ID]


async def test_an_upload_that_cannot_be_aborted_is_listed_until_it_is_deleted(behind, proxy, raw):
    proxy.fail("lose", "partNumber=2", times=9)
    proxy.fail("lose", "DELETE", times=9)
    with pytest.raises(StoreUnavailable):
        await behind.put(ID, feed(bytes(LARGE)))
    proxy.faults.clear()
    assert raw.everything() == [ID]
    assert await listed(behind) == {ID: 0}
    await behind.delete(ID)
    assert raw.everything() == []


@pytest.mark.parametrize("kind", ["lose", "lose reply", "busy"])
async def test_a_deletion_that_meets_faults_is_done_or_may_be_repeated(behind, proxy, raw, kind):
    await behind.put(ID, feed(b"abc"))
    proxy.fail(kind, "DELETE")
    await behind.delete(ID)
    assert raw.everything() == []
    await behind.put(ID, feed(b"abc"))
    proxy.fail(kind, "DELETE", times=9)
    with pytest.raises(StoreUnavailable):
        await behind.delete(ID)
    proxy.faults.clear()
    await behind.delete(ID)
    assert raw.everything() == []


async def test_an_answer_that_is_cut_is_never_taken_for_the_object(behind, proxy):
    content = os.urandom(3 * MIB)
    await behind.put(ID, feed(content))
    proxy.fail("cut", f"GET /{'plain'}")
    proxy.fail("cut", f"GET /{'versioned'}")
    try:
        assert await read(behind) == content
    except StoreUnavailable:
        assert await read(behind) == content


@pytest.mark.parametrize(
    ("kind", "detail"), [("busy", "throttled"), ("lose", "unreachable"), ("hold", "timeout")]
)
async def test_each_failure_has_a_name(behind, proxy, kind, detail):
    await behind.put(ID, feed(b"abc"))
    proxy.fail(kind, times=99)
    asks = {
        "put": lambda: behind.put(OTHER, feed(b"x")),
        "large put": lambda: behind.put(OTHER, feed(bytes(LARGE))),
        "get": lambda: read(behind),
        "delete": lambda: behind.delete(ID),
        "list": lambda: listed(behind),
        "versions": lambda: held(behind),
    }
    details = {}
    for name, ask in asks.items():
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable) as caught:
                await ask()
        details[name] = caught.value.detail
        assert ID not in str(caught.value)
        assert "canary" not in str(caught.value)
    assert details == dict.fromkeys(asks, detail)


async def test_a_bucket_that_went_away_does_not_say_that_nothing_is_there(seaweed):
    client = seaweed.client()
    client.create_bucket(Bucket="passing")
    section = seaweed.section("passing")
    async with opened(section) as objects:
        await objects.put(ID, feed(b"abc"))
        for key in (section["prefix"] + ID, section["prefix"] + MARKER):
            client.delete_object(Bucket="passing", Key=key)
        asks = (read(objects), objects.delete(ID), listed(objects), held(objects))
        for ask in asks:
            with pytest.raises(StoreUnavailable) as caught:
                await ask
            assert caught.value.detail == "not_a_store"
        client.delete_bucket(Bucket="passing")
        asks = (
            read(objects),
            objects.delete(ID),
            listed(objects),
            held(objects),
            objects.put(ID, feed(b"x")),
        )
        for ask in asks:
            with pytest.raises(StoreUnavailable) as caught:
                await ask
            assert caught.value.detail == "no_bucket"
    client.close()


async def test_a_port_where_nothing_listens_is_unreachable(seaweed):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        section = seaweed.section(endpoint=f"http://127.0.0.1:{probe.getsockname()[1]}", timeout_s=2.0)
        assert await refusal(section) == "unreachable"


# --- a server that dies, a server that is full ---------------------------------------------------


async def test_a_server_that_is_killed_in_the_middle_of_a_put_is_put_to_again(seaweed, section, objects, raw):
    content = os.urandom(LARGE)
    await objects.put(OTHER, feed(b"other"))

    async def fatal() -> AsyncIterator[bytes]:
        async for chunk in feed(content):
            yield chunk
        seaweed.kill()

    with pytest.raises(StoreUnavailable):
        await objects.put(ID, fatal())
    for ask in (objects.delete(ID), read(objects, OTHER), listed(objects), objects.put(ID, feed(b"x"))):
        with pytest.raises(StoreUnavailable):
            await ask
    seaweed.start()  # not in a thread: the server ends with the thread that started it
    with pytest.raises(ObjectMissing):
        await read(objects)
    assert await objects.put(ID, feed(content)) == LARGE
    assert await read(objects) == content
    assert await read(objects, OTHER) == b"other"
    await objects.delete(ID)
    assert raw.everything() == [OTHER]


async def test_a_server_that_is_full_refuses_and_leaves_nothing():
    with running_seaweed(volumes=7) as server:
        section = server.section(server.bucket(versioned=False))
        raw = Raw(server, section)
        with pytest.raises(StoreUnavailable) as caught:
            await S3Objects.open(S3Section(**section))
        assert caught.value.detail in {"full", "server_error"}
        assert raw.everything() == []
        raw.client.close()
