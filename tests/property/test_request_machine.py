"""The life of requests as a machine, over the real flows: whoever does what, and whatever is lost.

The specification, as invariants over all requests:
    (1) A request is in the state that its events say, and only `policy.dsr` moves it.
    (2) It is received, approved, extended and answered once at most, and answered only once approved,
        unless it was refused or taken back.
    (3) What is open is on the due list under the day that counts, and nothing else is.
    (4) An answer stays what it is: no state leaves a final one, and its effect is there with it.
    (5) Nobody is served who is not sure enough, and nothing approved on a preview that is not what is held.
In the end, after the background work, every approved request is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from gateway.dsrs import due_key
from gateway.errors import LetheError
from gateway.flows.dsr import DsrDraft
from gateway.people import Profile
from gateway.ports.records import Dsr, Subject
from policy.dsr import DIRECT, FINAL
from policy.terms import DsrKind
from tests import invariants
from tests.world import OFFICER, SECOND, TENANT, World

RUNS = int(os.environ.get("LETHE_MACHINE_RUNS", "15"))
"""How many lives are tried; `make test-faults` tries thousands."""

FAULTS = st.sampled_from(["", "", "lost", "lost_reply"])
PEOPLE = ("ann", "bob")
KINDS = ("access", "erasure", "correction", "restriction", "objection", "opt_out", "limit_spi", "withdrawal")
REGIMES = st.sampled_from(["gdpr", "ccpa", "pipeda"])
METHODS = st.sampled_from(["account_session", "two_data_points", "three_data_points_declaration"])
_STATES = {
    "dsr.approved": "approved",
    "dsr.fulfilled": "fulfilled",
    "dsr.refused": "refused",
    "dsr.cancelled": "cancelled",
    "subject.erased": "fulfilled",
}


class Requests(RuleBasedStateMachine):
    """Two people, two officers, a worker; each call may be lost at some door, or lose its reply."""

    opened = Bundle("opened")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.w = World()
        self.final: dict[str, Dsr] = {}

    def teardown(self) -> None:
        self.run(self.w.settle())
        for dsr in self.w.records.all(Dsr):
            assert dsr.state not in {"approved", "running"}, dsr.kind
        self.loop.close()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def attempt(self, work: Any, fault: str, at: int) -> Any:
        """Do something, and let the `at`-th call through a door fail; return None where it was refused."""
        if fault:
            self.w.trip.lose(at, "before" if fault == "lost" else "after")
        try:
            with contextlib.suppress(LetheError):
                return self.run(work)
            return None
        finally:
            self.w.trip.act = None

    @initialize()
    def begin(self) -> None:
        self.run(self.w.ready(*PEOPLE))

    @rule(
        target=opened,
        who=st.sampled_from(PEOPLE),
        kind=st.sampled_from(KINDS),
        regime=REGIMES,
        fault=FAULTS,
        at=st.integers(0, 9),
    )
    def open(self, who: str, kind: str, regime: str, fault: str, at: int) -> Any:
        wish = Profile(who, residence="FR", birth_year=1980) if kind == "correction" else None
        draft = DsrDraft(who, kind, regime, correction=wish)
        made = self.attempt(self.w.flows.dsrs.create(OFFICER, draft), fault, at)
        return made[0].dsr_id if made else multiple()

    @rule(dsr=opened, method=METHODS, is_shown=st.booleans(), fault=FAULTS, at=st.integers(0, 2))
    def verify(self, dsr: str, method: str, is_shown: bool, fault: str, at: int) -> None:
        self.attempt(self.w.flows.dsrs.verify(OFFICER, dsr, method, is_shown=is_shown), fault, at)

    @rule(dsr=opened, reason=st.sampled_from(["COMPLEXITY", "REASONABLY_NECESSARY", "CONSULTATIONS"]))
    def extend(self, dsr: str, reason: str) -> None:
        self.attempt(self.w.flows.dsrs.extend(OFFICER, dsr, reason), "", 0)

    @rule(dsr=opened, is_changed=st.booleans(), fault=FAULTS, at=st.integers(0, 9))
    def approve(self, dsr: str, is_changed: bool, fault: str, at: int) -> None:
        """Look, and approve what was seen; between the two, something may come."""
        before = self.w.dsr(dsr)
        seen = self.attempt(self.w.flows.dsrs.preview(OFFICER, dsr), "", 0)
        if is_changed:
            self.attempt(self.w.consent("ann"), "", 0)
        held = self.attempt(self.w.flows.dsrs.preview(OFFICER, dsr), "", 0) if is_changed else seen
        self.attempt(self.w.flows.dsrs.approve(SECOND, dsr, seen.etag if seen else ""), fault, at)
        if before.state == "received" and held and seen and held.etag != seen.etag:
            assert self.w.dsr(dsr).state == "received"
        if before.state == "identity_pending":
            assert self.w.dsr(dsr).state == "identity_pending"

    @rule(dsr=opened, fault=FAULTS, at=st.integers(0, 2))
    def cancel(self, dsr: str, fault: str, at: int) -> None:
        self.attempt(self.w.flows.dsrs.cancel(OFFICER, dsr), fault, at)

    @rule(dsr=opened, ground=st.sampled_from(["GDPR_12_6_IDENTITY", "CCPA_7060_UNVERIFIED"]))
    def refuse(self, dsr: str, ground: str) -> None:
        self.attempt(self.w.flows.dsrs.refuse(OFFICER, dsr, ground), "", 0)

    @rule(fault=FAULTS, at=st.integers(0, 40))
    def work(self, fault: str, at: int) -> None:
        """The worker takes what is ready, and is cut somewhere."""
        self.attempt(self.w.carry_out(), fault, at)

    @invariant()
    def its_events_say_its_state(self) -> None:
        log = invariants.events(self.w.rows)
        for dsr in self.w.records.all(Dsr):
            counts = {ty: [e for e in log[ty] if e["dsr"] == dsr.dsr_id] for ty in (*_STATES, "dsr.extended")}
            assert all(len(found) <= 1 for found in counts.values()), counts
            said = [state for ty, state in _STATES.items() if counts[ty]]
            expected = said[-1] if said else ""
            assert dsr.state == expected or dsr.state in {
                "": {"received", "identity_pending", "verified"},
                "approved": {"approved", "running"},
            }.get(expected, set()), (dsr.state, expected)
            assert (dsr.extended_at is not None) == bool(counts["dsr.extended"])
            if dsr.state == "fulfilled":
                assert counts["dsr.approved"]

    @invariant()
    def what_is_open_is_on_the_due_list(self) -> None:
        rows = self.w.records.all(Dsr)
        listed = self.run(self.w.flows.register.due(OFFICER, "", 1000, "")).items
        assert [dsr.dsr_id for dsr in listed] == [
            dsr.dsr_id for dsr in sorted(rows, key=lambda d: (d.due_on, d.dsr_id)) if dsr.state not in FINAL
        ]
        assert all(dsr.due_key == due_key(dsr.due_on, dsr.dsr_id) for dsr in listed)

    @invariant()
    def an_answer_stays(self) -> None:
        for dsr in self.w.records.all(Dsr):
            known = self.final.get(dsr.dsr_id)
            if known is not None:
                assert (known.state, known.outcome, known.answered_at) == (
                    dsr.state,
                    dsr.outcome,
                    dsr.answered_at,
                )
            if dsr.state in FINAL:
                self.final[dsr.dsr_id] = dsr
                assert not dsr.preview
                assert not dsr.sealed_wish

    @invariant()
    def an_effect_comes_with_its_answer(self) -> None:
        subjects = {(s.tenant, s.handle): s for s in self.w.records.all(Subject)}
        for dsr in self.w.records.all(Dsr):
            subject = subjects.get((TENANT, dsr.handle or ""))
            if dsr.state != "fulfilled" or dsr.outcome != "complied" or subject is None:
                continue
            if dsr.kind == "restriction" and subject.state != "blocked":
                assert subject.state == "restricted"
            if dsr.kind == "access":
                assert self.w.packages[dsr.dsr_id] == dsr.package_id

    @invariant()
    def only_the_direct_kinds_go_without_a_person(self) -> None:
        for dsr in self.w.records.all(Dsr):
            if dsr.state in {"approved", "running", "fulfilled"}:
                assert bool(dsr.approved_by) is (DsrKind(dsr.kind) not in DIRECT)


TestRequests = Requests.TestCase
TestRequests.settings = settings(
    max_examples=RUNS,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
