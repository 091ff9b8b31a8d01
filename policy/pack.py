"""The schema of a rule book.  A pack is data: numbers, citations, status; never code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, lru_cache
from importlib import resources
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator
from yaml.composer import Composer

from policy.codes import ALLOW_CODES, DENY_CODES
from policy.errors import PackInvalid
from policy.predicates import Predicate, Strict, tests_of
from policy.spans import parse_span
from policy.terms import ConsentForm, DataKind, DsrKind, KeyClass, Purpose

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Territory = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
IsoDate = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
Doubt = Annotated[str, StringConstraints(pattern=r"^U-\d\d$")]
Cites = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]+#\S.*$")], ...], Field(min_length=1)
]
Layer = Literal["legal", "house"]
_UNTOUCHABLE = frozenset({KeyClass.CONTENT, KeyClass.PROFILE})


class Rule(Strict):
    """Anything that binds: it cites its source and may say since when and how surely."""

    cite: Cites
    uncertain: tuple[Doubt, ...] = ()
    since: IsoDate | None = None
    until: IsoDate | None = None

    @model_validator(mode="after")
    def _dates_exist(self) -> Rule:
        for text in (self.since, self.until):
            if text is not None:
                date.fromisoformat(text)
        return self

    def in_force(self, at: datetime) -> bool:
        """Return whether the rule binds on the (UTC) day of `at`; `until` itself is no longer in."""
        day = at.date().isoformat()
        return (self.since is None or self.since <= day) and (self.until is None or day < self.until)


class Header(Strict):
    """What the pack is."""

    id: Name
    version: Line
    title: Line
    regulator: Line
    status: Literal["in_force", "partly", "pending", "documentation"]
    notes: tuple[Line, ...] = ()


class Source(Strict):
    """A text that rules cite by key; `short` opens the printed citation."""

    key: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]+$")]
    short: Line
    cite: Line
    url: Line | None = None
    read: Literal["primary", "secondary", "memory"]
    read_on: IsoDate | None = None


class Trigger(Rule):
    """One reason why the pack applies."""

    when: Predicate
    layer: Layer = "legal"


class Scope(Rule):
    """What the law regulates at all; of anything else the pack says nothing, though it applies."""

    when: Predicate


class ConsentNeed(Strict):
    """What a consent must be for a purpose, and the code for each way to fall short.

    `valid_for` is how long it holds from when it was given; `absent` replaces the
    purpose's `else` where there is none at all.
    """

    form: ConsentForm
    separate: bool = False
    must_have: tuple[
        Literal["presented_separately", "highlighted", "signature", "term_shown", "two_step_confirmed"], ...
    ] = ()
    conditioning: Literal["never", "if_necessary"] = "never"
    valid_for: Line | None = None
    weak: str = "DENY_NO_CONSENT"
    bundled: str = "DENY_CONSENT_BUNDLED"
    conditioned: str = "DENY_CONSENT_CONDITIONED"
    absent: str | None = None

    @model_validator(mode="after")
    def _codes_exist(self) -> ConsentNeed:
        if self.form is ConsentForm.PARENTAL:
            raise ValueError("parental consent is a minors' rule, not a form of its own")
        _codes(DENY_CODES, self.weak, self.bundled, self.conditioned, *([self.absent] if self.absent else []))
        if self.valid_for is not None:
            parse_span(self.valid_for)
        return self


class Gate(Rule):
    """A condition under which the purpose is denied whatever else holds.

    With `instead` the grounds are not asked then: of what may not be kept any
    longer nobody asks whether there is a consent to keep it.
    """

    when: Predicate
    deny: str
    instead: bool = False

    @model_validator(mode="after")
    def _code_exists(self) -> Gate:
        _codes(DENY_CODES, self.deny)
        return self


class Ground(Rule):
    """A basis for the purpose: a consent, a condition, or both together; any one ground suffices."""

    allow: str
    consent: ConsentNeed | None = None
    when: Predicate | None = None

    @model_validator(mode="after")
    def _is_something(self) -> Ground:
        _codes(ALLOW_CODES, self.allow)
        if self.consent is None and self.when is None:
            raise ValueError("a ground needs a consent or a condition")
        return self


class HousePurpose(Strict):
    """What the house asks beyond the law for a purpose under this pack."""

    form: ConsentForm | None = None
    forbidden: Literal[True] | None = None


class PurposeRule(Rule):
    """May the purpose be pursued, on which ground, and what is said if not.

    A law that is `silent` on a purpose denies by its gates and its rules for the
    young only, and allows nothing.
    """

    basis: tuple[Line, ...] = ()
    silent: Literal[True] | None = None
    forbidden: str | None = None
    gates: tuple[Gate, ...] = ()
    grounds: tuple[Ground, ...] = ()
    otherwise: Annotated[str, Field(alias="else")] = "DENY_NO_CONSENT"
    house: HousePurpose = HousePurpose()

    @model_validator(mode="after")
    def _is_coherent(self) -> PurposeRule:
        _codes(DENY_CODES, self.otherwise, *([self.forbidden] if self.forbidden else []))
        said = "otherwise" in self.model_fields_set
        if self.silent and (self.grounds or self.forbidden or said):
            raise ValueError("a silent purpose has no ground, no prohibition and no else")
        if not self.silent and not self.grounds and self.forbidden is None:
            raise ValueError("a purpose needs a ground, to be forbidden, or to be silent")
        if not self.silent and not said:
            raise ValueError("else: what is said where no ground holds")
        asked = [ground.consent.form.strength for ground in self.grounds if ground.consent]
        if self.house.form is not None and self.house.form.strength < max(asked, default=0):
            raise ValueError("house relaxes legal: a weaker form of consent")
        return self


class MinorRule(Rule):
    """What a young person needs.  With `age_table`, the limit is that of the country.

    It does not bind where `unless` holds; with `unknown_age` an age that nobody
    knows lies within.
    """

    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)]
    age_gte: int = 0
    age_lt: int
    age_table: dict[Territory, int] = Field(default_factory=dict)
    requires: Literal["guardian", "guardian_opt_in", "self_opt_in", "nothing_suffices"]
    two_step: bool = False
    separate: bool = False
    unless: Predicate | None = None
    unknown_age: bool = False
    deny: str
    allow: str | None = None

    @model_validator(mode="after")
    def _is_coherent(self) -> MinorRule:
        _codes(DENY_CODES, self.deny)
        _codes(ALLOW_CODES, *([self.allow] if self.allow else []))
        if any(not self.age_gte < age <= 18 for age in (self.age_lt, *self.age_table.values())):
            raise ValueError("ages lie above age_gte and up to 18")
        return self


ProofField = Literal[
    "consent_id",
    "subject_ref",
    "purpose",
    "form",
    "text_id",
    "text_version",
    "language",
    "text_sha256",
    "controller",
    "data_categories",
    "recipients",
    "term_shown",
    "transfer_countries",
    "withdrawal_method_shown",
    "given_at",
    "channel",
    "act",
    "signature",
    "presented_separately",
    "highlighted",
    "two_step_confirmed",
    "guardian",
    "age_evidence",
    "expires_at",
]


class ConsentRecord(Rule):
    """What a record of consent must hold as proof: always, and for some purposes more."""

    required: Annotated[tuple[ProofField, ...], Field(min_length=1)]
    more_for: dict[Purpose, tuple[ProofField, ...]] = Field(default_factory=dict)

    def fields(self, purpose: Purpose) -> frozenset[str]:
        """Return the names of all fields that a consent to `purpose` must have."""
        return frozenset((*self.required, *self.more_for.get(purpose, ())))


class Withdrawal(Rule):
    """How fast a withdrawal acts, and what it does."""

    max_latency: Line
    effects: Annotated[tuple[Line, ...], Field(min_length=1)]


class Renewal(Rule):
    """Changes of a notice after which consent is asked for anew, beyond those of the house floor."""

    when_changed: Annotated[
        tuple[
            Literal[
                "text",
                "purposes",
                "recipients",
                "transfer_countries",
                "retention_term",
                "withdrawal_method",
            ],
            ...,
        ],
        Field(min_length=1),
    ]


class Notice(Rule):
    """What must be told, and when."""

    when: Line
    items: Annotated[tuple[Line, ...], Field(min_length=1)]


class HolidayRule(Strict):
    """One yearly holiday: a fixed day, days from Easter Sunday, or the n-th weekday of a month.

    `weekday` counts Monday as 0.  With `before_day`, it is the last such weekday before that day.
    """

    name: Line
    month: Annotated[int, Field(ge=1, le=12)] | None = None
    day: Annotated[int, Field(ge=1, le=31)] | None = None
    easter: Annotated[int, Field(ge=-60, le=60)] | None = None
    weekday: Annotated[int, Field(ge=0, le=6)] | None = None
    nth: Annotated[int, Field(ge=1, le=4)] | None = None
    before_day: Annotated[int, Field(ge=8, le=31)] | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> HolidayRule:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None} - {"name"}
        if given not in (
            {"month", "day"},
            {"easter"},
            {"month", "weekday", "nth"},
            {"month", "weekday", "before_day"},
        ):
            raise ValueError("a holiday is month+day, easter, month+weekday+nth or month+weekday+before_day")
        return self


class Calendar(Rule):
    """Which days are not working days.

    `common_to` names country codes of the holiday tables; a day off must be in
    all of them.  `codes` are the overrides that mean this very calendar.
    """

    weekend: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...]
    codes: tuple[Territory, ...] = ()
    common_to: tuple[Territory, ...] = ()
    rules: tuple[HolidayRule, ...] = ()


class Clock(Rule):
    """A term.  The day of the event is not counted; a missing date is the month's last day."""

    unit: Literal["hour", "day", "business_day", "month", "year"]
    length: int
    roll: Literal["none", "next_working_day"] = "none"


