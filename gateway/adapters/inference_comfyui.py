"""The door to a ComfyUI server that runs one workflow of the operator's, over its HTTP API.

ComfyUI knows jobs by ids that we choose (`prompt_id`), so a job is looked for before it is
submitted, and none runs twice.  It writes what it is sent and what it makes into files
and has no call that deletes them.  What can be overwritten is: `forget` lays a blank picture over
each file of the job, has the entry of its history deleted and its caches freed, looks at all
of them again, and says so only when it has seen it.  The files' names stay, and so
does what custom nodes write elsewhere; the operator's contract is to speak of that.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import io
import json
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

from PIL import Image

from gateway.adapters.inference_http import (
    CALL_S,
    EXTENSIONS,
    LOOK_S,
    MAX_RESULT_BYTES,
    HttpDoor,
    Run,
    Runs,
    demand,
    image_type,
    parsed,
    patiently,
)
from gateway.errors import BackendProtocol, BackendUnavailable, JobCancelled
from gateway.ports.inference import BackendFacts, Progress, Result

MAX_QUEUE_BYTES: Final = 16 << 20
"""Of a queue or a history entry: they carry whole workflows."""
FOLDER: Final = "lethe"
"""Below the server's input and output folders."""
IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/webp"})

_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()-]{0,126}")
_SUBFOLDER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,62}(/[A-Za-z0-9][A-Za-z0-9_-]{0,62}){0,3})?")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")
_STAGES: Final = {"queued": Progress(10, "queued"), "running": Progress(40, "running")}

State = Literal["unknown", "queued", "running", "done"]


def _blank() -> bytes:
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    return file.getvalue()


BLANK: Final = _blank()
"""What is laid over a file that cannot be deleted."""


@dataclass(frozen=True, slots=True)
class Place:
    """One input of one node."""

    node: str
    input: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return the place written as `NODE.INPUT`.

        Raises:
            ValueError: It is not written so.
        """
        node, dot, name = text.partition(".")
        if not (node and dot and name):
            raise ValueError("a place is written NODE.INPUT")
        return cls(node, name)


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow in ComfyUI's API format, and where in it what belongs.

    Args:
        nodes: The workflow.
        image: Where the name of the picture goes: a `LoadImage`.
        output: The node whose one picture is the result.
        prompt: Where the style's words and the caller's go.
        seed: Where a number goes that is the same for a job that is run again.
        prefix: Where the beginning of the result's file name goes; by it the file is found
            again when the server has lost its history.
    """

    nodes: Mapping[str, Any] = field(repr=False)
    image: Place
    output: str
    prompt: Place | None = None
    seed: Place | None = None
    prefix: Place | None = None

    def __post_init__(self) -> None:
        """Refuse places that the workflow does not have.

        Raises:
            ValueError: One is missing.
        """
        for place in filter(None, (self.image, self.prompt, self.seed, self.prefix)):
            node = self.nodes.get(place.node)
            inputs = node.get("inputs") if isinstance(node, dict) else None
            if not isinstance(inputs, dict) or place.input not in inputs:
                raise ValueError(f"the workflow has no input {place.node}.{place.input}")
        if self.output not in self.nodes:
            raise ValueError(f"the workflow has no node {self.output}")

    @classmethod
    def read(cls, text: bytes, **places: Any) -> Workflow:
        """Return the workflow in a file.

        Raises:
            ValueError: It is none, or lacks a place.
        """
        nodes = json.loads(text)
        if not isinstance(nodes, dict):
            raise ValueError("a workflow in API format is an object of nodes")  # noqa: TRY004 - of a file
        return cls(nodes, **places)

    @property
    def digest(self) -> str:
        """The SHA-256 of the workflow, in hex: it stands for the model."""
        return hashlib.sha256(json.dumps(self.nodes, sort_keys=True).encode()).hexdigest()

    def filled(self, job: _Job, prompt: str) -> dict[str, Any]:
        """Return the workflow for a job."""
        nodes = copy.deepcopy(dict(self.nodes))
        values: list[tuple[Place | None, object]] = [
            (self.image, f"{FOLDER}/{job.file}"),
            (self.prompt, prompt),
            (self.seed, job.seed),
            (self.prefix, f"{FOLDER}/{job.stem}"),
        ]
        for place, value in values:
            if place is not None:
                nodes[place.node]["inputs"][place.input] = value
        return nodes


