"""A backup file on both databases: what is in it, what is not, and what is refused by name."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import compose
from gateway.adapters.keys_local import LocalKeyring
from gateway.adapters.objects_local import FileObjects
from gateway.adapters.sql.records import open_records
from gateway.adapters.sql.schema import SchemaMismatch
from gateway.adapters.sql.snapshot import TABLES, is_empty, load, snapshot
from gateway.admin.folder import TENANT, Layout
from gateway.errors import StateConflict, StoreUnavailable
from gateway.ports.keys import Epoch
from gateway.ports.records import (
    Checkpoint,
    Leaf,
    LogHead,
    LogKeys,
    Remembered,
    Restore,
    StoredObject,
    SubjectKey,
    Tile,
)
from gateway.settings import ConfigInvalid, Settings
from gateway.settings import load as read
from gateway.vault import backup as file_format
from gateway.vault.errors import BackupInvalid
from tests import invariants
from tests.gateway import lethe_here, make_folder
from tests.postgres import Postgres
from tests.schema import migrated

CANARY = b"a portrait of somebody at home"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FAR = NOW + timedelta(days=9999)
AFTER = {Leaf, LogHead, LogKeys, Tile, Checkpoint}
"""Of the event of the backup itself, which comes after its moment."""
MARK = Restore("a" * 32, "b" * 64, NOW, {}, {}, {})
IDENTITY, RECIPIENT = file_format.make_identity()


def stored(object_id: str, **changes: Any) -> StoredObject:
    made: dict[str, Any] = dict.fromkeys(("key_id", "job_id", "purpose", "image_type"), "canary-column-text")
    made |= {"kind": "original", "state": "live", "wrapped_dek": b"\0\xff", "created_at": NOW}
    sizes = {"width": 1, "height": 2, "size_bytes": 1 << 40}
    return StoredObject(object_id, TENANT, "handle", **{**made, **sizes, "expires_at": FAR, **changes})


OBJECTS = {f"{number:032x}": bytes([number]) * 3_000_000 + CANARY for number in (1, 2)}
GONE = "f" * 32
ROWS = (
    *(stored(object_id) for object_id in (*OBJECTS, GONE)),
    stored("e" * 32, state="destroyed", wrapped_dek=b""),
    SubjectKey("1" * 32, TENANT, None, "content", "open", f"{TENANT}/content/open/0", b"\x00'\"", NOW),
    *(Remembered(TENANT, "M", f"r{number}", "d", "x" * (1 << 20), FAR) for number in range(2)),
    Remembered(TENANT, "Ö\u2603\n", "r", "canary-row", "", FAR),
)


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder."""
    return list(folder.iterdir())


def ignore(_text: str) -> None:
    """Take a step's text."""


@pytest.fixture
def layout(tmp_path: Path, records_url: str) -> Layout:
    return make_folder(tmp_path / "dev", records_url=records_url)


@pytest.fixture
async def settings(layout: Layout) -> Settings:
    """A gateway's folder with rows of every kind of column and two objects; a third one is gone."""
    made = read(layout.config)
    published = made.audit.model_copy(update={"published": layout.root / "published"})
    made = made.model_copy(update={"audit": published})
    compose.make_folders(made)
    await migrated(made.records.url)
    compose.make_lock(made)
    records = open_records(made.records.url)
    await records.transact(lambda tx: tx.add(*ROWS))
    await records.close()
    objects = FileObjects(made.objects.directory)
    for object_id, content in OBJECTS.items():
        await objects.put(object_id, chunks(content))
    await LocalKeyring(made.keys.directory).create_epoch(Epoch(TENANT, "content", "open", 0))
    return made


async def everything(url: str) -> invariants.Rows:
    records = open_records(url)
    try:
        return await records.transact(invariants.everything)
    finally:
        await records.close()


def another(tmp_path: Path, settings: Settings, records_url: str = "") -> Settings:
    """Return settings of the same gateway with empty stores elsewhere."""
    url = records_url or f"sqlite://{tmp_path}/other.db"
    return settings.model_copy(
        update={
            "records": settings.records.model_copy(update={"url": url}),
            "objects": settings.objects.model_copy(update={"directory": tmp_path / "others"}),
        }
    )


