"""One conversation with the gateway: opened as a profile says, refusals turned into exit codes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from gateway.admin.exits import USAGE, exit_code
from gateway.admin.output import fail, say

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from gateway.client import Client, Refused

T = TypeVar("T")
PAGE = 200


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; an interrupt cancels it, a second one stops it where it stands.

    The kernel may hand the signal to any thread, and grpc has several.  The
    loop's own handler is woken all the same; the one of `asyncio.run` would be
    noticed only once the main thread has something else to do.

    Raises:
        KeyboardInterrupt: It was interrupted.
    """

    async def interruptible() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            if task:
                task.cancel()

        loop.add_signal_handler(signal.SIGINT, interrupt)
        return await work

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def talk(profile: Path | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Connect as `profile` says, do `work`, and return what it returns.

    A refusal ends the command with its reason on stderr and its exit code.
    """
    from gateway.client import Client, ProfileInvalid, Refused

    if profile is None:
        fail(
            USAGE,
            "PROFILE_REQUIRED",
            "say who calls: --as FILE or LETHE_CLIENT (lethe init writes DIR/clients/*.yaml)",
        )

    async def session(path: Path) -> T:
        async with Client.from_profile(path) as client:
            return await work(client)

    try:
        return run(session(profile))
    except ProfileInvalid as fault:
        fail(USAGE, "PROFILE_INVALID", str(fault))
    except Refused as refusal:
        refuse(refusal)


HINTS = frozenset({"added", "gone", "mandates", "methods", "needed", "reasons"})
"""What of a refusal's metadata a person needs to go on: what changed, or what would do."""


def refuse(refusal: Refused) -> NoReturn:
    """End the command as the gateway refused it."""
    why = refusal.metadata.get("job_reason", "")
    message = f"{refusal} ({why})" if why else str(refusal)
    for name in sorted(HINTS & refusal.metadata.keys()):
        say(f"{name}: {refusal.metadata[name]}")
    fail(exit_code(refusal.reason, refusal.metadata), refusal.reason, message, refusal.detail)


async def pages(
    ask: Callable[[int, str], Awaitable[Message]], field: str, limit: int, token: str = ""
) -> Message:
    """Return the first `limit` items of a list, page after page, in one answer.

    Its `next_page_token` says where it would go on; a word on stderr says so too.

    Args:
        ask: Asks for one page, told its size and token.
        field: The repeated field that holds the items.
        limit: When to stop.
        token: Where to begin.
    """
    whole = await ask(min(limit, PAGE), token)
    while whole.next_page_token and len(getattr(whole, field)) < limit:  # type: ignore[attr-defined] # every list has one
        left = limit - len(getattr(whole, field))
        part = await ask(min(left, PAGE), whole.next_page_token)  # type: ignore[attr-defined] # likewise
        getattr(whole, field).extend(getattr(part, field))
        whole.next_page_token = part.next_page_token  # type: ignore[attr-defined] # likewise
    if whole.next_page_token:  # type: ignore[attr-defined] # likewise
        say(f"note: there are more than {limit}; --limit shows more")
    return whole
