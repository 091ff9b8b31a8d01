from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from audit import schema
from audit.errors import ExportInvalid, NoteInvalid
from audit.note import Signer
from audit.views import figures, markup, report
from audit.views.controls import CONTROLS, SAID
from audit.views.sections import _DETAILS
from tests.unit.audit.views import story

LINES = story.lines(12)
ROWS = story.rows(LINES)
CONTEXT = story.context(LINES)
PAGE = report.render(ROWS, CONTEXT, story.SIGNER.sign)
VERIFIERS = [story.SIGNER.verifier]


def test_every_event_type_is_evidence_for_a_control_and_has_words() -> None:
    assert {ty for control in CONTROLS for ty in control.types} == schema.EVENTS.keys()
    assert schema.EVENTS.keys() == SAID.keys()


def test_controls_refer_to_what_there_is() -> None:
    keys = [control.key for control in CONTROLS]
    assert len(set(keys)) == len(keys)
    assert {key for control in CONTROLS for key in control.see} <= set(keys)
    assert sorted(name for control in CONTROLS for name in control.detail) == sorted(_DETAILS)


def test_the_same_rows_give_the_same_page() -> None:
    assert report.render(story.rows(LINES), story.context(LINES), story.SIGNER.sign) == PAGE


def test_a_page_of_no_events_can_be_made() -> None:
    assert b"no events" in report.render([], story.context(LINES, 3, 3), story.SIGNER.sign)


# --- figures ---------------------------------------------------------------------------------


def counted(*events: tuple[str, int, dict[str, object]]) -> dict[str, int]:
    told = story.Story()
    for ty, at_ms, fields in events:
        told.say(ty, at_ms, **fields)
    return figures.count([story.Row(place, b"", event, b"") for place, event in enumerate(told.events)])


def sealed(obj: str, at_ms: int, exp: int) -> tuple[str, int, dict[str, object]]:
    return "object.sealed", at_ms, {"obj": obj, "cat": "output", "exp": exp, "pur": "generate"}


def destroyed(obj: str, at_ms: int) -> tuple[str, int, dict[str, object]]:
    return "object.destroyed", at_ms, {"obj": obj, "cat": "output", "why": "expired"}


def test_an_object_is_in_time_until_the_instant_promised_and_late_after_it() -> None:
    found = counted(sealed("a", 10, 100), sealed("b", 10, 100), destroyed("a", 100), destroyed("b", 101))
    assert (found["objects.on_time"], found["objects.late"], found["late/3"]) == (1, 1, 1)


def test_an_object_that_is_left_is_overdue_only_past_its_term() -> None:
    found = counted(sealed("a", 10, 100), sealed("b", 10, 101), destroyed("c", 101))
    assert (found["objects.overdue"], found["objects.standing"], found["objects.before"]) == (1, 1, 1)


def received(dsr: str, kind: str, at_ms: int) -> tuple[str, int, dict[str, object]]:
    return "dsr.received", at_ms, {"dsr": dsr, "dkind": kind, "reg": "gdpr"}


def test_an_erasure_is_answered_when_it_is_done_and_not_when_it_is_approved() -> None:
    day = figures.DAY_MS
    approved = ("dsr.approved", 2 * day, {"dsr": "a"})
    found = counted(received("a", "erasure", day), approved)
    assert (found["requests.open"], found.get("requests.answered")) == (1, None)
    found = counted(received("a", "erasure", day), approved, ("subject.erased", 32 * day, {"dsr": "a"}))
    assert (found["requests.answered"], found["request/0"]) == (1, 31 * day)
    assert found["requests.within/45"] == 1


@pytest.mark.parametrize(("days", "bound"), [(0, "10"), (10, "10"), (30, "30"), (90, "90"), (91, "more")])
def test_a_bound_is_inclusive(days: int, bound: str) -> None:
    assert figures.bucket(days * figures.DAY_MS) == bound


def test_a_consent_stands_until_it_is_withdrawn_or_past_its_term() -> None:
    def given(con: str, **more: object) -> tuple[str, int, dict[str, object]]:
        return "consent.recorded", 10, {"con": con, "pur": "generate", "form": "explicit", **more}

    withdrawn = ("consent.withdrawn", 50, {"con": "b", "pur": "generate", "meth": "api"})
    found = counted(given("a"), given("b"), given("c", exp=50), given("d", exp=51), withdrawn)
    assert found["consents.standing"] == 2


@pytest.mark.parametrize(
    ("span_ms", "text"),
    [
        (0, "0 min"),
        (7_199_999, "119 min"),
        (7_200_000, "2 h"),
        (172_800_000, "2.0 days"),
        (2_000_000_000, "23.1 days"),
    ],
)
def test_a_span_is_cut_off_never_rounded_up(span_ms: int, text: str) -> None:
    assert markup.span(span_ms) == text


# --- the page --------------------------------------------------------------------------------


