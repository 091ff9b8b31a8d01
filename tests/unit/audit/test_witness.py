"""What a log and a witness say to each other, and how a witness decides (c2sp.org/tlog-witness)."""

from __future__ import annotations

import pytest

from audit import b64, checkpoint, note, tree, witness
from audit.cosign import Cosigner
from audit.errors import WitnessInvalid
from audit.head import Checkpoint
from audit.keys import KeyBook, LogKey
from audit.note import Signer
from audit.witness import Accepted, Conflict, Refused, Request
from tests.unit.audit.logs import ORIGIN, SIGNER, STRANGER, reader

LEAVES = [tree.hash_leaf(bytes([place])) for place in range(12)]
FORK = [*LEAVES[:4], *reversed(LEAVES[4:])]
BOOK = KeyBook.of([SIGNER.verifier])
COSIGNER = Cosigner("witness.example/w1", bytes(range(32, 64)), "ed25519")
SECOND = Cosigner("witness.example/w1", bytes(range(32, 64)), "ml-dsa-44")
AT_S = 1_790_000_000


def head(size: int, leaves: list[bytes] = LEAVES) -> Checkpoint:
    return Checkpoint(ORIGIN, size, tree.root_of_leaves(leaves[:size]))


def signed(size: int, leaves: list[bytes] = LEAVES, signer: Signer = SIGNER) -> str:
    return checkpoint.sign(signer.name, size, head(size, leaves).root, signer)


def growth(old: int, new: int, leaves: list[bytes] = LEAVES) -> tuple[bytes, ...]:
    return tuple(tree.consistency_proof(old, new, reader(leaves))) if 0 < old < new else ()


def asked(old: int, new: int, leaves: list[bytes] = LEAVES) -> Request:
    return Request(old, growth(old, new, leaves), signed(new, leaves))


# --- the request ---------------------------------------------------------------------------------


def test_a_request_is_old_size_proof_empty_line_and_checkpoint():
    proof = growth(3, 7)
    lines = "".join(f"{b64.encode(hashed)}\n" for hashed in proof)
    assert f"old 3\n{lines}\n{signed(7)}".encode() == Request(3, proof, signed(7)).write()


@pytest.mark.parametrize(("old", "new"), [(0, 1), (0, 7), (3, 7), (7, 7), (8, 12)])
def test_a_request_is_read_as_it_was_written(old: int, new: int):
    assert Request.parse(asked(old, new).write()) == asked(old, new)


def test_a_request_names_the_origin_that_its_checkpoint_claims():
    assert asked(0, 3).origin == ORIGIN


def test_a_proof_of_63_hashes_is_taken_and_one_more_is_not():
    """c2sp.org/tlog-witness: the client MUST NOT send more than 63 consistency proof lines."""
    longest = Request(1, (bytes(32),) * 63, signed(2))
    assert Request.parse(longest.write()) == longest
    with pytest.raises(WitnessInvalid, match="witness_proof_too_long"):
        Request(1, (bytes(32),) * 64, signed(2)).write()
    more = longest.write().replace(b"old 1\n", b"old 1\n" + b64.encode(bytes(32)).encode() + b"\n")
    with pytest.raises(WitnessInvalid, match="witness_proof_too_long"):
        Request.parse(more)


def test_a_request_beyond_what_witnesses_read_is_not_sent():
    lines = [f"\u2014 other.example/{place} {b64.encode(bytes(2428))}" for place in range(6)]
    large = Request(0, (), note.add_signatures(signed(3), lines))
    with pytest.raises(WitnessInvalid, match="witness_request_too_large") as refused:
        large.write()
    assert "16 KiB" in str(refused.value)


