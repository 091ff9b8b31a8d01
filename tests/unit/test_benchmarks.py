"""The benchmarks run and tell what they promise; how fast is never asked here."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks import run
from tests.benchmarks.measure import Spread, table, take_turns

NUMBERS = {"min", "median", "max"}


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("seal", {"lethe", "tink", "AESGCM, one call"}),
        (
            "append",
            {"fdatasync of 4 KiB", "SQLite, one leaf a transaction", "SQLite, 64 leaves a transaction"},
        ),
        ("scrub", {"walker and second opinion", "the same, behind the walls, every pixel decoded"}),
        ("faces", {"the detector alone, 640 pixels", "bystanders", "landmarks", "redact"}),
        ("objects", {"disk", "S3 (SeaweedFS)"}),
        ("keys", {"AES-GCM, bare", "local root, many", "local root, one by one", "a roll, with SQLite"}),
        ("sweep", {"pause between two looks", "SQLite, p50", "SQLite, p99"}),
        ("decide", {"decide, all packs", "read the facts from JSON and decide"}),
        ("log", {"fdatasync of 4 KiB", "event and change, one caller", "event and change, 4 callers"}),
    ],
)
def test_a_benchmark_writes_every_side_with_its_ratio_to_the_base(tmp_path, capsys, name, sides):
    run.main(["--quick", "--only", name, "--json", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "out.json").read_text())
    assert {"cpu", "cores", "kernel", "python", "load_before"} == set(told["machine"])
    assert [name] == list(told["benchmarks"])
    assert sides <= {row["name"] for row in told["benchmarks"][name][0]["rows"]}
    for found in told["benchmarks"][name]:
        assert {"title", "unit", "base", "rows", "notes"} == set(found)
        assert found["title"] in printed
        for row in found["rows"]:
            assert set(row["value"]) == NUMBERS
            assert (row["ratio"] is None) == (row["name"] == found["base"])


async def test_the_ratio_is_taken_within_the_round():
    answers = {"a": iter([1.0, 10.0]), "b": iter([2.0, 30.0])}

    def side(name):
        async def turn() -> float:
            return next(answers[name])

        return turn

    seen = await take_turns({name: side(name) for name in answers}, 2)
    rows = table("t", "s", "a", seen).rows
    assert [None, Spread(2.0, 2.5, 3.0)] == [row.ratio for row in rows]
