"""The witness's server under bad manners, and the door to a witness that answers anything."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit import checkpoint, tree, witness
from audit.cosign import Cosigner
from audit.errors import NoteInvalid
from audit.keys import KeyBook
from audit.note import Signer
from audit.witness import Request
from gateway.adapters import witness_server
from gateway.adapters.witness_folder import WitnessFolderInvalid, create, open_folder
from gateway.adapters.witness_http import HttpWitness
from gateway.adapters.witness_server import Limits, Server, Witness
from gateway.admin.pki import Authority
from gateway.errors import AuditUnavailable
from gateway.ports.witness import WitnessConflict, WitnessRefused, WitnessUnavailable
from tests.fakes.clock import FrozenClock
from tests.fakes.lock import FakeLock

ORIGIN = "log.example/7f3a"
SIGNER = Signer(ORIGIN, bytes(range(32)))
COSIGNER = Cosigner("witness.example/w1", bytes(range(32, 64)), "ed25519")
VKEY = COSIGNER.vkey()
PATIENCE_S = 20.0
LEAF = tree.hash_leaf(b"")


def head(size: int) -> str:
    return checkpoint.sign(ORIGIN, size, tree.root_of_leaves([LEAF] * size), SIGNER)


CLOSE = "connection: close\r\n"
BODY = Request(0, (), head(1)).write()


def post(body: bytes = BODY, *, length: int | None = None, more: str = "") -> bytes:
    size = len(body) if length is None else length
    return f"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ncontent-length: {size}\r\n{more}\r\n".encode() + body


@contextlib.asynccontextmanager
async def serving(
    state: FakeLock | None = None, limits: Limits | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, Server]]:
    """Run a witness in this process, and yield its port."""
    being = Witness((COSIGNER,), {ORIGIN: KeyBook.of([SIGNER.verifier])}, state or FakeLock(), FrozenClock())
    server = Server(being, limits or Limits())
    address = await server.start("127.0.0.1", 0, tls)
    try:
        yield int(address.rpartition(":")[2]), server
    finally:
        await server.stop()


async def said(port: int, *parts: bytes, until_end: bool = True) -> bytes:
    """Send the parts and return all that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for part in parts:
                writer.write(part)
                await writer.drain()
            if until_end:
                return await reader.read(-1)
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


# --- the server ----------------------------------------------------------------------------------


async def test_requests_of_one_connection_are_answered_in_order():
    """c2sp.org/tlog-witness: witnesses SHOULD support keep-alive connections."""
    async with serving() as (port, _):
        answer = await said(port, post() + post(Request(1, (), head(1)).write(), more=CLOSE))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.count("\u2014 witness.example/w1 ".encode()) == 2


async def test_who_waits_to_be_told_to_go_on_is_told():
    async with serving() as (port, _):
        answer = await said(
            port, post(b"", length=len(BODY), more="expect: 100-continue\r\n"), until_end=False
        )
    assert answer.startswith(b"HTTP/1.1 100")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /add-checkpoint HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n", b"405"),
        (post(more=CLOSE).replace(b"/add-checkpoint", b"/"), b"404"),
        (post(more=CLOSE).replace(b"/add-checkpoint", b"/add-checkpoint?x"), b"404"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /add-checkpoint HTTP/1.1\r\n\r\n", b"400"),
        (post(b"x", more="content-length: 2\r\n"), b"400"),
        (b"GET / HTTP/1.1\r\nhost: w\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
        (post(b"", length=1 << 40) + b"x" * 40_000, b"413"),
    ],
    ids=["get", "elsewhere", "query", "noise", "no host", "two lengths", "large head", "large body"],
)
async def test_what_is_no_request_is_refused_with_its_reason(request_: bytes, status: bytes):
    async with serving(limits=Limits(request_s=1)) as (port, _):
        answer = await said(port, request_)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (await said(port, post(more=CLOSE))).startswith(b"HTTP/1.1 200")


