"""Runs a program where there is no network, and tells whom it wanted to speak to all the same.

The program gets an empty network namespace with nothing but loopback, a HOME in which
nothing was ever configured, and `strace` beside it that notes every address it turns to.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tests.needs import missing, needs

_CALLS = "connect,sendto,sendmsg,sendmmsg"
_ADDRESS = re.compile(
    r"sin6?_port=htons\((?P<port>\d+)\).*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"(?P<host>[^\"]+)\""
)
_NAMES = 53
"""The port of name servers: one may well listen on loopback."""


@dataclass(frozen=True)
class Seen:
    """What a program did: its exit code and output, whom it turned to (`host:port`), files left in HOME."""

    code: int
    output: str
    strangers: tuple[str, ...]
    files: tuple[str, ...]


def strangers(trace: str) -> list[str]:
    """Return the addresses in the notes of `strace` that are not on loopback, or are a name server's."""
    found = []
    for said in _ADDRESS.finditer(trace):
        host, port = ip_address(said["host"]), int(said["port"])
        host = getattr(host, "ipv4_mapped", None) or host
        if port == _NAMES or not host.is_loopback:
            found.append(f"{host}:{port}")
    return found


def watched(folder: Path, arguments: Sequence[str], timeout_s: float, **variables: str) -> Seen:
    """Run `python -m ARGUMENTS` with `folder` for its HOME and the notes, and return what it did."""
    strace, unshare = needs("strace", "strace"), needs("unshare", "util-linux")
    if subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        missing("network namespaces", "sysctl kernel.unprivileged_userns_clone=1")
    home, notes = folder / "home", folder / "trace"
    home.mkdir()
    inside = [sys.executable, "-m", "tests.egress.watch"]
    tracing = [
        strace,
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-e",
        f"trace={_CALLS}",
        "-e",
        "signal=none",
        "-o",
        str(notes),
    ]
    kept = {
        name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LETHE_WEIGHTS_DIR") if name in os.environ
    }
    done = subprocess.run(
        [unshare, "-rn", *inside, *tracing, sys.executable, "-m", *arguments],
        env={**kept, "HOME": str(home), "TMPDIR": str(folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    files = tuple(str(path.relative_to(home)) for path in sorted(home.rglob("*")) if path.is_file())
    return Seen(done.returncode, done.stdout, tuple(strangers(notes.read_text())), files)


def main() -> None:
    """Switch loopback on in a new network namespace, and become the program."""
    up = struct.pack("16sh14x", b"lo", 1)  # IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        fcntl.ioctl(door, 0x8914, up)  # SIOCSIFFLAGS
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
