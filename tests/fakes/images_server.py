"""A server that speaks OpenAI's images API, as its reference says: `GET models`, `POST images/edits`."""

from __future__ import annotations

import base64

from tests.fakes.http_server import CANARY, Asked, HoldingFake, Said
from tests.fakes.inference import paint

MODEL = "painter-1"
KEY = "sk-test-0123456789"


class FakeImages(HoldingFake):
    """Paints a small real JPEG after each picture, and writes `metadata` into it."""

    at = "/v1/images/edits"

    def __init__(self) -> None:
        super().__init__()
        self.metadata = b""

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
        async with self.work():
            image = self.result or paint(form["image"][2], form["prompt"][2].decode(), self.metadata)
        tree = {
            "created": 1_790_000_000,
            "data": [{"b64_json": base64.b64encode(image).decode()}],
            "output_format": "jpeg",
            "usage": {"total_tokens": 1},
        }
        return Said.of({**tree, **self.says})
