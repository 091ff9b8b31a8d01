"""The schema of a pack: what it refuses."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

from policy.codes import DENY_CODES
from policy.errors import PackInvalid
from policy.pack import ALWAYS_SAID, load_packs, parse_pack
from policy.terms import DsrKind, Purpose

ROOT = Path(__file__).parents[3]
PACKS = load_packs()
BOOKS = sorted(PACKS)


def book(name: str = "gdpr") -> Any:
    """A pack as plain values, to be broken."""
    return yaml.safe_load(PACKS[name].source_bytes)


def refused(tree: Any) -> str:
    with pytest.raises(PackInvalid) as caught:
        parse_pack(yaml.safe_dump(tree).encode())
    return str(caught.value)


def test_three_packs_come_with_the_package() -> None:
    assert {"gdpr", "ccpa", "pipeda"} <= set(PACKS)


@pytest.mark.parametrize("name", BOOKS)
def test_a_pack_written_as_plain_yaml_reads_the_same(name: str) -> None:
    assert PACKS[name].rules == parse_pack(yaml.safe_dump(book(name)).encode()).rules


@pytest.mark.parametrize("name", BOOKS)
def test_a_pack_speaks_of_every_purpose_and_every_right(name: str) -> None:
    assert set(Purpose) == set(PACKS[name].rules.purposes)
    assert set(ALWAYS_SAID) <= set(PACKS[name].rules.rights) <= set(DsrKind)


@pytest.mark.parametrize("name", BOOKS)
def test_every_territory_and_code_is_quoted(name: str) -> None:
    """Unquoted, Norway is false and a day is a date: the file shows no such scalar."""
    tags: set[str] = set()

    def walk(node: yaml.Node) -> None:
        if isinstance(node, yaml.ScalarNode):
            tags.add(node.tag)
            if node.tag == "tag:yaml.org,2002:str" and node.style is None:
                assert node.value[:1].islower() or node.value in SET_NAMES, node.start_mark
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                walk(item)
        elif isinstance(node, yaml.MappingNode):
            for pair in node.value:
                for item in pair:
                    walk(item)

    walk(yaml.compose(PACKS[name].source_bytes))
    assert tags <= {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "bool", "null")}


SET_NAMES = {name for pack in PACKS.values() for name in pack.rules.sets}


@pytest.mark.parametrize("name", BOOKS)
def test_every_source_is_cited_and_says_how_it_was_read(name: str) -> None:
    text = PACKS[name].source_bytes.decode()
    for source in PACKS[name].rules.sources:
        assert f'"{source.key}#' in text, source.key
        assert (source.read == "memory") is (source.read_on is None), source.key


@pytest.mark.parametrize("name", BOOKS)
def test_the_digest_is_that_of_the_file(name: str) -> None:
    again = parse_pack(PACKS[name].source_bytes)
    assert PACKS[name].digest == again.digest
    assert PACKS[name].digest != parse_pack(PACKS[name].source_bytes + b"# other\n").digest


def test_a_citation_is_printed_as_people_write_it() -> None:
    assert PACKS["gdpr"].cited(("GDPR#9(2)(a)",)) == ("GDPR Art. 9(2)(a)",)
    assert PACKS["ccpa"].cited(("CCR#7101",)) == ("11 CCR 7101",)
    assert PACKS["pipeda"].cited(("SCH1#4.3.6",)) == ("PIPEDA Sch. 1 cl. 4.3.6",)


def test_a_rule_without_a_citation_is_refused() -> None:
    tree = book()
    del tree["purposes"]["train"]["cite"]
    assert "cite" in refused(tree)


def test_an_empty_citation_is_refused() -> None:
    tree = book()
    tree["withdrawal"]["cite"] = []
    assert "cite" in refused(tree)


def test_a_citation_of_no_source_is_refused() -> None:
    tree = book()
    tree["purposes"]["train"]["cite"] = ["NOWHERE#1"]
    assert "NOWHERE" in refused(tree)


@pytest.mark.parametrize("where", [(), ("pack",), ("purposes", "train"), ("clocks", "month"), ("seat",)])
def test_an_unknown_key_is_refused_at_any_depth(where: tuple[str, ...]) -> None:
    tree = book()
    part = tree
    for step in where:
        part = part[step]
    part["unheard_of"] = "x"
    assert "unheard_of" in refused(tree)


def test_a_duplicate_key_is_refused() -> None:
    text = PACKS["gdpr"].source_bytes.replace(b'  id: "gdpr"\n', b'  id: "gdpr"\n  id: "gdpr"\n')
    with pytest.raises(PackInvalid, match="duplicate key"):
        parse_pack(text)


def test_an_unquoted_norway_is_refused_in_a_list() -> None:
    """`NO` is false in YAML 1.1, and false is not a territory."""
    text = PACKS["gdpr"].source_bytes.replace(b'"LI", "NO"', b'"LI", NO')
    with pytest.raises(PackInvalid, match="EEA"):
        parse_pack(text)


def test_an_unquoted_norway_is_refused_as_a_key() -> None:
    text = PACKS["gdpr"].source_bytes.replace(b'      "NO": 13\n', b"      NO: 13\n")
    with pytest.raises(PackInvalid, match="quoted text"):
        parse_pack(text)


def test_an_unquoted_day_is_refused() -> None:
    text = PACKS["gdpr"].source_bytes.replace(b'since: "2026-01-26"', b"since: 2026-01-26")
    with pytest.raises(PackInvalid):
        parse_pack(text)


def test_an_alias_is_refused() -> None:
    text = PACKS["gdpr"].source_bytes.replace(
        b'zone: null, calendar: "member_state"', b"zone: &z null, calendar: *z"
    )
    with pytest.raises(PackInvalid, match="aliases"):
        parse_pack(text)


@pytest.mark.parametrize(
    "text", [b"!!python/object/apply:os.system ['true']", b"[", b"- a", b"", b"\xff\xfe\xff"]
)
def test_what_is_no_safe_mapping_is_refused(text: bytes) -> None:
    with pytest.raises(PackInvalid):
        parse_pack(text)


@pytest.mark.parametrize("name", ["house", "GDPR", ""])
def test_a_pack_may_not_be_called_so(name: str) -> None:
    tree = book()
    tree["pack"]["id"] = name
    refused(tree)


def test_a_purpose_that_nobody_mentions_is_refused() -> None:
    tree = book()
    del tree["purposes"]["sell_share"]
    assert "sell_share" in refused(tree)


def test_a_right_that_nobody_mentions_is_refused() -> None:
    tree = book()
    del tree["rights"]["access"]
    assert "access" in refused(tree)


@pytest.mark.parametrize("code", ["DENY_NOT_A_CODE", "ALLOW_CONSENT", "deny_no_consent"])
def test_a_denial_with_an_unknown_code_is_refused(code: str) -> None:
    tree = book()
    tree["purposes"]["train"]["else"] = code
    assert "no such reason code" in refused(tree)


@pytest.mark.parametrize("code", ["ALLOW_ANYTHING", "DENY_NO_CONSENT"])
def test_a_ground_that_allows_with_an_unknown_code_is_refused(code: str) -> None:
    tree = book()
    tree["purposes"]["train"]["grounds"][0]["allow"] = code
    assert "no such reason code" in refused(tree)


def test_a_purpose_without_ground_must_be_forbidden() -> None:
    tree = book()
    tree["purposes"]["train"]["grounds"] = []
    assert "ground" in refused(tree)
    tree["purposes"]["train"]["forbidden"] = "DENY_BIOMETRIC_SALE_PROHIBITED"
    assert parse_pack(yaml.safe_dump(tree).encode())


def test_a_ground_needs_a_consent_or_a_condition() -> None:
    tree = book()
    del tree["purposes"]["train"]["grounds"][0]["consent"]
    assert "ground" in refused(tree)


def test_parental_is_no_form_that_a_ground_may_ask() -> None:
    tree = book()
    tree["purposes"]["train"]["grounds"][0]["consent"]["form"] = "parental"
    assert "minors" in refused(tree)


def test_the_house_may_not_ask_a_weaker_form_than_the_law() -> None:
    tree = book()
    tree["purposes"]["train"]["house"] = {"form": "express"}
    assert "house relaxes legal" in refused(tree)


def test_the_house_may_not_lift_a_prohibition() -> None:
    tree = book()
    tree["purposes"]["sell_share"]["house"] = {"forbidden": False}
    assert "forbidden" in refused(tree)


def test_the_house_may_not_answer_after_the_legal_limit() -> None:
    tree = book("ccpa")
    tree["clocks"]["days44"]["length"] = 46
    assert "house relaxes legal" in refused(tree)


def test_the_house_may_not_measure_thirty_one_days_against_a_month() -> None:
    """A month may have 28 days (GDPR Art. 12(3) with Reg. 1182/71 Art. 3(2)(c))."""
    tree = book()
    tree["clocks"]["month_target"] |= {"unit": "day", "length": 29}
    assert "house relaxes legal" in refused(tree)
    tree["clocks"]["month_target"]["length"] = 28
    assert parse_pack(yaml.safe_dump(tree).encode())


def test_the_house_may_not_keep_less_long_than_the_law_asks() -> None:
    """11 CCR 7101(a): request records for at least 24 months."""
    tree = book("ccpa")
    next(t for t in tree["retention"] if t["kind"] == "dsr_file" and t["layer"] == "house")["at_most"] = (
        "P23M"
    )
    assert "house relaxes legal" in refused(tree)


def test_the_house_may_not_keep_longer_than_the_law_lets() -> None:
    tree = book()
    tree["retention"].append(
        {"kind": "output", "layer": "legal", "at_most": "P29D", "cite": ["GDPR#5(1)(e)"]}
    )
    assert "house relaxes legal" in refused(tree)


def test_an_erasure_may_not_keep_less_long_than_the_law_asks() -> None:
    tree = book("ccpa")
    next(k for k in tree["keep_at_erasure"] if k["class"] == "dsr")["keep_for"] = "P1Y"
    assert "house relaxes legal" in refused(tree)


@pytest.mark.parametrize("cls", ["content", "profile"])
def test_no_pack_may_keep_content_or_profile_from_an_erasure(cls: str) -> None:
    """GDPR Art. 17(1): the pictures and the profile go."""
    tree = book()
    tree["keep_at_erasure"][0]["class"] = cls
    assert "never outlive" in refused(tree)


@pytest.mark.parametrize("text", ["", "P", "PT", "P1W", "5Y", "P1Y2", "-P1D", "P1.5D"])
def test_a_length_that_is_no_duration_is_refused(text: str) -> None:
    tree = book()
    tree["retention"][0]["at_most"] = text
    refused(tree)


def test_a_term_needs_a_length() -> None:
    tree = book()
    del tree["retention"][0]["at_most"]
    assert "length" in refused(tree)


@pytest.mark.parametrize(
    ("where", "field"),
    [
        (("seat",), "calendar"),
        (("events", "request"), "respond"),
        (("events", "request"), "extend"),
        (("events", "request"), "target"),
        (("events", "request"), "ack"),
        (("rights", "access"), "event"),
    ],
)
def test_a_reference_to_nothing_is_refused(where: tuple[str, ...], field: str) -> None:
    tree = book()
    part = tree
    for step in where:
        part = part[step]
    part[field] = "nowhere"
    assert "nowhere" in refused(tree)


def test_a_limit_on_an_unknown_clock_is_refused() -> None:
    tree = book()
    tree["events"]["breach"]["limits"][0]["options"][0]["clock"] = "nowhere"
    assert "nowhere" in refused(tree)


def test_an_unknown_set_is_refused() -> None:
    tree = book()
    tree["applicability"][0]["when"]["value"] = "$ATLANTIS"
    assert "ATLANTIS" in refused(tree)


def test_an_alias_of_two_events_is_refused_in_any_case() -> None:
    tree = book()
    tree["events"]["withdrawal"]["aliases"].append("ACCESS")
    assert "two events" in refused(tree)


def test_an_event_starts_a_clock_and_an_answer_has_a_target() -> None:
    tree = book()
    del tree["events"]["request"]["target"]
    assert "target" in refused(tree)
    tree = book()
    del tree["events"]["breach"]["limits"]
    assert "clock" in refused(tree)


def test_a_right_that_is_there_names_its_event_and_one_that_is_not_names_none() -> None:
    tree = book("ccpa")
    del tree["rights"]["access"]["event"]
    refused(tree)
    tree = book("ccpa")
    tree["rights"]["restriction"]["event"] = "request"
    refused(tree)


@pytest.mark.parametrize("day", ["2026-02-30", "2026-13-01", "26-01-01", "tomorrow"])
def test_a_day_that_does_not_exist_is_refused(day: str) -> None:
    tree = book()
    tree["withdrawal"]["since"] = day
    refused(tree)


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "x"},
        {"name": "x", "month": 1},
        {"name": "x", "month": 1, "day": 1, "easter": 1},
        {"name": "x", "month": 13, "day": 1},
        {"name": "x", "month": 1, "weekday": 7, "nth": 1},
    ],
)
def test_a_holiday_is_of_one_kind(rule: dict[str, Any]) -> None:
    tree = book("pipeda")
    tree["calendars"]["ca_s35"]["rules"] = [rule]
    refused(tree)


@pytest.mark.parametrize("ages", [{"age_lt": 19}, {"age_lt": 0}, {"age_table": {"DE": 21}}, {"age_gte": 16}])
def test_an_age_limit_outside_childhood_is_refused(ages: dict[str, Any]) -> None:
    tree = book()
    tree["minors"][0] |= ages
    refused(tree)


@pytest.mark.parametrize("name", BOOKS)
def test_every_right_that_is_there_has_a_clock_under_the_name_of_its_kind(name: str) -> None:
    """`policy.clocks.due` is asked with the kind of a request."""
    rules = PACKS[name].rules
    for kind, right in rules.rights.items():
        owners = [event for event, found in rules.events.items() if kind.value in found.aliases]
        assert owners == ([] if right.event is None else [right.event]), kind


@pytest.mark.parametrize("name", BOOKS)
def test_every_number_of_the_house_is_marked_as_unsure(name: str) -> None:
    """U-09: the law gives principles, the numbers are a product decision."""
    rules = PACKS[name].rules
    assert all("U-09" in term.uncertain for term in rules.retention if term.layer == "house")


@pytest.mark.parametrize("name", BOOKS)
def test_the_house_forbids_sale_in_every_pack(name: str) -> None:
    assert PACKS[name].rules.purposes[Purpose.SELL_SHARE].house.forbidden is True


def test_every_code_that_a_pack_can_answer_has_a_place_among_headlines() -> None:
    codes = {rule.otherwise for pack in PACKS.values() for rule in pack.rules.purposes.values()}
    assert codes <= DENY_CODES


def test_a_file_whose_stem_is_not_its_id_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "other.yaml").write_bytes(PACKS["gdpr"].source_bytes)
    monkeypatch.setattr("policy.pack.resources.files", lambda _package: tmp_path)
    with pytest.raises(PackInvalid, match="stem"):
        load_packs()


def test_the_packs_are_read_from_an_installed_wheel(tmp_path: Path) -> None:
    """The wheel is left zipped, so a path next to the sources would not do."""
    wheel = Path(next(iter(WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))))
    with zipfile.ZipFile(wheel) as archive:
        assert {f"policy/packs/{name}.yaml" for name in BOOKS} <= set(archive.namelist())
    program = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}); import policy.pack as p; "
        "assert '.whl' in p.__file__, p.__file__; print(*p.load_packs())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == BOOKS
