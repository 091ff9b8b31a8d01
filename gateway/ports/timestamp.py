"""The door to a timestamping authority (RFC 3161): somebody else's clock over a checkpoint."""

from __future__ import annotations

from typing import Protocol


class Timestamps(Protocol):
    """Says that a checkpoint was there at a time; optional, and nothing waits for it.

    A call may be repeated: each gives a token of its own.
    """

    async def stamp(self, checkpoint: str) -> bytes:
        """Return the authority's response (DER, a TimeStampResp) over the signed note, verified.

        Raises:
            TimestampUnavailable: No answer in time.
            TimestampInvalid: It refuses, or what it answered is no token of its over this note.
        """


class TimestampUnavailable(Exception):
    """The authority cannot be reached, or takes too long."""

    code = "timestamp_unavailable"


class TimestampInvalid(Exception):
    """A response that is no token of the authority over the note.

    `code` is timestamp_malformed, timestamp_refused (the authority says no, or HTTP
    does), timestamp_too_large, timestamp_false (certificate, signature, nonce or content),
    or timestamp_roots (the authority's certificates cannot be read).
    """

    def __init__(self, code: str, message: str = "") -> None:
        """Keep the code; the message continues it as a sentence."""
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
