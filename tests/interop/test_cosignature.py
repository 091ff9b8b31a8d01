"""Others accept the cosignatures of our witnesses, and refuse them changed or on another checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit import note
from tests.interop.foreign import Refused, Tools, flip_signature, flipped, replaced
from tests.interop.published import LAST, SIZES, Published

VERIFIERS = ("x/mod", "aics-tlog")

COSIGNED = [("x/mod", 2), ("x/mod", 3), ("aics-tlog", 2)]
"""Who knows which signature: of the four the third is a cosignature/v1, the last one of ML-DSA-44."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_cosigned_checkpoint_of_every_size_is_accepted(
    tools: Tools, log: Published, verifier: str, size: int
):
    tools.ask(verifier, "head", log.all_keys, log.cosigned(size))


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_checkpoint_without_its_cosignatures_is_refused(tools: Tools, log: Published, verifier: str):
    with pytest.raises(Refused):
        tools.ask(verifier, "head", log.all_keys, log.head(LAST))


@pytest.mark.parametrize("at", [0, 3, 4, 11, 12, 43, -1])
@pytest.mark.parametrize(("verifier", "line"), COSIGNED)
def test_a_flipped_byte_of_a_cosignature_is_refused(
    tools: Tools, log: Published, verifier: str, line: int, at: int
):
    """The key id is bytes 0 to 3, the time bytes 4 to 11."""
    path = log.cosigned(LAST)
    with replaced(path, flip_signature(path.read_text("utf-8"), line, at).encode()), pytest.raises(Refused):
        tools.ask(verifier, "head", log.all_keys, path)


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_a_flipped_byte_of_what_is_cosigned_is_refused(tools: Tools, log: Published, verifier: str):
    path = log.cosigned(LAST)
    root = path.read_bytes().index(b"\n\n") - 10
    with flipped(path, root), pytest.raises(Refused):
        tools.ask(verifier, "head", log.all_keys, path)


@pytest.mark.parametrize(("verifier", "line"), COSIGNED)
def test_a_cosignature_of_another_checkpoint_is_refused(
    tools: Tools, log: Published, tmp_path: Path, verifier: str, line: int
):
    """The log's own signatures hold, and so does the other cosignature."""
    lines = [log.cosigned(LAST).read_text("utf-8").split("\n")[at] for at in (6, 7)]
    lines[line - 2] = log.cosigned(69_999).read_text("utf-8").split("\n")[4 + line]
    path = tmp_path / "cosigned"
    path.write_text(note.add_signatures(log.head(LAST).read_text("utf-8"), lines), "utf-8")
    with pytest.raises(Refused):
        tools.ask(verifier, "head", log.all_keys, path)
