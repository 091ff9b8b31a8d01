"""The worker process: one prompt at a time, behind the walls that stand around pictures, too.

Run as `python -I -m gateway.deidentify.text.worker`; it talks over descriptor 0.
A pattern may be made to run for ever by whoever finds how: here that ends with the process.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

from gateway.deidentify.frames import PREFIX, decode, encode, lengths
from gateway.deidentify.lockdown import allow_cpu, lock_down
from gateway.deidentify.text.entities import PromptPolicy, PromptRefused
from gateway.deidentify.text.model import load_model
from gateway.deidentify.text.patterns import warm_up
from gateway.deidentify.text.scrub import scrub

_WIRE: Final = 0
MAX_BYTES: Final = 1 << 16
"""More than the longest prompt in UTF-8, or than an answer to it."""
_WARM: Final = "Foto von Anna Muster, anna@example.com, +49 30 23125 123, GB33BUKB20201555555555, 10.0.0.1"

_WARM_ENGLISH: Final = "headshot, Wanjiru Kamau in the garden"


def main() -> None:
    """Serve until the other side closes."""
    header, _ = _receive(0)
    policy, cpu_s = PromptPolicy(header["actions"]), header["cpu_s"]
    more_names = load_model() if header["has_model"] else None
    warm_up()
    for text in (_WARM, _WARM_ENGLISH):
        scrub(text, more_names=more_names)
    _send({"confinement": lock_down(header["life_cpu_s"])})
    while True:
        _, data = _receive(MAX_BYTES)
        allow_cpu(cpu_s)
        try:
            clean = scrub(data.decode(), policy, more_names)
        except PromptRefused as refusal:
            _send({"refused": refusal.detail})
        else:
            found = [[one.start, one.end, one.entity, one.action] for one in clean.found]
            _send({}, json.dumps({"text": clean.text, "found": found}).encode())


def _receive(max_body: int) -> tuple[dict[str, Any], bytes]:
    header_bytes, body_bytes = lengths(_read(PREFIX.size), max_body)
    return decode(_read(header_bytes)), _read(body_bytes)


def _read(count: int) -> bytes:
    whole = bytearray()
    while len(whole) < count:
        piece = os.read(_WIRE, count - len(whole))
        if not piece:
            # The gateway is gone; no interpreter shutdown behind the walls.
            os._exit(0)
        whole += piece
    return bytes(whole)


def _send(header: dict[str, Any], body: bytes = b"") -> None:
    rest = memoryview(encode(header, len(body)) + body)
    while rest:
        rest = rest[os.write(_WIRE, rest) :]


if __name__ == "__main__":
    main()
