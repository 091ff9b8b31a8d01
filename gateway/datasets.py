"""How a picture leaves a training set: in the transaction that ends it, whoever ends it."""

from __future__ import annotations

from dataclasses import replace

from gateway.caller import Caller
from gateway.ledger import Ledger, Receipt
from gateway.ports.records import Dataset, DatasetItem, Transaction


def bare(item: DatasetItem) -> DatasetItem:
    """Return what is kept of an item that was removed: its id, for whoever has a copy of the set."""
    return replace(
        item,
        handle=None,
        state="removed",
        job_id="",
        source_object="",
        object_id="",
        consent_id="",
        image_type="",
        sha256="",
        similarity=None,
    )


def remove_item(
    tx: Transaction, ledger: Ledger, item: DatasetItem, why: str, by: Caller | None = None
) -> Receipt | None:
    """Remove an item and log it; what was given out of its version before is stale from now on."""
    if item.state == "removed":
        return None
    tx.put(replace(bare(item), removed_at=ledger.clock.now()))
    shrink(tx, item.dataset_id)
    return ledger.record(
        tx, item.tenant, "dataset.reduced", by, dst=item.dataset_id, itm=item.item_id, why=why
    )


def shrink(tx: Transaction, dataset_id: str) -> None:
    """Count an item less; a version that was finished is stale."""
    dataset = tx.get(Dataset, dataset_id)
    if dataset is not None:
        state = "stale" if dataset.state == "ready" else dataset.state
        tx.put(replace(dataset, state=state, size=dataset.size - 1))


def remove_copy(tx: Transaction, ledger: Ledger, object_id: str, why: str, by: Caller | None = None) -> None:
    """Remove whatever item has this object as its copy."""
    for item in tx.find(DatasetItem, equal={"object_id": object_id}):
        remove_item(tx, ledger, item, why, by)