class Since(Strict):
    """Count `clock` from the first input in `after` that is given."""

    after: Annotated[tuple[Name, ...], Field(min_length=1)]
    clock: Name


class Limit(Strict):
    """A named last (or first) moment, counted from an input; of several options the earliest."""

    field: Line
    options: Annotated[tuple[Since, ...], Field(min_length=1)]


class Pause(Strict):
    """Days from input `begin` to input `end`, both included, do not count."""

    begin: Name
    end: Name


class Event(Rule):
    """Which clocks an event starts; `aliases` are matched without regard to case."""

    aliases: Annotated[tuple[Line, ...], Field(min_length=1)]
    ack: Name | None = None
    respond: Name | None = None
    extend: Name | None = None
    target: Name | None = None
    restart: tuple[Name, ...] = ()
    pause: Pause | None = None
    limits: tuple[Limit, ...] = ()

    @model_validator(mode="after")
    def _is_something(self) -> Event:
        if self.respond is None and not self.limits:
            raise ValueError("an event starts a clock")
        if self.respond is not None and self.target is None:
            raise ValueError("an answer needs a house target")
        return self


class Seat(Strict):
    """Where days are counted: a fixed zone and calendar, or the controller's own (None)."""

    zone: Line | None = None
    calendar: Name


class AutoHold(Rule):
    """What an open request keeps from being destroyed, by class of key."""

    classes: Annotated[tuple[KeyClass, ...], Field(min_length=1)]


