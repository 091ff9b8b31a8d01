"""A witness behind HTTP (c2sp.org/tlog-witness)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import httpx

from audit import witness
from audit.cosign import COSIGNING
from audit.errors import NoteInvalid, WitnessInvalid
from audit.note import Verifier
from gateway.ports.witness import WitnessConflict, WitnessRefused, WitnessUnavailable

_BUSY = frozenset({429, 503})


class HttpWitness:
    """The `Witness` that listens at a URL.

    It is believed by its signatures alone: what it answers is verified under the key
    it is known by, its size is bounded, and redirects are not followed.  Proxies
    that the environment names are not used.
    """

    def __init__(self, url: str, vkey: str, *, timeout_s: float = 5.0, ca: Path | None = None) -> None:
        """Open the door; nothing is sent yet.

        Args:
            url: The witness's submission prefix, `http://` or `https://`.
            vkey: Its verifier key: Ed25519 cosignature/v1, or ML-DSA-44.
            timeout_s: How long one call may take in all.
            ca: Certificates (PEM) that its TLS chain must lead to; without, those of the system.

        Raises:
            NoteInvalid: The key is none that cosigns.
            OSError, ValueError: The certificates cannot be read, or the URL is none.
        """
        self.verifier = Verifier.parse(vkey)
        if self.verifier.type not in COSIGNING:
            raise NoteInvalid("witness_key_type", "a key of this type does not cosign")
        self.name = self.verifier.name
        self._url = httpx.URL(f"{url.rstrip('/')}/add-checkpoint")
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise ValueError("a witness has an http or https URL")
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=ca),
            timeout=timeout_s,
            trust_env=False,
            # Verified is what was sent, not what a decoder makes of it.
            headers={"accept-encoding": "identity", "user-agent": "lethe"},
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: str) -> tuple[str, ...]:
        """Return the witness's cosignature lines over `checkpoint`; see the port."""
        try:
            body = witness.Request(old, tuple(proof), checkpoint).write()
        except WitnessInvalid as error:
            raise WitnessRefused(error.code, str(error)) from error
        try:
            async with asyncio.timeout(self._timeout_s):
                status, kind, answer = await self._post(body)
        except TimeoutError as error:
            raise WitnessUnavailable("the witness did not answer in time", code="witness_timeout") from error
        except httpx.TimeoutException as error:
            raise WitnessUnavailable("the witness did not answer in time", code="witness_timeout") from error
        except httpx.HTTPError as error:
            raise WitnessUnavailable("the witness cannot be reached") from error
        return self._read(status, kind, answer, old, checkpoint)

    async def _post(self, body: bytes) -> tuple[int, str, bytes]:
        """Return status, content type and body of the answer, whose length is bounded."""
        headers = {"content-type": "text/plain; charset=utf-8"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
            answer = b""
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > witness.MAX_RESPONSE_BYTES:
                    raise WitnessRefused("witness_response_too_large", "the answer goes on and on")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return response.status_code, kind, answer

    def _read(self, status: int, kind: str, answer: bytes, old: int, checkpoint: str) -> tuple[str, ...]:
        if status == httpx.codes.OK:
            try:
                return witness.cosignatures(answer, checkpoint, self.verifier)
            except WitnessInvalid as error:
                raise WitnessRefused("witness_lied", error.code) from error
        if status == witness.CONFLICT:
            raise _conflict(kind, answer, old, checkpoint)
        if status in _BUSY:
            raise WitnessUnavailable("the witness asks to be left alone for now", code="witness_busy")
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise WitnessUnavailable(f"the witness answers {status}")
        raise WitnessRefused(witness.REFUSALS.get(status, "witness_status"), f"the witness answers {status}")


def _conflict(kind: str, answer: bytes, old: int, checkpoint: str) -> WitnessConflict | WitnessRefused:
    """Return what an answer 409 says.

    With the size that we asked from it can only mean that the witness knows another
    root of it, so that we asked for that very size.  Such an answer need not name it.
    """
    is_same_size = checkpoint.split("\n")[1:2] == [str(old)]
    if kind != witness.SIZE_TYPE:
        return (
            WitnessConflict(old) if is_same_size else WitnessRefused("witness_status", "409 without a size")
        )
    try:
        size = witness.parse_size(answer)
    except WitnessInvalid as error:
        return WitnessRefused("witness_lied", error.code)
    if size == old and not is_same_size:
        return WitnessRefused("witness_lied", "it knows the size that it was asked from")
    return WitnessConflict(size)
