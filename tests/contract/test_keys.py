"""The same questions to every key service, then what only the local keyring must answer."""

from __future__ import annotations

import asyncio
import hmac
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from gateway.adapters.keys_aws import AwsKeys
from gateway.adapters.keys_local import DESTROYED, EPOCHS, FENCES, ROOT_FILE, LocalKeyring, read_root_key
from gateway.adapters.keys_pkcs11 import TokenKeys
from gateway.adapters.keys_split import SplitKeys
from gateway.adapters.keys_transit import TransitKeys
from gateway.errors import KeyServiceUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed, KeyService, UnwrapFailed
from tests.fakes.keys import BreakableKeys, FakeKeys
from tests.fakes.transit import Engine as TransitEngine
from tests.fakes.transit import serving as serving_transit
from tests.softhsm import make_softhsm

EPOCH = Epoch("acme", "content", "2027-03", 0)
OTHERS = [
    replace(EPOCH, tenant="other"),
    replace(EPOCH, cls="profile"),
    replace(EPOCH, month="open"),
    replace(EPOCH, roll=1),
    replace(EPOCH, roll=10),
]
KEY = bytes(range(32))
HANDLE = "ab" * 32


SPLIT = {"aws", "transit"}
"""Adapters whose keys are far away, and whose register is a local keyring."""


@pytest.fixture(params=["local", "fake", "pkcs11", "aws", "transit"])
async def keys(request, tmp_path, monkeypatch) -> AsyncIterator[KeyService]:
    if request.param == "local":
        yield LocalKeyring.create(tmp_path / "ring")
    elif request.param == "fake":
        yield FakeKeys()
    elif request.param == "aws":
        with mock_aws():
            far = AwsKeys.connect(region="eu-central-1", namespace="test")
            yield SplitKeys(far, LocalKeyring.create(tmp_path / "register"))
            await far.close()
    elif request.param == "transit":
        credential = tmp_path / "credential"
        credential.touch(mode=0o600)
        credential.write_text("s.4711\n")
        with serving_transit(TransitEngine("s.4711")) as url:
            engine = TransitKeys.connect(url=url, token_file=credential, has_copies=False)
            yield SplitKeys(engine, LocalKeyring.create(tmp_path / "register"))
            await engine.close()
    else:
        hsm = make_softhsm(tmp_path / "hsm", monkeypatch)
        await TokenKeys.create(hsm.place)
        made = TokenKeys(hsm.place)
        yield made
        await made.close()


@pytest.fixture
def ring(tmp_path) -> LocalKeyring:
    return LocalKeyring.create(tmp_path / "ring")


ASKING: dict[str, Callable[[KeyService], Awaitable[object]]] = {
    "create_epoch": lambda keys: keys.create_epoch(EPOCH),
    "destroy_epoch": lambda keys: keys.destroy_epoch(EPOCH),
    "epochs": lambda keys: keys.epochs(),
    "wrap": lambda keys: keys.wrap(EPOCH, KEY, b""),
    "unwrap": lambda keys: keys.unwrap(EPOCH, bytes(60), b""),
    "fence": lambda keys: keys.fence(HANDLE),
    "is_fenced": lambda keys: keys.is_fenced(HANDLE),
    "mac": lambda keys: keys.mac("acme", "handle", b""),
}


# --- every key service ---------------------------------------------------------------------------


async def test_a_wrapped_key_unwraps(keys):
    await keys.create_epoch(EPOCH)
    assert await keys.unwrap(EPOCH, await keys.wrap(EPOCH, KEY, b"binding"), b"binding") == KEY


async def test_wrapping_twice_gives_other_bytes_and_never_the_key(keys):
    await keys.create_epoch(EPOCH)
    one, two = await keys.wrap(EPOCH, KEY, b""), await keys.wrap(EPOCH, KEY, b"")
    assert one != two
    assert KEY not in one + two


async def test_creating_an_epoch_again_changes_nothing(keys):
    await keys.create_epoch(EPOCH)
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    await keys.create_epoch(EPOCH)
    assert await keys.unwrap(EPOCH, wrapped, b"") == KEY


async def test_many_creations_at_once_make_one_key(keys):
    await asyncio.gather(*(keys.create_epoch(EPOCH) for _ in range(8)))
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    await asyncio.gather(*(keys.create_epoch(EPOCH) for _ in range(8)))
    assert await keys.unwrap(EPOCH, wrapped, b"") == KEY
    assert await keys.epochs() == (EPOCH,)