Degree = Literal["none", "account", "reasonable", "reasonably_high"]


class Identity(Rule):
    """How sure one must be of who asks; a right may say otherwise.

    `on_doubt`: the degree that may be asked for where there is reason to doubt.
    """

    level: Degree
    on_doubt: Degree
    methods: tuple[Line, ...] = ()
    agent: Annotated[tuple[Name, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _doubt_asks_no_less(self) -> Identity:
        degrees: tuple[str, ...] = get_args(Degree)
        if degrees.index(self.on_doubt) < degrees.index(self.level):
            raise ValueError("a doubt asks for no less than there was before")
        return self


class Answering(Rule):
    """How requests are taken and answered under this law, whatever is asked for."""

    form: Literal["any", "written"] = "any"
    silence: Literal["breach", "refusal"] = "breach"
    identity: Identity
    extension_reasons: tuple[Name, ...] = ()
    extension_states: tuple[Name, ...] = ()
    fee: Literal["free", "free_twice_a_year", "minimal_and_announced", "reproduction_announced"]
    fee_if: tuple[Name, ...] = ()
    refusal_states: tuple[Name, ...] = ()
    complaint_to: Line | None = None


class BreachDuty(Rule):
    """Whom to tell of a breach: by a clock (an event and its field), or as the law words it."""

    tell: Literal["authority", "subjects", "authority_and_subjects", "controller", "others"]
    name: Line
    event: Name | None = None
    field: Line | None = None
    promptly: Name | None = None
    threshold: Name
    unless: tuple[Name, ...] = ()
    more_than: int | None = None

    @model_validator(mode="after")
    def _is_by_one(self) -> BreachDuty:
        if (self.event is None) is (self.promptly is None) or (self.event is None) is not (
            self.field is None
        ):
            raise ValueError("a duty has an event with its field, or the words of the law")
        return self


class SignalRule(Rule):
    """What an opt-out signal means, for whom, how long, and what is said back."""

    signal: Literal["gpc", "limit_spi"]
    layer: Layer = "legal"
    treat_as: Name
    scope: Annotated[tuple[Name, ...], Field(min_length=1)]
    persist: bool
    confirm: Name | None = None
    ask_again_after: Line | None = None

    @model_validator(mode="after")
    def _is_a_length(self) -> SignalRule:
        if self.ask_again_after is not None:
            parse_span(self.ask_again_after)
        return self


class MarkingDuty(Rule):
    """How an output must be marked before it is released."""

    layers: Annotated[tuple[Literal["manifest", "watermark", "visible_label"], ...], Field(min_length=1)]
    placed_from: IsoDate | None = None
    placed_before: IsoDate | None = None
    detector: bool = False


class Assessment(Rule):
    """An assessment that is due before some purposes are pursued."""

    type: Name
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)]
    deadline: Line


