from __future__ import annotations

import pytest

from audit import checkpoint
from audit.errors import CheckpointInvalid, KeyRefused, NoteInvalid, TrustInvalid
from audit.keys import KeyBook, LogKey
from audit.note import Signer
from audit.trust import read_trust
from tests.unit.audit.logs import ORIGIN, SIGNER, STRANGER

OLD = (SIGNER, Signer(ORIGIN, bytes([1]) * 32, "ml-dsa-44"))
NEW = (Signer(ORIGIN, bytes([2]) * 32), Signer(ORIGIN, bytes([3]) * 32, "ml-dsa-44"))
BEFORE = KeyBook.of(key.verifier for key in OLD)
AFTER = BEFORE.rotated([key.verifier for key in NEW], 100)


def signed(size: int, *signers: Signer) -> str:
    return checkpoint.sign(ORIGIN, size, bytes(range(32)), signers, 5)


def test_a_rotation_ends_the_old_keys_where_the_new_ones_begin() -> None:
    old, new = (tuple(key.verifier for key in keys) for keys in (OLD, NEW))
    assert old == AFTER.verifiers_at(1) == AFTER.verifiers_at(99)
    assert (*old, *new) == AFTER.verifiers_at(100) == AFTER.verifiers
    assert new == AFTER.verifiers_at(101)


def test_all_that_was_published_still_opens_and_so_does_what_follows() -> None:
    for text in (signed(7, *OLD), signed(100, OLD[0]), signed(100, *OLD, *NEW), signed(101, *NEW)):
        assert checkpoint.open_checkpoint(text, AFTER) == AFTER.open(text)


@pytest.mark.parametrize(
    ("size", "signers", "code"),
    [
        (101, OLD, "key_retired"),
        (101, (*NEW, OLD[1]), "key_retired"),
        (99, NEW, "key_not_begun"),
        (99, (*OLD, NEW[0]), "key_not_begun"),
    ],
)
def test_a_signature_outside_its_keys_range_refuses_the_checkpoint(
    size: int, signers: tuple[Signer, ...], code: str
) -> None:
    with pytest.raises(KeyRefused) as caught:
        AFTER.open(signed(size, *signers))
    assert code == caught.value.code


def test_a_revoked_key_is_refused_from_its_size_on() -> None:
    book = AFTER.revoked(NEW[0].verifier, 120)
    assert book.open(signed(119, *NEW)).size == 119
    for size in (120, 10_000):
        with pytest.raises(KeyRefused, match="key_revoked"):
            book.open(signed(size, *NEW))
    assert book.open(signed(120, NEW[1])).size == 120
    with pytest.raises(KeyRefused, match="key_revoked"):
        BEFORE.revoked(OLD[0].verifier, 0).open(signed(0 + 1, OLD[0]))


def test_the_checkpoint_of_a_rotation_has_all_signatures() -> None:
    assert AFTER.check_handover(signed(100, *OLD, *NEW)).size == 100
    for text in (signed(100, *OLD), signed(100, *NEW), signed(100, *OLD, NEW[0]), signed(99, *OLD)):
        with pytest.raises(KeyRefused, match="key_handover"):
            AFTER.check_handover(text)


def test_the_book_is_read_back_as_it_was_written() -> None:
    book = AFTER.revoked(NEW[1].verifier, 300)
    assert book == KeyBook.parse(book.text())
    assert book == read_trust(f"# keys\n\n{book.text()}").book
    first = book.text().splitlines()[0]
    assert f"{SIGNER.vkey()} until=100" == first
    assert book.text().splitlines()[3].endswith(" from=100 revoked=300")


def test_a_plain_list_of_keys_is_a_book_without_limits() -> None:
    book = KeyBook.parse(f"{OLD[0].vkey()}\r\n{OLD[1].vkey()}\r\n")
    assert book == BEFORE
    assert book.open(signed(1 << 62, *OLD)).size == (1 << 62)


def test_strangers_and_other_names_open_nothing() -> None:
    with pytest.raises(NoteInvalid, match="note_unknown_keys"):
        AFTER.open(signed(7, STRANGER))
    other = Signer("log.example/other", bytes(32))
    with pytest.raises(CheckpointInvalid, match="checkpoint_key_name"):
        KeyBook.of([other.verifier]).open(other.sign(f"{ORIGIN}\n1\n{'A' * 43}=\n"))


def test_a_rotation_touches_only_keys_of_its_log_that_still_sign() -> None:
    other = LogKey(Signer("log.example/other", bytes([9]) * 32).verifier)
    retired = LogKey(STRANGER.verifier, 0, 50)
    book = KeyBook((*BEFORE.keys, other, retired)).rotated([NEW[0].verifier], 100)
    assert {other, retired} < set(book.keys)


def test_a_rotation_that_hands_nothing_over_is_refused() -> None:
    for new in ([], [Signer("log.example/other", bytes(32)).verifier]):
        with pytest.raises(TrustInvalid, match="trust_rotation"):
            BEFORE.rotated(new, 100)
    with pytest.raises(TrustInvalid, match="trust_duplicate_key"):
        BEFORE.rotated([OLD[0].verifier], 100)
    with pytest.raises(TrustInvalid, match="trust_key_unknown"):
        BEFORE.revoked(NEW[0].verifier, 100)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ("from=", "trust_malformed"),
        ("from=-1", "trust_malformed"),
        ("from=01", "trust_malformed"),
        ("from=\u0661", "trust_malformed"),
        ("from=9223372036854775808", "trust_malformed"),
        (f"from={'9' * 5000}", "trust_malformed"),
        ("from=1 from=2", "trust_malformed"),
        ("From=1", "trust_malformed"),
        ("until = 1", "trust_malformed"),
        ("comment", "trust_malformed"),
        ("from=5 until=4", "trust_key_range"),
        ("# comment", "trust_malformed"),
    ],
)
def test_limits_that_are_none_are_refused(limits: str, code: str) -> None:
    with pytest.raises(TrustInvalid) as caught:
        KeyBook.parse(f"{SIGNER.vkey()} {limits}\n")
    assert code == caught.value.code
