"""Nothing leaves by the log that is not listed, in its listed form."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters import telemetry
from gateway.adapters.telemetry import FIELDS, only_known_fields
from gateway.flows.incident import BANDS

CANARY = "Erika Mustermann, 7 Main St"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted(FIELDS)) | st.text()


def has_listed_form(name: str, value: object) -> bool:
    """Tell the rule again, in other words than the code under test."""
    form = FIELDS[name]
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and bool(re.match(rf"\A(?:{form.pattern})\Z", value))
    numbers = {float: (float, int), int: (int,), bool: (bool,)}[form]
    return isinstance(value, numbers)


@given(st.dictionaries(NAMES, ANYTHING))
def test_no_unknown_field_and_no_ill_formed_value_passes(event):
    kept = only_known_fields(None, "info", dict(event))
    kept.pop("dropped_fields", None)
    if "event" not in event or kept["event"] != event["event"]:
        assert kept.pop("event") == "event_withheld"
    assert all(name in FIELDS and has_listed_form(name, value) for name, value in kept.items())
    assert all(event[name] is value for name, value in kept.items())


@given(st.dictionaries(NAMES, ANYTHING))
def test_every_field_that_is_dropped_is_counted(event):
    kept = only_known_fields(None, "info", dict(event))
    dropped = kept.pop("dropped_fields", 0)
    if kept["event"] == "event_withheld" and event.get("event") != "event_withheld":
        del kept["event"]
    assert len(event) == len(kept) + dropped


@pytest.mark.parametrize("band", BANDS)
def test_an_alarm_about_a_breach_is_logged_by_its_name(band):
    event = {"event": "alarm_raised", "alarm": f"incident_{band}"}
    assert only_known_fields(None, "error", dict(event)) == event


@pytest.mark.parametrize("name", sorted(FIELDS))
@pytest.mark.parametrize("value", [CANARY, f"{CANARY}\n", {"name": CANARY}, [CANARY], CANARY.encode()])
def test_a_persons_name_fits_no_field(name, value):
    assert CANARY not in json.dumps(only_known_fields(None, "info", {name: value}), default=repr)


def test_no_form_admits_a_space_or_a_line_break():
    for form in FIELDS.values():
        if isinstance(form, re.Pattern):
            assert not form.fullmatch("a b")
            assert not form.fullmatch("abcde\n")


@pytest.fixture
def log(monkeypatch) -> Iterator[io.StringIO]:
    """A log in memory; what was set up before is put back."""
    root = logging.getLogger()
    before = root.handlers, root.level
    for owner, hook in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, hook, getattr(owner, hook))
    stream = io.StringIO()
    telemetry.set_up_logs("debug", stream)
    yield stream
    root.handlers, root.level = before
    structlog.reset_defaults()


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_a_sentence_is_no_event(log):
    structlog.get_logger().info(f"stored the picture of {CANARY}", subject=CANARY)
    (line,) = lines(log)
    assert line["event"] == "event_withheld"
    assert line["dropped_fields"] == 2
    assert CANARY not in log.getvalue()


def test_another_librarys_words_are_reduced_to_the_name_of_the_fault(log):
    try:
        {}[CANARY]
    except KeyError:
        logging.getLogger("grpc").exception("cannot parse %s", CANARY)
    (line,) = lines(log)
    assert (line["event"], line["fault"]) == ("library_warning", "KeyError")
    assert CANARY not in log.getvalue()


def test_an_exception_that_nobody_caught_is_reduced_to_its_name(log, capsys):
    thread = threading.Thread(target=lambda: {}[CANARY])
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError(CANARY), None)

    class Loud:
        def __del__(self) -> None:
            raise RuntimeError(CANARY)

    Loud()
    assert [line["fault"] for line in lines(log)] == ["KeyError", "ValueError", "RuntimeError"]
    assert CANARY not in log.getvalue()
    assert CANARY not in capsys.readouterr().err
