"""Whose signatures a log asks for: the book of its keys in the records, and who holds them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from audit import note
from audit.checkpoint import Checkpoint, open_signed
from audit.errors import AuditError, TrustInvalid
from audit.keys import KeyBook
from audit.note import Signer, Verifier
from audit.quorum import Log, Policy
from gateway.errors import AuditUnavailable
from gateway.ports.records import LogKeys, Transaction


def key_book(tx: Transaction, origin: str) -> KeyBook:
    """Return the keys of a log that was signed at least once.

    Raises:
        AuditUnavailable: They are gone, or no keys (detail `log_changed`).
    """
    return read_book(log_keys(tx, origin))


def log_keys(tx: Transaction, origin: str) -> LogKeys:
    """Return the record of the keys of a log that was signed at least once.

    Raises:
        AuditUnavailable: It is gone (detail `log_changed`).
    """
    found = tx.get(LogKeys, origin)
    if found is None:
        raise AuditUnavailable("the keys of a log are gone", detail="log_changed")
    return found


def read_book(keys: LogKeys) -> KeyBook:
    """Return the keys that a record holds.

    Raises:
        AuditUnavailable: They are no keys (detail `log_changed`).
    """
    try:
        return KeyBook.parse(keys.text)
    except TrustInvalid as error:
        raise AuditUnavailable("the keys of a log are damaged", detail="log_changed") from error


def first_book(
    origin: str, signing: Sequence[Signer], retiring: Sequence[Signer], notes: Collection[str]
) -> KeyBook:
    """Return the book of a log that has none: the keys that made what stands, or `signing` if nothing does.

    Args:
        notes: The heads of the log that are locked or kept.

    Raises:
        AuditUnavailable: Neither keys made them (detail `log_changed`).
    """
    for keys in filter(None, (signing, retiring)):
        book = KeyBook.of(signer.verifier for signer in keys)
        try:
            for text in notes:
                opened(book, origin, text)
        except AuditUnavailable:
            continue
        return book
    raise AuditUnavailable("a head of the log is not signed by us", detail="log_changed")


def opened(book: KeyBook, origin: str, text: str) -> Checkpoint:
    """Return the checkpoint of a head that we made some time, with any key of the book.

    Ranges do not matter here: a head does not stop being ours when its key is revoked.

    Raises:
        AuditUnavailable: It is not ours, or it has a signature in the log's name by a key that the
            book lacks: the book fell back (detail `log_changed`).
    """
    try:
        found = open_signed(text, book.verifiers)[0]
        _, signatures = note.parse(text)
    except AuditError as error:
        raise AuditUnavailable("a head of the log is not signed by us", detail="log_changed") from error
    mine = [signature for signature in signatures if signature.name == origin]
    if found.origin != origin or not all(any(key.made(one) for key in book.verifiers) for one in mine):
        raise AuditUnavailable("a head is signed by keys that the log lacks", detail="log_changed")
    return found


def is_rekeyed(book: KeyBook, signing: Iterable[Signer], retiring: Iterable[Signer] = ()) -> bool:
    """Return whether `signing` take over from `retiring`, which stand; False where they stand themselves.

    Raises:
        AuditUnavailable: Nothing may be signed.  Detail `log_key_retired`: a key of `signing` is
            retired or revoked; `log_key_missing`: the log has further ones; `log_key_unknown`:
            it does not know them, and they take over from none.
    """
    standing, ours = set(book.standing), {signer.verifier for signer in signing}
    if ours == standing:
        return False
    if ours & (set(book.verifiers) - standing):
        raise AuditUnavailable("a signing key is retired or revoked", detail="log_key_retired")
    if ours < standing:
        raise AuditUnavailable("a signing key of the log is missing", detail="log_key_missing")
    if ours & standing or not standing or standing != {signer.verifier for signer in retiring}:
        raise AuditUnavailable("a signing key is not one of the log's", detail="log_key_unknown")
    return True


def rekeyed(book: KeyBook, signing: Sequence[Signer], retiring: Sequence[Signer], size: int) -> KeyBook:
    """Return the book after `signing` took over at `size`, a head that all of both can sign.

    Raises:
        AuditUnavailable: As `signers_at`; or there are too many keys (`log_key_unknown`).
    """
    try:
        made = book.rotated([signer.verifier for signer in signing], size)
    except TrustInvalid as error:
        raise AuditUnavailable("these keys cannot take over", detail="log_key_unknown") from error
    signers_at(made, size, (*signing, *retiring))
    return made


def signers_at(book: KeyBook, size: int, held: Iterable[Signer]) -> tuple[Signer, ...]:
    """Return who signs a head of this size: all keys that may; at a rotation, the old and the new ones.

    Raises:
        AuditUnavailable: Not all of them are at hand (detail `log_key_missing`).
    """
    at_hand = {signer.verifier: signer for signer in held}
    asked: tuple[Verifier, ...] = book.verifiers_at(size)
    if not asked or any(key not in at_hand for key in asked):
        raise AuditUnavailable("a key that signs the head is missing", detail="log_key_missing")
    return tuple(at_hand[key] for key in asked)


def turn(book: KeyBook) -> int:
    """Return the size at which the keys changed last; 0 if they never did."""
    return max(key.first for key in book.keys)


def policy_at(asked: Policy, book: KeyBook, *sizes: int) -> Policy:
    """Return the policy with the log's keys that may sign one of these sizes."""
    logs = [key.verifier for key in book.keys if any(map(key.signs, sizes))]
    return replace(asked, logs=tuple(map(Log, logs)))
