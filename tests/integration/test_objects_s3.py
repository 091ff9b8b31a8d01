"""The whole way of a portrait with objects in a bucket of a real S3 server and records in PostgreSQL."""

# ruff: noqa: ASYNC240 - a test may well read a small file on its own loop

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from lethe.v1 import generation_pb2

from gateway.adapters.objects_s3 import MARKER
from gateway.admin.folder import Layout
from gateway.ports.records import StoredObject
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    consent,
    erase,
    finished,
    header,
    lethe,
    make_folder,
    publish_notice,
    running,
)
from tests.postgres import Postgres
from tests.process import serving, until
from tests.seaweed import SECRET, Seaweed, running_seaweed

SUBJECT, OTHER = "crew-4711", "crew-4712"
DONE = generation_pb2.Job.STATE_SUCCEEDED


@pytest.fixture(scope="module")
def seaweed() -> Iterator[Seaweed]:
    with running_seaweed() as server:
        yield server


@pytest.fixture(params=["plain", "versioned"])
def bucket(request: pytest.FixtureRequest, seaweed: Seaweed) -> str:
    return seaweed.bucket(versioned=request.param == "versioned")


@pytest.fixture
async def layout(tmp_path: Path, postgres: Postgres, seaweed: Seaweed, bucket: str) -> Layout:
    """A development folder whose gateway keeps nothing beside it but keys and the log's lock."""
    url = await postgres.create(f"lethe_{secrets.token_hex(6)}")
    layout = make_folder(tmp_path / "dev", records_url=url)
    place_objects(layout, seaweed, bucket)
    return layout


def place_objects(layout: Layout, seaweed: Seaweed, bucket: str) -> None:
    tree = yaml.safe_load(layout.config.read_text())
    tree["objects"] = {"kind": "s3", "s3": seaweed.section(bucket, timeout_s=5.0)}
    layout.config.write_text(yaml.safe_dump(tree))


def in_the_bucket(seaweed: Seaweed, layout: Layout) -> list[str]:
    """Return all that the bucket lists under the gateway's prefix: versions, markers, unfinished uploads."""
    section = yaml.safe_load(layout.config.read_text())["objects"]["s3"]
    where = {"Bucket": section["bucket"], "Prefix": section["prefix"]}
    client = seaweed.client()
    versions, uploads = client.list_object_versions(**where), client.list_multipart_uploads(**where)
    client.close()
    found = [*versions.get("Versions", ()), *versions.get("DeleteMarkers", ()), *uploads.get("Uploads", ())]
    names = [entry["Key"].removeprefix(section["prefix"]) for entry in found]
    return sorted(name for name in names if name != MARKER)


async def portrait(gateway: Gateway, subject: str) -> None:
    async with gateway.client("app") as app:
        await add_subject(app, subject)
        await consent(app, subject)
        made = await app.create_job(header(subject), PORTRAIT.read_bytes())
        assert (await finished(app, made.job.name)).state == DONE
        _, picture = await app.download(made.job.name)
        assert picture.startswith(b"\xff\xd8\xff")


async def test_after_an_erasure_the_bucket_lists_nothing_of_the_person(seaweed, layout):
    async with running(layout) as gateway:
        async with gateway.client("officer") as officer:
            await publish_notice(officer)
        await portrait(gateway, SUBJECT)
        await portrait(gateway, OTHER)

        async def only_outputs_rest() -> bool:
            rows = [stored.object_id for stored in await gateway.rows(StoredObject)]
            return len(rows) == 2 and sorted(rows) == in_the_bucket(seaweed, layout)

        await until(only_outputs_rest)
        before = {leaf["obj"] for leaf in await gateway.leaves("object.sealed")}
        assert len(before) == 4
        await erase(gateway, SUBJECT)
        await until(lambda: len(in_the_bucket(seaweed, layout)) == 1)
        (kept,) = await gateway.rows(StoredObject)
        assert in_the_bucket(seaweed, layout) == [kept.object_id]
        assert {object_id async for object_id in gateway.outside.objects.versions()} == {kept.object_id}
        assert gateway.object_files() == []
        await erase(gateway, OTHER)
        await until(lambda: in_the_bucket(seaweed, layout) == [])


async def test_what_a_crash_left_in_the_bucket_is_swept(seaweed, tmp_path, bucket):
    layout = make_folder(tmp_path / "dev", sweep={"interval_s": 0.2, "orphan_grace_s": 0.0})
    place_objects(layout, seaweed, bucket)
    section = yaml.safe_load(layout.config.read_text())["objects"]["s3"]
    async with running(layout):
        client = seaweed.client()
        where = {"Bucket": section["bucket"]}
        client.put_object(**where, Key=section["prefix"] + "ab" * 16, Body=b"garbage")
        client.create_multipart_upload(**where, Key=section["prefix"] + "cd" * 16)
        client.close()
        await until(lambda: in_the_bucket(seaweed, layout) == [])


async def test_the_server_runs_on_a_bucket_and_tells_no_secret(seaweed, layout):
    async with serving(layout) as process:
        arguments = Path(f"/proc/{process.child.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{process.child.pid}/environ").read_bytes()
        assert await process.drain() == 0
        for told in (process.said(), arguments, environment):
            assert SECRET.encode() not in told


async def test_a_server_whose_bucket_is_not_there_does_not_start_and_says_why(seaweed, layout):
    tree = yaml.safe_load(layout.config.read_text())
    tree["objects"]["s3"]["bucket"] = "nowhere"
    layout.config.write_text(yaml.safe_dump(tree))
    assert lethe("migrate", "--config", layout.config).returncode == 0
    ended = lethe("serve", "--config", layout.config)
    assert ended.returncode == 1
    assert "STORE_UNAVAILABLE" in ended.stderr
    assert "no_bucket" in ended.stderr


async def test_config_check_looks_at_the_credentials(layout):
    assert lethe("config", "check", "--config", layout.config).returncode == 0
    credentials = Path(yaml.safe_load(layout.config.read_text())["objects"]["s3"]["credentials"])
    credentials.chmod(0o644)
    refused = lethe("config", "check", "--config", layout.config)
    assert (refused.returncode, "open to other users" in refused.stderr) == (1, True)
    credentials.unlink()
    refused = lethe("config", "check", "--config", layout.config)
    assert (refused.returncode, "objects.s3.credentials" in refused.stderr) == (1, True)
