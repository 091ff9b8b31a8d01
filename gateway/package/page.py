"""The page that a person opens: what is held of them, in plain words, without script and without network."""

from __future__ import annotations

import base64
import hashlib
import html
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

LANGUAGES = ("en", "de", "fr", "es")
INDEX = "index.html"
MOST_EVENTS = 500
"""So many of the log's entries are shown; all of them are in `data.json`."""

Document = Mapping[str, Any]
Row = Mapping[str, Any]


@cache
def words(language: str) -> Mapping[str, str]:
    """Return what the page says in a language, by key."""
    tree = tomllib.loads(resources.files(__package__).joinpath("words.toml").read_text("utf-8"))
    return MappingProxyType(tree[language])


@cache
def _style() -> str:
    return resources.files(__package__).joinpath("page.css").read_text("utf-8")


def name_of(language: str, first: str) -> str:
    """Return the name of the page in a language; the one in the `first` is what is opened first."""
    return INDEX if language == first else f"index.{language}.html"


def render(document: Document, language: str, first: str) -> bytes:
    """Return the page of a document (docs/reference/access-package.md) in a language."""
    return _Page(document, language, first).text().encode()


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell of a table with a class of its own."""

    text: str
    kind: str


class _Page:
    """One page in the making; every value is escaped where it enters the markup."""

    def __init__(self, document: Document, language: str, first: str) -> None:
        self.document, self.language, self.first = document, language, first
        self.words = words(language)
        self.zone = ZoneInfo(document["controller"]["time_zone"])
        self.is_access = document["kind"] == "access"

    def text(self) -> str:
        """Return the whole page."""
        style = _style()
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src 'self' file:; style-src 'sha256-{digest}'; base-uri 'none'; "
        title = self._say(f"title_{self.document['kind']}")
        parts = self._access() if self.is_access else self._portability()
        return (
            f'<!doctype html>\n<html lang="{self.language}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}form-action \'none\'">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="robots" content="noindex">\n'
            f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f"<header><div>\n<h1>{title}</h1>\n{self._lead()}\n{self._languages()}\n</div></header>\n"
            f"<main>\n{''.join(parts)}</main>\n<footer><p>{self._times()}</p></footer>\n</body>\n</html>\n"
        )

    def _access(self) -> Iterable[str]:
        yield self._request()
        yield self._pictures()
        yield self._held()
        yield self._about()
        yield self._recipients()
        yield self._source()
        yield self._consents()
        yield self._requests()
        yield self._log()
        yield self._decisions()
        yield self._rights()
        yield self._files()

    def _portability(self) -> Iterable[str]:
        yield self._request()
        yield self._pictures()
        yield self._about()
        yield self._consents()
        yield self._signals_alone()
        yield self._rights()
        yield self._files()

    # the parts

    def _lead(self) -> str:
        counts = {"things": len(self.document.get("held", ())), "images": len(self.document["images"])}
        kind, controller = self.document["kind"], self.document["controller"]["name"]
        lead = f"<p>{self._say(f'lead_{kind}', controller=controller)}</p>"
        return f"{lead}\n<p><strong>{self._say(f'yes_{kind}', **counts)}</strong></p>"

    def _languages(self) -> str:
        links = [
            f'<li><a href="{name_of(other, self.first)}" lang="{other}" hreflang="{other}">'
            f"{_text(words(other)['language'])}</a></li>"
            for other in LANGUAGES
            if other != self.language
        ]
        return f'<nav aria-label="{self._say("other_languages")}"><ul>{"".join(links)}</ul></nav>'

    def _request(self) -> str:
        law, controller = self.document["law"], self.document["controller"]
        facts = {
            "asked_on": self._time(self.document["request"]["received_at"]),
            "made_on": self._time(self.document["made_at"]),
            "law": _text(law["title"]),
            "contact": _text(", ".join(filter(None, (controller["name"], controller["contact"]))))
            or self._say("no_contact"),
        }
        return self._section("request", self._facts(facts), ("confirmation",))

    def _pictures(self) -> str:
        items = "".join(f"<li>{self._figure(image)}</li>" for image in self.document["images"])
        shown = f'<ul class="pictures">{items}</ul>' if items else ""
        said = self._paragraph("pictures_text" if items else "no_pictures")
        withheld = "".join(
            f"<li>{self._word('kind_' + one['kind'], one['kind'])}: {_text(one['reason_code'])}</li>"
            for one in self.document["withheld"]
        )
        if withheld:
            shown += self._paragraph("withheld") + self._bullets(withheld)
        return self._section("pictures", said + shown, ("copy",))

    def _figure(self, image: Row) -> str:
        what = self._word(f"kind_{image['kind']}", image["kind"])
        until = f"{self._say('until')} {self._time(image['expires_at'])}"
        caption = f"{what}<br><span class='small'>{self._time(image['created_at'])} · {until}</span>"
        if "prompt" in image:
            caption += f"<br>{self._say('kind_prompt')}: <q>{_text(image['prompt'])}</q>"
        return (
            f'<figure><a href="{_text(image["file"])}"><img src="{_text(image["file"])}" alt="{what}"></a>'
            f"<figcaption>{caption}</figcaption></figure>"
        )

    def _held(self) -> str:
        rows = [
            (
                self._word(f"kind_{held['kind']}", held["kind"]),
                self._purpose(held["purpose"]),
                self._moment(held["since"]),
                self._moment(held["until"]) if held["until"] else self._say("no_end"),
                _Cell(_text(held["rule"]), "rule"),
            )
            for held in self.document["held"]
        ]
        table = self._table(("what", "why", "since", "until", "rule"), rows, "held")
        return self._section(
            "held", self._paragraph("held_text") + table, ("purposes", "categories", "retention")
        )

    def _about(self) -> str:
        subject = self.document["subject"]
        shown = {name: _text(str(value)) for name, value in subject.items() if value}
        if self.is_access:
            shown["known_since"] = self._time(subject["known_since"])
            shown["state"] = self._word(f"state_{subject['state']}", subject["state"])
        if subject["guardian"]:
            shown["guardian"] = _text(", ".join(filter(None, subject["guardian"].values())))
        return self._section(
            "about_you", self._facts({f"fact_{name}": fact for name, fact in shown.items()}), ("categories",)
        )

    def _recipients(self) -> str:
        rows = [
            (
                _text(who["name"] or who["id"]),
                _text(who["region"]) or self._say("region_unknown"),
                _text(str(who["count"])),
                _Cell(f"{self._time(who['first_at'])}<br>{self._time(who['last_at'])}", "time"),
                self._say("region_unknown")
                if who["retention_s"] is None
                else self._say("kept_s", seconds=who["retention_s"]),
            )
            for who in self.document["recipients"]
        ]
        said = self._paragraph("recipients_text" if rows else "no_recipients")
        heads = ("recipients", "region", "times_sent", "first_last", "kept_there")
        return self._section(
            "recipients", said + self._table(heads, rows, "recipients"), ("recipients", "transfers")
        )

    def _source(self) -> str:
        by = {job["uploaded_by"] for job in self.document["jobs"]}
        said = self._paragraph("source_you")
        return self._section(
            "source", said + (self._paragraph("source_other") if "other" in by else ""), ("source",)
        )

    def _consents(self) -> str:
        rows = [
            (
                self._purpose(consent["purpose"]),
                self._moment(consent["given_at"]),
                self._ended(consent),
                self._link(consent["receipt"]) if consent["receipt"] else self._say("no_proof"),
                self._link(consent["file"]),
            )
            for consent in self.document["consents"]
        ]
        said = self._paragraph("receipts_text" if rows else "no_consents")
        return self._section(
            "consents", said + self._table(("why", "given", "state", "receipt", "record"), rows, "consents")
        )

    def _ended(self, consent: Row) -> str:
        end = consent["withdrawn_at"] or (consent["expires_at"] if consent["is_expired"] else None)
        if end or consent["superseded_by"]:
            return f"{self._say('ended')} {self._time(end) if end else ''}".strip()
        return self._say("stands")

    def _requests(self) -> str:
        rows = [
            (
                self._word(f"kind_{asked['kind']}", asked["kind"]),
                self._moment(asked["received_at"]),
                self._word(f"state_{asked['state']}", asked["state"]),
            )
            for asked in self.document["requests"]
        ]
        holds = "".join(
            f"<li>{self._say('held_by_law')}: {_text(hold['rule'])}</li>" for hold in self.document["holds"]
        )
        table = self._table(("what", "received", "state"), rows, "requests")
        return self._section("requests", table + self._bullets(self._signals() + holds))

    def _signals(self) -> str:
        signals = self.document["signals"] or {}
        names = [name for name in ("gpc", "limit_spi") if signals.get(name)]
        return "".join(f"<li>{self._say(f'signal_{name}')}</li>" for name in names)

    def _signals_alone(self) -> str:
        items = self._signals()
        return self._section("requests", self._bullets(items)) if items else ""

    def _log(self) -> str:
        events = self.document["events"]
        rows = [
            (
                self._moment(event["at"]),
                self._word(f"event_{event['type'].replace('.', '_')}", "", "event_other"),
                f'<a href="{_text(event["proof"])}">{event["index"]}</a>'
                if event["proof"]
                else self._say("no_proof"),
            )
            for event in reversed(events[-MOST_EVENTS:])
        ]
        said = self._paragraph("log_text" if events else "log_none")
        if len(events) > MOST_EVENTS:
            said += f"<p>{self._say('log_more', number=len(events) - MOST_EVENTS)}</p>"
        return self._section("log", said + self._table(("when", "what", "proof"), rows, "log"), ("copy",))

    def _decisions(self) -> str:
        said = self._paragraph("decisions_text") + self._paragraph("templates_text")
        return self._section("decisions", said, ("decisions",))

    def _rights(self) -> str:
        items = "".join(
            f"<li>{self._say('right_' + right['right'])} "
            f'<span class="law">{_text("; ".join(right["citations"]))}</span></li>'
            for right in self.document["rights"]
        )
        authority = self.document["law"]["authority"]
        complain = f"<p>{self._say('complain', authority=authority)}</p>" if authority else ""
        return self._section(
            "rights",
            self._paragraph("rights_text") + self._bullets(items) + complain,
            ("rights", "complaint"),
        )

    def _files(self) -> str:
        names = {"index": INDEX, "data": "data.json", "images": "images/", "receipts": "receipts/"}
        names |= {"events": "events/"} if self.is_access else {}
        items = "".join(
            f"<dt><code>{name}</code></dt><dd>{self._say(f'file_{key}')}</dd>" for key, name in names.items()
        )
        return self._section("files", f"<dl>{items}</dl>")

    def _times(self) -> str:
        return self._say("times", zone=self.document["controller"]["time_zone"])

    # the pieces

    def _say(self, key: str, **values: object) -> str:
        return _text(self.words[key].format(**values))

    def _word(self, key: str, plain: str, other: str = "") -> str:
        """Return the word for a code, or the code where there is none."""
        return self._say(key) if key in self.words else self._say(other) if other else _text(plain)

    def _purpose(self, purpose: str) -> str:
        return self._word(f"purpose_{purpose or 'none'}", purpose)

    @staticmethod
    def _link(file: str) -> str:
        return f'<a href="{_text(file)}">{_text(file)}</a>'

    def _paragraph(self, key: str) -> str:
        return f"<p>{self._say(key)}</p>"

    @staticmethod
    def _bullets(items: str) -> str:
        return f'<ul class="plain">{items}</ul>' if items else ""

    def _facts(self, facts: Mapping[str, str]) -> str:
        return (
            "<dl>"
            + "".join(f"<dt>{self._say(key)}</dt><dd>{fact}</dd>" for key, fact in facts.items())
            + "</dl>"
        )

    def _section(self, key: str, content: str, parts: Sequence[str] = ()) -> str:
        answers = self.document.get("answers", {})
        cites = dict.fromkeys(cite for part in parts for cite in answers.get(part, ()))
        law = f'<p class="law">{_text("; ".join(cites))}</p>' if cites else ""
        return (
            f'<section aria-labelledby="{key}">\n<h2 id="{key}">{self._say(key)}</h2>\n{content}{law}\n'
            "</section>\n"
        )

    def _table(self, heads: Sequence[str], rows: Iterable[Sequence[_Cell | str]], label: str) -> str:
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
        if not body:
            return ""
        head = "".join(f'<th scope="col">{self._say(key)}</th>' for key in heads)
        return (
            f'<div class="scroll"><table aria-labelledby="{label}"><thead><tr>{head}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div>"
        )

    def _moment(self, iso: str | None) -> _Cell:
        return _Cell(self._time(iso) if iso else "", "time")

    def _time(self, iso: str) -> str:
        return f"{datetime.fromisoformat(iso).astimezone(self.zone):%Y-%m-%d %H:%M}"


def _cell(content: _Cell | str) -> str:
    return (
        f'<td class="{content.kind}">{content.text}</td>'
        if isinstance(content, _Cell)
        else f"<td>{content}</td>"
    )


def _text(value: str) -> str:
    return html.escape(value, quote=True)