async def test_many_keys_are_wrapped_anew_and_what_does_not_open_is_left_out(keys):
    new = replace(EPOCH, roll=1)
    await keys.create_epoch(EPOCH)
    await keys.create_epoch(new)
    wrapped = [(await keys.wrap(EPOCH, bytes([n]) * 32, bytes([n])), bytes([n])) for n in range(3)]
    wrapped.insert(1, (wrapped[0][0], b"another binding"))
    wrapped.insert(2, (b"no box", b""))
    made = await keys.rewrap(EPOCH, new, wrapped)
    assert [made[1], made[2]] == [None, None]
    for number, place in enumerate((0, 3, 4)):
        assert await keys.unwrap(new, made[place], bytes([number])) == bytes([number]) * 32
    await keys.destroy_epoch(EPOCH)
    assert await keys.rewrap(EPOCH, new, wrapped[:1]) == [None]
    await keys.destroy_epoch(new)
    older = replace(EPOCH, roll=2)
    await keys.create_epoch(older)
    kept = [(await keys.wrap(older, KEY, b""), b"")]
    with pytest.raises(EpochDestroyed):
        await keys.rewrap(older, new, kept)


async def test_another_binding_does_not_unwrap(keys):
    await keys.create_epoch(EPOCH)
    with pytest.raises(UnwrapFailed):
        await keys.unwrap(EPOCH, await keys.wrap(EPOCH, KEY, b"one"), b"other")


@pytest.mark.parametrize("other", OTHERS, ids=str)
async def test_another_epoch_does_not_unwrap(keys, other):
    await keys.create_epoch(EPOCH)
    await keys.create_epoch(other)
    with pytest.raises(UnwrapFailed):
        await keys.unwrap(other, await keys.wrap(EPOCH, KEY, b""), b"")


async def test_altered_or_cut_bytes_do_not_unwrap(keys):
    await keys.create_epoch(EPOCH)
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    bad = [
        wrapped[:-1],
        wrapped[:20],
        wrapped[:5],
        b"",
        wrapped + b"\0",
        bytes([wrapped[0] ^ 1]) + wrapped[1:],
    ]
    for garbage in bad:
        with pytest.raises(UnwrapFailed):
            await keys.unwrap(EPOCH, garbage, b"")


async def test_an_epoch_that_never_was_wraps_nothing(keys):
    with pytest.raises(EpochDestroyed):
        await keys.wrap(EPOCH, KEY, b"")
    with pytest.raises(EpochDestroyed):
        await keys.unwrap(EPOCH, bytes(60), b"")


async def test_a_destroyed_epoch_opens_nothing_and_never_comes_back(keys):
    await keys.create_epoch(EPOCH)
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    await keys.destroy_epoch(EPOCH)
    with pytest.raises(EpochDestroyed):
        await keys.unwrap(EPOCH, wrapped, b"")
    with pytest.raises(EpochDestroyed):
        await keys.wrap(EPOCH, KEY, b"")
    with pytest.raises(EpochDestroyed):
        await keys.create_epoch(EPOCH)
    assert await keys.epochs() == ()


async def test_destroying_again_changes_nothing(keys):
    await keys.create_epoch(EPOCH)
    await keys.destroy_epoch(EPOCH)
    await keys.destroy_epoch(EPOCH)
    assert await keys.epochs() == ()


async def test_an_epoch_destroyed_before_it_was_made_is_never_made(keys):
    await keys.destroy_epoch(EPOCH)
    with pytest.raises(EpochDestroyed):
        await keys.create_epoch(EPOCH)


@pytest.mark.parametrize("other", OTHERS, ids=str)
async def test_destroying_one_epoch_leaves_the_others(keys, other):
    await keys.create_epoch(EPOCH)
    await keys.create_epoch(other)
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    await keys.destroy_epoch(other)
    assert await keys.unwrap(EPOCH, wrapped, b"") == KEY


async def test_the_epochs_are_listed_sorted(keys):
    for epoch in [*reversed(OTHERS), EPOCH]:
        await keys.create_epoch(epoch)
    await keys.destroy_epoch(OTHERS[0])
    assert await keys.epochs() == tuple(sorted([EPOCH, *OTHERS[1:]]))