async def test_a_body_in_chunks_without_end_is_cut_off():
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    start = b"POST /add-checkpoint HTTP/1.1\r\nhost: w\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serving(limits=Limits(request_s=1)) as (port, _):
        assert (await said(port, start, chunk, chunk)).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "start",
    [b"", b"POST /add", post(b"", length=len(BODY)), post(BODY[:9], length=len(BODY))],
    ids=["nothing", "half a line", "no body", "half a body"],
)
async def test_who_does_not_go_on_is_hung_up_on(start: bytes):
    async with serving(limits=Limits(request_s=0.1, idle_s=0.1)) as (port, _):
        assert await said(port, start) == b""
        assert (await said(port, post(more=CLOSE))).startswith(b"HTTP/1.1 200")


async def test_no_more_connections_are_held_than_allowed():
    async with serving(limits=Limits(connections=1)) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST ")
        await writer.drain()
        with contextlib.suppress(ConnectionError):
            assert await said(port, post()) == b""
        writer.write(post(more=CLOSE).removeprefix(b"POST "))
        assert (await reader.read(-1)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_idle_connection_does_not_hold_up_the_end():
    async with serving() as (port, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post())
        await reader.readuntil(b"==\n")
        async with asyncio.timeout(2):
            await server.stop()
        assert await reader.read(-1) == b""
        writer.close()


class SlowLock(FakeLock):
    """A lock whose swaps wait."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def swap(self, origin: str, old: str | None, new: str) -> bool:
        self.begun.set()
        await self.go.wait()
        return await super().swap(origin, old, new)


async def test_a_cosignature_waits_for_the_disk_and_the_end_waits_for_both():
    """c2sp.org/tlog-witness: the witness MUST persist the new checkpoint before responding."""
    state = SlowLock()
    async with serving(state, Limits(request_s=0.1)) as (port, server):
        asking = asyncio.create_task(said(port, post()))
        await state.begun.wait()
        ending = asyncio.create_task(server.stop())
        # Longer than a request may take to arrive.
        done, _ = await asyncio.wait({asking, ending}, timeout=0.3)
        assert done == set()
        state.go.set()
        answer = await asking
        await ending
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert state.notes == {ORIGIN: head(1)}


async def test_requests_that_come_at_once_never_roll_back():
    """c2sp.org/tlog-witness: the race of two requests from one old size."""
    state = FakeLock()
    async with serving(state) as (port, _):
        bodies = [Request(0, (), head(size)).write() for size in range(1, 9)]
        answers = await asyncio.gather(*(said(port, post(body, more=CLOSE)) for body in bodies))
    accepted = [place for place, answer in enumerate(answers) if answer.startswith(b"HTTP/1.1 200")]
    assert len(accepted) == 1
    assert state.notes == {ORIGIN: head(accepted[0] + 1)}
    assert sum(answer.startswith(b"HTTP/1.1 409") for answer in answers) == 7


@pytest.mark.parametrize("how", ["lose", "lose_reply"])
async def test_no_cosignature_leaves_when_the_state_fails(how: str):
    """And the process is told to end: what the disk holds is read anew (rule R4)."""
    state, broken = FakeLock(), []
    getattr(state.faults, how)("swap")
    async with serving(state) as (port, server):
        server.witness.on_broken = lambda: broken.append(True)
        answer = await said(port, post(more=CLOSE))
    assert answer.startswith(b"HTTP/1.1 503")
    assert "\u2014".encode() not in answer
    assert broken == [True]


async def test_state_that_is_damaged_is_not_begun_anew():
    state, broken = FakeLock(), []
    state.notes[ORIGIN] = f"{ORIGIN}\nlots\n"
    async with serving(state) as (port, server):
        server.witness.on_broken = lambda: broken.append(True)
        answer = await said(port, post(more=CLOSE))
    assert answer.startswith(b"HTTP/1.1 503")
    assert broken == [True]
    assert state.notes[ORIGIN] == f"{ORIGIN}\nlots\n"


async def test_the_log_knows_no_callers(capsys):
    async with serving() as (port, _):
        await said(port, post(more=f"{CLOSE}user-agent: Erika\r\nx-forwarded-for: 192.0.2.7\r\n"))
        stranger = checkpoint.sign("Erika", 1, LEAF, Signer("Erika", bytes(32)))
        await said(port, post(Request(0, (), stranger).write(), more=CLOSE))
    written = "".join(capsys.readouterr())
    assert "checkpoint_cosigned" in written
    assert "checkpoint_refused" in written
    assert not [word for word in ("Erika", "192.0.2.7", "127.0.0.1") if word in written]


# --- killed --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(folder: Path, trust: Path, deadly: str = "") -> AsyncIterator[tuple[HttpWitness, Process]]:
    """Run the witness of a folder as a process that kills itself where it comes to `deadly`."""
    program = f"""
import os, signal, sys
from pathlib import Path
from audit.cosign import Cosigner
from gateway.adapters import lock_file, witness_server
def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)
real_fsync = os.fsync
{deadly}
sys.exit(witness_server.run(directory=Path({str(folder)!r}), listen=("127.0.0.1", 0),
    logs=[Path({str(trust)!r})], cert=None, key=None))
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            address = (await child.stdout.readline()).decode().split()[1]
        vkey = (folder / "vkeys").read_text().split()[0]
        door = HttpWitness(f"http://{address}", vkey, timeout_s=PATIENCE_S)
        yield door, child
        await door.close()
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


