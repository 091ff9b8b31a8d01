"""No parser of `audit` raises anything but its own error, whatever it is given."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from audit import checkpoint, leaf, note, proof
from audit.errors import AuditError
from audit.note import Verifier
from audit.verify import read_trust, verify_certificate, verify_export
from tests.unit.audit.logs import SIGNER, TRUST, certificate, exported, lines

FILES = exported(lines(["subject.upserted", "decision.made"]))
PROOF, OPENING = certificate()
NOTE = FILES["checkpoint"].decode()
anything = st.text(max_size=80)


def mutations(text: str) -> st.SearchStrategy[str]:
    """Return texts that differ from `text` in one stretch."""
    return st.builds(
        lambda start, length, middle: text[:start] + middle + text[start + length :],
        st.integers(0, len(text)),
        st.integers(0, 8),
        st.text(max_size=6),
    ).filter(lambda mutated: mutated != text)


def only_own_errors(read: Any, text: str) -> None:
    with contextlib.suppress(AuditError):
        read(text)


@given(st.one_of(anything, mutations(NOTE)))
def test_notes(text: str) -> None:
    only_own_errors(note.parse, text)
    only_own_errors(checkpoint.parse, text)
    only_own_errors(lambda given: note.open_note(given, [SIGNER.verifier]), text)


@given(st.one_of(anything, mutations(SIGNER.vkey())))
def test_keys(text: str) -> None:
    only_own_errors(Verifier.parse, text)
    only_own_errors(read_trust, text)


@given(st.one_of(anything, mutations(PROOF)))
def test_proofs(text: str) -> None:
    only_own_errors(proof.parse, text)
    assert verify_certificate(text, None, TRUST).verdict != "valid"


@given(
    st.one_of(
        st.binary(max_size=80), mutations(OPENING.decode()).map(lambda text: text.encode(errors="replace"))
    )
)
def test_openings(data: bytes) -> None:
    report = verify_certificate(PROOF, data, TRUST)
    assert report.verdict == "invalid" or report.opening is not None


@given(
    st.one_of(
        st.binary(max_size=80), mutations(lines()[0].decode()).map(lambda text: text.encode(errors="replace"))
    )
)
def test_leaves(data: bytes) -> None:
    try:
        event = leaf.decode(data)
    except AuditError:
        return
    assert data == leaf.encode(event)


@given(st.sampled_from(sorted(FILES)), st.binary(max_size=40), st.booleans())
def test_exports(path: str, content: bytes, with_trust: bool) -> None:
    if content != FILES[path]:
        report = verify_export({**FILES, path: content}, TRUST if with_trust else None)
        assert report.verdict == "invalid"
