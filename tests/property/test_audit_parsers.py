"""No parser of `audit` raises anything but its own error, whatever it is given."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from audit import checkpoint, cosign, leaf, note, proof
from audit.cosign import Cosigner
from audit.errors import AuditError
from audit.keys import KeyBook
from audit.note import Signer, Verifier
from audit.quorum import Policy
from audit.verify import read_trust, verify_certificate, verify_export
from tests.unit.audit.logs import SIGNER, TRUST, certificate, exported, lines

FILES = exported(lines(["subject.upserted", "decision.made"]))
PROOF, OPENING = certificate()
NOTE = FILES["checkpoint"].decode()
POST_QUANTUM = Signer(SIGNER.name, bytes(range(32)), "ml-dsa-44")
WITNESS = Cosigner("witness.example/w", bytes(range(32)), "ed25519")
KEY, COSIGNER = SIGNER.vkey(), WITNESS.vkey()
LINE = WITNESS.cosign(NOTE, 5)
COSIGNED = note.add_signatures(NOTE, [LINE])
POLICY = Policy.parse(f"log {KEY} https://log.example\nwitness w {COSIGNER}\ngroup g any w\nquorum g\n")
BOOK = KeyBook.parse(f"{KEY} from=3 until=9\n{POST_QUANTUM.vkey()} from=9 revoked=12\n")
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


@given(st.one_of(anything, mutations(POST_QUANTUM.vkey())))
def test_keys_of_the_other_algorithm(text: str) -> None:
    only_own_errors(Verifier.parse, text)


@given(st.one_of(anything, mutations(COSIGNED)))
def test_cosigned_notes(text: str) -> None:
    only_own_errors(lambda given: cosign.verify(given, WITNESS.verifier), text)
    only_own_errors(lambda given: note.add_signatures(given, [LINE]), text)
    only_own_errors(lambda given: note.add_signatures(NOTE, [given]), text)
    only_own_errors(POLICY.check, text)
    only_own_errors(lambda given: WITNESS.cosign(given, 5), text)


WORDS = st.sampled_from(
    ["log", "witness", "group", "quorum", "none", "any", "all", "1", "2", "a", "b", "#", KEY, COSIGNER]
)
LINES = st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=6).map("\n".join)


@given(st.one_of(anything, LINES, mutations(POLICY.text())))
def test_policies(text: str) -> None:
    try:
        policy = Policy.parse(text)
    except AuditError:
        return
    assert policy == Policy.parse(policy.text())
    assert policy.is_met([witness.verifier for witness in policy.witnesses])
    assert policy.is_met([]) == (policy.quorum == "none")


@given(st.one_of(anything, mutations(BOOK.text())), st.integers(0, 1 << 63))
def test_key_books(text: str, size: int) -> None:
    only_own_errors(read_trust, text)
    try:
        book = KeyBook.parse(text)
    except AuditError:
        return
    assert book == KeyBook.parse(book.text())
    assert set(book.verifiers_at(size)) <= set(book.verifiers)


@given(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=4, unique=True).map(sorted), st.data())
def test_after_any_rotations_each_size_has_one_key_and_two_where_it_changed(
    sizes: list[int], data: st.DataObject
) -> None:
    book = KeyBook.of([SIGNER.verifier])
    for place, size in enumerate(sizes):
        book = book.rotated([Verifier(SIGNER.name, bytes([place]) * 32)], size)
    size = data.draw(st.one_of(st.sampled_from(sizes), st.integers(0, 1 << 41)))
    assert len(book.verifiers_at(size)) == 1 + (size in sizes)


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
