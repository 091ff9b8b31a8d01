"""Which changes of a notice call for consent anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from policy.pack import load_packs, parse_pack
from policy.renewal import Stated, calls_for_renewal, changes

AT = datetime(2026, 11, 23, tzinfo=UTC)
BEFORE = Stated("a", frozenset({"generate"}), frozenset({"us"}), frozenset({"DE"}), "a day", "by mail")


@pytest.mark.parametrize(
    ("changed", "is_due"),
    [
        ({"purposes": frozenset({"generate", "train"})}, True),
        ({"recipients": frozenset()}, True),
        ({"transfer_countries": frozenset({"DE", "US"})}, True),
        ({"retention_term": "a month"}, True),
        ({"text": "b"}, False),
        ({"withdrawal_method": "by telephone"}, False),
        ({}, False),
    ],
)
def test_the_house_asks_again_where_people_were_told_something_else(
    changed: dict[str, Any], is_due: bool
) -> None:
    """GDPR Art. 4(11), 13(3)."""
    assert calls_for_renewal(changes(BEFORE, replace(BEFORE, **changed)), (), AT) is is_due


def test_a_pack_may_ask_for_more() -> None:
    source = (
        load_packs()["gdpr"].source_bytes + b'\nrenewal: {when_changed: ["text"], cite: ["GDPR#4(11)"]}\n'
    )
    assert calls_for_renewal({"text"}, [parse_pack(source)], AT)