class Outline(HTMLParser):
    """What a reader without eyes meets: headings, captions, labels; and whatever would be fetched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if given.get("id"):
            self.ids.append(given["id"] or "")
        if (given.get("href") or "").startswith("#"):
            self.targets.append((given["href"] or "")[1:])
        elif given.keys() & {"src", "href", "srcset", "action", "data", "poster"}:
            self.fetched.append(tag)


OUTLINE = Outline(PAGE.decode())


def test_the_page_asks_for_nothing_and_its_policy_forbids_it() -> None:
    assert OUTLINE.fetched == []
    assert b"default-src 'none'" in PAGE
    assert b"unsafe-inline" not in PAGE
    assert not re.search(
        rb"(?:https?:)?//[a-z]|@import|url\(", PAGE.split(b'id="data"')[0].replace(b"function(){/*", b"")
    )


def test_headings_descend_by_one_and_tables_have_captions() -> None:
    assert OUTLINE.levels[0] == 1
    assert OUTLINE.levels.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(OUTLINE.levels, OUTLINE.levels[1:], strict=False))
    assert OUTLINE.tags.count("table") == OUTLINE.tags.count("caption")


def test_ids_are_unique_and_links_lead_somewhere() -> None:
    assert len(set(OUTLINE.ids)) == len(OUTLINE.ids)
    assert set(OUTLINE.targets) <= set(OUTLINE.ids)


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_contrasts_with_its_ground(theme: int) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    roots = re.findall(r":root\{([^}]*)\}", report._resource("report.css"))
    colors = {
        name: value if len(value) == 7 else f"#{value[1] * 2}{value[2] * 2}{value[3] * 2}"
        for name, value in re.findall(r"--([a-z-]+):(#[0-9a-f]+)", roots[theme])
    }
    pairs = [("ink", "paper"), ("soft", "paper"), ("bad", "paper"), ("ink", "tint")]
    pairs += [(name, f"{name}-bg") for name in ("good", "warn", "bad")] + [
        ("ink", f"{name}-bg") for name in ("good", "warn", "bad")
    ]
    for text, ground in pairs:
        light, dark = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


@pytest.mark.parametrize("text", ["</script>", "*/", "<!--", "\u2028", "{{data}}", '"&<>'])
def test_no_text_ends_the_comment_that_the_page_is_or_a_script(text: str) -> None:
    context = dataclasses.replace(CONTEXT, controller=story.Controller(text, text, text, text))
    page = report.render(ROWS, context, story.SIGNER.sign).decode()
    assert page.count("*/") == 1
    assert page.count("</script>") == PAGE.decode().count("</script>")
    assert "*" not in markup.data(text)
    assert "<" not in markup.data(text)


# --- refusals --------------------------------------------------------------------------------


def refused(
    code: str, rows: list[story.Row], context: story.Context, sign: object = story.SIGNER.sign
) -> None:
    with pytest.raises(ExportInvalid) as caught:
        report.render(rows, context, sign)  # type: ignore[arg-type] # wrong signers are the point
    assert caught.value.code == code


def test_rows_that_are_not_those_of_the_range_are_refused() -> None:
    refused("report_rows", ROWS[:-1], CONTEXT)
    refused("report_rows", [*ROWS[1:], ROWS[0]], CONTEXT)
    refused("report_rows", story.rows(LINES[3:5], 4), story.context(LINES, 3, 5))
    hashes = tuple(row.hash for row in ROWS)
    refused("report_rows", [ROWS[0], ROWS[0]], story.context(LINES, hashes=hashes))
    refused("report_rows", ROWS[:2], story.context(LINES, hashes=hashes[:-1]))


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_EVENTS", len(ROWS) - 1)
    refused("report_too_large", ROWS, CONTEXT)


def test_only_one_signature_over_the_statement_seals_a_page() -> None:
    refused("report_note", ROWS, CONTEXT, lambda text: story.SIGNER.sign(text + "more\n"))
    refused(
        "report_note",
        ROWS,
        CONTEXT,
        lambda text: story.SIGNER.sign(text) + story.STRANGER.sign(text).split("\n\n")[1],
    )


def test_an_origin_that_could_end_the_seal_is_refused() -> None:
    signer = Signer("log.example/*/", bytes(32))
    refused("report_note", ROWS, story.context(LINES, signer=signer), signer.sign)


def test_a_page_is_confirmed_from_the_rows() -> None:
    report.confirm(PAGE, ROWS, CONTEXT, VERIFIERS)


@pytest.mark.parametrize(
    "place", [0, 300, PAGE.index(b'id="data"') + 60, PAGE.index(b'id="seal"') + 12, len(PAGE) - 1]
)
def test_a_changed_page_is_not_confirmed(place: int) -> None:
    page = PAGE[:place] + bytes([PAGE[place] ^ 1]) + PAGE[place + 1 :]
    with pytest.raises((ExportInvalid, NoteInvalid)):
        report.confirm(page, ROWS, CONTEXT, VERIFIERS)


def test_a_page_by_a_stranger_or_of_other_rows_is_not_confirmed() -> None:
    with pytest.raises(NoteInvalid):
        report.confirm(PAGE, ROWS, CONTEXT, [story.STRANGER.verifier])
    with pytest.raises(ExportInvalid) as caught:
        report.confirm(PAGE, ROWS[:-1], story.context(LINES, 0, len(LINES) - 1), VERIFIERS)
    assert caught.value.code == "derived_differs"
    with pytest.raises(ExportInvalid):
        report.confirm(b"\xff", ROWS, CONTEXT, VERIFIERS)