Addressed = Literal[
    "all_recipients",
    "those_who_received_it",
    "agents_it_was_shared_with",
    "affiliates",
    "processors",
    "service_providers",
    "contractors",
    "third_parties",
    "third_parties_sold_or_shared",
    "third_parties_since_the_request",
    "third_parties_where_appropriate",
]
Excuse = Literal["impossible", "disproportionate", "not_appropriate"]


class Right(Rule):
    """Is the right there, how is it answered, and what may be said against it.

    `propagate_to` are those who are told of what a request changed, `propagate_unless` the
    grounds for which some of them need not be (`policy.recipients`).
    """

    available: Literal["legal", "house", "none"]
    event: Name | None = None
    identity: Degree | None = None
    exemptions: tuple[Line, ...] = ()
    propagate_to: tuple[Addressed, ...] = ()
    propagate_unless: dict[Excuse, tuple[Addressed, ...]] = Field(default_factory=dict)
    hold: AutoHold | None = None
    notes: tuple[Line, ...] = ()

    @model_validator(mode="after")
    def _is_answerable(self) -> Right:
        if (self.available == "none") is not (self.event is None):
            raise ValueError("a right that is there names its clock event, one that is not names none")
        if not {name for names in self.propagate_unless.values() for name in names} <= {*self.propagate_to}:
            raise ValueError("whom nobody has to tell needs no ground")
        return self


class Term(Rule):
    """How long a kind of data may (`at_most`) or must (`at_least`) be kept."""

    kind: Name
    purpose: Purpose | None = None
    layer: Layer
    at_most: Line | None = None
    at_least: Line | None = None

    @model_validator(mode="after")
    def _is_a_length(self) -> Term:
        lengths = [text for text in (self.at_most, self.at_least) if text is not None]
        if not lengths:
            raise ValueError("a term has a length")
        for text in lengths:
            parse_span(text)
        if self.at_least and self.kind in {kind.value for kind in DataKind}:
            raise ValueError("relaxes the law: records may have to be kept, what shows a person never")
        return self


