"""How the bench keeps its books: which photo was used, which was refused, and whose template is whose."""

from __future__ import annotations

import numpy as np

from gateway.deidentify import Rejected
from tests.benchmarks.reid import run
from tests.benchmarks.reid.photos import Face, Photo, Pixels, Unused, finder, photos
from tests.benchmarks.reid.recognisers import recognisers
from tests.benchmarks.reid.verdict import NONE
from tests.needs import face_models
from tests.portraits import write_people

NOWHERE = Face(np.zeros(15, np.float32))


class Eye:
    """Recognises people by the first pixel, and nobody in black."""

    name = "eye"

    def template(self, pixels: Pixels, photo: Photo) -> np.ndarray:
        person, photos_own = pixels[0, 0, :2].astype(np.float32)
        row = np.array([np.cos(person / 9), np.sin(person / 9), photos_own / 900, 0.01], np.float32)
        return row / np.linalg.norm(row)


def photo(number: int, person: int) -> Photo:
    return Photo(number, person, np.full((1, 1, 3), (person, number, 1), np.uint8), NOWHERE)


def picky(taken: Photo) -> Pixels:
    if taken.number in {2, 6}:
        raise Rejected("verifier_linked" if taken.number == 2 else "no_face")
    return np.zeros_like(taken.pixels)


def test_what_is_refused_is_known_by_number_and_attacked_by_nobody():
    taken = [photo(1, 4), Unused(3, "no_face"), photo(2, 4), photo(5, 9), photo(6, 9), photo(7, 9)]
    found = run.measured(taken, {NONE: lambda one: one.pixels, "picky": picky}, [Eye()])
    assert found.people == [4, 4, 9, 9, 9]
    assert found.unused == {"no_face": [3]}
    side = found.sides["picky"]
    assert side.kept == [0, 2, 4]
    assert side.refused == {"verifier_linked": [2], "no_face": [6]}
    assert side.outcomes["eye"]["own"].trials == 3
    assert found.sides[NONE].outcomes["eye"]["rank-1"].hits == 5


def test_a_method_that_refuses_all_is_attacked_by_nobody():
    def never(_: Photo) -> Pixels:
        raise Rejected("verifier_linked")

    found = run.measured([photo(1, 4), photo(2, 4)], {NONE: lambda one: one.pixels, "never": never}, [Eye()])
    assert {seen.trials for seen in found.sides["never"].outcomes["eye"].values()} == {0}


def test_every_recogniser_that_is_there_tells_the_open_portraits_apart(tmp_path):
    """Those of `make reid-attackers` too, where they are installed."""
    models = face_models()
    write_people(tmp_path, 2, 320)
    taken = list(photos(tmp_path, finder(models)))
    there, missing = recognisers(models, run.ATTACKERS)
    assert len(there) + len(missing) == 3
    for attacker in there:
        seen = np.array([attacker.template(one.pixels, one) for one in taken])
        likeness = seen @ seen.T - np.eye(len(seen))
        assert [index ^ 1 for index in range(len(seen))] == likeness.argmax(1).tolist()
