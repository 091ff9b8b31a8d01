"""What every backend behind HTTP has in common: how it is asked, what is believed, how a job is stopped.

A backend is a stranger, as `inference_grpc` says.  Its answers are bounded, are read as they
came (no redirect, no cookie, no content coding) and are never quoted: refusals carry
codes of ours.  Each request has a connection of its own, so that closing it ends it, and
nothing links one job to the next.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from gateway.adapters.secret_file import read_secret
from gateway.errors import (
    BackendProtocol,
    BackendUnavailable,
    ImageRejected,
    JobCancelled,
    KeyServiceUnavailable,
    LetheError,
)

MAX_RESULT_BYTES: Final = 64 << 20
MAX_JSON_BYTES: Final = 1 << 20
"""Of an answer that holds no picture."""
CALL_S: Final = 10.0
"""How long any call may take but the one that works on a picture."""
LOOK_S: Final = 60.0
"""How long an answer to `describe` is believed: the gateway looks every other second, and strangers count."""

JSON: Final = frozenset({"application/json"})
EXTENSIONS: Final = {"jpeg": "jpg", "png": "png", "webp": "webp"}

_BUSY: Final = frozenset({408, 425, 429, 503, 529})
_NO_ENTRY: Final = frozenset({401, 403})
_UNREADABLE: Final = frozenset({400, 415, 422})
_SECONDS: Final = re.compile(r"[0-9]{1,5}")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Credential:
    """Where a credential lies and how it is announced; read anew for each call, so that it may change."""

    file: Path
    scheme: str = "Bearer"

    async def header(self) -> dict[str, str]:
        """Return the header that carries it.

        Raises:
            BackendUnavailable: The file is not there, not ours alone, or holds nothing.
        """
        detail = ""
        try:
            secret, _version = await asyncio.to_thread(read_secret, self.file, "credential")
        except KeyServiceUnavailable as error:
            detail = error.detail
        if detail:
            raise BackendUnavailable("the credential cannot be used", detail=detail)
        return {"authorization": f"{self.scheme} {secret}"}


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to believe, and who we are.

    `ca` holds the CA that the backend's certificate must chain to, or that very certificate:
    then no other is believed.  Without it, the system's.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return what checks the other side.

        Raises:
            OSError: A file cannot be read, or holds no certificate (`ssl.SSLError`).
        """
        context = ssl.create_default_context(cafile=self.ca)
        if self.ca is not None:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status and body, the latter only where it is of a kind that was asked for."""

    status: int
    kind: str
    body: bytes = field(repr=False)


class HttpDoor:
    """Asks one server, and believes what it may.

    Nothing but `url` is contacted: no proxy from the environment, no redirect.  It is told
    no version of ours and gets its cookies never back.
    """

    def __init__(
        self, url: str, *, timeout_s: float, tls: Tls | None = None, credential: Credential | None = None
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            url: Where the API begins; plain http is for loopback only.
            timeout_s: How long a job may take from first byte to last.
            tls: Whom to believe; without it, the system's CAs.
            credential: What to show.

        Raises:
            OSError: A certificate cannot be read.
            ValueError: The URL is none that we would send a picture to.
        """
        self._base = httpx.URL(f"{url.rstrip('/')}/")
        if self._base.scheme not in {"http", "https"} or not self._base.host or self._base.userinfo:
            raise ValueError("a backend has an http or https URL without a name in it")
        if self._base.scheme == "http" and not _is_loopback(self._base.host):
            raise ValueError("plain http is for loopback only")
        tls = tls or Tls()
        self.timeout_s = timeout_s
        self._credential = credential
        self._server_name = tls.server_name
        self._is_closed = False
        self._client = httpx.AsyncClient(
            verify=tls.context() if self._base.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=timeout_s,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"accept-encoding": "identity", "connection": "close", "user-agent": "lethe"},
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int = MAX_JSON_BYTES,
        kinds: Collection[str] = JSON,
        passes: Collection[int] = (),
        begins: bool = False,
        is_long: bool = False,
        **request: Any,
    ) -> Answer:
        """Return the answer to one request, which is made once and never repeated.

        Args:
            method: Of HTTP.
            path: Below the URL; made of what we chose or checked, never of what we were told.
            max_bytes: The longest body that is read.
            kinds: The content types that are believed; where it is empty, no body is.
            passes: Statuses that are no refusal, beside 2xx.
            begins: Whether the request begins work on a picture.  Where such a one is lost after
                it was sent, nobody knows whether it runs, and to send it again might run it twice.
            is_long: Whether it may take as long as a job, for the picture that goes or comes.
            request: What httpx sends: `json`, `files`, `data`, `params`, `headers`.

        Raises:
            BackendUnavailable: It cannot be reached or has no time, and did not begin.
            BackendProtocol: It answers something else, or may have begun and does not answer.
            ImageRejected: The picture is too large for it.
        """
        if self._is_closed:
            raise BackendUnavailable(detail="closed")
        sent = _Sent()
        limit_s = self.timeout_s if begins or is_long else min(CALL_S, self.timeout_s)
        refusal: LetheError
        try:
            async with asyncio.timeout(limit_s):
                headers = await self._credential.header() if self._credential else {}
                headers |= request.pop("headers", {})
                extensions: dict[str, Any] = {"trace": sent.trace}
                if self._server_name:
                    extensions["sni_hostname"] = self._server_name
                async with self._client.stream(
                    method, self._base.join(path), headers=headers, extensions=extensions, **request
                ) as response:
                    return await _read(response, max_bytes, kinds, passes, begins=begins)
        except TimeoutError:
            refusal = _lost("deadline", is_safe=not (begins and sent.is_whole))
        except httpx.ConnectError as error:
            refusal = BackendUnavailable(detail="certificate" if _is_tls(error) else "unreachable")
        except httpx.HTTPError:
            refusal = _lost("cut_off", is_safe=not (begins and sent.is_whole))
        except RuntimeError:
            # What httpx says of a client that was closed meanwhile.
            if not self._is_closed:
                raise
            refusal = BackendUnavailable(detail="closed")
        # Raised out here, so that no chain leads to the backend's words.
        raise refusal

    def path_of(self, url: object) -> str:
        """Return the path of a URL that we were given, if it leads to this very server.

        Raises:
            BackendProtocol: It leads elsewhere.
        """
        found: httpx.URL | None = None
        with contextlib.suppress(httpx.InvalidURL):
            found = httpx.URL(url) if isinstance(url, str) else None
        if found is None or _origin(found) != _origin(self._base) or found.userinfo:
            raise BackendProtocol(detail="elsewhere")
        return found.raw_path.decode("ascii")

    async def close(self) -> None:
        """Let the connections go."""
        self._is_closed = True
        await self._client.aclose()


