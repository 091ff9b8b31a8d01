"""Pictures that are in memory only: what a controller that keeps nothing takes in, and what it gets back.

The records say that there is such a picture (`StoredObject.state` is `transient`), until
when, and when it ended; its bytes are in the process that took it in, and end with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from gateway.errors import RateLimited
from gateway.ports.records import StoredObject


@dataclass(slots=True)
class _Picture:
    job_id: str
    data: bytearray
    until: datetime
    prompt: bytearray
    is_recorded: bool = False


@dataclass(frozen=True, slots=True)
class Transients:
    """The pictures of this process, at most `max_bytes` of them together.

    What is let go is overwritten first.  That reaches these buffers only: what a library copied,
    for the wire or for the scrubber, is in memory that Python reuses when it will.
    """

    max_bytes: int
    _pictures: dict[str, _Picture] = field(default_factory=dict, repr=False)

    def put(self, stored: StoredObject, data: bytes, prompt: str = "") -> None:
        """Hold a picture whose record is about to be committed; `record` follows, or `drop`.

        `prompt` came with it, and goes with it.

        Raises:
            RateLimited: Memory is full of others.
        """
        if len(data) + sum(len(one.data) for one in self._pictures.values()) > self.max_bytes:
            raise RateLimited("too many pictures are in memory", detail="memory_full")
        self._pictures[stored.object_id] = _Picture(
            stored.job_id, bytearray(data), stored.expires_at, bytearray(prompt.encode())
        )

    def record(self, object_id: str) -> None:
        """Note that the picture's record is committed: from now on it ends when that does."""
        if object_id in self._pictures:
            self._pictures[object_id].is_recorded = True

    def open(self, object_id: str) -> bytes | None:
        """Return a picture, or None where it is not in this process."""
        found = self._pictures.get(object_id)
        return None if found is None else bytes(found.data)

    def open_prompt(self, object_id: str) -> str:
        """Return the prompt that came with a picture; empty where there was none."""
        found = self._pictures.get(object_id)
        return "" if found is None else found.prompt.decode()

    def drop(self, object_id: str) -> None:
        """Overwrite a picture and let it go; one that is not here is no error."""
        found = self._pictures.pop(object_id, None)
        if found is not None:
            wipe(found.data)
            wipe(found.prompt)

    def expire(self, now: datetime) -> None:
        """Drop what is past its term, whatever the records say: they may be out of reach."""
        for object_id in [name for name, one in self._pictures.items() if one.until <= now]:
            self.drop(object_id)

    def clear(self) -> None:
        """Drop everything."""
        for object_id in list(self._pictures):
            self.drop(object_id)

    @property
    def recorded(self) -> Collection[str]:
        """The objects whose records are committed."""
        return [name for name, one in self._pictures.items() if one.is_recorded]

    @property
    def jobs(self) -> list[str]:
        """The jobs whose pictures are here and recorded."""
        return [one.job_id for one in self._pictures.values() if one.is_recorded]


def wipe(data: bytearray) -> None:
    """Overwrite bytes where they lie."""
    data[:] = bytes(len(data))
