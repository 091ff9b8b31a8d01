"""Epoch keys in the transit engine of OpenBao or Vault, over its documented HTTP API.  Experimental.

Each epoch has a named key `lethe-NAMESPACE-NAME` of the type `aes256-gcm96`, not
exportable and without plaintext backup; NAME is `name_of(epoch)`.  The engine
creates a missing key when it is asked to encrypt and the policy lets it, so the key
is looked for first, and the policy must not grant `create` on `encrypt/*`
(docs/reference/key-services.md).

Rule:
    https://openbao.org/api-docs/secret/transit/: keys, keys/config, encrypt, decrypt.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from gateway.adapters.keys_split import name_of, read_names
from gateway.adapters.secret_file import read_secret
from gateway.errors import KeyServiceUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed, UnwrapFailed
from gateway.vault.box import prefixed

ATTEMPTS = 4
PAUSE_S = 0.1

_WRAP_LABEL = b"lethe.dev/transit/wrap/v1"
_DETAILS = {403: "permission_denied", 429: "throttled", 473: "standby", 503: "sealed"}
_AGAIN = {412, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class TransitKeys:
    """The `FarKeys` over a transit engine.  The credential is read anew for each call: agents renew it."""

    client: httpx.AsyncClient
    token_file: Path
    mount: str = "transit"
    namespace: str = "default"
    has_copies: bool = True
    pause_s: float = PAUSE_S

    @classmethod
    def connect(
        cls,
        *,
        url: str,
        token_file: Path,
        mount: str = "transit",
        namespace: str = "default",
        ca: Path | None = None,
        has_copies: bool = True,
        timeout_s: float = 5.0,
        pause_s: float = PAUSE_S,
    ) -> TransitKeys:
        """Return the door to the engine; nothing is asked yet.

        Raises:
            OSError: The CA cannot be read.
        """
        context = ssl.create_default_context(cafile=ca) if url.startswith("https") else True
        client = httpx.AsyncClient(
            base_url=url,
            verify=context,
            timeout=timeout_s,
            trust_env=False,
            headers={"user-agent": "lethe"},
        )
        return cls(client, token_file, mount, namespace, has_copies, pause_s)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return "transit"

    @property
    def is_experimental(self) -> bool:
        """Yes: tried against a double of the documented API only."""
        return True

    @property
    def destroy_latency(self) -> timedelta:
        """None in the engine; its storage may lie in backups."""
        return timedelta(0)

    @property
    def copies_outside_our_control(self) -> bool:
        """As declared; yes unless the operator says that the engine's storage is never copied."""
        return self.has_copies

    async def create(self, epoch: Epoch) -> None:
        """Make the epoch key; the engine leaves one that is there as it is."""
        wanted = {
            "type": "aes256-gcm96",
            "exportable": False,
            "allow_plaintext_backup": False,
            "derived": False,
        }
        await self._ask("POST", f"keys/{self._name(epoch)}", wanted)

    async def destroy(self, epoch: Epoch) -> None:
        """Allow the deletion of the epoch key, and delete it."""
        key = f"keys/{self._name(epoch)}"
        if await self._exists(epoch):
            await self._ask("POST", f"{key}/config", {"deletion_allowed": True}, pass_over={400, 404})
            await self._ask("DELETE", key, pass_over={400, 404})
            if await self._exists(epoch):
                raise KeyServiceUnavailable("the key is still there", detail="not_deleted")

    async def epochs(self) -> set[Epoch]:
        """List the epochs that have a key."""
        prefix = f"lethe-{self.namespace}-"
        # The documented form of LIST for clients without that verb.
        answer = await self._ask("GET", "keys?list=true", pass_over={404})
        names = [] if answer.status_code == 404 else _data(answer)["keys"]
        return set(read_names(name.removeprefix(prefix) for name in names if name.startswith(prefix)))

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return `key` encrypted under the epoch key, in the engine's form; see the port."""
        await self._need(epoch)
        asked = {"plaintext": _b64(key), "associated_data": _aad(epoch, binding)}
        answer = await self._ask("POST", f"encrypt/{self._name(epoch)}", asked)
        return str(_data(answer)["ciphertext"]).encode()

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return the key inside `wrapped`; see the port."""
        await self._need(epoch)
        if not (wrapped.startswith(b"vault:v") and wrapped.isascii()):
            raise UnwrapFailed("not of the engine's form")
        asked = {"ciphertext": wrapped.decode(), "associated_data": _aad(epoch, binding)}
        answer = await self._ask("POST", f"decrypt/{self._name(epoch)}", asked, pass_over={400})
        if answer.status_code == 400:
            # Said of a missing key as well as of a bad text.
            await self._need(epoch)
            raise UnwrapFailed("a wrapped key does not open")
        return base64.b64decode(_data(answer)["plaintext"])

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    def _name(self, epoch: Epoch) -> str:
        return f"lethe-{self.namespace}-{name_of(epoch)}"

    async def _exists(self, epoch: Epoch) -> bool:
        answer = await self._ask("GET", f"keys/{self._name(epoch)}", pass_over={404})
        return answer.status_code != 404

    async def _need(self, epoch: Epoch) -> None:
        if not await self._exists(epoch):
            raise EpochDestroyed("the epoch key does not exist")

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        pass_over: frozenset[int] | set[int] = frozenset(),
    ) -> httpx.Response:
        """Return the engine's answer; what may pass is asked again, with growing pauses.

        Raises:
            KeyServiceUnavailable: It refuses, or does not answer.
        """
        fault: Exception | None = None
        detail = "timeout"
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(self.pause_s * 2 ** (attempt - 1))
            credential, _version = await asyncio.to_thread(read_secret, self.token_file, "credential")
            try:
                answer = await self.client.request(
                    method, f"/v1/{self.mount}/{path}", json=body, headers={"X-Vault-Token": credential}
                )
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                fault, detail = (
                    error,
                    "timeout" if isinstance(error, httpx.TimeoutException) else "unreachable",
                )
                continue
            if answer.is_success or answer.status_code in pass_over:
                return answer
            fault, detail = None, _DETAILS.get(answer.status_code, f"http_{answer.status_code}")
            if answer.status_code not in _AGAIN:
                break
        raise KeyServiceUnavailable("the transit engine does not answer", detail=detail) from fault


def _aad(epoch: Epoch, binding: bytes) -> str:
    return _b64(prefixed(_WRAP_LABEL, str(epoch).encode(), binding))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _data(answer: httpx.Response) -> dict[str, Any]:
    """Return the `data` of an answer.

    Raises:
        KeyServiceUnavailable: It has none.
    """
    try:
        return dict(answer.json()["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise KeyServiceUnavailable("the transit engine answers oddly", detail="answer_malformed") from error
