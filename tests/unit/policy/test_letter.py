"""Letters: every one in every language, whatever the law and the kind, with what the law wants said."""

from __future__ import annotations

from itertools import product

import pytest

from policy import letter
from policy.dsr import told
from policy.letter import Kind, languages, nearest, templates, write
from policy.pack import load_packs
from policy.terms import DsrKind

PACKS = load_packs()
SAID = {
    "reference": "dsrs/1",
    "controller": "Example",
    "contact": "privacy@example.test",
    "received": "2026-03-10",
    "due": "2026-04-10",
    "answered": "2026-03-20",
    "reason": "THE_REASON",
}


def test_there_are_at_least_five_languages_and_english_is_the_fallback() -> None:
    assert {"en", "de", "fr", "es", "pt"} <= set(languages())
    assert languages()[0] == letter.FALLBACK == "en"


@pytest.mark.parametrize(
    ("wanted", "got"),
    [("de", "de"), ("DE-at", "de"), ("pt_BR", "pt"), ("", "en"), ("..", "en")],
)
def test_the_nearest_language_is_written(wanted: str, got: str) -> None:
    assert nearest(wanted) == got


@pytest.mark.parametrize("language", languages())
def test_every_language_says_everything(language: str) -> None:
    words = templates(language)
    assert words.language == language
    assert set(words.kinds) == set(words.outcomes) == set(DsrKind)
    assert set(words.letters) == set(Kind)
    assert words.told.keys() == templates("en").told.keys()


def test_whatever_a_law_wants_said_has_its_words() -> None:
    """GDPR Art. 12(4); 11 CCR 7022(f); PIPEDA s. 8(4), (7)."""
    demanded = {
        state
        for pack in PACKS.values()
        if pack.rules.answering
        for state in (*pack.rules.answering.refusal_states, *pack.rules.answering.extension_states)
    }
    assert demanded <= templates("en").told.keys()


@pytest.mark.parametrize(("language", "kind"), list(product(languages(), Kind)))
def test_a_letter_is_whole_whatever_was_asked_and_under_which_law(language: str, kind: Kind) -> None:
    for pack, asked in product(PACKS.values(), DsrKind):
        written = write(kind, language, pack, asked.value, SAID)
        assert "$" not in written.text
        assert "dsrs/1" in written.subject
        assert "privacy@example.test" in written.text
        if kind is Kind.REFUSAL:
            assert "THE_REASON" in written.text
        if kind is Kind.EXTENSION:
            assert "2026-04-10" in written.text


def test_a_refusal_under_gdpr_names_authority_and_court() -> None:
    text = write(Kind.REFUSAL, "en", PACKS["gdpr"], "access", SAID).text
    assert "supervisory authority" in text
    assert "court" in text


@pytest.mark.parametrize("language", languages())
def test_a_ground_that_may_not_be_told_leaves_the_recourse_only(language: str) -> None:
    """PIPEDA s. 9(2.4)."""
    silent = {**SAID, "reason": told("PIPEDA_9_2_4_GOV_OBJECTION")}
    text = write(Kind.REFUSAL, language, PACKS["pipeda"], "access", silent).text
    assert "9(2.4)" not in text
    assert "PIPEDA_" not in text
    assert "()" not in text.replace("$", "")
    spoken = write(Kind.REFUSAL, language, PACKS["pipeda"], "access", SAID).text
    assert {*text.splitlines()} < {*spoken.splitlines()}


def test_an_extension_under_pipeda_names_the_commissioner() -> None:
    """PIPEDA s. 8(4)."""
    assert "Privacy Commissioner" in write(Kind.EXTENSION, "en", PACKS["pipeda"], "access", SAID).text


@pytest.mark.parametrize("kind", Kind)
def test_a_letter_cites_the_law_that_was_invoked_and_no_other(kind: Kind) -> None:
    for pack, asked in product(PACKS.values(), DsrKind):
        shorts = tuple(source.short for source in pack.rules.sources)
        cites = write(kind, "en", pack, asked.value, SAID).cites
        assert all(cite.startswith(shorts) for cite in cites)
        assert len(cites) == len(set(cites))
        assert cites or not pack.rules.answering
