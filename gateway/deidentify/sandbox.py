"""The gateway's side of the scrubber: a few worker processes, each with one picture at a time.

A worker may be taken over by what it reads.  So it has nothing (no environment,
no descriptor but one socket, no file, no network), its answers are checked as a
stranger's would be, and it is replaced after `recycle_after` pictures.  With
`recycle_after=1` no two pictures ever meet in one process.
"""

from __future__ import annotations

import asyncio
import math
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar, cast

from gateway.deidentify.errors import DETAILS, Rejected, ScrubberUnavailable
from gateway.deidentify.frames import OVERHEAD, PREFIX, BadFrame, decode, encode, lengths
from gateway.deidentify.limits import Limits
from gateway.deidentify.scrubbed import Format, Mode, Scrubbed

COMMAND: Final = (sys.executable, "-I", "-m", "gateway.deidentify.worker")
"""Isolated mode: no PYTHON* variables, no user site, no current directory on the path."""

_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
"""One picture has one core."""
_START_TIMEOUT_S: Final = 30.0
_WALLS: Final = ("rlimits", "landlock", "seccomp")
_CODE: Final = re.compile(r"[a-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a worker is started with; `freight` goes with its orders."""

    limits: Limits
    recycle_after: int
    timeout_s: float
    command: tuple[str, ...]
    freight: Freight

    def orders(self) -> dict[str, Any]:
        """Return the first frame: the caps, CPU seconds for a picture, CPU seconds for a life."""
        cpu_s = math.ceil(self.timeout_s)
        return {
            "limits": asdict(self.limits),
            "cpu_s": cpu_s,
            "life_cpu_s": min((cpu_s + 1) * self.recycle_after + 60, 1 << 30),
            "freight": {name: len(content) for name, content in self.freight.items()},
        }


Freight = Mapping[str, bytes]
"""Files that a worker is handed before its walls go up, by name."""
T = TypeVar("T")


class _WorkerDied(Exception):
    """The worker is gone or talks nonsense."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class Worker:
    """One process and the socket to it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.pictures = 0
        self._wire, other = socket.socketpair()
        self._wire.setblocking(False)
        try:
            # A session of its own: Ctrl-C in the gateway's terminal is not for it.
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours, no caller's word is in it
                command,
                stdin=other.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            self._wire.close()
            raise
        finally:
            other.close()

    async def exchange(
        self, header: dict[str, Any], body: bytes | bytearray, max_body: int
    ) -> tuple[dict[str, Any], bytes]:
        """Send one frame and return the answer.

        Raises:
            OSError, EOFError: The worker is gone.
            BadFrame: It does not keep to the protocol.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._wire, encode(header, len(body)))
        await loop.sock_sendall(self._wire, body)
        header_bytes, body_bytes = lengths(await self._read(PREFIX.size), max_body)
        answer = decode(await self._read(header_bytes))
        return answer, await self._read(body_bytes)

    async def _read(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        whole = bytearray(count)
        rest = memoryview(whole)
        while rest:
            read = await loop.sock_recv_into(self._wire, rest)
            if not read:
                raise EOFError
            rest = rest[read:]
        return bytes(whole)

    def kill(self) -> None:
        """End the process at once; whoever waits for its answer sees the socket close."""
        if self._process.poll() is None:
            self._process.kill()

    async def end(self) -> int:
        """Kill the process, if it is not dead yet, and return its exit code."""
        self.kill()
        self._wire.close()
        return await asyncio.shield(asyncio.to_thread(self._process.wait))


class _Post:
    """A place for one worker: filled when needed, emptied when the worker is used up or dead."""

    def __init__(self, terms: _Terms) -> None:
        self._terms = terms
        self._freight = b"".join(terms.freight.values())
        self.worker: Worker | None = None
        self._is_closed = False
        self.confinement = dict.fromkeys(_WALLS, False)

    async def fill(self) -> Worker:
        """Return the worker, started now if there is none.

        Raises:
            ScrubberUnavailable: It cannot be started.
        """
        if self._is_closed:
            raise ScrubberUnavailable
        if self.worker is None:
            try:
                self.worker = Worker(self._terms.command)
                async with asyncio.timeout(_START_TIMEOUT_S):
                    header, _ = await self.worker.exchange(self._terms.orders(), self._freight, 0)
                self.confinement = walls(header)
            except (OSError, EOFError, BadFrame) as error:
                await self.empty()
                raise ScrubberUnavailable from error
            except BaseException:
                await self.empty()
                raise
        return self.worker

    def close(self) -> None:
        """Kill the worker; it is not replaced any more."""
        self._is_closed = True
        if self.worker is not None:
            self.worker.kill()

    async def empty(self) -> int:
        """End the worker; return its exit code."""
        worker, self.worker = self.worker, None
        return 0 if worker is None else await worker.end()

    async def ask(
        self, header: dict[str, Any], data: bytes | bytearray, read: Callable[[dict[str, Any], bytes], T]
    ) -> T:
        """Have the worker look at `data`; on its death try once more with another one."""
        for _ in range(2):
            try:
                return await self._attempt(header, data, read)
            except _WorkerDied as death:
                if death.exit_code == -signal.SIGXCPU:
                    raise Rejected("decode_timeout") from death
        raise ScrubberUnavailable

    async def _attempt(
        self, header: dict[str, Any], data: bytes | bytearray, read: Callable[[dict[str, Any], bytes], T]
    ) -> T:
        worker = await self.fill()
        try:
            async with asyncio.timeout(self._terms.timeout_s):
                said, body = await worker.exchange(header, data, self._terms.limits.max_bytes + OVERHEAD)
            answer = judged(said, body, read)
        except TimeoutError as error:
            await self.empty()
            raise Rejected("decode_timeout") from error
        except (OSError, EOFError, BadFrame) as error:
            raise _WorkerDied(await self.empty()) from error
        except BaseException:
            # A cancelled caller leaves a worker in the middle of a frame.
            await self.empty()
            raise
        worker.pictures += 1
        if worker.pictures >= self._terms.recycle_after:
            await self.empty()
        if isinstance(answer, Rejected):
            raise answer
        return answer


class Workers:
    """Worker processes that look at pictures; callers queue while all are busy."""

    def __init__(
        self,
        limits: Limits,
        *,
        command: Sequence[str],
        workers: int = 1,
        recycle_after: int = 200,
        timeout_s: float = 10.0,
        freight: Freight | None = None,
    ) -> None:
        """Describe the workers; `start` starts them.

        Args:
            limits: Caps on the pictures.
            command: How a worker is started.
            workers: How many pictures are looked at side by side.
            recycle_after: Pictures after which a worker is replaced.
            timeout_s: Wall-clock seconds for one picture, time in the queue not counted;
                the worker gets as much CPU time, rounded up.
            freight: Files that each worker is handed.
        """
        if workers < 1 or recycle_after < 1 or timeout_s <= 0:
            raise ValueError("workers, recycle_after and timeout_s must be positive")
        terms = _Terms(limits, recycle_after, timeout_s, tuple(command), freight or {})
        self._max_bytes = limits.max_bytes
        self._posts = tuple(_Post(terms) for _ in range(workers))
        self._free: asyncio.Queue[_Post] = asyncio.Queue()
        self._is_open = False

    @property
    def confinement(self) -> Mapping[str, bool]:
        """Which walls stand around every worker: `rlimits`, `landlock`, `seccomp`; none before `start`."""
        return {wall: all(post.confinement[wall] for post in self._posts) for wall in _WALLS}

    async def start(self) -> None:
        """Start every worker.

        Raises:
            ScrubberUnavailable: One cannot be started; none is left running.
        """
        if self._is_open:
            return
        outcomes = await asyncio.gather(*(post.fill() for post in self._posts), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                for post in self._posts:
                    await post.empty()
                raise outcome
        for post in self._posts:
            self._free.put_nowait(post)
        self._is_open = True

    async def ask(
        self, header: dict[str, Any], data: bytes | bytearray, read: Callable[[dict[str, Any], bytes], T]
    ) -> T:
        """Return what `read` makes of a worker's answer.

        Raises:
            Rejected: The bytes may not be processed.
            ScrubberUnavailable: Not started, closed, or two workers died on this picture.
        """
        if len(data) > self._max_bytes:
            raise Rejected("too_large")
        if not self._is_open:
            raise ScrubberUnavailable
        post = await self._free.get()
        try:
            # Closed while this caller stood in the queue?
            if not self._is_open:
                raise ScrubberUnavailable
            return await post.ask(header, data, read)
        finally:
            self._free.put_nowait(post)

    async def close(self) -> None:
        """End every worker; what is in flight fails with `ScrubberUnavailable`."""
        if not self._is_open:
            return
        self._is_open = False
        for post in self._posts:
            post.close()
        for _ in self._posts:
            await (await self._free.get()).empty()


class ImageScrubber(Workers):
    """Scrubs pictures in worker processes."""

    def __init__(
        self,
        limits: Limits,
        *,
        command: Sequence[str] = COMMAND,
        workers: int = 1,
        recycle_after: int = 200,
        timeout_s: float = 10.0,
    ) -> None:
        """Describe the workers, as `Workers` does."""
        super().__init__(
            limits, command=command, workers=workers, recycle_after=recycle_after, timeout_s=timeout_s
        )

    async def scrub(self, data: bytes | bytearray, mode: Mode = "canonical") -> Scrubbed:
        """Return the picture without its metadata; see `Scrubber`.

        Raises:
            Rejected: The bytes may not be processed.
            ScrubberUnavailable: Not started, closed, or two workers died on this picture.
        """
        return await self.ask({"mode": mode}, data, scrubbed)


def walls(header: dict[str, Any]) -> dict[str, bool]:
    """Return which walls a worker says stand around it."""
    said = header.get("confinement")
    if not isinstance(said, dict):
        raise BadFrame
    return {wall: said.get(wall) is True for wall in _WALLS}


def judged(said: dict[str, Any], body: bytes, read: Callable[[dict[str, Any], bytes], T]) -> T | Rejected:
    """Return a worker's refusal, or what `read` makes of its answer."""
    return Rejected(one_of(said["rejected"], DETAILS)) if "rejected" in said else read(said, body)


def scrubbed(header: dict[str, Any], body: bytes) -> Scrubbed:
    """Return what a worker says of a picture, believing none of it that could not be true."""
    form = cast("Format", one_of(header.get("format"), ("jpeg", "png", "webp")))
    width, height = (number(header.get(side), 1, 1 << 16) for side in ("width", "height"))
    orientation = number(header.get("orientation"), 1, 8)
    dropped = header.get("dropped")
    if not body or not isinstance(dropped, dict) or not all(map(_CODE.fullmatch, dropped)):
        raise BadFrame
    mode = cast("Mode", one_of(header.get("mode"), ("lossless", "canonical")))
    counts = {str(kind): number(count, 0, 1 << 32) for kind, count in dropped.items()}
    return Scrubbed(body, form, width, height, orientation, counts, mode)


def one_of(value: object, codes: Collection[str]) -> str:
    """Return a word if it is one of `codes`."""
    if not isinstance(value, str) or value not in codes:
        raise BadFrame
    return value


def number(value: object, lowest: int, highest: int) -> int:
    """Return a number if it lies within these bounds."""
    if type(value) is not int or not lowest <= value <= highest:
        raise BadFrame
    return value
