"""Whom the laws have told of a request, and for which grounds they need not."""

from __future__ import annotations

import pytest

from policy.errors import PackInvalid
from policy.pack import load_packs, parse_pack
from policy.recipients import SETTLED, Role, Told, after, excuses, is_told
from policy.terms import DsrKind

PACKS = load_packs()
P, C, A, T = Role.PROCESSOR, Role.CONTRACTOR, Role.AFFILIATE, Role.THIRD_PARTY


@pytest.mark.parametrize(
    ("law", "kind", "roles"),
    [
        ("gdpr", "erasure", {P, C, A, T}),
        ("gdpr", "correction", {P, C, A, T}),
        ("uk_gdpr", "restriction", {P, C, A, T}),
        ("gdpr", "access", set()),
        ("gdpr", "objection", set()),
        ("ccpa", "erasure", {P, C, A, T}),
        ("ccpa", "correction", {P, C}),
        ("ccpa", "opt_out", {A, T}),
        ("pipeda", "correction", {A, T}),
        ("wa_mhmda", "erasure", {P, C, A, T}),
        ("lgpd", "erasure", {P, C, A, T}),
        ("il_bipa", "erasure", set()),
    ],
)
def test_each_law_names_whom_it_has_told(law: str, kind: str, roles: set[Role]) -> None:
    """GDPR Art. 19; 11 CCR 7022, 7023, 7026; PIPEDA Sch. 1 cl. 4.9.5; RCW 19.373.040; LGPD Art. 18."""
    assert {role for role in Role if is_told([PACKS[law]], DsrKind(kind), role)} == roles


def test_a_ground_must_be_known_to_every_law_that_asks() -> None:
    gdpr, ccpa, mhmda = PACKS["gdpr"], PACKS["ccpa"], PACKS["wa_mhmda"]
    erasure = DsrKind.ERASURE
    assert excuses([gdpr], erasure, P) == ("disproportionate", "impossible", "never_received")
    assert excuses([gdpr, ccpa], erasure, T) == ("disproportionate", "impossible", "never_received")
    assert excuses([gdpr, ccpa], erasure, P) == ("never_received",)
    assert excuses([gdpr, mhmda], erasure, T) == ("never_received",)
    assert excuses([PACKS["pipeda"]], DsrKind.CORRECTION, T) == ("not_appropriate", "never_received")


def test_nothing_leaves_a_settled_state_and_nobody_acknowledges_untold() -> None:
    for state in Told:
        follows = {outcome for outcome in Told if after(state, outcome) is not None}
        assert follows == {
            Told.DUE: {Told.TOLD, Told.EXCUSED},
            Told.TOLD: {Told.ACKNOWLEDGED, Told.EXCUSED},
        }.get(state, set())
        assert (state in SETTLED) is not bool(follows)


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b'propagate_to: ["all_recipients"]', b'propagate_to: ["all_recipent"]'),
        (b'impossible: ["all_recipients"]', b'too_dear: ["all_recipients"]'),
        (b'impossible: ["all_recipients"]', b'impossible: ["affiliates"]'),
    ],
)
def test_a_pack_that_names_nobody_or_no_ground_is_refused(said: bytes, instead: bytes) -> None:
    body = PACKS["gdpr"].source_bytes
    assert said in body
    with pytest.raises(PackInvalid):
        parse_pack(body.replace(said, instead, 1))
