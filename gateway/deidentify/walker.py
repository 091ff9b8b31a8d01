"""From a stranger's bytes to a picture without metadata; pixels are never decoded here."""

from __future__ import annotations

from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.polyglot import refuse_layered
from gateway.deidentify.scrubbed import Scrubbed
from gateway.deidentify.sniff import sniff
from gateway.deidentify.walk_jpeg import walk_jpeg
from gateway.deidentify.walk_png import walk_png
from gateway.deidentify.walk_webp import walk_webp

_WALKERS: Final = {"jpeg": walk_jpeg, "png": walk_png, "webp": walk_webp}


def scrub(data: bytes, limits: Limits) -> Scrubbed:
    """Return `data` without metadata, its coded pixels untouched.

    The format's own walker decides by allow-list, so what nobody thought of is
    dropped.  Scrubbing what was scrubbed changes nothing and drops nothing.

    Raises:
        Rejected: The bytes may not be processed; see there.
    """
    if len(data) > limits.max_bytes:
        raise Rejected("too_large")
    form = sniff(data)
    refuse_layered(data)
    return _WALKERS[form](data, limits)
