"""Policies of which logs and how many witnesses are believed (c2sp.org/tlog-policy)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from audit.checkpoint import Checkpoint, open_signed
from audit.cosign import COSIGNING
from audit.errors import NoteInvalid, QuorumNotMet, TrustInvalid
from audit.note import Verifier

KEYWORDS = frozenset({"log", "witness", "group", "quorum"})
MAX_CHARS = 512 * 1024
MAX_EACH = 64
"""Logs, witnesses and groups; the specification asks for at least 32 of each."""
_NONE = "none"
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_COUNT = re.compile(r"[0-9]{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Log:
    """A log that is believed; its key's name is its origin."""

    verifier: Verifier
    url: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness, under a name of this policy's own."""

    name: str
    verifier: Verifier
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Has witnessed a checkpoint where `threshold` of its members have; members are witnesses or groups."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A checkpoint is valid if one of `logs` signed it and `quorum` has witnessed it."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    @classmethod
    def parse(cls, text: str | bytes) -> Policy:
        """Return the policy of a tlog-policy file.

        Raises:
            TrustInvalid: Not a policy by the specification, or beyond the caps.
        """
        if len(text) > MAX_CHARS:
            raise TrustInvalid("trust_too_large")
        # Names are octets to the specification; those that are no UTF-8 stay distinct this way.
        text = text.decode(errors="surrogateescape") if isinstance(text, bytes) else text
        if _FORBIDDEN.search(text):
            raise TrustInvalid("trust_control_character", "only tab and newline may stand in a policy")
        reading = _Reading()
        for words in words_of(text):
            reading.take(words)
        return reading.policy()

    def text(self) -> str:
        """Return the policy as a file that is read back as the same."""
        lines = [
            *(("log", log.verifier.vkey(), log.url) for log in self.logs),
            *(("witness", one.name, one.verifier.vkey(), one.url) for one in self.witnesses),
            *(("group", group.name, str(group.threshold), *group.members) for group in self.groups),
            ("quorum", self.quorum),
        ]
        return "".join(" ".join(filter(None, words)) + "\n" for words in lines)

    def is_met(self, signed: Collection[Verifier]) -> bool:
        """Return whether the keys that have signed, each found true, make the quorum."""
        if self.quorum == _NONE:
            return True
        met = {witness.name for witness in self.witnesses if witness.verifier in signed}
        for group in self.groups:  # members stand before the group that has them
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        return self.quorum in met

    def check_quorum(self, signed: Collection[Verifier]) -> None:
        """Return if the quorum is met.

        Raises:
            QuorumNotMet: It is not.
        """
        if not self.is_met(signed):
            raise QuorumNotMet("quorum_not_met", "too few of the policy's witnesses have cosigned")

    def check(self, note_text: str) -> Checkpoint:
        """Return the checkpoint of a note that a log of the policy signed and its quorum witnessed.

        Raises:
            NoteInvalid: Malformed, a false signature of any key of the policy, or no known key.
            CheckpointInvalid: Not a checkpoint, or no log's key named after its origin has signed.
            QuorumNotMet: Too few witnesses have cosigned.
        """
        logs = [log.verifier for log in self.logs]
        found, signed = open_signed(note_text, logs, [witness.verifier for witness in self.witnesses])
        self.check_quorum(signed)
        return found


def words_of(text: str) -> list[list[str]]:
    """Return the words of each line that is neither empty nor a comment.

    Only a newline ends a line and only space and tab part words.
    """
    lines = [[word for word in line.split(" ") if word] for line in text.replace("\t", " ").split("\n")]
    return [words for words in lines if words and not words[0].startswith("#")]


def read_key(vkey: str) -> Verifier:
    """Return the key that a word of a trust file is.

    Raises:
        TrustInvalid: It is none.
    """
    try:
        return Verifier.parse(vkey)
    except NoteInvalid as error:
        raise TrustInvalid("trust_key", str(error)) from None


def check_keys(keys: Sequence[Verifier]) -> None:
    """Return if the keys are not too many, and each is there once, under whatever name.

    Raises:
        TrustInvalid: They are, or one is not.
    """
    if len(keys) > MAX_EACH:
        raise TrustInvalid("trust_too_many_keys")
    if len({key.public_key for key in keys}) != len(keys):
        raise TrustInvalid("trust_duplicate_key", "a key stands in it twice")


@dataclass(slots=True)
class _Reading:
    """What was read so far: a line may name only what stands before it."""

    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorums: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def take(self, words: list[str]) -> None:
        """Read one line."""
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self.logs.append(Log(read_key(vkey), *url))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self.witness(name, read_key(vkey), *url)
            case ["group", name, count, *members] if members:
                self.group(name, count, tuple(members))
            case ["quorum", name]:
                self.quorum(name)
            case _:
                raise TrustInvalid("trust_malformed", "a line is none of tlog-policy")

    def witness(self, name: str, key: Verifier, url: str = "") -> None:
        if key.type not in COSIGNING:
            raise TrustInvalid("trust_witness_key_type", "a witness has a key of type 4 or 6")
        self.define(name)
        self.witnesses.append(Witness(name, key, url))

    def group(self, name: str, count: str, members: tuple[str, ...]) -> None:
        for member in members:
            if member not in self.defined:
                raise TrustInvalid("trust_name_unknown", "a member is not defined before its group")
            if member in self.used:
                raise TrustInvalid("trust_member_twice", "a name is a member more than once")
            self.used.add(member)
        self.define(name)
        self.groups.append(Group(name, _threshold(count, len(members)), members))

    def quorum(self, name: str) -> None:
        if name != _NONE and name not in self.defined:
            raise TrustInvalid("trust_name_unknown", "the quorum is not defined before it")
        self.quorums.append(name)

    def define(self, name: str) -> None:
        if name == _NONE:
            raise TrustInvalid("trust_name_reserved", "`none` names no witness and no group")
        if name in self.defined:
            raise TrustInvalid("trust_name_twice", "a name is defined twice")
        self.defined.add(name)

    def policy(self) -> Policy:
        """Return the whole, if it is one."""
        if len(self.quorums) != 1:
            raise TrustInvalid("trust_quorum", "a tlog-policy has exactly one line `quorum`")
        check_keys([log.verifier for log in self.logs])
        check_keys([witness.verifier for witness in self.witnesses])
        if len(self.groups) > MAX_EACH:
            raise TrustInvalid("trust_too_many_groups")
        return Policy(tuple(self.logs), tuple(self.witnesses), tuple(self.groups), self.quorums[0])


def _threshold(count: str, members: int) -> int:
    named = {"any": 1, "all": members}
    if count not in named and not _COUNT.fullmatch(count):
        raise TrustInvalid("trust_threshold", "a group asks for `any`, `all` or a number of its members")
    wanted = named.get(count) or int(count)
    if not 1 <= wanted <= members:
        raise TrustInvalid("trust_threshold", "a group asks for none of its members, or for more than it has")
    return wanted