async def test_creations_racing_a_destruction_leave_no_key(keys):
    async def create() -> None:
        try:
            await keys.create_epoch(EPOCH)
        except EpochDestroyed:
            return

    await asyncio.gather(
        *(create() for _ in range(6)), keys.destroy_epoch(EPOCH), *(create() for _ in range(6))
    )
    assert await keys.epochs() == ()
    with pytest.raises(EpochDestroyed):
        await keys.wrap(EPOCH, KEY, b"")


async def test_a_fenced_handle_stays_fenced_and_no_other_is(keys):
    assert not await keys.is_fenced(HANDLE)
    await keys.fence(HANDLE)
    await keys.fence(HANDLE)
    assert await keys.is_fenced(HANDLE)
    assert not await keys.is_fenced(HANDLE[:-1])


async def test_a_mac_is_stable_and_has_32_bytes(keys):
    one = await keys.mac("acme", "handle", b"id")
    assert one == await keys.mac("acme", "handle", b"id")
    assert len(one) == 32


async def test_a_mac_differs_by_tenant_label_and_data(keys):
    asked = [
        ("acme", "handle", b"id"),
        ("acme", "handle", b"di"),
        ("acme", "backend", b"id"),
        ("b", "handle", b"id"),
    ]
    asked += [("acmeh", "andle", b"id"), ("acme", "handlei", b"d")]
    assert len({await keys.mac(*what) for what in asked}) == len(asked)


async def test_a_key_service_declares_its_destruction(keys):
    assert keys.destroy_latency == timedelta(days=7 if keys.name == "aws" else 0)
    assert keys.copies_outside_our_control is False
    assert keys.is_experimental is (keys.name in SPLIT)
    assert keys.name in {"local", "fake", "pkcs11", "aws", "transit"}


# --- faults, in front of every key service -------------------------------------------------------


@pytest.mark.parametrize("method", ASKING)
async def test_a_service_that_is_down_answers_nothing(keys, method):
    broken = BreakableKeys(keys)
    broken.faults.is_down = True
    with pytest.raises(KeyServiceUnavailable):
        await ASKING[method](broken)
    assert await keys.epochs() == ()


async def test_a_lost_creation_may_be_repeated(keys):
    broken = BreakableKeys(keys)
    broken.faults.lose("create_epoch")
    with pytest.raises(KeyServiceUnavailable):
        await broken.create_epoch(EPOCH)
    assert await broken.epochs() == ()
    await broken.create_epoch(EPOCH)
    assert await broken.epochs() == (EPOCH,)


async def test_a_creation_whose_reply_was_lost_may_be_repeated(keys):
    broken = BreakableKeys(keys)
    broken.faults.lose_reply("create_epoch")
    with pytest.raises(KeyServiceUnavailable):
        await broken.create_epoch(EPOCH)
    wrapped = await broken.wrap(EPOCH, KEY, b"")
    await broken.create_epoch(EPOCH)
    assert await broken.unwrap(EPOCH, wrapped, b"") == KEY


@pytest.mark.parametrize("fault", ["lose", "lose_reply"])
async def test_a_destruction_that_failed_may_be_repeated(keys, fault):
    broken = BreakableKeys(keys)
    await broken.create_epoch(EPOCH)
    getattr(broken.faults, fault)("destroy_epoch")
    with pytest.raises(KeyServiceUnavailable):
        await broken.destroy_epoch(EPOCH)
    assert await broken.epochs() == ((EPOCH,) if fault == "lose" else ())
    await broken.destroy_epoch(EPOCH)
    assert await broken.epochs() == ()


@pytest.mark.parametrize("fault", ["lose", "lose_reply"])
async def test_a_fence_that_failed_may_be_repeated(keys, fault):
    broken = BreakableKeys(keys)
    getattr(broken.faults, fault)("fence")
    with pytest.raises(KeyServiceUnavailable):
        await broken.fence(HANDLE)
    assert await broken.is_fenced(HANDLE) is (fault == "lose_reply")
    await broken.fence(HANDLE)
    assert await broken.is_fenced(HANDLE)


@pytest.mark.parametrize("fault", ["lose", "lose_reply"])
@pytest.mark.parametrize("method", ["create_epoch", "destroy_epoch", "fence", "wrap"])
async def test_the_fake_itself_can_be_told_to_break(fault, method):
    fake = FakeKeys()
    await fake.create_epoch(EPOCH)
    getattr(fake.faults, fault)(method)
    with pytest.raises(KeyServiceUnavailable):
        await ASKING[method](fake)
    await ASKING[method](fake)


