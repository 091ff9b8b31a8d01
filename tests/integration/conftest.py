"""Gateways on both databases; each test gets a folder and a database of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.admin.folder import Layout
from gateway.client import Client
from tests.gateway import Gateway, add_subject, consent, make_folder, publish_notice, running
from tests.needs import missing
from tests.postgres import Postgres, running_postgres

SUBJECT = "crew-4711"
"""The subject that `ready` makes known and whose consent it records."""


def weights_folder() -> Path:
    """Return where the studio's weights lie; a test that needs them is skipped where they are not."""
    folder = Path(os.environ.get("LETHE_WEIGHTS_DIR", ".cache/weights"))
    if not any(folder.glob("*.tflite")):
        missing(f"model weights in {folder}", "make weights")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One real PostgreSQL for all tests of a worker."""
    with running_postgres(is_durable=False) as server:
        yield server


@pytest.fixture(params=("sqlite", "postgres"))
async def records_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, or nothing for the SQLite file in the gateway's own folder."""
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    return await server.create(f"lethe_{secrets.token_hex(6)}")


@pytest.fixture
def layout(tmp_path: Path, records_url: str) -> Layout:
    """A development folder whose gateway keeps its records in that database."""
    return make_folder(tmp_path / "dev", records_url=records_url)


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
