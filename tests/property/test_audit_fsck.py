from __future__ import annotations

from itertools import islice
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from audit.fsck import compare, fsck
from tests.sample import examples
from tests.unit.audit.logs import SIGNER
from tests.unit.audit.published import publish

KEYS = [SIGNER.verifier]
KINDS = ("flip", "cut", "extend", "remove", "replace", "swap")


@st.composite
def logs(draw: Any) -> list[bytes]:
    """Return entries of random sizes; a size is more often near the bounds of tiles."""
    size = draw(st.one_of(st.integers(0, 600), st.sampled_from([1, 255, 256, 257, 512, 513])))
    pieces = draw(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
    return [pieces[number % len(pieces)] + b"%d" % number for number in range(size)]


def damaged(draw: Any, log: dict[str, bytes]) -> tuple[dict[str, bytes], set[str]]:
    """Return the log with one thing wrong, and the paths that it is wrong at."""
    path = draw(st.sampled_from(sorted(log)))
    kind, content = draw(st.sampled_from(KINDS)), log[path]
    at = draw(st.integers(0, len(content) - 1))
    if kind == "flip":
        bit = 1 << draw(st.integers(0, 7))
        return log | {path: content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]}, {path}
    if kind == "cut":
        return log | {path: content[:at]}, {path}
    if kind == "extend":
        return log | {path: content + draw(st.binary(min_size=1, max_size=40))}, {path}
    if kind == "replace":
        other = draw(st.binary(min_size=len(content), max_size=len(content)).filter(lambda b: b != content))
        return log | {path: other}, {path}
    other_path = draw(st.sampled_from(sorted(log)))
    if kind == "swap" and log[other_path] != content:
        return log | {path: log[other_path], other_path: content}, {path, other_path}
    return {name: log[name] for name in log if name != path}, {path}


@settings(deadline=None)
@given(logs())
def test_every_log_that_is_whole_is_valid_and_so_are_its_rows(lines: list[bytes]) -> None:
    log = publish(lines)
    report = fsck(log.get, KEYS)
    assert (report.verdict, report.entries) == ("valid", len(lines))
    assert compare(log.get, KEYS, [list(enumerate(lines))]) == report


@settings(deadline=None, max_examples=examples(300))
@given(logs(), st.data())
def test_any_one_thing_wrong_is_found_and_named_where_it_is(lines: list[bytes], data: st.DataObject) -> None:
    log, paths = damaged(data.draw, publish(lines))
    report = fsck(log.get, KEYS)
    assert report.verdict == "invalid"
    assert report.path in paths
    assert report.path in report.fault


@settings(deadline=None)
@given(logs().filter(bool), st.data())
def test_any_row_that_differs_or_is_gone_is_found_and_named(lines: list[bytes], data: st.DataObject) -> None:
    log = publish(lines)
    index = data.draw(st.integers(0, len(lines) - 1))
    rows = list(enumerate(lines))
    if data.draw(st.booleans()):
        del rows[index]
    else:
        rows[index] = (index, data.draw(st.binary(max_size=40).filter(lambda line: line != lines[index])))
    coming = iter(rows)
    batches = iter(lambda: list(islice(coming, data.draw(st.integers(1, 300)))), [])
    report = compare(log.get, KEYS, batches)
    assert (report.verdict, report.index) == ("invalid", index)


@settings(deadline=None)
@given(logs(), st.data())
def test_what_is_gone_below_the_minimum_index_is_counted_and_no_fault(
    lines: list[bytes], data: st.DataObject
) -> None:
    log = publish(lines)
    minimum = data.draw(st.integers(0, len(lines)))
    gone = {name for name in log if "entries" in name and 256 * int(name.split("/")[2][:3]) < minimum}
    gone = data.draw(st.sets(st.sampled_from(sorted(gone)))) if gone else set()
    report = fsck({name: log[name] for name in log if name not in gone}.get, KEYS, min_index=minimum)
    assert (report.verdict, report.entries + report.pruned) == ("valid", len(lines))
    assert (report.pruned > 0) == bool(gone)
