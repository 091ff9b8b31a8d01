"""The re-identification bench, end to end, on the open portraits.

They are too few for a verdict, and alterations of one portrait share more than a
face; so what is asked is whether the bench works, and whether it sees.
"""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.benchmarks.reid import run
from tests.benchmarks.reid.verdict import CONTROL, NONE
from tests.needs import face_models
from tests.portraits import write_people


def test_ones_own_mesh_is_caught_and_four_people_are_too_few_for_a_verdict(tmp_path: Path, capsys) -> None:
    face_models()
    write_people(tmp_path / "faces", 2, 320)
    strangers = tmp_path / "faces" / "person-0"
    Image.new("RGB", (64, 64), (90, 90, 90)).save(strangers / "wall-of-mary.png")
    (strangers / "zettel.txt").write_text("not a picture")
    arguments = ["--faces", tmp_path / "faces", "--attackers", tmp_path / "none", "--out", tmp_path / "out"]
    code = run.main([str(word) for word in arguments])
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "out" / "reid.json").read_text())

    linked = {
        name: of["attackers"]["SFace"]["rank-1"]["is_above_chance"] for name, of in told["methods"].items()
    }
    assert linked[NONE]
    assert linked[CONTROL]
    assert linked["bystanders"]
    assert not linked["redact"]

    assert code == 3
    assert told["verdict"]["holds"] is None
    assert "13 people are needed" in printed
    assert (told["photos"], told["people"]) == (8, 4)
    assert told["missing_attackers"] == ["ArcFace-MBF", "dlib ResNet"]
    assert "make reid-attackers" in printed
    assert told["left_out"] == {"no_face": [3], "not_an_image": [4]}
    chart = (tmp_path / "out" / "reid.svg").read_text()
    for name in ("person-0", "mary", "zettel", str(tmp_path)):
        assert name not in printed + chart + json.dumps(told)