BROKEN = {
    "nothing": b"",
    "no gap": b"old 0\n",
    "no old": b"\n" + signed(1).encode(),
    "other word": b"new 0\n\n" + signed(1).encode(),
    "no number": b"old \n\n" + signed(1).encode(),
    "negative": b"old -1\n\n" + signed(1).encode(),
    "plus": b"old +1\n\n" + signed(1).encode(),
    "leading zero": b"old 01\n\n" + signed(1).encode(),
    "two spaces": b"old  1\n\n" + signed(1).encode(),
    "space after": b"old 1 \n\n" + signed(1).encode(),
    "other digits": "old \u0661\n\n".encode() + signed(1).encode(),
    "too large": b"old 9223372036854775808\n\n" + signed(1).encode(),
    "carriage return": b"old 1\r\n\r\n" + signed(1).encode(),
    "no base64": b"old 1\n*\n\n" + signed(1).encode(),
    "short hash": b"old 1\nAAAA\n\n" + signed(1).encode(),
    "long hash": b"old 1\n" + b64.encode(bytes(33)).encode() + b"\n\n" + signed(1).encode(),
    "unpadded hash": b"old 1\n" + b64.encode(bytes(32)).encode().rstrip(b"=") + b"\n\n" + signed(1).encode(),
    "no utf-8": b"old 1\n\n\xff\n",
    "too long": asked(0, 1).write() + b"x" * witness.MAX_REQUEST_BYTES,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_request_is_refused(name: str):
    with pytest.raises(WitnessInvalid):
        Request.parse(BROKEN[name])


# --- the answer ----------------------------------------------------------------------------------


def test_cosignatures_of_known_keys_are_taken_and_others_left_out():
    """c2sp.org/tlog-witness: the client MUST ignore any cosignatures from unknown keys."""
    lines = [SECOND.cosign(signed(3), AT_S), COSIGNER.cosign(signed(3), AT_S)]
    answer = witness.write_lines(lines)
    assert (lines[1],) == witness.cosignatures(answer, signed(3), COSIGNER.verifier)
    assert (lines[0],) == witness.cosignatures(answer, signed(3), SECOND.verifier)


def test_a_line_that_comes_twice_is_taken_once():
    line = COSIGNER.cosign(signed(3), AT_S)
    answer = witness.write_lines([line, line])
    assert (line,) == witness.cosignatures(answer, signed(3), COSIGNER.verifier)


LINE = COSIGNER.cosign(signed(3), AT_S)
LIES = {
    "nothing": (b"", "witness_response_malformed"),
    "only an end": (b"\n", "witness_response_malformed"),
    "no end": (LINE.encode(), "witness_response_malformed"),
    "no line": (b"thank you\n", "witness_response_malformed"),
    "no utf-8": (b"\xe2\x80\n", "witness_response_malformed"),
    "a text before": (f"x\n\n{LINE}\n".encode(), "witness_response_malformed"),
    "a checkpoint before": (f"{signed(4)}{LINE}\n".encode(), "witness_response_malformed"),
    "too many": (f"{LINE}\n".encode() * 65, "witness_response_malformed"),
    "too long": (b"x" * (witness.MAX_RESPONSE_BYTES + 1), "witness_response_too_large"),
    "another key": (f"{SECOND.cosign(signed(3), AT_S)}\n".encode(), "witness_cosignature_missing"),
    "another root": (
        f"{COSIGNER.cosign(signed(3, FORK[::-1]), AT_S)}\n".encode(),
        "witness_cosignature_false",
    ),
    "another size": (f"{COSIGNER.cosign(signed(4), AT_S)}\n".encode(), "witness_cosignature_false"),
    "one true, one false": (
        f"{LINE}\n{COSIGNER.cosign(signed(4), AT_S)}\n".encode(),
        "witness_cosignature_false",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_what_is_no_cosignature_of_the_witness_is_refused(name: str):
    answer, code = LIES[name]
    with pytest.raises(WitnessInvalid) as refused:
        witness.cosignatures(answer, signed(3), COSIGNER.verifier)
    assert refused.value.code == code


def test_a_plain_signature_of_a_log_is_no_cosignature():
    """A key of type 1 states no time and no consistency."""
    answer = witness.write_lines([STRANGER.line(head(3).body(), 0)])
    with pytest.raises(WitnessInvalid, match="witness_key_type"):
        witness.cosignatures(answer, signed(3), STRANGER.verifier)


@pytest.mark.parametrize("size", [0, 7, (1 << 63) - 1])
def test_a_size_is_read_as_it_was_written(size: int):
    assert size == witness.parse_size(witness.write_size(size))


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"7", b"07\n", b"-7\n", b" 7\n", b"7\n\n", b"7\r\n", b"\xd9\xa1\n"]
)
def test_what_is_no_size_is_refused(data: bytes):
    with pytest.raises(WitnessInvalid, match="witness_size_malformed"):
        witness.parse_size(data)


# --- the decision --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7])
def test_the_first_head_of_a_log_is_accepted(size: int):
    assert Accepted(head(size)) == witness.decide(asked(0, size), BOOK, None)


@pytest.mark.parametrize(("old", "new"), [(0, 5), (1, 2), (3, 7), (8, 12)])
def test_a_head_that_extends_what_is_known_is_accepted(old: int, new: int):
    assert Accepted(head(new)) == witness.decide(asked(old, new), BOOK, head(old))


def test_a_head_that_is_known_is_accepted_again():
    assert Accepted(head(5)) == witness.decide(asked(5, 5), BOOK, head(5))


@pytest.mark.parametrize(
    ("known", "old", "new"), [(5, 0, 7), (5, 3, 7), (5, 0, 3), (5, 3, 4), (5, 7, 8), (0, 1, 2)]
)
def test_a_log_that_asks_from_another_size_is_told_the_one_known(known: int, old: int, new: int):
    assert Conflict(known) == witness.decide(asked(old, new), BOOK, head(known) if known else None)


def test_a_log_that_fell_back_is_told_the_size_it_had():
    """A database that was restored: it asks from what it remembers, to what it has grown to since."""
    assert Conflict(9) == witness.decide(asked(5, 6, FORK), BOOK, head(9))
    assert Conflict(9) == witness.decide(asked(5, 11, FORK), BOOK, head(9))


def test_another_root_of_the_size_that_is_known_is_a_conflict():
    assert Conflict(7) == witness.decide(asked(7, 7, FORK), BOOK, head(7))


def test_a_fork_is_refused_whichever_proof_comes_with_it():
    for leaves in (LEAVES, FORK):
        request = Request(7, growth(7, 9, leaves), signed(9, FORK))
        assert Refused(422, "proof_root") == witness.decide(request, BOOK, head(7))


@pytest.mark.parametrize(
    ("old", "new", "proof"),
    [
        (3, 7, ()),
        (3, 7, growth(3, 7)[:-1]),
        (3, 7, (*growth(3, 7), bytes(32))),
        (0, 7, (bytes(32),)),
        (7, 7, (bytes(32),)),
    ],
    ids=["none", "short", "long", "from nothing", "to itself"],
)
def test_a_proof_that_is_not_the_one_is_refused(old: int, new: int, proof: tuple[bytes, ...]):
    """c2sp.org/tlog-witness: the proof MUST be empty if the old size is zero."""
    decided = witness.decide(Request(old, proof, signed(new)), BOOK, head(old) if old else None)
    assert isinstance(decided, Refused)
    assert decided.status == 422


def test_an_old_size_above_the_new_one_is_a_bad_request():
    assert Refused(400, "old_above_new") == witness.decide(asked(7, 3), BOOK, head(7))


def test_a_log_that_is_not_followed_is_not_found():
    assert Refused(404, "origin_unknown") == witness.decide(asked(0, 1), None, None)


def test_only_the_keys_of_the_log_count():
    strangers = Request(0, (), signed(1, signer=STRANGER))
    assert Refused(403, "note_unknown_keys") == witness.decide(strangers, BOOK, None)
    false = signed(2).replace("\n2\n", "\n3\n")
    assert Refused(403, "note_signature") == witness.decide(Request(0, (), false), BOOK, None)


def test_a_key_of_another_log_does_not_vouch_for_this_one():
    other = Signer("log.example/other", bytes(range(32)))
    body = head(3).body()
    foreign = note.assemble(body, [other.line(body, 0)])
    decided = witness.decide(Request(0, (), foreign), KeyBook.of([other.verifier]), None)
    assert decided == Refused(403, "checkpoint_key_name")


def test_a_key_that_was_retired_is_refused_beyond_its_size():
    book = KeyBook((LogKey(SIGNER.verifier, 0, 5),))
    assert Accepted(head(5)) == witness.decide(asked(0, 5), book, None)
    assert Refused(403, "key_retired") == witness.decide(asked(5, 6), book, head(5))


def test_signatures_of_unknown_keys_beside_that_of_the_log_do_no_harm():
    with_more = note.add_signatures(signed(3), [LINE, STRANGER.line(head(3).body(), 0)])
    assert Accepted(head(3)) == witness.decide(Request(0, (), with_more), BOOK, None)


@pytest.mark.parametrize(
    "text", ["", "x\n", f"{ORIGIN}\n1\n", signed(1)[:-1], f"{ORIGIN}\n-1\nAA==\n\n{LINE}\n"]
)
@pytest.mark.parametrize("book", [BOOK, None])
def test_what_is_no_checkpoint_is_a_bad_request(text: str, book: KeyBook | None):
    decided = witness.decide(Request(0, (), text), book, None)
    assert isinstance(decided, Refused)
    assert decided.status == 400
