"""`lethe text scrub`: prompts in, clean ones out; without server or configuration."""

from __future__ import annotations

import json
from importlib.util import find_spec

from gateway.settings import MODEL

GIVEN = "Portrait of Wanjiru Kamau, 85mm f/1.4\nRembrandt lighting, Kodak Portra 400\n"


def test_each_line_is_answered_by_one(lethe) -> None:
    result = lethe("text", "scrub", stdin=GIVEN)
    assert result.exit_code == 0
    assert result.stdout == "Portrait of [person], 85mm f/1.4\nRembrandt lighting, Kodak Portra 400\n"
    assert result.stderr == ""


def test_a_report_says_where_and_what_and_never_whom(lethe) -> None:
    result = lethe("text", "scrub", "--report", "--drop", "person", stdin=GIVEN)
    first, second = map(json.loads, result.stderr.splitlines())
    assert first == {"line": 1, "found": [{"start": 12, "end": 25, "entity": "person", "action": "drop"}]}
    assert second == {"line": 2, "found": []}
    assert "Wanjiru" not in result.stdout + result.stderr


def test_a_refused_line_is_empty_and_named(lethe) -> None:
    result = lethe("text", "scrub", "--refuse", "person", stdin=GIVEN)
    assert result.exit_code == 5
    assert result.stdout == "\nRembrandt lighting, Kodak Portra 400\n"
    assert result.stderr == "error: PROMPT_REJECTED (person): line 1\n"
    assert lethe("text", "scrub", "--refuse", "person", stdin=GIVEN.splitlines()[0]).exit_code == 3


def test_an_entity_that_nobody_knows_is_a_mistake_of_usage(lethe) -> None:
    assert lethe("text", "scrub", "--drop", "emial", stdin="").exit_code == 2


def test_a_model_is_asked_where_it_is_wanted_and_missed_where_it_is_not_there(lethe, monkeypatch) -> None:
    given = "Thandiwe Mokoena at her desk, natural light\n"
    assert lethe("text", "scrub", stdin=given).stdout == given
    if all(map(find_spec, MODEL)):
        assert lethe("text", "scrub", "--ner", stdin=given).stdout == "[person] at her desk, natural light\n"
    monkeypatch.setattr("gateway.admin.text.find_spec", lambda _name: None)
    result = lethe("text", "scrub", "--ner", stdin=given)
    assert result.exit_code == 2
    assert "lethe[ner]" in result.stderr
