"""`lethe policy`: facts in, answers out, packs judged; without server or configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from policy.pack import load_packs

LAW = Path(__file__).parents[2] / "vectors" / "law"
PACKS = load_packs()


def lines(name: str, key: str | None) -> tuple[str, list[dict]]:
    found = json.loads((LAW / name).read_bytes())["cases"]
    return "\n".join(json.dumps(one[key] if key else one) for one in found), [
        one["expected"] for one in found
    ]


def answers(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def own_pack(folder: Path, name: str = "ab_pipa", change=lambda _tree: None) -> Path:
    """Write a pack of the operator's own: PIPEDA's text under another name."""
    tree = yaml.safe_load(PACKS["pipeda"].source_bytes)
    tree["pack"]["id"] = name
    change(tree)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return file


def test_all_decisions_of_the_law_sheet_in_one_go(lethe) -> None:
    text, expected = lines("visible_decisions.json", "inputs")
    result = lethe("policy", "decide", "--layer", "legal", stdin=text)
    assert result.exit_code == 0
    assert expected == [{k: got[k] for k in expected[0]} for got in answers(result)]


def test_all_clocks_of_the_law_sheet_in_one_go(lethe) -> None:
    text, expected = lines("visible_dates.json", None)
    result = lethe("policy", "clock", stdin=text)
    assert result.exit_code == 0
    assert expected == answers(result)


def test_both_layers_stand_in_one_answer_the_law_at_the_top(lethe) -> None:
    given = json.loads((LAW / "visible_decisions.json").read_bytes())["cases"][9]["inputs"]
    (both,) = answers(lethe("policy", "decide", stdin=json.dumps(given, indent=2)))
    (house,) = answers(lethe("policy", "decide", "--layer", "house", stdin=json.dumps(given)))
    assert (both["reason_code"], both["house"]["reason_code"]) == ("ALLOW_NOTICE", house["reason_code"])
    assert house["decision"] == "deny"
    assert both["allowed"] is False
    assert both["house"]["would_change"] == ["ask for: explicit consent to `generate`"]
    assert {"id", "version", "digest"} == both["policy"][0].keys()


BASE = {"purpose": "generate", "at": "2026-11-23T12:00:00Z"}


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"at": None}, "MESSAGE_INVALID", "at: Field required"),
        ({"purpose": None}, "MESSAGE_INVALID", "purpose: Field required"),
        ({"subject": {"residence": "Atlantis"}}, "MESSAGE_INVALID", "subject.residence: an ISO 3166 code"),
        ({"subject": {"residence": "QQ"}}, "MESSAGE_INVALID", "ISO 3166 knows no such country"),
        ({"subject": {"location": "US-ZZ"}}, "MESSAGE_INVALID", "no such subdivision of US"),
        ({"controller": {"targets": ["XX"]}}, "MESSAGE_INVALID", "controller.targets"),
        ({"recipient": {"country": "QQ"}}, "MESSAGE_INVALID", "recipient.country"),
        ({"subject": {"age": -1}}, "MESSAGE_INVALID", "subject.age: Input should be greater"),
        ({"subject": {"age": "30"}}, "MESSAGE_INVALID", "subject.age: Input should be a valid integer"),
        ({"at": "2026-11-23T12:00:00"}, "MESSAGE_INVALID", "at: Input should have timezone info"),
        ({"at": 1795435200}, "MESSAGE_INVALID", "at: an ISO 8601 text is expected"),
        ({"purpose_expired_at": "2026-11-23"}, "MESSAGE_INVALID", "purpose_expired_at"),
        (
            {"data": {"kind": "template", "template_extracted": False}},
            "MESSAGE_INVALID",
            "contradicts itself",
        ),
        ({"subject": {"shoe": 43}}, "FACT_UNKNOWN", "no such fact: subject.shoe"),
        ({"consents": [{"purpose": "train", "form": "oral"}]}, "MESSAGE_INVALID", "consents.0.form"),
    ],
)
def test_facts_that_cannot_be_read_are_refused_with_their_place(
    lethe, change: dict, reason: str, message: str
) -> None:
    result = lethe("policy", "decide", stdin=json.dumps({**BASE, **change}))
    assert result.exit_code == 1
    (said,) = answers(result)
    assert said["error"] == reason
    assert message in said["message"]
    assert f"error: {reason}: line 1: " in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"purpose": "train", "purpose": "generate"}', "a key stands there twice"),
        ('{"subject": {"age": NaN}}', "a number is expected"),
        ("[1, 2]", "an object is expected"),
        ("{", "no JSON"),
    ],
)
def test_what_is_no_json_object_is_refused(lethe, text: str, message: str) -> None:
    result = lethe("policy", "decide", stdin=text)
    assert (result.exit_code, message in result.stderr) == (1, True)


def test_a_bad_line_among_good_ones_is_answered_in_its_place(lethe) -> None:
    good = '{"purpose": "generate", "at": "2026-11-23T12:00:00Z"}'
    result = lethe("policy", "decide", stdin=f"{good}\nnonsense\n{good}\n")
    assert result.exit_code == 5
    assert [("error" in said) for said in answers(result)] == [False, True, False]
    assert "line 2" in result.stderr


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_nothing_on_stdin_is_a_mistake_of_use(lethe, text: str) -> None:
    assert lethe("policy", "decide", stdin=text).exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regime": "ATLANTIS"}, "regime: no such pack"),
        ({"event": "coffee"}, "has no clock for 'coffee'"),
        ({"clock_tz": "Mars/Olympus"}, "clock_tz: no such time zone"),
        ({"received_at": "2026-11-23T09:00:00"}, "an aware instant is needed"),
        ({"received_at": "yesterday"}, "received_at: "),
        ({"received_at": None}, "received_at: "),
        ({"shoe": 1}, "no such fact: shoe"),
        ({"inputs": ["2026-11-23"]}, "inputs: days by name"),
        ({"clock_tz": None}, "the controller's time zone"),
    ],
)
def test_a_clock_case_that_cannot_be_read_is_refused(lethe, change: dict, message: str) -> None:
    case = json.loads((LAW / "visible_dates.json").read_bytes())["cases"][0]
    result = lethe("policy", "clock", stdin=json.dumps({**case, **change}))
    assert result.exit_code == 1
    assert message in result.stderr


def test_the_packs_are_listed_with_version_status_and_digest(lethe) -> None:
    listed = json.loads(lethe("policy", "packs", "-o", "json").stdout)["packs"]
    assert {one["id"]: one["digest"] for one in listed} == {p.id: p.digest for p in PACKS.values()}
    assert {one["status"] for one in listed if one["id"] == "wa_bio"} == {"documentation"}


def test_an_operators_own_pack_is_listed_and_decides(lethe, tmp_path: Path) -> None:
    own_pack(tmp_path)
    (tmp_path / "README.md").write_text("not a pack")
    assert "ab_pipa" in lethe("policy", "packs", "--packs-dir", str(tmp_path)).stdout
    given = {"subject": {"residence": "CA-ON", "age": 30}, "purpose": "train", "at": "2026-11-23T12:00:00Z"}
    (said,) = answers(lethe("policy", "decide", "--packs-dir", str(tmp_path), stdin=json.dumps(given)))
    assert {"ab_pipa", "pipeda"} == {denial["pack"] for denial in said["denials"]}


def test_a_pack_that_can_be_used_is_ok(lethe, tmp_path: Path) -> None:
    result = lethe("policy", "check", str(own_pack(tmp_path)))
    assert (result.exit_code, result.stderr) == (0, f"{tmp_path}/ab_pipa.yaml: ok (ab_pipa 2026.11.23)\n")


def weaker(tree: dict) -> None:
    tree["purposes"]["train"]["house"] = {"form": "implied"}


def longer(tree: dict) -> None:
    tree["retention"].append({"kind": "original", "layer": "legal", "at_least": "P9Y", "cite": ["SCH1#4.5"]})


def uncited(tree: dict) -> None:
    del tree["purposes"]["train"]["cite"]


@pytest.mark.parametrize(
    ("change", "line_of", "message"),
    [
        (weaker, "  train:", "house relaxes legal"),
        (longer, "- kind: original", "relaxes the law"),
        (uncited, "  train:", "purposes.train.cite: Field required"),
        (lambda tree: tree["seat"].update(moon="full"), "  moon:", "seat.moon: Extra inputs"),
        (lambda tree: tree["rights"].pop("access"), "rights:", "nothing said of access"),
    ],
)
def test_a_bad_pack_is_refused_with_file_and_line(
    lethe, tmp_path: Path, change, line_of: str, message: str
) -> None:
    file = own_pack(tmp_path, change=change)
    result = lethe("policy", "check", str(file))
    assert result.exit_code == 1
    place, _, why = result.stderr.removeprefix("error: PACK_INVALID: ").partition(": ")
    assert message in why
    name, _, line = place.rpartition(":")
    assert name == str(file)
    assert line_of in file.read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"LI", "NO"', '"LI", NO', "sets.EEA.29"),
        ('since: "2026-01-26"', "since: 2026-01-26", "JSON serializable"),
        ('  id: "gdpr"', '  id: "gdpr"\n  id: "gdpr"', "duplicate key"),
        ('  status: "in_force"', "  status: *x", "aliases are refused"),
        ('      "NO": 13', "      NO: 13", "a key must be quoted text"),
        ("withdrawal:\n", "withdrawal: [\n", ""),
    ],
)
def test_the_traps_of_yaml_are_refused(lethe, tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "gdpr.yaml"
    file.write_text(PACKS["gdpr"].source_bytes.decode().replace(old, new))
    result = lethe("policy", "check", str(file))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: PACK_INVALID: {file}:")
    assert message in result.stderr


def test_a_law_that_is_built_in_cannot_be_replaced(lethe, tmp_path: Path) -> None:
    file = tmp_path / "gdpr.yaml"
    file.write_bytes(PACKS["gdpr"].source_bytes + b"# mine\n")
    assert lethe("policy", "check", str(file)).exit_code == 1
    result = lethe("policy", "packs", "--packs-dir", str(tmp_path))
    assert (result.exit_code, "the law it states stays" in result.stderr) == (1, True)


@pytest.mark.parametrize("name", ["other.yaml", "ab_pipa.yml"])
def test_a_pack_under_another_files_name_is_refused(lethe, tmp_path: Path, name: str) -> None:
    own_pack(tmp_path).rename(tmp_path / name)
    result = lethe("policy", "packs", "--packs-dir", str(tmp_path))
    assert (result.exit_code, "stem of the file" in result.stderr) == (1, True)


@pytest.mark.parametrize("what", ["missing.yaml", "."])
def test_what_is_not_there_or_has_no_pack_is_said(lethe, tmp_path: Path, what: str) -> None:
    assert lethe("policy", "check", str(tmp_path / what)).exit_code in {1, 2}


def test_the_configuration_with_a_bad_pack_is_refused_before_the_start(lethe, layout, tmp_path: Path) -> None:
    own_pack(tmp_path, change=uncited)
    config = layout.root / "with-packs.yaml"
    config.write_text(layout.config.read_text() + f"\npolicy: {{packs_dir: {tmp_path}}}\n")
    assert lethe("migrate", "--config", layout.config).exit_code == 0
    for command in (("config", "check"), ("serve",)):
        result = lethe(*command, "--config", config)
        assert result.exit_code == 1
        assert f"CONFIG_INVALID: {tmp_path}/ab_pipa.yaml:" in result.stderr
