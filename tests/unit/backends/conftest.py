"""What the tests of the studio share: models, a portrait, a running server."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from gateway import weights
from gateway.backends.studio.picture import MODELS, Headshot, Studio
from tests.unit.backends import pictures

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def models(weights_dir: Path) -> dict[str, bytes]:
    return weights.read(weights_dir, weights.named(*MODELS))


@pytest.fixture(scope="session")
def studio(models: dict[str, bytes]) -> Studio:
    return Studio(models)


@pytest.fixture(scope="session")
def portrait() -> bytes:
    return (ROOT / "gateway" / "admin" / "data" / "eileen-collins.jpg").read_bytes()


@pytest.fixture(scope="session")
def made(studio: Studio, portrait: bytes):
    """Return the portrait's headshot in a style; each is made once."""

    @functools.cache
    def make(style: str) -> Headshot:
        return studio.headshot(portrait, "jpeg", style)

    return make


@pytest.fixture(scope="session")
def landscape() -> bytes:
    return pictures.landscape()
