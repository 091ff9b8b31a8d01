from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from audit import leaf
from audit.errors import LeafInvalid
from audit.schema import COMMON, EVENTS
from gateway import errors
from policy.codes import ALLOW_CODES, DENY_CODES
from policy.pack import load_packs
from tests.unit.audit.logs import EXAMPLES, ID, START_MS, counter, event

TYPES = sorted(EVENTS)
CANARIES = (
    "Eileen Collins",
    "eileen collins",
    "Eileen",
    "Eileen-Collins",
    "eileen@example.com",
    "+1 202 555 0143",
    "192.0.2.7",
    "Ei\u0308leen",
    "",
    " ",
    "\x00",
)
JUNK = (None, 1.5, True, -1, 1 << 53, [], {}, ["x"], {"x": "y"}, [[]])


def holders(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all places in a value, the containers too."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(place for name, child in children for place in holders(child, (*path, name)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def test_every_event_type_has_an_example() -> None:
    assert sorted(EXAMPLES) == TYPES


@pytest.mark.parametrize("ty", TYPES)
def test_an_event_of_every_type_survives_encoding_and_decoding(ty: str) -> None:
    made = event(ty)
    line = leaf.encode(made)
    assert made == leaf.decode(line)
    assert line == json.dumps(made, sort_keys=True, separators=(",", ":")).encode()
    assert len(line) < 2000


@pytest.mark.parametrize("ty", TYPES)
def test_optional_fields_may_be_absent_and_required_ones_may_not(ty: str) -> None:
    made = event(ty)
    for name in made:
        rest = {key: value for key, value in made.items() if key != name}
        if name in EVENTS[ty].optional:
            leaf.encode(rest)
        else:
            with pytest.raises(LeafInvalid):
                leaf.encode(rest)


@pytest.mark.parametrize("ty", TYPES)
def test_an_unknown_field_is_refused(ty: str) -> None:
    for name in ("note", "subject", "seal", "", "T"):
        with pytest.raises(LeafInvalid, match="leaf_field_unknown"):
            leaf.encode({**event(ty), name: 1})


@pytest.mark.parametrize("ty", TYPES)
def test_no_field_of_any_type_takes_a_persons_data(ty: str) -> None:
    made = event(ty)
    for path in holders(made)[1:]:
        for canary in CANARIES:
            with pytest.raises(LeafInvalid):
                leaf.encode(replaced(made, path, canary))


@pytest.mark.parametrize("ty", TYPES)
def test_no_list_or_mapping_of_any_type_takes_a_persons_data(ty: str) -> None:
    made = event(ty)
    for path in holders(made)[1:]:
        found = made
        for name in path:
            found = found[name]
        for canary in CANARIES:
            if isinstance(found, list):
                wider: Any = [*found, canary]
            elif isinstance(found, dict):
                wider = {**found, canary: 1}
            else:
                continue
            with pytest.raises(LeafInvalid):
                leaf.encode(replaced(made, path, wider))


@pytest.mark.parametrize("ty", TYPES)
def test_values_of_another_kind_are_refused(ty: str) -> None:
    made = event(ty)
    for name, value in made.items():
        for junk in JUNK:
            is_empty_of_its_kind = type(junk) is type(value) and not junk
            if junk == value or is_empty_of_its_kind:
                continue
            with pytest.raises(LeafInvalid):
                leaf.encode({**made, name: junk})


def test_a_message_names_the_field_and_quotes_nothing() -> None:
    with pytest.raises(LeafInvalid) as caught:
        leaf.encode({**event("dsr.refused"), "rc": "Eileen Collins"})
    assert (
        caught.value.code,
        str(caught.value),
    ) == ("leaf_field_value_rc", "leaf_field_value_rc: event type dsr.refused")


@pytest.mark.parametrize("ty", [None, 1, "", "subject.unknown", ["dsr.approved"], {}])
def test_an_unknown_type_is_refused(ty: Any) -> None:
    with pytest.raises(LeafInvalid, match="leaf_type"):
        leaf.encode({**event("dsr.approved"), "ty": ty})


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": "1"},
        {"id": ID.upper()},
        {"id": ID[:-1]},
        {"id": ID + "\n"},
        {"n": "g" * 32},
        {"t": START_MS + 0.5},
        {"t": -1},
        {"t": 253_402_300_800_000},
        {"act": "eileen"},
        {"act": "svc:Eileen"},
        {"act": "tok:1"},
        {"act": "sys:other"},
        {"act": "svc:a\n"},
        {"seals": [ID]},
        {"seals": [["tok", "class", "com"]]},
        {"t1": True},
        {"cls": ["content", "content"]},
        {"cls": ["everything"]},
        {"cls": "content"},
        {"kept": [{"cls": "evidence"}]},
        {"kept": [{"cls": "evidence", "rule": "GDPR Art. 7(1)", "who": "x"}]},
        {"kept": [{"cls": "evidence", "rule": "GDPR Art. 7(1)", "until": "2031"}]},
        {"meth": "shredded"},
    ],
)
def test_values_outside_their_pattern_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LeafInvalid):
        leaf.encode({**event("subject.erased"), **changes})


