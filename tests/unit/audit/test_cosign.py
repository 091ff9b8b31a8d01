from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from audit import b64, checkpoint, cosign, head, note
from audit.cosign import Cosigner
from audit.errors import CheckpointInvalid, NoteInvalid
from audit.note import Algorithm, Signature, Verifier
from tests.unit.audit.logs import ORIGIN, SIGNER

VECTORS = Path(__file__).parents[2] / "vectors"
COSIGNATURE = json.loads(VECTORS.joinpath("cosignature.json").read_text())
C2SP = json.loads(VECTORS.joinpath("c2sp.json").read_text())["checkpoint"]
TEXT = checkpoint.sign(ORIGIN, 7, bytes(range(32)), SIGNER)
BODY = note.parse(TEXT)[0]
AT_S = 1_790_000_000
algorithms = pytest.mark.parametrize("algorithm", ["ed25519", "ml-dsa-44"])


def cosigner(algorithm: Algorithm, name: str = "witness.example/w1") -> Cosigner:
    return Cosigner(name, bytes(range(32)), algorithm)


def test_a_subtree_signature_of_torchwood_holds_over_our_bytes() -> None:
    case = COSIGNATURE["subtree"]
    verifier = Verifier.parse(case["vkey"])
    _, (signature,) = note.parse(note.assemble("any text\n", [case["line"]]))
    assert verifier.made(signature)
    message = head.cosigned_subtree(
        verifier.name, 0, case["origin"], case["start"], case["end"], b64.decode(case["root"]) or b""
    )
    MLDSA44PublicKey.from_public_bytes(verifier.public_key).verify(signature.value[8:], message)


def test_the_bytes_that_ed25519_signs_are_those_of_the_specification() -> None:
    body = C2SP["note"].partition("\n\n")[0] + "\n"
    assert f"cosignature/v1\ntime 1679315147\n{body}".encode() == head.cosigned_text(body, 1679315147)


def test_the_bytes_that_ml_dsa_signs_are_those_of_the_specification() -> None:
    root = bytes(range(32))
    by_hand = (
        b"subtree/v1\n\0" + b"\x12witness.example/w1" + AT_S.to_bytes(8, "big") + b"\x10" + ORIGIN.encode()
    )
    by_hand += bytes(8) + (7).to_bytes(8, "big") + root
    assert by_hand == head.cosigned_head("witness.example/w1", BODY, AT_S)


def test_the_times_of_others_signatures_are_read() -> None:
    witness = note.parse(C2SP["note"])[1][1]
    key = Verifier(witness.name, bytes(32), note.KeyType.COSIGNATURE_V1)
    assert note.signed_at(key, witness) == 1679315147
    value = b64.decode(COSIGNATURE["timed"]["value"]) or b""
    assert COSIGNATURE["timed"]["time_s"] == note.signed_at(key, Signature("a", value[:4], value[4:]))


@algorithms
def test_what_is_cosigned_holds_and_tells_when(algorithm: Algorithm) -> None:
    witness = cosigner(algorithm)
    text = note.add_signatures(TEXT, [witness.cosign(TEXT, AT_S)])
    assert cosign.verify(text, witness.verifier) == AT_S
    assert checkpoint.open_checkpoint(text, [SIGNER.verifier, witness.verifier]).size == 7
    later = note.add_signatures(text, [witness.cosign(text, AT_S + 9)])
    assert cosign.verify(later, witness.verifier) == AT_S + 9
    assert witness.verifier == Verifier.parse(witness.vkey())


@algorithms
def test_a_cosignature_is_of_one_checkpoint_and_one_key(algorithm: Algorithm) -> None:
    witness, other = cosigner(algorithm), Cosigner("witness.example/w1", bytes(32), algorithm)
    line = witness.cosign(TEXT, AT_S)
    with pytest.raises(NoteInvalid, match="note_unknown_keys"):
        cosign.verify(note.add_signatures(TEXT, [line]), other.verifier)
    larger = checkpoint.sign(ORIGIN, 8, bytes(range(32)), SIGNER)
    with pytest.raises(NoteInvalid, match="note_signature"):
        cosign.verify(note.add_signatures(larger, [line]), witness.verifier)


@algorithms
def test_a_changed_time_makes_a_cosignature_false(algorithm: Algorithm) -> None:
    witness = cosigner(algorithm)
    name, _, value = witness.cosign(TEXT, AT_S).rpartition(" ")
    data = b64.decode(value) or b""
    for time in (AT_S + 1, 1 << 63, (1 << 64) - 1):
        line = f"{name} {b64.encode(data[:4] + time.to_bytes(8, 'big') + data[12:])}"
        with pytest.raises(NoteInvalid, match="note_signature"):
            cosign.verify(note.add_signatures(TEXT, [line]), witness.verifier)


def test_a_logs_plain_key_does_not_cosign() -> None:
    with pytest.raises(NoteInvalid, match="cosignature_key_type"):
        cosign.verify(TEXT, SIGNER.verifier)


@algorithms
@pytest.mark.parametrize("at_s", [-1, 1 << 63])
def test_a_time_that_cannot_be_stated_is_not_signed(algorithm: Algorithm, at_s: int) -> None:
    with pytest.raises(NoteInvalid, match="signature_time"):
        cosigner(algorithm).cosign(TEXT, at_s)


@algorithms
def test_only_checkpoints_are_cosigned(algorithm: Algorithm) -> None:
    for text in (SIGNER.sign("one\ntwo\n"), SIGNER.sign(BODY + "extension\n")):
        with pytest.raises(CheckpointInvalid):
            cosigner(algorithm).cosign(text, AT_S)


def test_an_origin_that_ml_dsa_cannot_state_is_refused() -> None:
    long = note.assemble(f"{'o' * 256}\n7\n{b64.encode(bytes(32))}\n", TEXT.splitlines()[-1:])
    with pytest.raises(CheckpointInvalid, match="checkpoint_name_length"):
        cosigner("ml-dsa-44").cosign(long, AT_S)


def test_a_cosigner_needs_a_name_and_a_seed_and_does_not_show_it() -> None:
    assert "seed" not in repr(cosigner("ed25519"))
    for name, seed in (("a b", bytes(32)), ("a", bytes(31))):
        with pytest.raises(NoteInvalid):
            Cosigner(name, seed)
