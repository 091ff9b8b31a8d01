"""What our HTTP calls say beside what they ask: nothing of the call that is served, or of the machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from opentelemetry.sdk.trace import TracerProvider

from audit import checkpoint
from audit.cosign import Cosigner
from audit.note import Signer
from gateway.adapters.keys_transit import TransitKeys
from gateway.adapters.timestamp import HttpTimestamps
from gateway.adapters.witness_http import HttpWitness
from gateway.errors import KeyServiceUnavailable
from gateway.ports.timestamp import TimestampUnavailable
from gateway.ports.witness import WitnessUnavailable

CANARY = "u-4711"
NEEDED = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"}
ORIGIN = "lethe.test/log"
Ask = Callable[[str, Path], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Take calls on loopback, note their headers, and be of no use."""
    seen: list[dict[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        seen.append(
            {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
        )
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


def root() -> bytes:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "r")]),
    )
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
    )
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)


async def stamp(url: str, _folder: Path) -> None:
    door = HttpTimestamps(url, root())
    with pytest.raises(TimestampUnavailable):
        await door.stamp(ORIGIN)
    await door.close()


async def cosign(url: str, _folder: Path) -> None:
    door = HttpWitness(url, Cosigner("witness.test/w", bytes(32)).vkey())
    with pytest.raises(WitnessUnavailable):
        await door.add_checkpoint(0, (), checkpoint.sign(ORIGIN, 1, bytes(32), Signer(ORIGIN, bytes(32))))
    await door.close()


async def fetch_keys(url: str, folder: Path) -> None:
    token = folder / "token"
    token.write_text("t")
    token.chmod(0o600)
    door = TransitKeys.connect(url=url, token_file=token, pause_s=0.0)
    with pytest.raises(KeyServiceUnavailable):
        await door.epochs()


@pytest.mark.parametrize(("ask", "also"), [(stamp, ""), (cosign, ""), (fetch_keys, "x-vault-token")])
async def test_a_call_carries_no_trace_and_no_name_of_library_or_machine(
    tmp_path: Path, ask: Ask, also: str
) -> None:
    tracer = TracerProvider().get_tracer("t")
    async with listening() as (url, seen):
        with tracer.start_as_current_span("upload", attributes={"subject": CANARY}):
            await ask(url, tmp_path)
    assert seen
    for headers in seen:
        assert headers.keys() <= NEEDED | {also}
        assert headers["user-agent"] == "lethe"
        assert CANARY not in repr(headers)
