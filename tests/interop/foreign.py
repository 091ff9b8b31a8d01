"""The verifiers of others, each asked by a small program of its own in the same way."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit import b64

HERE = Path(__file__).parent


class Refused(Exception):
    """The verifier says that something does not hold."""


@dataclass(frozen=True)
class Tools:
    """Where `tests.interop.install` has put them."""

    folder: Path

    def ask(self, verifier: str, command: str, *paths: Path) -> None:
        """Return if `verifier` accepts.

        Raises:
            Refused: It does not.
        """
        done = subprocess.run(
            [*self._program(verifier), command, *paths],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode == 1 and done.stderr.startswith("refused: "):
            raise Refused(done.stderr)
        assert not done.returncode, done.stderr

    def _program(self, verifier: str) -> tuple[Path, ...]:
        return {
            "x/mod": (self.folder / "tlogcheck",),
            "sigstore": (self.folder / "node", self.folder / "js/check.js"),
            "aics-tlog": (self.python, HERE / "py/check.py"),
        }[verifier]

    @property
    def python(self) -> Path:
        """An interpreter that has the Python packages of others, and not Lethe."""
        return self.folder / "venv/bin/python"


@contextmanager
def flipped(path: Path, at: int) -> Iterator[None]:
    """Have one bit of byte `at` of a file changed while this lasts; negative counts from the end."""
    with replaced(path, flip(path.read_bytes(), at)):
        yield


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    """Have a file hold `data` while this lasts."""
    good = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(good)


def flip_signature(note: str, line: int, at: int) -> str:
    """Return a note with one bit of byte `at` of its signature `line` changed."""
    text, gap, signed = note.rpartition("\n\n")
    lines = signed.split("\n")
    mark, name, encoded = lines[line].split(" ")
    lines[line] = f"{mark} {name} {b64.encode(flip(b64.decode(encoded) or b'', at))}"
    return text + gap + "\n".join(lines)


def flip(data: bytes, at: int = 0) -> bytes:
    """Return `data` with one bit of byte `at` changed; negative counts from the end."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)
