"""What `lethe audit verify --replay` says: each rule that is broken, and what could not be replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.admin.exits import PARTLY, UNVERIFIED
from gateway.admin.output import fail, say

if TYPE_CHECKING:
    from audit.replay import ReplayReport

MOST_SHOWN = 1000
"""So many violations are named; all are counted."""


def replayed(files: Mapping[str, bytes]) -> ReplayReport:
    """Return what replaying a verified export finds, by the rule books that it carries."""
    from audit.replay import read, replay
    from policy.coded import recompute

    return replay(*read(files), recompute)


def shown(report: ReplayReport) -> dict[str, Any]:
    """Return what a replay found, to be printed."""
    violations = report.violations
    return {
        "verdict": report.verdict,
        "full": report.full,
        "coded": report.coded,
        "not_replayable": report.not_replayable,
        "reasons": dict(report.reasons),
        "promises": {name: asdict(tally) for name, tally in report.promises.items()},
        "violation_count": len(violations),
        "violations": [asdict(violation) for violation in violations[:MOST_SHOWN]],
    }


def judge_violations(report: ReplayReport) -> None:
    """End the command where a rule is broken, and name each."""
    if not report.violations:
        return
    for violation in report.violations[:MOST_SHOWN]:
        detail = f": {violation.detail}" if violation.detail else ""
        say(f"violation: entry {violation.index} ({violation.type}) {violation.rule}{detail}")
    fail(UNVERIFIED, "REPLAY_VIOLATED", f"rules broken: {len(report.violations)}")


def judge_completeness(report: ReplayReport) -> None:
    """End the command where a decision could not be replayed: then it is not simply good."""
    if report.not_replayable:
        done = report.full + report.coded
        why = ", ".join(f"{reason} {count}" for reason, count in report.reasons.items())
        fail(
            PARTLY,
            "REPLAY_INCOMPLETE",
            f"{done} decisions hold, {report.not_replayable} cannot be replayed ({why})",
        )
