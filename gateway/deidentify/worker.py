"""The worker process: one picture at a time, behind walls, with nothing to steal.

Run as `python -I -m gateway.deidentify.worker`; it talks over descriptor 0.  It
is told its limits in the first frame, says which walls stand, and then answers
pictures until the other side closes.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image

from gateway.deidentify.decode import trial_decode
from gateway.deidentify.errors import Rejected
from gateway.deidentify.frames import PREFIX, decode, encode, lengths
from gateway.deidentify.limits import Limits
from gateway.deidentify.lockdown import allow_cpu, lock_down
from gateway.deidentify.orientation import minimal_exif
from gateway.deidentify.scrubbed import Scrubbed
from gateway.deidentify.verify import Seen, verify
from gateway.deidentify.walker import scrub

_WIRE: Final = 0
_WRITE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Orders:
    limits: Limits
    cpu_s: int
    life_cpu_s: int


def examine(data: bytes, limits: Limits) -> Scrubbed:
    """Scrub, check the result with the second opinion, and decode it once.

    Raises:
        Rejected: Any of the three refuses.
    """
    try:
        picture = scrub(data, limits)
    except MemoryError as error:
        raise Rejected("too_many_pixels") from error
    seen = verify(picture.data)
    if seen != Seen(picture.format, picture.width, picture.height, picture.orientation):
        raise Rejected("residue_found")
    trial_decode(picture, limits)
    return picture


def main() -> None:
    """Serve until the other side closes."""
    header, _ = _receive(0)
    orders = _Orders(Limits(**header["limits"]), header["cpu_s"], header["life_cpu_s"])
    _warm_up(orders.limits)
    _send({"confinement": lock_down(orders.life_cpu_s)})
    while True:
        _, data = _receive(orders.limits.max_bytes)
        allow_cpu(orders.cpu_s)
        _answer(data, orders.limits)


def _warm_up(limits: Limits) -> None:
    """Do everything once while files can still be read: decoders import what they need when they need it."""
    turned = b"Exif\0\0" + minimal_exif(6)
    for form in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        Image.new("RGBA" if form == "PNG" else "RGB", (16, 16)).save(file, form, exif=turned)
        examine(file.getvalue(), limits)


def _answer(data: bytes, limits: Limits) -> None:
    try:
        picture = examine(data, limits)
    except Rejected as refusal:
        _send({"rejected": refusal.detail})
        return
    _send(
        {
            "format": picture.format,
            "width": picture.width,
            "height": picture.height,
            "orientation": picture.orientation,
            "dropped": dict(picture.dropped),
        },
        picture.data,
    )


def _receive(max_body: int) -> tuple[dict[str, Any], bytes]:
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


def _send(header: dict[str, Any], body: bytes = b"") -> None:
    for part in (encode(header, len(body)), body):
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(_WIRE, rest[:_WRITE_BYTES]) :]


if __name__ == "__main__":
    main()
