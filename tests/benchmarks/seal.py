"""Sealing and opening, beside tink, age, the AWS Encryption SDK, the library beneath, and `openssl speed`."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import new_keyset_handle, streaming_aead

from gateway.vault import stream
from tests.benchmarks.measure import Side, Table, table, take_turns
from tests.benchmarks.rivals import HOW, RIVALS, WHERE

KIB, MIB = 1 << 10, 1 << 20
SIZES = (64 * KIB, MIB, 4 * MIB, 25 * MIB)
QUICK_SIZES = (4 * KIB,)
FEED = MIB
AAD = b"lethe.benchmarks"
OURS, TINK, ONE_CALL, OPENSSL = "lethe", "tink", "AESGCM, one call", "openssl speed"


class Nowhere(io.RawIOBase):
    """Takes bytes and keeps none: what is measured is sealing, not memory."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


async def run(*, quick: bool) -> list[Table]:
    """Return one table for sealing and one for opening, per size."""
    streaming_aead.register()
    with rivals_beside() as rivals:
        return [made async for made in _tables(rivals, quick=quick)]


async def _tables(rivals: Rivals | None, *, quick: bool) -> AsyncIterator[Table]:
    for size in QUICK_SIZES if quick else SIZES:
        for verb, sides in (("seal", sealing(size)), ("open", opening(size))):
            budget_s = 0.005 if quick else 0.25
            racing: dict[str, Side] = {name: _rate(side, size, budget_s) for name, side in sides.items()}
            notes = []
            for name in RIVALS:
                if rivals is not None and await rivals.side(name, verb, size, 0.0)() > 0:
                    racing[name] = rivals.side(name, verb, size, budget_s)
                else:
                    notes.append(f"{name}: not installed ({HOW})")
            if quick or shutil.which("openssl") is None:
                notes.append("openssl speed was not run")
            else:
                racing[OPENSSL] = _openssl(size, decrypt=verb == "open")
                notes.append(f"{openssl_version()}; what it lacks, the machine may well have")
            seen = await take_turns(racing, 2 if quick else 7)
            yield table(f"{verb} {_words(size)}", "MB per CPU second", TINK, seen, notes)


class Rivals:
    """The interpreter of the rivals' own environment, which is asked line by line."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("rivals.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def side(self, name: str, verb: str, size: int, budget_s: float) -> Side:
        """Return a side that answers MB per second of CPU, or 0 where the rival is not installed."""

        async def ask() -> float:
            sink, source = self.process.stdin, self.process.stdout
            assert sink is not None
            assert source is not None
            sink.write(f"{name}\t{verb}\t{size}\t{budget_s}\n")
            sink.flush()
            told = (await asyncio.to_thread(source.readline)).strip()
            return 0.0 if told == "not installed" else float(told)

        return ask


@contextmanager
def rivals_beside() -> Iterator[Rivals | None]:
    """Yield the rivals, or None where nobody made their environment."""
    python = WHERE / "bin" / "python"
    if not python.exists():
        yield None
        return
    made = Rivals(python)
    try:
        yield made
    finally:
        made.process.communicate()


def sealing(size: int) -> dict[str, Callable[[], object]]:
    """Return what seals `size` bytes; the plaintext comes in one piece, as in the gateway."""
    plain, dek, out = os.urandom(size), os.urandom(32), bytearray(size + 16)
    primitive = new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB).primitive(
        streaming_aead.StreamingAead
    )
    cipher, nonce = AESGCM(dek), bytes(12)

    def ours() -> None:
        for _ in stream.seal(dek, AAD, [plain]):
            pass

    def tink() -> None:
        with primitive.new_encrypting_stream(Nowhere(), AAD) as sink:
            sink.write(plain)

    return {OURS: ours, TINK: tink, ONE_CALL: lambda: cipher.encrypt_into(nonce, plain, None, out)}


def opening(size: int) -> dict[str, Callable[[], object]]:
    """Return what opens `size` bytes that were sealed."""
    plain, dek, out = os.urandom(size), os.urandom(32), bytearray(size)
    sealed = list(stream.seal(dek, AAD, [plain]))
    primitive = new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB).primitive(
        streaming_aead.StreamingAead
    )
    kept = io.BytesIO()
    kept.close = lambda: None  # type: ignore[method-assign] # tink closes what it wrote to
    with primitive.new_encrypting_stream(kept, AAD) as sink:
        sink.write(plain)
    theirs = kept.getvalue()
    cipher, nonce = AESGCM(dek), bytes(12)
    whole = cipher.encrypt(nonce, plain, None)

    def ours() -> None:
        for _ in stream.open_(dek, AAD, sealed):
            pass

    def tink() -> None:
        with primitive.new_decrypting_stream(io.BytesIO(theirs), AAD) as source:
            while source.read(FEED):
                pass

    return {OURS: ours, TINK: tink, ONE_CALL: lambda: cipher.decrypt_into(nonce, whole, None, out)}


def _rate(work: Callable[[], object], size: int, budget_s: float) -> Side:
    """Return a side that repeats `work` and tells MB (10^6 bytes) per second of CPU, as openssl does."""

    async def side() -> float:
        work()
        done, begun = 0, time.process_time()
        while (spent := time.process_time() - begun) < budget_s:
            work()
            done += 1
        return done * size / spent / 1e6

    return side


def _openssl(size: int, *, decrypt: bool) -> Side:
    command = ["openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(size), "-evp", "aes-256-gcm"]

    async def side() -> float:
        done = subprocess.run(
            command[:3] + ["-decrypt"] * decrypt + command[3:], capture_output=True, text=True, check=True
        )
        rate = re.search(r"^\+F:[^\n]*:([0-9.]+)$", done.stdout, re.MULTILINE)
        if rate is None:
            raise RuntimeError("openssl speed answers in another form")
        return float(rate[1]) / 1e6

    return side


def openssl_version() -> str:
    return subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout.strip()


def _words(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"