# --- the local keyring ---------------------------------------------------------------------------


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(ring: LocalKeyring) -> dict[str, bytes]:
    return {
        str(p.relative_to(ring.directory)): p.read_bytes() for p in ring.directory.rglob("*") if p.is_file()
    }


def key_file(ring: LocalKeyring) -> Path:
    (path,) = (ring.directory / EPOCHS).glob("*.key")
    return path


async def test_a_new_keyring_is_private_and_marked_for_backups(ring):
    await ring.create_epoch(EPOCH)
    await ring.fence(HANDLE)
    await ring.destroy_epoch(OTHERS[0])
    for path in [ring.directory, *ring.directory.rglob("*")]:
        if path.name not in {"CACHEDIR.TAG", ".nobackup", "README"}:
            assert mode_of(path) == (0o700 if path.is_dir() else 0o600)
    tag = (ring.directory / EPOCHS / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert (ring.directory / EPOCHS / ".nobackup").exists()


def test_an_existing_keyring_is_never_overwritten(ring):
    before = tree(ring)
    with pytest.raises(FileExistsError):
        LocalKeyring.create(ring.directory)
    assert before == tree(ring)


async def test_epochs_without_their_root_get_no_new_root(ring):
    await ring.create_epoch(EPOCH)
    (ring.directory / ROOT_FILE).unlink()
    with pytest.raises(FileExistsError):
        LocalKeyring.create(ring.directory)


def test_a_creation_that_broke_off_can_be_repeated(ring):
    (ring.directory / ROOT_FILE).unlink()
    assert LocalKeyring.create(ring.directory) == ring


def test_a_keyring_is_not_made_in_an_open_directory(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(KeyServiceUnavailable):
        LocalKeyring.create(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_everything_survives_a_restart(ring):
    await ring.create_epoch(EPOCH)
    await ring.fence(HANDLE)
    wrapped, mac = await ring.wrap(EPOCH, KEY, b""), await ring.mac("acme", "handle", b"id")
    again = LocalKeyring(ring.directory)
    assert await again.unwrap(EPOCH, wrapped, b"") == KEY
    assert await again.is_fenced(HANDLE)
    assert await again.mac("acme", "handle", b"id") == mac


async def test_another_process_sees_a_destruction_at_once(ring):
    await ring.create_epoch(EPOCH)
    wrapped = await ring.wrap(EPOCH, KEY, b"")
    program = (
        "import asyncio, pathlib, sys\n"
        "from gateway.adapters.keys_local import LocalKeyring\n"
        "from gateway.ports.keys import Epoch\n"
        "asyncio.run(LocalKeyring(pathlib.Path(sys.argv[1])).destroy_epoch(Epoch.parse(sys.argv[2])))\n"
    )
    subprocess.run([sys.executable, "-c", program, ring.directory, str(EPOCH)], check=True)
    with pytest.raises(EpochDestroyed):
        await ring.unwrap(EPOCH, wrapped, b"")


async def test_a_root_key_may_be_kept_raw(ring):
    await ring.create_epoch(EPOCH)
    wrapped = await ring.wrap(EPOCH, KEY, b"")
    root = ring.directory / ROOT_FILE
    root.write_bytes(bytes.fromhex(root.read_text()))
    assert await ring.unwrap(EPOCH, wrapped, b"") == KEY


def remove_root(ring: LocalKeyring) -> None:
    (ring.directory / ROOT_FILE).unlink()


def directory_for_root(ring: LocalKeyring) -> None:
    remove_root(ring)
    (ring.directory / ROOT_FILE).mkdir(mode=0o700)


def fifo_for_root(ring: LocalKeyring) -> None:
    remove_root(ring)
    os.mkfifo(ring.directory / ROOT_FILE, 0o600)


def root_of(content: bytes) -> Callable[[LocalKeyring], None]:
    def break_(ring: LocalKeyring) -> None:
        (ring.directory / ROOT_FILE).write_bytes(content)

    return break_


def opened(name: str, mode: int) -> Callable[[LocalKeyring], None]:
    def break_(ring: LocalKeyring) -> None:
        (ring.directory / name).chmod(mode)

    return break_


def without(name: str) -> Callable[[LocalKeyring], None]:
    def break_(ring: LocalKeyring) -> None:
        (ring.directory / name).rename(ring.directory.parent / "away")

    return break_


def file_for(name: str) -> Callable[[LocalKeyring], None]:
    def break_(ring: LocalKeyring) -> None:
        without(name)(ring)
        (ring.directory / name).touch(mode=0o600)

    return break_


BREAKS: dict[str, Callable[[LocalKeyring], None]] = {
    "no root key": remove_root,
    "a directory in its place": directory_for_root,
    "a FIFO in its place": fifo_for_root,
    "an empty root key": root_of(b""),
    "a short root key": root_of(bytes(31)),
    "a long root key": root_of(bytes(33)),
    "a root key of half the hex": root_of(b"ab" * 16 + b"\n"),
    "a root key of too much hex": root_of(b"ab" * 33),
    "a root key that is no hex": root_of(b"x" * 64),
    "a root key that is no ASCII": root_of(b"\xff" * 64),
    "a group-readable root key": opened(ROOT_FILE, 0o640),
    "a world-readable root key": opened(ROOT_FILE, 0o604),
    "a group-writable root key": opened(ROOT_FILE, 0o620),
    "an open keyring": opened(".", 0o755),
    "a group-writable keyring": opened(".", 0o720),
    "open epochs": opened(EPOCHS, 0o701),
    "an open bar list": opened(DESTROYED, 0o750),
    "open fences": opened(FENCES, 0o750),
    "no epochs": without(EPOCHS),
    "no bar list": without(DESTROYED),
    "no fences": without(FENCES),
    "a file for the epochs": file_for(EPOCHS),
    "a file for the fences": file_for(FENCES),
}


@pytest.mark.parametrize("breakage", BREAKS)
async def test_a_keyring_that_is_not_whole_and_private_answers_nothing(ring, breakage):
    BREAKS[breakage](ring)
    for ask in ASKING.values():
        with pytest.raises(KeyServiceUnavailable):
            await ask(ring)


async def test_a_keyring_that_never_was_answers_nothing_and_is_not_made(tmp_path):
    for ask in ASKING.values():
        with pytest.raises(KeyServiceUnavailable):
            await ask(LocalKeyring(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_a_root_key_of_another_user_is_refused(ring):
    with pytest.raises(KeyServiceUnavailable) as refusal:
        read_root_key(ring.directory / ROOT_FILE, owner=os.geteuid() + 1)
    assert refusal.value.detail == "key_owner"


async def test_a_refusal_says_neither_path_nor_handle(ring):
    without(FENCES)(ring)
    with pytest.raises(KeyServiceUnavailable) as refusal:
        await ring.is_fenced(HANDLE)
    assert str(ring.directory) not in str(refusal.value)
    assert refusal.value.detail == "enoent"


async def test_the_wrong_root_key_opens_no_epoch(ring):
    await ring.create_epoch(EPOCH)
    root_of(os.urandom(32))(ring)
    with pytest.raises(KeyServiceUnavailable) as refusal:
        await ring.wrap(EPOCH, KEY, b"")
    assert refusal.value.detail == "epoch_unreadable"


@pytest.mark.parametrize("content", [b"", bytes(10), bytes(60)])
async def test_a_damaged_epoch_key_is_no_answer(ring, content):
    await ring.create_epoch(EPOCH)
    key_file(ring).write_bytes(content)
    with pytest.raises(KeyServiceUnavailable):
        await ring.wrap(EPOCH, KEY, b"")


async def test_an_epoch_key_under_another_name_does_not_open(ring):
    await ring.create_epoch(EPOCH)
    await ring.create_epoch(OTHERS[0])
    one, other = sorted((ring.directory / EPOCHS).glob("*.key"))
    other.write_bytes(one.read_bytes())
    with pytest.raises(KeyServiceUnavailable):
        await ring.wrap(OTHERS[0], KEY, b"")


async def test_destroying_overwrites_the_file_before_its_name_goes(ring, tmp_path):
    await ring.create_epoch(EPOCH)
    before = key_file(ring).read_bytes()
    other_name = tmp_path / "other-name"
    os.link(key_file(ring), other_name)
    await ring.destroy_epoch(EPOCH)
    assert list((ring.directory / EPOCHS).glob("*.key*")) == []
    assert len(other_name.read_bytes()) == len(before)
    assert not any(before[i : i + 8] in other_name.read_bytes() for i in range(len(before) - 8))


async def test_destroying_erases_the_draft_of_a_creation_that_broke_off(ring):
    await ring.create_epoch(EPOCH)
    draft = key_file(ring).with_name(key_file(ring).name + ".0123456789abcdef.new")
    os.link(key_file(ring), draft)
    await ring.destroy_epoch(EPOCH)
    assert not draft.exists()


async def test_a_destroyed_epoch_key_restored_from_a_copy_stays_refused(ring):
    await ring.create_epoch(EPOCH)
    wrapped = await ring.wrap(EPOCH, KEY, b"")
    place, copy = key_file(ring), key_file(ring).read_bytes()
    await ring.destroy_epoch(EPOCH)
    place.write_bytes(copy)
    with pytest.raises(EpochDestroyed):
        await ring.unwrap(EPOCH, wrapped, b"")
    assert await ring.epochs() == ()
    await ring.destroy_epoch(EPOCH)
    assert not place.exists()


async def test_a_destruction_that_broke_off_after_its_first_step_already_bars(ring):
    await ring.create_epoch(EPOCH)
    (ring.directory / DESTROYED / key_file(ring).stem).touch(mode=0o600)
    with pytest.raises(EpochDestroyed):
        await ring.wrap(EPOCH, KEY, b"")


async def test_the_fence_list_holds_no_handle(ring):
    await ring.fence(HANDLE)
    (entry,) = (ring.directory / FENCES).iterdir()
    assert HANDLE not in entry.name
    assert entry.read_bytes() == b""
    root = read_root_key(ring.directory / ROOT_FILE, os.geteuid())
    assert entry.name != hmac.digest(root, HANDLE.encode(), "sha256").hex()


async def test_no_key_lies_in_clear_but_the_root(ring):
    await ring.create_epoch(EPOCH)
    epoch_key = ring._epoch_key(EPOCH)
    assert not any(
        epoch_key in content or epoch_key.hex().encode() in content for content in tree(ring).values()
    )


async def test_names_are_kept_inside_the_directory(ring):
    hostile = Epoch("..", "content", "open", 0)
    await ring.create_epoch(hostile)
    assert await ring.epochs() == (hostile,)
    assert key_file(ring).parent == ring.directory / EPOCHS


@pytest.mark.parametrize("field", ["tenant", "cls", "month"])
async def test_an_epoch_whose_text_is_ambiguous_is_refused(ring, field):
    with pytest.raises(ValueError, match="slash"):
        await ring.create_epoch(replace(EPOCH, **{field: "a/b"}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=20))
def test_any_tenant_name_comes_back_from_the_listing(ring, tenant):
    epoch = replace(EPOCH, tenant=tenant)

    async def made() -> bool:
        await ring.create_epoch(epoch)
        return epoch in await ring.epochs()

    assert asyncio.run(made())


async def test_foreign_files_among_the_epochs_are_passed_over(ring):
    await ring.create_epoch(EPOCH)
    for name in ("notes.key", "a%2Fb%2Fc%2Fx.key", "a%2Fb%2Fc%2F01.key", "acme.txt"):
        (ring.directory / EPOCHS / name).touch()
    assert await ring.epochs() == (EPOCH,)


async def test_a_disk_that_takes_no_byte_leaves_no_epoch(ring):
    """RLIMIT_FSIZE stands in for a full disk: it needs no mount and works everywhere."""
    program = (
        "import asyncio, pathlib, resource, sys\n"
        "from gateway.adapters.keys_local import LocalKeyring\n"
        "from gateway.errors import KeyServiceUnavailable\n"
        "from gateway.ports.keys import Epoch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))\n"
        "try:\n"
        "    asyncio.run(LocalKeyring(pathlib.Path(sys.argv[1])).create_epoch(Epoch.parse(sys.argv[2])))\n"
        "except KeyServiceUnavailable as error:\n"
        "    print(error.detail)\n"
    )
    before = tree(ring)
    done = subprocess.run(
        [sys.executable, "-c", program, ring.directory, str(EPOCH)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "efbig\n"
    assert tree(ring) == before


async def test_what_create_destroy_and_fence_wrote_is_synced_before_they_return(ring, monkeypatch):
    synced: list[str] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(Path(Path(f"/proc/self/fd/{descriptor}").readlink()).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    await ring.create_epoch(EPOCH)
    assert synced[0].endswith(".new")
    assert synced[-1] == EPOCHS
    synced.clear()
    await ring.destroy_epoch(EPOCH)
    assert [name for name in synced if name in {DESTROYED, EPOCHS}] == [DESTROYED, EPOCHS]
    assert synced[2].endswith(".key")
    synced.clear()
    await ring.fence(HANDLE)
    assert synced[-1] == FENCES
