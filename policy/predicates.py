"""Conditions over facts, as packs write them: a closed set of operators, no code in YAML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policy.facts import Facts, is_fact

Scalar = bool | int | str
Condition = Callable[[Facts], bool]
_TERRITORIAL = frozenset(
    {
        "subject.residence",
        "subject.location",
        "recipient.country",
        "controller.establishments",
        "controller.targets",
    }
)
_WIDENED = frozenset({"subject.residence", "subject.location"})
_LISTS = frozenset({"notices", "controller.establishments", "controller.targets"})
_NUMBERS = frozenset({"subject.age"})
_DAYS = frozenset({"system.placed_on_market", "purpose_expired_at"})


class Strict(BaseModel):
    """A piece of a pack: frozen, no unknown keys, no silent conversions (`NO` is not a country)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True
    )


class Test(Strict):
    """One fact compared with a value.

    A fact that is not known makes the test `missing`; false unless the pack
    says otherwise.  Territories compare by containment: `DE-BY` lies in `DE`,
    and a person known only to be in `US` may be in `US-CA`.
    """

    __test__: ClassVar[bool] = False  # not a test class of pytest

    fact: str
    op: Literal["in", "eq", "lt", "gte", "exists", "intersects"]
    value: Scalar | tuple[Scalar, ...]
    missing: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Test:
        if not is_fact(self.fact):
            raise ValueError(f"no such fact: {self.fact}")
        is_list = isinstance(self.value, tuple)
        named_set = isinstance(self.value, str) and self.value.startswith("$")
        if self.op in {"in", "intersects"} and not (is_list or named_set):
            raise ValueError(f"{self.op} takes a list or a named set")
        if self.op in {"eq", "lt", "gte", "exists"} and is_list:
            raise ValueError(f"{self.op} takes one value")
        if self.op == "exists" and not isinstance(self.value, bool):
            raise ValueError("exists takes true or false")
        if self.op in {"lt", "gte"}:
            _ordinal(self.value)
            if self.fact not in (_NUMBERS if isinstance(self.value, int) else _DAYS):
                raise ValueError(f"{self.fact} has no order with such a value")
        return self


class AllOf(Strict):
    """True if every part is."""

    all: Annotated[tuple[Predicate, ...], Field(min_length=1)]


class AnyOf(Strict):
    """True if some part is."""

    any: Annotated[tuple[Predicate, ...], Field(min_length=1)]


class Not(Strict):
    """True if its part is not."""

    part: Annotated[Predicate, Field(alias="not")]


Predicate = Test | AllOf | AnyOf | Not
AllOf.model_rebuild()
AnyOf.model_rebuild()
Not.model_rebuild()


def compiled(predicate: Predicate, sets: Mapping[str, tuple[str, ...]]) -> Condition:
    """Return a function that says whether `predicate` is true of facts; `sets` are the pack's named lists."""
    if isinstance(predicate, Test):
        return _compiled(predicate, sets)
    if isinstance(predicate, Not):
        part = compiled(predicate.part, sets)
        return lambda facts: not part(facts)
    parts = [compiled(p, sets) for p in (predicate.all if isinstance(predicate, AllOf) else predicate.any)]
    if isinstance(predicate, AllOf):
        return _all_of(parts)
    return _any_of(parts)


def _all_of(parts: Sequence[Condition]) -> Condition:
    def holds(facts: Facts) -> bool:
        for part in parts:  # noqa: SIM110 # a generator would cost more than the tests themselves
            if not part(facts):
                return False
        return True

    return holds


def _any_of(parts: Sequence[Condition]) -> Condition:
    def holds(facts: Facts) -> bool:
        for part in parts:  # noqa: SIM110 # as above
            if part(facts):
                return True
        return False

    return holds


def tests_of(predicate: Predicate) -> Iterable[Test]:
    """Yield every test inside a predicate."""
    if isinstance(predicate, Test):
        yield predicate
    elif isinstance(predicate, Not):
        yield from tests_of(predicate.part)
    else:
        for part in predicate.all if isinstance(predicate, AllOf) else predicate.any:
            yield from tests_of(part)


def lies_in(code: str, territory: str, *, widened: bool = False) -> bool:
    """Return whether a territory code lies in another.

    With `widened`, a country whose subdivision is not known may be any of them.
    """
    return (
        code == territory
        or code.startswith(f"{territory}-")
        or (widened and territory.startswith(f"{code}-"))
    )


def _compiled(test: Test, sets: Mapping[str, tuple[str, ...]]) -> Condition:
    get = attrgetter(test.fact)
    missing = test.missing
    if test.op == "exists":
        wants = test.value
        return lambda facts: (get(facts) is not None) is wants
    if test.op in {"lt", "gte"}:
        edge, is_lt = _ordinal(test.value), test.op == "lt"

        def is_on_its_side(facts: Facts) -> bool:
            found = get(facts)
            return missing if found is None else (_ordinal(found) < edge) is is_lt

        return is_on_its_side
    wanted = _wanted(test, sets)
    if wanted in ((True,), (False,)) and not missing:
        flag = wanted[0]
        return lambda facts: get(facts) is flag
    same = _among_places(test.fact, wanted) if test.fact in _TERRITORIAL else _among(wanted)
    if test.fact in _LISTS:
        return lambda facts: missing if (found := get(facts)) is None else any(map(same, found))
    return lambda facts: missing if (found := get(facts)) is None else same(found)


def _among(wanted: tuple[Scalar, ...]) -> Callable[[Any], bool]:
    """Return whether a value is one of `wanted`; 1 is not true."""
    texts = frozenset(value for value in wanted if isinstance(value, str))
    others = [value for value in wanted if not isinstance(value, str)]
    if not others:
        return texts.__contains__
    return lambda one: any(
        one == other and isinstance(one, bool) is isinstance(other, bool) for other in others
    )


def _among_places(fact: str, wanted: tuple[Scalar, ...]) -> Callable[[Any], bool]:
    """Return whether a place lies in one of `wanted`; see `lies_in`."""
    places = frozenset(value for value in wanted if isinstance(value, str))
    wholes = frozenset(value.partition("-")[0] for value in places if "-" in value and fact in _WIDENED)
    return lambda code: code in places or code in wholes or code.partition("-")[0] in places


def _wanted(test: Test, sets: Mapping[str, tuple[str, ...]]) -> tuple[Scalar, ...]:
    if isinstance(test.value, tuple):
        return test.value
    if isinstance(test.value, str) and test.value.startswith("$"):
        return sets[test.value[1:]]
    return (test.value,)


def read(facts: Facts, path: str) -> Any:
    """Return the fact at `path` (`subject.age`), or None where it is not known."""
    found: Any = facts
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _ordinal(value: object) -> int:
    """Return numbers as they are and days as their ordinal; nothing else has an order here."""
    if not isinstance(value, bool):
        if isinstance(value, int):
            return value
        if isinstance(value, str):
            return date.fromisoformat(value).toordinal()
        if isinstance(value, date):
            return value.toordinal()
    raise ValueError("lt and gte take a number or an ISO date")