async def test_rows_and_objects_come_back_as_they_were_on_either_database(
    tmp_path: Path, settings: Settings, postgres: Postgres
) -> None:
    file = tmp_path / "b"
    manifest = await compose.back_up(settings, file, RECIPIENT, ignore)
    assert (manifest["objects"], manifest["objects_gone"]) == (2, 1)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in listed(tmp_path) if path.suffix == ".part"] == []
    before = await everything(settings.records.url)
    assert [(leaf.ty, leaf.seq) for leaf in before[Leaf]] == [("backup.created", 0)]
    for number, url in enumerate(("", await postgres.create(f"other_{secrets.token_hex(4)}"))):
        where = another(tmp_path / str(number), settings, url)
        (tmp_path / str(number)).mkdir()
        compose.make_folders(where)
        assert await compose.restore(where, file, IDENTITY, ignore) == manifest
        after = await everything(where.records.url)
        assert len(after.pop(Restore)) == 1
        for kind, rows in after.items():
            if kind not in AFTER:
                assert sorted(map(repr, rows)) == sorted(map(repr, before[kind])), kind.__name__
        objects = FileObjects(where.objects.directory)
        for object_id, content in OBJECTS.items():
            assert b"".join([piece async for piece in objects.get(object_id)]) == content
        with pytest.raises(StateConflict) as refused:
            await compose.restore(where, file, IDENTITY, ignore)
        assert refused.value.detail == "records_not_empty"


async def test_what_is_sealed_shows_nothing_and_no_key_is_in_it(tmp_path: Path, settings: Settings) -> None:
    file = tmp_path / "b"
    await compose.back_up(settings, file, RECIPIENT, ignore)
    content = file.read_bytes()
    with file.open("rb") as stream:
        opened = b"".join(body for _, body in file_format.open_(file_format.read_identity(IDENTITY), stream))
    secret = [settings.audit.signing_key, settings.keys.directory / "root.key"]
    secret += list((settings.keys.directory / "epochs").glob("*.key"))
    assert len(secret) == 3
    for path in secret:
        for needle in (path.read_bytes(), path.read_bytes().strip()):
            assert needle not in content
            assert needle not in opened
    for needle in (CANARY, b"canary-column-text", b"canary-row", TENANT.encode() + b"/"):
        assert needle not in content
    assert CANARY in opened


