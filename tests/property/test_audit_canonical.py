from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from audit import b64, canonical
from audit.errors import JsonInvalid

keys = st.text(st.characters(max_codepoint=0x7F), max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**53) + 1, 2**53 - 1)
values = st.recursive(
    st.one_of(texts, numbers, st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)


@given(values)
def test_the_bytes_are_those_of_rfc_8785(value: Any) -> None:
    assert rfc8785.dumps(value) == canonical.encode(value)


@given(values)
def test_what_is_encoded_parses_to_the_same_value(value: Any) -> None:
    assert value == canonical.parse(canonical.encode(value), 1 << 20)


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_as_json_or_refused_by_name(data: bytes) -> None:
    try:
        value = canonical.parse(data, 100)
    except JsonInvalid:
        return
    assert value == json.loads(data)


@pytest.mark.parametrize(
    "value",
    [None, 1.5, float("nan"), 2**53, -(2**53), {"é": 1}, {1: 1}, {"a": None}, [[1.0]], b"x", {1}, "\ud800"],
)
def test_values_outside_the_profile_are_refused(value: Any) -> None:
    with pytest.raises(JsonInvalid):
        canonical.encode(value)


def test_depth_is_capped() -> None:
    value: Any = 1
    for _ in range(canonical.MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(JsonInvalid, match="json_too_deep"):
        canonical.encode(value)


@given(st.text(st.sampled_from("AQg/+=9 \n-_"), max_size=12))
def test_base64_has_one_text_for_one_value(text: str) -> None:
    data = b64.decode(text)
    assert data is None or b64.encode(data) == text