@pytest.mark.parametrize(
    ("deadly", "kept"),
    [
        ("lock_file.FileLock._swap = die", 0),
        ("lock_file._write_all = die", 0),
        ("os.fsync = die", 0),
        ("os.rename = die", 0),
        ("lock_file.FileLock._sync = lambda lock, fd: die() if fd == lock._folder else real_fsync(fd)", 1),
        ("Cosigner.cosign = die", 1),
        ("witness_server._Wire.reply = die", 1),
    ],
    ids=["before", "write", "sync", "rename", "sync of the name", "cosigning", "reply"],
)
async def test_a_witness_killed_anywhere_has_cosigned_nothing_that_it_does_not_know(
    tmp_path: Path, folder: Path, deadly: str, kept: int
):
    trust = tmp_path / "trust"
    trust.write_text(SIGNER.vkey())
    async with running(folder, trust, deadly) as (door, child):
        with pytest.raises(WitnessUnavailable):
            await door.add_checkpoint(0, (), head(1))
        assert await child.wait() == -signal.SIGKILL
    async with running(folder, trust) as (door, child):
        if kept:
            with pytest.raises(WitnessConflict) as conflict:
                await door.add_checkpoint(0, (), head(2))
            assert conflict.value.size == kept
        assert len(await door.add_checkpoint(kept, (), head(1))) == 1
        child.terminate()
        assert await child.wait() == 0


# --- the folder ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "w", "witness.example/w1")
    return tmp_path / "w"


def test_a_folder_opens_with_the_keys_that_it_told(folder: Path):
    held = open_folder(folder)
    assert [cosigner.vkey() for cosigner in held.cosigners] == (folder / "vkeys").read_text().split()
    assert held.name == "witness.example/w1"
    held.close()
    open_folder(folder).close()


def test_a_folder_is_held_by_one(folder: Path):
    held = open_folder(folder)
    with pytest.raises(WitnessFolderInvalid) as refused:
        open_folder(folder)
    assert refused.value.code == "witness_running"
    held.close()


def _other_seed(folder: Path) -> None:
    (folder / "ed25519.seed").write_text(bytes(32).hex())


SPOILS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no vkeys": (lambda folder: (folder / "vkeys").unlink(), "witness_folder_missing"),
    "no seed": (lambda folder: (folder / "ml-dsa-44.seed").unlink(), "witness_key_unreadable"),
    "open seed": (lambda folder: (folder / "ed25519.seed").chmod(0o644), "witness_key_unreadable"),
    "cut seed": (lambda folder: (folder / "ed25519.seed").write_text("00"), "witness_key_unreadable"),
    "other seed": (_other_seed, "witness_key_changed"),
    "open folder": (lambda folder: folder.chmod(0o750), "witness_folder_open"),
}


