"""Leaves: an event as one line of restricted canonical JSON that holds no personal data (decision 0004)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from audit import canonical, tree
from audit.errors import JsonInvalid, LeafInvalid
from audit.schema import COMMON, EVENTS, Fields

VERSION = 1
MAX_BYTES = 65_535
ID_BYTES = NONCE_BYTES = 16

_ALL = {ty: Fields({**COMMON, **own.required}, own.optional) for ty, own in EVENTS.items()}


def new_event(
    ty: str, *, at_ms: int, actor: str, random: Callable[[int], bytes], **fields: Any
) -> dict[str, Any]:
    """Return an event of type `ty` with a fresh id and nonce; `encode` checks it.

    The nonce makes the leaf hash hiding: nobody finds the leaf by guessing its values.

    Args:
        at_ms: Milliseconds since 1970, UTC.
        actor: `svc:<code>`, `tok:<32 hex>` for a person, or `sys:lethe`.
        random: Returns that many random bytes.

    Raises:
        LeafInvalid: A field would take the place of a common one.
    """
    event = {
        "v": VERSION,
        "ty": ty,
        "id": random(ID_BYTES).hex(),
        "t": at_ms,
        "n": random(NONCE_BYTES).hex(),
        "act": actor,
        "seals": [],
    }
    if fields.keys() & event.keys():
        raise LeafInvalid("leaf_field_common", "a common field is not the caller's to set")
    return event | fields


def encode(event: Mapping[str, Any]) -> bytes:
    """Return the leaf's bytes, without a line end; they are what is stored, hashed and exported.

    Raises:
        LeafInvalid: The event is outside the closed schema.
    """
    _refuse_outside_schema(event)
    try:
        line = canonical.encode_known(dict(event))  # the schema has no value outside the profile
    except JsonInvalid as error:
        raise LeafInvalid("leaf_json", error.code) from None
    if len(line) > MAX_BYTES:
        raise LeafInvalid("leaf_too_large")
    return line


def decode(line: bytes) -> dict[str, Any]:
    """Return the event of a leaf.

    Raises:
        LeafInvalid: Not JSON, outside the closed schema, or not the canonical form.
    """
    try:
        event = canonical.parse(line, MAX_BYTES)
    except JsonInvalid as error:
        raise LeafInvalid("leaf_json", error.code) from None
    if not isinstance(event, dict):
        raise LeafInvalid("leaf_json", "not an object")
    if encode(event) != line:
        raise LeafInvalid("leaf_not_canonical", "the line is not the canonical form of its event")
    return event


def leaf_hash(line: bytes) -> bytes:
    """Return SHA-256(00 || line), the hash that the tree is built of."""
    return tree.hash_leaf(line)


def _refuse_outside_schema(event: Mapping[str, Any]) -> None:
    ty = event.get("ty")
    fields = _ALL.get(ty) if isinstance(ty, str) else None
    if fields is None:
        raise LeafInvalid("leaf_type", "no such event type")
    fault = fields.fault(event)
    if fault:
        # Named by our own words only: the type, and a field of the schema.
        raise LeafInvalid(f"leaf_{fault}", f"event type {ty}")
