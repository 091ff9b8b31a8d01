"""A proxy before an HTTP server that loses answers, cuts them, holds them, or answers itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["lose", "lose reply", "cut", "hold", "busy"]
BUSY = b"<Error><Code>SlowDown</Code><Message>canary</Message></Error>"


@dataclass
class Fault:
    """What befalls the next `times` requests whose first line begins with, or contains, `what`."""

    kind: Kind
    what: str
    times: int = 1


@dataclass
class Proxy:
    """One request a connection; `seen` has the first line of each, `faults` are used up in order."""

    upstream: int
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, kind: Kind, what: str = "", times: int = 1) -> None:
        """Let the fault befall the next `times` requests with `what` in their first line."""
        self.faults.append(Fault(kind, what, times))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        if not writer.is_closing():
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b" HTTP", 1)[0].decode()
        self.seen.append(line)
        kind = self._kind(line)
        if b"100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
        size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(size[1])) if size else b""
        if kind == "lose":
            return
        if kind == "hold":
            await reader.read()  # until the caller gives up
            return
        if kind == "busy":
            length = f"content-length: {len(BUSY)}"
            start = f"HTTP/1.1 503 Service Unavailable\r\n{length}\r\nconnection: close\r\n\r\n"
            await _send(writer, start.encode() + BUSY)
            return
        answer = await self._ask(head, body)
        if kind == "cut":
            await _send(writer, answer[: len(answer) // 2])
        elif kind != "lose reply":
            await _send(writer, answer)

    def _kind(self, line: str) -> Kind | None:
        for fault in self.faults:
            if fault.times and fault.what in line:
                fault.times -= 1
                return fault.kind
        return None

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        """Return the whole answer of the server, which is told to close after it."""
        head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            writer.write(head[:-2] + b"connection: close\r\n\r\n" + body)
            return await reader.read()
        finally:
            writer.close()


async def _send(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer)
    writer.close()
    await writer.wait_closed()


@contextlib.asynccontextmanager
async def proxy_before(upstream: int) -> AsyncIterator[Proxy]:
    """Yield a proxy before a port of loopback."""
    proxy = Proxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
