"""The gateway's side of the prompt scrubber: one worker process, one prompt at a time, with a deadline."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.deidentify.errors import ScrubberUnavailable
from gateway.deidentify.frames import BadFrame
from gateway.deidentify.sandbox import Worker, walls
from gateway.deidentify.text.entities import ACTIONS, ENTITIES, HIDDEN, MAX_CHARS, PromptPolicy, PromptRefused
from gateway.deidentify.text.scrub import Found, ScrubbedText

COMMAND: Final = (sys.executable, "-I", "-m", "gateway.deidentify.text.worker")
REFUSALS: Final = frozenset({*ENTITIES, "too_long", "residue_found"})
_MAX_ANSWER: Final = 1 << 20
_START_TIMEOUT_S: Final = 30.0
_RECYCLE_AFTER: Final = 1000


class TextScrubber(Protocol):
    """Whoever scrubs prompts.  Nothing of a prompt is kept when `scrub` returns or raises."""

    async def scrub(self, text: str) -> ScrubbedText:
        """Return the prompt as it may be passed on.

        Raises:
            PromptRefused: It may not be.
            ScrubberUnavailable: Nobody can look at it now, or not in time.
        """


@dataclass
class PromptScrubber:
    """Scrubs prompts in a worker process; callers queue while it is busy.

    What is not looked at in `timeout_s` is not passed on: the worker is killed and another one started.
    """

    policy: PromptPolicy = field(default_factory=PromptPolicy)
    timeout_s: float = 1.0
    has_model: bool = False
    """Whether the model of the extra `ner` adds the names that it finds."""
    command: Sequence[str] = COMMAND
    confinement: Mapping[str, bool] = field(default_factory=dict)
    _worker: Worker | None = None
    _is_open: bool = False
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Start the worker.

        Raises:
            ScrubberUnavailable: It cannot be started.
        """
        self._is_open = True
        await self._fill()

    async def close(self) -> None:
        """End the worker; what is in flight fails with `ScrubberUnavailable`."""
        self._is_open = False
        if self._worker is not None:
            # Whoever waits for its answer sees the socket close, and lets go of it first.
            self._worker.kill()
        async with self._turn:
            await self._empty()

    async def scrub(self, text: str) -> ScrubbedText:
        """Return the prompt as it may be passed on; see `TextScrubber`."""
        if len(text) > MAX_CHARS:
            raise PromptRefused("too_long")
        async with self._turn:
            worker = await self._fill()
            try:
                async with asyncio.timeout(self.timeout_s):
                    said = await worker.exchange({}, text.encode("utf-8", "replace"), _MAX_ANSWER)
                answer = _answer(*said, length=len(text))
            except (TimeoutError, OSError, EOFError, BadFrame) as error:
                await self._empty()
                raise ScrubberUnavailable from error
            except BaseException:
                # A cancelled caller leaves a worker in the middle of a frame.
                await self._empty()
                raise
            worker.pictures += 1
            if worker.pictures >= _RECYCLE_AFTER:
                await self._empty()
        if isinstance(answer, PromptRefused):
            raise answer
        return answer

    async def _fill(self) -> Worker:
        if not self._is_open:
            raise ScrubberUnavailable
        if self._worker is None:
            cpu_s = math.ceil(self.timeout_s)
            orders = {
                "actions": dict(self.policy.actions),
                "has_model": self.has_model,
                "cpu_s": cpu_s,
                "life_cpu_s": (cpu_s + 1) * _RECYCLE_AFTER + 60,
            }
            try:
                self._worker = Worker(self.command)
                async with asyncio.timeout(_START_TIMEOUT_S):
                    header, _ = await self._worker.exchange(orders, b"", 0)
                self.confinement = walls(header)
            except (OSError, EOFError, BadFrame) as error:
                await self._empty()
                raise ScrubberUnavailable from error
            except BaseException:
                await self._empty()
                raise
        return self._worker

    async def _empty(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()


def _answer(header: dict[str, Any], body: bytes, *, length: int) -> ScrubbedText | PromptRefused:
    """Return what the worker says, believing none of it that could not be true."""
    if "refused" in header:
        if header["refused"] not in REFUSALS:
            raise BadFrame
        return PromptRefused(header["refused"])
    try:
        said = json.loads(body)
        text = said["text"]
        found = tuple(Found(*one) for one in said["found"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadFrame from error
    if not isinstance(text, str) or not all(_is_plausible(one, length) for one in found):
        raise BadFrame
    return ScrubbedText(text, found)


def _is_plausible(one: Found, length: int) -> bool:
    return (
        type(one.start) is int
        and type(one.end) is int
        and 0 <= one.start <= one.end <= length
        and one.entity in {*ENTITIES, HIDDEN}
        and one.action in ACTIONS
    )
