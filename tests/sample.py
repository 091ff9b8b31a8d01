"""How much of a long check is done: a fair part in `make test`, all of it in `make test-faults`.

Which part, moves on from day to day; `LETHE_SHIFT`, which each run tells, repeats that of another day.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")

IS_WHOLE = bool(os.environ.get("LETHE_EVERY_POINT"))
"""Whether every case is asked for (`make test-faults`)."""

# In the environment, so that all workers of a run agree.
SHIFT = int(os.environ.setdefault("LETHE_SHIFT", str(datetime.now(UTC).toordinal())))


def sampled(cases: Sequence[T], one_in: int = 5) -> Sequence[T]:
    """Return every case where asked for, else every `one_in`-th of them, beginning where it is its turn."""
    return cases if IS_WHOLE or len(cases) <= one_in else cases[SHIFT % one_in :: one_in]


def examples(number: int) -> int:
    """Return how many examples hypothesis tries: `number` where asked for, else a quarter of them."""
    return number if IS_WHOLE else number // 4
