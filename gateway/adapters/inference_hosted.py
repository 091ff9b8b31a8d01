"""The door to a model that fal hosts: a queue, looked at until the job is over, and a call that deletes.

Every order says that nothing of it is to be stored (`X-Fal-Store-IO: 0`), for how long what is made
may lie (`X-Fal-Object-Lifecycle-Preference`), and that it is not to be run again
(`X-Fal-No-Retry`); the picture goes and comes within the messages (`sync_mode`), so that no
file of it is made.  The queue names jobs itself.  So what this process submitted, it can
have deleted, and the answer says whether it was; of what an earlier process submitted
nobody knows the name any more: that is unconfirmed, and bounded by the headers alone.

Rule:
    https://fal.ai/docs/documentation/model-apis/inference/queue: submit, status, result, cancel.
    https://fal.ai/docs/documentation/model-apis/common-parameters: the headers.
    https://fal.ai/docs/platform-apis/v1/models/requests/payloads: what is deleted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from gateway.adapters.inference_http import (
    CALL_S,
    EXTENSIONS,
    LOOK_S,
    MAX_JSON_BYTES,
    MAX_RESULT_BYTES,
    HttpDoor,
    Run,
    Runs,
    decoded,
    demand,
    image_type,
    parsed,
    patiently,
)
from gateway.errors import BackendProtocol, BackendUnavailable
from gateway.ports.inference import BackendFacts, Progress, Result

OURS: Final = frozenset({"prompt", "sync_mode", "num_images"})
"""What the adapter says itself; `parameters` may not, nor what the picture goes by."""
REMEMBERED: Final = 10_000
"""Of how many jobs it is known what the queue calls them."""

_REQUEST: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATA: Final = re.compile(r"data:image/[a-z]{3,5};base64,")
_STAGES: Final = {"IN_QUEUE": Progress(10, "queued"), "IN_PROGRESS": Progress(40, "running")}


@dataclass(frozen=True, slots=True)
class _Request:
    """What the queue calls a job, and where it is looked at; the paths are of our server."""

    id: str
    status: str
    response: str
    cancel: str


@dataclass(slots=True)
class _Trace:
    """What there may be of a job; `is_unsure` where an order went and no answer came."""

    requests: list[_Request] = field(default_factory=list)
    is_unsure: bool = False


class FalInference:
    """One model on fal's queue; an `Inference`."""

    def __init__(
        self,
        queue: HttpDoor,
        platform: HttpDoor,
        declared: BackendFacts,
        *,
        model: str,
        styles: Mapping[str, str],
        parameters: Mapping[str, Any] | None = None,
        image_field: str = "image_url",
        expires_s: int = 300,
        poll_s: float = 1.0,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            queue: To the queue, with a credential that may run models.
            platform: To the platform's API, with one that may delete (an admin key).
            declared: What the operator has in writing.
            model: Its endpoint, `OWNER/APP` or `OWNER/APP/PATH`.
            styles: What the model is told to do, by style.
            parameters: More of its input.
            image_field: What the model calls the picture.
            expires_s: After how long files that are made all the same are to go.
            poll_s: How often it is looked how far a job is.
            max_result_bytes: The largest picture that is taken.

        Raises:
            ValueError: A parameter is the adapter's to say.
        """
        self._parameters = dict(parameters or {})
        if (OURS | {image_field}) & self._parameters.keys():
            raise ValueError("a parameter is not the operator's to set")
        self._queue = queue
        self._platform = platform
        self._facts = replace(declared, styles=tuple(styles))
        self._model = model
        self._styles = dict(styles)
        self._image_field = image_field
        self._headers = {
            "x-fal-store-io": "0",
            "x-fal-no-retry": "1",
            "x-fal-object-lifecycle-preference": json.dumps({"expiration_duration_seconds": expires_s}),
        }
        self._poll_s = poll_s
        self._max_bytes = max_result_bytes
        self._runs = Runs()
        self._traces: dict[str, _Trace] = {}
        self._believed_until = 0.0

    async def describe(self) -> BackendFacts:
        """Return what the operator declared, once the platform says that it has the model."""
        self._runs.need_open()
        now = asyncio.get_running_loop().time()
        if now >= self._believed_until:
            answer = await self._platform.ask("GET", "models", params={"endpoint_id": self._model})
            listed = (await parsed(answer.body)).get("models")
            models = listed if isinstance(listed, list) else []
            is_there = any(isinstance(m, dict) and m.get("endpoint_id") == self._model for m in models)
            demand(is_there, "model_unknown")
            self._believed_until = now + LOOK_S
        return self._facts

    async def generate(
        self,
        job_pseudonym: str,
        style: str,
        image: bytes,
        image_type: str,
        *,
        prompt: str = "",
        subject_pseudonym: str = "",  # noqa: ARG002 - the queue knows no users
    ) -> AsyncGenerator[Progress | Result]:
        """Yield how far the job is, then its result; one that this process submitted already goes on."""
        self._runs.need_open()
        demand(style in self._styles and image_type in EXTENSIONS, "message_refused")
        run = self._runs.begin(job_pseudonym)
        trace = self._trace(job_pseudonym)
        end = asyncio.get_running_loop().time() + self._queue.timeout_s
        try:
            await run.until_stopped(self._runs.settled(job_pseudonym))
            if not trace.requests:
                words = "\n".join(filter(None, (self._styles[style], prompt)))
                yield Progress(1, "sent")
                order = partial(self._submit, trace, image, image_type, words)
                await run.until_stopped(self._runs.order(job_pseudonym, order))
            request = trace.requests[-1]
            async for progress in self._watch(request, run, end):
                yield progress
            result = await run.until_stopped(patiently(partial(self._result, request), self._poll_s))
        finally:
            self._runs.end(job_pseudonym, run)
        yield result

    async def cancel(self, job_pseudonym: str) -> None:
        """Have the queue drop the job, or signal the runner; return once it does not run.

        Raises:
            BackendUnavailable: It still does: fal leaves it to the model whether it stops.
        """
        self._runs.need_open()
        self._runs.stop(job_pseudonym)
        await self._runs.settled(job_pseudonym)
        trace = self._traces.get(job_pseudonym, _Trace())
        for request in trace.requests:
            await self._stop(request)

    async def forget(self, job_pseudonym: str) -> None:
        """Have the platform delete what it holds of the job; return once it says that it has.

        Raises:
            BackendUnavailable: It is not known what to delete, or not all of it was (`forget_unconfirmed`).
        """
        await self.cancel(job_pseudonym)
        trace = self._traces.get(job_pseudonym)
        if trace is None:
            raise BackendUnavailable(detail="forget_unconfirmed")
        for request in list(trace.requests):
            answer = await self._platform.ask("DELETE", f"models/requests/{request.id}/payloads")
            results = (await parsed(answer.body)).get("cdn_delete_results")
            is_done = isinstance(results, list) and all(
                isinstance(one, dict) and one.get("exception", "") is None for one in results
            )
            if not is_done:
                raise BackendUnavailable(detail="forget_unconfirmed")
            trace.requests.remove(request)
        if trace.is_unsure:
            raise BackendUnavailable(detail="forget_unconfirmed")

    async def close(self) -> None:
        """Let the connections go; what still runs ends as unavailable."""
        await self._runs.close()
        await self._queue.close()
        await self._platform.close()

    def _trace(self, job_pseudonym: str) -> _Trace:
        """Return what is known of a job; of the oldest jobs nothing is any more."""
        if job_pseudonym not in self._traces and len(self._traces) >= REMEMBERED:
            del self._traces[next(iter(self._traces))]
        return self._traces.setdefault(job_pseudonym, _Trace())

    async def _submit(self, trace: _Trace, image: bytes, image_type: str, words: str) -> None:
        """Submit the job and note what it is called; until then it may be anything."""
        picture = await asyncio.to_thread(base64.b64encode, image)
        order = {
            **self._parameters,
            self._image_field: f"data:image/{image_type};base64,{picture.decode()}",
            "prompt": words,
            "num_images": 1,
            "sync_mode": True,
        }
        was_unsure, trace.is_unsure = trace.is_unsure, True
        refusal: BackendUnavailable | None = None
        try:
            answer = await self._queue.ask(
                "POST", self._model, begins=True, json=order, headers=dict(self._headers)
            )
        except BackendUnavailable as error:
            refusal = error
        if refusal is not None:
            trace.is_unsure = was_unsure  # it did not begin
            raise refusal
        trace.requests.append(self._request(await parsed(answer.body)))
        trace.is_unsure = was_unsure

    def _request(self, said: Mapping[str, Any]) -> _Request:
        """Return what the queue calls a job.

        Raises:
            BackendProtocol: It names none, or leads elsewhere.
        """
        name = said.get("request_id")
        if not isinstance(name, str) or not _REQUEST.fullmatch(name):
            raise BackendProtocol(detail="bad_request_id")
        ends = {"status_url": "/status", "response_url": "", "cancel_url": "/cancel"}
        paths = [self._queue.path_of(said.get(key)) for key in ends]
        is_its_own = all(
            path.endswith(f"/requests/{name}{end}") for path, end in zip(paths, ends.values(), strict=True)
        )
        demand(is_its_own, "other_job")
        return _Request(name, *paths)

    async def _watch(self, request: _Request, run: Run, end: float) -> AsyncGenerator[Progress]:
        """Yield how far the job is until it is over.

        Raises:
            BackendUnavailable: The queue knows it no more, or it has had its time.
        """
        told, look = "", partial(self._state, request)
        while (state := await run.until_stopped(patiently(look, self._poll_s))) != "COMPLETED":
            if state not in _STAGES:
                raise BackendUnavailable(detail="cut_off")
            if state != told:
                told = state
                yield _STAGES[state]
            if asyncio.get_running_loop().time() >= end:
                raise BackendUnavailable(detail="deadline")
            await run.until_stopped(asyncio.sleep(self._poll_s))

    async def _state(self, request: _Request) -> str:
        """Return the state in the queue's words; empty where it knows no such job.

        Raises:
            BackendProtocol: It tells of another job, or in other words.
        """
        answer = await self._queue.ask("GET", request.status, passes={404})
        if answer.status == 404:
            return ""
        said = await parsed(answer.body)
        demand(said.get("request_id", request.id) == request.id, "other_job")
        state = said.get("status")
        demand(state in {*_STAGES, "COMPLETED"}, "bad_status")
        return str(state)

    async def _result(self, request: _Request) -> Result:
        """Return the one picture of a job that is over.

        Raises:
            BackendProtocol: There is none, or more than one; or it lies elsewhere, although it was
                to be in the answer.
        """
        answer = await self._queue.ask(
            "GET",
            request.response,
            is_long=True,
            max_bytes=self._max_bytes // 3 * 4 + MAX_JSON_BYTES,
            passes={500},
        )
        demand(answer.status != 500, "run_failed")
        said = await parsed(answer.body)
        pictures = said.get("images", [said["image"]] if "image" in said else [])
        if not isinstance(pictures, list) or not pictures:
            raise BackendProtocol(detail="no_result")
        demand(len(pictures) == 1, "two_results")
        one: Any = pictures[0]
        url = one.get("url") if isinstance(one, dict) else None
        head = _DATA.match(url) if isinstance(url, str) else None
        if head is None or not isinstance(url, str):
            raise BackendProtocol(detail="result_elsewhere")
        image = await decoded(url[head.end() :], self._max_bytes)
        return Result(
            image=image,
            image_type=image_type(image),
            backend=self._facts.name,
            device=self._facts.device,
            model_digest=self._facts.model_digest,
        )

    async def _stop(self, request: _Request) -> None:
        # What is over, or gone, cannot be cancelled: 400, 404.
        await self._queue.ask("PUT", request.cancel, kinds=(), passes={400, 404})
        end = asyncio.get_running_loop().time() + min(CALL_S, self._queue.timeout_s)
        while await self._state(request) in _STAGES:
            if asyncio.get_running_loop().time() >= end:
                raise BackendUnavailable(detail="still_running")
            await asyncio.sleep(self._poll_s)
