"""Puts inference servers written by others into a folder: `python -m tests.servers.install .cache/servers`.

Each has a virtual environment of its own, for what they need excludes each other, and us.  Both run on
Python 3.11; all is pinned by hash (wheels for Linux on x86-64).  A folder that is up to date is left alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SERVERS = ("triton", "kserve")


def install(folder: Path) -> None:
    """Bring `folder` up to date; what a run that was broken off left is made again."""
    python = shutil.which("python3.11")
    if python is None:
        raise SystemExit("MISSING python3.11: apt install python3.11 python3.11-venv")
    for name in SERVERS:
        place, requirements = folder / name, HERE / f"{name}.txt"
        stamp = place / ".installed"
        wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
        if stamp.exists() and stamp.read_text("ascii") == wanted:
            continue
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run((python, "-m", "venv", place), check=True, stdin=subprocess.DEVNULL)
        pip = (place / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        pinned = ("--require-hashes", "--no-deps", "--only-binary=:all:", "-r", requirements)
        subprocess.run((*pip, *pinned), check=True, stdin=subprocess.DEVNULL)
        stamp.write_text(wanted, "ascii")


if __name__ == "__main__":
    install(Path(sys.argv[1]).resolve())
