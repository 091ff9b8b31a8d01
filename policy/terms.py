"""The words of the domain as types; their values go over the wire and into the log."""

from __future__ import annotations

from enum import StrEnum


class Purpose(StrEnum):
    """What personal data is used for; a consent covers exactly one."""

    GENERATE = "generate"
    RETAIN_ORIGINAL = "retain_original"
    RETAIN_OUTPUT = "retain_output"
    TRAIN = "train"
    ANALYTICS = "analytics"
    SELL_SHARE = "sell_share"
    TRANSFER = "transfer"


class DataKind(StrEnum):
    """What the data is."""

    ORIGINAL = "original"
    OUTPUT = "output"
    TEMPLATE = "template"
    LANDMARKS = "landmarks"
    PROMPT = "prompt"
    TELEMETRY = "telemetry"


class ConsentForm(StrEnum):
    """How a consent was expressed, weakest first; `parental` stands beside the order."""

    IMPLIED = "implied"
    OPT_OUT = "opt_out"
    EXPRESS = "express"
    EXPLICIT = "explicit"
    WRITTEN_RELEASE = "written_release"
    SIGNED_AUTHORIZATION = "signed_authorization"
    PARENTAL = "parental"

    @property
    def strength(self) -> int:
        """Return the rank in the order, or -1 for `parental`, which has none of its own."""
        return -1 if self is ConsentForm.PARENTAL else _ORDER.index(self)


_ORDER = tuple(form for form in ConsentForm if form is not ConsentForm.PARENTAL)


class DsrKind(StrEnum):
    """What a data subject asks for."""

    ACCESS = "access"
    ERASURE = "erasure"
    CORRECTION = "correction"
    PORTABILITY = "portability"
    RESTRICTION = "restriction"
    OPT_OUT = "opt_out"
    WITHDRAWAL = "withdrawal"
    OBJECTION = "objection"
    LIMIT_SPI = "limit_spi"
    COMPLAINT = "complaint"
    APPEAL = "appeal"


class KeyClass(StrEnum):
    """The classes of subject keys; an erasure destroys some and keeps others for a reason."""

    CONTENT = "content"
    PROFILE = "profile"
    EVIDENCE = "evidence"
    DSR = "dsr"
    AUDIT = "audit"


PACKAGE = "package"
"""The kind of the sealed object that answers a request for access or portability; nothing collects it."""


class AgeBand(StrEnum):
    """An age as coarse as the rules need it; only this reaches the log."""

    LT13 = "lt13"
    FROM_13 = "13-15"
    FROM_16 = "16-17"
    ADULT = "adult"
    UNKNOWN = "unknown"


def age_band(age: int | None) -> AgeBand:
    """Return the band of an age in whole years; None is `unknown`, never adult."""
    if age is None:
        return AgeBand.UNKNOWN
    for limit, band in ((13, AgeBand.LT13), (16, AgeBand.FROM_13), (18, AgeBand.FROM_16)):
        if age < limit:
            return band
    return AgeBand.ADULT
