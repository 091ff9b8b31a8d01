"""Others accept our checkpoints, and refuse them changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.note import Signer
from tests.interop.foreign import Refused, Tools, flip_signature, flipped, replaced
from tests.interop.published import LAST, ORIGIN, SIZES, Published

VERIFIERS = ("x/mod", "sigstore", "aics-tlog")

SIGNED = [("x/mod", 0), ("x/mod", 1), ("sigstore", 0), ("aics-tlog", 0)]
"""Who knows which signature: the first is of Ed25519, the second of ML-DSA-44."""


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


@pytest.mark.parametrize("at", [0, 3, 4, 11, 12, 35, -1])
@pytest.mark.parametrize(("verifier", "line"), SIGNED)
def test_a_flipped_byte_of_a_signature_is_refused(
    tools: Tools, log: Published, verifier: str, line: int, at: int
):
    """The key id is bytes 0 to 3; of an ML-DSA-44 signature the time is bytes 4 to 11."""
    path = log.head(LAST)
    with replaced(path, flip_signature(path.read_text("utf-8"), line, at).encode()), pytest.raises(Refused):
        tools.ask(verifier, "head", log.keys, path)


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_checkpoint_of_a_key_that_is_not_known_is_refused(
    tools: Tools, log: Published, verifier: str, tmp_path: Path
):
    """Though the key has the log's name."""
    keys = tmp_path / "keys"
    keys.write_text(f"{Signer(ORIGIN, bytes(32)).vkey()}\n", "utf-8")
    with pytest.raises(Refused):
        tools.ask(verifier, "head", keys, log.head(LAST))
