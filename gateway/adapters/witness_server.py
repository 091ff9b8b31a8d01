"""A small witness as its own process (c2sp.org/tlog-witness): for development, and for a second party.

HTTP/1.1 is h11's, on asyncio's streams.  The standard library's `http.server` is, by
its own word, not for production: it gives each connection a thread, bounds neither
their number nor the time a request may take, and forgives what a strict parser
refuses.  A whole web framework is more than one method deserves.  h11 comes with
httpx, refuses what is ambiguous, and does no input or output, so every limit stands here.

The log on stderr holds origins, sizes and codes; never an address of a caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h11
import structlog

from audit import checkpoint, note, witness
from audit.cosign import Cosigner
from audit.errors import AuditError, TrustInvalid, WitnessInvalid
from audit.keys import KeyBook
from audit.trust import read_trust
from audit.witness import Accepted, Conflict, Refused, Request
from gateway.adapters.clock import SystemClock
from gateway.adapters.witness_folder import WitnessFolderInvalid, open_folder
from gateway.errors import AuditUnavailable, LetheError
from gateway.ports.clock import Clock
from gateway.ports.lock import CheckpointLock

log = structlog.get_logger()

METHOD, TARGET = b"POST", b"/add-checkpoint"
TOO_LARGE = 413
_HEAD_BYTES = 8 * 1024
_READ_BYTES = 16 * 1024
_DISCARDED_READS = 64
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one witness takes at a time."""

    connections: int = 64
    request_s: float = 10.0
    idle_s: float = 30.0
    drain_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of HTTP."""

    status: int
    body: bytes
    kind: str = _TEXT


@dataclass(slots=True)
class Witness:
    """The witness proper: what it answers to a body, whatever brought it here.

    INVARIANT: a head is durable in `state` before a cosignature of it leaves, and for
    each log one request at a time stands between reading the state and keeping it.
    """

    cosigners: Sequence[Cosigner]
    logs: Mapping[str, KeyBook]
    state: CheckpointLock
    clock: Clock
    on_broken: Callable[[], None] = lambda: None
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def answer(self, body: bytes) -> Reply:
        """Return the answer to add-checkpoint."""
        try:
            asked = Request.parse(body)
        except WitnessInvalid as fault:
            return _refusal(witness.BAD_REQUEST, fault.code)
        if asked.origin not in self.logs:
            return self._reply(asked, witness.decide(asked, None, None))
        async with self._turns[asked.origin]:
            try:
                return self._reply(asked, await self._settled(asked))
            except (AuditUnavailable, AuditError) as failure:
                # Rule R4: what the disk holds is read anew by another process.
                log.critical("witness_state_failed", detail=getattr(failure, "detail", "state_damaged"))
                self.on_broken()
                return _refusal(503, "witness_state_unavailable")

    async def _settled(self, asked: Request) -> Accepted | Conflict | Refused:
        """Return the decision; an accepted head is durable."""
        standing = await self.state.load(asked.origin)
        known = checkpoint.parse(note.parse(standing)[0]) if standing else None
        decided = witness.decide(asked, self.logs[asked.origin], known)
        is_new = isinstance(decided, Accepted) and decided.head != known
        if is_new and not await self.state.swap(asked.origin, standing, asked.checkpoint):
            raise AuditUnavailable("somebody else changed the state", detail="witness_state_changed")
        return decided

    def _reply(self, asked: Request, decided: Accepted | Conflict | Refused) -> Reply:
        match decided:
            case Accepted(head):
                at_s = int(self.clock.now().timestamp())
                lines = [cosigner.cosign(asked.checkpoint, at_s) for cosigner in self.cosigners]
                log.info("checkpoint_cosigned", origin=head.origin, size=head.size)
                return Reply(200, witness.write_lines(lines))
            case Conflict(size):
                log.warning("checkpoint_conflict", origin=asked.origin, old=asked.old, size=size)
                return Reply(witness.CONFLICT, witness.write_size(size), witness.SIZE_TYPE)
            case Refused(status, code):
                origin = asked.origin if asked.origin in self.logs else ""
                log.warning("checkpoint_refused", origin=origin, status=status, code=code)
                return _refusal(status, code)


@dataclass(slots=True)
class Server:
    """Brings requests of HTTP/1.1 to a witness; `stop` lets those in flight end."""

    witness: Witness
    limits: Limits = field(default_factory=Limits)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _idle: set[_Wire] = field(default_factory=set)
    _listening: asyncio.Server | None = None
    _is_stopping: bool = False

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> str:
        """Listen, and return the address; port 0 takes a free one."""
        patience_s = self.limits.request_s if tls else None
        self._listening = await asyncio.start_server(
            self._accept, host, port, ssl=tls, limit=_READ_BYTES, ssl_handshake_timeout=patience_s
        )
        bound = self._listening.sockets[0].getsockname()
        return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        """Take nothing new, wait at most `limits.drain_s` for what is in flight."""
        self._is_stopping = True
        if self._listening is not None:
            self._listening.close()
        for wire in tuple(self._idle):
            wire.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.limits.drain_s)
        left = tuple(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self.limits.connections or self._is_stopping:
            writer.close()
            return
        task = asyncio.create_task(self._serve(_Wire(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, wire: _Wire) -> None:
        """Hold one connection until either side, or its time, is done."""
        try:
            with contextlib.suppress(TimeoutError, OSError, h11.ProtocolError):
                while await self._exchange(wire):
                    pass
        finally:
            self._idle.discard(wire)
            wire.close()

    async def _exchange(self, wire: _Wire) -> bool:
        """Answer one request; return whether the connection goes on."""
        self._idle.add(wire)
        async with asyncio.timeout(self.limits.idle_s):
            await wire.wait()
        self._idle.discard(wire)
        async with asyncio.timeout(self.limits.request_s):
            request = await wire.request()
        if request is None:
            return False
        # Not under a timeout: a decision that is being kept is waited for.
        reply = await self._answer(*request)
        async with asyncio.timeout(self.limits.request_s):
            await wire.reply(reply, is_last=self._is_stopping or reply.status == TOO_LARGE)
            if reply.status == TOO_LARGE:
                await wire.discard()
        return wire.is_reusable()

    async def _answer(self, head: h11.Request, body: bytes | None) -> Reply:
        if body is None:
            return _refusal(TOO_LARGE, "witness_request_too_large")
        if head.target != TARGET:
            return _refusal(witness.NOT_FOUND, "not_found")
        if head.method != METHOD:
            return _refusal(405, "method_not_allowed")
        return await self.witness.answer(body)


class _Wire:
    """One connection: bytes on one side, whole requests and replies on the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)

    def close(self) -> None:
        """Let the connection go; a reading of it ends."""
        self._writer.close()

    async def discard(self) -> None:
        """Read what the other side still sends, for a while, so that it gets to read our answer."""
        for _ in range(_DISCARDED_READS):
            if not await self._reader.read(_READ_BYTES):
                return

    async def wait(self) -> None:
        """Return once the first bytes of a request are here, or the end."""
        if not self._http.trailing_data[0]:
            self._http.receive_data(await self._reader.read(_READ_BYTES))

    async def request(self) -> tuple[h11.Request, bytes | None] | None:
        """Return the next request and its body, None where it is too long; or None at the end."""
        try:
            head = await self._next()
            if not isinstance(head, h11.Request):
                return None
            body = b""
            while isinstance(event := await self._next(), h11.Data):
                body += event.data
                if len(body) > witness.MAX_REQUEST_BYTES:
                    return head, None
        except h11.RemoteProtocolError as fault:
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                await self.reply(_refusal(fault.error_status_hint, "http_malformed"), is_last=True)
            raise
        return head, body

    async def reply(self, reply: Reply, *, is_last: bool) -> None:
        """Send an answer."""
        headers = [
            ("content-type", reply.kind),
            ("content-length", str(len(reply.body))),
            ("cache-control", "no-store"),
            *([("connection", "close")] if is_last else []),
        ]
        events = h11.Response(status_code=reply.status, headers=headers), h11.Data(reply.body)
        self._writer.writelines(self._http.send(event) or b"" for event in (*events, h11.EndOfMessage()))
        await self._writer.drain()

    def is_reusable(self) -> bool:
        """Make ready for the next request, if both sides will have one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _next(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(go_on) or b"")
            self._http.receive_data(await self._reader.read(_READ_BYTES))


def _refusal(status: int, code: str) -> Reply:
    return Reply(status, f"{code}\n".encode())


def read_logs(paths: Sequence[Path]) -> dict[str, KeyBook]:
    """Return the keys of each log, by origin.

    Each file is what an auditor trusts: vkeys, a `keys.txt` or a tlog-policy, whose
    witnesses do not matter here.

    Raises:
        TrustInvalid: One is none of these.
        OSError, UnicodeDecodeError: One cannot be read.
    """
    keys = [key for path in paths for key in read_trust(path.read_text("utf-8")).book.keys]
    origins = {key.verifier.name for key in keys}
    return {origin: KeyBook(tuple(key for key in keys if key.verifier.name == origin)) for origin in origins}


def run(
    *, directory: Path, listen: tuple[str, int], logs: Sequence[Path], cert: Path | None, key: Path | None
) -> int:
    """Run the witness of a folder until SIGTERM and return the exit code; for `lethe audit witness`.

    One line, `listening HOST:PORT`, goes to stdout when it is ready; the log goes to stderr.
    It ends with 1 where its state fails, so that a new start reads what the disk holds.
    """
    _set_up_log()
    try:
        books = read_logs(logs)
        tls = read_tls(cert, key)
        folder = open_folder(directory)
    except (TrustInvalid, WitnessFolderInvalid) as fault:
        return _failed(fault.code, str(fault))
    except LetheError as refusal:
        return _failed(refusal.detail or refusal.reason, str(refusal))
    except (OSError, UnicodeDecodeError, ssl.SSLError) as fault:
        return _failed("witness_file_unreadable", type(fault).__name__)
    try:
        return asyncio.run(
            _until_told(Witness(folder.cosigners, books, folder.state, SystemClock()), listen, tls)
        )
    except OSError as fault:
        return _failed("witness_address", fault.strerror or "the address cannot be used")
    finally:
        folder.close()


async def _until_told(being: Witness, listen: tuple[str, int], tls: ssl.SSLContext | None) -> int:
    stop = asyncio.Event()
    code = 0

    def broken() -> None:
        nonlocal code
        code = 1
        stop.set()

    being.on_broken = broken
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(being)
    address = await server.start(*listen, tls)
    sys.stdout.write(f"listening {address}\n")
    sys.stdout.flush()
    log.info("witness_started", witness=being.cosigners[0].name, logs=len(being.logs))
    await stop.wait()
    await server.stop()
    return code


def read_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return what a listener for TLS needs, or None without a certificate.

    Raises:
        OSError: A file cannot be read, or the key is not the certificate's.
    """
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


def _failed(code: str, message: str) -> int:
    sys.stderr.write(f"error: {code}: {message}\n")
    return 1


def _set_up_log() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
