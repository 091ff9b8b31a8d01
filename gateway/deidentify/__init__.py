"""Scrub pictures from strangers: nothing but pixels and orientation gets through."""

from __future__ import annotations

from gateway.deidentify.errors import Rejected, ScrubberUnavailable
from gateway.deidentify.limits import Limits
from gateway.deidentify.scrubbed import Format, Mode, Scrubbed, Scrubber

__all__ = ["Format", "Limits", "Mode", "Rejected", "Scrubbed", "Scrubber", "ScrubberUnavailable"]
