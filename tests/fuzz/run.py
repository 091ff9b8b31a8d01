"""Fuzzes every target for some minutes each: `python -m tests.fuzz.run --minutes 2 [TARGET...]`.

What was found to be new is kept in `.cache/fuzz/TARGET/corpus`, so the next run goes on there.  An
input that breaks a target lies in `.cache/fuzz/TARGET` and makes the exit code 1; once it is
understood, the least of it goes to `tests/unit/deidentify/test_found_by_fuzzing.py`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from tests.fuzz.seeds import lay
from tests.fuzz.targets import TARGETS

HERE: Final = Path(__file__).parent
LONGEST_INPUT: Final = 64 << 10
MEMORY_MIB: Final = 512
SECONDS: Final = 10
_RUNS: Final = re.compile(r"Done (\d+) runs|stat::number_of_executed_units:\s*(\d+)")
_COVERAGE: Final = re.compile(r"cov: (\d+)")


def main() -> int:
    """Run what is asked for; return 1 if anything was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=2.0, help="for each target")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], default=[])
    asked = parser.parse_args()
    home = Path(".cache/fuzz").resolve()
    site = install(home)
    print(f"{'target':<10}{'seeds':>8}{'corpus':>8}{'runs':>12}{'coverage':>10}  found")
    outcomes = [fuzz(name, home, site, asked.minutes) for name in asked.targets or TARGETS]
    return 0 if all(outcomes) else 1


def install(home: Path) -> Path:
    """Put the fuzzer beside the project, pinned by hash, and return where its packages lie."""
    stamp, wanted = home / ".installed", (HERE / "requirements.txt").read_text("ascii") + sys.version
    if not stamp.exists() or stamp.read_text("ascii") != wanted:
        venv.create(home / "venv", with_pip=True, clear=True)
        pip = (home / "venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run(
            (*pip, "--require-hashes", "--only-binary=:all:", "-r", HERE / "requirements.txt"), check=True
        )
        stamp.write_text(wanted, "ascii")
    return next((home / "venv/lib").glob("python*/site-packages"))


def fuzz(name: str, home: Path, site: Path, minutes: float) -> bool:
    """Fuzz one target, print one line, and return whether nothing was found."""
    place = home / name
    seeds, corpus = lay(name, place / "seeds"), place / "corpus"
    corpus.mkdir(exist_ok=True)
    arguments = (
        f"-max_total_time={round(minutes * 60)}",
        f"-max_len={LONGEST_INPUT}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={SECONDS}",
        f"-artifact_prefix={place}/",
        "-print_final_stats=1",
    )
    done = subprocess.run(
        (sys.executable, "-m", "tests.fuzz.one", name, *arguments, corpus, place / "seeds"),
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    said = done.stdout + done.stderr
    runs = [int(a or b) for a, b in _RUNS.findall(said)]
    coverage = [int(found) for found in _COVERAGE.findall(said)]
    kept = sum(1 for _ in corpus.iterdir())
    print(
        f"{name:<10}{seeds:>8}{kept:>8}{max(runs, default=0):>12}{max(coverage, default=0):>10}"
        f"  {'nothing' if done.returncode == 0 else 'SOMETHING'}",
        flush=True,
    )
    if done.returncode:
        print("\n".join(said.splitlines()[-40:]))
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