class _Sent:
    """Whether a request has left us wholly."""

    is_whole = False

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        self.is_whole = self.is_whole or event.endswith("send_request_body.complete")


async def _read(
    response: httpx.Response,
    max_bytes: int,
    kinds: Collection[str],
    passes: Collection[int],
    *,
    begins: bool,
) -> Answer:
    if not (response.is_success or response.status_code in passes):
        raise _refused(response, begins=begins)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not response.is_success or not kinds:
        return Answer(response.status_code, kind, b"")
    demand(response.headers.get("content-encoding", "identity") == "identity", "encoded")
    demand(kind in kinds, "content_type")
    announced = response.headers.get("content-length", "")
    demand(not announced.isdecimal() or int(announced[:20]) <= max_bytes, "answer_too_large")
    body = bytearray()
    async for chunk in response.aiter_raw():
        demand(len(body) + len(chunk) <= max_bytes, "answer_too_large")
        body += chunk
    return Answer(response.status_code, kind, bytes(body))


def _refused(response: httpx.Response, *, begins: bool) -> LetheError:
    """Return what a status says; what a stranger writes beside it is not read."""
    status = response.status_code
    if status in _BUSY:
        after = response.headers.get("retry-after", "")
        return BackendUnavailable(
            detail="busy", **({"retry_after_s": after} if _SECONDS.fullmatch(after) else {})
        )
    if status in _NO_ENTRY:
        return BackendUnavailable(detail="credential_refused")
    if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
        return ImageRejected(detail="too_large")
    if status in _UNREADABLE:
        return BackendProtocol(detail="message_refused")
    if response.is_redirect:
        return BackendProtocol(detail="redirect")
    if response.is_server_error:
        return _lost(f"status_{status}", is_safe=not begins)
    return BackendProtocol(detail=f"status_{status}")


def _lost(detail: str, *, is_safe: bool) -> LetheError:
    return BackendUnavailable(detail=detail) if is_safe else BackendProtocol(detail=detail)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


# --- what is believed ------------------------------------------------------------------------------


def demand(holds: object, detail: str) -> None:
    """Refuse the backend unless `holds`; `detail` names what is wrong, never what was sent."""
    if not holds:
        raise BackendProtocol(detail=detail)


