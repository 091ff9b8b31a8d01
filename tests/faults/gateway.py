"""The real gateway as a process that kills itself at a door.

    python -m tests.faults.gateway CONFIG --kill POINT:before|inside|after[:N][@POINT]
    python -m tests.faults.gateway --zygote

The N-th time that POINT is reached (and, with `@`, counted only after the other
point was passed) the process ends by SIGKILL.  The inference backend, and whoever sees
to faces, are fakes inside.  A zygote has everything imported: for each line (a JSON list of
arguments) on its stdin it forks such a gateway and answers with its pid; the
gateway leaves its address in the file `up` beside its configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway import compose
from gateway.settings import load
from policy.pack import load_packs
from tests.doors import When, around, passed
from tests.fakes.faces import FakeDeidentifier
from tests.fakes.inference import FACTS, FakeInference

SPEC = re.compile(r"(?P<point>[^:@]+):(?P<when>before|inside|after)(:(?P<nth>\d+))?(@(?P<since>.+))?")


@dataclass
class Killer:
    """Ends the process at a point."""

    point: str
    when: When
    nth: int = 1
    since: str = ""
    passed: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, text: str) -> Killer:
        found = SPEC.fullmatch(text)
        if found is None:
            raise ValueError(text)
        return cls(found["point"], found["when"], int(found["nth"] or 1), found["since"] or "")

    def __call__(self, point: str, when: When, *, wrote: bool) -> None:
        is_counted = not self.since or self.since in self.passed
        if when == "after":
            self.passed.add(point)
        if is_counted and (point, when) == (self.point, self.when):
            self.nth -= 1
            if not self.nth:
                os.kill(os.getpid(), signal.SIGKILL)


async def run(config: Path, kill: str, points: Path | None, ready: Callable[[str], None]) -> None:
    """Run a gateway until SIGTERM or its kill; with `points` write every point that was passed there."""
    settings = load(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    table, note = passed()

    def put_between(outside: compose.Outside) -> compose.Outside:
        faked = replace(
            outside, backends={name: FakeInference(replace(FACTS, name=name)) for name in outside.backends}
        )
        return around(faked, Killer.parse(kill) if kill else note)

    compose.make_deidentifier = lambda _section, _limits: FakeDeidentifier()  # type: ignore[assignment, return-value] # same door
    await compose.serve(settings, ready, stop, put_between)
    if points is not None:
        points.write_text(json.dumps(table))  # noqa: ASYNC240 - nobody else is on this loop any more


def main(arguments: list[str], ready: Callable[[str], None]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("--kill", default="")
    parser.add_argument("--points", type=Path)
    given = parser.parse_args(arguments)
    asyncio.run(run(given.config, given.kill, given.points, ready))


def say_up(folder: Path, address: str) -> None:
    """Leave the bound address in the folder's file `up`, whole or not at all."""
    draft = folder / "up.new"
    draft.write_text(address)
    draft.rename(folder / "up")


def zygote() -> None:
    """Fork one gateway for each line; children write to a log beside their configuration."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    load_packs()  # whoever is forked has read them
    for line in sys.stdin:
        arguments = json.loads(line)
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        folder = Path(arguments[0]).parent
        log = os.open(folder / "gateway.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in ((0, null), (1, log), (2, log)):
            os.dup2(descriptor, number)
        code = 1
        try:
            main(arguments, functools.partial(say_up, folder))
            code = 0
        except BaseException as fault:  # noqa: BLE001 - a fork must never return into its parent's loop
            print(repr(fault), file=sys.stderr, flush=True)
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1:] == ["--zygote"]:
        zygote()
    else:
        main(sys.argv[1:], lambda address: print(f"listening {address}", flush=True))
