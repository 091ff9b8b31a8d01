from __future__ import annotations

import pytest

from audit import checkpoint, note, proof
from audit.cosign import Cosigner
from audit.errors import CheckpointInvalid, KeyRefused, NoteInvalid, QuorumNotMet, TrustInvalid
from audit.note import Signer
from audit.tree import hash_leaf
from audit.trust import read_trust
from audit.verify import verify_certificate
from tests.unit.audit.logs import ORIGIN, SIGNER, certificate

WITNESS = Cosigner("witness.example/w", bytes([9]) * 32)
OTHER = Signer("log.example/other", bytes([7]) * 32)
ONE, TWO = SIGNER.vkey(), OTHER.vkey()
BOTH = (SIGNER.verifier, OTHER.verifier)


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{TWO}\n",
        f"# published 2026\n\n  {ONE}\t\n#{ONE}\n{TWO}",
        f"{ONE}\r\n{TWO}\r\n",
        f"{ONE} from=0 until=7\n{TWO}\tfrom=7 revoked=9\n",
        f"log {ONE}\nlog {TWO}\nquorum none\n",
        f"log {ONE}\nlog {TWO}\nwitness w {WITNESS.vkey()}\nquorum w\n",
        f"# policy\nquorum none\n\tlog\t{ONE} https://log.example/\nlog {TWO}\n",
    ],
)
def test_keys_are_read_from_a_list_and_from_a_policy(text: str) -> None:
    assert tuple(read_trust(text)) == BOTH


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "trust_empty"),
        ("# nothing\n\n", "trust_empty"),
        ("quorum none\n", "trust_empty"),
        (f"log {ONE}\n", "trust_quorum"),
        (f"log {ONE}\nquorum none\nquorum none\n", "trust_quorum"),
        (f"log {ONE}\nwitness w {TWO}\nquorum w\n", "trust_witness_key_type"),
        (f"log {ONE}\nquorum none\r\n", "trust_control_character"),
        (f"log {ONE} from=3\nlog {ONE}\nquorum none\n", "trust_duplicate_key"),
        (f"log {ONE}\n{TWO}\nquorum none\n", "trust_malformed"),
        (f"log {ONE} url more\nquorum none\n", "trust_malformed"),
        ("log\nquorum none\n", "trust_malformed"),
        (f"{ONE} {TWO}\n", "trust_malformed"),
        (f"{ONE}\n{ONE}\n", "trust_duplicate_key"),
        (f"{ONE}x\n", "trust_key"),
        ("hello\n", "trust_key"),
        (f"{ONE}\u2028{TWO}\n", "trust_key"),
        ("x" * 600_000, "trust_too_large"),
        (
            "\n".join(Signer("log.example/a", bytes([n]) * 32).vkey() for n in range(65)),
            "trust_too_many_keys",
        ),
    ],
)
def test_a_file_from_which_no_trust_can_be_taken_is_refused(text: str, code: str) -> None:
    with pytest.raises(TrustInvalid) as caught:
        read_trust(text)
    assert code == caught.value.code


POLICY = f"log {ONE}\nwitness w {WITNESS.vkey()}\nquorum w\n"
LINE = b"leaf"
TEXT = checkpoint.sign(ORIGIN, 1, hash_leaf(LINE), SIGNER)


def test_a_policy_opens_what_its_witness_cosigned_and_nothing_less() -> None:
    trust = read_trust(POLICY)
    cosigned = note.add_signatures(TEXT, [WITNESS.cosign(TEXT, 5)])
    assert trust.open(cosigned).size == 1
    with pytest.raises(QuorumNotMet, match="quorum_not_met"):
        trust.open(TEXT)


def test_no_reader_of_checkpoints_forgets_the_quorum_or_the_range() -> None:
    text = proof.write(index=0, hashes=[], checkpoint=TEXT, extra=LINE)
    for trust, error in ((POLICY, QuorumNotMet), (f"{ONE} from=2\n", KeyRefused)):
        with pytest.raises(error):
            checkpoint.open_checkpoint(TEXT, read_trust(trust))
        with pytest.raises(error):
            proof.verify(text, read_trust(trust), None)
    assert proof.verify(text, read_trust(ONE), None)[1].size == 1


def test_a_certificate_without_the_quorum_is_invalid() -> None:
    report = verify_certificate(*certificate(), POLICY)
    assert (report.verdict, report.fault.startswith("quorum_not_met")) == ("invalid", True)


def test_a_false_cosignature_refuses_what_the_quorum_could_do_without() -> None:
    stale = WITNESS.cosign(checkpoint.sign(ORIGIN, 2, bytes(32), SIGNER), 5)
    with pytest.raises(NoteInvalid, match="note_signature"):
        read_trust(POLICY.replace("quorum w", "quorum none")).open(note.add_signatures(TEXT, [stale]))


def test_a_witness_is_no_key_of_the_log() -> None:
    impostor = Cosigner(ORIGIN, bytes(32))
    trust = read_trust(f"log {ONE}\nwitness w {impostor.vkey()}\nquorum w\n")
    assert (SIGNER.verifier,) == trust.verifiers == trust.verifiers_at(5)
    body = note.parse(TEXT)[0]
    alone = note.assemble(body, [impostor.cosign(TEXT, 5)])
    with pytest.raises(CheckpointInvalid, match="checkpoint_key_name"):
        trust.open(alone)