async def parsed(body: bytes) -> dict[str, Any]:
    """Return the object that is the body, read away from the loop: it may hold a picture."""
    try:
        tree = await asyncio.to_thread(json.loads, body)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise BackendProtocol(detail="not_json")
    return tree


async def decoded(text: object, max_bytes: int) -> bytes:
    """Return the bytes of a picture in base64.

    Raises:
        BackendProtocol: It is none, or too long.
    """
    if not isinstance(text, str) or not text:
        raise BackendProtocol(detail="no_result")
    demand(len(text) <= max_bytes // 3 * 4 + 4, "result_too_large")
    image: bytes | None = None
    with contextlib.suppress(ValueError):
        image = await asyncio.to_thread(base64.b64decode, text, validate=True)
    if not image:
        raise BackendProtocol(detail="bad_base64")
    return image


def image_type(image: bytes) -> str:
    """Return the type that a picture's first bytes announce; the scrubber finds out whether it is true.

    Raises:
        BackendProtocol: They announce none that a result may have.
    """
    for magic, name in ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"RIFF", "webp")):
        if image.startswith(magic):
            return name
    raise BackendProtocol(detail="bad_image_type")


# --- jobs that run ---------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Run:
    """One `generate` that is not over."""

    refusal: LetheError | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, refusal: LetheError) -> None:
        """End it with the refusal; the first one counts."""
        self.refusal = self.refusal or refusal
        self.stopped.set()

    async def until_stopped(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what `work` does, and end it at once where the run is stopped: its call is closed.

        Raises:
            LetheError: What the run was stopped with, or what the work was refused with.
        """
        if self.refusal is not None:
            work.close()
            raise self.refusal
        working, waiting = asyncio.create_task(work), asyncio.create_task(self.stopped.wait())
        try:
            await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done() and self.refusal is not None:
                raise self.refusal
        finally:
            for task in (working, waiting):
                task.cancel()
            await asyncio.gather(working, waiting, return_exceptions=True)
        return working.result()


LOOKS: Final = 4
"""How many looks in a row may fail before a job counts as lost."""


async def patiently(look: Callable[[], Awaitable[_T]], pause_s: float) -> _T:
    """Return what `look` finds, which may fail a few times: to look changes nothing.

    Raises:
        BackendUnavailable: It failed too often.
    """
    for _ in range(LOOKS - 1):
        with contextlib.suppress(BackendUnavailable):
            return await look()
        await asyncio.sleep(pause_s)
    return await look()


class Runs:
    """The jobs that run through one door, by pseudonym.

    An order under way is not torn off when its job stops: the server may take it all the same,
    and who then has the job deleted must come after it.
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._orders: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    def begin(self, job_pseudonym: str) -> Run:
        """Return a new run; one that is under way by the same pseudonym ends."""
        self.stop(job_pseudonym)
        run = self._runs[job_pseudonym] = Run()
        if self._is_closed:
            run.stop(BackendUnavailable(detail="closed"))
        return run

    def end(self, job_pseudonym: str, run: Run) -> None:
        """Note that a run is over."""
        if self._runs.get(job_pseudonym) is run:
            del self._runs[job_pseudonym]

    def stop(self, job_pseudonym: str) -> None:
        """End a job's run as cancelled, if there is one."""
        run = self._runs.pop(job_pseudonym, None)
        if run is not None:
            run.stop(JobCancelled())

    async def order(self, job_pseudonym: str, give: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Give an order, which goes on where this is cancelled."""
        ordering = self._orders[job_pseudonym] = asyncio.create_task(give())
        ordering.add_done_callback(partial(self._ordered, job_pseudonym))
        await asyncio.shield(ordering)

    def _ordered(self, job_pseudonym: str, order: asyncio.Task[None]) -> None:
        if self._orders.get(job_pseudonym) is order:
            del self._orders[job_pseudonym]
        if not order.cancelled():
            order.exception()  # whoever gave it knows, if anybody still waits

    async def settled(self, job_pseudonym: str) -> None:
        """Return once no order for the job is under way."""
        if job_pseudonym in self._orders:
            await asyncio.wait({self._orders[job_pseudonym]})

    def need_open(self) -> None:
        """Return unless the door is closed.

        Raises:
            BackendUnavailable: It is.
        """
        if self._is_closed:
            raise BackendUnavailable(detail="closed")

    async def close(self) -> None:
        """End every run as unavailable, and tear off what is under way."""
        self._is_closed = True
        for run in self._runs.values():
            run.stop(BackendUnavailable(detail="closed"))
        orders = list(self._orders.values())
        for order in orders:
            order.cancel()
        await asyncio.gather(*orders, return_exceptions=True)
