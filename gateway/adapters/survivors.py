"""Survivors of rolled epochs in a directory.

    NAME.keys       one epoch; a line a key: its id, and the wrapped key in hex

NAME is the percent-encoded text form of the epoch.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from gateway.adapters.disk import sync_folder, write_draft
from gateway.errors import KeyServiceUnavailable

P = ParamSpec("P")
T = TypeVar("T")

_LINE = re.compile(r"([0-9a-f]{32}) ([0-9a-f]+)", re.ASCII)


class FileSurvivors:
    """The `Survivors` in a directory, which is made when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def keep(self, epoch: str, wrapped: Iterable[tuple[str, bytes]]) -> None:
        """Make the keys of an epoch durable; see the port."""
        lines = [f"{key_id} {sealed.hex()}\n" for key_id, sealed in wrapped]
        await _ask(self._keep, epoch, "".join(lines).encode())

    async def drop(self, epoch: str) -> None:
        """Forget an epoch; see the port."""
        await _ask(self._drop, epoch)

    async def find(self, epoch: str) -> Mapping[str, bytes]:
        """Return what is kept of an epoch; see the port."""
        return await _ask(self._find, epoch)

    def _place(self, epoch: str) -> Path:
        return self._directory / f"{quote(epoch, safe='')}.keys"

    def _keep(self, epoch: str, content: bytes) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        sync_folder(self._directory.parent)
        place = self._place(epoch)
        write_draft(place, content, 0o600).replace(place)
        sync_folder(self._directory)

    def _drop(self, epoch: str) -> None:
        if self._directory.is_dir():
            self._place(epoch).unlink(missing_ok=True)
            sync_folder(self._directory)

    def _find(self, epoch: str) -> Mapping[str, bytes]:
        try:
            lines = self._place(epoch).read_text("ascii").splitlines()
        except FileNotFoundError:
            return {}
        found = [_LINE.fullmatch(line) for line in lines]
        return {match[1]: bytes.fromhex(match[2]) for match in found if match is not None}


async def _ask(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except (OSError, ValueError) as error:
        code = errno.errorcode.get(getattr(error, "errno", None) or 0, "unreadable").lower()
        raise KeyServiceUnavailable("the survivors of rolled epochs cannot be kept", detail=code) from error
