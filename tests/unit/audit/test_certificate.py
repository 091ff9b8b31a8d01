from __future__ import annotations

import json
from typing import Any

import pytest

from audit.errors import TrustInvalid
from audit.verify import verify_certificate
from tests.unit.audit.logs import EXAMPLES, ORIGIN, STRANGER, TRUST, certificate, statement

PROOF, OPENING = certificate()
ERASED = EXAMPLES["subject.erased"]


def fault(proof: str, opening: bytes | None, trust: str | None = TRUST) -> str:
    report = verify_certificate(proof, opening, trust)
    assert (report.verdict, report.opening, report.leaf) == ("invalid", None, {})
    return report.fault.partition(":")[0]


def test_a_certificate_with_its_opening_is_valid() -> None:
    report = verify_certificate(PROOF, OPENING, TRUST)
    assert (
        report.verdict,
        report.fault,
        report.origin,
        report.index,
        report.size,
    ) == ("valid", "", ORIGIN, 2, 4)
    assert ("subject.erased", ERASED["cls"]) == (report.leaf["ty"], report.leaf["cls"])
    assert report.opening is not None
    assert report.opening["key_service"] == "local"


def test_a_certificate_without_its_opening_is_valid_and_says_less() -> None:
    report = verify_certificate(PROOF, None, TRUST)
    assert (report.verdict, report.opening) == ("valid", None)


def test_without_trust_a_certificate_is_never_called_valid() -> None:
    assert verify_certificate(PROOF, OPENING, None).verdict == "untrusted"
    assert fault(PROOF, OPENING.replace(b"local", b"other"), None) == "opening_differs"


def test_a_certificate_of_a_log_that_is_not_trusted_is_invalid() -> None:
    assert fault(PROOF, OPENING, STRANGER.vkey()) == "note_unknown_keys"


def test_unusable_trust_is_an_error_and_not_a_verdict() -> None:
    with pytest.raises(TrustInvalid):
        verify_certificate(PROOF, OPENING, "# nothing")


def test_where_copies_are_outside_our_control_no_second_moment_is_promised() -> None:
    erased = {name: value for name, value in ERASED.items() if name != "t2"}
    proof, opening = certificate(statement(erased))
    assert fault(proof, opening) == "opening_unreadable_in_backups_ms"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"erased_classes": ["content", "evidence", "profile"]}, "opening_erased_classes"),
        ({"erased_classes": []}, "opening_erased_classes"),
        ({"kept_classes": []}, "opening_kept_classes"),
        ({"unreadable_here_ms": 1}, "opening_unreadable_here_ms"),
        ({"unreadable_in_backups_ms": None}, "opening_unreadable_in_backups_ms"),
        ({"unreadable_in_backups_ms": True}, "opening_unreadable_in_backups_ms"),
        ({"dsr": "dsrs/" + "0" * 32}, "opening_dsr"),
        ({"dsr": None}, "opening_dsr"),
        ({"dsr": {"deep": [1.5]}}, "json_number"),
    ],
)
def test_an_opening_that_says_something_else_than_the_leaf_is_refused(
    changes: dict[str, Any], expected: str
) -> None:
    """The log's own key committed to it, so only the comparison stands against it."""
    proof, opening = certificate(statement(ERASED, **changes))
    assert expected == fault(proof, opening)


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{}", b'{"dsr":1,"dsr":1}', b"\x7f"])
def test_a_committed_payload_that_is_no_statement_is_refused(payload: bytes) -> None:
    assert fault(*certificate(payload or b" ")).startswith(("opening_", "json_"))


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b"[" * 100_000,
        OPENING + b" x",
        OPENING.replace(b'"salt"', b'"Salt"'),
        OPENING.replace(b"}", b',"more":1}'),
        OPENING.replace(b'"salt": "0', b'"salt": "1'),
        OPENING.replace(b'"salt": "00', b'"salt": "'),
        OPENING.replace(b'"salt": "', b'"salt": " '),
        OPENING.replace(b"1a1b", b"1A1B"),
        OPENING.replace(b"local", b"loca\\ud800"),
        json.dumps({"payload": 1, "salt": "0" * 64}).encode(),
        json.dumps({"payload": "", "salt": 0}).encode(),
    ],
)
def test_a_hostile_opening_is_refused(opening: bytes) -> None:
    fault(PROOF, opening)


def test_every_flipped_byte_of_what_the_opening_says_is_noticed() -> None:
    parts = json.loads(OPENING)
    for name, text in parts.items():
        data = text.encode()
        for place in range(len(data)):
            flipped = bytearray(data)
            flipped[place] ^= 1
            fault(PROOF, json.dumps({**parts, name: flipped.decode()}).encode())


def test_a_leaf_of_another_type_is_no_certificate() -> None:
    proof, _ = certificate(ty="subject.upserted")
    assert fault(proof, None) == "certificate_type"


@pytest.mark.parametrize(
    "proof", ["", "x", PROOF.replace("index 2", "index 1"), PROOF.replace("extra ", "ignored ")]
)
def test_a_hostile_proof_is_refused(proof: str) -> None:
    fault(proof, OPENING)
    fault(proof, OPENING, None)
