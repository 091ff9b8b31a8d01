"""Timestamps of a real authority, made with `openssl ts`, over checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from audit.verify import verify_export
from gateway import compose
from gateway.adapters.log_folder import LogFolder
from gateway.adapters.timestamp import HttpTimestamps, read_roots, verify
from gateway.flows.audit import Wish
from gateway.flows.stamp import Stamp
from gateway.ports.timestamp import TimestampInvalid, TimestampUnavailable
from gateway.settings import ConfigInvalid, TimestampsSection
from tests.ground import open_ground
from tests.needs import missing, needs
from tests.world import OFFICER, ORIGIN, TENANT

NOTE = "log.example/7f3a\n1\nroot\n\n\u2014 log.example/7f3a c2ln\n"
CONFIG = """
[tsa]
default_tsa = it
[it]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha512
accuracy = secs:1
ess_cert_id_alg = sha256
[req]
distinguished_name = none
[none]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[leaf]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = critical, timeStamping
"""

Authority = Callable[[bytes], bytes]


def openssl(*arguments: object) -> None:
    subprocess.run([needs("openssl", "openssl"), *map(str, arguments)], check=True, capture_output=True)


def make_authority(folder: Path) -> Path:
    """Make an authority in a folder: its root in root.pem, its configuration in tsa.cnf."""
    folder.mkdir()
    config = folder / "tsa.cnf"
    config.write_text(CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    new = ("-config", config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2")
    root = (folder / "root.key", folder / "root.pem")
    openssl(
        "req", "-x509", *new, "-subj", "/CN=root", "-extensions", "root", "-keyout", root[0], "-out", root[1]
    )
    signed = ("-CA", root[1], "-CAkey", root[0], "-extensions", "leaf")
    leaf = ("-keyout", folder / "tsa.key", "-out", folder / "tsa.pem")
    openssl("req", "-x509", *new, "-subj", "/CN=tsa", *signed, *leaf)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tsa") / "own")


@pytest.fixture(autouse=True)
def _extra() -> None:
    try:
        import rfc3161_client  # noqa: F401 - only whether it is there
    except ImportError:
        missing("rfc3161-client", "pip install lethe[timestamp]")


def stamped(folder: Path, query: bytes) -> bytes:
    """Return what the authority of the folder answers."""
    (folder / "query").write_bytes(query)
    openssl(
        "ts",
        "-reply",
        "-config",
        folder / "tsa.cnf",
        "-queryfile",
        folder / "query",
        "-out",
        folder / "answer",
    )
    return (folder / "answer").read_bytes()


@contextlib.asynccontextmanager
async def authority(folder: Path, answer: Authority, status: str = "200 OK") -> AsyncIterator[HttpTimestamps]:
    """Yield the door to an authority that answers with `answer` of the query."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert "content-type: application/timestamp-query" in head
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            body = answer(await reader.readexactly(length))
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    door = HttpTimestamps(f"http://127.0.0.1:{port}", (folder / "root.pem").read_bytes(), timeout_s=5)
    try:
        yield door
    finally:
        await door.close()
        server.close()


async def test_a_checkpoint_is_stamped_and_others_can_tell_when(folder: Path, tmp_path: Path):
    async with authority(folder, lambda query: stamped(folder, query)) as door:
        token = await door.stamp(NOTE)
    at = verify(token, NOTE, (folder / "root.pem").read_bytes())
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    (tmp_path / "note").write_text(NOTE, "utf-8")
    (tmp_path / "token").write_bytes(token)
    openssl(
        *("ts", "-verify", "-data", tmp_path / "note", "-in", tmp_path / "token"),
        *("-CAfile", folder / "root.pem"),
    )


async def test_a_token_is_of_one_note_and_one_authority(folder: Path, tmp_path: Path):
    async with authority(folder, lambda query: stamped(folder, query)) as door:
        token = await door.stamp(NOTE)
    other = make_authority(tmp_path / "other")
    for note, roots in ((NOTE + "x", folder), (NOTE, other)):
        with pytest.raises(TimestampInvalid) as refused:
            verify(token, note, (roots / "root.pem").read_bytes())
        assert refused.value.code == "timestamp_false"


