"""The gateway is killed with `kill -9` while it settles a restore: the next start goes on where it was cut.

`tests/unit/flows/test_suppress.py` cuts at every call, in one process; here are real processes, real
stores, and a kill before, inside and after the transactions that end again what had ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from lethe.v1 import subject_pb2

from audit.verify import verify_export
from gateway import compose
from gateway.adapters.keys_local import LocalKeyring
from gateway.client import Refused
from gateway.ports.records import Restore
from gateway.vault.backup import make_identity
from tests import invariants
from tests.faults.story import PLACE, SUBJECT, House, Story, copied, exported, lives, prepared, zygote
from tests.places import running_parts
from tests.sample import sampled

KILLS = [
    f"records.transact/{point}:{when}"
    for point in ("_append", "Suppress._erase", "Suppress._mend_some", "Suppress._finish")
    for when in ("inside", "before", "after")
]


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """What a restore left, before any start: the subject was erased since the backup."""
    with running_parts(PLACE) as parts, zygote() as forks:
        made = prepared(tmp_path_factory.mktemp("settle") / "template", forks, parts)
        asyncio.run(_fall(made))
        yield made


async def _fall(made: House) -> None:
    made.place.configure("audit", published="published")
    settings, file = made.place.settings, made.layout.root / "lethe.backup"
    identity, recipient = make_identity()
    compose.make_folders(settings)
    async with made.open():
        await compose.back_up(settings, file, recipient, str)
        await Story(made).tell()
    await made.place.lose()
    compose.make_folders(made.place.settings)
    await compose.restore(made.place.settings, file, identity, str)
    file.unlink()


@pytest.mark.parametrize("kill", sampled(KILLS))
async def test_a_restore_whose_settling_was_killed_is_settled_by_the_next_start(
    fallen: House, tmp_path: Path, kill: str
) -> None:
    left = await copied(fallen, tmp_path / "dev")
    async with left.open("--kill", kill):
        assert not lives(left.pid), "it served, and nobody was killed"
    async with left.open(), left.client("app") as app, left.client("auditor") as auditor:
        _, picture = await app.download((left.layout.root / "survivor-job").read_text())
        assert picture.startswith(b"\xff\xd8\xff")
        with pytest.raises(Refused) as refused:
            await app.call(app.subjects.GetSubject, subject_pb2.GetSubjectRequest(name=f"subjects/{SUBJECT}"))
        assert refused.value.reason == "SUBJECT_BLOCKED"
        export = await exported(auditor)
        await left.swept()
    report = verify_export(export, left.layout.trust.read_text())
    assert report.verdict == "valid", report.fault
    assert report.counts["backup.restored"] == 1
    rows = await left.rows()
    assert rows[Restore] == []
    keyring = LocalKeyring(left.layout.keys)
    invariants.check_gone(rows, (await keyring.mac("demo", "handle", SUBJECT.encode())).hex())
    invariants.check_bytes(rows, left.place.stored())
    await left.place.remove()
