"""How long a thing may be kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import yaml

from policy.pack import Pack, parse_pack
from policy.retention import expires_at, retention_month
from policy.terms import Purpose
from tests.unit.policy.asking import PACKS

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALL = tuple(PACKS[name] for name in sorted(PACKS))
PLACE = {"gdpr": "GDPR#5(1)(e)", "ccpa": "CCR#7101"}


def with_terms(*terms: dict[str, Any], name: str = "gdpr") -> Pack:
    tree = yaml.safe_load(PACKS[name].source_bytes)
    tree["retention"] = [{"layer": "legal", "cite": [PLACE[name]], **term} for term in terms]
    return parse_pack(yaml.safe_dump(tree).encode())


@pytest.mark.parametrize("name", sorted(PACKS))
@pytest.mark.parametrize(
    ("kind", "purpose", "length"),
    [
        ("original", None, timedelta(hours=24)),
        ("original", Purpose.GENERATE, timedelta(hours=24)),
        ("original", Purpose.RETAIN_ORIGINAL, timedelta(days=30)),
        ("output", None, timedelta(days=30)),
        ("prompt", None, timedelta(hours=24)),
        ("template", None, timedelta(0)),
        ("landmarks", None, timedelta(0)),
        ("unheard_of", None, timedelta(0)),
    ],
)
def test_a_thing_expires_as_the_house_says(
    name: str, kind: str, purpose: Purpose | None, length: timedelta
) -> None:
    """Law sheet 3.1, U-09.  GDPR Art. 5(1)(e), Cal. Civ. Code 1798.100(a)(3), PIPEDA Sch. 1 cl. 4.5."""
    assert START + length == expires_at(kind, START, [PACKS[name]], purpose=purpose).expires_at


def test_proof_outlives_what_it_proves_by_five_years() -> None:
    assert datetime(2031, 11, 23, 12, tzinfo=UTC) == expires_at("consent_proof", START, ALL).expires_at


def test_the_shortest_term_of_several_packs_wins() -> None:
    long, short = (
        with_terms({"kind": "output", "at_most": "P30D"}),
        with_terms({"kind": "output", "at_most": "P7D"}, name="ccpa"),
    )
    for packs in ((long, short), (short, long)):
        got = expires_at("output", START, packs)
        assert (START + timedelta(days=7), "ccpa", "legal") == (got.expires_at, got.pack, got.layer)


def test_no_term_ends_before_the_longest_time_that_a_pack_requires() -> None:
    """11 CCR 7101(a): at least 24 months, whatever another pack's term says."""
    short, floor = (
        with_terms({"kind": "dsr_file", "at_most": "P1Y"}),
        with_terms({"kind": "dsr_file", "at_least": "P24M"}, name="ccpa"),
    )
    got = expires_at("dsr_file", START, [short, floor])
    assert (datetime(2028, 11, 23, 12, tzinfo=UTC), "ccpa") == (got.expires_at, got.pack)


def test_a_floor_lifts_what_only_the_house_terms() -> None:
    floor = with_terms({"kind": "unheard_of", "at_least": "P1Y"})
    assert datetime(2027, 11, 23, 12, tzinfo=UTC) == expires_at("unheard_of", START, [floor]).expires_at


def test_a_term_for_the_purpose_replaces_the_plain_one_in_its_pack_only() -> None:
    special = with_terms(
        {"kind": "output", "at_most": "P7D"}, {"kind": "output", "purpose": "retain_output", "at_most": "P1Y"}
    )
    plain = with_terms({"kind": "output", "at_most": "P9D"}, name="ccpa")
    asked = {"purpose": Purpose.RETAIN_OUTPUT}
    assert (
        datetime(2027, 11, 23, 12, tzinfo=UTC) == expires_at("output", START, [special], **asked).expires_at
    )
    assert START + timedelta(days=9) == expires_at("output", START, [special, plain], **asked).expires_at


def test_without_a_pack_the_house_decides() -> None:
    got = expires_at("original", START, [])
    assert (START + timedelta(hours=24), "house") == (got.expires_at, got.pack)
    assert expires_at("unheard_of", START, []).expires_at == START


@pytest.mark.parametrize("kind", ["original", "output", "consent_proof", "dsr_file", "audit"])
def test_an_expiry_cites_its_rule(kind: str) -> None:
    got = expires_at(kind, START, ALL)
    assert got.citations
    assert got.uncertain == ("U-09",)


def test_an_instant_without_a_zone_is_refused() -> None:
    naive = START.replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        expires_at("output", naive, ALL)
    with pytest.raises(ValueError, match="aware"):
        retention_month(naive)


def test_the_retention_month_is_that_of_utc() -> None:
    late = datetime(2026, 11, 30, 23, 30, tzinfo=timezone(timedelta(hours=-8)))
    assert retention_month(late) == "2026-12"
