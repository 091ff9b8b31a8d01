"""The C2PA library as anybody has it, who reads our marks with its own settings."""

from __future__ import annotations

import io
import json
from typing import Any

import c2pa

OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


def read(image: bytes, anchors: bytes | None = None, image_type: str = "jpeg") -> dict[str, Any]:
    """Return all that the library says of a picture, to one who believes `anchors`."""
    trust = {"trust_anchors": anchors.decode(), "trust_config": "1.3.6.1.5.5.7.3.4"} if anchors else {}
    context = c2pa.Context.from_dict({**OFFLINE, "trust": trust} if trust else OFFLINE)
    with context, c2pa.Reader(f"image/{image_type}", io.BytesIO(image), context=context) as reader:
        said: dict[str, Any] = json.loads(reader.json())
    return said


def state(image: bytes, anchors: bytes | None = None, image_type: str = "jpeg") -> str:
    """Return `Trusted`, `Valid` (whole, but by a stranger) or `Invalid`."""
    return str(read(image, anchors, image_type)["validation_state"])


def manifest(image: bytes, image_type: str = "jpeg") -> dict[str, Any]:
    """Return the manifest that counts."""
    said = read(image, image_type=image_type)
    found: dict[str, Any] = said["manifests"][said["active_manifest"]]
    return found