@dataclass(frozen=True, slots=True)
class _Job:
    """What a job is called there, made of its pseudonym alone: any process finds it again."""

    id: str
    stem: str
    seed: int

    @classmethod
    def of(cls, job_pseudonym: str) -> _Job:
        digest = hashlib.sha256(b"lethe.dev/comfyui/v1\0" + job_pseudonym.encode()).digest()
        name = UUID(bytes=digest[:16])
        return cls(str(name), name.hex, int.from_bytes(digest[16:20]))

    @property
    def file(self) -> str:
        """The picture's file; what is in it tells its type, not its name."""
        return f"{self.stem}.png"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the server's."""

    filename: str
    subfolder: str
    type: str

    @classmethod
    def read(cls, said: Any) -> _File:
        """Return the file that an answer names.

        Raises:
            BackendProtocol: The name leads elsewhere.
        """
        told = said if isinstance(said, dict) else {}
        filename, subfolder, kind = (str(told.get(key, "/")) for key in ("filename", "subfolder", "type"))
        demand(_FILE.fullmatch(filename) and ".." not in filename, "bad_file")
        demand(_SUBFOLDER.fullmatch(subfolder) and kind in {"output", "temp"}, "bad_file")
        return cls(filename, subfolder, kind)

    @property
    def query(self) -> dict[str, str]:
        """How `view` is asked for it."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


class ComfyInference:
    """One workflow on one ComfyUI server; an `Inference`."""

    def __init__(
        self,
        door: HttpDoor,
        declared: BackendFacts,
        workflow: Workflow,
        *,
        styles: Mapping[str, str],
        poll_s: float = 0.5,
        frees_memory: bool = True,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            door: To the server's root.
            declared: What the operator has in writing.
            workflow: What is run.
            styles: What goes into the prompt's place, by style.
            poll_s: How often it is looked how far a job is.
            frees_memory: Whether the server empties its caches, and unloads its models with them,
                once a job is to be forgotten.  Without that nobody can say that it is.
            max_result_bytes: The largest picture that is taken.

        Raises:
            ValueError: Several styles, or a caller's prompt, have no place in the workflow.
        """
        if workflow.prompt is None and (len(styles) > 1 or declared.takes_prompts):
            raise ValueError("without a place for a prompt there is one style, and no prompt is taken")
        self._door = door
        self._facts = replace(declared, styles=tuple(styles), model_digest=workflow.digest)
        self._workflow = workflow
        self._styles = dict(styles)
        self._poll_s = poll_s
        self._frees_memory = frees_memory
        self._max_bytes = max_result_bytes
        self._runs = Runs()
        self._believed_until = 0.0

    async def describe(self) -> BackendFacts:
        """Return what the operator declared, and the version that the server says it is."""
        self._runs.need_open()
        now = asyncio.get_running_loop().time()
        if now >= self._believed_until:
            system = (await self._get("system_stats")).get("system")
            version = system.get("comfyui_version") if isinstance(system, dict) else None
            if not isinstance(version, str) or not _VERSION.fullmatch(version):
                raise BackendProtocol(detail="bad_version")
            self._facts = replace(self._facts, version=version)
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
        subject_pseudonym: str = "",  # noqa: ARG002 - ComfyUI knows no users
    ) -> AsyncGenerator[Progress | Result]:
        """Yield how far the job is, then its result.

        (1) A job that the server knows already goes on.
        (2) Else the picture is uploaded and the workflow submitted, under an id of ours.
        (3) It is looked at until it is over.
        (4) The one picture of the output node is fetched.
        """
        self._runs.need_open()
        demand(style in self._styles and image_type in EXTENSIONS, "message_refused")
        words = "\n".join(filter(None, (self._styles[style], prompt)))
        job, run = _Job.of(job_pseudonym), self._runs.begin(job_pseudonym)
        end = asyncio.get_running_loop().time() + self._door.timeout_s
        try:
            await run.until_stopped(self._runs.settled(job_pseudonym))
            if await run.until_stopped(self._state(job)) == "unknown":  # (1)
                yield Progress(1, "sent")
                order = partial(self._submit, job, image, image_type, words)
                await run.until_stopped(self._runs.order(job_pseudonym, order))  # (2)
            async for progress in self._watch(job, run, end):  # (3)
                yield progress
            result = await run.until_stopped(patiently(partial(self._result, job), self._poll_s))  # (4)
        finally:
            self._runs.end(job_pseudonym, run)
        yield result

    async def cancel(self, job_pseudonym: str) -> None:
        """Take the job out of the queue, or interrupt it; return once it does not run.

        Raises:
            BackendUnavailable: It still does.
        """
        self._runs.need_open()
        self._runs.stop(job_pseudonym)
        await self._runs.settled(job_pseudonym)
        await self._stop(_Job.of(job_pseudonym).id)

    async def forget(self, job_pseudonym: str) -> None:
        """Overwrite what the server wrote, delete what it remembers, and look whether that is so.

        (1) The job is cancelled: a run would write anew.
        (2) Every file of the job is overwritten, those that its history names and those that it must have.
        (3) The history's entry goes, last of what names the files; then the caches.

        Raises:
            BackendUnavailable: Something could not be seen to be gone (`forget_unconfirmed`).
        """
        await self.cancel(job_pseudonym)  # (1)
        job = _Job.of(job_pseudonym)
        entry = await self._entry(job)
        had_input = await self._overwrite(_File(job.file, FOLDER, "input"))  # (2)
        for file in self._written(job, entry):
            await self._overwrite(file)
        if entry is None and had_input and self._workflow.prefix is None:
            # It may have run; nothing says any more what the result's file is called.
            raise BackendUnavailable(detail="forget_unconfirmed")
        if entry is not None:
            await self._post("history", {"delete": [job.id]})  # (3)
            if await self._entry(job) is not None:
                raise BackendUnavailable(detail="forget_unconfirmed")
        if entry is not None or had_input:
            if not self._frees_memory:
                raise BackendUnavailable(detail="forget_unconfirmed")
            await self._post("free", {"free_memory": True})

    async def close(self) -> None:
        """Let the connections go; what still runs ends as unavailable."""
        await self._runs.close()
        await self._door.close()

    # --- a job there -------------------------------------------------------------------------------

    async def _submit(self, job: _Job, image: bytes, image_type: str, words: str) -> None:
        """Upload the picture and submit the workflow.

        Raises:
            BackendProtocol: The server calls either of them something else, so that nobody could
                find it again.
        """
        answer = await self._door.ask(
            "POST",
            "upload/image",
            is_long=True,
            data={"overwrite": "true", "type": "input", "subfolder": FOLDER},
            files={"image": (job.file, image, f"image/{image_type}")},
        )
        kept = await parsed(answer.body)
        wanted = {"name": job.file, "subfolder": FOLDER, "type": "input"}
        demand({key: kept.get(key) for key in wanted} == wanted, "other_file")
        order = {"prompt": self._workflow.filled(job, words), "prompt_id": job.id}
        lost: BackendUnavailable | None = None
        try:
            said = (await parsed((await self._door.ask("POST", "prompt", json=order)).body)).get("prompt_id")
        except BackendUnavailable as error:
            lost = error
        if lost is not None:
            # It may have arrived all the same, and by its id it can be found.
            if await self._state(job) == "unknown":
                raise lost
            return
        demand(said == job.id, "other_job")

    async def _watch(self, job: _Job, run: Run, end: float) -> AsyncGenerator[Progress]:
        """Yield how far the job is until it is over.

        Raises:
            BackendUnavailable: The server knows it no more, or has had its time.
        """
        told = ""
        while (
            state := await run.until_stopped(patiently(partial(self._state, job), self._poll_s))
        ) != "done":
            if state == "unknown":
                raise BackendUnavailable(detail="cut_off")
            if state != told:
                told = state
                yield _STAGES[state]
            if asyncio.get_running_loop().time() >= end:
                raise BackendUnavailable(detail="deadline")
            await run.until_stopped(asyncio.sleep(self._poll_s))

    async def _state(self, job: _Job) -> State:
        """Return where the job stands; it moves from the queue into the history at one stroke."""
        for _ in range(2):
            if await self._entry(job) is not None:
                return "done"
            waiting, running = await self._queue()
            if job.id in running:
                return "running"
            if job.id in waiting:
                return "queued"
        return "unknown"

    async def _result(self, job: _Job) -> Result:
        """Return the picture that the history names, after it has been made sure that it is this job's.

        Raises:
            JobCancelled: It was interrupted.
            BackendProtocol: It failed, or the picture is none, or another's.
        """
        entry = await self._entry(job)
        if entry is None:
            raise BackendUnavailable(detail="cut_off")
        status = entry.get("status")
        messages = status.get("messages") if isinstance(status, dict) else None
        if isinstance(messages, list) and any(m and m[0] == "execution_interrupted" for m in messages):
            raise JobCancelled
        demand(isinstance(status, dict) and status.get("status_str") == "success", "run_failed")
        outputs = entry.get("outputs")
        node = outputs.get(self._workflow.output) if isinstance(outputs, dict) else None
        files = node.get("images") if isinstance(node, dict) else None
        demand(isinstance(files, list) and files, "no_result")
        demand(isinstance(files, list) and len(files) == 1, "two_results")
        file = _File.read(files[0] if files else None)
        if self._workflow.prefix is not None:
            demand(file.subfolder == FOLDER and file.filename.startswith(f"{job.stem}_"), "other_job")
        answer = await self._door.ask(
            "GET", "view", is_long=True, params=file.query, max_bytes=self._max_bytes, kinds=IMAGES
        )
        return Result(
            image=answer.body,
            image_type=image_type(answer.body),
            backend=self._facts.name,
            device=self._facts.device,
            model_digest=self._facts.model_digest,
        )

    async def _entry(self, job: _Job) -> dict[str, Any] | None:
        """Return the history's entry of the job, if there is one.

        Raises:
            BackendProtocol: It is another's.
        """
        tree = await self._get(f"history/{job.id}")
        if not tree:
            return None
        entry = tree.get(job.id)
        order = entry.get("prompt") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(order, list) or len(order) < 3:
            raise BackendProtocol(detail="other_job")
        demand(order[1] == job.id, "other_job")
        place = self._workflow.image
        try:
            picture = order[2][place.node]["inputs"][place.input]
        except (KeyError, TypeError):
            picture = None
        demand(picture == f"{FOLDER}/{job.file}", "other_job")
        return entry

    async def _queue(self) -> tuple[set[str], set[str]]:
        """Return the ids of what waits and of what runs."""
        tree = await self._get("queue")
        found = []
        for name in ("queue_pending", "queue_running"):
            items = tree.get(name)
            demand(
                isinstance(items, list) and all(isinstance(i, list) and len(i) > 1 for i in items),
                "bad_queue",
            )
            found.append({item[1] for item in items or () if isinstance(item[1], str)})
        return found[0], found[1]

    async def _stop(self, job_id: str) -> None:
        await self._post("queue", {"delete": [job_id]})
        end = asyncio.get_running_loop().time() + min(CALL_S, self._door.timeout_s)
        while job_id in set().union(*await self._queue()):
            await self._post("interrupt", {"prompt_id": job_id})
            if asyncio.get_running_loop().time() >= end:
                raise BackendUnavailable(detail="still_running")
            await asyncio.sleep(min(0.1, self._poll_s))

    # --- what it keeps -----------------------------------------------------------------------------

    def _written(self, job: _Job, entry: dict[str, Any] | None) -> list[_File]:
        """Return the files that the job wrote, previews of other nodes included."""
        if entry is None:
            return [_File(f"{job.stem}_00001_.png", FOLDER, "output")] if self._workflow.prefix else []
        outputs = entry.get("outputs")
        nodes = outputs.values() if isinstance(outputs, dict) else ()
        lists = [node.get("images", []) for node in nodes if isinstance(node, dict)]
        return [_File.read(said) for files in lists if isinstance(files, list) for said in files]

    async def _overwrite(self, file: _File) -> bool:
        """Lay a blank over a file and look at it; return whether there was one that was not blank.

        Raises:
            BackendUnavailable: It is still what it was (`forget_unconfirmed`).
        """
        there = await self._door.ask("HEAD", "view", params=file.query, kinds=(), passes={404})
        if there.status == 404:
            return False
        if await self._is_blank(file):
            return False
        await self._door.ask(
            "POST",
            "upload/image",
            kinds=(),
            data={"overwrite": "true", "type": file.type, "subfolder": file.subfolder},
            files={"image": (file.filename, BLANK, "image/png")},
        )
        if not await self._is_blank(file):
            raise BackendUnavailable(detail="forget_unconfirmed")
        return True

    async def _is_blank(self, file: _File) -> bool:
        try:
            seen = await self._door.ask("GET", "view", params=file.query, max_bytes=len(BLANK), kinds=IMAGES)
        except BackendProtocol:
            return False  # it is longer, or no picture
        return seen.body == BLANK

    async def _get(self, path: str) -> dict[str, Any]:
        return await parsed((await self._door.ask("GET", path, max_bytes=MAX_QUEUE_BYTES)).body)

    async def _post(self, path: str, order: Mapping[str, object]) -> None:
        await self._door.ask("POST", path, json=order, kinds=())
