"""The `lethe` command in a process of its own, forked from one that has everything imported.

An interpreter of its own spends two seconds on imports before it does what a test asks.
That one starts as it should is asked in `tests/unit/admin/test_process.py`.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from gateway import client, compose  # noqa: F401 - what commands import once they need it
from gateway.main import main
from policy.pack import load_packs

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300


class Terminal:
    """A process with everything imported, which runs one command after the other in forks."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.command"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        atexit.register(self._process.communicate)  # the end of its input is its own

    def run(
        self, *arguments: str | Path, stdin: str = "", env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run `lethe` with the arguments and return how it ended and what it wrote."""
        words = [str(argument) for argument in arguments]
        with tempfile.TemporaryDirectory(prefix="lethe-command-") as folder, self._turn:
            streams = [Path(folder) / name for name in ("in", "out", "err")]
            streams[0].write_text(stdin)
            order = {
                "words": words,
                "env": dict(env),
                "cwd": str(Path.cwd()),
                "streams": [*map(str, streams)],
            }
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            out, err = (stream.read_bytes().decode() for stream in streams[1:])
        return subprocess.CompletedProcess(["lethe", *words], code, out, err)


@functools.cache
def terminal() -> Terminal:
    """Return the one of this process; it ends when this process does."""
    return Terminal()


def _serve() -> None:
    """Run the command of each line of stdin, and answer with its exit code."""
    load_packs()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            _be(order)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _be(order: dict[str, Any]) -> NoReturn:
    """Be the command: never returns into the process that was forked."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(PATIENCE_S)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        for number, path in enumerate(order["streams"]):
            stream = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
        sys.argv = ["lethe", *order["words"]]
        sys.modules["__main__"].__package__ = None  # or a mistake would be told in the name of this module
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a fork must never return into its parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _too_long(_number: int, _frame: object) -> NoReturn:
    raise TimeoutError(PATIENCE_S)  # so that the command ends what it started


if __name__ == "__main__":
    _serve()
