"""A studio for a bench of the real backend, which works for as long as a test likes."""

from __future__ import annotations

import threading

from gateway.backends.studio.picture import Headshot, Stopped


class GatedStudio:
    """A studio on a bench that stays in its stage "gated" until it is stopped or let go."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.gate = threading.Event()
        self.fault = fault
        self.result = b"made of "

    def headshot(self, image, image_type, style, *, report, is_stopped, max_pixels) -> Headshot:
        report(50, "gated")
        if self.fault:
            raise self.fault
        while not self.gate.wait(0.002):
            if is_stopped():
                raise Stopped
        return Headshot(self.result + image, 1, 1)
