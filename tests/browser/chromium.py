"""A real Chromium without a window and without a network, over DevTools on a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)


class Chromium:
    """One browser with one page; use it as a context."""

    def __init__(self, program: str, profile: Path, *flags: str) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # The pipe's ends are 3 and 4 by the protocol, whatever numbers they have here.
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = [program, *_FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "chromium", *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._rest = b""
        self._calls = 0
        self.said: list[dict[str, Any]] = []
        """What the browser told unasked, oldest first."""
        self._session = ""
        self._profile = profile

    def __enter__(self) -> Self:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the result of one DevTools call."""
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            answer = self._read(deadline)
            if "method" in answer:
                self.said.append(answer)
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page, after a promise of it is kept."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, path: Path, patience_s: float = 20.0) -> str:
        """Open a file and return the verdict that its page shows, by the colour of the banner too.

        A page whose script is broken never says that it is done: it is given
        `patience_s`, or a moment after loading where that is what the test is about.
        """
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if self.value("document.documentElement?.dataset.checked === 'yes'"):
                break
            time.sleep(0.02)
        return self.verdict()

    def verdict(self) -> str:
        """Return `red`, `amber` or `green`, as a person sees it; what is neither of the last is red."""
        shown = self.value(
            "(() => { const box = document.getElementById('verdict');"
            " return box ? getComputedStyle(box).borderTopColor : '' })()"
        )
        return {"rgb(138, 90, 0)": "amber", "rgb(27, 110, 60)": "green"}.get(shown, "red")

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))
