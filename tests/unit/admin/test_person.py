from __future__ import annotations

from pathlib import Path

import pytest
from lethe.v1 import subject_pb2 as pb

GET = "SubjectService/GetSubject"


@pytest.fixture
def known(gateway):
    gateway.script[GET] = pb.GetSubjectResponse(subject=pb.Subject(name="subjects/u-1"))
    return gateway


def test_a_subject_comes_from_a_file(known, lethe, as_officer, tmp_path: Path) -> None:
    (tmp_path / "id").write_text("u-1\n")
    assert lethe("subject", "show", *as_officer, "--subject-file", tmp_path / "id").exit_code == 0
    assert known.asked(GET).name == "subjects/u-1"


def test_a_subject_comes_from_stdin(known, lethe, as_officer) -> None:
    assert lethe("subject", "show", *as_officer, "--subject-file", "-", stdin="subjects/u-1").exit_code == 0
    assert known.asked(GET).name == "subjects/u-1"


def test_an_opaque_id_may_stand_on_argv(known, lethe, as_officer) -> None:
    assert lethe("subject", "show", *as_officer, "--subject", "u-1", "--opaque").exit_code == 0
    assert known.asked(GET).name == "subjects/u-1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--subject", "erika-m"),
        ("--subject", "erika m", "--opaque"),
        ("--subject", "erika-m", "--opaque", "--subject-file", "-"),
        ("--opaque",),
        (),
    ],
)
def test_any_other_way_is_a_usage_error_that_repeats_no_id(known, lethe, as_officer, arguments) -> None:
    result = lethe("subject", "show", *as_officer, *arguments)
    assert result.exit_code == 2
    assert "erika" not in result.output
    assert known.calls == []


@pytest.mark.parametrize("content", ["", "two\nlines", "a/b", "x" * 129])
def test_a_file_that_holds_no_id_is_a_usage_error(known, lethe, as_officer, content: str) -> None:
    result = lethe("subject", "show", *as_officer, "--subject-file", "-", stdin=content)
    assert result.exit_code == 2
    assert known.calls == []


def test_a_missing_file_is_a_usage_error(known, lethe, as_officer, tmp_path: Path) -> None:
    assert lethe("subject", "show", *as_officer, "--subject-file", tmp_path / "none").exit_code == 2


def test_at_a_terminal_it_is_asked_for(known, lethe, as_officer, monkeypatch) -> None:
    from gateway.admin import person

    monkeypatch.setattr(person.typer, "prompt", lambda _text, *, err: "u-1" if err else "")
    monkeypatch.setattr(
        person, "sys", type("Terminal", (), {"stdin": type("In", (), {"isatty": lambda: True})})
    )
    assert lethe("subject", "show", *as_officer).exit_code == 0
    assert known.asked(GET).name == "subjects/u-1"
