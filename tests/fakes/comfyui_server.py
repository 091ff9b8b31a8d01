"""A server that behaves as ComfyUI's `server.py` does, as far as jobs go (0.3.60 and later).

It takes ids from whoever submits, does one job after the other, writes what it is sent and makes
into "files" that nothing deletes, and puts the whole workflow into its history.
"""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.fakes.http_server import CANARY, Asked, HttpFake, Said
from tests.fakes.inference import paint

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "Paint", "inputs": {"image": ["1", 0], "text": "", "seed": 0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "ComfyUI"}},
    "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
}
"""Paints after the picture, saves the result, and shows a preview of it."""


@dataclass
class Queued:
    """A job that waits or runs."""

    id: str
    nodes: dict[str, Any]
    interrupted: asyncio.Event

    def item(self) -> list[Any]:
        return [0, self.id, self.nodes, {}, ["3"]]


class FakeComfy(HttpFake):
    """See the module; `hold()` makes jobs wait until `release()`."""

    at = "/prompt"

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.says: dict[str, Any] = {}
        self.result: bytes | None = None
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.history: dict[str, dict[str, Any]] = {}
        self.waiting: list[Queued] = []
        self.running: Queued | None = None
        self.freed = 0
        self.fails = False
        self.is_deaf_to_interrupts = False
        self.names_its_own_ids = False
        self._go = asyncio.Event()
        self._go.set()
        self._work: asyncio.Task[None] | None = None

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    @property
    def working(self) -> int:
        return len(self.waiting) + (self.running is not None)

    def keeps(self) -> int:
        """Return of how many files or entries somebody may still be recognised."""
        return sum(len(content) > 200 for content in self.files.values()) + len(self.history)

    def be_another(self) -> None:
        """Hand out the result of another job from now on."""
        self.says = {"filename": "ComfyUI_00007_.png", "subfolder": ""}
        self.files["output", "", "ComfyUI_00007_.png"] = picture(b"somebody else", "")

    async def stop(self) -> None:
        await super().stop()
        if self._work is not None and self._server is not None and not self.working:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            self._work = None

    async def answer(self, asked: Asked) -> Said:
        match asked.method, asked.path.strip("/").split("/"):
            case "GET", ["system_stats"]:
                return Said.of({"system": {"comfyui_version": "0.3.64", "argv": [CANARY]}, "devices": []})
            case "POST", ["upload", "image"]:
                return self._upload(asked)
            case "POST", ["prompt"]:
                return self._submit(asked.json())
            case "GET", ["queue"]:
                running = [self.running.item()] if self.running else []
                return Said.of({"queue_running": running, "queue_pending": [q.item() for q in self.waiting]})
            case "GET", ["history", job]:
                return Said.of({job: self.history[job]} if job in self.history else {})
            case "GET" | "HEAD", ["view"]:
                return self._view(asked)
            case "POST", ["queue"]:
                self.waiting = [q for q in self.waiting if q.id not in asked.json()["delete"]]
            case "POST", ["interrupt"]:
                is_meant = self.running and self.running.id == asked.json()["prompt_id"]
                if self.running and is_meant and not self.is_deaf_to_interrupts:
                    self.running.interrupted.set()
            case "POST", ["history"]:
                for job in asked.json()["delete"]:
                    self.history.pop(job, None)
            case "POST", ["free"]:
                self.freed += bool(asked.json()["free_memory"])
            case _:
                return Said(404, CANARY.encode(), "text/plain")
        return Said(200, b"", "text/plain")

    def _upload(self, asked: Asked) -> Said:
        form = asked.form()
        name, _, content = form["image"]
        kind, folder = form["type"][2].decode(), form["subfolder"][2].decode()
        assert form["overwrite"][2] == b"true"
        self.files[kind, folder, name] = content
        return Said.of({"name": name, "subfolder": folder, "type": kind})

    def _submit(self, order: dict[str, Any]) -> Said:
        if not order["prompt"]:
            return Said.of({"error": {"message": CANARY}, "node_errors": {}}, 400)
        job = "11111111-2222-4333-8444-555555555555" if self.names_its_own_ids else order["prompt_id"]
        self.waiting.append(Queued(job, order["prompt"], asyncio.Event()))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._execute())
        return Said.of({"prompt_id": job, "number": 1, "node_errors": {}})

    def _view(self, asked: Asked) -> Said:
        asks = asked.query
        content = self.files.get((asks["type"], asks.get("subfolder", ""), asks["filename"]))
        if content is None:
            return Said(404, b"", "text/plain")
        return Said(200, content, "image/png")

    async def _execute(self) -> None:
        while self.waiting:
            self.running = self.waiting.pop(0)
            self.runs += 1
            await self._run(self.running)
            self.running = None

    async def _run(self, job: Queued) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._go, job.interrupted)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        entry: dict[str, Any] = {"prompt": job.item(), "outputs": {}}
        self.history[job.id] = entry
        if job.interrupted.is_set():
            entry["status"] = _status("error", "execution_interrupted")
        elif self.fails:
            entry["status"] = _status("error", "execution_error")
        else:
            entry["outputs"] = self._save(job)
            entry["status"] = _status("success", "execution_success")

    def _save(self, job: Queued) -> dict[str, Any]:
        folder, _, name = job.nodes["1"]["inputs"]["image"].rpartition("/")
        image = self.files["input", folder, name]
        inputs = job.nodes["2"]["inputs"]
        made = self.result or picture(image, f"{inputs['text']}{inputs['seed']}", json.dumps(job.nodes))
        folder, _, stem = job.nodes["3"]["inputs"]["filename_prefix"].rpartition("/")
        number = 1
        while ("output", folder, f"{stem}_{number:05}_.png") in self.files and number < 99:
            number += 1
        saved = ("output", folder, f"{stem}_{number:05}_.png")
        shown = ("temp", "", f"ComfyUI_temp_{self.runs:05}_.png")
        self.files[saved] = self.files[shown] = made
        said = [{"type": t, "subfolder": f, "filename": n} for t, f, n in (saved, shown)]
        return {"3": {"images": [{**said[0], **self.says}]}, "4": {"images": [said[1]]}}


def picture(image: bytes, words: str, workflow: str = "") -> bytes:
    """Return a PNG painted after a picture, with the workflow in it, as ComfyUI writes them."""
    file, info = io.BytesIO(), PngInfo()
    info.add_text("prompt", workflow)
    Image.open(io.BytesIO(paint(image, words))).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def _status(word: str, message: str) -> dict[str, Any]:
    return {"status_str": word, "completed": word == "success", "messages": [[message, {"canary": CANARY}]]}
