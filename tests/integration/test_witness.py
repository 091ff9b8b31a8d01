"""A witness as a process of its own, and a log that is published only with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from audit import checkpoint, note, tree
from audit.cosign import verify
from audit.note import Signer, Verifier
from audit.quorum import Policy
from gateway.adapters.witness_http import HttpWitness
from gateway.errors import AuditUnavailable
from gateway.flows.publish import Publish
from gateway.ports.records import Checkpoint
from gateway.ports.witness import WitnessConflict, WitnessRefused, WitnessUnavailable
from tests.world import ORIGIN, World

NAME = "witness.test/w"
SIGNER = Signer(ORIGIN, bytes(range(32)))
PATIENCE_S = 20
LEAVES = [tree.hash_leaf(bytes([number])) for number in range(9)]


async def lethe(*arguments: object) -> str:
    """Run the command to its end and return what it printed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.main", *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    assert child.returncode == 0
    return out.decode()


@contextlib.asynccontextmanager
async def running(folder: Path, log: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the witness of a folder and yield its address and process."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.main", "audit", "witness", "--dir", str(folder)),
        *("--log", str(log), "--listen", "127.0.0.1:0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = (await child.stdout.readline()).decode().split()
        yield f"http://{said[1]}", child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


@pytest.fixture
async def keys(tmp_path: Path) -> list[str]:
    """A witness's folder and the log's trust file; returns the witness's vkeys."""
    (tmp_path / "trust.txt").write_text(SIGNER.vkey() + "\n")
    return (await lethe("audit", "witness", "--dir", tmp_path / "w", "--init", NAME)).split()


def root(size: int, leaves: list[bytes] = LEAVES) -> bytes:
    return tree.root_of_leaves(leaves[:size])


def head(size: int, leaves: list[bytes] = LEAVES) -> str:
    return checkpoint.sign(ORIGIN, size, root(size, leaves), SIGNER)


def growth(first: int, second: int) -> list[bytes]:
    def read(level: int, index: int) -> bytes:
        return tree.root_of_leaves(LEAVES[index << level : (index + 1) << level])

    return tree.consistency_proof(first, second, read)


async def test_a_witness_cosigns_what_grows_and_never_two_histories(tmp_path: Path, keys: list[str]) -> None:
    forked = [*LEAVES[:3], *reversed(LEAVES[3:])]
    async with running(tmp_path / "w", tmp_path / "trust.txt") as (url, _):
        witness = HttpWitness(url, keys[0], timeout_s=PATIENCE_S)
        lines = await witness.add_checkpoint(0, (), head(3))
        assert verify(note.add_signatures(head(3), lines), Verifier.parse(keys[0])) > 0
        assert await witness.add_checkpoint(3, (), head(3))  # a reply that was lost
        assert await witness.add_checkpoint(3, growth(3, 7), head(7))
        with pytest.raises(WitnessConflict) as conflict:
            await witness.add_checkpoint(3, growth(3, 9), head(9))
        assert conflict.value.size == 7
        with pytest.raises((WitnessConflict, WitnessRefused)):
            await witness.add_checkpoint(7, growth(7, 9), head(9, forked))
        with pytest.raises((WitnessConflict, WitnessRefused)):
            await witness.add_checkpoint(7, (), head(7, forked))
        with pytest.raises(WitnessRefused) as refused:
            await witness.add_checkpoint(
                0, (), checkpoint.sign("other.test/x", 1, root(1), Signer("other.test/x", bytes(32)))
            )
        assert refused.value.code == "witness_origin_unknown"
        stranger = checkpoint.sign(ORIGIN, 9, root(9), Signer(ORIGIN, bytes(32)))
        with pytest.raises(WitnessRefused):
            await witness.add_checkpoint(7, growth(7, 9), stranger)
        assert await witness.add_checkpoint(7, growth(7, 9), head(9))
        await witness.close()


async def test_a_killed_witness_remembers_what_it_cosigned(tmp_path: Path, keys: list[str]) -> None:
    for size in (2, 5, 8):
        async with running(tmp_path / "w", tmp_path / "trust.txt") as (url, child):
            witness = HttpWitness(url, keys[0], timeout_s=PATIENCE_S)
            if size > 2:
                with pytest.raises(WitnessConflict) as conflict:
                    await witness.add_checkpoint(0, (), head(1))
                assert conflict.value.size == size - 3
            old = size - 3 if size > 2 else 0
            assert await witness.add_checkpoint(old, growth(old, size) if old else (), head(size))
            child.send_signal(signal.SIGKILL)
            await child.wait()
            with pytest.raises(WitnessUnavailable):
                await witness.add_checkpoint(size, (), head(size))
            await witness.close()


async def test_one_folder_is_one_witness(tmp_path: Path, keys: list[str]) -> None:
    async with running(tmp_path / "w", tmp_path / "trust.txt"):
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.main", "audit", "witness", "--dir", str(tmp_path / "w")),
            *("--log", str(tmp_path / "trust.txt"), "--listen", "127.0.0.1:0"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await second.communicate()
        assert second.returncode == 1
        assert b"witness_" in said


@pytest.mark.parametrize(
    "body",
    [b"", b"old 0\n", b"old -1\n\nx\n1\ny\n\n", b"old 0\n" + b"A" * 40_000, os.urandom(300)],
    ids=["nothing", "half", "negative", "large", "noise"],
)
async def test_what_is_no_request_is_refused_and_the_witness_goes_on(
    tmp_path: Path, keys: list[str], body: bytes
) -> None:
    async with running(tmp_path / "w", tmp_path / "trust.txt") as (url, _):
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{url}/add-checkpoint", content=body)
            assert 400 <= answer.status_code < 500
            assert (await client.get(f"{url}/add-checkpoint")).status_code in {404, 405}
        witness = HttpWitness(url, keys[0], timeout_s=PATIENCE_S)
        assert await witness.add_checkpoint(0, (), head(1))
        await witness.close()


async def test_a_hung_witness_is_given_up(tmp_path: Path, keys: list[str]) -> None:
    held = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    witness = HttpWitness(f"http://127.0.0.1:{port}", keys[0], timeout_s=0.2)
    with pytest.raises(WitnessUnavailable) as unavailable:
        await witness.add_checkpoint(0, (), head(1))
    assert unavailable.value.code == "witness_timeout"
    held.set()
    server.close()
    await witness.close()


async def test_a_lying_witness_is_not_believed(tmp_path: Path, keys: list[str]) -> None:
    """It answers with the cosignature of another checkpoint."""
    async with running(tmp_path / "w", tmp_path / "trust.txt") as (url, _):
        witness = HttpWitness(url, keys[0], timeout_s=PATIENCE_S)
        (line,) = await witness.add_checkpoint(0, (), head(1))
        await witness.close()

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        body = f"{line}\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(lie, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    liar = HttpWitness(f"http://127.0.0.1:{port}", keys[0], timeout_s=PATIENCE_S)
    with pytest.raises(WitnessRefused) as refused:
        await liar.add_checkpoint(0, (), head(2))
    assert refused.value.code == "witness_lied"
    server.close()
    await liar.close()


async def test_a_fork_after_a_restored_database_is_refused_by_the_witness(
    tmp_path: Path, keys: list[str]
) -> None:
    """Even where the lock was restored together with it."""
    w = World()
    w.signers = {ORIGIN: (SIGNER,), **{k: v for k, v in w.signers.items() if k != ORIGIN}}
    w.flows = w.process()
    await w.ready("ann")
    await w.flows.sequence.run()
    policy = Policy.parse(f"log {SIGNER.vkey()}\nwitness w {keys[0]}\nquorum w\n")
    async with running(tmp_path / "w", tmp_path / "trust.txt") as (url, _):
        witness = HttpWitness(url, keys[0], timeout_s=PATIENCE_S)
        publish = Publish(w.records, w.clock, w.flows.ledger, {ORIGIN: policy}, (witness,))
        assert await publish.run() == 1
        backup = dict(w.records._tables), dict(w.lock.notes)
        await w.know("bob")
        await w.flows.sequence.run()
        assert await publish.run() == 1
        witnessed = max(row.size for row in w.records.all(Checkpoint) if row.log == ORIGIN)

        w.records._tables, w.lock.notes = backup
        await w.know("carl")
        await w.flows.sequence.run()
        with pytest.raises(AuditUnavailable):
            await publish.run()
        await w.know("dora")
        await w.know("eve")
        await w.flows.sequence.run()
        with pytest.raises(AuditUnavailable):
            await publish.run()
        assert max(row.size for row in w.records.all(Checkpoint) if row.log == ORIGIN) < witnessed
        await witness.close()
    assert {event["why"] for event in w.events("log.disputed")} <= {"ahead", "root", "proof"}
    assert w.events("log.disputed")
