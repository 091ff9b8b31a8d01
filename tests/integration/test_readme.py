"""What the README tells a reader to type works, as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.adapters.keys_local import LocalKeyring
from tests.gateway import PORTRAIT, lethe, make_folder

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
assert LocalKeyring  # `make_folder` uses it; the import says that this is a real keyring


@contextmanager
def process(*arguments: object) -> Iterator[str]:
    """Run `lethe` until the block ends and yield the address it listens on."""
    command = [sys.executable, "-m", "gateway.main", *map(str, arguments)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith("listening ")
        yield line.split()[1]
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=30)
        running.stdout.close()


def test_the_two_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "help", "serve"} <= targets
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()))
def test_every_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_the_one_minute_session_runs_as_written(tmp_path):
    layout = make_folder(tmp_path / "dev")
    session = next(block for block in BLOCKS if block.startswith("cd .cache/dev"))
    session = session.replace("cd .cache/dev\n", "").replace(
        "../../gateway/admin/data/eileen-collins.jpg", str(PORTRAIT)
    )
    assert lethe("migrate", "--config", layout.config).returncode == 0
    weights = os.environ.get("LETHE_WEIGHTS_DIR", str(ROOT / ".cache" / "weights"))
    backend = ("--cert", layout.cert("backend"), "--key", layout.key("backend"), "--ca", layout.backend_ca)
    address = re.search(r"backends:\n- address: (\S+)", layout.config.read_text())
    assert address is not None
    with (
        process("backend", "serve", "--address", address[1], "--weights", weights, *backend),
        process("serve", "--config", layout.config),
    ):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", session],
            cwd=layout.root,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert (layout.root / "headshot.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert "valid" in done.stdout
