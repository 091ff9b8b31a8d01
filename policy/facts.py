"""The facts of one question to policy: known keys only, typed, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from policy.errors import FactInvalid, FactUnknown
from policy.places import markets, place
from policy.spans import add_months
from policy.terms import ConsentForm, DataKind, Purpose


def _only_text(value: Any) -> Any:
    """Refuse numbers where a date is meant: pydantic would read them as seconds since 1970."""
    if value is None or isinstance(value, (str, date)):
        return value
    raise ValueError("an ISO 8601 text is expected")


def _upper(value: Any) -> Any:
    """Fold codes to upper case; an empty one is not known."""
    return (value.strip().upper() or None) if isinstance(value, str) else value


def _place(value: Any) -> Any:
    """Read the code of a place; an empty one is not known."""
    return (place(value) if value.strip() else None) if isinstance(value, str) else value


def _markets(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and all(isinstance(code, str) for code in value):
        return markets(tuple(value))
    return value


def _empty_if_null(value: Any) -> Any:
    return () if value is None else value


Instant = Annotated[AwareDatetime, BeforeValidator(_only_text)]
Text = Annotated[str, Field(strict=True, max_length=1000)]
Code = Annotated[Annotated[str, Field(strict=True, max_length=64)] | None, BeforeValidator(_upper)]
Place = Annotated[Annotated[str, Field(strict=True, max_length=6)] | None, BeforeValidator(_place)]
Markets = Annotated[tuple[Annotated[str, Field(strict=True)], ...] | None, BeforeValidator(_markets)]
Flag = StrictBool | None


_NO_METHOD = frozenset({"", "none", "no", "unverified", "not_verified", "unknown", "pending", "failed"})
_BY_TEXT = frozenset({"text_plus", "email_plus", "text_message", "sms"})


class _Model(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Guardian(_Model):
    """Who holds parental responsibility; verified only where the method is named (GDPR Art. 8(2))."""

    verified_method: Text | None = None
    relation: Text | None = None


class Subject(_Model):
    """The person in the picture; residence and location are ISO 3166 codes (`DE`, `US-CA`)."""

    residence: Place = None
    location: Place = None
    age: Annotated[int, Field(strict=True, ge=0, le=150)] | None = None
    is_uploader: Flag = None
    guardian: Guardian | None = None


class Controller(_Model):
    """Where the controller is established and which markets it offers to; `EU` stands for its members."""

    establishments: Markets = None
    targets: Markets = None


class Data(_Model):
    """What is processed; a face template counts as extracted unless said otherwise."""

    kind: DataKind | None = None
    template_extracted: Flag = None
    unique_identification_purpose: Flag = None

    @model_validator(mode="after")
    def _agree(self) -> Data:
        if self.kind is DataKind.TEMPLATE and self.template_extracted is False:
            raise ValueError("a template that was not extracted contradicts itself")
        return self


class Consent(_Model):
    """One recorded consent for one purpose."""

    purpose: Purpose
    form: ConsentForm
    separate: Flag = None
    presented_separately: Flag = None
    highlighted: Flag = None
    via: Text | None = None
    by: Text | None = None
    given_at: Instant | None = None
    withdrawn_at: Instant | None = None
    expires_at: Instant | None = None
    condition_of_service: Flag = None
    signature: Text | None = None
    term_shown: Text | None = None
    two_step_confirmed: Flag = None


class Signals(_Model):
    """Opt-out signals that stand for this person (11 CCR 7025, 7027)."""

    gpc: Flag = None
    limit_spi: Flag = None


class Recipient(_Model):
    """Who receives the data, where, and under which promise."""

    role: Text | None = None
    country: Place = None
    use: Text | None = None
    mechanism: Code = None
    dpf_listed: Flag = None
    written_agreement: Flag = None
    comparable_protection_contract: Flag = None
    pia_done: Flag = None


class Service(_Model):
    """What kind of service asks."""

    directed_to_children: Flag = None


class System(_Model):
    """The generating system (Reg. (EU) 2024/1689 Art. 111(4))."""

    placed_on_market: Annotated[date, BeforeValidator(_only_text)] | None = None


class Marking(_Model):
    """How an output is marked (Reg. (EU) 2024/1689 Art. 50(2))."""

    manifest: Flag = None
    watermark: Flag = None


class Facts(_Model):
    """All facts of one question.  What is None is not known; rules say what that means."""

    subject: Subject = Subject()
    capacity: Text | None = None
    controller: Controller = Controller()
    purpose: Purpose
    stage: Text | None = None
    data: Data = Data()
    consents: Annotated[tuple[Consent, ...], BeforeValidator(_empty_if_null)] = ()
    notices: tuple[Text, ...] | None = None
    signals: Signals = Signals()
    recipient: Recipient = Recipient()
    service: Service = Service()
    service_requested: Flag = None
    sale_for_money: Flag = None
    contract_fulfilled: Flag = None
    purpose_expired_at: Instant | None = None
    analytics_infers_characteristics: Flag = None
    rely_on_ai_exemption: Flag = None
    system: System = System()
    marking: Marking = Marking()
    at: Instant

    @property
    def purpose_expired(self) -> bool:
        """Return whether the purpose the data was collected for has ended by now."""
        return self.purpose_expired_at is not None and self.purpose_expired_at <= self.at

    @property
    def purpose_expired_a_year_ago(self) -> bool:
        """Return whether the first anniversary of the purpose's end has come (Tex. B&C Code 503.001)."""
        end = self.purpose_expired_at
        return end is not None and add_months(end, 12) <= self.at

    @property
    def purpose_withdrawn_at(self) -> datetime | None:
        """Return the last withdrawal for the purpose up to now, or None.

        A withdrawal ends every consent for the purpose that was not given after
        it; otherwise an older record of the same choice would come back to life.
        """
        ends = [
            c.withdrawn_at for c in self.consents if c.purpose is self.purpose and c.withdrawn_at is not None
        ]
        return max((end for end in ends if end <= self.at), default=None)

    @property
    def purpose_withdrawn(self) -> bool:
        """Return whether the last word on the purpose is a withdrawal."""
        end = self.purpose_withdrawn_at
        return end is not None and not any(self.stands(c) for c in self.consents if c.purpose is self.purpose)

    @property
    def guardian_verified(self) -> bool:
        """Return whether a guardian is named together with how that was verified."""
        guardian = self.subject.guardian
        return guardian is not None and (guardian.verified_method or "").strip().lower() not in _NO_METHOD

    @property
    def guardian_by_text(self) -> bool:
        """Return whether a guardian was verified by message alone (16 CFR 312.5(b): nothing disclosed)."""
        guardian = self.subject.guardian
        return guardian is not None and (guardian.verified_method or "").strip().lower() in _BY_TEXT

    def given(self, consent: Consent) -> bool:
        """Return whether the consent was given by now; one without a time was."""
        return consent.given_at is None or consent.given_at <= self.at

    def withdrawn(self, consent: Consent) -> bool:
        """Return whether a withdrawal, its own or a later one for the purpose, has ended the consent."""
        if consent.withdrawn_at is not None and consent.withdrawn_at <= self.at:
            return True
        end = self.purpose_withdrawn_at
        return end is not None and not (consent.given_at is not None and consent.given_at > end)

    def stands(self, consent: Consent) -> bool:
        """Return whether the consent was given, and has neither been withdrawn nor run out."""
        over = consent.expires_at is not None and consent.expires_at <= self.at
        return self.given(consent) and not self.withdrawn(consent) and not over


