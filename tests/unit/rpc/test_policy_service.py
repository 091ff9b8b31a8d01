"""PolicyService: the facts of the command line over the wire, and the same answers."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from lethe.v1 import policy_pb2 as pb

from gateway.errors import FactUnknown, MessageInvalid
from gateway.rpc.policy import PolicyService
from policy.answer import decided
from policy.pack import load_packs

LAW = Path(__file__).parents[2] / "vectors" / "law"
PACKS = load_packs()
SERVICE = PolicyService(PACKS)


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((LAW / name).read_bytes())["cases"]
    return found


async def decide(facts: dict[str, Any]) -> pb.DecideResponse:
    request = pb.DecideRequest()
    request.facts.update(facts)
    return await SERVICE.Decide(request, None)


async def test_the_cases_of_the_law_sheet_are_decided_as_offline() -> None:
    for case in cases("visible_decisions.json"):
        got = await decide(case["inputs"])
        wanted = decided(case["inputs"], PACKS)
        expected = case["expected"]
        assert (expected["reason_code"], expected["deciding_pack"]) == (
            got.legal.reason_code,
            got.legal.deciding_pack,
        )
        assert got.decision.allowed is wanted["allowed"]
        assert list(got.legal.citations) == wanted["citations"]
        assert [d.reason_code for d in got.house.denials] == [
            d["reason_code"] for d in wanted["house"]["denials"]
        ]
        assert {ref.version for ref in got.decision.policy} <= {"2026.11.23"}
        assert got.obligations or got.legal.deciding_pack == "house"


async def test_a_denial_says_what_would_turn_it() -> None:
    got = await decide(cases("visible_decisions.json")[2]["inputs"])
    wanted = "ask for: explicit consent to `train`, presented separately, not as a condition of the service"
    assert list(got.would_change) == [wanted]


@pytest.mark.parametrize(
    ("facts", "refusal"),
    [
        ({"Ada Lovelace": 1}, FactUnknown),
        ({"subject": {"residence": "QQ"}}, MessageInvalid),
        ({"subject": {"age": 30.5}}, MessageInvalid),
        ({"at": "2026-11-23T12:00:00"}, MessageInvalid),
        ({"purpose": "dance"}, MessageInvalid),
    ],
)
async def test_what_cannot_be_read_is_refused_and_not_repeated(
    facts: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal) as caught:
        await decide({"purpose": "generate", "at": "2026-11-23T12:00:00Z", **facts})
    told = str(caught.value) + str(getattr(caught.value, "violations", ""))
    assert not any(word in told for word in ("Lovelace", "QQ", "30.5", "dance"))


async def test_the_clocks_of_the_law_sheet_are_reckoned_as_offline() -> None:
    for case in cases("visible_dates.json"):
        request = pb.ComputeClockRequest(
            regime=case["regime"],
            event=case["event"],
            time_zone=case["clock_tz"],
            holiday_calendar=(case["holiday_calendar"] or "")[:32],
            inputs=case.get("inputs") or {},
        )
        if case["received_at"]:
            request.receive_time.FromDatetime(datetime.fromisoformat(case["received_at"]))
        got = await SERVICE.ComputeClock(request, None)
        expected = {name: day or "" for name, day in case["expected"].items()}
        if "received" not in expected:
            assert expected == dict(got.limits), case["id"]
            continue
        assert expected == {
            "received": got.received_date,
            "ack_by": got.ack_by_date,
            "respond_by": got.respond_by_date,
            "extension_notice_by": got.extension_notice_by_date,
            "extended_respond_by": got.extended_respond_by_date,
            "internal_target": got.target_date,
        }, case["id"]


@pytest.mark.parametrize("change", [{"regime": "mars"}, {"event": "coffee"}, {"time_zone": "Mars/Olympus"}])
async def test_a_clock_that_is_not_there_is_refused(change: dict[str, str]) -> None:
    given = {"regime": "gdpr", "event": "access", "time_zone": "Europe/Berlin", **change}
    request = pb.ComputeClockRequest(**given)
    request.receive_time.FromDatetime(datetime.fromisoformat("2026-11-23T12:00:00+00:00"))
    with pytest.raises(MessageInvalid):
        await SERVICE.ComputeClock(request, None)
