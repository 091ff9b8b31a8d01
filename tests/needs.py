"""Programs that a test needs from outside the project."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(program: str, package: str, path: str | None = None) -> str:
    """Return the path of a program, or report `MISSING program: apt install package`.

    With `LETHE_REQUIRE=all` (set in CI) a missing program fails the test
    instead of skipping it.
    """
    found = path or shutil.which(program)
    if found:
        return found
    message = f"MISSING {program}: apt install {package}"
    if os.environ.get("LETHE_REQUIRE") == "all":
        pytest.fail(message)
    pytest.skip(message)