DERIVED = frozenset(
    {
        "purpose_expired",
        "purpose_expired_a_year_ago",
        "purpose_withdrawn",
        "guardian_verified",
        "guardian_by_text",
    }
)
"""Facts that predicates may name and that are computed from others."""


def parse_facts(mapping: object) -> Facts:
    """Read facts from plain values, as JSON gives them.

    Raises:
        FactUnknown: A key that no rule knows, at any depth.
        FactInvalid: A known key with a value it cannot have, or no `purpose` or `at`.
    """
    if not isinstance(mapping, Mapping):
        raise FactInvalid("", "an object is expected")
    try:
        return Facts.model_validate(_without_null_groups(mapping))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
    faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in faults[0]["loc"])
    if faults[0]["type"] == "extra_forbidden":
        raise FactUnknown(path)
    raise FactInvalid(path, faults[0]["msg"].removeprefix("Value error, "))


def _without_null_groups(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Drop keys whose value is null: not known and not given are the same."""
    known = Facts.model_fields
    return {key: value for key, value in mapping.items() if value is not None or key not in known}


def is_fact(path: str) -> bool:
    """Return whether `path` (`subject.age`) names a fact that a predicate may read."""
    if path in DERIVED:
        return True
    model: Any = Facts
    for part in path.split("."):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return False
        model = fields[part].annotation
    return not any(hasattr(part, "model_fields") for part in (model, *get_args(model)))
