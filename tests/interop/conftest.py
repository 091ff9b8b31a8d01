"""These tests need what `make test-interop` installs: without it they are not collected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.foreign import Tools
from tests.interop.published import Published, publish

collect_ignore_glob = [] if os.environ.get("LETHE_INTEROP") == "1" else ["test_*.py"]


@pytest.fixture(scope="session")
def tools() -> Tools:
    """What verifies, by others."""
    return Tools(Path(".cache/interop").resolve())


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A log of 70,000 leaves as we publish it; a test that changes a file of it puts it back."""
    return publish(tmp_path_factory.mktemp("log"))
