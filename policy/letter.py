"""The letters about a request: acknowledgement, extension, refusal, completion, from templates in languages.

A letter names nobody: it carries the request's reference, days, codes and citations, and
whoever sends it puts the address on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from string import Template
from types import MappingProxyType
from typing import Annotated

import yaml
from pydantic import StringConstraints

from policy.pack import Pack
from policy.predicates import Strict
from policy.recipients import Told
from policy.terms import DsrKind

FALLBACK = "en"
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class Kind(StrEnum):
    """What a letter tells."""

    ACKNOWLEDGEMENT = "acknowledgement"
    EXTENSION = "extension"
    REFUSAL = "refusal"
    COMPLETION = "completion"


class Section(Strict):
    """A letter: its subject and its paragraphs."""

    subject: Text
    body: tuple[Text, ...]


class Templates(Strict):
    """Everything that is written in one language.

    `told` holds a sentence for each code of a pack's `refusal_states` and
    `extension_states`, `authorities` whom to complain to by pack, where the pack's own
    words are of another language; `outcomes` what was done, by kind of request; `reasons`
    grounds of refusals and extensions in plain words, by the end of their code; `recipients`
    a sentence for each state of those who were to be told, and `excuses` why some were not.
    """

    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
    greeting: Text
    closing: Text
    law: Text
    kinds: dict[DsrKind, Text]
    outcomes: dict[DsrKind, Text]
    nothing_held: Text
    in_part: Text
    letters: dict[Kind, Section]
    told: dict[str, Text]
    reasons: dict[str, Text]
    authorities: dict[str, Text]
    recipients: dict[Told, Text]
    excuses: dict[str, Text]


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter as it is sent, in `language`; `cites` are the articles by which it is owed."""

    kind: Kind
    language: str
    subject: str
    text: str
    cites: tuple[str, ...]


def languages() -> tuple[str, ...]:
    """Return the languages there are, the fallback first."""
    found = {file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml")}
    return (FALLBACK, *sorted(found - {FALLBACK}))


def nearest(wanted: str) -> str:
    """Return the language to write in: `de-AT` is `de`, and what nobody wrote is the fallback."""
    language = wanted.strip().lower().replace("_", "-").partition("-")[0]
    return language if language in languages() else FALLBACK


@lru_cache(maxsize=16)
def templates(language: str) -> Templates:
    """Return what is written in one of `languages`."""
    return Templates.model_validate(
        yaml.safe_load(_folder().joinpath(f"{language}.yaml").read_bytes()), strict=False
    )


def write(
    kind: Kind,
    language: str,
    pack: Pack,
    asked: str,
    said: Mapping[str, str],
    *,
    outcome: str = "",
    recipients: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType({}),
) -> Letter:
    """Return a letter about a request of the kind `asked` under the regime of `pack`.

    Args:
        language: As people write it (`de`, `pt-BR`); see `nearest`.
        said: `reference`, `controller`, `contact`, and the days `received`, `due`, `answered`;
            `reason`, the codes of a refusal or an extension; empty where it may not be told.
        outcome: Of a completion: `nothing_held` where there was nothing, `complied_in_part`
            where a part was refused.
        recipients: Of a completion: names and grounds of those who were to be told, by their state.
    """
    words = templates(nearest(language))
    right, answering = pack.rules.rights.get(DsrKind(asked)), pack.rules.answering
    cites = pack.cited(right.cite if right else answering.cite if answering else ())
    authority = words.authorities.get(pack.id) or (answering.complaint_to if answering else None)
    done = words.nothing_held if outcome == "nothing_held" else words.outcomes[DsrKind(asked)]
    values = {
        **said,
        "kind": words.kinds[DsrKind(asked)],
        "law": pack.title,
        "articles": "; ".join(cites),
        "authority": authority or pack.rules.pack.regulator,
        "outcome": done,
    }
    values["reason"] = "; ".join(_in_words(code, words) for code in said["reason"].split())
    section = words.letters[kind]
    by_law = {
        Kind.REFUSAL: answering.refusal_states if answering else (),
        Kind.EXTENSION: answering.extension_states if answering else (),
    }
    # Whatever the law asks, a reason is given, and a new day named.
    always = {Kind.REFUSAL: ("reasons",), Kind.EXTENSION: ("reasons", "new_limit")}
    is_in_part = kind is Kind.COMPLETION and outcome == "complied_in_part"
    owed = Kind.REFUSAL if is_in_part else kind
    told = dict.fromkeys((*by_law.get(owed, ()), *always.get(owed, ())))
    sentences = [words.told.get(code) or templates(FALLBACK).told[code] for code in told]
    if is_in_part:
        sentences = [words.in_part, *sentences]
    if not said["reason"]:
        sentences = [sentence for sentence in sentences if "$reason" not in sentence]
    if kind is Kind.COMPLETION:
        sentences += [
            Template(words.recipients[state]).substitute(names=_named(recipients[state], words))
            for state in Told
            if recipients.get(state)
        ]
    parts = [words.greeting, *section.body, *sentences, words.law, words.closing]
    return Letter(
        kind=kind,
        language=words.language,
        subject=_filled(section.subject, values),
        text="\n\n".join(_filled(part, values) for part in parts) + "\n",
        cites=cites,
    )


def _named(recipients: Sequence[tuple[str, str]], words: Templates) -> str:
    """Return names, with the ground in words where there is one; a `$` in a name stays one."""
    told = [f"{name} ({words.excuses[ground]})" if ground else name for name, ground in recipients]
    return "; ".join(told).replace("$", "$$")


def _in_words(code: str, words: Templates) -> str:
    """Return a ground as a person understands it, with its code; the code alone where nobody worded it."""
    ends = [end for end in words.reasons if f"_{code}".endswith(f"_{end}")]
    return f"{words.reasons[max(ends, key=len)]} [{code}]" if ends else code


def _filled(text: str, values: Mapping[str, str]) -> str:
    return Template(" ".join(text.split())).substitute(values)


def _folder() -> resources.abc.Traversable:
    return resources.files("policy").joinpath("letters")
