"""Letters: every one in every language, whatever the law and the kind, with what the law wants said."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from policy import letter
from policy.dsr import extension_reasons, grounds, told
from policy.letter import Kind, languages, nearest, templates, write
from policy.pack import Excuse, load_packs
from policy.recipients import Told
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
    assert words.reasons.keys() == templates("en").reasons.keys()
    assert set(words.recipients) == set(Told)
    assert set(words.excuses) == set(get_args(Excuse))


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


@pytest.mark.parametrize("pack", ["gdpr", "uk_gdpr"])
def test_every_ground_of_gdpr_and_every_reason_for_more_time_is_told_in_plain_words(pack: str) -> None:
    """GDPR Art. 12(1): concise, transparent, intelligible."""
    exempt = {"UK_DPA_SCH2_EXEMPT"}  # stands for many; which one it is, the officer writes
    codes = {ground for kind in DsrKind for ground in grounds(PACKS[pack], kind)} - exempt
    for code in codes | {reason for one in PACKS.values() for reason in extension_reasons(one)}:
        text = write(Kind.REFUSAL, "de", PACKS[pack], "access", {**SAID, "reason": code}).text
        assert f" [{code}]" in text


def test_of_words_that_fit_a_ground_the_most_exact_are_taken() -> None:
    said = {**SAID, "reason": "CCPA_145H3_UNFOUNDED_EXCESSIVE"}
    text = write(Kind.REFUSAL, "en", PACKS["ccpa"], "access", said).text
    assert "manifestly unfounded or excessive [CCPA_145H3_UNFOUNDED_EXCESSIVE]" in text


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


def test_the_answer_names_those_who_were_told_and_why_others_were_not() -> None:
    """GDPR Art. 19; 11 CCR 7022(b)(3)."""
    told = {"acknowledged": [("Mail & $reason Co", "")], "excused": [("Ads Ltd", "disproportionate")]}
    for language in languages():
        text = write(Kind.COMPLETION, language, PACKS["gdpr"], "erasure", SAID, recipients=told).text
        assert "Mail & $reason Co" in text
        assert f"Ads Ltd ({templates(language).excuses['disproportionate']})" in text
        early = write(Kind.ACKNOWLEDGEMENT, language, PACKS["gdpr"], "erasure", SAID, recipients=told).text
        assert "Ads Ltd" not in early
