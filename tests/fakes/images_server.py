"""A server that speaks OpenAI's images API, as its reference says: `GET models`, `POST images/edits`."""

from __future__ import annotations

import asyncio
import base64

from tests.fakes.http_server import CANARY, Asked, HttpFake, Said
from tests.fakes.inference import paint

MODEL = "painter-1"
KEY = "sk-test-0123456789"


class FakeImages(HttpFake):
    """Paints a small real JPEG after each picture.

    `hold()` makes calls wait until `release()`; `working` is how many do, `runs` how many have begun.
    `says` changes the answer's fields; `result`, where it is set, stands in place of the picture.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at = "/v1/images/edits"
        self.working = 0
        self.runs = 0
        self.says: dict[str, object] = {}
        self.result: bytes | None = None
        self.metadata = b""
        self._go = asyncio.Event()
        self._go.set()

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    def keeps(self) -> int:
        return self.working

    def be_another(self) -> None:
        """Answer with another model's picture from now on."""
        self.says = {"model": "other"}

    async def answer(self, asked: Asked) -> Said:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return Said.of({"error": {"message": CANARY, "code": "invalid_api_key"}}, 401)
        if (asked.method, asked.path) == ("GET", "/v1/models"):
            models = [{"id": name, "object": "model"} for name in ("other", MODEL)]
            return Said.of({"object": "list", "data": models})
        if (asked.method, asked.path) == ("POST", "/v1/images/edits"):
            return await self._edit(asked)
        return Said.of({"error": {"message": CANARY}}, 404)

    async def _edit(self, asked: Asked) -> Said:
        form = asked.form()
        if form["model"][2] != MODEL.encode() or not form["prompt"][2]:
            return Said.of({"error": {"message": CANARY, "code": "model_not_found"}}, 400)
        self.runs += 1
        self.working += 1
        try:
            await self._go.wait()
        finally:
            self.working -= 1
        image = self.result or paint(form["image"][2], form["prompt"][2].decode(), self.metadata)
        tree = {
            "created": 1_790_000_000,
            "data": [{"b64_json": base64.b64encode(image).decode()}],
            "output_format": "jpeg",
            "usage": {"total_tokens": 1},
        }
        return Said.of({**tree, **self.says})