async def test_no_byte_of_a_token_can_be_changed_unnoticed(folder: Path):
    """But for the words around it, which nobody signed: what a changed one still says is the same."""
    roots = (folder / "root.pem").read_bytes()
    async with authority(folder, lambda query: stamped(folder, query)) as door:
        token = await door.stamp(NOTE)
    at = verify(token, NOTE, roots)
    for place in range(0, len(token), 7):
        changed = token[:place] + bytes([token[place] ^ 1]) + token[place + 1 :]
        with contextlib.suppress(TimestampInvalid):
            assert verify(changed, NOTE, roots) == at


async def test_an_old_answer_is_no_answer(folder: Path):
    """The nonce is that of the request."""
    kept: list[bytes] = []

    def replayed(query: bytes) -> bytes:
        kept.append(kept[0] if kept else stamped(folder, query))
        return kept[-1]

    async with authority(folder, replayed) as door:
        await door.stamp(NOTE)
        with pytest.raises(TimestampInvalid) as refused:
            await door.stamp(NOTE)
    assert refused.value.code == "timestamp_false"


async def test_a_refusal_of_the_authority_is_one(folder: Path):
    async with authority(folder, lambda _query: stamped(folder, b"noise")) as door:
        with pytest.raises(TimestampInvalid) as refused:
            await door.stamp(NOTE)
    assert refused.value.code == "timestamp_refused"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", "200 OK", "timestamp_malformed"),
        (b"<html>", "200 OK", "timestamp_malformed"),
        (b"x" * 70_000, "200 OK", "timestamp_too_large"),
        (b"", "404 Not Found", "timestamp_refused"),
    ],
)
async def test_what_is_no_token_is_refused(folder: Path, body: bytes, status: str, code: str):
    async with authority(folder, lambda _query: body, status) as door:
        with pytest.raises(TimestampInvalid) as refused:
            await door.stamp(NOTE)
    assert refused.value.code == code


async def test_an_authority_that_is_away_is_unavailable(folder: Path):
    async with authority(folder, lambda _query: b"", "503 Busy") as door:
        with pytest.raises(TimestampUnavailable):
            await door.stamp(NOTE)
    door = HttpTimestamps("http://127.0.0.1:1", (folder / "root.pem").read_bytes())
    with pytest.raises(TimestampUnavailable):
        await door.stamp(NOTE)
    await door.close()


BAD_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("pem", [b"", b"noise", BAD_CERTIFICATE], ids=["nothing", "noise", "damaged"])
def test_roots_that_are_none_are_refused(pem: bytes):
    with pytest.raises(TimestampInvalid) as refused:
        read_roots(pem)
    assert refused.value.code == "timestamp_roots"


async def test_a_gateway_stamps_what_it_publishes_and_openssl_agrees(folder: Path, tmp_path: Path):
    """The way through: published, stamped, kept, shown, exported, and verified by two programs."""
    async with (
        open_ground(tmp_path, f"sqlite://{tmp_path}/lethe.db") as ground,
        authority(folder, lambda query: stamped(folder, query)) as door,
    ):
        await ground.grow(3)
        stamp = Stamp(
            ground.records, ground.world.clock, {TENANT: ORIGIN}, door, files=LogFolder(tmp_path / "log")
        )
        assert await stamp.run() == 1
        files = await ground.flows.audit.export(OFFICER, Wish())
    trust = "".join(f"{key.vkey()}\n" for key in ground.verifiers)
    assert verify_export(files, trust).verdict == "valid"
    for name in ("checkpoint", "checkpoint.tsr"):
        (tmp_path / name).write_bytes(files[name])
    for data, token in (
        (tmp_path / "checkpoint", tmp_path / "checkpoint.tsr"),
        (ground.published / "checkpoint.stamped", ground.published / "checkpoint.tsr"),
    ):
        openssl("ts", "-verify", "-data", data, "-in", token, "-CAfile", folder / "root.pem")


def test_the_configured_authority_is_read_at_the_start(folder: Path, tmp_path: Path):
    section = TimestampsSection(url="https://tsa.test/", roots=folder / "root.pem")
    assert isinstance(compose.timestamps(section), HttpTimestamps)
    for roots in (tmp_path / "nothing", folder / "serial"):
        with pytest.raises(ConfigInvalid, match=r"audit\.timestamps"):
            compose.timestamps(section.model_copy(update={"roots": roots}))
