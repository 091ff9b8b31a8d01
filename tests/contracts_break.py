"""Breaks each import contract once, in a copy, and demands that the check notices.

A contract that nobody has seen fail may be one that cannot fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BREAKS = {
    "policy and audit never meet, and know no gateway": ("policy/terms.py", "import audit.leaf"),
    "policy and audit stand below the gateway": ("audit/leaf.py", "import gateway.errors"),
    "policy and audit are pure": ("policy/terms.py", "import socket"),
    "the gateway's floors look down": ("gateway/ports/clock.py", "import gateway.flows.job"),
    "a flow never calls a flow": ("gateway/flows/notice.py", "import gateway.flows.job"),
    "what looks for the erased goes by other ways than the erasure": (
        "gateway/absence.py",
        "import gateway.objects",
    ),
    "the wire and the drivers stay outside the core": ("gateway/flows/job.py", "import grpc"),
}


def notices(contract: str, victim: str, line: str) -> bool:
    """Tell whether `lint-imports` reports `contract` broken once `line` stands in `victim`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for package in ("gateway", "policy", "audit"):
            shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(
            ROOT / "proto" / "lethe", copy / "lethe", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(ROOT / ".importlinter", copy)
        target = copy / victim
        target.write_text(f"{target.read_text()}\n{line}\n")
        done = subprocess.run(
            [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    return done.returncode != 0 and f"{contract} BROKEN" in done.stdout


def main() -> int:
    """Break them all; name those that did not notice."""
    blind = [contract for contract, (victim, line) in BREAKS.items() if not notices(contract, victim, line)]
    for contract in blind:
        print(f"not noticed: {contract}", file=sys.stderr)
    print(f"{len(BREAKS) - len(blind)} of {len(BREAKS)} import contracts seen to fail when broken")
    return 1 if blind else 0


if __name__ == "__main__":
    raise SystemExit(main())
