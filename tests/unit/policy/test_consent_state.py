"""The life of a consent, exhaustively."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from policy.consent_state import NOTHING, STANDING, ConsentState, ConsentVerb, state_at, transition

S, V = ConsentState, ConsentVerb
ENDS = {V.SUPERSEDE: S.SUPERSEDED, V.WITHDRAW: S.WITHDRAWN, V.INVALIDATE: S.INVALIDATED}
MOVES = {
    NOTHING: {V.GIVE: S.GIVEN, V.REAFFIRM: S.REAFFIRMED},
    S.GIVEN: {V.EXPIRE: S.EXPIRED, **ENDS},
    S.REAFFIRMED: {V.EXPIRE: S.EXPIRED, **ENDS},
    S.EXPIRED: ENDS,
    S.SUPERSEDED: {V.WITHDRAW: S.WITHDRAWN, V.INVALIDATE: S.INVALIDATED},
    S.WITHDRAWN: {V.INVALIDATE: S.INVALIDATED},
    S.INVALIDATED: {},
}


@pytest.mark.parametrize(("state", "verb"), list(product(MOVES, V)))
def test_every_move_is_the_one_in_the_table(state: str, verb: ConsentVerb) -> None:
    assert MOVES[state].get(verb) == transition(state, verb)


@pytest.mark.parametrize("state", sorted(set(S) - STANDING))
def test_nothing_leads_back_to_a_consent_that_permits(state: ConsentState) -> None:
    """GDPR Art. 7(3): given anew, it is another record."""
    assert not {transition(state, verb) for verb in V} & STANDING


def test_a_term_that_has_run_out_ends_what_stands_and_nothing_else() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    for state in S:
        assert state_at(state, None, now) is state
        assert state_at(state, now + timedelta(seconds=1), now) is state
        assert state_at(state, now, now) is (S.EXPIRED if state in STANDING else state)
