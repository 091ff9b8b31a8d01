"""Others accept our checkpoints, and refuse them changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit import b64
from tests.interop.foreign import Refused, Tools, flipped, replaced
from tests.interop.published import LAST, SIZES, Published

VERIFIERS = ("x/mod", "sigstore", "aics-tlog")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_checkpoint_of_every_size_is_accepted(tools: Tools, log: Published, verifier: str, size: int):
    tools.ask(verifier, "head", log.keys, log.head(size))


@pytest.mark.parametrize("line", [0, 1, 2])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_flipped_byte_of_the_body_is_refused(tools: Tools, log: Published, verifier: str, line: int):
    """The last but one character of the origin, the size or the root."""
    path = log.head(LAST)
    end = len(b"\n".join(path.read_bytes().split(b"\n")[: line + 1]))
    with flipped(path, end - 2), pytest.raises(Refused):
        tools.ask(verifier, "head", log.keys, path)


@pytest.mark.parametrize("at", [0, 3, 4, 35, 67])
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_flipped_byte_of_the_signature_is_refused(tools: Tools, log: Published, verifier: str, at: int):
    """The key id is bytes 0 to 3; the Ed25519 signature follows it."""
    path = log.head(LAST)
    with replaced(path, _flip_signature(path, at)), pytest.raises(Refused):
        tools.ask(verifier, "head", log.keys, path)


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_checkpoint_of_a_key_that_is_not_known_is_refused(
    tools: Tools, log: Published, verifier: str, tmp_path: Path
):
    keys = tmp_path / "keys"
    keys.write_text(log.stranger, "utf-8")
    with pytest.raises(Refused):
        tools.ask(verifier, "head", keys, log.head(LAST))


def _flip_signature(path: Path, at: int) -> bytes:
    """Return the note with byte `at` of its first signature changed."""
    lines = path.read_text("utf-8").split("\n")
    mark, name, text = lines[4].split(" ")
    data = bytearray(b64.decode(text) or b"")
    data[at] ^= 1
    lines[4] = f"{mark} {name} {b64.encode(bytes(data))}"
    return "\n".join(lines).encode()
