"""Plants secrets in every field that a caller can fill, and knows them again.

A secret is 32 hexadecimal digits that begin with a letter, so that it fits most of the
schema's patterns as it is.  Where a field wants another form, it takes that.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

COLLECTIONS = (
    "subjects",
    "notices",
    "consents",
    "jobs",
    "objects",
    "dsrs",
    "holds",
    "backends",
    "certificates",
)
COLLECTIONS += ("datasets", "incidents", "tenants")
LEAST_BYTES = 12
"""A shorter piece of a secret could occur by chance."""
PLAIN = ("DE", "en", "2026-01-01", "generate", "")
"""For fields that take only certain words; these hold no secret."""


@dataclass
class Canaries:
    """Every secret that was planted, in each form, and where."""

    planted: dict[bytes, str] = field(default_factory=dict)

    def new(self, where: str) -> str:
        """Return a new secret."""
        made = "c" + secrets.token_hex(16)[1:]
        self.note(made, where)
        return made

    def note(self, secret: str | bytes, where: str) -> None:
        """Remember a secret's form."""
        raw = secret.encode() if isinstance(secret, str) else secret
        assert len(raw) >= LEAST_BYTES
        self.planted[raw.lower()] = where

    def found_in(self, *haystacks: bytes) -> set[str]:
        """Return where the secrets were planted that occur in one of the haystacks, in any case."""
        found = set()
        for haystack in haystacks:
            lower = haystack.lower()
            found |= {where for secret, where in self.planted.items() if secret in lower}
        return found

    def message(self, kind: Descriptor, *, breaking: bool, branch: int = 0) -> Message:
        """Return a message with a secret in every string and bytes field.

        Args:
            kind: Its type.
            breaking: Whether the secrets come in a form that patterns refuse.
            branch: Which member of each oneof is filled: one of `branches(kind)`.
        """
        made = GetMessageClass(kind)()
        for part in _parts(kind, branch):
            self._fill(made, part, breaking, branch // _own_branches(kind))
        return made

    def _fill(self, message: Message, part: FieldDescriptor, breaking: bool, branch: int) -> None:
        if part.type == FieldDescriptor.TYPE_MESSAGE:
            target = getattr(message, part.name)
            if part.message_type.full_name == "google.protobuf.Struct":
                secrets_of = (self.new(part.full_name) for _ in range(4))
                struct = {
                    next(secrets_of): next(secrets_of),
                    "subject": {next(secrets_of): [next(secrets_of)]},
                }
                (target.add() if part.is_repeated else target).update(struct)
                return
            if part.message_type.GetOptions().map_entry:
                entry = part.message_type.fields_by_name
                target[self.new(entry["key"].full_name)] = self._value(entry["value"], breaking)
                return
            if part.message_type.full_name == "google.protobuf.Timestamp":
                (target.add() if part.is_repeated else target).FromJsonString("2026-01-02T03:04:05Z")
                return
            inner = self.message(part.message_type, breaking=breaking, branch=branch)
            (target.add() if part.is_repeated else target).CopyFrom(inner)
            return
        value = self._value(part, breaking)
        if part.is_repeated:
            getattr(message, part.name).append(value)
        else:
            setattr(message, part.name, value)

    def _value(self, part: FieldDescriptor, breaking: bool) -> object:
        if part.type == FieldDescriptor.TYPE_STRING:
            return self._text(part, breaking)
        if part.type == FieldDescriptor.TYPE_BYTES:
            return self.new(part.full_name).encode()
        if part.type == FieldDescriptor.TYPE_ENUM:
            return part.enum_type.values[min(1, len(part.enum_type.values) - 1)].number
        if part.type == FieldDescriptor.TYPE_BOOL:
            return True
        return 1990 if part.name.endswith("year") else 1

    def _text(self, part: FieldDescriptor, breaking: bool) -> str:
        secret = self.new(part.full_name)
        if breaking:
            return f"{secret} \u00fc"
        rules = part.GetOptions().Extensions[validate_pb2.field].string
        letters = re.sub(r"[0-9]", lambda digit: "ghijklmnop"[int(digit[0])], secret)
        identity = str(uuid.UUID(hex=secret, version=4))
        if rules.uuid:
            self.note(identity, part.full_name)
            return identity
        forms = [
            secret,
            *(f"{name}/{secret}" for name in COLLECTIONS),
            letters,
            f"{letters}.{letters}",
            *PLAIN,
        ]
        for form in forms:
            if re.search(rules.pattern, form):
                if letters in form:
                    self.note(letters, part.full_name)
                return form
        return secret.upper()


def _parts(kind: Descriptor, branch: int) -> Iterator[FieldDescriptor]:
    """Yield the fields to fill: all, but of each oneof one."""
    for part in kind.fields:
        members = part.containing_oneof.fields if part.containing_oneof else [part]
        if members[branch % len(members)].name == part.name:
            yield part


def _own_branches(kind: Descriptor) -> int:
    return max([1, *(len(one.fields) for one in kind.oneofs)])


def branches(kind: Descriptor) -> int:
    """Return how many branches fill every member of every oneof of a type and the types in it."""
    inner = [
        branches(p.message_type)
        for p in kind.fields
        if p.type == p.TYPE_MESSAGE and p.message_type.file.package.startswith("lethe.")
    ]
    return _own_branches(kind) * max([1, *inner])
