"""The page of a package: the same in every language, and no text becomes markup."""

from __future__ import annotations

import tomllib
from html.parser import HTMLParser
from importlib import resources
from string import Formatter
from typing import Any

import pytest

from audit.schema import DSR_KIND, PURPOSE
from gateway.package.page import LANGUAGES, render, words
from policy.dsr import DsrState
from policy.terms import DsrKind, Purpose
from tests.unit.package.example import DOCUMENT

HOSTILE = "<img src=x onerror=alert(1)>\"'&</td>"


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_language_says_everything() -> None:
    tree = tomllib.loads(resources.files("gateway.package").joinpath("words.toml").read_text("utf-8"))
    assert tuple(tree) == LANGUAGES
    for language, said in tree.items():
        assert said.keys() == tree["en"].keys(), language
        assert {key: fields(text) for key, text in said.items()} == {
            key: fields(text) for key, text in tree["en"].items()
        }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_of_ours_has_a_word(language: str) -> None:
    known = words(language)
    assert all(
        DSR_KIND(kind.value) and f"kind_{kind}" in known and f"right_{kind}" in known for kind in DsrKind
    )
    assert all(PURPOSE(purpose.value) and f"purpose_{purpose}" in known for purpose in Purpose)
    assert all(f"state_{state}" in known for state in DsrState)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["access", "portability"])
def test_a_page_is_well_formed_and_names_its_parts(language: str, kind: str) -> None:
    text = render({**DOCUMENT, "kind": kind}, language, "en").decode()
    parser = Outline()
    parser.feed(text)
    assert parser.open == []
    assert parser.labels <= parser.ids
    assert f'<html lang="{language}">' in text
    assert parser.headings == sorted(parser.headings)
    assert "script" not in parser.seen
    assert "None" not in text


def test_no_text_becomes_markup() -> None:
    text = render(_hostile(DOCUMENT), "en", "en").decode()
    assert "<img src=x" not in text
    assert text.count("<img ") == len(DOCUMENT["images"])


def _hostile(value: Any, key: str = "") -> Any:
    """Return the document with a hostile text wherever a person or a backend could have put one."""
    if isinstance(value, dict):
        return {name: _hostile(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_hostile(inner, key) for inner in value]
    free = key in {
        "id",
        "name",
        "contact",
        "region",
        "residence",
        "location",
        "rule",
        "title",
        "file",
        "receipt",
        "proof",
    }
    return HOSTILE if free and isinstance(value, str) else value


class Outline(HTMLParser):
    """What a page is made of."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.labels: set[str] = set()
        self.headings: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in {"h1", "h2"}:
            self.headings.append(tag)
        assert said.get("id") not in self.ids
        self.ids |= {said["id"]} if said.get("id") else set()
        self.labels |= {said["aria-labelledby"]} if said.get("aria-labelledby") else set()
        assert tag != "img" or said["alt"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
