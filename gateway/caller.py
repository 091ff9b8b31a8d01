"""Who calls: taken from the client certificate, never from a message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a caller may do; the table is in `gateway.rpc.roles`."""

    SERVICE = "service"
    PRIVACY_OFFICER = "privacy_officer"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller of one tenant.

    `name` is the code that configuration gives the identity.  A person's name
    never enters the log in clear: see `gateway.ledger.Ledger.record`.
    """

    tenant: str
    name: str
    role: Role
    is_person: bool


def staff_id(caller: Caller) -> str:
    """Return the id under which a person of the staff has keys, as a subject has under theirs.

    No subject's id holds a NUL: the wire refuses one.
    """
    return f"staff\0{caller.name}"


SYSTEM = "sys:lethe"
"""The actor of leaves that the gateway writes of its own accord."""
