"""One static page that a privacy officer hands over: what happened, by control; it checks itself, offline."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import resources

from audit import b64, note
from audit.errors import ExportInvalid
from audit.note import Verifier
from audit.views import sections
from audit.views.markup import data
from audit.views.rows import Context, Row

PATH = "report.html"
FORMAT = "lethe.dev/audit-report/v1"
MAX_EVENTS = 100_000
"""A page with more could not be checked in the time that a reader waits."""

# Read as a script, the page is one function that holds nothing but a comment; the function's text is
# the page, byte for byte.  U+2028 ends a line for a script, and no parser of HTML rewrites it.
_HEAD, _TAIL = "<!--\u2028self.lethe=function(){/*", "*/}//--> "
_SEAL = '<script type="text/plain" id="seal">'
# Shown only where the page's digest is the one that was signed; see `report.js`.
_WORDS = f"{'consistent':<16}{'verified':<16}"
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


def render(rows: Sequence[Row], context: Context, sign: Callable[[str], str]) -> bytes:
    """Return the page; the same input and a deterministic `sign` give the same bytes.

    Args:
        rows: The leaves of the range, in order; some of them only where the context has all hashes.
        sign: Makes a signed note of a text with one Ed25519 key that the context names
            (`audit.note.Signer.sign`).

    Raises:
        ExportInvalid: More than `MAX_EVENTS` rows, rows that are not those of the range, or
            a note that is not the one asked for.
    """
    page = _page(rows, context)
    digest = hashlib.sha256(page.encode()).digest()
    body = statement(context.origin, digest)
    signed = sign(body)
    found, signatures = note.parse(signed)
    if found != body or len(signatures) != 1 or "<" in signed or "*" in signed:
        raise ExportInvalid("report_note", "the report is signed by one key, over the statement asked for")
    return _sealed(page, digest, signed)


def statement(origin: str, digest: bytes) -> str:
    """Return the text that the log's key signs: `digest` is SHA-256 of the page with nothing in its seal."""
    return f"{FORMAT}\n{origin}\nsha256 {digest.hex()}\n"


def confirm(page: bytes, rows: Sequence[Row], context: Context, verifiers: Sequence[Verifier]) -> None:
    """Return if `page` is what rendering the rows again gives, signed by one of `verifiers`.

    Raises:
        ExportInvalid: It is not.
        NoteInvalid: Its signature is false, or by no known key.
    """
    try:
        seal = page.decode().partition(_SEAL)[2].partition("</script>")[0]
    except UnicodeDecodeError:
        raise ExportInvalid("report_not_text", "the report is not UTF-8") from None
    signed = seal.partition("\n")[2]
    body, by = note.open_note(signed, verifiers)
    unsealed = _page(rows, context)
    digest = hashlib.sha256(unsealed.encode()).digest()
    if body != statement(context.origin, digest) or page != _sealed(unsealed, digest, signed):
        raise ExportInvalid("derived_differs", f"{PATH} is not what the entries give")
    if all(key.name != context.origin for key in by):
        raise ExportInvalid("report_key_name", "no key of the log has signed the report")


def _refuse(rows: Sequence[Row], context: Context) -> None:
    if len(rows) > MAX_EVENTS:
        raise ExportInvalid("report_too_large", f"a page holds at most {MAX_EVENTS} events")
    indexes = [row.index for row in rows]
    whole = list(range(context.start, context.end))
    if context.hashes:
        fits = set(indexes) <= set(whole) and len(context.hashes) == len(whole)
    else:
        fits = indexes == whole
    if not fits or indexes != sorted(set(indexes)):
        raise ExportInvalid("report_rows", "the rows are not those of the range")


def _sealed(page: str, digest: bytes, signed: str) -> bytes:
    at = page.index(_SEAL) + len(_SEAL)
    mask = bytes(a ^ b for a, b in zip(digest, _WORDS.encode(), strict=True))
    return f"{page[:at]}{mask.hex()}\n{signed}{page[at:]}".encode()


def _page(rows: Sequence[Row], context: Context) -> str:
    _refuse(rows, context)
    script, style = _resource("report.js"), _resource("report.css")
    parts = {
        **sections.parts(rows, context),
        "script": script,
        "style": style,
        "script_hash": _csp(script),
        "style_hash": _csp(style),
        "data": data(_embedded(rows, context)),
        "seal": "",
    }
    page = _PLACE.sub(lambda match: parts[match[1]], _resource("report.html"))
    # INVARIANT: nothing in the page ends the comment that it is, or forges the place of its seal.
    if "*/" in page or page.count(_SEAL) != 1 or "\r" in page or "\0" in page:
        raise ExportInvalid("report_text", "a text in the report could change what the page is")
    return f"{_HEAD}{page}{_TAIL}"


def _embedded(rows: Sequence[Row], context: Context) -> dict[str, object]:
    return {
        "origin": context.origin,
        "checkpoint": context.checkpoint,
        "size": context.size,
        "root": context.root.hex(),
        "start": context.start,
        "end": context.end,
        "vkeys": list(context.vkeys),
        "left": [hashed.hex() for hashed in context.left],
        "right": [hashed.hex() for hashed in context.right],
        "hashes": [hashed.hex() for hashed in context.hashes],
        "indexes": [row.index for row in rows],
        "leaves": [row.line.decode() for row in rows],
    }


def _csp(source: str) -> str:
    return b64.encode(hashlib.sha256(source.encode()).digest())


def _resource(name: str) -> str:
    return resources.files("audit.views").joinpath(name).read_text(encoding="utf-8")
