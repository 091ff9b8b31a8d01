"""Restricted canonical JSON: RFC 8785 without floats and nulls, with ASCII keys.

With integers below 2^53 and ASCII keys, sorting by code point and Python's own
string escapes give exactly the bytes of RFC 8785 (checked against `rfc8785`).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from audit.errors import JsonInvalid

INT_LIMIT = 1 << 53
MAX_DEPTH = 16
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def encode(value: Any) -> bytes:
    """Return the canonical bytes of `value`.

    Raises:
        JsonInvalid: A float, a null, an integer of 2^53 or more, a key that is
            not ASCII text, a lone surrogate, or more than `MAX_DEPTH` levels.
    """
    _refuse_outside_profile(value, 0)
    return encode_known(value)


def encode_known(value: Any) -> bytes:
    """Return the canonical bytes of a value that is known to lie in the profile: a closed schema says so.

    Raises:
        JsonInvalid: A lone surrogate.
    """
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise JsonInvalid("json_surrogate") from None


def parse(data: bytes, limit: int) -> Any:
    """Return the JSON value of `data`, which is at most `limit` bytes of UTF-8.

    Whitespace and the order of keys are free and null is taken; whoever needs
    the canonical form encodes again and compares.

    Raises:
        JsonInvalid: Not JSON, a duplicate key, a float, or too large or too deep.
    """
    if len(data) > limit:
        raise JsonInvalid("json_too_large")
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError):
        raise JsonInvalid("json_malformed") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise JsonInvalid("json_duplicate_key")
    return value


def _refuse_number(_text: str) -> NoReturn:
    raise JsonInvalid("json_number")


def _refuse_outside_profile(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise JsonInvalid("json_too_deep")
    if isinstance(value, (str, bool)):
        return
    if isinstance(value, int):
        if not -INT_LIMIT < value < INT_LIMIT:
            raise JsonInvalid("json_number")
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise JsonInvalid("json_key")
            if type(item) is not str:  # most are
                _refuse_outside_profile(item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            if type(item) is not str:
                _refuse_outside_profile(item, depth + 1)
    else:
        raise JsonInvalid("json_type")
