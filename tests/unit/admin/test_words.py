from __future__ import annotations

from pathlib import Path

import pytest
import typer
from lethe.v1 import common_pb2, notice_pb2, subject_pb2

from gateway.admin.words import fill, moment, read_mapping, reason, reason_code, resource


def test_a_name_may_be_bare_or_whole() -> None:
    assert "jobs/1a" == resource("jobs", "1a") == resource("jobs", "jobs/1a")


@pytest.mark.parametrize("name", ["objects/1a", "jobs/", "", "a/jobs/1a"])
def test_a_name_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(typer.BadParameter):
        resource("jobs", name)


def test_a_reason_is_a_code() -> None:
    assert reason("wrong_picture") == "wrong_picture"
    assert reason_code("identity-unproven") == "IDENTITY_UNPROVEN"


@pytest.mark.parametrize("text", ["Erika asked", "x", "É", "a" * 65, "a\nb"])
def test_free_text_is_no_reason_and_is_not_repeated(text: str) -> None:
    for check in (reason, reason_code):
        with pytest.raises(typer.BadParameter) as refused:
            check(text)
        assert "Erika" not in refused.value.message


def test_an_instant_needs_its_offset() -> None:
    assert moment("2026-03-01T09:30:00+01:00").ToJsonString() == "2026-03-01T08:30:00Z"
    for text in ("2026-03-01T09:30:00", "yesterday"):
        with pytest.raises(typer.BadParameter):
            moment(text)


@pytest.mark.parametrize(
    "text",
    [
        "residence: NO\nbirth_year: 1990\n",
        '{"residence": "NO", "birth_year": 1990}',
        "birth_year: '1990'\nresidence: NO",
    ],
)
def test_norway_is_a_country(text: str, tmp_path: Path) -> None:
    (tmp_path / "person").write_text(text)
    subject = fill(subject_pb2.Subject(), read_mapping(tmp_path / "person"))
    assert (subject.residence, subject.birth_year) == ("NO", 1990)


@pytest.mark.parametrize("text", ["- a list", "{", "a: [", "just words"])
def test_what_is_no_mapping_is_a_usage_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(typer.BadParameter):
        read_mapping(tmp_path / "file")


def test_enums_have_short_words() -> None:
    assert fill(subject_pb2.Subject(), {"age_band": "adult"}).age_band == subject_pb2.AGE_BAND_ADULT
    notice = fill(notice_pb2.Notice(), {"purposes": ["generate", "PURPOSE_TRAIN"]})
    assert list(notice.purposes) == [common_pb2.PURPOSE_GENERATE, common_pb2.PURPOSE_TRAIN]


@pytest.mark.parametrize("tree", [{"birth_year": "Erika"}, {"age_band": "Erika"}, {"guardian": "Erika"}])
def test_a_value_that_does_not_fit_is_not_repeated(tree: dict[str, str]) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        fill(subject_pb2.Subject(), tree)
    assert next(iter(tree)) in refused.value.message
    assert "Erika" not in refused.value.message


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(typer.BadParameter, match="shoe_size"):
        fill(subject_pb2.Subject(), {"shoe_size": "44"})
