"""A real result of the studio, read by the C2PA library as anybody has it."""

from __future__ import annotations

import io

from PIL import Image

from gateway.deidentify.limits import Limits
from gateway.deidentify.walker import scrub
from gateway.ports.records import Job, Subject
from tests.c2pa import manifest, state
from tests.egress.pipeline import SUBJECT, headshot, with_studio
from tests.gateway import make_folder
from tests.integration.conftest import weights_folder


async def test_a_result_of_the_studio_is_trusted_by_who_knows_the_root_and_names_nobody(tmp_path) -> None:
    weights_folder()
    layout = make_folder(tmp_path / "dev")
    async with with_studio(layout) as gateway, gateway.client("app", 60) as app:
        job, result = await headshot(app)
        marked = await gateway.leaves("image.marked")
        released = await gateway.leaves("result.released")
        rows = [*await gateway.rows(Job), *await gateway.rows(Subject)]
        files = [path.read_bytes() for path in gateway.object_files()]

    root = layout.marking_ca.read_bytes()
    assert state(result, root) == "Trusted"
    assert state(result) == "Valid"  # whole, and by somebody unknown
    place = result.rindex(b"\xff\xda") + 5000
    changed = result[:place] + bytes([result[place] ^ 1]) + result[place + 1 :]
    assert state(changed, root) == "Invalid"

    (leaf,) = marked
    assert leaf["src"] == "composite_synthetic"
    assert (released[0]["mark"], released[0]["lack"]) == (["manifest", "watermark"], ["watermark"])
    said = manifest(result)
    assert said["assertions"][0]["data"]["actions"][0]["digitalSourceType"].endswith("/compositeSynthetic")

    plain = scrub(result, Limits())
    assert plain.dropped.keys() == {"jumbf"}
    assert Image.open(io.BytesIO(plain.data)).tobytes() == Image.open(io.BytesIO(result)).tobytes()
    boxes = _without(result, plain.data)
    assert 1000 < len(boxes) < 8000
    names = [SUBJECT, "demo", "portraits", "Example Portraits", "studio_grey", job, leaf["obj"], leaf["id"]]
    names += [value for row in rows for value in (row.handle, row.tenant)]
    assert not [name for name in names if name.encode() in boxes]
    assert files
    assert not [one for one in files if boxes[:64] in one]  # it rests sealed


def _without(result: bytes, plain: bytes) -> bytes:
    """Return what stands in a result and not in the same picture without its mark."""
    start = next(i for i, (one, other) in enumerate(zip(result, plain, strict=False)) if one != other)
    return result[start : start + len(result) - len(plain)]
