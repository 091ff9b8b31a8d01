"""Conditions over facts, as packs write them: a closed set of operators, no code in YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policy.facts import Facts, is_fact

Scalar = bool | int | str
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


def holds(predicate: Predicate, facts: Facts, sets: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether `predicate` is true of `facts`; `sets` are the pack's named lists."""
    if isinstance(predicate, AllOf):
        return all(holds(part, facts, sets) for part in predicate.all)
    if isinstance(predicate, AnyOf):
        return any(holds(part, facts, sets) for part in predicate.any)
    if isinstance(predicate, Not):
        return not holds(predicate.part, facts, sets)
    return _test(predicate, facts, sets)


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


def _test(test: Test, facts: Facts, sets: Mapping[str, tuple[str, ...]]) -> bool:
    found = read(facts, test.fact)
    if test.op == "exists":
        return (found is not None) is test.value
    if found is None:
        return test.missing
    wanted = _wanted(test, sets)
    if test.op in {"lt", "gte"}:
        return (_ordinal(found) < _ordinal(test.value)) is (test.op == "lt")
    several = found if isinstance(found, tuple) else (found,)
    return any(_same(test.fact, one, other) for one in several for other in wanted)


def _wanted(test: Test, sets: Mapping[str, tuple[str, ...]]) -> tuple[Scalar, ...]:
    if isinstance(test.value, tuple):
        return test.value
    if isinstance(test.value, str) and test.value.startswith("$"):
        return sets[test.value[1:]]
    return (test.value,)


def _same(fact: str, one: Any, other: Scalar) -> bool:
    if fact in _TERRITORIAL and isinstance(one, str) and isinstance(other, str):
        return lies_in(one, other, widened=fact in _WIDENED)
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)


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
