"""Epoch keys in AWS KMS: one symmetric key for each epoch, found by its alias.

    alias/lethe/NAMESPACE/NAME    the epoch's key; NAME is `name_of(epoch)`
    tag lethe-epoch               the epoch's text form, for people

The alias decides a race: KMS takes it once, and who comes second schedules the key
that it made in vain for deletion.  `ScheduleKeyDeletion` waits seven days at the
least and can be cancelled until then, so these days are the `destroy_latency`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from gateway.adapters.keys_split import name_of, read_names
from gateway.errors import KeyServiceUnavailable
from gateway.ports.keys import Epoch, EpochDestroyed, UnwrapFailed

T = TypeVar("T")

ATTEMPTS = 5
_GONE = {"PendingDeletion", "PendingReplicaDeletion"}
_BAD_BOX = {"InvalidCiphertextException", "IncorrectKeyException"}
_BAD_STATE = {"KMSInvalidStateException", "DisabledException"}


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """The `FarKeys` over KMS.  Credentials come from where the AWS SDK looks for them."""

    client: Any
    namespace: str
    waiting_days: int = 7
    has_copies: bool = False
    deadline_s: float = 20.0

    @classmethod
    def connect(
        cls,
        *,
        region: str,
        namespace: str,
        endpoint: str | None = None,
        waiting_days: int = 7,
        has_copies: bool = False,
        timeout_s: float = 5.0,
    ) -> AwsKeys:
        """Return the door to KMS; nothing is asked yet.

        Throttled and failed calls are repeated with growing pauses by the SDK.
        """
        config = Config(
            region_name=region,
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        client = boto3.client("kms", config=config, endpoint_url=endpoint)
        return cls(client, namespace, waiting_days, has_copies, timeout_s * ATTEMPTS)

    @property
    def name(self) -> str:
        """The adapter's name."""
        return "aws"

    @property
    def is_experimental(self) -> bool:
        """Yes: tried against a double of the API's shape, which does not enforce deletion."""
        return True

    @property
    def destroy_latency(self) -> timedelta:
        """The waiting period of `ScheduleKeyDeletion`."""
        return timedelta(days=self.waiting_days)

    @property
    def copies_outside_our_control(self) -> bool:
        """As declared; KMS itself exports no key that it made."""
        return self.has_copies

    async def create(self, epoch: Epoch) -> None:
        """Make the epoch key, unless its alias is there."""
        await self._ask(lambda: self._create(epoch))

    async def destroy(self, epoch: Epoch) -> None:
        """Schedule the epoch key for deletion, and take its alias away."""
        await self._ask(lambda: self._destroy(epoch))

    async def epochs(self) -> set[Epoch]:
        """List the epochs that have an alias."""
        return await self._ask(self._epochs)

    async def wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        """Return `key` encrypted under the epoch key; see the port."""
        return await self._ask(lambda: self._wrap(epoch, key, binding))

    async def unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        """Return the key inside `wrapped`; see the port."""
        return await self._ask(lambda: self._unwrap(epoch, wrapped, binding))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self.client.close)

    def _alias(self, epoch: Epoch) -> str:
        return f"alias/lethe/{self.namespace}/{name_of(epoch)}"

    def _create(self, epoch: Epoch) -> None:
        alias = self._alias(epoch)
        if self._find(alias) is not None:
            return
        made = self.client.create_key(
            Description="lethe epoch key",
            KeySpec="SYMMETRIC_DEFAULT",
            Tags=[{"TagKey": "lethe-epoch", "TagValue": epoch.text()}],
        )
        key_id = made["KeyMetadata"]["KeyId"]
        try:
            self.client.create_alias(AliasName=alias, TargetKeyId=key_id)
        except ClientError as error:
            self._schedule(key_id)
            if _code(error) != "AlreadyExistsException":
                raise

    def _destroy(self, epoch: Epoch) -> None:
        alias = self._alias(epoch)
        key_id = self._find(alias)
        if key_id is None:
            return
        # The alias last: with it gone first, a crash would leave a key that nobody finds again.
        self._schedule(key_id)
        with _unless("NotFoundException"):
            self.client.delete_alias(AliasName=alias)

    def _schedule(self, key_id: str) -> None:
        try:
            self.client.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=self.waiting_days)
        except ClientError as error:
            if _code(error) not in _BAD_STATE or self._state(key_id) not in _GONE:
                raise

    def _find(self, alias: str) -> str | None:
        try:
            return str(self.client.describe_key(KeyId=alias)["KeyMetadata"]["KeyId"])
        except ClientError as error:
            if _code(error) == "NotFoundException":
                return None
            raise

    def _state(self, key_id: str) -> str:
        return str(self.client.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"])

    def _epochs(self) -> set[Epoch]:
        prefix = f"alias/lethe/{self.namespace}/"
        pages = self.client.get_paginator("list_aliases").paginate()
        names = [alias["AliasName"] for page in pages for alias in page["Aliases"]]
        return set(read_names(name.removeprefix(prefix) for name in names if name.startswith(prefix)))

    def _wrap(self, epoch: Epoch, key: bytes, binding: bytes) -> bytes:
        return self._use(
            epoch,
            lambda alias: bytes(
                self.client.encrypt(KeyId=alias, Plaintext=key, EncryptionContext=_context(epoch, binding))[
                    "CiphertextBlob"
                ]
            ),
        )

    def _unwrap(self, epoch: Epoch, wrapped: bytes, binding: bytes) -> bytes:
        return self._use(
            epoch,
            lambda alias: bytes(
                self.client.decrypt(
                    KeyId=alias,
                    # The API takes no empty text; this one opens as little.
                    CiphertextBlob=wrapped or b"\0",
                    EncryptionContext=_context(epoch, binding),
                )["Plaintext"]
            ),
        )

    def _use(self, epoch: Epoch, use: Callable[[str], T]) -> T:
        alias = self._alias(epoch)
        try:
            return use(alias)
        except ClientError as error:
            code = _code(error)
            if code in _BAD_BOX:
                # KMS looks at the text before the key: without a key, no text is wrong.
                if self._find(alias) is None:
                    raise EpochDestroyed("the epoch key does not exist") from error
                raise UnwrapFailed("a wrapped key does not open") from error
            if code == "AccessDeniedException" and self._opens(alias):
                # Said of a text that names a key we may not use; ours we may: the text is wrong.
                raise UnwrapFailed("a wrapped key does not open") from error
            if code == "NotFoundException" or (code in _BAD_STATE and self._state(alias) in _GONE):
                raise EpochDestroyed("the epoch key does not exist") from error
            raise

    def _opens(self, alias: str) -> bool:
        """Tell whether what the key seals now opens again."""
        try:
            sealed = self.client.encrypt(KeyId=alias, Plaintext=b"probe")["CiphertextBlob"]
            return bool(self.client.decrypt(KeyId=alias, CiphertextBlob=sealed)["Plaintext"] == b"probe")
        except ClientError:
            return False

    async def _ask(self, work: Callable[[], T]) -> T:
        """Run calls to KMS in a thread; what KMS refuses, the key service does not answer."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(work), self.deadline_s)
        except ClientError as error:
            raise KeyServiceUnavailable("KMS refuses", detail=_snake(_code(error))) from error
        except BotoCoreError as error:
            raise KeyServiceUnavailable("KMS does not answer", detail=_snake(type(error).__name__)) from error
        except TimeoutError:
            raise KeyServiceUnavailable("KMS does not answer in time", detail="timeout") from None


def _context(epoch: Epoch, binding: bytes) -> dict[str, str]:
    """Return what is authenticated with the key; KMS logs it in clear, so the binding is a digest."""
    return {"lethe:epoch": epoch.text(), "lethe:binding": hashlib.sha256(binding).hexdigest()}


@contextlib.contextmanager
def _unless(code: str) -> Iterator[None]:
    """Pass over a refusal that says that somebody else was first."""
    try:
        yield
    except ClientError as error:
        if _code(error) != code:
            raise


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _snake(name: str) -> str:
    return re.sub(
        r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removesuffix("Exception").removesuffix("Error")
    ).lower()
