from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from pyarrow import parquet as foreign

from audit import schema, tree
from audit.views import Controller, Row, derive, ocsf, parquet, table
from tests.unit.audit.views import story

LINES = story.lines()
ROWS = story.rows(LINES)
CONTEXT = story.context(LINES)


def test_the_story_tells_every_event_type() -> None:
    assert schema.EVENTS.keys() == {row.event["ty"] for row in ROWS}


def test_the_same_rows_give_the_same_bytes() -> None:
    assert derive(ROWS, CONTEXT) == derive(story.rows(story.lines()), story.context(story.lines()))


def test_no_rows_give_empty_views() -> None:
    views = derive([], story.context(LINES, 0, 0))
    assert views["ocsf.jsonl"] == b""
    assert views["events.csv"].count(b"\n") == 1
    assert json.loads(views["article30.json"])["activities"] == []


# --- events.csv ------------------------------------------------------------------------------


def test_a_row_of_the_table_carries_index_hash_and_coded_fields() -> None:
    read = list(csv.DictReader(io.StringIO(table.write(ROWS).decode())))
    assert [str(row.index) for row in ROWS] == [line["index"] for line in read]
    assert [tree.hash_leaf(line).hex() for line in LINES] == [line["leaf_hash"] for line in read]
    denied = next(line for line in read if line["dec"] == "deny")
    assert denied["rc"].startswith("DENY_")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", " =1", "\n=1"])
def test_no_cell_is_a_formula(text: str) -> None:
    (read,) = csv.reader(io.StringIO(table.cell(text)))
    assert read[0].startswith("'")


def test_a_cell_with_separators_reads_back() -> None:
    assert list(csv.reader(io.StringIO(table.cell('a "quoted", two\nline')))) == [['a "quoted", two\nline']]


# --- ocsf.jsonl ------------------------------------------------------------------------------

TEXT = get_ocsf_schema(version="1.8.0")
OCSF = OcsfJsonSchemaEmbedded(TEXT)
CHECKS: dict[tuple[int, tuple[str, ...]], Draft202012Validator] = {}


def faults(event: dict[str, object]) -> list[str]:
    profiles = tuple(event["metadata"].get("profiles", ()))  # type: ignore[attr-defined]
    known = (event["class_uid"], profiles)
    if known not in CHECKS:
        name = next(name for name, cls in TEXT["classes"].items() if cls["uid"] == event["class_uid"])
        CHECKS[known] = Draft202012Validator(OCSF.get_class_schema(name, list(profiles)))
    return [fault.message for fault in CHECKS[known].iter_errors(event)]


def test_every_event_type_has_a_row_in_ocsf_and_no_other_has() -> None:
    assert schema.EVENTS.keys() == ocsf.EVENTS.keys()


@pytest.mark.parametrize("ty", sorted(schema.EVENTS))
def test_every_event_type_is_valid_ocsf(ty: str) -> None:
    made = [ocsf.event(row, CONTEXT) for row in ROWS if row.event["ty"] == ty]
    assert made
    assert [fault for event in made for fault in faults(event)] == []


def test_the_validator_refuses_what_is_not_ocsf() -> None:
    event = ocsf.event(ROWS[0], CONTEXT)
    assert faults({name: value for name, value in event.items() if name != "type_uid"})
    assert faults({**event, "severity_id": 7})
    assert faults({**event, "never_heard_of": 1})


def test_an_ocsf_event_says_where_its_leaf_is() -> None:
    for line, row in zip(ocsf.write(ROWS, CONTEXT).splitlines(), ROWS, strict=True):
        event = json.loads(line)
        assert row.index == event["metadata"]["sequence"]
        assert row.hash.hex() == event["raw_data_hash"]["value"]
        assert event["metadata"]["log_name"] == story.ORIGIN
        assert event["class_uid"] * 100 + event["activity_id"] == event["type_uid"]


def test_a_denial_is_denied_and_a_refusal_has_failed() -> None:
    by_type = {row.event["ty"]: ocsf.event(row, CONTEXT) for row in ROWS}
    denied = next(ocsf.event(row, CONTEXT) for row in ROWS if row.event.get("dec") == "deny")
    assert denied["action_id"] == 2
    assert by_type["upload.refused"]["status_id"] == 2
    assert by_type["upload.refused"]["status_code"] == "IMAGE_REJECTED"


# --- events.parquet --------------------------------------------------------------------------


def test_parquet_reads_back_typed_and_is_the_same_each_time() -> None:
    made = parquet.write(ROWS, CONTEXT)
    assert made == parquet.write(ROWS, CONTEXT)
    read = foreign.read_table(io.BytesIO(made))
    assert read["line"].to_pylist() == LINES
    assert [row.hash for row in ROWS] == read["leaf_hash"].to_pylist()
    assert [row.event["t"] for row in ROWS] == [
        int(at.timestamp() * 1000 + 0.5) for at in read["time"].to_pylist()
    ]
    assert [row.event.get("nseal") for row in ROWS] == read["nseal"].to_pylist()
    assert story.ORIGIN.encode() == read.schema.metadata[b"origin"]


def test_parquet_of_nothing_has_the_columns() -> None:
    assert foreign.read_table(io.BytesIO(parquet.write([], CONTEXT))).num_rows == 0


# --- GDPR Art. 30 ----------------------------------------------------------------------------


def test_the_record_of_processing_says_who_what_to_whom_and_how_long() -> None:
    record = json.loads(derive(ROWS, CONTEXT)["article30.json"])
    generate = next(item for item in record["activities"] if item["purpose"] == "generate")
    assert record["controller"]["name"] == "Studio Bergmann GmbH"
    assert generate["data_categories"] == ["original", "output"]
    assert len(generate["recipients"]) == 2
    terms = {term["of"]: term["longest_ms"] for term in generate["retention"]}
    assert terms == {"consent": 365 * story.DAY, "original": story.DAY, "output": 30 * story.DAY}


def test_the_record_says_that_transfers_and_facts_not_given_are_unknown() -> None:
    context = dataclasses.replace(CONTEXT, controller=Controller())
    record = json.loads(derive(ROWS, context)["article30.json"])
    assert record["transfers"].startswith("not recorded")
    assert {"not given"} == set(record["controller"].values())


def test_the_record_as_csv_has_a_line_for_each_purpose_and_no_formula() -> None:
    context = dataclasses.replace(CONTEXT, controller=Controller(name='=HYPERLINK("x")'))
    read = list(csv.DictReader(io.StringIO(derive(ROWS, context)["article30.csv"].decode())))
    assert [line["purpose (b)"] for line in read] == ["analytics", "generate", "retain_output"]
    assert read[0]["controller (a)"] == '\'=HYPERLINK("x")'
    assert "original: 0.04 days to 1.00 days" in read[1]["time limits for erasure (f)"]


def test_backends_have_the_names_that_the_operator_gives_them() -> None:
    backend = next(row.event["bak"] for row in ROWS if "bak" in row.event)
    context = dataclasses.replace(CONTEXT, backends={backend: "EU studio"})
    assert b"EU studio" in derive(ROWS, context)["article30.csv"]


def test_rows_of_a_range_keep_their_indexes() -> None:
    rows: list[Row] = story.rows(LINES[5:9], 5)
    made = [json.loads(line) for line in ocsf.write(rows, story.context(LINES, 5, 9)).splitlines()]
    assert [event["metadata"]["sequence"] for event in made] == [5, 6, 7, 8]
