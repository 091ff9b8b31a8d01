"""What a test needs from outside the project."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

from gateway import weights
from gateway.deidentify.faces.names import WEIGHTS


def needs(program: str, package: str, path: str | None = None) -> str:
    """Return the path of a program, or report `MISSING program: apt install package`."""
    found = path or shutil.which(program)
    return found or missing(program, f"apt install {package}")


def face_models() -> dict[str, bytes]:
    """Return the files of the networks that see to faces, or report that they are missing."""
    try:
        return weights.read(weights.directory(), weights.named(*WEIGHTS))
    except weights.WeightsInvalid:
        missing("model weights", "make weights")


def missing(what: str, remedy: str) -> NoReturn:
    """Report `MISSING what: remedy`: the test is skipped, or fails with `LETHE_REQUIRE=all` (set in CI)."""
    message = f"MISSING {what}: {remedy}"
    if os.environ.get("LETHE_REQUIRE") == "all":
        pytest.fail(message)
    pytest.skip(message)
