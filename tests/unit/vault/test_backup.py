"""The backup file: frames in a sealed stream, and keys that are what they should be."""

from __future__ import annotations

import io
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.flows import backup as making
from gateway.vault import backup
from gateway.vault.errors import BackupInvalid

IDENTITY, RECIPIENT = backup.make_identity()
FRAMES = [(b"M", b"{}"), (b"C", bytes(3_000_000)), (b"G", b""), (b"Z", b"end")]


def sealed(frames: list[tuple[bytes, bytes]]) -> bytes:
    whole = b"".join(backup.frame(*one) for one in frames)
    pieces = (whole[at : at + 70_001] for at in range(0, len(whole), 70_001))
    return b"".join(backup.seal(backup.read_recipient(RECIPIENT), pieces))


def test_frames_come_back_however_they_are_cut() -> None:
    file = io.BytesIO(sealed(FRAMES))
    assert list(backup.open_(backup.read_identity(IDENTITY), file)) == FRAMES


def test_two_files_of_the_same_share_no_key() -> None:
    one, other = sealed(FRAMES), sealed(FRAMES)
    assert one.splitlines()[1] != other.splitlines()[1]
    assert one[-100:] != other[-100:]


def test_a_stream_under_another_header_does_not_open() -> None:
    one, other = sealed(FRAMES), sealed(FRAMES)
    cut = other.index(b"\n", 20) + 1
    with pytest.raises(BackupInvalid) as refused:
        list(backup.open_(backup.read_identity(IDENTITY), io.BytesIO(one[:cut] + other[cut:])))
    assert refused.value.code == "broken"


@pytest.mark.parametrize("size", [0, 1, 4])
def test_a_stream_that_ends_within_a_frame_is_broken(size: int) -> None:
    whole = backup.frame(b"M", b"{}")
    with pytest.raises(BackupInvalid):
        list(backup.read_frames([whole, whole[: size + 1]]))


def test_a_frame_that_says_it_is_huge_is_not_waited_for() -> None:
    with pytest.raises(BackupInvalid):
        list(backup.read_frames([b"C\xff\xff\xff\xff"]))


def test_a_frame_has_a_kind_and_a_limit() -> None:
    for kind, body in ((b"", b""), (b"MM", b""), (b"M", bytes(backup.MAX_BODY_BYTES + 1))):
        with pytest.raises(ValueError, match="frame"):
            backup.frame(kind, body)


def test_keys_of_another_kind_are_refused() -> None:
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    for text in (b"", b"no pem", private, RECIPIENT):
        with pytest.raises(BackupInvalid):
            backup.read_identity(text)
    for text in (b"", b"no pem", public, IDENTITY):
        with pytest.raises(BackupInvalid):
            backup.read_recipient(text)


def test_rows_are_cut_into_lists_that_fit_a_frame() -> None:
    rows = [("x" * 700_000, number, None, b"\0") for number in range(5)]
    found = list(making._bodies(rows))
    assert [len(json.loads(body)) for body in found] == [2, 2, 1]
    assert [row[1] for body in found for row in json.loads(body)] == [0, 1, 2, 3, 4]
    assert list(making._bodies([])) == []
