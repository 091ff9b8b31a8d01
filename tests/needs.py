"""What a test needs from outside the project."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def needs(program: str, package: str, path: str | None = None) -> str:
    """Return the path of a program, or report `MISSING program: apt install package`."""
    found = path or shutil.which(program)
    return found or missing(program, f"apt install {package}")


def missing(what: str, remedy: str) -> NoReturn:
    """Report `MISSING what: remedy`: the test is skipped, or fails with `LETHE_REQUIRE=all` (set in CI)."""
    message = f"MISSING {what}: {remedy}"
    if os.environ.get("LETHE_REQUIRE") == "all":
        pytest.fail(message)
    pytest.skip(message)