def damaged(content: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield broken copies and the code by which each is refused."""
    stream = content.index(b"\n", content.index(b"\n") + 1) + 1
    for place in (stream, stream + 50, len(content) // 2, len(content) - 1):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], "broken"
    for size in (stream, stream + 1000, len(content) // 2, len(content) - 1):
        yield content[:size], "broken"
    yield content + b"\0", "broken"
    yield content.replace(b"lethe-backup/1", b"lethe-backup/2", 1), "version"
    yield b"", "version"
    yield b"something else\n" + content, "version"
    yield content[:stream].replace(b'"key": "', b'"key": "AAAA', 1) + content[stream:], "broken"


async def test_a_file_that_is_not_whole_or_not_for_us_is_refused_by_name(
    tmp_path: Path, settings: Settings
) -> None:
    file = tmp_path / "b"
    await compose.back_up(settings, file, RECIPIENT, ignore)
    where = another(tmp_path, settings)
    broken = tmp_path / "broken"
    for content, code in damaged(file.read_bytes()):
        broken.write_bytes(content)
        with pytest.raises(BackupInvalid) as refused:
            await compose.restore(where, broken, IDENTITY, ignore)
        assert refused.value.code == code
    with pytest.raises(BackupInvalid) as refused:
        await compose.restore(where, file, file_format.make_identity()[0], ignore)
    assert refused.value.code == "identity"
    with pytest.raises(BackupInvalid) as refused:
        await compose.restore(where, file, RECIPIENT, ignore)
    assert refused.value.code == "identity"
    assert await is_empty(where.records.url)
    assert [found async for found in FileObjects(where.objects.directory).list()] == []


async def test_a_restore_that_was_cut_can_be_run_again(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b"
    manifest = await compose.back_up(settings, file, RECIPIENT, ignore)
    where = another(tmp_path, settings)

    async def cut(*_: Any) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(compose, "load", cut)
        with pytest.raises(StoreUnavailable):
            await compose.restore(where, file, IDENTITY, ignore)
    assert await is_empty(where.records.url)
    assert await compose.restore(where, file, IDENTITY, ignore) == manifest


async def test_an_object_that_the_backup_does_not_name_keeps_it_from_being_restored(
    tmp_path: Path, settings: Settings
) -> None:
    file = tmp_path / "b"
    await compose.back_up(settings, file, RECIPIENT, ignore)
    where = another(tmp_path, settings)
    await FileObjects(where.objects.directory).put("9" * 32, chunks(b"another"))
    with pytest.raises(StateConflict) as refused:
        await compose.restore(where, file, IDENTITY, ignore)
    assert refused.value.detail == "objects_not_empty"


async def test_a_backup_that_fails_leaves_no_file_and_no_event(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "backups"
    out.mkdir()

    async def fail(*_: Any) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        patched.setattr("gateway.flows.backup.Backup._object", fail)
        with pytest.raises(StoreUnavailable):
            await compose.back_up(settings, out / "b", RECIPIENT, ignore)
    assert list(out.iterdir()) == []
    assert (await everything(settings.records.url))[Leaf] == []
    (out / "b").write_bytes(b"there already")
    with pytest.raises(StoreUnavailable) as refused:
        await compose.back_up(settings, out / "b", RECIPIENT, ignore)
    assert refused.value.detail == "eexist"
    assert (out / "b").read_bytes() == b"there already"


async def test_a_moment_is_a_moment_whatever_is_written_meanwhile(settings: Settings) -> None:
    late = Remembered(TENANT, "M", "late", "d", "", FAR)
    records = open_records(settings.records.url)
    async with snapshot(settings.records.url) as taken:
        await records.transact(lambda tx: tx.add(late))
        found = [row async for rows in taken.rows("remembered") for row in rows]
    await records.close()
    assert len(found) == 3


async def test_a_log_that_is_not_published_is_not_backed_up(tmp_path: Path, settings: Settings) -> None:
    audit = settings.audit.model_copy(update={"published": None})
    with pytest.raises(ConfigInvalid, match=r"audit\.published"):
        await compose.back_up(settings.model_copy(update={"audit": audit}), tmp_path / "b", RECIPIENT, ignore)


async def test_while_a_restore_is_not_settled_there_is_no_backup(tmp_path: Path, settings: Settings) -> None:
    records = open_records(settings.records.url)
    await records.transact(lambda tx: tx.add(MARK))
    await records.close()
    with pytest.raises(StateConflict) as refused:
        await compose.back_up(settings, tmp_path / "b", RECIPIENT, ignore)
    assert refused.value.detail == "restore_unsettled"


async def test_rows_of_a_newer_schema_are_refused_and_of_an_older_one_brought_up(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/x.db"
    with pytest.raises(SchemaMismatch):
        await load(url, "9999", [], MARK)
    rows = [("remembered", TABLES["remembered"], [(TENANT, "M", "r", "d", "", 5)])]
    await load(url, "0001", rows, MARK)
    found = await everything(url)
    assert (len(found[Remembered]), found[Restore]) == (1, [MARK])


def test_the_command_line_makes_keys_once_and_says_what_is_missing(tmp_path: Path) -> None:
    layout = make_folder(tmp_path / "dev")
    keys = ("--identity", tmp_path / "i", "--recipient", tmp_path / "r")
    assert lethe_here("backup", "keygen", *keys).exit_code == 0
    assert (tmp_path / "i").stat().st_mode & 0o777 == 0o600
    assert "FILE_EXISTS" in lethe_here("backup", "keygen", *keys).stderr
    to_nobody = lethe_here("backup", tmp_path / "b", "--config", layout.config)
    assert (to_nobody.exit_code, "backup.recipient" in to_nobody.stderr) == (2, True)
    private = lethe_here("backup", tmp_path / "b", "--config", layout.config, "--recipient", tmp_path / "i")
    assert (private.exit_code, "BACKUP_RECIPIENT" in private.stderr) == (2, True)
    lethe_here("migrate", "--config", layout.config)
    (tmp_path / "no").write_bytes(b"no backup\n")
    other = lethe_here("restore", tmp_path / "no", "--identity", tmp_path / "i", "--config", layout.config)
    assert (other.exit_code, "BACKUP_VERSION" in other.stderr) == (4, True)