class Keep(Rule):
    """A class of keys that an erasure leaves, for how long, and by which rule."""

    cls: Annotated[KeyClass, Field(alias="class")]
    keep_for: Line
    at_least: Line | None = None

    @model_validator(mode="after")
    def _is_keepable(self) -> Keep:
        if self.cls in _UNTOUCHABLE:
            raise ValueError("content and profile never outlive an erasure")
        longest = parse_span(self.keep_for).at_most
        if self.at_least and longest < parse_span(self.at_least).at_most:
            raise ValueError("house relaxes legal: kept for less than the law asks")
        return self


ALWAYS_SAID = (
    DsrKind.ACCESS,
    DsrKind.ERASURE,
    DsrKind.CORRECTION,
    DsrKind.PORTABILITY,
    DsrKind.RESTRICTION,
    DsrKind.OPT_OUT,
    DsrKind.WITHDRAWAL,
)
"""The rights of which every pack says whether they are there; of others a pack may be silent."""


class PackRules(Strict):
    """The whole text of a pack."""

    pack: Header
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    sets: dict[Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]+$")], tuple[Territory, ...]] = Field(
        default_factory=dict
    )
    applicability: tuple[Trigger, ...]
    scope: Scope | None = None
    purposes: dict[Purpose, PurposeRule]
    minors: tuple[MinorRule, ...] = ()
    consent_record: ConsentRecord | None = None
    withdrawal: Withdrawal | None = None
    renewal: Renewal | None = None
    notices: tuple[Notice, ...] = ()
    seat: Seat
    calendars: dict[Name, Calendar]
    clocks: dict[Name, Clock]
    events: dict[Name, Event]
    answering: Answering | None = None
    rights: dict[DsrKind, Right]
    breach: tuple[BreachDuty, ...] = ()
    signals: tuple[SignalRule, ...] = ()
    marking: tuple[MarkingDuty, ...] = ()
    assessments: tuple[Assessment, ...] = ()
    retention: tuple[Term, ...] = ()
    keep_at_erasure: tuple[Keep, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> PackRules:
        _complete("purposes", set(Purpose), set(self.purposes))
        _complete("rights", set(ALWAYS_SAID), set(self.rights))
        if not self.applicability and self.pack.status != "documentation":
            raise ValueError("a pack that is more than documentation applies to somebody")
        self._check_references()
        self._check_cites()
        self._check_predicates()
        _check_aliases(self.events)
        _check_targets(self.events, self.clocks)
        _check_terms(self.retention)
        return self

    def _check_references(self) -> None:
        _known("seat", {self.seat.calendar}, set(self.calendars))
        for name, event in self.events.items():
            used = {event.ack, event.respond, event.extend, event.target} - {None}
            used |= {option.clock for limit in event.limits for option in limit.options}
            _known(f"events.{name}", used, set(self.clocks))
        _known("rights", {right.event for right in self.rights.values()} - {None}, set(self.events))
        for duty in self.breach:
            if duty.event is not None:
                _known("breach", {duty.event}, set(self.events))
                _known("breach", {duty.field}, {limit.field for limit in self.events[duty.event].limits})

    def _check_cites(self) -> None:
        keys = {source.key for source in self.sources}
        for rule in rules_of(self):
            _known("cite", {cite.partition("#")[0] for cite in rule.cite}, keys)

    def _check_predicates(self) -> None:
        for predicate in _predicates(self):
            for test in tests_of(predicate):
                if isinstance(test.value, str) and test.value.startswith("$"):
                    _known("sets", {test.value[1:]}, set(self.sets))


@dataclass(frozen=True, eq=False)
class Pack:
    """A rule book together with the very bytes it was read from."""

    rules: PackRules
    source_bytes: bytes

    @property
    def id(self) -> str:
        """Return the pack's id, which is also its file's stem."""
        return self.rules.pack.id

    @property
    def version(self) -> str:
        """Return the version that the pack gives itself."""
        return self.rules.pack.version

    @property
    def title(self) -> str:
        """Return the name of the law."""
        return self.rules.pack.title

    @property
    def status(self) -> str:
        """Return `in_force`, `partly`, `pending` or `documentation`; the last two never apply."""
        return self.rules.pack.status

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the source bytes, in hex."""
        return hashlib.sha256(self.source_bytes).hexdigest()

    def cited(self, cites: tuple[str, ...]) -> tuple[str, ...]:
        """Return citations as people write them: `GDPR#9(2)(a)` becomes `GDPR Art. 9(2)(a)`."""
        short = {source.key: source.short for source in self.rules.sources}
        return tuple(f"{short[key]} {place}" for key, _, place in (cite.partition("#") for cite in cites))


def parse_pack(data: bytes) -> Pack:
    """Read a pack from the bytes of its YAML file.

    Raises:
        PackInvalid: Not safe YAML, a duplicate or unknown key, a rule that
            cites nothing, or a house value that is laxer than the legal one.
    """
    try:
        tree = yaml.load(data, Loader=_Loader)  # noqa: S506 # _Loader is a SafeLoader that refuses more
        # By way of JSON, so that lists may fill tuples while nothing else is converted.
        rules = PackRules.model_validate_json(json.dumps(tree, allow_nan=False))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        why = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        raise PackInvalid(why, _line_of(data, fault["loc"], fault["msg"])) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise PackInvalid(error.problem or str(error), mark.line + 1 if mark is not None else 0) from error
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise PackInvalid(str(error)) from error
    if rules.pack.id == "house":
        raise PackInvalid("house is reserved and no pack")
    return Pack(rules, data)


def _line_of(data: bytes, loc: tuple[int | str, ...], message: str) -> int:
    """Return the line of the deepest part of the file that a fault names.

    A rule over a whole section names it in its message (`rights: not defined: ...`).
    """
    node = yaml.compose(data, Loader=_Loader)
    line = 1
    named = message.removeprefix("Value error, ").partition(":")[0].split(".")
    for step in loc or named:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    node, line = value, key.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def parse_named(sources: Mapping[str, bytes], digest: str) -> Pack:
    """Read the pack that a decision names by the SHA-256 of its source, in hex.

    Raises:
        PackInvalid: It is not among the sources, is not what its digest says, or is no pack of this schema.
    """
    if digest not in sources:
        raise PackInvalid(f"no source has the digest {digest}")
    pack = _parse_once(sources[digest])
    if pack.digest != digest:
        raise PackInvalid(f"a source has not the digest {digest}")
    return pack


@lru_cache(maxsize=64)
def _parse_once(data: bytes) -> Pack:
    return parse_pack(data)


def load_packs(own: tuple[tuple[str, bytes], ...] = ()) -> dict[str, Pack]:
    """Read the packs that come with this package and an operator's `own` files, by id.

    Args:
        own: File names and contents.  A pack of an operator adds a law; it replaces none.

    Raises:
        PackInvalid: A file is broken, its stem is not its id, or the id is taken.
    """
    packs: dict[str, Pack] = {}
    folder = resources.files("policy").joinpath("packs")
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".yaml")}
    for name, data in (*sorted(files.items()), *sorted(own)):
        pack = read_pack(name, data)
        if pack.id in packs:
            raise PackInvalid("the id of a pack that is there already: the law it states stays", 1, name)
        packs[pack.id] = pack
    return packs


def read_pack(name: str, data: bytes) -> Pack:
    """Read the pack of a file called `name`.

    Raises:
        PackInvalid: It is broken, or its stem is not its id; the message begins with name and line.
    """
    try:
        pack = _parse_once(data)
    except PackInvalid as fault:
        raise fault.within(name) from fault
    stem = name.rpartition("/")[2]
    if stem != f"{pack.id}.yaml":
        raise PackInvalid(f"the stem of the file is not the pack's id {pack.id}", 1, name)
    return pack


class _Loader(Composer, yaml.CSafeLoader):
    """A safe loader that also refuses duplicate keys, keys that are not text, and aliases.

    libyaml reads the text, which takes a fifth of the time; nodes are composed here, where an alias is seen.
    """

    def __init__(self, stream: bytes) -> None:
        yaml.CSafeLoader.__init__(self, stream)
        Composer.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark: Any = self.peek_event().start_mark  # type: ignore[union-attr] # there is an event: an alias
            raise yaml.constructor.ConstructorError(None, None, "aliases are refused", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be quoted text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key.value!r}", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _codes(known: frozenset[str], *codes: str) -> None:
    for code in codes:
        if code not in known:
            raise ValueError(f"no such reason code: {code}")


def _known(where: str, used: set[Any], known: set[str]) -> None:
    if used - known:
        raise ValueError(f"{where}: not defined: {', '.join(sorted(used - known))}")


def _complete(where: str, wanted: set[Any], given: set[Any]) -> None:
    if wanted - given:
        raise ValueError(f"{where}: nothing said of {', '.join(sorted(wanted - given))}")


def rules_of(part: object) -> Iterator[Rule]:
    """Yield every rule inside a piece of a pack."""
    if isinstance(part, Rule):
        yield part
    if isinstance(part, Strict):
        for name in type(part).model_fields:
            yield from rules_of(getattr(part, name))
    elif isinstance(part, Mapping):
        for inner in part.values():
            yield from rules_of(inner)
    elif isinstance(part, tuple):
        for inner in part:
            yield from rules_of(inner)


def _predicates(rules: PackRules) -> Iterator[Predicate]:
    yield from (trigger.when for trigger in rules.applicability)
    yield from (rule.unless for rule in rules.minors if rule.unless is not None)
    if rules.scope is not None:
        yield rules.scope.when
    for purpose in rules.purposes.values():
        yield from (gate.when for gate in purpose.gates)
        yield from (ground.when for ground in purpose.grounds if ground.when is not None)


def _check_aliases(events: Mapping[str, Event]) -> None:
    seen: set[str] = set()
    for event in events.values():
        for alias in event.aliases:
            if alias.casefold() in seen:
                raise ValueError(f"alias of two events: {alias}")
            seen.add(alias.casefold())


_SHORTEST = {"hour": 1, "day": 24, "business_day": 24, "month": 28 * 24, "year": 365 * 24}
_LONGEST = {"hour": 1, "day": 24, "business_day": 11 * 24, "month": 31 * 24, "year": 366 * 24}


def _check_targets(events: Mapping[str, Event], clocks: Mapping[str, Clock]) -> None:
    """Refuse a house target that may lie after the legal limit (lengths in hours)."""
    for name, event in events.items():
        if event.respond is None or event.target is None:
            continue
        legal, house = clocks[event.respond], clocks[event.target]
        is_late = house.length > legal.length
        if house.unit != legal.unit:
            is_late = house.length * _LONGEST[house.unit] > legal.length * _SHORTEST[legal.unit]
        if is_late or (house.roll != "none" and legal.roll == "none"):
            raise ValueError(f"house relaxes legal: the target of {name} lies after the limit")


def _check_terms(terms: tuple[Term, ...]) -> None:
    """Refuse house terms that keep longer than the law lets, or less long than it asks."""
    for house in (term for term in terms if term.layer == "house"):
        same = [t for t in terms if t.layer == "legal" and (t.kind, t.purpose) == (house.kind, house.purpose)]
        for legal in same:
            for mine, theirs, sign in (
                (house.at_most, legal.at_most, 1),
                (house.at_most, legal.at_least, -1),
            ):
                if mine and theirs:
                    gap = parse_span(mine).at_most - parse_span(theirs).at_most
                    if gap.total_seconds() * sign > 0:
                        raise ValueError(f"house relaxes legal: the term of {house.kind}")
