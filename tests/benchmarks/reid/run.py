"""Who is recognised all the same: `make bench-reid ARGS='--faces DIR'`.

DIR holds a folder for each person.  Prints tables, and writes figures and chart to
the folder `--out`.  Exit code 0: near chance on this bench; 1: linkable; 3: no verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from gateway import weights
from gateway.deidentify import Rejected
from gateway.deidentify.faces.names import WEIGHTS
from tests.benchmarks.measure import machine
from tests.benchmarks.reid import report
from tests.benchmarks.reid.attacks import Templates, attack
from tests.benchmarks.reid.methods import Method, methods
from tests.benchmarks.reid.photos import Photo, album, finder
from tests.benchmarks.reid.recognisers import REMEDY, Recogniser, recognisers
from tests.benchmarks.reid.verdict import Side, judge

EXIT: Final = {True: 0, False: 1, None: 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench, print what it found, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reid.run", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="a folder with a folder for each person")
    parser.add_argument(
        "--attackers", type=Path, default=Path(".cache/reid"), help="where ArcFace and dlib lie"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(".cache/reid-out"), help="for reid.json and reid.svg"
    )
    chosen = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    models = weights.read(weights.directory(), weights.named(*WEIGHTS))
    attackers, missing = recognisers(models, chosen.attackers)
    for name in missing:
        print(f"{name} is not installed and attacks nothing: {REMEDY}")
    found = album(chosen.faces, finder(models))
    if not found.photos:
        parser.error("there is no photo with a face in it")
    people = [photo.person for photo in found.photos]
    print(f"{len(people)} photos with a face, {len(set(people))} people", flush=True)
    with methods(models) as tried:
        sides = measured(found.photos, tried, attackers)
    verdict = judge(sides, people)
    printed = [report.table(sides), report.refusals(found.unused, sides), report.spoken(verdict)]
    print("", *filter(None, printed), sep="\n\n")
    chosen.out.mkdir(parents=True, exist_ok=True)
    told = report.as_json(sides, people, found.unused, missing, verdict) | {"machine": machine()}
    (chosen.out / "reid.json").write_text(json.dumps(told, indent=1) + "\n")
    (chosen.out / "reid.svg").write_text(report.chart(sides))
    return EXIT[verdict.holds]


def measured(
    photos: Sequence[Photo], tried: Mapping[str, Method], attackers: Sequence[Recogniser]
) -> dict[str, Side]:
    """Return what every attacker makes of every method; those of the first, `none`, are the originals."""
    originals: dict[str, Templates] = {}
    people = [photo.person for photo in photos]
    sides: dict[str, Side] = {}
    for name, method in tried.items():
        kept, refused, seen = treated(photos, method, attackers)
        originals = originals or seen
        outcomes = {who: attack(seen[who], kept, originals[who], people) for who in seen}
        sides[name] = Side(kept, refused, outcomes)
        print(f"{name}: {len(kept)} of {len(photos)}", flush=True)
    return sides


def treated(
    photos: Sequence[Photo], method: Method, attackers: Sequence[Recogniser]
) -> tuple[list[int], dict[str, list[int]], dict[str, Templates]]:
    """Return which photos were treated, the numbers of those refused by reason, and everybody's templates."""
    kept: list[int] = []
    refused: dict[str, list[int]] = {}
    seen: dict[str, list[Templates]] = {attacker.name: [] for attacker in attackers}
    for index, photo in enumerate(photos):
        try:
            pixels = method(photo)
        except Rejected as refusal:
            refused.setdefault(refusal.detail, []).append(photo.number)
            continue
        kept.append(index)
        for attacker in attackers:
            seen[attacker.name].append(attacker.template(pixels, photo))
    return kept, refused, {name: np.array(rows, np.float32) for name, rows in seen.items()}


if __name__ == "__main__":
    sys.exit(main())
