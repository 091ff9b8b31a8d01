"""What is known of the controllers, as it stands inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gateway.ports.records import Records, TenantVersion, Transaction


@dataclass(frozen=True, slots=True)
class ControllerFacts:
    """What policy needs to know of the tenant: markets and establishments, or None for not said.

    A threshold that is not in `thresholds` was not said.  Whatever was not said counts as
    met (`policy.applicability`).  `recipients` are those who get data beside the backends, by
    their code: `name`, `role` (`policy.recipients`), `country`, and the `channel` they are told by.
    """

    name: str
    contact: str
    establishments: tuple[str, ...] | None
    targets: tuple[str, ...] | None
    time_zone: str
    calendar: str | None
    thresholds: Mapping[str, bool] = field(default_factory=dict)
    is_training_on: bool = False
    recipients: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def version_of(tenant: str, version: int, facts: ControllerFacts, at: datetime) -> TenantVersion:
    """Return the row of facts that count from `at` on."""
    told = {name: getattr(facts, name) for name in ControllerFacts.__dataclass_fields__}
    return TenantVersion(tenant=tenant, version=version, changed_at=at, **told)


@dataclass(frozen=True, slots=True)
class Controllers:
    """The facts of each tenant: those of the configuration until they were changed for the first time.

    They are read inside the transaction that uses them, so a change counts at once, in every process.
    """

    seeds: Mapping[str, ControllerFacts]

    def at(self, tx: Transaction, tenant: str) -> ControllerFacts:
        """Return the facts that count now."""
        return self.versioned(tx, tenant)[0]

    async def now(self, records: Records, tenant: str) -> ControllerFacts:
        """Return the facts that count now, in a transaction of its own."""
        return await records.transact(lambda tx: self.at(tx, tenant))

    def versioned(self, tx: Transaction, tenant: str) -> tuple[ControllerFacts, int]:
        """Return the facts that count now and their version; 0 are those of the configuration."""
        rows = tx.find(TenantVersion, equal={"tenant": tenant}, order_by=("-version",), limit=1)
        if not rows:
            return self.seeds[tenant], 0
        row = rows[0]
        facts = ControllerFacts(
            name=row.name,
            contact=row.contact,
            establishments=row.establishments,
            targets=row.targets,
            time_zone=row.time_zone,
            calendar=row.calendar,
            thresholds=row.thresholds,
            is_training_on=row.is_training_on,
            recipients=row.recipients,
        )
        return facts, row.version
