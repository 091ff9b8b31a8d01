"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

from tests.sample import SHIFT

if TYPE_CHECKING:
    from tests.postgres import Postgres
    from tests.seaweed import Seaweed

# A test says what is right, never how fast it was: machines that run other things beside are slow.
settings.register_profile("lethe", deadline=None)
settings.load_profile("lethe")

LONGEST = (
    "integration/test_cli.py",
    "integration/test_rekey.py",
    "integration/test_log_for_ever.py",
    "faults/test_kill.py",
    "integration/test_bad_input.py",
    "integration/test_backup",
    "unit/flows/test_lost_writes.py",
    "faults/",
    "integration/",
    "contract/",
    "property/",
)
"""What takes longest by itself, the longest first: begun last, it would keep one worker while others wait."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    if exitstatus:
        terminalreporter.write_line(f"LETHE_SHIFT={SHIFT} tries the same sample again (tests/sample.py)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    name = item.nodeid.removeprefix("tests/")
    return next((turn for turn, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One real PostgreSQL for all tests of a worker that pull no plug."""
    from tests.postgres import running_postgres

    with running_postgres(is_durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    """One real S3 server for all tests of a worker."""
    from tests.seaweed import running_seaweed

    with running_seaweed() as server:
        yield server


@pytest.fixture(autouse=True)
def _same_log_as_before() -> Iterator[None]:
    """A command that is run within a test sets the log up on a stream that ends with it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
