"""TenantService on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lethe.v1 import tenant_pb2 as pb

from gateway.errors import MessageInvalid
from gateway.flows.tenant import Known, TenantDraft, Tenants
from gateway.rpc import convert
from gateway.rpc.interceptors import caller

_NAMES = {"controller": "name", "training_enabled": "is_training_on"}
_FIELDS = (
    "controller",
    "contact",
    "establishments",
    "targets",
    "time_zone",
    "calendar",
    "thresholds",
    "training_enabled",
    "recipients",
)


@dataclass(frozen=True, slots=True)
class TenantService:
    """The controllers' facts on the wire."""

    tenants: Tenants
    origins: Mapping[str, str]

    async def GetTenant(self, _request: pb.GetTenantRequest, _context: object) -> pb.GetTenantResponse:
        """Return the caller's tenant."""
        return pb.GetTenantResponse(tenant=self._message(await self.tenants.get(caller())))

    async def UpdateTenant(
        self, request: pb.UpdateTenantRequest, _context: object
    ) -> pb.UpdateTenantResponse:
        """Change facts of the caller's tenant."""
        draft = TenantDraft(_changes(request), request.tenant.etag, request.request_id)
        known, receipt = await self.tenants.update(caller(), draft, rehearse=request.validate_only)
        return pb.UpdateTenantResponse(tenant=self._message(known), receipt=convert.receipt(receipt))

    def _message(self, known: Known) -> pb.Tenant:
        facts = known.facts
        return pb.Tenant(
            controller=facts.name,
            contact=facts.contact,
            establishments=facts.establishments or (),
            targets=facts.targets or (),
            time_zone=facts.time_zone,
            calendar=facts.calendar or "",
            log_origin=self.origins[caller().tenant],
            thresholds=facts.thresholds,
            training_enabled=facts.is_training_on,
            recipients=[convert.recipient(code, facts.recipients[code]) for code in sorted(facts.recipients)],
            version=known.version,
            etag=known.etag,
            unsaid=[name for name in ("establishments", "targets") if getattr(facts, name) is None],
        )


def _changes(request: pb.UpdateTenantRequest) -> dict[str, Any]:
    """Return the new facts by their names.

    Raises:
        MessageInvalid: The mask names what is no fact, or nothing is to change.
    """
    tenant = request.tenant
    asked = request.update_mask.paths or [name for name in _FIELDS if getattr(tenant, name)]
    if not asked or not set(asked) <= set(_FIELDS):
        raise MessageInvalid("no fact to change", violations=(("update_mask", "mask.unknown"),))
    return {_NAMES.get(name, name): _fact(tenant, name) for name in asked}


def _recipients(messages: Sequence[pb.Recipient]) -> dict[str, dict[str, str]]:
    """Return recipients by their codes.

    Raises:
        MessageInvalid: Two have the same.
    """
    found = {convert.bare(one.name): one for one in messages}
    if len(found) < len(messages):
        raise MessageInvalid("a code names one", violations=(("tenant.recipients", "recipient.twice"),))
    return {
        code: {
            "name": one.title,
            "role": pb.Recipient.Role.Name(one.role).removeprefix("ROLE_").lower(),
            "country": one.country,
            "channel": one.channel,
        }
        for code, one in found.items()
    }


def _fact(tenant: pb.Tenant, name: str) -> Any:
    """Return a fact of the message; a list that is empty was not said."""
    value = getattr(tenant, name)
    if name in {"establishments", "targets"}:
        return tuple(value) or None
    if name == "recipients":
        return _recipients(value)
    if name == "thresholds":
        return dict(value)
    return (value or None) if name == "calendar" else value
