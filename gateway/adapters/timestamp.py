"""A timestamping authority behind HTTP (RFC 3161, section 3.4); needs the extra `timestamp`.

A token is over SHA-512 of the signed note, byte for byte.  Who has the note, the
token and the authority's root certificate verifies it without us:

    openssl ts -verify -data checkpoint -in checkpoint.tsr -CAfile root.pem

Responses are read as strict DER: one whose certificates do not stand in the order of
a DER set, as `openssl ts` writes them when it is told to send a chain, is refused.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from cryptography import x509

from gateway.ports.timestamp import TimestampInvalid, TimestampUnavailable

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

MAX_RESPONSE_BYTES = 64 * 1024
_GRANTED = 0
_HEADERS = {
    "content-type": "application/timestamp-query",
    "accept-encoding": "identity",
    "user-agent": "lethe",
}


class HttpTimestamps:
    """The `Timestamps` of an authority at a URL, believed by its root certificates alone."""

    def __init__(self, url: str, roots: bytes, *, timeout_s: float = 10.0, ca: Path | None = None) -> None:
        """Open the door; nothing is sent yet.

        Args:
            url: Where the authority takes requests.
            roots: The certificates (PEM) that its signatures must lead to.
            timeout_s: How long one call may take in all.
            ca: Certificates (PEM) for its TLS; without, those of the system.

        Raises:
            TimestampInvalid: There is no certificate in `roots`.
            OSError: `ca` cannot be read.
        """
        self._url = url
        self._roots = read_roots(roots)
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=ca), timeout=timeout_s, trust_env=False, headers=_HEADERS
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def stamp(self, checkpoint: str) -> bytes:
        """Return the authority's response over the signed note; see the port."""
        from rfc3161_client import TimestampRequestBuilder

        request = TimestampRequestBuilder().data(checkpoint.encode()).nonce(nonce=True).build()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._post(request.as_bytes())
        except (TimeoutError, httpx.HTTPError) as error:
            raise TimestampUnavailable("the timestamping authority does not answer") from error
        _check(response, checkpoint, self._roots, request.nonce)
        return response

    async def _post(self, request: bytes) -> bytes:
        async with self._client.stream("POST", self._url, content=request) as answer:
            if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise TimestampUnavailable(f"the timestamping authority answers {answer.status_code}")
            if answer.status_code != httpx.codes.OK:
                raise TimestampInvalid("timestamp_refused", f"it answers {answer.status_code}")
            body = b""
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise TimestampInvalid("timestamp_too_large", "the answer goes on and on")
            return body


def verify(response: bytes, checkpoint: str, roots: bytes) -> datetime:
    """Return the time, aware and in UTC, at which an authority saw the signed note.

    Certificates need to have been valid then, not now.

    Args:
        response: What `stamp` returned.
        checkpoint: The note, byte for byte.
        roots: The certificates (PEM) of authorities that are believed.

    Raises:
        TimestampInvalid: It is not over this note, or not by one of these.
    """
    return _check(response, checkpoint, read_roots(roots), None)


def read_roots(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates of a PEM text.

    Raises:
        TimestampInvalid: There is none.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TimestampInvalid("timestamp_roots", "there is no certificate in it") from error


def _check(response: bytes, checkpoint: str, roots: list[x509.Certificate], nonce: int | None) -> datetime:
    from rfc3161_client import VerificationError, VerifierBuilder

    token = _read(response)
    # A fresh list: the builder keeps the one that it is given and adds to it.
    builder = VerifierBuilder(roots=list(roots), nonce=nonce)
    try:
        builder.build().verify_message(token, checkpoint.encode())
        at = token.tst_info.gen_time
    except (VerificationError, ValueError) as error:
        raise TimestampInvalid("timestamp_false", "no token of a known authority over this note") from error
    return at


def _read(response: bytes) -> TimeStampResponse:
    """Return the response, which holds a token.

    Raises:
        TimestampInvalid: It is none, or says no.
    """
    from rfc3161_client import decode_timestamp_response

    try:
        token = decode_timestamp_response(response)
        status = token.status
    except ValueError as error:
        raise TimestampInvalid("timestamp_malformed", "not a response of RFC 3161") from error
    if status != _GRANTED:
        raise TimestampInvalid("timestamp_refused", f"the authority answers with status {status}")
    return token
