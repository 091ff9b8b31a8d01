"""Who is recognised all the same: `make bench-reid ARGS='--faces DIR'`.

DIR holds a folder for each person.  Prints tables, and writes figures and chart to
the folder `--out`.  Exit code 0: near chance on this bench; 1: linkable; 3: no verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from tests.benchmarks.reid.photos import Photo, Unused, finder, photos
from tests.benchmarks.reid.recognisers import REMEDY, Recogniser, recognisers
from tests.benchmarks.reid.verdict import NONE, Side, judge

ATTACKERS: Final = Path(".cache/reid")
EXIT: Final = {True: 0, False: 1, None: 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench, print what it found, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reid.run", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="a folder with a folder for each person")
    parser.add_argument("--attackers", type=Path, default=ATTACKERS, help="where ArcFace and dlib lie")
    parser.add_argument(
        "--out", type=Path, default=Path(".cache/reid-out"), help="for reid.json and reid.svg"
    )
    chosen = parser.parse_args(arguments)
    if not chosen.faces.is_dir():
        parser.error(f"{chosen.faces} is no folder")
    cv2.setNumThreads(1)
    models = weights.read(weights.directory(), weights.named(*WEIGHTS))
    attackers, missing = recognisers(models, chosen.attackers)
    for name in missing:
        print(f"{name} is not installed and attacks nothing: {REMEDY}")
    with methods(models) as tried:
        found = measured(photos(chosen.faces, finder(models)), tried, attackers)
    if not found.people:
        parser.error("there is no photo with a face in it")
    verdict = judge(found.sides, found.people)
    print(f"{len(found.people)} photos with a face, {len(set(found.people))} people")
    printed = [report.table(found.sides), report.refusals(found.unused, found.sides), report.spoken(verdict)]
    print("", *filter(None, printed), sep="\n\n")
    chosen.out.mkdir(parents=True, exist_ok=True)
    told = report.as_json(found.sides, found.people, found.unused, missing, verdict) | {"machine": machine()}
    (chosen.out / "reid.json").write_text(json.dumps(told, indent=1) + "\n")
    (chosen.out / "reid.svg").write_text(report.chart(found.sides))
    return EXIT[verdict.holds]


@dataclass
class Measured:
    """Who is in each photo that was used, which were not, and what became of each method."""

    people: list[int] = field(default_factory=list)
    unused: dict[str, list[int]] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)


@dataclass
class Treated:
    """What one method made of the photos: which it kept, and every attacker's templates of those."""

    kept: list[int] = field(default_factory=list)
    refused: dict[str, list[int]] = field(default_factory=dict)
    templates: dict[str, list[Templates]] = field(default_factory=dict)

    def add(self, index: int, photo: Photo, method: Method, attackers: Sequence[Recogniser]) -> None:
        try:
            pixels = method(photo)
        except Rejected as refusal:
            self.refused.setdefault(refusal.detail, []).append(photo.number)
            return
        self.kept.append(index)
        for attacker in attackers:
            self.templates.setdefault(attacker.name, []).append(attacker.template(pixels, photo))


def measured(
    taken: Iterable[Photo | Unused], tried: Mapping[str, Method], attackers: Sequence[Recogniser]
) -> Measured:
    """Return what every attacker makes of every method; the pictures of `none` are the originals."""
    found = Measured()
    made = {name: Treated() for name in tried}
    for photo in taken:
        if isinstance(photo, Unused):
            found.unused.setdefault(photo.reason, []).append(photo.number)
            continue
        for name, method in tried.items():
            made[name].add(len(found.people), photo, method, attackers)
        found.people.append(photo.person)
        if len(found.people) % 20 == 0:
            print(f"{len(found.people)} photos", flush=True)
    for name, treated in made.items():
        outcomes = {
            who: attack(
                np.array(treated.templates.get(who, [])), treated.kept, np.array(originals), found.people
            )
            for who, originals in made[NONE].templates.items()
        }
        found.sides[name] = Side(treated.kept, treated.refused, outcomes)
    return found


if __name__ == "__main__":
    sys.exit(main())
