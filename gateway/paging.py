"""Pages: opaque tokens that name the last key seen, bound to the query they continue."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gateway.errors import MessageInvalid

T = TypeVar("T")
DEFAULT_SIZE = 50
MAX_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of results; `next_token` is empty on the last one."""

    items: tuple[T, ...]
    next_token: str


def page(rows: Sequence[T], size: int, key: Callable[[T], str], query: Sequence[Any], token: str) -> Page[T]:
    """Return the page of `rows` (sorted by `key`, ascending) that follows `token`.

    Raises:
        MessageInvalid: The token is not one of ours, or belongs to another query.
    """
    size = min(size or DEFAULT_SIZE, MAX_SIZE)
    after = open_token(token, query)
    rest = [row for row in rows if after is None or key(row) > after]
    items = tuple(rest[:size])
    more = len(rest) > size
    return Page(items, seal_token(key(items[-1]), query) if more else "")


def _bind(query: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(list(query)).encode()).hexdigest()[:16]


def seal_token(after: str, query: Sequence[Any]) -> str:
    """Return the token of the page that follows the key `after` of a query."""
    return base64.urlsafe_b64encode(json.dumps([_bind(query), after]).encode()).decode()


def open_token(token: str, query: Sequence[Any]) -> str | None:
    """Return the key that a token names, or None where there is no token.

    Raises:
        MessageInvalid: The token is not one of ours, or belongs to another query.
    """
    if not token:
        return None
    try:
        bound, after = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, RecursionError) as error:
        raise MessageInvalid("page_token", violations=(("page_token", "page_token.unknown"),)) from error
    if bound != _bind(query) or not isinstance(after, str):
        raise MessageInvalid("page_token", violations=(("page_token", "page_token.other_query"),))
    return after
