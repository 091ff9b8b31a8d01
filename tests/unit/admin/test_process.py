"""The command as a process: how it ends when its caller goes away."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LETHE = (sys.executable, "-m", "gateway.main")


def start(*arguments: str | Path, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*LETHE, *map(str, arguments)], stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_an_interrupt_ends_with_130_and_no_traceback(layout, *, in_main_thread) -> None:
    """The kernel may hand a process's signal to any of its threads."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        profile = layout.root / "clients" / "silent.yaml"
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        tree = yaml.safe_load(layout.profile("auditor").read_text()) | {"address": address}
        profile.write_text(yaml.safe_dump(tree))
        process = start("tenant", "show", "--as", profile)
        connection, _address = silent.accept()
        with connection, process:
            interrupt_thread(process.pid, in_main_thread=in_main_thread)
            try:
                out, error = process.communicate(timeout=20)
            finally:
                process.kill()
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in error


def interrupt_thread(pid: int, *, in_main_thread: bool) -> None:
    """Send SIGINT to the process's main thread, or to another one."""
    threads = sorted(int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir())
    thread = pid if in_main_thread else next(one for one in threads if one != pid)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.tgkill(pid, thread, signal.SIGINT) == 0, os.strerror(ctypes.get_errno())


def test_a_reader_that_goes_away_leaves_no_traceback(layout) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("config", "show", "--config", layout.config, stdout=writer)
    os.close(writer)
    error = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert error == b""


def test_an_option_nobody_knows_is_a_usage_error() -> None:
    process = start("tenant", "show", "--colour")
    assert b"--colour" in process.communicate(timeout=20)[1]
    assert process.returncode == 2


def test_completion_is_there(monkeypatch) -> None:
    monkeypatch.setenv("_LETHE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "lethe cons")
    monkeypatch.setenv("COMP_CWORD", "1")
    process = subprocess.run(
        [Path(sys.executable).with_name("lethe")], capture_output=True, timeout=20, check=True
    )
    assert process.stdout.split() == [b"consent"]
