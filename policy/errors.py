"""What can be wrong with a rule book or a question; a refusal is a value, not an error."""

from __future__ import annotations


class PolicyError(Exception):
    """The root of everything policy raises; `reason` is the code that leaves the process."""

    reason = "POLICY_UNAVAILABLE"


class PackInvalid(PolicyError):
    """A pack does not follow the schema, cites nothing, or relaxes the law; `line` 0 is not known."""

    def __init__(self, why: str, line: int = 0, file: str = "") -> None:
        super().__init__(f"{file}:{line}: {why}" if file else f"line {line}: {why}" if line else why)
        self.why = why
        self.line = line

    def within(self, file: str) -> PackInvalid:
        """Return the same fault with the name of the file it is in."""
        return PackInvalid(self.why, self.line, file)


class FactUnknown(PolicyError):
    """A fact was given under a key that no rule knows.

    It is refused rather than ignored: a misspelt `withdrawn_at` must not read
    as a standing consent.
    """

    reason = "FACT_UNKNOWN"

    def __init__(self, path: str) -> None:
        super().__init__(f"no such fact: {path}")
        self.path = path


class FactInvalid(PolicyError):
    """A known fact has a value that it cannot have; the value itself is not repeated."""

    reason = "MESSAGE_INVALID"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class EventUnknown(PolicyError):
    """A pack has no clock for the event, or not from these inputs."""

    reason = "MESSAGE_INVALID"

    def __init__(self, pack: str, event: str) -> None:
        super().__init__(f"{pack} has no clock for {event!r}")
        self.pack = pack
        self.event = event
