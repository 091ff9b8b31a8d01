"""A server that behaves as fal's queue and platform API do, as their documentation says."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.fakes.http_server import CANARY, Asked, HttpFake, Said
from tests.fakes.inference import paint

MODEL = "fal-ai/painter/edit"
KEY, ADMIN = "run-0123456789", "admin-0123456789"


@dataclass
class Request:
    """One request in the queue."""

    order: dict[str, Any]
    state: str = "IN_QUEUE"
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    result: Said | None = None
    files: list[str] = field(default_factory=list)


class FakeFal(HttpFake):
    """See the module; `hold()` makes jobs wait until `release()`."""

    at = f"/{MODEL}"

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0
        self.says: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.result: bytes | None = None
        self.requests: dict[str, Request] = {}
        self.undeletable = False
        self.ignores_cancel = False
        self._go = asyncio.Event()
        self._go.set()
        self._work: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    @property
    def working(self) -> int:
        return sum(one.state != "COMPLETED" for one in self.requests.values())

    def keeps(self) -> int:
        return len(self.requests)

    def be_another(self) -> None:
        """Answer with the paths of another request from now on."""
        other = f"{self._home}/requests/{uuid4()}"
        self.says = {"response_url": other}

    @property
    def _home(self) -> str:
        return f"http://127.0.0.1:{self.port}/fal-ai/painter"

    async def answer(self, asked: Asked) -> Said:
        wanted = f"Key {ADMIN if asked.path.startswith('/v1/') else KEY}"
        if asked.headers.get("authorization") != wanted:
            return Said.of({"detail": CANARY}, 401)
        match asked.method, asked.path.strip("/").split("/"):
            case "GET", ["v1", "models"]:
                return Said.of({"models": [{"endpoint_id": MODEL}], "has_more": False})
            case "DELETE", ["v1", "models", "requests", name, "payloads"]:
                return self._delete(name)
            case "POST", ["fal-ai", "painter", "edit"]:
                return self._submit(asked.json())
            case method, ["fal-ai", "painter", "requests", name, *rest] if name in self.requests:
                return self._look(method, name, self.requests[name], rest)
        return Said.of({"detail": CANARY}, 404)

    def _submit(self, order: dict[str, Any]) -> Said:
        self.runs += 1
        name = str(uuid4())
        self.requests[name] = request = Request(order)
        work = asyncio.create_task(self._run(request))
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        home = f"{self._home}/requests/{name}"
        urls = {"response_url": home, "status_url": f"{home}/status", "cancel_url": f"{home}/cancel"}
        return Said.of({"request_id": name, "status": "IN_QUEUE", "queue_position": 0, **urls, **self.says})

    def _look(self, method: str, name: str, request: Request, rest: list[str]) -> Said:
        if (method, rest) == ("GET", ["status"]):
            status = 200 if request.state == "COMPLETED" else 202
            return Said.of({"status": request.state, "request_id": name, **self.answers}, status)
        if (method, rest) == ("PUT", ["cancel"]):
            if request.state == "COMPLETED":
                return Said.of({"status": "ALREADY_COMPLETED"}, 400)
            if not self.ignores_cancel:
                request.stopped.set()
            return Said.of({"status": "CANCELLATION_REQUESTED"}, 202)
        if (method, rest) == ("GET", []) and request.result:
            return request.result
        return Said.of({"detail": CANARY}, 404)

    def _delete(self, name: str) -> Said:
        if self.undeletable:
            link = f"https://files.test/{CANARY}"
            return Said.of({"cdn_delete_results": [{"link": link, "exception": CANARY}]})
        if self.requests.pop(name, None) is None:
            return Said.of({"detail": CANARY}, 404)
        return Said.of({"cdn_delete_results": []})

    async def _run(self, request: Request) -> None:
        request.state = "IN_PROGRESS"
        waits = [asyncio.ensure_future(event.wait()) for event in (self._go, request.stopped)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        if request.stopped.is_set():
            request.result = Said.of({"detail": CANARY}, 499)
        else:
            head, _, picture = request.order["image_url"].partition(",")
            assert head == "data:image/jpeg;base64"
            image = self.result or paint(base64.b64decode(picture), request.order["prompt"])
            url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            request.result = Said(body=json.dumps({"images": [{"url": url}], "seed": 1}).encode())
        request.state = "COMPLETED"
