"""The worker process: one picture at a time, behind walls, with nothing to steal.

Run as `python -I -m gateway.deidentify.worker`; it talks over descriptor 0.  It
is told its limits in the first frame, says which walls stand, and then answers
pictures until the other side closes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NoReturn

from PIL import Image

from gateway.deidentify.canonical import is_readable, recode
from gateway.deidentify.colour import is_foreign
from gateway.deidentify.decode import trial_decode
from gateway.deidentify.errors import Rejected
from gateway.deidentify.frames import PREFIX, decode, encode, lengths
from gateway.deidentify.head_gif import head_gif
from gateway.deidentify.head_heif import head_heif
from gateway.deidentify.head_tiff import head_tiff
from gateway.deidentify.limits import Limits
from gateway.deidentify.lockdown import PICTURES, Memory, allow_cpu, lock_down
from gateway.deidentify.orientation import minimal_exif
from gateway.deidentify.scrubbed import Mode, Scrubbed, Source
from gateway.deidentify.tally import Tally
from gateway.deidentify.verify import Seen, verify
from gateway.deidentify.walker import WALKERS, announced, scrub

_WIRE: Final = 0
_WRITE_BYTES: Final = 1 << 20
_HEADS: Final[Mapping[Source, Callable[[bytes, Limits], Tally]]] = MappingProxyType(
    {"gif": head_gif, "tiff": head_tiff, "heic": head_heif, "avif": head_heif}
)
_HUNGRY: Final = frozenset({"webp", "avif"})
"""Whose decoders need twice the memory of others for a pixel, so that half as many are taken."""


Change = Callable[[Image.Image], Image.Image]
"""What is done to an upright picture before it is coded anew."""


def examine(data: bytes, limits: Limits, mode: Mode, change: Change | None = None) -> Scrubbed:
    """Return the picture without metadata, read a second time after it was written.

    Headers are held against the caps first.  In `lossless` a walker's result is
    decoded once and the pixels are thrown away; in `canonical`, and for what no
    walker can clean or whose colours hang on a profile that must go, the
    picture is decoded and coded anew; so it is where there is a `change`.

    Raises:
        Rejected: Walker, decoder or second opinion refuse, or the change.
    """
    try:
        return _examine(data, limits, mode, change)
    except MemoryError as error:
        raise Rejected("too_many_pixels") from error


def _examine(data: bytes, limits: Limits, mode: Mode, change: Change | None) -> Scrubbed:
    source = announced(data, limits)
    if source in _HUNGRY:
        limits = replace(limits, max_pixels=(limits.max_pixels + 1) // 2)
    if source not in WALKERS:
        if not is_readable(source):
            raise Rejected("unsupported_format")
        dropped = _HEADS[source](data, limits).dropped
        return _fresh(recode(data, source, b"", 1, limits, change), dropped, limits)
    walked = WALKERS[source](data, limits)
    _look_again(walked)
    if mode == "canonical" or change is not None or is_foreign(walked.profile):
        fresh = recode(walked.data, source, walked.profile, walked.orientation, limits, change)
        return _fresh(fresh, walked.dropped, limits)
    trial_decode(walked, limits)
    return replace(walked, profile=b"")


def _fresh(coded: bytes, dropped: Mapping[str, int], limits: Limits) -> Scrubbed:
    """Return what an encoder wrote, without what it wrote beside the pixels."""
    picture = scrub(coded, limits)
    _look_again(picture)
    return replace(picture, dropped=dict(dropped), mode="canonical", profile=b"")


def _look_again(picture: Scrubbed) -> None:
    seen = verify(picture.data)
    if seen != Seen(picture.format, picture.width, picture.height, picture.orientation):
        raise Rejected("residue_found")


def main() -> None:
    """Serve until the other side closes."""
    orders, _ = receive(0)
    limits = Limits(**orders["limits"])
    warm_up(limits)
    serve(orders, lambda header, data: told(examine(data, limits, header["mode"])))


def warm_up(limits: Limits, change: Change | None = None) -> None:
    """Do everything once while files can still be read: decoders import what they need when they need it."""
    turned = b"Exif\0\0" + minimal_exif(6)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"):
        file = io.BytesIO()
        Image.new("RGBA" if form == "PNG" else "RGB", (16, 16)).save(file, form, exif=turned)
        examine(file.getvalue(), limits, "canonical", change)
    examine(file.getvalue(), limits, "lossless")


def serve(
    orders: Mapping[str, Any],
    answer: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]],
    memory: Memory = PICTURES,
) -> NoReturn:
    """Put up the walls, say which stand, and answer until the other side closes."""
    send({"confinement": lock_down(orders["life_cpu_s"], memory)})
    while True:
        header, data = receive(orders["limits"]["max_bytes"])
        allow_cpu(orders["cpu_s"])
        try:
            said, body = answer(header, data)
        except Rejected as refusal:
            said, body = {"rejected": refusal.detail}, b""
        send(said, body)


def told(picture: Scrubbed) -> tuple[dict[str, Any], bytes]:
    """Return what is said of a picture, and its bytes."""
    said = {
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "orientation": picture.orientation,
        "dropped": dict(picture.dropped),
        "mode": picture.mode,
    }
    return said, picture.data


def receive(max_body: int) -> tuple[dict[str, Any], bytes]:
    """Return the next frame; where there is none, the gateway is gone and this process ends."""
    header_bytes, body_bytes = lengths(_read(PREFIX.size), max_body)
    return decode(_read(header_bytes)), _read(body_bytes)


def _read(count: int) -> bytes:
    pieces: list[bytes] = []
    while count:
        piece = os.read(_WIRE, min(count, _WRITE_BYTES))
        if not piece:
            # The gateway is gone; no interpreter shutdown behind the walls.
            os._exit(0)
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def send(header: dict[str, Any], body: bytes = b"") -> None:
    """Send a frame."""
    for part in (encode(header, len(body)), body):
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(_WIRE, rest[:_WRITE_BYTES]) :]


if __name__ == "__main__":
    main()
