"""From a stranger's bytes to a picture without metadata, coded pixels untouched; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from gateway.deidentify.errors import Rejected
from gateway.deidentify.limits import Limits
from gateway.deidentify.polyglot import refuse_layered
from gateway.deidentify.scrubbed import Scrubbed, Source
from gateway.deidentify.sniff import sniff
from gateway.deidentify.walk_jpeg import walk_jpeg
from gateway.deidentify.walk_png import walk_png
from gateway.deidentify.walk_webp import walk_webp

WALKERS: Final[Mapping[Source, Callable[[bytes, Limits], Scrubbed]]] = MappingProxyType(
    {"jpeg": walk_jpeg, "png": walk_png, "webp": walk_webp}
)


def scrub(data: bytes, limits: Limits) -> Scrubbed:
    """Return `data` without metadata, its coded pixels untouched.

    The format's own walker decides by allow-list, so what nobody thought of is
    dropped.  Scrubbing what was scrubbed changes nothing and drops nothing.

    Raises:
        Rejected: The bytes may not be processed; see there.
    """
    walk = WALKERS.get(announced(data, limits))
    if walk is None:
        raise Rejected("unsupported_format")
    return walk(data, limits)


def announced(data: bytes, limits: Limits) -> Source:
    """Return what `data` says it is, once it is short enough and says nothing else.

    Raises:
        Rejected: `too_large`, `polyglot`, or no picture that is taken.
    """
    if len(data) > limits.max_bytes:
        raise Rejected("too_large")
    source = sniff(data)
    refuse_layered(data)
    return source
