from __future__ import annotations

import json

import pytest
import yaml
from lethe.v1 import backend_pb2, consent_pb2

from gateway.admin.output import Form, flat, printable, show

BACKENDS = backend_pb2.ListBackendsResponse(
    backends=[backend_pb2.Backend(name="backends/" + "x" * 200, device="\x1b]0;owned\x07[red]cpu[/red]")]
)
LISTED = {"rows": "backends", "columns": ("name", "reachable", "device")}


@pytest.mark.parametrize(("form", "parse"), [(Form.JSON, json.loads), (Form.YAML, yaml.safe_load)])
def test_false_and_empty_fields_are_there(form: Form, parse, capsys) -> None:
    """A script that asks `.decision.allowed` must not get null for no."""
    show(consent_pb2.CheckConsentResponse(decision=consent_pb2.Decision(reason_code="DENY_NO_CONSENT")), form)
    decision = parse(capsys.readouterr().out)["decision"]
    assert (
        decision["allowed"],
        decision["reason_code"],
        decision["citations"],
    ) == (False, "DENY_NO_CONSENT", [])


def test_a_table_in_a_pipe_is_never_folded(capsys) -> None:
    show(BACKENDS, Form.TABLE, **LISTED)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "REACHABLE", "DEVICE"]
    assert row.split()[:2] == ["backends/" + "x" * 200, "no"]


@pytest.mark.parametrize("form", list(Form))
def test_what_strangers_wrote_cannot_steer_the_terminal(form: Form, capsys) -> None:
    show(BACKENDS, form, **LISTED)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]cpu[/red]" in out


def test_what_was_not_said_is_not_shown_in_a_table(capsys) -> None:
    """The wire's word for it reads as if something were wrong with the record."""
    answer = consent_pb2.GetConsentResponse(consent=consent_pb2.Consent(name="consents/1"))
    show(answer, Form.TABLE)
    assert "UNSPECIFIED" not in capsys.readouterr().out
    show(answer, Form.JSON)
    assert json.loads(capsys.readouterr().out)["consent"]["act"] == "ACT_UNSPECIFIED"


def test_right_to_left_tricks_become_visible() -> None:
    assert printable("a\u202eb\x9bc") == "a\\u202eb\\x9bc"


def test_no_colour_where_none_is_wanted(capsys, monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    show(BACKENDS, Form.TABLE, **LISTED)
    assert "\x1b[3" not in capsys.readouterr().out


def test_trees_become_dotted_names() -> None:
    assert list(flat({"a": {"b": True}, "c": [1, 2], "d": [{"e": "x"}]})) == [
        ("a.b", "yes"),
        ("c", "1, 2"),
        ("d.0.e", "x"),
    ]
