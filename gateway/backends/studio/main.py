"""Runs the studio as its own process, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from gateway import weights as files
from gateway.backends.studio import picture
from gateway.backends.studio.server import Limits, MutualTls, Studio, UnsafePlaintextOnLoopback, make_server


@dataclass(frozen=True, slots=True)
class StudioSettings:
    """Where the studio listens (port 0: a free one), how, and where its models lie."""

    address: str
    security: MutualTls | UnsafePlaintextOnLoopback
    weights: Path
    limits: Limits = field(default_factory=Limits)
    region: str = "local"


async def serve(settings: StudioSettings, ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Run the studio until `stop` is set, then let running jobs finish (`limits.drain_s`).

    `ready` is called with the bound address once calls are taken.

    Raises:
        WeightsInvalid: A model file is missing or is another file.
        OSError, RuntimeError, ValueError: The address or the certificates cannot be used.
    """
    studio = Studio(
        files.read(settings.weights, files.named(*picture.MODELS)), settings.limits, settings.region
    )
    try:
        server, address = make_server(studio, settings.address, settings.security)
        await server.start()
        ready(address)
        await stop.wait()
        await server.stop(settings.limits.drain_s)
    finally:
        studio.benches.close()


def run(*, address: str, cert: Path, key: Path, ca: Path, weights: Path) -> int:
    """Run the studio with mutual TLS and return the exit code; for `lethe backend serve`.

    One line, `listening HOST:PORT`, goes to stdout when it is ready; the log goes to stderr.
    """
    set_up_log()
    settings = StudioSettings(address=address, security=MutualTls(cert, key, ca), weights=weights)
    try:
        asyncio.run(_until_told(settings))
    except (files.WeightsInvalid, OSError, RuntimeError, ValueError) as fault:
        sys.stderr.write(f"studio: {fault}\n")
        return 1
    return 0


async def _until_told(settings: StudioSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, _say, stop)


def _say(address: str) -> None:
    sys.stdout.write(f"listening {address}\n")
    sys.stdout.flush()


def set_up_log() -> None:
    """Send events to stderr as JSON; they hold codes only, so nothing need be filtered."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
