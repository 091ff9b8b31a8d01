"""The door to a server that edits pictures as OpenAI's API does: `POST images/edits`, one call a picture.

The API knows neither ids of ours nor a call that deletes.  So a job that may have begun is not
sent again (`inference_http`), to cancel is to close the call, and what the provider
keeps is what the operator declares: only where that is nothing can a job be forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.adapters.inference_http import (
    EXTENSIONS,
    LOOK_S,
    MAX_JSON_BYTES,
    MAX_RESULT_BYTES,
    Answer,
    HttpDoor,
    Runs,
    decoded,
    demand,
    image_type,
    parsed,
)
from gateway.errors import BackendProtocol, BackendUnavailable
from gateway.ports.inference import BackendFacts, Progress, Result

OURS: Final = frozenset(
    {"model", "prompt", "image", "image[]", "n", "user", "stream", "partial_images", "mask"}
)
"""What the adapter says itself, or what would change the form of the answer; `parameters` may not."""


class ImagesInference:
    """One model behind an OpenAI-style images API; an `Inference`."""

    def __init__(
        self,
        door: HttpDoor,
        declared: BackendFacts,
        *,
        model: str,
        styles: Mapping[str, str],
        parameters: Mapping[str, str] | None = None,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            door: To the API's root, which ends in `/v1` at OpenAI.
            declared: What the operator has in writing: the API says nothing of itself.
            model: As the API calls it.
            styles: What the model is told to do, by style.
            parameters: More fields of the form: `quality`, `size`, `response_format`.
            max_result_bytes: The largest picture that is taken.

        Raises:
            ValueError: A parameter is the adapter's to say.
        """
        self._parameters = dict(parameters or {})
        if OURS & self._parameters.keys():
            raise ValueError("a parameter is not the operator's to set")
        self._door = door
        self._facts = replace(declared, styles=tuple(styles))
        self._model = model
        self._styles = dict(styles)
        self._max_bytes = max_result_bytes
        self._runs = Runs()
        self._believed_until = 0.0

    async def describe(self) -> BackendFacts:
        """Return what the operator declared, once the server says that it has the model."""
        self._runs.need_open()
        now = asyncio.get_running_loop().time()
        if now >= self._believed_until:
            listed = (await parsed((await self._door.ask("GET", "models")).body)).get("data")
            ids = (
                [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            )
            demand(self._model in ids, "model_unknown")
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
        subject_pseudonym: str = "",
    ) -> AsyncGenerator[Progress | Result]:
        """Yield that the picture is on its way, then the result.

        The job's pseudonym stays here; of the subject's, where the operator wants it told, the
        API makes `user`.
        """
        self._runs.need_open()
        demand(style in self._styles and image_type in EXTENSIONS, "message_refused")
        form = {
            **self._parameters,
            "model": self._model,
            "prompt": "\n".join(filter(None, (self._styles[style], prompt))),
            "n": "1",
            **({"user": subject_pseudonym} if subject_pseudonym else {}),
        }
        file = (f"image.{EXTENSIONS[image_type]}", image, f"image/{image_type}")
        run = self._runs.begin(job_pseudonym)
        try:
            yield Progress(1, "sent")
            answer = await run.until_stopped(
                self._door.ask(
                    "POST",
                    "images/edits",
                    max_bytes=self._max_bytes // 3 * 4 + MAX_JSON_BYTES,
                    begins=True,
                    data=form,
                    files={"image": file},
                )
            )
            yield Progress(95, "answered")
            result = await run.until_stopped(self._result(answer))
        finally:
            self._runs.end(job_pseudonym, run)
        yield result

    async def _result(self, answer: Answer) -> Result:
        """Return the one picture of an answer.

        Raises:
            BackendProtocol: There is none, or more than one, or another model's; or it lies
                elsewhere, where nobody promised anything.
        """
        tree = await parsed(answer.body)
        demand(tree.get("model", self._model) == self._model, "other_model")
        image = await decoded(_only(tree.get("data")).get("b64_json"), self._max_bytes)
        return Result(
            image=image,
            image_type=image_type(image),
            backend=self._facts.name,
            device=self._facts.device,
            model_digest=self._facts.model_digest,
        )

    async def cancel(self, job_pseudonym: str) -> None:
        """Close the job's call, if there is one."""
        self._runs.need_open()
        self._runs.stop(job_pseudonym)

    async def forget(self, job_pseudonym: str) -> None:
        """Return once the call is closed, where the operator declares that nothing outlives it.

        Raises:
            BackendUnavailable: Something does, and nobody can be told to delete it.
        """
        await self.cancel(job_pseudonym)
        if self._facts.retention_s or self._facts.output_retention_s:
            raise BackendUnavailable(detail="forget_unconfirmed")

    async def close(self) -> None:
        """Let the connections go; what still runs ends as unavailable."""
        await self._runs.close()
        await self._door.close()


def _only(data: Any) -> dict[str, Any]:
    if not isinstance(data, list) or not data:
        raise BackendProtocol(detail="no_result")
    demand(len(data) == 1, "two_results")
    one = data[0]
    if not isinstance(one, dict):
        raise BackendProtocol(detail="no_result")
    demand("b64_json" in one or "url" not in one, "result_elsewhere")
    return one
