"""The object store in a bucket behind S3's API.

    PREFIX store        marks the prefix as a store, and its layout
    PREFIX abcd...      objects, by their id

obstore moves the bytes, botocore does what obstore has no word for (`s3_bucket`,
docs/decisions/0023).  Every byte here is ciphertext; the store does not know of what.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from gateway.adapters.s3_bucket import (
    ATTEMPTS,
    CONNECT_S,
    THREADS,
    Bucket,
    Credentials,
    Upload,
    codes_in,
    unavailable,
)
from gateway.adapters.threads import finish
from gateway.errors import LetheError, StoreUnavailable
from gateway.ports.objects import ObjectExists, ObjectMissing, StoredBytes
from gateway.settings import ConfigInvalid, S3Section

if TYPE_CHECKING:  # they exist for the type checker only
    from obstore.store import ClientConfig, S3Credential

P = ParamSpec("P")
T = TypeVar("T")

MARKER = "store"
MARKER_TEXT = b"lethe objects, layout 1\n"
CHUNK_BYTES = 1 << 20
PART_BYTES = 8 << 20
"""The most that a put holds; what is no larger is put in one request."""

_NO_BUCKET = "<Code>NoSuchBucket</Code>"
_OBJECT_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class _Doors:
    """Both ways into the bucket, under one set of credentials."""

    who: Credentials
    store: S3Store
    bucket: Bucket


class S3Objects:
    """The `ObjectStore` in a bucket.

    What the store acknowledged is as durable as it promises.  Objects appear whole
    under their id or not at all, and only where the id was free: the store itself
    compares (`If-None-Match: *`), also at the end of a multipart upload.
    """

    def __init__(self, section: S3Section) -> None:
        """Make the doors; `open` also looks behind them.

        Raises:
            ConfigInvalid: The credentials or the certificates cannot be read.
        """
        self._section = section
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        self._read: tuple[int, ...] = self._stamp()
        self._open = self._make_doors(Credentials.read(section.credentials))

    @classmethod
    async def open(cls, section: S3Section) -> S3Objects:
        """Open the store, made if it is new, and refuse a bucket that cannot keep the promises.

        Tried out are both conditional writes, over the marker, and a deletion.

        Raises:
            ConfigInvalid: The credentials or the certificates cannot be read.
            StoreUnavailable: The store does not answer, or may not be used; the detail
                is one of docs/reference/object-stores.md.
        """
        objects = cls(section)
        try:
            await objects._open_store()
        except BaseException:
            objects.close()
            raise
        return objects

    def close(self) -> None:
        """Let the connections go."""
        self._pool.shutdown(wait=False)
        self._open.bucket.close()

    async def put(self, object_id: str, chunks: AsyncIterable[bytes]) -> int:
        """Store `chunks` under `object_id`; see the port.

        The time that `list` tells stays that of the first put.

        Raises:
            ObjectExists: The id holds other bytes.
            StoreUnavailable: The store does not answer; after a lost reply it may hold the object.
        """
        self._need_id(object_id)
        bucket, upload = self._doors().bucket, Upload(self._section.prefix + object_id)
        parts = _cut(chunks, PART_BYTES)
        try:
            async for part, is_last in parts:
                if is_last and not upload.tags:
                    return await self._put_whole(object_id, part.getvalue())
                await self._ask(bucket.send, upload, part)
                del part  # else two would be held while the next is filled
            if not await self._ask(bucket.end, upload):
                await self._need_same(object_id, upload.size, upload.digest.digest())
            return upload.size
        finally:
            await parts.aclose()
            if upload.upload_id:
                # What cannot be aborted now, `list` shows and `delete` aborts.
                with contextlib.suppress(LetheError):
                    await self._ask(bucket.abort, upload)

    async def get(self, object_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes in chunks of at most 1 MiB; see the port.

        Raises:
            ObjectMissing: Nothing is stored under the id.
            StoreUnavailable: The store does not answer, or breaks off.
        """
        self._need_id(object_id)
        async for chunk in self._get(object_id):
            yield chunk

    async def delete(self, object_id: str) -> None:
        """Remove every version, every delete marker and every unfinished upload; see the port.

        Raises:
            StoreUnavailable: The store does not answer; some of it may be gone.
        """
        self._need_id(object_id)
        if not await self._ask(self._doors().bucket.remove, object_id):
            await self._need_store()

    async def list(self) -> AsyncIterator[StoredBytes]:
        """Yield what is stored, in no order; an unfinished upload counts, with a size of zero.

        So the sweeper removes the parts that a crash left behind.
        """
        is_store = False
        with _store_errors():
            async for page in obstore.list(self._doors().store, chunk_size=1000):
                for found in page:
                    is_store |= found["path"] == MARKER
                    if _OBJECT_ID.fullmatch(found["path"]):
                        yield StoredBytes(found["path"], found["size"], found["last_modified"])
        _need(is_store)
        for upload in await self._ask(self._doors().bucket.unfinished):
            name = upload.key.removeprefix(self._section.prefix)
            if _OBJECT_ID.fullmatch(name):
                yield StoredBytes(name, 0, upload.began_at)

    async def versions(self) -> AsyncIterator[str]:
        """Yield the id of everything that the bucket still holds, in no order, perhaps more than once.

        That is objects, older versions, delete markers and unfinished uploads; after
        an erasure, none of what was erased.
        """
        is_store = False
        bucket = self._doors().bucket
        pages = bucket.versions()
        while page := await self._ask(next, pages, None):
            names = [key.removeprefix(self._section.prefix) for key, _ in page]
            is_store |= MARKER in names
            for name in filter(_OBJECT_ID.fullmatch, names):
                yield name
        _need(is_store)
        for upload in await self._ask(bucket.unfinished):
            name = upload.key.removeprefix(self._section.prefix)
            if _OBJECT_ID.fullmatch(name):
                yield name

    # --- putting ---------------------------------------------------------------------------------

    async def _put_whole(self, object_id: str, content: bytes) -> int:
        if not await self._create(object_id, content):
            await self._need_same(object_id, len(content), hashlib.sha256(content).digest())
        return len(content)

    async def _create(self, name: str, content: bytes) -> bool:
        """Put `content`, and return False where the name was taken, be it by us before a lost reply."""
        with _store_errors():
            try:
                await obstore.put_async(self._doors().store, name, content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    async def _need_same(self, object_id: str, size: int, digest: bytes) -> None:
        """Refuse unless the id holds just these bytes."""
        held, seen = hashlib.sha256(), 0
        try:
            async for chunk in self._get(object_id):
                held.update(chunk)
                seen += len(chunk)
                if seen > size:
                    break
        except ObjectMissing as error:
            raise StoreUnavailable("the object went away meanwhile", detail="conflict") from error
        if (seen, held.digest()) != (size, digest):
            raise ObjectExists("the id holds other bytes")

    # --- reading ---------------------------------------------------------------------------------

    async def _get(self, name: str) -> AsyncIterator[bytes]:
        with _store_errors():
            try:
                answer = await obstore.get_async(self._doors().store, name)
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
                # Without its marker the store does not answer.
                if name != MARKER:
                    await self._need_store()
                raise ObjectMissing("nothing is stored under the id") from None
        left = answer.meta["size"]
        with _store_errors():
            async for piece in answer.stream(min_chunk_size=CHUNK_BYTES // 2):
                view = memoryview(piece)
                left -= len(view)
                for start in range(0, len(view), CHUNK_BYTES):
                    yield bytes(view[start : start + CHUNK_BYTES])
        if left:
            raise StoreUnavailable("the object store broke off", detail="cut_short")

    async def _marker(self) -> bytes:
        """Return the marker's text, nothing where there is none."""
        try:
            return b"".join([chunk async for chunk in self._get(MARKER)])
        except ObjectMissing:
            return b""

    async def _need_store(self) -> None:
        _need(await self._marker() == MARKER_TEXT)

    # --- opening ---------------------------------------------------------------------------------

    async def _open_store(self) -> None:
        bucket = self._doors().bucket
        await self._ask(bucket.refuse_locks)
        if not await self._marker() and await self._is_empty():
            await self._create(MARKER, MARKER_TEXT)
        await self._need_store()
        if await self._create(MARKER, MARKER_TEXT):
            raise StoreUnavailable("the store overwrites what it should keep", detail="no_conditional_put")
        if not await self._ask(bucket.ends_conditionally, MARKER, MARKER_TEXT):
            raise StoreUnavailable("the store overwrites what it should keep", detail="no_conditional_end")
        # An ordinary object, so that the sweeper takes what a crash leaves here.
        trial = os.urandom(16).hex()
        await self._create(trial, b"trial")
        await self.delete(trial)

    async def _is_empty(self) -> bool:
        with _store_errors():
            async for page in obstore.list(self._doors().store, chunk_size=1):
                return not page
        return True

    def _make_doors(self, who: Credentials) -> _Doors:
        section = self._section
        wait = timedelta(seconds=section.timeout_s)
        identity: S3Credential = {
            "access_key_id": who.access,
            "secret_access_key": who.secret,
            "token": who.session,
            "expires_at": None,
        }
        options: ClientConfig = {
            "allow_http": section.unsafe_http,
            "connect_timeout": min(timedelta(seconds=CONNECT_S), wait),
            "timeout": wait,
            "user_agent": "lethe",
        }
        try:
            if section.ca is not None:
                options["root_certificate"] = section.ca.read_bytes()
            store = S3Store(
                section.bucket,
                prefix=section.prefix or None,
                # Not `endpoint`: over that one the environment's AWS_ENDPOINT_URL_S3 would win.
                aws_endpoint_url_s3=_endpoint(section),
                region=section.region,
                virtual_hosted_style_request=not section.path_style,
                # Said although they are the defaults: obstore listens to AWS_* in the environment.
                conditional_put="etag",
                skip_signature=False,
                credential_provider=lambda: identity,
                client_options=options,
                retry_config={
                    "max_retries": ATTEMPTS - 1,
                    "retry_timeout": wait,
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=2),
                        "base": 2,
                    },
                },
            )
            return _Doors(who, store, Bucket(section, who))
        except (OSError, ValueError, BaseError) as error:
            raise ConfigInvalid("objects.s3: the endpoint or the certificates cannot be used") from error

    def _doors(self) -> _Doors:
        """Return the doors, made again where the credentials file has changed and can be read."""
        with contextlib.suppress(ConfigInvalid, OSError):
            stamp = self._stamp()
            if stamp != self._read:
                who = Credentials.read(self._section.credentials)
                if who != self._open.who:
                    # Calls under way end through the old doors.
                    self._open = self._make_doors(who)
                self._read = stamp
        return self._open

    def _stamp(self) -> tuple[int, ...]:
        try:
            info = self._section.credentials.stat()
        except OSError as error:
            raise ConfigInvalid("objects.s3.credentials cannot be read") from error
        return info.st_ino, info.st_mtime_ns, info.st_size

    async def _ask(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of botocore in a thread of our own and wait until it is over, even when cancelled.

        A caller that went on before would abort an upload whose part is still under way.
        """
        return await finish(self._pool, work, *args, **kwargs)

    @staticmethod
    def _need_id(object_id: str) -> None:
        if _OBJECT_ID.fullmatch(object_id) is None:
            raise ValueError("an object id is 32 lowercase hex characters")


def _need(is_store: bool) -> None:
    if not is_store:
        raise StoreUnavailable("the bucket holds no store, or something else", detail="not_a_store")


def _endpoint(section: S3Section) -> str:
    """Return where obstore goes: with the bucket in the host's name unless it is in the path."""
    if section.path_style:
        return section.url
    parts = urlsplit(section.url)
    return parts._replace(netloc=f"{section.bucket}.{parts.netloc}").geturl()


async def _cut(chunks: AsyncIterable[bytes], size: int) -> AsyncGenerator[tuple[io.BytesIO, bool], None]:
    """Yield (part, is last): of `size` bytes each, the last as long as it is; it is empty only if all is.

    A `BytesIO` is what botocore sends without a copy.
    """
    part = io.BytesIO()
    async for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if part.tell() == size:
                yield part, False
                part = io.BytesIO()
            taken = view[: size - part.tell()]
            part.write(taken)
            view = view[len(taken) :]
    yield part, True


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Turn what obstore raises into `StoreUnavailable`."""
    try:
        yield
    except (BaseError, OSError) as error:
        raise unavailable(*codes_in(str(error))) from error
