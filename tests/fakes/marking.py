"""A marker in memory that keeps the contract and can be told to break it."""

from __future__ import annotations

import hashlib
import hmac
import io

from PIL import Image

from gateway.ports.marking import Marked, MarkingFailed, Source

CERTIFICATE = hashlib.sha256(b"fake").hexdigest()
_FORMS = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}


class FakeMarker:
    """Appends a keyed digest of the picture; `is_down` makes it fail, `sources` is what it was told."""

    def __init__(self, key: bytes = b"fake") -> None:
        self.key = key
        self.is_down = False
        self.sources: list[Source] = []

    async def mark(self, image: bytes, image_type: str, source: Source) -> Marked:
        if self.is_down or Image.open(io.BytesIO(image)).format != _FORMS[image_type]:
            raise MarkingFailed("it is down")
        self.sources.append(source)
        return Marked(image + self._mac(image), CERTIFICATE)

    async def is_marked(self, image: bytes, image_type: str) -> bool:
        return hmac.compare_digest(image[-32:], self._mac(image[:-32]))

    def _mac(self, image: bytes) -> bytes:
        return hmac.digest(self.key, image, "sha256")
