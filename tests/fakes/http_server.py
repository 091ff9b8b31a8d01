"""A server of HTTP/1.1 on loopback that keeps every byte it was sent, and can be told to misbehave.

What it answers is its subclasses' matter.  Each connection carries one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11

CANARY = "CANARY-7714"
"""Stands wherever a stranger writes something that must not be quoted."""
PAGE = f"<!doctype html><title>502</title><p>{CANARY}</p>".encode()


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, tuple[str, str, bytes]]:
        """Return the parts of a multipart form: (file name, content type, content) by field."""
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        parts = BytesParser(policy=HTTP).parsebytes(head + self.body).get_payload()
        return {
            part.get_param("name", header="content-disposition"): (
                part.get_filename() or "",
                part.get_content_type(),
                part.get_payload(decode=True),
            )
            for part in parts
        }


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, tree: Any, status: int = 200) -> Said:
        return cls(status, json.dumps(tree).encode())


class HttpFake:
    """Answers what `answer` says, unless `fault` names what it does instead where paths begin with `at`.

    `deaf` does and never answers, `slow` drips one byte a moment, `html` answers with a page, `half` ends in
    the middle, `cut` hangs up in the middle of what it is sent, `garbled` is no JSON, `typed` lies
    about the type, `encoded` is gzip, `endless` goes on and on; the others are statuses.
    """

    at = "/"

    def __init__(self) -> None:
        self.fault = ""
        self.asked: list[Asked] = []
        self.wire = bytearray()
        self.dropped = 0
        self.headers: tuple[tuple[str, str], ...] = ()
        self.raw = b""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def answer(self, asked: Asked) -> Said:
        raise NotImplementedError

    async def start(self, tls: ssl.SSLContext | None = None) -> str:
        """Listen, where it listened before if it did, and return where."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return f"http{'s' if tls else ''}://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        """Listen no longer, and hang up."""
        if self._server is not None:
            self._server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            with contextlib.suppress(ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
                await self._serve(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        asked = await self._hear(connection, reader)
        if asked is None:
            return
        self.asked.append(asked)
        # Who asked may hang up meanwhile: that ends the work.
        working = asyncio.create_task(self._reply(connection, writer, asked))
        leaving = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self.dropped += 1
                working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        finally:
            for one in (working, leaving):
                one.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
        if not working.cancelled() and (error := working.exception()) and not isinstance(error, OSError):
            raise error

    async def _hear(self, connection: h11.Connection, reader: asyncio.StreamReader) -> Asked | None:
        request, body = None, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(1 << 16)
                self.wire += data
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                assert request is not None
                if self.fault == "cut" and request.target.decode().startswith(self.at):
                    return None
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                headers = {name.decode(): value.decode() for name, value in request.headers}
                return Asked(request.method.decode(), request.target.decode(), headers, bytes(body))
            else:
                return None

    async def _reply(self, connection: h11.Connection, writer: asyncio.StreamWriter, asked: Asked) -> None:
        fault = self.fault if asked.path.startswith(self.at) else ""
        said = _STATUSES[fault] if fault in _STATUSES else await self.answer(asked)
        if fault == "deaf":
            await asyncio.Event().wait()
        if self.raw:
            said = Said(body=self.raw)
        elif fault == "garbled":
            said = Said(body=CANARY.encode() + said.body, kind=said.kind)
        elif fault == "typed":
            said = Said(body=said.body, kind="text/plain")
        elif fault == "encoded":
            said = Said(
                body=gzip.compress(said.body), kind=said.kind, headers=(("content-encoding", "gzip"),)
            )
        length = [] if fault == "endless" else [("content-length", str(len(said.body)))]
        headers = [
            ("content-type", said.kind),
            ("connection", "close"),
            *length,
            *said.headers,
            *self.headers,
        ]
        writer.write(connection.send(h11.Response(status_code=said.status, headers=headers)) or b"")
        if fault == "slow":
            for byte in said.body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
            return
        if fault == "endless":
            chunk = connection.send(h11.Data(data=b" " * (1 << 16))) or b""
            while True:
                writer.write(chunk)
                await writer.drain()
        writer.write(said.body[: len(said.body) // 2] if fault == "half" else said.body)
        await writer.drain()


class HoldingFake(HttpFake):
    """Works on pictures within the calls that bring them; `hold()` makes it wait until `release()`.

    `working` is how many it works on, `runs` how many it has begun, `kept` what it keeps; `result`,
    where it is set, stands in place of what it makes, `says` changes its answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.working = 0
        self.runs = 0
        self.kept: dict[str, bytes] = {}
        self.says: dict[str, object] = {}
        self.result: bytes | None = None
        self._go = asyncio.Event()
        self._go.set()

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    def keeps(self) -> int:
        return self.working + len(self.kept)

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Count as work what is done inside; wait first, where that is held."""
        self.runs += 1
        self.working += 1
        try:
            await self._go.wait()
            yield
        finally:
            self.working -= 1


_STATUSES = {
    "html": Said(body=PAGE, kind="text/html"),
    "redirect": Said(302, PAGE, "text/html", (("location", f"/elsewhere?{CANARY}"),)),
    "busy": Said(429, PAGE, "text/html", (("retry-after", "7"),)),
    "broken": Said(500, PAGE, "text/html"),
    "gone": Said(404, PAGE, "text/html"),
    "denied": Said(401, PAGE, "text/html"),
    "refused": Said.of({"error": {"message": CANARY, "code": CANARY}}, 400),
    "oversize": Said(413, PAGE, "text/html"),
}
