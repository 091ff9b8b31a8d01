"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# A test says what is right, never how fast it was: machines that run other things beside are slow.
settings.register_profile("lethe", deadline=None)
settings.load_profile("lethe")


@pytest.fixture(autouse=True)
def _same_log_as_before() -> Iterator[None]:
    """A command that is run within a test sets the log up on a stream that ends with it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
