"""A log over several tiles is pruned, on both databases: all that was handed out before still verifies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from audit import checkpoint, fsck, proof, tree
from audit.verify import verify_export
from gateway.flows.audit import Wish
from gateway.ports.records import Leaf
from tests.ground import Ground, open_ground
from tests.world import OFFICER

TERM = timedelta(days=30)
EVENTS = 1_500


@pytest.fixture
async def ground(tmp_path: Path, records_url: str) -> AsyncIterator[Ground]:
    url = records_url or f"sqlite://{tmp_path}/lethe.db"
    async with open_ground(tmp_path, url, entry_term_days=TERM.days) as opened:
        yield opened


async def test_everything_handed_out_before_verifies_after_the_log_is_pruned(ground: Ground) -> None:
    flows = ground.flows
    heads = [await ground.grow(number) for number in (1, 255, 1, 743, EVENTS - 1000)]
    proofs = [(await flows.audit.inclusion(OFFICER, index=at)).tlog_proof for at in (0, 255, 256, 999, 1400)]
    exports = [await flows.audit.export(OFFICER, wish) for wish in (Wish(), Wish(start=100, end=700))]
    ground.world.clock.advance(TERM + timedelta(seconds=1))
    assert await flows.prune.run() == 1280
    heads.append(await ground.log())

    trust = "".join(f"{key.vkey()}\n" for key in ground.verifiers)
    assert [verify_export(files, trust).verdict for files in exports] == ["valid", "valid"]
    for text in proofs:
        proof.verify(text, ground.verifiers, None)
    trees = [checkpoint.open_checkpoint(text, ground.verifiers) for text in heads]
    for older, newer in pairwise(trees):
        links = await flows.audit.consistency(OFFICER, older.size, newer.size)
        tree.verify_consistency(
            first=older.size, second=newer.size, first_root=older.root, second_root=newer.root, proof=links
        )
    files = await flows.audit.export(OFFICER, Wish(previous=trees[0].size))
    report = verify_export(files, trust, exports[0])
    assert (report.verdict, report.fault, report.start) == ("valid", "", 1280)
    found = fsck.fsck(fsck.folder_reader(ground.published), ground.verifiers, min_index=1280, deep=True)
    assert (found.verdict, found.fault, found.pruned) == ("valid", "", 1280)
    assert found.entries == found.size - 1280
    rows = await ground.records.transact(lambda tx: tx.find(Leaf, below={"seq": 1279}))
    assert rows == []
