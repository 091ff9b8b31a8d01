"""A server on a bucket of a real S3 server: what it tells, what it needs, and what it sweeps there.

The whole story on a bucket is told in `test_matrix.py`.
"""

# ruff: noqa: ASYNC240 - a test may well read a small file on its own loop

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml

from tests.gateway import lethe, lethe_here, running
from tests.places import Parts, Place, make_place
from tests.process import serving, until
from tests.seaweed import SECRET, Seaweed


@pytest.fixture
async def place(tmp_path: Path, seaweed: Seaweed) -> Place:
    """A development folder whose gateway keeps its objects in a bucket."""
    sweep = {"interval_s": 0.2, "orphan_grace_s": 0.0}
    return await make_place(tmp_path / "dev", Parts(seaweed=seaweed), sweep=sweep)


async def test_what_a_crash_left_in_the_bucket_is_swept(seaweed: Seaweed, place: Place) -> None:
    section = place.settings.objects.s3
    assert section is not None
    async with running(place.layout):
        with contextlib.closing(seaweed.client()) as client:
            where = {"Bucket": section.bucket}
            client.put_object(**where, Key=section.prefix + "ab" * 16, Body=b"garbage")
            client.create_multipart_upload(**where, Key=section.prefix + "cd" * 16)
        await until(lambda: not place.stored() and not place.drafts())


async def test_the_server_runs_on_a_bucket_and_tells_no_secret(place: Place) -> None:
    async with serving(place.layout) as process:
        arguments = Path(f"/proc/{process.child.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{process.child.pid}/environ").read_bytes()
        assert await process.drain() == 0
        for told in (process.said(), arguments, environment):
            assert SECRET.encode() not in told


def bucket_of(place: Place) -> dict[str, object]:
    section: dict[str, object] = yaml.safe_load(place.layout.config.read_text())["objects"]["s3"]
    return section


def test_a_server_whose_bucket_is_not_there_does_not_start_and_says_why(place: Place) -> None:
    place.configure("objects", s3={**bucket_of(place), "bucket": "nowhere"})
    assert lethe_here("migrate", "--config", place.layout.config).exit_code == 0
    ended = lethe("serve", "--config", place.layout.config)
    assert ended.returncode == 1
    assert "STORE_UNAVAILABLE" in ended.stderr
    assert "no_bucket" in ended.stderr


def test_config_check_looks_at_the_credentials(place: Place) -> None:
    assert lethe_here("config", "check", "--config", place.layout.config).exit_code == 0
    credentials = Path(str(bucket_of(place)["credentials"]))
    credentials.chmod(0o644)
    refused = lethe_here("config", "check", "--config", place.layout.config)
    assert (refused.exit_code, "open to other users" in refused.stderr) == (1, True)
    credentials.unlink()
    refused = lethe_here("config", "check", "--config", place.layout.config)
    assert (refused.exit_code, "objects.s3.credentials" in refused.stderr) == (1, True)
