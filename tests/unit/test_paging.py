"""Pages partition their rows, and nobody makes up a token."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MessageInvalid
from gateway.paging import MAX_SIZE, page

ROWS = st.lists(st.text(max_size=8), unique=True, max_size=40).map(sorted)
QUERY = ("jobs", "acme")


@given(ROWS, st.integers(1, 10))
def test_pages_partition_the_rows_in_order(rows: list[str], size: int) -> None:
    seen: list[str] = []
    token, pages = "", 0
    while token or not pages:
        one = page(rows, size, str, QUERY, token)
        assert len(one.items) <= size
        seen += one.items
        token, pages = one.next_token, pages + 1
    assert seen == rows
    assert pages == max(1, -(-len(rows) // size))


@given(ROWS, st.data())
def test_rows_that_come_or_go_meanwhile_make_no_other_row_appear_twice_or_not(
    rows: list[str], data: st.DataObject
) -> None:
    first = page(rows, 3, str, QUERY, "")
    changed = sorted(
        {*data.draw(st.lists(st.sampled_from(rows), max_size=40) if rows else st.just([]))} | {"new"}
    )
    if first.next_token:
        rest = page(changed, MAX_SIZE, str, QUERY, first.next_token)
        assert list(rest.items) == [row for row in changed if row > first.items[-1]]


def test_no_size_is_fifty_and_none_is_above_a_thousand() -> None:
    rows = [f"{number:05d}" for number in range(2000)]
    assert len(page(rows, 0, str, QUERY, "").items) == 50
    assert len(page(rows, 5000, str, QUERY, "").items) == 1000


def test_the_token_of_another_query_is_refused() -> None:
    token = page(["a", "b"], 1, str, QUERY, "").next_token
    with pytest.raises(MessageInvalid):
        page(["a", "b"], 1, str, ("jobs", "other"), token)


@given(st.text(min_size=1) | st.binary(min_size=1).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(MessageInvalid):
        page(["a", "b"], 1, str, QUERY, token)


JSON = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@given(JSON)
def test_a_token_made_up_of_anything_is_refused(tree: object) -> None:
    with pytest.raises(MessageInvalid):
        page(["a"], 1, str, QUERY, base64.urlsafe_b64encode(json.dumps(tree).encode()).decode())


def test_a_token_as_deep_as_it_likes_is_refused() -> None:
    deep = b"[" * 100_000
    with pytest.raises(MessageInvalid):
        page(["a"], 1, str, QUERY, base64.urlsafe_b64encode(deep).decode())
