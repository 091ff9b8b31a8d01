"""The page on compliance: from the rules that docstrings and packs cite, to code and to tests."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from policy.pack import Pack, Rule, load_packs, rules_of

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Compliance: rule, code, test

Which provision stands where, and what tests it.  Facts of law come from the packs (`policy/packs/*.yaml`),
each with its article, how its source was read, and the open questions (U-nn) that it touches.  Nothing here
is legal advice: docs/explanation/how-decisions-are-made.md says what is not packed, and what a lawyer must
confirm.

## The packs

`cases` are those of tests/vectors/law that the pack decides or counts; sources from memory were not read
again for this version.

| pack | law | status | rules | open questions | sources from memory | cases |
|---|---|---|---|---|---|---|
"""
RULES = """
## Rules in the code

| rule | code | test |
|---|---|---|
"""


def compliance_page() -> str:
    """Return the page."""
    packs = load_packs()
    cases = _cases()
    rows = [_pack(pack, cases) for pack in packs.values()]
    found = [
        f"| {rule} | `{module}`: `{name}` | {_tests(module)} |"
        for module in _modules()
        for name, rules in _cited(ROOT / module)
        for rule in rules
    ]
    note = "\nThis page is made from the code: `python -m tests.docs`.\n"
    return HEAD + "\n".join(rows) + "\n" + RULES + "\n".join(found) + "\n" + note


def _pack(pack: Pack, cases: Counter[str]) -> str:
    rules: list[Rule] = list(rules_of(pack.rules))
    doubts = sorted({doubt for rule in rules for doubt in rule.uncertain})
    memory = [source.key for source in pack.rules.sources if source.read == "memory"]
    cells = (
        f"`{pack.id}` {pack.version}",
        pack.title,
        pack.status,
        str(len(rules)),
        ", ".join(doubts),
        ", ".join(memory),
        str(cases[pack.id]),
    )
    return f"| {' | '.join(cells)} |"


def _cases() -> Counter[str]:
    """Return how many cases each pack decides or counts."""
    found: Counter[str] = Counter()
    for file in sorted((ROOT / "tests" / "vectors" / "law").glob("*.json")):
        for case in json.loads(file.read_bytes())["cases"]:
            found[case["regime"].lower() if "regime" in case else case["expected"]["deciding_pack"]] += 1
    return found


def _modules() -> list[str]:
    return [
        str(file.relative_to(ROOT))
        for folder in ("policy", "audit", "gateway")
        for file in sorted((ROOT / folder).rglob("*.py"))
    ]


def _cited(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, rules) of each definition whose docstring ends in a section `Rule:`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            _, is_there, rules = (ast.get_docstring(node) or "").partition("\nRule:\n")
            if is_there:
                yield node.name, [line.strip() for line in rules.splitlines() if line.strip()]


def _tests(module: str) -> str:
    """Return the files whose tests go by the module's name."""
    stem = Path(module).stem
    found = sorted((ROOT / "tests").rglob(f"test_*{stem}*.py"))
    return ", ".join(f"`{file.relative_to(ROOT / 'tests')}`" for file in found) or "none of its own"
