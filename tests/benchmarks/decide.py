"""One decision over all packs, both layers; cedarpy beside it where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from policy.consent import decide
from policy.facts import parse_facts
from policy.pack import load_packs
from tests.benchmarks.measure import Side, Table, table, take_turns

CASES = Path(__file__).parent.parent / "vectors" / "law" / "visible_decisions.json"
OURS, READ, CEDAR = "decide, all packs", "read the facts from JSON and decide", "cedarpy, one request"
POLICY = """
permit(principal, action == Action::"generate", resource) when {
  context.form == "explicit" && context.separate && context.notice && context.age >= 16
};
forbid(principal, action == Action::"sell_share", resource);
forbid(principal, action, resource) when { context.withdrawn };
forbid(principal, action, resource) when { context.land == "US-IL" && context.form != "written_release" };
"""


async def run(*, quick: bool) -> list[Table]:
    """Return microseconds of CPU a decision, their 99th of a hundred, and decisions a second."""
    packs = load_packs()
    given = [case["inputs"] for case in json.loads(CASES.read_bytes())["cases"]]
    facts = [parse_facts(one) for one in given]
    texts = [json.dumps(one) for one in given]
    works: dict[str, list[Callable[[], object]]] = {
        OURS: [lambda one=one: decide(one, packs) for one in facts],
        READ: [lambda text=text: decide(parse_facts(json.loads(text)), packs) for text in texts],
    }
    notes = [
        f"{len(packs)} packs, the {len(given)} cases of the law sheet in turn; time is CPU of the thread."
    ]
    if find_spec("cedarpy"):
        works[CEDAR] = [_cedar()]
    else:
        notes.append("cedarpy is not installed, so nothing stands beside it.")
    for each in works.values():
        for work in each:
            work()
    rounds, times = (1, 1) if quick else (7, 200)
    mean = {name: _side(each, times, _mean) for name, each in works.items()}
    late = {name: _side(each, times, _p99) for name, each in works.items()}
    rate = {name: _side(each, times, lambda spent: 1e6 / _mean(spent)) for name, each in works.items()}
    return [
        table("One decision", "µs", OURS, await take_turns(mean, rounds), notes),
        table("One decision, the 99th of a hundred", "µs", OURS, await take_turns(late, rounds)),
        table("Decisions of one core", "1/s", OURS, await take_turns(rate, rounds)),
    ]


def _cedar() -> Callable[[], object]:
    """Return one request to Cedar: far fewer rules, and no reasons beside the answer."""
    cedar: Any = import_module("cedarpy")
    request = {
        "principal": 'User::"a"',
        "action": 'Action::"generate"',
        "resource": 'Photo::"b"',
        "context": {
            "form": "explicit",
            "separate": True,
            "notice": True,
            "age": 30,
            "withdrawn": False,
            "land": "DE",
        },
    }
    return lambda: cedar.is_authorized(request, POLICY, [])


def _side(works: list[Callable[[], object]], times: int, tell: Callable[[list[float]], float]) -> Side:
    async def side() -> float:
        spent: list[float] = []
        for _ in range(times):
            for work in works:
                begun = time.thread_time_ns()
                work()
                spent.append((time.thread_time_ns() - begun) / 1e3)
        return tell(spent)

    return side


def _mean(spent: list[float]) -> float:
    return sum(spent) / len(spent)


def _p99(spent: list[float]) -> float:
    return sorted(spent)[int(len(spent) * 0.99)]
