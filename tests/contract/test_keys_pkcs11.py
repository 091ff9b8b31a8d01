"""What only a key service in a token must answer, asked of SoftHSM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.exceptions import AttributeSensitive, DeviceMemory

from gateway.adapters import keys_pkcs11
from gateway.adapters.keys_pkcs11 import EPOCH as PREFIX
from gateway.adapters.keys_pkcs11 import FULL, OPEN, ROOT, TokenKeys
from gateway.adapters.one_thread import OneThread
from gateway.errors import KeyServiceUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed, UnwrapFailed
from tests.contract.test_keys import ASKING, EPOCH, HANDLE, KEY, OTHERS
from tests.process import until
from tests.softhsm import LABEL, PIN, SoftHsm, make_softhsm

PREAMBLE = """
import asyncio, os, signal, sys, time
from pathlib import Path
from gateway.adapters import keys_pkcs11
from gateway.adapters.keys_pkcs11 import TokenKeys, TokenPlace
from gateway.ports.keys import Epoch
keys = TokenKeys(TokenPlace(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
epoch = Epoch.parse(sys.argv[4])
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
async def hsm(tmp_path, monkeypatch) -> SoftHsm:
    made = make_softhsm(tmp_path / "hsm", monkeypatch)
    await TokenKeys.create(made.place)
    return made


@pytest.fixture
async def keys(hsm) -> AsyncIterator[TokenKeys]:
    made = TokenKeys(hsm.place)
    yield made
    await made.close()


def command(hsm: SoftHsm, program: str, *more: str) -> list[str]:
    place = hsm.place
    arguments = [str(place.module), place.token, str(place.pin_file), str(EPOCH), *more]
    return [sys.executable, "-c", PREAMBLE + program, *arguments]


def elsewhere(hsm: SoftHsm, program: str) -> int:
    """Run a program in another process and return how it ended."""
    return subprocess.run(command(hsm, program), check=False).returncode


async def begin(hsm: SoftHsm, program: str, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(*command(hsm, program, *more), stdout=subprocess.PIPE)


async def look(keys: TokenKeys, work: Callable[[], object]) -> object:
    """Return what `work` finds in the token, in the module's thread."""
    return await keys._ask(work)


async def count(keys: TokenKeys, attribute: Attribute, value: str) -> int:
    kind = ObjectClass.SECRET_KEY if value.startswith((PREFIX, ROOT)) else ObjectClass.DATA
    found = await look(keys, lambda: keys._token._find(kind, attribute, value))
    return len(found)  # type: ignore[arg-type]


async def generate(keys: TokenKeys, label: str, *, is_extractable: bool = False) -> None:
    """Make a key behind the adapter's back."""
    template = {Attribute.EXTRACTABLE: is_extractable, Attribute.SENSITIVE: not is_extractable}
    can = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    await look(
        keys,
        lambda: keys._token.session.generate_key(
            KeyType.AES, 256, label=label, store=True, capabilities=can, template=template
        ),
    )


async def detail_of(keys: TokenKeys, method: str = "is_fenced") -> str:
    with pytest.raises(KeyServiceUnavailable) as refusal:
        await ASKING[method](keys)
    assert PIN not in str(refusal.value)
    return refusal.value.detail


# --- the token -----------------------------------------------------------------------------------


async def test_everything_survives_a_restart(hsm, keys):
    await keys.create_epoch(EPOCH)
    await keys.fence(HANDLE)
    wrapped, mac = await keys.wrap(EPOCH, KEY, b""), await keys.mac("acme", "handle", b"id")
    await keys.close()
    again = TokenKeys(hsm.place)
    assert await again.unwrap(EPOCH, wrapped, b"") == KEY
    assert await again.is_fenced(HANDLE)
    assert await again.mac("acme", "handle", b"id") == mac
    await again.close()


async def test_an_epoch_key_cannot_leave_the_token(keys):
    await keys.create_epoch(EPOCH)

    def attributes() -> dict[Attribute, object]:
        (key,) = keys._token._keys(PREFIX + str(EPOCH))
        with pytest.raises(AttributeSensitive):
            key[Attribute.VALUE]
        asked = [Attribute.SENSITIVE, Attribute.EXTRACTABLE, Attribute.PRIVATE, Attribute.TOKEN]
        return key.get_attributes([*asked, Attribute.NEVER_EXTRACTABLE, Attribute.ALWAYS_SENSITIVE])

    found = await look(keys, attributes)
    assert found[Attribute.EXTRACTABLE] is False  # type: ignore[index]
    assert sum(found.values()) == 5  # type: ignore[attr-defined]


async def test_a_key_that_could_leave_the_token_is_not_used(keys):
    assert await keys.epochs() == ()
    await generate(keys, PREFIX + str(EPOCH), is_extractable=True)
    assert await detail_of(keys, "wrap") == "key_extractable"


async def test_a_token_is_made_once(hsm):
    with pytest.raises(FileExistsError):
        await TokenKeys.create(hsm.place)


async def test_a_declared_copy_is_declared(hsm):
    keys = TokenKeys(hsm.place, has_copies=True)
    assert keys.copies_outside_our_control is True
    assert keys.destroy_latency == timedelta(0)


async def test_foreign_keys_in_the_token_are_passed_over(keys):
    await keys.create_epoch(EPOCH)
    for label in ("backup", PREFIX + "notes", PREFIX + "a/b/c/01"):
        await generate(keys, label)
    assert await keys.epochs() == (EPOCH,)


async def test_an_epoch_whose_text_is_ambiguous_is_refused(keys):
    with pytest.raises(ValueError, match="slash"):
        await keys.create_epoch(replace(EPOCH, tenant="a/b"))


# --- faults of the token -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ASKING)
async def test_a_token_that_is_pulled_out_answers_nothing_until_it_is_back(hsm, keys, method):
    await keys.create_epoch(OTHERS[0])
    await keys.fence("other")
    wrapped = await keys.wrap(OTHERS[0], KEY, b"")
    hsm.take_out()
    for _ in range(2):
        with pytest.raises(KeyServiceUnavailable) as refusal:
            await ASKING[method](keys)
        assert refusal.value.detail in {"token_missing", "general_error"}
    hsm.put_back()
    assert await keys.unwrap(OTHERS[0], wrapped, b"") == KEY
    assert await keys.is_fenced("other")


async def test_a_token_pulled_out_between_a_search_and_its_end_has_not_said_no(hsm, keys):
    def search() -> bool:
        found = keys._token.has(b"label", HANDLE)
        hsm.take_out()
        return found

    with pytest.raises(KeyServiceUnavailable) as refusal:
        await look(keys, search)
    assert refusal.value.detail == "general_error"


async def test_a_wrong_pin_is_tried_once_and_a_right_one_again(hsm, keys, monkeypatch):
    real, opened = pkcs11.lib, []
    monkeypatch.setattr(keys_pkcs11.pkcs11, "lib", lambda so: opened.append(so) or real(so))
    hsm.place.pin_file.write_text("wrong-4711\n")
    for _ in range(5):
        assert await detail_of(keys) == "pin_refused"
    assert len(opened) == 1
    hsm.place.pin_file.write_text(PIN)
    assert not await keys.is_fenced(HANDLE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
async def test_a_pin_that_others_may_read_is_not_used(hsm, keys, mode):
    hsm.place.pin_file.chmod(mode)
    assert await detail_of(keys) == "pin_mode"


@pytest.mark.parametrize(
    ("content", "detail"),
    [(None, "pin_unreadable"), (b"", "pin_unreadable"), (b"\xff\xff", "pin_unreadable")],
)
async def test_without_a_pin_nothing_is_opened(hsm, keys, content, detail):
    hsm.place.pin_file.unlink()
    if content is not None:
        hsm.place.pin_file.touch(mode=0o600)
        hsm.place.pin_file.write_bytes(content)
    assert await detail_of(keys) == detail


async def test_a_fifo_for_the_pin_does_not_hang(hsm, keys):
    hsm.place.pin_file.unlink()
    os.mkfifo(hsm.place.pin_file, 0o600)
    assert await detail_of(keys) == "pin_kind"


async def test_a_module_that_is_missing_or_none_is_named(hsm, tmp_path):
    missing = TokenKeys(replace(hsm.place, module=tmp_path / "none.so"))
    assert await detail_of(missing) == "module_missing"
    (tmp_path / "none.so").write_bytes(b"\x7fELF, but no module")
    assert await detail_of(missing) == "module_unusable"
    await missing.close()


async def test_a_token_without_our_root_is_foreign(hsm):
    hsm.add_token("someone-else")
    for place, detail in (
        (replace(hsm.place, token="someone-else"), "root_missing"),
        (replace(hsm.place, token="nobody"), "token_missing"),
        (replace(hsm.place, serial="0000"), "token_missing"),
    ):
        keys = TokenKeys(place)
        for method in ASKING:
            assert await detail_of(keys, method) == detail
        await keys.close()


async def test_two_tokens_of_one_label_are_told_apart_by_their_serial(hsm, keys):
    serial = await look(keys, lambda: (keys._token.sign(b""), keys._token.session.token.serial)[1])
    await keys.close()
    hsm.add_token(LABEL)
    either = TokenKeys(hsm.place)
    assert await detail_of(either) == "multiple_tokens_returned"
    await either.close()
    ours = TokenKeys(replace(hsm.place, serial=serial.decode()))  # type: ignore[attr-defined]
    assert not await ours.is_fenced(HANDLE)
    await ours.close()


async def test_a_second_root_is_never_chosen_from(keys):
    assert not await keys.is_fenced(HANDLE)
    await generate(keys, ROOT)
    await keys.close()
    assert await detail_of(keys) == "root_ambiguous"


async def test_a_full_token_is_named_and_holds_no_epoch(hsm, keys, monkeypatch):
    assert await keys.epochs() == ()
    real = keys._token.session

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def generate_key(self, *_: object, **__: object) -> None:
            raise DeviceMemory

    keys._token.session = Full()
    assert await detail_of(keys, "create_epoch") == "token_full"
    assert await keys.epochs() == ()
    await keys.create_epoch(EPOCH)


@pytest.mark.parametrize("call", ["create_epoch(epoch)", "fence('new')", "destroy_epoch(epoch)"])
async def test_what_a_full_disk_did_not_keep_was_not_done(hsm, keys, call):
    """SoftHSM says that all is well (and may break its files): only a new session shows what it kept."""
    program = f"""
import resource
from gateway.errors import KeyServiceUnavailable
async def main():
    await keys.epochs()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))
    try:
        await keys.{call}
    except KeyServiceUnavailable:
        os._exit(7)
asyncio.run(main())
"""
    assert elsewhere(hsm, program) == 7


# --- other processes -----------------------------------------------------------------------------


async def test_another_process_sees_a_destruction_and_a_fence_at_once(hsm, keys):
    await keys.create_epoch(EPOCH)
    await keys.create_epoch(OTHERS[0])
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    assert not await keys.is_fenced(HANDLE)
    program = f"""
async def main():
    await keys.destroy_epoch(epoch)
    await keys.fence({HANDLE!r})
asyncio.run(main())
"""
    assert elsewhere(hsm, program) == 0
    with pytest.raises(EpochDestroyed):
        await keys.unwrap(EPOCH, wrapped, b"")
    with pytest.raises(EpochDestroyed):
        await keys.create_epoch(EPOCH)
    assert await keys.is_fenced(HANDLE)
    assert await keys.epochs() == (OTHERS[0],)


async def test_two_processes_that_create_one_epoch_open_each_others_boxes(hsm, keys):
    program = """
async def main():
    await keys.epochs()
    while time.time() < float(sys.argv[5]):
        pass
    await keys.create_epoch(epoch)
    print((await keys.wrap(epoch, bytes(range(32)), b"")).hex())
asyncio.run(main())
"""
    start = str(time.time() + 3.0)
    both = await asyncio.gather(*(begin(hsm, program, start) for _ in range(2)))
    boxes = [bytes.fromhex((await child.communicate())[0].decode()) for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert [await keys.unwrap(EPOCH, box, b"") for box in boxes] == [KEY, KEY]
    assert await keys.epochs() == (EPOCH,)


async def test_an_epoch_made_twice_opens_what_either_sealed_and_dies_whole(keys):
    await keys.create_epoch(EPOCH)
    first = await keys.wrap(EPOCH, KEY, b"")
    # As another process makes it that looked before the first key was there.
    await generate(keys, PREFIX + str(EPOCH))
    (known,) = keys._token.held[PREFIX + str(EPOCH)]
    second = await look(
        keys,
        lambda: next(
            bytes(12) + keys_pkcs11._encrypt(key, bytes(12), KEY, keys_pkcs11._aad(EPOCH, b""))
            for key in keys._token._find(ObjectClass.SECRET_KEY, Attribute.LABEL, PREFIX + str(EPOCH))
            if key.handle != known.handle
        ),
    )
    assert [await keys.unwrap(EPOCH, box, b"") for box in (first, second)] == [KEY, KEY]  # type: ignore[arg-type]
    assert await keys.epochs() == (EPOCH,)
    await keys.destroy_epoch(EPOCH)
    assert await count(keys, Attribute.LABEL, PREFIX + str(EPOCH)) == 0


async def test_a_process_killed_between_the_bar_and_the_destruction_leaves_the_epoch_barred(hsm, keys):
    await keys.create_epoch(EPOCH)
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    program = """
keys_pkcs11._Token._destroy_keys = die
asyncio.run(keys.destroy_epoch(epoch))
"""
    assert elsewhere(hsm, program) == -9
    assert await count(keys, Attribute.LABEL, PREFIX + str(EPOCH)) == 1
    with pytest.raises(EpochDestroyed):
        await keys.unwrap(EPOCH, wrapped, b"")
    with pytest.raises(EpochDestroyed):
        await keys.create_epoch(EPOCH)
    assert await keys.epochs() == ()
    assert await count(keys, Attribute.LABEL, PREFIX + str(EPOCH)) == 0


async def test_a_process_killed_before_it_told_the_others_has_its_entry_told_by_who_repeats_it(hsm, keys):
    await keys.fence("earlier")
    assert await count(keys, Attribute.LABEL, OPEN) == 1
    assert not await keys.is_fenced(HANDLE)
    program = f"""
keys_pkcs11._Token._retire = die
asyncio.run(keys.fence({HANDLE!r}))
"""
    assert elsewhere(hsm, program) == -9
    assert await count(keys, Attribute.LABEL, OPEN) == 2
    await keys.fence(HANDLE)
    assert await keys.is_fenced(HANDLE)
    assert await keys.is_fenced("earlier")


async def test_entries_of_many_processes_are_all_kept(hsm, keys):
    program = """
from gateway.errors import KeyServiceUnavailable

async def main():
    for number in range(15):
        while True:
            try:
                await keys.fence(f"{sys.argv[5]}-{number}")
                break
            except KeyServiceUnavailable:
                pass  # SoftHSM stumbles over the other's writes: whoever is refused asks again
asyncio.run(main())
"""
    both = await asyncio.gather(*(begin(hsm, program, name) for name in ("one", "two")))
    ended = asyncio.gather(*(child.wait() for child in both))
    while not ended.done():
        with contextlib.suppress(KeyServiceUnavailable):
            await keys.is_fenced(HANDLE)
    assert ended.result() == [0, 0]
    assert all([await keys.is_fenced(f"{name}-{number}") for name in ("one", "two") for number in range(15)])
    # In a process that has seen none of it, too.
    await keys.close()
    keys._token.entries.clear()
    assert all([await keys.is_fenced(f"{name}-{number}") for name in ("one", "two") for number in range(15)])


async def test_a_full_register_object_is_followed_by_another(keys, monkeypatch):
    monkeypatch.setattr(keys_pkcs11, "SEGMENT_BYTES", 4 * keys_pkcs11.ENTRY_BYTES)
    for number in range(9):
        await keys.fence(str(number))
    assert [await count(keys, Attribute.LABEL, label) for label in (FULL, OPEN)] == [2, 1]
    assert all([await keys.is_fenced(str(number)) for number in range(9)])
    assert not await keys.is_fenced("9")


async def test_a_key_destroyed_in_the_token_by_someone_else_is_destroyed(hsm, keys):
    await keys.create_epoch(EPOCH)
    wrapped = await keys.wrap(EPOCH, KEY, b"")
    program = """
from pkcs11 import Attribute, ObjectClass
def wipe():
    label = keys_pkcs11.EPOCH + str(epoch)
    for key in keys._token._find(ObjectClass.SECRET_KEY, Attribute.LABEL, label):
        key.destroy()
asyncio.run(keys._ask(wipe))
"""
    assert elsewhere(hsm, program) == 0
    with pytest.raises(EpochDestroyed):
        await keys.unwrap(EPOCH, wrapped, b"")
    assert await keys.epochs() == ()
    # Nobody destroyed the epoch through us: a new key may take its place, and opens nothing of the old.
    await keys.create_epoch(EPOCH)
    with pytest.raises(UnwrapFailed):
        await keys.unwrap(EPOCH, wrapped, b"")


async def test_the_token_holds_no_handle_and_no_name_in_the_register(keys):
    await keys.fence(HANDLE)
    await keys.destroy_epoch(Epoch("acme", "content", "open", 7))

    def contents() -> bytes:
        return b"".join(
            bytes(held[Attribute.VALUE])
            for held in keys._token._find(ObjectClass.DATA, Attribute.LABEL, OPEN)
        )

    found = await look(keys, contents)
    assert len(found) == 2 * keys_pkcs11.ENTRY_BYTES  # type: ignore[arg-type]
    assert HANDLE.encode() not in found  # type: ignore[operator]


# --- the thread ----------------------------------------------------------------------------------


async def test_work_that_hangs_holds_nobody_longer_than_the_deadline():
    thread, gate = OneThread("test", 0.05), threading.Event()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await thread.ask(gate.wait)
    assert thread.is_stuck
    gate.set()
    await until(lambda: not thread.is_stuck)
    assert await thread.ask(lambda: 42) == 42


async def test_a_module_that_hangs_is_no_answer(keys, monkeypatch):
    gate = threading.Event()
    keys._thread.deadline_s = 0.2
    monkeypatch.setattr(keys_pkcs11, "read_secret", lambda *_: gate.wait() and ("", ()))
    assert await detail_of(keys) == "timeout"
    assert await detail_of(keys) == "timeout"
    gate.set()


async def test_work_that_had_not_begun_in_time_is_never_done():
    thread, gate, done = OneThread("test", 0.05), threading.Event(), []
    first = asyncio.create_task(thread.ask(gate.wait))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await thread.ask(lambda: done.append(1))
    gate.set()
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: not thread.is_stuck)
    await thread.ask(lambda: None)
    assert done == []


async def test_everything_runs_in_one_thread():
    thread = OneThread("test", 5.0)
    names = await asyncio.gather(*(thread.ask(threading.get_ident) for _ in range(8)))
    assert len(set(names)) == 1
    assert names[0] != threading.get_ident()
