"""The benchmarks: `make bench`, or `python -m tests.benchmarks.run --help`.

It fails when something breaks, never because something is slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import append, decide, due, faces, hop, keys, log, objects, scrub, seal, sweep
from tests.benchmarks.measure import machine

BENCHMARKS = {
    "hop": hop.run,
    "scrub": scrub.run,
    "faces": faces.run,
    "seal": seal.run,
    "append": append.run,
    "log": log.run,
    "objects": objects.run,
    "keys": keys.run,
    "sweep": sweep.run,
    "due": due.run,
    "decide": decide.run,
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run what is asked for, print the tables, and return what `--json` writes."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only try whether everything runs")
    parser.add_argument("--only", choices=BENCHMARKS, help="one of the benchmarks")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    chosen = parser.parse_args(arguments)
    told: dict[str, Any] = {"quick": chosen.quick, "machine": machine(), "benchmarks": {}}
    for name, run in BENCHMARKS.items():
        if chosen.only in {None, name}:
            tables = asyncio.run(run(quick=chosen.quick))
            told["benchmarks"][name] = [found.as_json() for found in tables]
            for found in tables:
                print(found, end="\n\n", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(told, indent=1) + "\n")
    return told


if __name__ == "__main__":
    main()
