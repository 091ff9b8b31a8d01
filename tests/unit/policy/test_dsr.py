"""The life of a request, exhaustively."""

from __future__ import annotations

from itertools import product

import pytest

from policy.dsr import FINAL, DsrState, DsrVerb, transition

S, V = DsrState, DsrVerb
MOVES = {
    S.RECEIVED: {
        V.ASK_IDENTITY: S.IDENTITY_PENDING,
        V.VERIFY: S.VERIFIED,
        V.EXTEND: S.RECEIVED,
        V.PAUSE: S.RECEIVED,
        V.REFUSE_PART: S.RECEIVED,
        V.RESUME: S.RECEIVED,
        V.APPROVE: S.APPROVED,
        V.REFUSE: S.REFUSED,
        V.CANCEL: S.CANCELLED,
    },
    S.IDENTITY_PENDING: {
        V.ASK_IDENTITY: S.IDENTITY_PENDING,
        V.VERIFY: S.VERIFIED,
        V.EXTEND: S.IDENTITY_PENDING,
        V.PAUSE: S.IDENTITY_PENDING,
        V.REFUSE_PART: S.IDENTITY_PENDING,
        V.RESUME: S.IDENTITY_PENDING,
        V.REFUSE: S.REFUSED,
        V.CANCEL: S.CANCELLED,
    },
    S.VERIFIED: {
        V.ASK_IDENTITY: S.IDENTITY_PENDING,
        V.VERIFY: S.VERIFIED,
        V.EXTEND: S.VERIFIED,
        V.PAUSE: S.VERIFIED,
        V.REFUSE_PART: S.VERIFIED,
        V.RESUME: S.VERIFIED,
        V.APPROVE: S.APPROVED,
        V.REFUSE: S.REFUSED,
        V.CANCEL: S.CANCELLED,
    },
    S.APPROVED: {
        V.EXTEND: S.APPROVED,
        V.RESUME: S.APPROVED,
        V.RUN: S.RUNNING,
        V.CANCEL: S.CANCELLED,
    },
    S.RUNNING: {V.FULFILL: S.FULFILLED},
    S.FULFILLED: {},
    S.REFUSED: {},
    S.CANCELLED: {},
}


@pytest.mark.parametrize(("state", "verb"), list(product(DsrState, DsrVerb)))
def test_a_verb_leads_where_the_table_says_and_nowhere_else(state: DsrState, verb: DsrVerb) -> None:
    assert MOVES[state].get(verb) == transition(state, verb)


def test_an_unknown_state_or_verb_leads_nowhere() -> None:
    assert transition("lost", "verify") is None
    assert transition("received", "explode") is None


def test_nothing_leaves_a_final_state_and_every_other_state_can_end() -> None:
    assert {state for state, moves in MOVES.items() if not moves} == FINAL
    for start in set(DsrState) - FINAL:
        seen, todo = set(), {start}
        while todo:
            state = todo.pop()
            seen.add(state)
            todo |= set(MOVES[state].values()) - seen
        assert S.FULFILLED in seen, start


def test_once_asked_for_an_identity_must_be_shown_before_approval() -> None:
    """GDPR Art. 12(6)."""
    assert transition(S.IDENTITY_PENDING, V.APPROVE) is None


def test_what_runs_is_neither_refused_nor_cancelled() -> None:
    """Keys may be gone already."""
    assert [transition(S.RUNNING, verb) for verb in (V.REFUSE, V.CANCEL, V.EXTEND)] == [None] * 3
