from __future__ import annotations

import pytest

from audit import checkpoint, note
from audit.cosign import Cosigner
from audit.errors import CheckpointInvalid, NoteInvalid, QuorumNotMet, TrustInvalid
from audit.note import KeyType, Signer, Verifier
from audit.quorum import Policy
from tests.unit.audit.logs import ORIGIN, SIGNER, STRANGER

LOG = SIGNER.vkey()
WITNESSES = {
    name: Cosigner(f"witness.example/{name}", bytes([place]) * 32, "ed25519" if place % 2 else "ml-dsa-44")
    for place, name in enumerate(("X1", "X2", "X3", "Y1", "Y2", "Y3"))
}
LINES = "".join(f"witness {name} {witness.vkey()}\n" for name, witness in WITNESSES.items())
W1 = WITNESSES["X1"].vkey()
# The example of the specification, with keys.
EXAMPLE = f"""log {LOG}

{LINES}group X-witnesses 2 X1 X2 X3
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""
TEXT = checkpoint.sign(ORIGIN, 7, bytes(range(32)), SIGNER)


def cosigned(*names: str, text: str = TEXT) -> str:
    return note.add_signatures(text, [WITNESSES[name].cosign(text, 5) for name in names])


@pytest.mark.parametrize("names", ["X1 X2 Y1", "X1 X3 Y3", "X1 X2 X3 Y1 Y2 Y3"])
def test_the_specifications_example_is_met(names: str) -> None:
    assert Policy.parse(EXAMPLE).check(cosigned(*names.split())).size == 7


@pytest.mark.parametrize("names", ["", "X1 X2", "X1 Y1", "X1 X2 X3", "X1 Y1 Y2 Y3"])
def test_the_specifications_example_is_not_met(names: str) -> None:
    with pytest.raises(QuorumNotMet) as caught:
        Policy.parse(EXAMPLE).check(cosigned(*names.split()))
    assert caught.value.code == "quorum_not_met"


def test_one_witness_signing_twice_counts_once() -> None:
    policy = Policy.parse(f"log {LOG}\n{LINES}group g 2 X1 X2\nquorum g\n")
    twice = note.add_signatures(cosigned("X1"), [WITNESSES["X1"].cosign(TEXT, 6)])
    with pytest.raises(QuorumNotMet):
        policy.check(twice)


def test_the_log_must_have_signed_whatever_the_witnesses_say() -> None:
    policy = Policy.parse(EXAMPLE)
    forged = checkpoint.sign(ORIGIN, 7, bytes(range(32)), STRANGER)
    with pytest.raises(CheckpointInvalid, match="checkpoint_key_name"):
        policy.check(cosigned(*WITNESSES, text=forged))
    with pytest.raises(NoteInvalid, match="note_unknown_keys"):
        policy.check(forged)


def test_a_false_cosignature_that_is_not_needed_refuses_all_the_same() -> None:
    other = checkpoint.sign(ORIGIN, 8, bytes(range(32)), SIGNER)
    mixed = note.add_signatures(cosigned("X1", "X2", "Y1"), [WITNESSES["Y2"].cosign(other, 5)])
    with pytest.raises(NoteInvalid, match="note_signature"):
        Policy.parse(EXAMPLE).check(mixed)


def test_any_log_of_the_policy_will_do_and_only_under_its_own_origin() -> None:
    other = Signer("log.example/other", bytes([7]) * 32)
    policy = Policy.parse(f"log {LOG}\nlog {other.vkey()} https://log.example/\nquorum none\n")
    assert policy.logs[1].url == "https://log.example/"
    assert policy.check(TEXT).origin == ORIGIN
    assert other.name == policy.check(checkpoint.sign(other.name, 1, bytes(32), other)).origin
    with pytest.raises(CheckpointInvalid):
        policy.check(other.sign(note.parse(TEXT)[0]))


def test_a_log_may_have_a_key_of_each_algorithm() -> None:
    post = Signer(ORIGIN, bytes(range(32)), "ml-dsa-44")
    policy = Policy.parse(f"log {LOG}\nlog {post.vkey()}\nquorum none\n")
    assert policy.check(checkpoint.sign(ORIGIN, 3, bytes(32), [SIGNER, post], 5)).size == 3


def test_a_policy_without_logs_tells_the_quorum_and_opens_nothing() -> None:
    policy = Policy.parse(f"witness w {W1}\nquorum w\n")
    assert policy.is_met([WITNESSES["X1"].verifier])
    assert not policy.is_met([])
    with pytest.raises(CheckpointInvalid, match="checkpoint_key_name"):
        policy.check(cosigned("X1"))


@pytest.mark.parametrize(
    "text",
    [
        EXAMPLE,
        "quorum none",
        f"\n# comment\n\t # another\n\twitness \t w1  {W1}   https://w1.example/  \n\n  quorum\tw1",
        f"witness all {W1}\nwitness any {WITNESSES['X2'].vkey()}\ngroup group 2 all any\nquorum group\n",
        f"witness \u212a {W1}\nwitness K {WITNESSES['X2'].vkey()}\ngroup g 02 K \u212a\nquorum g\n",
        f"witness a\u00a0b\x85 {W1}\nquorum a\u00a0b\x85\n",
        f"log {LOG}\nwitness w {Cosigner(ORIGIN, SIGNER.seed, 'ed25519').vkey()}\nquorum w\n",
    ],
)
def test_what_the_specification_allows_is_read_and_written_back(text: str) -> None:
    policy = Policy.parse(text)
    assert policy == Policy.parse(policy.text())
    assert policy == Policy.parse(text.encode())


def test_names_that_are_no_utf8_are_octets() -> None:
    key = W1.encode()
    policy = Policy.parse(b"witness n\x80 " + key + b"\nquorum n\x80\n")
    assert policy.is_met([WITNESSES["X1"].verifier])
    with pytest.raises(TrustInvalid, match="trust_name_unknown"):
        Policy.parse(b"witness n\x80 " + key + b"\nquorum n\x81\n")


def test_thirty_two_of_each_are_accepted() -> None:
    keys = [Cosigner(f"w{place}", bytes([place]) * 32) for place in range(32)]
    logs = "".join(f"log {Signer(f'l{place}', bytes([place]) * 32).vkey()}\n" for place in range(32))
    lines = "".join(f"witness {key.name} {key.vkey()}\n" for key in keys)
    groups = "group g0 any w0\n" + "".join(f"group g{n} all g{n - 1} w{n}\n" for n in range(1, 32))
    policy = Policy.parse(f"{logs}{lines}{groups}quorum g31\n")
    assert policy.is_met([key.verifier for key in keys])
    assert not policy.is_met([key.verifier for key in keys[1:]])


W = f"witness w {W1}\n"
V = f"witness v {WITNESSES['X2'].vkey()}\n"
ALIAS = Verifier("alias", WITNESSES["X2"].verifier.public_key, KeyType.COSIGNATURE_V1).vkey()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "trust_quorum"),
        (W, "trust_quorum"),
        ("quorum none\nquorum none\n", "trust_quorum"),
        ("quorum none\n\x01", "trust_control_character"),
        ("quorum none\r\n", "trust_control_character"),
        ("quorum none\x7f\n", "trust_control_character"),
        ("quorum\x0bnone\n", "trust_control_character"),
        ("quorum\n", "trust_malformed"),
        ("quorum\u00a0none\n", "trust_malformed"),
        ("quorum none # all\n", "trust_malformed"),
        ("Quorum none\n", "trust_malformed"),
        ("quibble w\nquorum none\n", "trust_malformed"),
        ("log\nquorum none\n", "trust_malformed"),
        (f"log {LOG} url more\nquorum none\n", "trust_malformed"),
        (f"{W[:-1]} url # comment\nquorum w\n", "trust_malformed"),
        ("witness w\nquorum none\n", "trust_malformed"),
        (f"{W}group g any\nquorum g\n", "trust_malformed"),
        ("log garbage\nquorum none\n", "trust_key"),
        (f"log {LOG}\nlog {LOG} url\nquorum none\n", "trust_duplicate_key"),
        (f"{V}witness u {ALIAS}\nquorum v\n", "trust_duplicate_key"),
        (f"witness w {LOG}\nquorum w\n", "trust_witness_key_type"),
        (f"witness none {W1}\nquorum none\n", "trust_name_reserved"),
        (f"{W}group none any w\nquorum none\n", "trust_name_reserved"),
        (f"{W}witness w {ALIAS}\nquorum w\n", "trust_name_twice"),
        (f"{W}group w any w\nquorum w\n", "trust_name_twice"),
        (f"{W}group g any v\nquorum g\n", "trust_name_unknown"),
        (f"group g any w\n{W}quorum g\n", "trust_name_unknown"),
        (f"{W}group g any g\nquorum g\n", "trust_name_unknown"),
        (f"{W}group g any none w\nquorum g\n", "trust_name_unknown"),
        ("quorum w\n", "trust_name_unknown"),
        (f"quorum w\n{W}", "trust_name_unknown"),
        (f"{W}group g all w w\nquorum g\n", "trust_member_twice"),
        (f"{W}{V}group g any w v\ngroup h any w\nquorum g\n", "trust_member_twice"),
        (f"{W}group g 0 w\nquorum g\n", "trust_threshold"),
        (f"{W}group g 2 w\nquorum g\n", "trust_threshold"),
        (f"{W}group g -1 w\nquorum g\n", "trust_threshold"),
        (f"{W}group g +1 w\nquorum g\n", "trust_threshold"),
        (f"{W}group g 0x1 w\nquorum g\n", "trust_threshold"),
        (f"{W}group g \u0661 w\nquorum g\n", "trust_threshold"),
        (f"{W}group g {'9' * 5000} w\nquorum g\n", "trust_threshold"),
        ("#" * 600_000, "trust_too_large"),
    ],
)
def test_what_the_specification_refuses_is_refused(text: str, code: str) -> None:
    with pytest.raises(TrustInvalid) as caught:
        Policy.parse(text)
    assert code == caught.value.code