RULES = (
    "GDPR Art. 17(3)(b)",
    "GDPR Art. 17(3)(b),(e); GDPR Art. 5(2)",
    "UK GDPR Art. 17(3)(e); Cal. Civ. Code 1798.105(c)(2)",
    "11 CCR 7101; Cal. Civ. Code 1798.145(a)",
    "PIPEDA s. 8(8); PIPEDA Sch. 1 cl. 4.5.2",
    "SOR/2018-64 s. 6",
    "740 ILCS 14/15(a)",
    "Tex. Bus. & Com. Code 503.001(c)(3)",
    "RCW 19.373.090",
    "CQLR c. P-39.1 s. 23",
    "16 CFR 312.10",
    "Reg. (EU) 2024/1689 Art. 50(2)",
)
NO_RULES = (
    "GDPR",
    "GDPR Art.",
    "because Eileen Collins asked, Art. 17",
    "Eileen Collins 17",
    "Collins s. 8",
    "GDPR Art. 17(Eileen)",
    "GDPR Art. 17 eileen@example.com",
    "GDPR Art. 17;GDPR Art. 5",
    "GDPR Art. 17; ",
    "GDPR  Art. 17",
    "GDPR Art. 17\n",
    "; ".join(["GDPR Art. 17"] * 17),
    "EILEENC 17",
    "GDPR Art. 123456789",
    "GDPR Art. 192.0.2.7",
    "GDPR 202 555 0143",
    "17(3)(b)",
    "GDPR Art. \u0661\u0667",
)


@pytest.mark.parametrize("rule", RULES)
def test_citations_of_statutes_are_taken_as_the_rule_that_keeps(rule: str) -> None:
    leaf.encode({**event("subject.erased"), "kept": [{"cls": "evidence", "rule": rule}]})


@pytest.mark.parametrize("rule", NO_RULES)
def test_what_is_no_citation_is_refused_as_a_rule(rule: str) -> None:
    with pytest.raises(LeafInvalid):
        leaf.encode({**event("subject.erased"), "kept": [{"cls": "evidence", "rule": rule}]})


def test_every_rule_by_which_a_shipped_pack_keeps_data_fits_the_schema() -> None:
    for one in load_packs().values():
        for keep in one.rules.keep_at_erasure:
            rule = "; ".join(one.cited(keep.cite))
            leaf.encode({**event("subject.erased"), "kept": [{"cls": keep.cls.value, "rule": rule}]})


def test_every_pack_id_and_reason_code_of_policy_fits_the_schema() -> None:
    for code in ALLOW_CODES | DENY_CODES:
        leaf.encode({**event("decision.made"), "rc": code})
    for code in DENY_CODES:
        leaf.encode({**event("upload.refused"), "rc": code})


def test_every_reason_of_the_gateway_can_be_logged() -> None:
    pending = [errors.LetheError]
    while pending:
        refusal = pending.pop()
        pending.extend(refusal.__subclasses__())
        if refusal.reason:
            leaf.encode({**event("access.refused"), "rc": refusal.reason})


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{" * 10_000,
        b"[" * 60_000,
        b'{"v":1}' + b" " * 70_000,
        b'{"t":' + b"9" * 10_000 + b"}",
        b'{"t":NaN}',
        b'{"t":1e3}',
    ],
)
def test_hostile_lines_are_refused(line: bytes) -> None:
    with pytest.raises(LeafInvalid):
        leaf.decode(line)


def test_only_the_canonical_form_is_a_leaf() -> None:
    line = leaf.encode(event("dsr.approved"))
    variants = (
        line + b"\n",
        b" " + line,
        line.replace(b":", b": ", 1),
        line.replace(b'"v":1', b'"v":1.0'),
        line.replace(b'"v":1', b'"v":1,"v":1'),
        line.replace(b'"v":1', b'"v":1e0'),
        line.replace(b"sys", b"\\u0073ys"),
        json.dumps(dict(reversed(json.loads(line).items())), separators=(",", ":")).encode(),
        json.dumps(json.loads(line), sort_keys=True).encode(),
    )
    for variant in variants:
        with pytest.raises(LeafInvalid):
            leaf.decode(variant)


def test_two_events_alike_have_different_leaves() -> None:
    random = counter()
    first, second = (
        leaf.encode(leaf.new_event("job.deleted", at_ms=1, actor="svc:portal", random=random, job=ID))
        for _ in range(2)
    )
    assert leaf.leaf_hash(first) != leaf.leaf_hash(second)


def test_a_common_field_cannot_be_overwritten() -> None:
    for name in COMMON:
        if name == "ty":
            continue
        with pytest.raises(LeafInvalid, match="leaf_field_common"):
            leaf.new_event("job.deleted", at_ms=1, actor="svc:portal", random=counter(), **{name: 1})


def test_the_leaf_hash_is_what_any_tool_computes_from_the_line() -> None:
    line = leaf.encode(event("job.deleted"))
    assert hashlib.sha256(b"\x00" + line).digest() == leaf.leaf_hash(line)


def test_the_longest_event_stays_below_the_cap() -> None:
    meas = {f"kind_{number:026d}": 1 << 40 for number in range(64)}
    assert len(leaf.encode(event("image.scrubbed", meas=meas))) < leaf.MAX_BYTES
