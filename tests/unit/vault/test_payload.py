"""Payloads of events: what a leaf fixes, and what opens it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit import seal
from audit.errors import JsonInvalid, OpeningInvalid
from gateway.ports.records import SubjectKey
from gateway.vault.errors import SealBroken
from gateway.vault.payload import BUCKET, MAX_BYTES, PayloadKey
from tests.fakes.clock import FrozenClock

ORIGIN = "lethe.test/0a"
NONCE = bytes(range(16))
HOLDER = SubjectKey("k" * 32, "acme", "h" * 64, "audit", "2028-11", "e", b"", FrozenClock().now())
KEY = PayloadKey.of(HOLDER, bytes(range(32)))
OTHER = PayloadKey.of(HOLDER, bytes(32))
PAYLOAD = {"residence": "DE", "age": 46}


def test_a_payload_opens_to_what_was_sealed_and_fits_its_commitment() -> None:
    entry, blob = KEY.seal(ORIGIN, NONCE, PAYLOAD)
    salt, payload = KEY.open(ORIGIN, entry, blob)
    assert json.loads(payload) == PAYLOAD
    seal.check_payload(bytes.fromhex(entry[2]), payload, salt)
    assert entry[1] == "audit"


@pytest.mark.parametrize(
    "opening",
    [
        lambda entry, blob: OTHER.open(ORIGIN, entry, blob),
        lambda entry, blob: KEY.open("lethe.test/0b", entry, blob),
        lambda entry, blob: KEY.open(ORIGIN, [entry[0], "evidence", entry[2]], blob),
        lambda entry, blob: KEY.open(ORIGIN, [*entry[:2], "00" * 32], blob),
        lambda entry, blob: KEY.open(ORIGIN, entry, blob[:-1]),
        lambda entry, blob: KEY.open(ORIGIN, entry, blob[:0]),
        lambda entry, blob: KEY.open(ORIGIN, entry, bytes([blob[0] ^ 1]) + blob[1:]),
    ],
)
def test_it_opens_nowhere_else(opening: Any) -> None:
    entry, blob = KEY.seal(ORIGIN, NONCE, PAYLOAD)
    with pytest.raises(SealBroken):
        opening(entry, blob)


def test_equal_payloads_have_nothing_in_common() -> None:
    """Nobody finds a payload by guessing it, nor sees that two say the same."""
    first, second = (KEY.seal(ORIGIN, nonce, PAYLOAD) for nonce in (NONCE, NONCE[::-1]))
    assert first[0][0] != second[0][0]
    assert first[0][2] != second[0][2]
    assert first[1][:64] != second[1][:64]


def test_the_token_is_found_by_who_has_the_key_and_by_nobody_else() -> None:
    entry, _ = KEY.seal(ORIGIN, NONCE, PAYLOAD)
    assert entry[0] == KEY.token(NONCE) == seal.token(KEY.token_key, NONCE, "audit").hex()
    assert entry[0] != OTHER.token(NONCE)


@given(st.text(max_size=600))
def test_the_blob_tells_the_length_in_steps_only(text: str) -> None:
    _, blob = KEY.seal(ORIGIN, NONCE, {"text": text})
    assert (len(blob) - 28) % BUCKET == 0


@pytest.mark.parametrize("payload", [{"x": None}, {"x": 1.5}, {"ä": 1}, {"x": "y" * MAX_BYTES}])
def test_what_is_outside_the_profile_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(JsonInvalid):
        KEY.seal(ORIGIN, NONCE, payload)


def test_a_payload_is_no_opening_of_a_certificate() -> None:
    """The labels differ, so that one can never be passed off as the other."""
    entry, blob = KEY.seal(ORIGIN, NONCE, PAYLOAD)
    salt, payload = KEY.open(ORIGIN, entry, blob)
    with pytest.raises(OpeningInvalid):
        seal.check_opening(bytes.fromhex(entry[2]), payload, salt)


def test_secrets_are_not_in_the_representation() -> None:
    assert KEY.box_key.hex() not in repr(KEY)
    assert repr(KEY.token_key) not in repr(replace(KEY))
