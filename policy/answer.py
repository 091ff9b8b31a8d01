"""Decisions and clocks as plain documents: the same for the command line and for the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from policy.advice import would_change
from policy.clocks import reckon
from policy.consent import Decision, decide
from policy.errors import EventUnknown, FactInvalid, FactUnknown
from policy.facts import Facts, parse_facts
from policy.obligations import obligations
from policy.pack import Pack

Layer = Literal["legal", "house", "both"]
_CLOCK_KEYS = frozenset(
    {
        "id",
        "regime",
        "event",
        "received_at",
        "clock_tz",
        "holiday_calendar",
        "inputs",
        "expected",
        "citation",
        "note",
    }
)


def decided(given: object, packs: Mapping[str, Pack], layer: Layer = "both") -> dict[str, Any]:
    """Return the decision on facts in the form of `parse_facts`, with all that explains it.

    The legal layer stands at the top and the house's beside it under `house`;
    with one layer only that one.

    Raises:
        FactUnknown, FactInvalid: The facts cannot be read.
    """
    facts = parse_facts(given)
    both = decide(facts, packs)
    house = both.house or both
    legal = both.legal or house
    if layer == "house":
        return _explained(house, facts, packs)
    answer = _explained(legal, facts, packs)
    if layer == "both":
        answer["allowed"] = both.allowed
        answer["house"] = _named(house, facts, packs)
    return answer


def _explained(decision: Decision, facts: Facts, packs: Mapping[str, Pack]) -> dict[str, Any]:
    return {
        **_named(decision, facts, packs),
        "policy": [
            {"id": name, "version": packs[name].version, "digest": digest} for name, digest in decision.policy
        ],
        "unpacked": list(decision.unpacked),
        "obligations": [
            {
                "kind": one.kind,
                "about": one.about,
                "value": one.value,
                "pack": one.pack,
                "citations": list(one.citations),
                "uncertain": list(one.uncertain),
            }
            for one in obligations(facts, [packs[name] for name in decision.packs])
        ],
    }


def _named(decision: Decision, facts: Facts, packs: Mapping[str, Pack]) -> dict[str, Any]:
    return {
        "decision": "allow" if decision.allowed else "deny",
        "reason_code": decision.reason_code,
        "deciding_pack": decision.deciding_pack,
        "layer": decision.layer,
        "rule": decision.rule,
        "citations": list(decision.citations),
        "uncertain": list(decision.uncertain),
        "denials": [
            {"pack": d.pack, "reason_code": d.reason_code, "citation": d.cite, "rule": d.rule}
            for d in decision.denials
        ],
        "would_change": list(would_change(decision, facts, packs)),
    }


def clocked(given: object, packs: Mapping[str, Pack]) -> dict[str, Any]:
    """Return the days of a clock case, as ISO text or None.

    `given` has `regime`, `event`, and `received_at` or `inputs`; it may have
    `clock_tz` and `holiday_calendar`.

    Raises:
        FactUnknown: A key that no case has.
        FactInvalid: A value that cannot be read: no such regime or zone, a time without one.
        EventUnknown: The regime has no such clock, or not from these inputs.
    """
    if not isinstance(given, Mapping):
        raise FactInvalid("", "an object is expected")
    for key in given:
        if key not in _CLOCK_KEYS:
            raise FactUnknown(str(key))
    pack = packs.get(str(given.get("regime", "")).strip().lower())
    if pack is None:
        raise FactInvalid("regime", "no such pack")
    inputs = given.get("inputs")
    if inputs is not None and not (
        isinstance(inputs, Mapping) and all(isinstance(v, str | None) for v in inputs.values())
    ):
        raise FactInvalid("inputs", "days by name are expected")
    for key in ("received_at", "clock_tz", "holiday_calendar", "event"):
        if not isinstance(given.get(key), str | None):
            raise FactInvalid(key, "a text is expected")
    try:
        return {
            name: moment.isoformat() if moment is not None else None
            for name, moment in reckon(pack, given).items()
        }
    except EventUnknown:
        raise
    except (KeyError, OSError) as error:
        raise FactInvalid("clock_tz", "no such time zone") from error
    except (ValueError, OverflowError) as error:
        is_by_receipt = given.get("received_at") is not None or not inputs
        raise FactInvalid("received_at" if is_by_receipt else "inputs", str(error)) from error
