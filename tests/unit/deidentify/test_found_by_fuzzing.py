"""What `make fuzz` found, for ever; and what it starts from, without the fuzzer."""

from __future__ import annotations

import zlib

import pytest
from PIL import Image

from gateway.deidentify import Limits, Rejected
from gateway.deidentify.verify import verify
from gateway.deidentify.walker import scrub
from tests.fuzz.seeds import files
from tests.fuzz.targets import TARGETS
from tests.unit.deidentify import plant

PNG = plant.chunks(scrub(plant.png(), Limits()).data)
PALETTE = (b"PLTE", bytes(range(48)))
JPEG = scrub(plant.jpeg(), Limits()).data


def with_pixels(stream: bytes) -> bytes:
    return plant.joined([(name, stream if name == b"IDAT" else payload) for name, payload in PNG])


PIXELS = zlib.decompress(dict(PNG)[b"IDAT"])
NO_WIDTH = plant.riff(
    plant.extended(0x10, (1, 1)),
    plant.riff_chunk(b"ALPH", bytes(12)),
    plant.riff_chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a\0\0\x01\0" + bytes(10)),
)
FOUND = {
    # The second opinion let pass what a walker takes out.
    "a palette nobody needs": ("second", plant.joined([PNG[0], PALETTE, *PNG[1:]])),
    "a transparency nobody needs": ("second", plant.joined([PNG[0], (b"tRNS", bytes(9)), *PNG[1:]])),
    "bytes behind the pixels of a PNG": ("second", with_pixels(dict(PNG)[b"IDAT"] + b"x")),
    "more pixels than the header says": ("second", with_pixels(zlib.compress(PIXELS + b"x"))),
    "fewer pixels than the header says": ("second", with_pixels(zlib.compress(PIXELS[:-1]))),
    "fill before the end of a JPEG": ("second", JPEG[:-2] + b"\xff\xff" + JPEG[-2:]),
    # Its last byte of a header was taken for fill.
    "a scan without data, whose header ends in FF": (
        "jpeg",
        JPEG[: JPEG.index(b"\xff\xda") + 13] + b"\xff\xff\xd9",
    ),
    # It stumbled.
    "a lossy WebP without a width": ("second", NO_WIDTH),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_found_no_more(name: str) -> None:
    target, data = FOUND[name]
    TARGETS[target].run(data)
    if target == "second":
        with pytest.raises(Rejected, match="residue_found"):
            verify(data)


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caps of a decoder belong to its process; a worker has one of its own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_every_seed_that_lies_here(name: str) -> None:
    for data in files(has_shared=False):
        TARGETS[name].run(data)
