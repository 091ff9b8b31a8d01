"""A witness never vouches for two histories, whatever it is asked; its formats hold against anything."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from audit import b64, tree, witness
from audit.cosign import Cosigner
from audit.errors import WitnessInvalid
from audit.head import Checkpoint
from audit.keys import KeyBook
from audit.note import Signer
from audit.witness import Accepted, Conflict, Request

ORIGIN = "log.example/7f3a"
SIGNER = Signer(ORIGIN, bytes(range(32)))
BOOK = KeyBook.of([SIGNER.verifier])
COSIGNER = Cosigner("witness.example/w1", bytes(range(32, 64)), "ed25519")
LARGEST = 24
# Histories that share their beginnings: the log whose owner signs whatever serves the day.
TRUNK = [tree.hash_leaf(bytes([place])) for place in range(LARGEST)]
HISTORIES = [TRUNK] + [
    [*TRUNK[:at], *(tree.hash_leaf(bytes([at, place])) for place in range(LARGEST - at))]
    for at in (0, 1, 4, 7, 8, 15, 16)
]

sizes = st.integers(0, LARGEST)
histories = st.integers(0, len(HISTORIES) - 1)


def root(history: int, size: int) -> bytes:
    return tree.root_of_leaves(HISTORIES[history][:size])


def signed(history: int, size: int) -> str:
    return SIGNER.sign(f"{ORIGIN}\n{size}\n{b64.encode(root(history, size))}\n")


def growth(history: int, first: int, second: int) -> tuple[bytes, ...]:
    def read(level: int, index: int) -> bytes:
        return tree.root_of_leaves(HISTORIES[history][index << level : (index + 1) << level])

    return tuple(tree.consistency_proof(first, second, read)) if 0 < first < second else ()


class Witnessed(RuleBasedStateMachine):
    """A log with several histories and a good key asks for whatever it likes.

    The witness forgets nothing; what it keeps is all it knows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: Checkpoint | None = None
        self.cosigned: list[Checkpoint] = []

    def ask(self, request: Request) -> None:
        decided = witness.decide(Request.parse(request.write()), BOOK, self.known)
        if isinstance(decided, Accepted):
            self.known = decided.head
            self.cosigned.append(decided.head)
        elif isinstance(decided, Conflict):
            assert decided.size == (self.known.size if self.known else 0)

    @rule(history=histories, proving=histories, size=sizes, old=sizes)
    def any_proof_from_anywhere(self, history: int, proving: int, size: int, old: int) -> None:
        self.ask(Request(old, growth(proving, old, size), signed(history, size)))

    @rule(history=histories, proving=histories, more=st.integers(0, 9))
    def any_proof_from_what_is_known(self, history: int, proving: int, more: int) -> None:
        old = self.known.size if self.known else 0
        size = min(old + more, LARGEST)
        self.ask(Request(old, growth(proving, old, size), signed(history, size)))

    @rule(history=histories, size=sizes, hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=6))
    def an_invented_proof(self, history: int, size: int, hashes: list[bytes]) -> None:
        old = self.known.size if self.known else 0
        self.ask(Request(old, tuple(hashes), signed(history, size)))

    @rule(more=st.integers(1, 4))
    def an_honest_step(self, more: int) -> None:
        """Whichever history it is in, the log can go on in it."""
        old = self.known.size if self.known else 0
        size = min(old + more, LARGEST)
        mine = [
            place
            for place in range(len(HISTORIES))
            if self.known is None or root(place, old) == self.known.root
        ]
        before = len(self.cosigned)
        self.ask(Request(old, growth(mine[-1], old, size), signed(mine[-1], size)))
        assert len(self.cosigned) == before + 1

    @invariant()
    def one_root_for_one_size(self) -> None:
        roots: dict[int, bytes] = {}
        assert all(roots.setdefault(head.size, head.root) == head.root for head in self.cosigned)

    @invariant()
    def sizes_do_not_fall(self) -> None:
        grown = [head.size for head in self.cosigned]
        assert grown == sorted(grown)

    @invariant()
    def all_of_it_is_one_history(self) -> None:
        """Some history has every head that was ever cosigned."""
        assert any(
            all(root(history, head.size) == head.root for head in self.cosigned)
            for history in range(len(HISTORIES))
        )


Witnessed.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
test_a_witness_vouches_for_one_history = Witnessed.TestCase


REQUEST = Request(3, growth(0, 3, 7), signed(0, 7)).write()
ANSWER = witness.write_lines([COSIGNER.cosign(signed(0, 7), 1_790_000_000)])


def mutations(data: bytes) -> st.SearchStrategy[bytes]:
    """Return bytes that differ from `data` in one stretch."""
    return st.builds(
        lambda start, length, middle: data[:start] + middle + data[start + length :],
        st.integers(0, len(data)),
        st.integers(0, 8),
        st.binary(max_size=6),
    ).filter(lambda mutated: mutated != data)


@given(st.one_of(st.binary(max_size=200), mutations(REQUEST)))
def test_a_request_that_is_read_is_written_the_same(data: bytes) -> None:
    """So nobody reads another request in the same bytes."""
    with contextlib.suppress(WitnessInvalid):
        assert Request.parse(data).write() == data


@given(st.one_of(st.binary(max_size=200), mutations(REQUEST)))
def test_no_request_makes_the_witness_stumble(data: bytes) -> None:
    with contextlib.suppress(WitnessInvalid):
        asked = Request.parse(data)
        for known in (None, Checkpoint(ORIGIN, 3, root(0, 3))):
            decided = witness.decide(asked, BOOK, known)
            assert not isinstance(decided, Accepted) or decided.head.root == root(0, decided.head.size)


@given(st.one_of(st.binary(max_size=200), mutations(ANSWER)))
def test_no_answer_passes_for_a_cosignature(data: bytes) -> None:
    with contextlib.suppress(WitnessInvalid):
        lines = witness.cosignatures(data, signed(0, 7), COSIGNER.verifier)
        assert witness.write_lines(lines) == ANSWER


@given(st.one_of(st.binary(max_size=30), st.integers(0, 1 << 70).map(lambda size: f"{size}\n".encode())))
def test_a_size_that_is_read_is_written_the_same(data: bytes) -> None:
    with contextlib.suppress(WitnessInvalid):
        assert witness.write_size(witness.parse_size(data)) == data