@pytest.mark.parametrize("how", SPOILS)
def test_a_folder_that_is_not_whole_is_refused(folder: Path, how: str):
    spoil, code = SPOILS[how]
    spoil(folder)
    with pytest.raises(WitnessFolderInvalid) as refused:
        open_folder(folder)
    assert refused.value.code == code


def test_state_that_is_lost_is_not_made_anew(folder: Path):
    """A witness that has forgotten would cosign a fork."""
    (folder / "state" / "lock").unlink()
    with pytest.raises(AuditUnavailable) as refused:
        open_folder(folder)
    assert refused.value.detail == "lock_missing"


def test_a_witness_is_not_made_over_another(folder: Path):
    with pytest.raises(WitnessFolderInvalid) as refused:
        create(folder, "witness.example/w2")
    assert refused.value.code == "witness_folder_not_empty"


@pytest.mark.parametrize("name", ["", "a b", "a+b", "x" * 256])
def test_a_name_that_names_no_key_is_refused(tmp_path: Path, name: str):
    with pytest.raises(WitnessFolderInvalid) as refused:
        create(tmp_path / "w", name)
    assert refused.value.code == "witness_name"
    assert not (tmp_path / "w").exists()


# --- the door ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(
    *parts: bytes, pause_s: float = 0.0, timeout_s: float = 5.0
) -> AsyncIterator[HttpWitness]:
    """Yield the door to somebody who answers every request with these bytes."""

    tasks = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    door = HttpWitness(f"http://127.0.0.1:{port}/", VKEY, timeout_s=timeout_s)
    try:
        yield door
    finally:
        await door.close()
        server.close()
        await asyncio.gather(*tasks)


def reply(status: str, body: bytes = b"", kind: str = "text/plain") -> bytes:
    head = f"HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("400", "witness_bad_request"),
        ("403", "witness_key_unknown"),
        ("404", "witness_origin_unknown"),
        ("422", "witness_proof_refused"),
        ("418", "witness_status"),
        ("204", "witness_status"),
        ("302", "witness_status"),
    ],
)
async def test_a_witness_that_refuses_says_why(status: str, code: str):
    async with answering(reply(status)) as door:
        with pytest.raises(WitnessRefused) as refused:
            await door.add_checkpoint(0, (), head(1))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("429", "witness_busy"),
        ("503", "witness_busy"),
        ("500", "witness_unavailable"),
        ("502", "witness_unavailable"),
    ],
)
async def test_a_witness_that_cannot_now_may_be_asked_again(status: str, code: str):
    async with answering(reply(status)) as door:
        with pytest.raises(WitnessUnavailable) as unavailable:
            await door.add_checkpoint(0, (), head(1))
    assert unavailable.value.code == code


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"],
    ids=["nothing", "noise", "half"],
)
async def test_what_is_no_answer_is_none(answer: bytes):
    async with answering(answer) as door:
        with pytest.raises(WitnessUnavailable):
            await door.add_checkpoint(0, (), head(1))


async def test_an_answer_that_trickles_is_given_up():
    """The time is that of the whole call, not of each byte."""
    async with answering(b"HTTP/1.1 200 OK\r\n", *[b"x"] * 20, pause_s=0.05, timeout_s=0.4) as door:
        with pytest.raises(WitnessUnavailable) as unavailable:
            await door.add_checkpoint(0, (), head(1))
    assert unavailable.value.code == "witness_timeout"


async def test_an_answer_without_end_is_given_up():
    endless = [b"10000\r\n" + b"x" * 0x10000 + b"\r\n"] * 50
    async with answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *endless) as door:
        with pytest.raises(WitnessRefused) as refused:
            await door.add_checkpoint(0, (), head(1))
    assert refused.value.code == "witness_response_too_large"


