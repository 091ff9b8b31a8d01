"""What unit tests share: the model files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import weights
from gateway.weights import fetch


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Return a folder with the models; fetched where `make weights` has not run."""
    folder = weights.directory()
    fetch.fetch(folder)
    return folder
