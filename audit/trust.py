"""Which keys an auditor trusts: a list of verifier keys, or a C2SP tlog-policy without witnesses."""

from __future__ import annotations

from audit.errors import NoteInvalid, TrustInvalid
from audit.note import Verifier

MAX_CHARS = 256 * 1024
MAX_KEYS = 64
_WITNESSED = "witnesses are not supported yet: give a policy with `quorum none`, or the log's keys alone"


def read_trust(text: str) -> tuple[Verifier, ...]:
    """Return the log keys of a trust file.

    It is either one verifier key a line, or a C2SP tlog-policy with lines
    `log <vkey> [<url>]` and one line `quorum none`.  Empty lines, and lines that
    begin with `#`, are skipped.

    Raises:
        TrustInvalid: Malformed, no key at all, a key twice, or a policy that asks for witnesses.
    """
    if len(text) > MAX_CHARS:
        raise TrustInvalid("trust_too_large")
    # Only a newline ends a line and only space and tab part words, as tlog-policy has it.
    lines = [line.replace("\t", " ").strip(" \r") for line in text.split("\n")]
    words = [
        [word for word in line.split(" ") if word] for line in lines if line and not line.startswith("#")
    ]
    is_policy = any(first in {"log", "witness", "group", "quorum"} for first, *_ in words)
    keys = _policy_keys(words) if is_policy else _listed_keys(words)
    if not keys:
        raise TrustInvalid("trust_empty", "there is no key in it")
    if len(keys) > MAX_KEYS:
        raise TrustInvalid("trust_too_many_keys")
    if len({key.public_key for key in keys}) != len(keys):
        raise TrustInvalid("trust_duplicate_key", "a key stands in it twice")
    return keys


def _listed_keys(lines: list[list[str]]) -> tuple[Verifier, ...]:
    if any(len(words) != 1 for words in lines):
        raise TrustInvalid("trust_malformed", "one verifier key a line is expected")
    return tuple(_key(words[0]) for words in lines)


def _policy_keys(lines: list[list[str]]) -> tuple[Verifier, ...]:
    keys: list[Verifier] = []
    quorums = 0
    for words in lines:
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                keys.append(_key(vkey))
            case ["quorum", "none"]:
                quorums += 1
            case ["witness" | "group" | "quorum", *_]:
                raise TrustInvalid("trust_witnesses", _WITNESSED)
            case _:
                raise TrustInvalid("trust_malformed", "a line is none of tlog-policy")
    if quorums != 1:
        raise TrustInvalid("trust_quorum", "a tlog-policy has exactly one line `quorum none`")
    return tuple(keys)


def _key(vkey: str) -> Verifier:
    try:
        return Verifier.parse(vkey)
    except NoteInvalid as error:
        raise TrustInvalid("trust_key", str(error)) from None
