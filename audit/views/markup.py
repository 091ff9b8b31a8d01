"""Pieces of the report's page: text that cannot become markup, figures that name what they count."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audit.views.figures import DAY_MS

_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000


def text(value: str) -> str:
    """Return `value` as text of HTML.

    The page is also read as a script that is one comment (`report.js` says why):
    an asterisk could end it, and is written as a reference.
    """
    return html.escape(value).replace("*", "&#42;")


def data(value: Any) -> str:
    """Return `value` as JSON that ends neither a script element nor a comment of any kind."""
    written = json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    for char in "<>&*":
        written = written.replace(char, f"\\u{ord(char):04x}")
    return written


def number(figures: Mapping[str, int], key: str) -> str:
    """Return a figure that the page counts again; `a+b` is the sum of two."""
    value = sum(figures.get(one, 0) for one in key.split("+"))
    return f'<span data-f="{text(key)}">{plain(value)}</span>'


def duration(figures: Mapping[str, int], key: str) -> str:
    """Return a figure in milliseconds as a span of time."""
    return f'<span data-f="{text(key)}" data-as="span">{span(figures.get(key, 0))}</span>'


def plain(value: int) -> str:
    """Return a number with commas between thousands."""
    return f"{value:,}"


def span(span_ms: int) -> str:
    """Return a span in minutes, hours or tenths of days, cut off."""
    if span_ms < 2 * _HOUR_MS:
        return f"{span_ms // _MINUTE_MS} min"
    if span_ms < 2 * DAY_MS:
        return f"{span_ms // _HOUR_MS} h"
    return f"{span_ms // DAY_MS}.{span_ms % DAY_MS * 10 // DAY_MS} days"


def table(caption: str, head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are markup already; a heading that begins with # is of numbers."""
    numbers = [name.startswith("#") for name in head]
    cells = "".join(
        f'<th scope="col"{_numeric(is_number)}>{text(name.lstrip("#"))}</th>'
        for name, is_number in zip(head, numbers, strict=True)
    )
    body = "".join(f"<tr>{_line(line, numbers)}</tr>\n" for line in lines)
    return (
        f'<div class="scroll"><table>\n<caption>{text(caption)}</caption>\n<thead><tr>{cells}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>"
    )


def bars(caption: str, head: str, figures: Mapping[str, int], lines: Sequence[tuple[str, str]]) -> str:
    """Return a table with a bar beside each number; `lines` are (label as markup, key)."""
    most = max((figures.get(key, 0) for _, key in lines), default=0) or 1
    body = "".join(
        f'<tr><th scope="row">{label}</th><td class="n">{number(figures, key)}</td>'
        f'<td class="bar"><svg aria-hidden="true" viewBox="0 0 100 10" preserveAspectRatio="none">'
        f'<rect data-of="{text(key)}" data-most="{most}" data-side="width" height="10" '
        f'width="{100 * figures.get(key, 0) // most}"/></svg></td></tr>\n'
        for label, key in lines
    )
    return (
        f'<table>\n<caption>{text(caption)}</caption>\n<thead><tr><th scope="col">{text(head)}</th>'
        '<th scope="col" class="n">Number</th><td class="bar"></td></tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table>"
    )


def timeline(title: str, figures: Mapping[str, int], count: int, first: str, last: str) -> str:
    """Return a column for each of `count` bars, the figures `bar/0` and so on."""
    most = max((figures.get(f"bar/{place}", 0) for place in range(count)), default=0) or 1
    columns = []
    for place in range(count):
        value = figures.get(f"bar/{place}", 0)
        height = 100 * value // most
        columns.append(
            f'<rect data-of="bar/{place}" data-most="{most}" data-side="height" x="{place * 10 + 1}" '
            f'y="{100 - height}" width="8" height="{height}"/>'
        )
    return (
        f"<figure>\n<figcaption>{text(title)}</figcaption>\n"
        f'<svg class="time" role="img" aria-label="{text(title)}; at most {most} in one column" '
        f'viewBox="0 0 {count * 10} 100" preserveAspectRatio="none">{"".join(columns)}</svg>\n'
        f'<div class="axis"><span>{text(first)}</span><span>at most {plain(most)} in a column</span>'
        f"<span>{text(last)}</span></div>\n</figure>"
    )


def _line(cells: Sequence[str], numbers: Sequence[bool]) -> str:
    return "".join(
        f"<td{_numeric(is_number)}>{cell}</td>" for cell, is_number in zip(cells, numbers, strict=True)
    )


def _numeric(is_number: bool) -> str:
    return ' class="n"' if is_number else ""
