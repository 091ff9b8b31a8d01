"""Gateways on both databases; each test gets a folder and a database of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.admin.folder import Layout
from gateway.client import Client
from tests.gateway import Gateway, add_subject, consent, make_folder, publish_notice, running
from tests.needs import missing
from tests.places import PLACES, Parts, Place, make_place
from tests.postgres import Postgres
from tests.softhsm import make_softhsm

SUBJECT = "crew-4711"
"""The subject that `ready` makes known and whose consent it records."""

IS_MATRIX = os.environ.get("LETHE_MATRIX") == "all"
"""Whether every journey is made on every combination of parts (`make test-matrix`)."""

DATABASES = ("sqlite", "postgres")
GATEWAY_DATABASES = DATABASES if IS_MATRIX else DATABASES[:1]
"""On which databases a whole gateway is tried: on PostgreSQL in the matrix only."""

everywhere = pytest.mark.parametrize("place", PLACES, indirect=True)
"""A journey that every run of the tests makes on every combination."""

matrix = pytest.mark.parametrize("place", PLACES if IS_MATRIX else PLACES[:1], indirect=True)
"""A journey on plain files, and on the others in the matrix."""


def weights_folder() -> Path:
    """Return where the studio's weights lie; a test that needs them is skipped where they are not."""
    folder = Path(os.environ.get("LETHE_WEIGHTS_DIR", ".cache/weights"))
    if not any(folder.glob("*.tflite")):
        missing(f"model weights in {folder}", "make weights")
    return folder


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A folder for a gateway on one combination of parts."""
    parts = Parts()
    if request.param == "bucket":
        parts = Parts(request.getfixturevalue("postgres"), request.getfixturevalue("seaweed"))
    elif request.param == "token":
        parts = Parts(hsm=make_softhsm(tmp_path / "hsm", monkeypatch))
    return await make_place(tmp_path / "dev", parts)


@pytest.fixture(params=DATABASES)
async def records_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, or nothing for the SQLite file in the gateway's own folder."""
    return await database(request)


@pytest.fixture(params=GATEWAY_DATABASES)
async def gateway_url(request: pytest.FixtureRequest) -> str:
    """The same, for a whole gateway."""
    return await database(request)


async def database(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    return await server.create(f"lethe_{secrets.token_hex(6)}")


@pytest.fixture
def layout(tmp_path: Path, gateway_url: str) -> Layout:
    """A development folder whose gateway keeps its records in that database."""
    return make_folder(tmp_path / "dev", records_url=gateway_url)


@pytest.fixture
async def gateway(layout: Layout) -> AsyncIterator[Gateway]:
    """A gateway that runs, with a fake backend."""
    async with running(layout) as started:
        yield started


@pytest.fixture
async def app(gateway: Gateway) -> AsyncIterator[Client]:
    """The controller's service."""
    async with gateway.client("app") as client:
        yield client


@pytest.fixture
async def officer(gateway: Gateway) -> AsyncIterator[Client]:
    """A privacy officer."""
    async with gateway.client("officer") as client:
        yield client


@pytest.fixture
async def auditor(gateway: Gateway) -> AsyncIterator[Client]:
    """An auditor."""
    async with gateway.client("auditor") as client:
        yield client


@pytest.fixture
async def ready(app: Client, officer: Client) -> str:
    """A published notice and a subject who consented; returns the consent's name."""
    await publish_notice(officer)
    await add_subject(app, SUBJECT)
    return await consent(app, SUBJECT)
