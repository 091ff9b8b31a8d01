"""What became of each payload that an exported leaf seals: opened, erased or withheld.

One line for each seal, none left out: a payload can be missing only with a leaf
that says so, or with the exporter's word that it is withheld.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from audit import canonical
from audit.errors import ExportInvalid, JsonInvalid
from audit.seal import check_payload

State = Literal["opened", "erased", "withheld"]
ERASING = frozenset({"payload.erased", "payload.expired"})
"""Event types that say that payloads were destroyed."""

MAX_PAYLOAD_BYTES = 1 << 20
# A control character takes six bytes in JSON.
MAX_LINE_BYTES = 6 * MAX_PAYLOAD_BYTES + 4096
_SALT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAMES: Mapping[str, frozenset[str]] = {
    "opened": frozenset({"i", "s", "state", "salt", "payload"}),
    "erased": frozenset({"i", "s", "state", "by"}),
    "withheld": frozenset({"i", "s", "state"}),
}


@dataclass(frozen=True, slots=True)
class Payload:
    """What became of one payload.

    Attributes:
        index: Place in the log of the leaf that seals it.
        slot: Place of its seal in that leaf.
        salt: 32 bytes; only where it is opened.
        payload: A canonical JSON object; only where it is opened.
        by: Place in the log of the leaf that says that it was destroyed; only where it is erased.
    """

    index: int
    slot: int
    state: State
    salt: bytes = b""
    payload: bytes = b""
    by: int = -1

    def line(self, proof: str = "") -> bytes:
        """Return the line of `payloads.jsonl`, without its end.

        Args:
            proof: Path of the proof that carries the leaf `by`, where the export does not hold it itself.
        """
        value: dict[str, Any] = {"i": self.index, "s": self.slot, "state": self.state}
        if self.state == "opened":
            value |= {"salt": self.salt.hex(), "payload": _text(self.payload)}
        elif self.state == "erased":
            value |= {"by": self.by} | ({"proof": proof} if proof else {})
        return canonical.encode(value)


def withheld(events: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Payload]:
    """Return that no payload of these events, given with their places in the log, is shown."""
    return [
        Payload(index, slot, "withheld") for index, event in events for slot in range(len(event["seals"]))
    ]


def parse(line: bytes) -> tuple[Payload, str]:
    """Return what a line says, and the path of the proof it names, if any.

    Raises:
        ExportInvalid: Not a line of that format, or not its canonical form.
    """
    try:
        value = canonical.parse(line, MAX_LINE_BYTES)
        is_canonical = canonical.encode(value) == line
    except JsonInvalid as error:
        raise ExportInvalid("payload_malformed", error.code) from None
    if not is_canonical or not isinstance(value, dict):
        raise ExportInvalid("payload_malformed", "a line is not the canonical form of an object")
    proof = value.pop("proof", "")
    state = value.get("state")
    names = _NAMES.get(state) if isinstance(state, str) else None
    if names is None or value.keys() != names or not isinstance(proof, str) or (proof and state != "erased"):
        raise ExportInvalid("payload_malformed", "a line has not the fields of its state")
    if not all(_is_place(value[name]) for name in ("i", "s", "by") if name in value):
        raise ExportInvalid("payload_malformed", "a place is not a number")
    salt, text = value.get("salt", ""), value.get("payload", "")
    if not isinstance(text, str) or not isinstance(salt, str) or (salt and not _SALT.fullmatch(salt)):
        raise ExportInvalid("payload_malformed", "an opening is a payload and its salt")
    known = cast("State", state)
    found = Payload(value["i"], value["s"], known, bytes.fromhex(salt), text.encode(), value.get("by", -1))
    return found, proof


def check(
    found: Sequence[Payload],
    events: Iterable[tuple[int, Mapping[str, Any]]],
    leaf_at: Callable[[int], Mapping[str, Any]],
    disclosed: Sequence[str],
) -> dict[str, dict[str, int]]:
    """Return how many payloads there are by class and state, if each is what it is said to be.

    Args:
        found: One for each seal, by index and slot.
        events: The exported events with their places in the log.
        leaf_at: Gives an erasing leaf by its place, or raises ExportInvalid.
        disclosed: Classes whose payloads may be open.

    Raises:
        ExportInvalid: One is missing or too many, or an erasing leaf does not bear it out.
        OpeningInvalid: A payload is not what its seal fixes.
    """
    seals = [(index, slot, seal) for index, event in events for slot, seal in enumerate(event["seals"])]
    tally: dict[str, dict[str, int]] = {}
    claimed: Counter[int] = Counter()
    for place, (index, slot, seal) in enumerate(seals):
        if place >= len(found) or (found[place].index, found[place].slot) > (index, slot):
            raise ExportInvalid("payload_missing", f"seal {slot} of entry {index} has no line")
        if (found[place].index, found[place].slot) != (index, slot):
            raise ExportInvalid(
                "payload_surplus", f"a line before seal {slot} of entry {index} is of no seal"
            )
        _check_one(found[place], seal, leaf_at, disclosed, claimed)
        states = tally.setdefault(seal[1], {})
        states[found[place].state] = states.get(found[place].state, 0) + 1
    if len(found) > len(seals):
        raise ExportInvalid("payload_surplus", "a line at the end is of no seal")
    return tally


def _check_one(
    payload: Payload,
    seal: Sequence[str],
    leaf_at: Callable[[int], Mapping[str, Any]],
    disclosed: Sequence[str],
    claimed: Counter[int],
) -> None:
    _, cls, commitment = seal
    if payload.state == "opened":
        if cls not in disclosed:
            raise ExportInvalid("payload_undisclosed", f"entry {payload.index}: its class is not to be open")
        check_payload(bytes.fromhex(commitment), payload.payload, payload.salt)
        _check_object(payload)
    elif payload.state == "erased":
        _check_erased(payload, cls, leaf_at)
        claimed[payload.by] += 1
        if claimed[payload.by] > leaf_at(payload.by)["nseal"]:
            raise ExportInvalid("payload_erased_too_many", f"more than leaf {payload.by} says it destroyed")


def _check_object(payload: Payload) -> None:
    try:
        value = canonical.parse(payload.payload, MAX_PAYLOAD_BYTES)
        is_canonical = isinstance(value, dict) and canonical.encode(value) == payload.payload
    except JsonInvalid:
        is_canonical = False
    if not is_canonical:
        raise ExportInvalid("payload_not_canonical", f"entry {payload.index}: not a canonical JSON object")


def _check_erased(payload: Payload, cls: str, leaf_at: Callable[[int], Mapping[str, Any]]) -> None:
    if payload.by <= payload.index:
        raise ExportInvalid("payload_erased_before", f"entry {payload.index}: erased by no later leaf")
    event = leaf_at(payload.by)
    if event["ty"] not in ERASING:
        raise ExportInvalid("payload_erased_type", f"leaf {payload.by} erases nothing")
    if event.get("cls", cls) != cls:
        raise ExportInvalid("payload_erased_class", f"leaf {payload.by} erased another class")


def _is_place(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise ExportInvalid("payload_not_canonical", "a payload is not UTF-8") from None
