from __future__ import annotations

import hashlib

import pytest

from audit.errors import OpeningInvalid
from audit.seal import check_opening, commit_opening

SALT = bytes(range(32))


def test_the_commitment_is_the_labelled_hash_of_salt_and_payload() -> None:
    expected = hashlib.sha256(b"lethe.dev/opening/v1\x00" + SALT + b"payload").digest()
    assert expected == commit_opening(b"payload", SALT)
    check_opening(expected, b"payload", SALT)


@pytest.mark.parametrize(("payload", "salt"), [(b"payloae", SALT), (b"", SALT), (b"payload", SALT[::-1])])
def test_another_opening_is_refused(payload: bytes, salt: bytes) -> None:
    with pytest.raises(OpeningInvalid, match="opening_differs"):
        check_opening(commit_opening(b"payload", SALT), payload, salt)


@pytest.mark.parametrize("salt", [b"", SALT[:-1], SALT + b"p"])
def test_a_salt_of_another_length_is_refused(salt: bytes) -> None:
    with pytest.raises(OpeningInvalid, match="opening_salt_length"):
        commit_opening(b"payload", salt)
