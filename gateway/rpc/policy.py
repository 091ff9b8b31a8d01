"""The rule book on the wire: decisions and clocks on facts that the caller brings, and the packs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from lethe.v1 import common_pb2, consent_pb2, policy_pb2

from gateway.errors import FactUnknown, MessageInvalid, NotFound
from gateway.rpc import convert
from policy import errors
from policy.answer import clocked, decided
from policy.pack import Pack


@dataclass(frozen=True, slots=True)
class PolicyService:
    """The rule book on the wire."""

    packs: Mapping[str, Pack]

    async def Decide(self, request: policy_pb2.DecideRequest, _context: object) -> policy_pb2.DecideResponse:
        """Decide on facts that the caller brings; nothing is recorded."""
        with _asking("facts"):
            answer = decided(_plain(request.facts), self.packs)
        legal, house = (_decision(part, answer["policy"]) for part in (answer, answer["house"]))
        enforced = consent_pb2.Decision()
        enforced.CopyFrom(legal if not legal.allowed or house.allowed else house)
        enforced.allowed = answer["allowed"]
        return policy_pb2.DecideResponse(
            decision=enforced,
            legal=legal,
            house=house,
            would_change=dict.fromkeys((*answer["would_change"], *answer["house"]["would_change"])),
            obligations=[policy_pb2.Obligation(**one) for one in answer["obligations"]],
            unpacked=answer["unpacked"],
        )

    async def ComputeClock(
        self, request: policy_pb2.ComputeClockRequest, _context: object
    ) -> policy_pb2.ComputeClockResponse:
        """Compute a statutory clock."""
        case: dict[str, Any] = {
            "regime": request.regime,
            "event": request.event,
            "clock_tz": request.time_zone or None,
            "holiday_calendar": request.holiday_calendar or None,
            "inputs": dict(request.inputs),
        }
        if request.HasField("receive_time"):
            case["received_at"] = convert.instant(request.receive_time).isoformat()
        with _asking(""):
            days = clocked(case, self.packs)
        if "received" not in days:
            return policy_pb2.ComputeClockResponse(limits=days)
        return policy_pb2.ComputeClockResponse(
            received_date=days["received"],
            respond_by_date=days["respond_by"],
            extended_respond_by_date=days["extended_respond_by"] or "",
            ack_by_date=days["ack_by"] or "",
            extension_notice_by_date=days["extension_notice_by"] or "",
            target_date=days["internal_target"],
        )

    async def ListPacks(
        self, _request: policy_pb2.ListPacksRequest, _context: object
    ) -> policy_pb2.ListPacksResponse:
        """List the loaded packs."""
        return policy_pb2.ListPacksResponse(packs=[_pack(pack) for pack in self.packs.values()])

    async def GetPack(
        self, request: policy_pb2.GetPackRequest, _context: object
    ) -> policy_pb2.GetPackResponse:
        """Return a pack."""
        pack = self.packs.get(request.id)
        if pack is None:
            raise NotFound
        return policy_pb2.GetPackResponse(pack=_pack(pack), content=pack.source_bytes)


@contextlib.contextmanager
def _asking(group: str) -> Iterator[None]:
    """Turn a question that policy cannot read into a refusal; a name the caller made up is not repeated.

    Raises:
        FactUnknown, MessageInvalid: A key, or a value, that no question has.
    """
    try:
        yield
    except errors.FactUnknown as fault:
        parent = ".".join(filter(None, (group, fault.path.rpartition(".")[0])))
        raise FactUnknown(f"an unknown key in {parent or 'the case'}") from None
    except errors.FactInvalid as fault:
        field = ".".join(filter(None, (group, fault.path)))
        raise MessageInvalid("a fact cannot be so", violations=((field, fault.why),)) from None
    except errors.EventUnknown:
        rule = "no clock of the regime, or not from these inputs"
        raise MessageInvalid("the regime has no such clock", violations=(("event", rule),)) from None


def _plain(facts: Struct) -> Any:
    """Return facts as JSON gives them: a Struct knows no whole numbers, an age is one."""
    return _whole(MessageToDict(facts))


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _decision(answer: Mapping[str, Any], policy: list[dict[str, str]]) -> consent_pb2.Decision:
    return consent_pb2.Decision(
        allowed=answer["decision"] == "allow",
        reason_code=answer["reason_code"],
        deciding_pack=answer["deciding_pack"],
        citations=answer["citations"],
        policy=[
            common_pb2.PolicyRef(id=one["id"], sha256=one["digest"], version=one["version"]) for one in policy
        ],
        layer=answer["layer"],
        rule=answer["rule"],
        uncertain=answer["uncertain"],
        denials=[consent_pb2.Denial(**denial) for denial in answer["denials"]],
    )


def _pack(pack: Pack) -> policy_pb2.Pack:
    return policy_pb2.Pack(
        id=pack.id, version=pack.version, title=pack.title, status=pack.status, sha256=pack.digest
    )