@pytest.mark.parametrize("size", [0, 2, 9, 1 << 40])
async def test_a_conflict_names_the_size_that_the_witness_knows(size: int):
    async with answering(reply("409", witness.write_size(size), witness.SIZE_TYPE)) as door:
        with pytest.raises(WitnessConflict) as conflict:
            await door.add_checkpoint(1, (LEAF,), head(3))
    assert conflict.value.size == size


@pytest.mark.parametrize("answer", [reply("409"), reply("409", b"3\n", witness.SIZE_TYPE)])
async def test_a_conflict_of_the_same_size_is_one_of_roots(answer: bytes):
    """c2sp.org/tlog-witness asks for no body there."""
    async with answering(answer) as door:
        with pytest.raises(WitnessConflict) as conflict:
            await door.add_checkpoint(3, (), head(3))
    assert conflict.value.size == 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply("409"), "witness_status"),
        (reply("409", b"9\n"), "witness_status"),
        (reply("409", b"nine\n", witness.SIZE_TYPE), "witness_lied"),
        (reply("409", b"1\n", witness.SIZE_TYPE), "witness_lied"),
    ],
    ids=["no size", "other type", "no number", "the size asked from"],
)
async def test_a_conflict_that_is_none_is_no_fork(answer: bytes, code: str):
    async with answering(answer) as door:
        with pytest.raises(WitnessRefused) as refused:
            await door.add_checkpoint(1, (LEAF,), head(3))
    assert refused.value.code == code


async def test_the_same_lie_in_another_encoding_is_still_one():
    line = COSIGNER.cosign(head(2), int(datetime.now(UTC).timestamp()))
    async with answering(reply("200", witness.write_lines([line]))) as door:
        with pytest.raises(WitnessRefused) as refused:
            await door.add_checkpoint(0, (), head(1))
    assert refused.value.code == "witness_lied"


@pytest.mark.parametrize(
    ("proof", "code"), [((LEAF,) * 64, "witness_proof_too_long"), ((b"x",), "witness_proof_hash_length")]
)
async def test_what_no_witness_takes_is_not_sent(proof: tuple[bytes, ...], code: str):
    door = HttpWitness("http://127.0.0.1:1", VKEY)
    with pytest.raises(WitnessRefused) as refused:
        await door.add_checkpoint(1, proof, head(3))
    assert refused.value.code == code
    await door.close()


async def test_a_witness_that_is_not_there_is_unavailable():
    door = HttpWitness("http://127.0.0.1:1", VKEY)
    with pytest.raises(WitnessUnavailable):
        await door.add_checkpoint(0, (), head(1))
    await door.close()


def test_a_key_that_does_not_cosign_is_no_witness():
    with pytest.raises(NoteInvalid):
        HttpWitness("http://127.0.0.1:1", SIGNER.vkey())


@pytest.mark.parametrize("url", ["ftp://w", "w", "http://", "unix:/w"])
def test_a_url_that_leads_nowhere_is_refused(url: str):
    with pytest.raises(ValueError, match="URL"):
        HttpWitness(url, VKEY)


async def test_over_tls_only_the_named_authority_counts(tmp_path: Path):
    own, other = (Authority.create(name, datetime.now(UTC)) for name in ("own", "other"))
    chain, key = own.issue("spiffe://test/witness", datetime.now(UTC), hosts=("127.0.0.1",))
    for name, content in (("w.pem", chain), ("w.key", key), ("own", own.pem()), ("other", other.pem())):
        (tmp_path / name).write_bytes(content)
    tls = witness_server.read_tls(tmp_path / "w.pem", tmp_path / "w.key")
    async with serving(tls=tls) as (port, _):
        for ca, is_believed in (("own", True), ("other", False), (None, False)):
            door = HttpWitness(f"https://127.0.0.1:{port}", VKEY, ca=tmp_path / ca if ca else None)
            if is_believed:
                assert len(await door.add_checkpoint(0, (), head(1))) == 1
            else:
                with pytest.raises(WitnessUnavailable):
                    await door.add_checkpoint(0, (), head(1))
            await door.close()
