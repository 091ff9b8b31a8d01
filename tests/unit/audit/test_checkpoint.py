from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit import b64, checkpoint, note
from audit.checkpoint import Checkpoint, open_checkpoint, parse
from audit.errors import CheckpointInvalid, NoteInvalid, QuorumNotMet
from audit.note import Signer
from audit.tree import EMPTY_ROOT
from tests.unit.audit.logs import ORIGIN, SIGNER, STRANGER

VECTOR = json.loads(Path(__file__).parents[2].joinpath("vectors/c2sp.json").read_text())["checkpoint"]
ROOT = bytes(range(32))
ROOT64 = b64.encode(ROOT)
POST_QUANTUM = Signer(ORIGIN, bytes(range(32)), "ml-dsa-44")


def test_the_checkpoint_of_the_specification_is_read() -> None:
    body, signatures = note.parse(VECTOR["note"])
    assert Checkpoint(VECTOR["origin"], VECTOR["size"], bytes.fromhex(VECTOR["root"])) == parse(body)
    assert [VECTOR["origin"], "witness.example.com/w1"] == [signature.name for signature in signatures]


def test_what_is_signed_opens_to_the_same_values() -> None:
    text = checkpoint.sign(ORIGIN, 7, ROOT, SIGNER)
    assert text.startswith(f"{ORIGIN}\n7\n{ROOT64}\n\n\u2014 {ORIGIN} ")
    assert Checkpoint(ORIGIN, 7, ROOT) == open_checkpoint(text, [SIGNER.verifier])


def test_the_empty_tree_has_a_checkpoint_and_only_one_root() -> None:
    text = checkpoint.sign(ORIGIN, 0, EMPTY_ROOT, SIGNER)
    assert open_checkpoint(text, [SIGNER.verifier]).size == 0
    with pytest.raises(CheckpointInvalid):
        checkpoint.sign(ORIGIN, 0, ROOT, SIGNER)


@pytest.mark.parametrize(
    ("origin", "size", "root"), [("log.example/other", 1, ROOT), (ORIGIN, -1, ROOT), (ORIGIN, 1, b"x")]
)
def test_nothing_is_signed_that_is_no_checkpoint_of_the_key(origin: str, size: int, root: bytes) -> None:
    with pytest.raises(CheckpointInvalid):
        checkpoint.sign(origin, size, root, SIGNER)


def test_a_known_key_of_another_name_does_not_vouch_for_the_origin() -> None:
    other = Signer("log.example/other", bytes(range(32)))
    text = other.sign(f"{ORIGIN}\n7\n{ROOT64}\n")
    with pytest.raises(CheckpointInvalid, match="checkpoint_key_name"):
        open_checkpoint(text, [other.verifier, SIGNER.verifier])


def test_a_key_of_the_same_name_that_is_not_known_does_not_count() -> None:
    with pytest.raises(NoteInvalid):
        open_checkpoint(checkpoint.sign(ORIGIN, 7, ROOT, STRANGER), [SIGNER.verifier])


def test_a_log_signs_with_both_algorithms_and_either_key_opens_it() -> None:
    text = checkpoint.sign(ORIGIN, 7, ROOT, [SIGNER, POST_QUANTUM], 1_790_000_000)
    assert [signature.name for signature in note.parse(text)[1]] == [ORIGIN, ORIGIN]
    for keys in ([SIGNER.verifier], [POST_QUANTUM.verifier], [SIGNER.verifier, POST_QUANTUM.verifier]):
        assert Checkpoint(ORIGIN, 7, ROOT) == open_checkpoint(text, keys)


def test_a_false_signature_of_one_known_key_refuses_what_the_other_signed() -> None:
    plain, post = (checkpoint.sign(ORIGIN, 7, ROOT, key, 5) for key in (SIGNER, POST_QUANTUM))
    foreign = checkpoint.sign(ORIGIN, 8, ROOT, POST_QUANTUM, 5).splitlines()[-1]
    mixed = note.add_signatures(plain, [foreign])
    with pytest.raises(NoteInvalid, match="note_signature"):
        open_checkpoint(mixed, [SIGNER.verifier, POST_QUANTUM.verifier])
    assert open_checkpoint(mixed, [SIGNER.verifier]) == open_checkpoint(post, [POST_QUANTUM.verifier])


def test_an_extension_line_is_refused_although_ml_dsa_does_not_sign_it() -> None:
    body = f"{ORIGIN}\n7\n{ROOT64}\n"
    text = note.assemble(body + "extension\n", [POST_QUANTUM.line(body, 5)])
    with pytest.raises(CheckpointInvalid, match="checkpoint_lines"):
        open_checkpoint(text, [POST_QUANTUM.verifier])


def test_nobody_signs_without_a_key_or_for_another_log() -> None:
    for keys in ([], [SIGNER, Signer("log.example/other", bytes(32))]):
        with pytest.raises(CheckpointInvalid, match="checkpoint_key_name"):
            checkpoint.sign(ORIGIN, 7, ROOT, keys)


def test_what_opens_checkpoints_by_its_own_rules_is_asked_to() -> None:
    class Closed:
        def open(self, text: str) -> Checkpoint:
            raise QuorumNotMet("quorum_not_met")

    with pytest.raises(QuorumNotMet):
        open_checkpoint(checkpoint.sign(ORIGIN, 7, ROOT, SIGNER), Closed())


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n",
        f"{ORIGIN}\n",
        f"{ORIGIN}\n7\n",
        f"\n7\n{ROOT64}\n",
        f"{ORIGIN}\n7\n{ROOT64}",
        f"{ORIGIN}\n7\n{ROOT64}\nextension\n",
        f"{ORIGIN}\n7\n{ROOT64}\n\n",
        f"{ORIGIN}\n07\n{ROOT64}\n",
        f"{ORIGIN}\n-7\n{ROOT64}\n",
        f"{ORIGIN}\n+7\n{ROOT64}\n",
        f"{ORIGIN}\n 7\n{ROOT64}\n",
        f"{ORIGIN}\n7 \n{ROOT64}\n",
        f"{ORIGIN}\n٧\n{ROOT64}\n",
        f"{ORIGIN}\n9223372036854775808\n{ROOT64}\n",
        f"{ORIGIN}\n" + "9" * 5000 + f"\n{ROOT64}\n",
        f"{ORIGIN}\n7\n{ROOT64[:-1]}\n",
        f"{ORIGIN}\n7\n{ROOT64[:-2]}9=\n",
        f"{ORIGIN}\n7\n{b64.encode(ROOT[:31])}\n",
        f"{ORIGIN}\n7\n{ROOT.hex()}\n",
        f"{ORIGIN}\r\n7\r\n{ROOT64}\r\n",
    ],
)
def test_a_body_that_is_not_exactly_origin_size_and_root_is_refused(body: str) -> None:
    with pytest.raises(CheckpointInvalid):
        parse(body)
