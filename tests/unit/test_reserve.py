"""The room that is kept beside a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import compose
from gateway.adapters.disk import Reserve
from gateway.errors import DiskReserve, StoreUnavailable
from gateway.rpc import roles
from gateway.rpc.interceptors import BEGINS
from gateway.settings import RecordsSection
from tests.world import settings


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "lethe.db").write_bytes(bytes(1000))
    return tmp_path / "lethe.db"


@pytest.mark.parametrize(("free", "is_enough"), [(1100, True), (1099, False), (0, False)])
def test_the_files_own_size_and_the_reserve_are_kept_free(database: Path, free: int, is_enough: bool) -> None:
    reserve = Reserve(database, 100, lambda _folder: free)
    if is_enough:
        reserve.need_room()
        return
    with pytest.raises(DiskReserve) as refused:
        reserve.need_room()
    assert refused.value.detail == "records"


def test_the_room_is_asked_for_each_time(database: Path) -> None:
    left = iter([2000, 0, 2000])
    reserve = Reserve(database, 100, lambda _folder: next(left))
    reserve.need_room()
    with pytest.raises(DiskReserve):
        reserve.need_room()
    reserve.need_room()


def test_a_reserve_of_nothing_keeps_nothing(database: Path) -> None:
    Reserve(database, 0, lambda _folder: 0).need_room()


def test_a_disk_that_does_not_say_is_no_room(database: Path) -> None:
    database.unlink()
    with pytest.raises(StoreUnavailable):
        Reserve(database, 100).need_room()


def test_the_disk_of_another_server_is_not_ours_to_watch(database: Path) -> None:
    for url, reserve_bytes in ((f"sqlite://{database}", 0), ("postgresql://lethe@db/lethe", 1 << 62)):
        section = RecordsSection(url=url, reserve_bytes=reserve_bytes)
        compose.room(settings().model_copy(update={"records": section}))()
    section = RecordsSection(url=f"sqlite://{database}", reserve_bytes=1 << 62)
    with pytest.raises(DiskReserve):
        compose.room(settings().model_copy(update={"records": section}))()


def test_what_a_full_disk_refuses_are_methods_of_the_contract_and_no_rights() -> None:
    assert roles.ROLES.keys() > BEGINS
    services = {method.partition("/")[0] for method in BEGINS}
    assert services.isdisjoint({"DsrService", "RetentionService", "AuditService", "KeyService"})
    assert "ConsentService/WithdrawConsent" not in BEGINS
