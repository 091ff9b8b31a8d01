from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from audit import canonical, leaf, replay, seal
from audit.errors import ExportInvalid
from audit.payloads import Payload
from audit.replay import CLOSE_MS, SKEW_MS, SWEEP_GRACE_MS, Tally, Violation
from audit.schema import EVENTS
from audit.verify import verify_export
from policy.coded import code, recompute
from policy.consent import decide
from policy.facts import parse_facts
from policy.pack import load_packs
from tests.unit.audit import honest, logs
from tests.unit.audit.logs import ORIGIN, PACK, PACK_DIGEST, SIGNER, START_MS, TRUST, exported
from tests.unit.policy.asking import yes

Event = dict[str, Any]
SECOND = 1_000
CON, JOB, OBJ, OUT, DSR, NTC, HLD, ZIP, DST, ITM, OPT, CPY, INC = (f"{n:02x}" * 16 for n in range(1, 14))
EXP = START_MS + 3_600_000


def decision(**changes: Any) -> Event:
    said = {"st": "standing", "form": "explicit", "flags": ["separate"], "con": CON}
    fields = {**logs.EXAMPLES["decision.made"], "dec": "allow", "rc": "ALLOW_EXPLICIT_CONSENT", "job": JOB}
    del fields["rcp"]
    return {"ty": "decision.made", **fields, "cons": [said], "base": [CON], "at": START_MS, **changes}


def picture(obj: str, cat: str, kind: str = "metadata") -> list[Event]:
    return [
        {"ty": "image.scrubbed", "obj": obj, "kind": kind},
        {"ty": "object.sealed", "obj": obj, "cat": cat, "exp": EXP},
    ]


RCP = "5e" * 16
IN_PART: Event = {"ty": "dsr.fulfilled", "dsr": DSR, "out": "complied_in_part"}
PAUSED: Event = {"ty": "dsr.paused", "dsr": DSR}
TOLD: Event = {"ty": "dsr.propagated", "dsr": DSR, "rcp": RCP, "out": "told"}
PROMPT: Event = {"ty": "prompt.scrubbed", "obj": OBJ}
STORY: list[Event] = [
    {"ty": "notice.published", "ntc": NTC, "pur": ["generate"]},
    {"ty": "consent.recorded", "con": CON, "ntc": NTC, "flags": ["separate"], "exp": EXP},
    decision(),
    *picture(OBJ, "original", "bystanders"),
    {"ty": "job.created", "job": JOB, "obj": OBJ, "kind": "bystanders"},
    {"ty": "job.dispatched", "job": JOB},
    *picture(OUT, "output"),
    {"ty": "job.succeeded", "job": JOB, "obj": OUT},
    {"ty": "object.destroyed", "obj": OBJ, "cat": "original"},
    {"ty": "result.released", "job": JOB, "obj": OUT},
    {"ty": "dsr.received", "dsr": DSR, "due": EXP},
    {"ty": "dsr.approved", "dsr": DSR, "rcp": [RCP]},
    {"ty": "subject.blocked", "dsr": DSR},
    {"ty": "consent.withdrawn", "con": CON, "pur": "generate"},
    {"ty": "object.destroyed", "obj": OUT, "cat": "output"},
    {"ty": "subject.erased", "dsr": DSR, "t1": START_MS, "t2": START_MS + 1},
    {"ty": "record.expired", "con": CON},
]
"""Everything that may become of one picture, a second between two events."""


def placed(story: list[Event], start: int = 0, gap_ms: int = SECOND) -> list[tuple[int, Event]]:
    """Return a story as rows: what is not said is as in the examples."""
    rows: list[tuple[int, Event]] = []
    for place, said in enumerate(story):
        fields = {k: v for k, v in said.items() if k not in {"ty", "t", "seals"}}
        # Of the decisions and the consents all is said: an example's `rcp` or `exp` would mean something.
        at_ms = said.get("t", START_MS + (start + place) * gap_ms)
        made = logs.event(said["ty"], at_ms=at_ms, start=100 * place, **fields)
        for name in {"rcp", "exp"} & made.keys() - said.keys():
            del made[name]
        row = {**made, "seals": said.get("seals", [])}
        leaf.encode(row)
        rows.append((start + place, row))
    return rows


def run(rows: list[tuple[int, Event]], payloads: tuple[Payload, ...] = ()) -> replay.ReplayReport:
    return replay.replay(rows, payloads, {PACK_DIGEST: PACK}, honest.decide)


def broken(story: list[Event], **how: Any) -> set[tuple[str, str]]:
    return {(violation.type, violation.rule) for violation in run(placed(story, **how)).violations}


def without(*types: str) -> list[Event]:
    return [event for event in STORY if event["ty"] not in types]


def index(ty: str, nth: int = 0) -> int:
    return [place for place, event in enumerate(STORY) if event["ty"] == ty][nth]


def changed(ty: str, nth: int = 0, /, **changes: Any) -> list[Event]:
    place = index(ty, nth)
    return [*STORY[:place], {**STORY[place], **changes}, *STORY[place + 1 :]]


def after(ty: str, *events: Event, nth: int = 0) -> list[Event]:
    place = index(ty, nth) + 1
    return [*STORY[:place], *events, *STORY[place:]]


def test_every_event_type_has_a_rule_or_says_why_there_is_none() -> None:
    assert replay.RULES.keys() == EVENTS.keys()
    for ty, rule in replay.RULES.items():
        assert rule.checks or rule.says.startswith("nothing to replay: "), ty
        assert rule.says


def test_a_story_that_keeps_every_promise_breaks_no_rule() -> None:
    report = run(placed(STORY))
    assert report.violations == ()
    assert (report.verdict, report.full, report.coded, report.not_replayable) == ("kept", 0, 1, 0)
    assert report.promises == {
        "accepted_with_permission": Tally(kept=1),
        "answered_in_time": Tally(kept=1),
        "destroyed_in_time": Tally(kept=2),
        "erased_on_approval": Tally(kept=1),
        "forwarded_with_consent": Tally(kept=1),
        "marked_when_demanded": Tally(kept=1),
        "released_with_permission": Tally(kept=1),
    }


HELD: list[Event] = [
    {"ty": "hold.placed", "hld": HLD},
    {"ty": "object.held", "obj": OBJ, "cat": "original", "hld": HLD},
    {"ty": "object.freed", "obj": OBJ, "cat": "original"},
    {"ty": "hold.released", "hld": HLD},
]
"""A hold that stops the destruction of the original for a while."""


def held(*events: Event) -> list[Event]:
    return after("job.succeeded", *events)


def test_a_hold_that_is_kept_and_released_breaks_no_rule() -> None:
    assert broken(held(*HELD)) == set()
    assert broken(held(HELD[0], HELD[1], HELD[3], HELD[2])) == set()


IN_MEMORY: list[Event] = [
    {**event, "ty": "object.transient"} if event["ty"] == "object.sealed" else event for event in STORY
]
"""The same where nothing is kept."""


def test_pictures_in_memory_only_are_counted_like_those_that_are_stored() -> None:
    assert broken(IN_MEMORY) == set()
    assert run(placed(IN_MEMORY)).promises == run(placed(STORY)).promises


MARKED: Event = {"ty": "image.marked", "obj": OUT}
DEMANDED: list[Event] = [
    {**event, "mark": ["manifest"]} if event["ty"] in {"job.succeeded", "result.released"} else event
    for event in STORY
]
"""The same where the packs demand that the result is marked."""


def marked(*events: Event) -> list[Event]:
    place = index("job.succeeded")
    return [*DEMANDED[:place], *events, *DEMANDED[place:]]


def test_a_result_that_was_marked_where_that_is_demanded_keeps_the_promise() -> None:
    report = run(placed(marked(MARKED)))
    assert report.violations == ()
    assert report.promises["marked_when_demanded"] == Tally(kept=1)
    assert run(placed(DEMANDED)).promises["marked_when_demanded"] == Tally(broken=1)


def test_a_watermark_that_was_demanded_is_nothing_that_the_log_shows() -> None:
    story = [*STORY]
    story[index("job.succeeded")] = {**STORY[index("job.succeeded")], "mark": ["watermark"]}
    assert run(placed(story)).promises["marked_when_demanded"] == Tally(unseen=1)


INVALID: Event = {"ty": "consent.invalidated", "con": CON, "pur": "generate"}
RENEWAL: Event = {"ty": "consent.renewal", "con": CON, "ntc": NTC}
KEPT: Event = {"ty": "object.kept", "obj": OUT, "cat": "output", "pur": "generate", "con": CON}


def test_a_renewal_and_a_keeping_by_another_consent_break_no_rule() -> None:
    assert broken(after("consent.recorded", RENEWAL)) == set()
    assert broken(after("job.succeeded", KEPT)) == set()


def test_a_result_that_another_consent_keeps_is_given_out_by_that_one() -> None:
    other = {**STORY[1], "con": HLD}
    kept = {**KEPT, "con": HLD}
    gone, late = STORY[15], ("result.released", "consent_withdrawn")
    assert late not in broken(after("job.succeeded", other, gone, kept))
    assert late in broken(after("job.succeeded", other, kept, {**gone, "con": HLD}))


STUCK = {"ty": "object.stuck", "obj": STORY[4]["obj"], "rc": "STORE_UNAVAILABLE", "ntry": 12}
PACKED: list[Event] = [
    {"ty": "object.sealed", "obj": ZIP, "cat": "package", "exp": EXP},
    {"ty": "package.made", "dsr": DSR, "obj": ZIP},
    {"ty": "package.released", "dsr": DSR, "obj": ZIP},
    {"ty": "object.destroyed", "obj": ZIP, "cat": "package"},
]
"""A package that answers the request; it was not scrubbed, being no picture."""


def packed(*events: Event) -> list[Event]:
    return after("dsr.received", *events)


def test_a_package_that_is_made_and_given_out_breaks_no_rule() -> None:
    assert broken(packed(*PACKED)) == set()


OPTED_IN: Event = {"ty": "consent.recorded", "con": OPT, "ntc": NTC, "pur": "train"}
ADDED: Event = {
    "ty": "dataset.added",
    "dst": DST,
    "itm": ITM,
    "job": JOB,
    "obj": CPY,
    "con": OPT,
    "kind": "redact",
}
TRAINED: list[Event] = [
    {"ty": "notice.published", "ntc": DSR, "pur": ["train"]},
    {**OPTED_IN, "ntc": DSR},
    {"ty": "dataset.created", "dst": DST, "exp": EXP},
    *picture(CPY, "output", "redact"),
    ADDED,
    {"ty": "dataset.completed", "dst": DST},
    {"ty": "dataset.released", "dst": DST},
    {"ty": "consent.withdrawn", "con": OPT, "pur": "train"},
    {"ty": "dataset.reduced", "dst": DST, "itm": ITM},
    {"ty": "object.destroyed", "obj": CPY, "cat": "output"},
    {"ty": "dataset.expired", "dst": DST},
]
"""A training set with a copy of the result, from its beginning to its end."""


def trained(*order: int | Event) -> list[Event]:
    """Return the story with these events of the training set, by their places or as they are."""
    chosen = [TRAINED[one] if isinstance(one, int) else one for one in order]
    return after("job.succeeded", *chosen)


def test_a_training_set_of_those_who_opted_in_breaks_no_rule() -> None:
    assert broken(trained(*TRAINED)) == set()


COUNTED: list[Event] = [
    {"ty": "notice.published", "ntc": DSR, "pur": ["analytics"]},
    {"ty": "consent.recorded", "con": OPT, "ntc": DSR, "pur": "analytics", "flags": ["separate"]},
    decision(
        obj=OUT,
        pur="analytics",
        cons=[{"st": "standing", "form": "explicit", "flags": ["separate"], "con": OPT}],
        base=[OPT],
    ),
    {"ty": "landmarks.released", "obj": OUT},
    {"ty": "consent.withdrawn", "con": OPT, "pur": "analytics"},
]
"""The record of a result that is given out by virtue of a consent to that."""
del COUNTED[2]["job"]


def counted(*order: int | Event) -> list[Event]:
    """Return the story with these events about the record, by their places or as they are."""
    chosen = [COUNTED[one] if isinstance(one, int) else one for one in order]
    return after("job.succeeded", *chosen)


def test_a_record_that_is_permitted_breaks_no_rule() -> None:
    assert broken(counted(*COUNTED)) == set()


def test_a_record_may_be_permitted_after_it_was_denied() -> None:
    found = broken(counted(0, 1, {**COUNTED[2], "dec": "deny"}, 2, 3))
    assert "landmarks.released" not in {ty for ty, _ in found}


BREACH: list[Event] = [{"ty": "incident.recorded", "inc": INC, "ver": number} for number in (1, 2)]
LEFT: Event = {"ty": "record.expired", "inc": INC, "con": CON}


def test_a_breach_in_versions_breaks_no_rule() -> None:
    assert broken([*STORY, *BREACH, LEFT]) == set()


def test_after_a_restore_a_breach_may_take_up_an_older_version() -> None:
    restored = {"ty": "backup.restored", "size": 1}
    assert broken([*STORY, *BREACH, restored, BREACH[1]]) == set()


LIES: list[tuple[list[Event], tuple[str, str]]] = [
    (without("notice.published"), ("consent.recorded", "notice_unpublished")),
    (changed("notice.published", pur=["train"]), ("consent.recorded", "notice_purpose")),
    (after("notice.published", STORY[0]), ("notice.published", "published_twice")),
    (without("consent.recorded"), ("decision.made", "consent_unknown")),
    (without("consent.recorded"), ("job.dispatched", "consent_unknown")),
    (without("consent.recorded"), ("consent.withdrawn", "consent_unknown")),
    (without("consent.recorded"), ("record.expired", "consent_unknown")),
    (after("consent.recorded", STORY[1]), ("consent.recorded", "consent_twice")),
    (changed("consent.recorded", form="implied"), ("decision.made", "consent_differs")),
    (changed("consent.recorded", flags=[]), ("decision.made", "consent_differs")),
    (changed("consent.recorded", pur="train"), ("decision.made", "consent_differs")),
    (changed("consent.recorded", exp=START_MS - 1), ("decision.made", "consent_expired")),
    (changed("consent.withdrawn", pur="train"), ("consent.withdrawn", "consent_unknown")),
    (after("consent.withdrawn", STORY[15]), ("consent.withdrawn", "withdrawn_twice")),
    (after("consent.recorded", STORY[15]), ("decision.made", "consent_withdrawn")),
    (after("job.created", STORY[15]), ("job.dispatched", "consent_withdrawn")),
    (after("job.dispatched", STORY[15]), ("result.released", "consent_withdrawn")),
    (changed("decision.made", dec="deny"), ("decision.made", "decision_differs")),
    (changed("decision.made", dec="deny"), ("job.created", "after_deny")),
    (changed("decision.made", dec="deny"), ("job.dispatched", "after_deny")),
    (changed("decision.made", dec="deny"), ("job.dispatched", "not_permitted")),
    (changed("decision.made", base=[]), ("decision.made", "decision_differs")),
    (changed("decision.made", at=START_MS + 60_000), ("decision.made", "decision_time")),
    (changed("decision.made", pur="train"), ("job.created", "purpose_differs")),
    (without("decision.made"), ("job.created", "not_permitted")),
    (without("decision.made"), ("job.dispatched", "not_permitted")),
    (without("decision.made"), ("result.released", "not_permitted")),
    (without("image.scrubbed"), ("object.sealed", "not_scrubbed")),
    (after("image.scrubbed", STORY[3]), ("image.scrubbed", "scrubbed_twice")),
    (after("object.destroyed", STORY[3]), ("image.scrubbed", "scrubbed_destroyed")),
    (marked(), ("job.succeeded", "not_marked")),
    (marked({**MARKED, "obj": OBJ}), ("result.released", "not_marked")),
    (marked(MARKED, MARKED), ("image.marked", "marked_twice")),
    (marked({**MARKED, "obj": "e" * 32}), ("image.marked", "not_scrubbed")),
    (after("object.destroyed", {**MARKED, "obj": OBJ}), ("image.marked", "marked_destroyed")),
    (after("object.sealed", STORY[4]), ("object.sealed", "sealed_twice")),
    (after("image.scrubbed", PROMPT, PROMPT), ("prompt.scrubbed", "prompt_scrubbed_twice")),
    ([*without("image.scrubbed", "object.destroyed"), PROMPT], ("prompt.scrubbed", "prompt_without_picture")),
    (after("object.destroyed", PROMPT), ("prompt.scrubbed", "prompt_scrubbed_destroyed")),
    (after("object.sealed", STUCK), ("object.stuck", "stuck_alive")),
    (without("object.sealed"), ("job.created", "picture_unknown")),
    (without("object.sealed"), ("job.succeeded", "result_unknown")),
    (without("object.sealed"), ("object.destroyed", "object_unknown")),
    (changed("object.destroyed", cat="output"), ("object.destroyed", "object_unknown")),
    (after("object.destroyed", STORY[10]), ("object.destroyed", "destroyed_twice")),
    (after("object.sealed", STORY[10]), ("job.created", "picture_destroyed")),
    (after("job.created", STORY[10]), ("job.dispatched", "forwarded_destroyed")),
    (after("job.succeeded", STORY[16]), ("result.released", "released_destroyed")),
    (after("job.created", STORY[5]), ("job.created", "job_twice")),
    (without("job.created"), ("job.dispatched", "job_unknown")),
    (changed("job.dispatched", bak="c" * 32), ("job.dispatched", "job_unknown")),
    (without("job.dispatched"), ("job.succeeded", "not_forwarded")),
    (after("job.created", {"ty": "job.stopping", "job": JOB}), ("job.dispatched", "forwarded_after_stop")),
    (after("job.created", {"ty": "job.stopping", "job": JOB}), ("job.succeeded", "succeeded_after_stop")),
    (after("job.succeeded", {"ty": "job.stopping", "job": JOB}), ("job.stopping", "job_over")),
    (after("job.created", *[{"ty": "job.stopping", "job": JOB}] * 2), ("job.stopping", "stopped_twice")),
    (after("decision.made", {"ty": "job.stopping", "job": OBJ}), ("job.stopping", "job_unknown")),
    (after("job.created", {"ty": "job.cancelled", "job": JOB}), ("job.dispatched", "job_over")),
    (after("job.succeeded", {"ty": "job.cancelled", "job": JOB}), ("job.cancelled", "job_over")),
    (after("job.succeeded", {"ty": "job.failed", "job": JOB}), ("job.failed", "job_over")),
    (after("job.succeeded", STORY[9]), ("job.succeeded", "job_over")),
    (without("job.succeeded"), ("result.released", "no_result")),
    (changed("result.released", obj=OBJ), ("result.released", "no_result")),
    ([*STORY[:7], {"ty": "job.deleted", "job": JOB}], ("job.deleted", "job_not_over")),
    (after("job.succeeded", {"ty": "job.deleted", "job": JOB}), ("result.released", "job_over")),
    (after("result.released", *[{"ty": "job.deleted", "job": JOB}] * 2), ("job.deleted", "deleted_twice")),
    (changed("object.sealed", 1, exp=START_MS), ("result.released", "released_late")),
    (without("dsr.received"), ("dsr.approved", "request_unknown")),
    (without("dsr.received"), ("subject.erased", "request_unknown")),
    (without("dsr.approved"), ("subject.blocked", "not_approved")),
    (without("dsr.approved"), ("subject.erased", "not_approved")),
    (after("dsr.received", STORY[12]), ("dsr.received", "received_twice")),
    (after("dsr.approved", STORY[13]), ("dsr.approved", "approved_twice")),
    (after("dsr.approved", {"ty": "dsr.refused", "dsr": DSR}), ("dsr.refused", "request_over")),
    (after("dsr.approved", {"ty": "dsr.cancelled", "dsr": DSR}), ("subject.erased", "request_over")),
    (after("dsr.received", {"ty": "dsr.cancelled", "dsr": DSR}), ("dsr.approved", "request_over")),
    (after("subject.erased", {"ty": "dsr.cancelled", "dsr": DSR}), ("dsr.cancelled", "request_over")),
    (after("dsr.received", {"ty": "dsr.refused", "dsr": OBJ}), ("dsr.refused", "request_unknown")),
    ([*without("dsr.approved"), {"ty": "dsr.fulfilled", "dsr": DSR}], ("dsr.fulfilled", "not_approved")),
    (after("subject.erased", {"ty": "dsr.fulfilled", "dsr": DSR}), ("dsr.fulfilled", "request_over")),
    (after("dsr.approved", {"ty": "dsr.verified", "dsr": DSR}), ("dsr.verified", "request_over")),
    (after("dsr.received", {"ty": "dsr.verified", "dsr": OBJ}), ("dsr.verified", "request_unknown")),
    (after("dsr.received", *[{"ty": "dsr.extended", "dsr": DSR}] * 2), ("dsr.extended", "extended_twice")),
    (after("subject.erased", {"ty": "dsr.extended", "dsr": DSR}), ("dsr.extended", "request_over")),
    (after("dsr.received", {"ty": "dsr.extended", "dsr": OBJ}), ("dsr.extended", "request_unknown")),
    (
        after("dsr.received", {"ty": "dsr.extended", "dsr": DSR, "due": EXP}),
        ("dsr.extended", "extended_backwards"),
    ),
    (changed("dsr.received", due=START_MS), ("dsr.received", "answered_late")),
    (
        [*changed("dsr.received", due=START_MS), {"ty": "dsr.extended", "dsr": DSR, "due": EXP}],
        ("dsr.extended", "extended_late"),
    ),
    (after("dsr.approved", {"ty": "dsr.partrefused", "dsr": DSR}), ("dsr.partrefused", "request_over")),
    ([*without("subject.erased"), IN_PART], ("dsr.fulfilled", "part_refused")),
    (after("dsr.received", *[{"ty": "dsr.paused", "dsr": DSR}] * 2), ("dsr.paused", "paused_twice")),
    (after("dsr.approved", {"ty": "dsr.paused", "dsr": DSR}), ("dsr.paused", "request_over")),
    (after("dsr.received", {"ty": "dsr.resumed", "dsr": DSR, "due": EXP}), ("dsr.resumed", "not_paused")),
    (
        after("dsr.received", PAUSED, {"ty": "dsr.resumed", "dsr": DSR, "due": EXP - 1}),
        ("dsr.resumed", "resumed_differs"),
    ),
    (
        after("dsr.received", PAUSED, {"ty": "dsr.resumed", "dsr": DSR, "due": EXP + 15 * 86_400_000}),
        ("dsr.resumed", "resumed_differs"),
    ),
    (after("subject.erased", {**TOLD, "rcp": OBJ}), ("dsr.propagated", "recipient_unknown")),
    ([*without("dsr.approved"), TOLD], ("dsr.propagated", "not_approved")),
    (after("subject.erased", {**TOLD, "out": "acknowledged"}), ("dsr.propagated", "not_told")),
    (after("subject.erased", TOLD, TOLD), ("dsr.propagated", "told_twice")),
    (after("subject.erased", {**TOLD, "out": "excused"}), ("dsr.propagated", "excuse_ground")),
    (after("subject.erased", {**TOLD, "why": "impossible"}), ("dsr.propagated", "excuse_ground")),
    (after("subject.erased", STORY[17]), ("subject.erased", "erased_twice")),
    (
        [*without("dsr.approved"), {"ty": "erasure.incomplete", "dsr": DSR}],
        ("erasure.incomplete", "not_approved"),
    ),
    (
        after("subject.erased", {"ty": "erasure.incomplete", "dsr": DSR}),
        ("erasure.incomplete", "incomplete_certified"),
    ),
    (changed("subject.erased", cls=["evidence"]), ("subject.erased", "erased_and_kept")),
    (changed("subject.erased", t1=START_MS + 60_000), ("subject.erased", "erased_in_future")),
    (changed("subject.erased", t2=START_MS - 1), ("subject.erased", "erased_backups_first")),
    (changed("record.expired", con=OBJ), ("record.expired", "consent_unknown")),
    (changed("subject.blocked", t=START_MS), ("subject.blocked", "time_back")),
    (
        after("notice.published", {"ty": "export.created", "from": 0, "to": 7, "size": 7}),
        ("export.created", "export_bounds"),
    ),
    (
        after("record.expired", {"ty": "export.created", "from": 5, "to": 4, "size": 7}),
        ("export.created", "export_bounds"),
    ),
    (after("notice.published", {"ty": "log.pruned", "to": 256}), ("log.pruned", "pruned_ahead")),
    (
        after(
            "notice.published",
            {"ty": "log.keyrevoked", "key": ["0a1b2c3d"], "from": 256, "rc": "KEY_STOLEN"},
        ),
        ("log.keyrevoked", "revoked_ahead"),
    ),
    (
        after("notice.published", {"ty": "log.disputed", "why": "root", "wit": [], "size": 256}),
        ("log.disputed", "disputed_ahead"),
    ),
    (after("notice.published", *PACKED[:2]), ("package.made", "request_unknown")),
    (packed({"ty": "dsr.refused", "dsr": DSR}, *PACKED[:2]), ("package.made", "request_over")),
    (packed(*PACKED[1:]), ("package.made", "package_unsealed")),
    (packed(*PACKED[:2], PACKED[1]), ("package.made", "made_twice")),
    (packed(PACKED[0], PACKED[3], PACKED[1]), ("package.made", "package_destroyed")),
    (packed(PACKED[0], PACKED[2]), ("package.released", "package_unknown")),
    (packed(*PACKED[:2], {**PACKED[2], "dsr": OBJ}), ("package.released", "package_unknown")),
    (packed(*PACKED[:2], PACKED[3], PACKED[2]), ("package.released", "released_destroyed")),
    (packed({**PACKED[0], "exp": START_MS}, *PACKED[1:]), ("package.released", "released_late")),
    (held(HELD[0], HELD[0]), ("hold.placed", "hold_twice")),
    (held({**HELD[0], "dsr": OBJ}), ("hold.placed", "request_unknown")),
    (held(HELD[1]), ("object.held", "hold_unknown")),
    (held(HELD[3]), ("hold.released", "hold_unknown")),
    (held(HELD[0], HELD[3], HELD[3]), ("hold.released", "released_twice")),
    (held(HELD[0], HELD[3], HELD[1]), ("object.held", "hold_over")),
    (held(HELD[2]), ("object.freed", "not_held")),
    (held(HELD[0], {**HELD[1], "cat": "output"}), ("object.held", "object_unknown")),
    (after("object.destroyed", *HELD), ("object.held", "held_destroyed")),
    (after("object.destroyed", *HELD), ("object.freed", "freed_destroyed")),
    (held(HELD[0], HELD[1]), ("object.sealed", "destroyed_under_hold")),
    ([*without("dsr.approved"), {"ty": "forget.ended", "dsr": DSR}], ("forget.ended", "not_approved")),
    (
        after("object.sealed", {"ty": "object.transient", "obj": OBJ, "exp": EXP}),
        ("object.transient", "sealed_twice"),
    ),
    (
        held({"ty": "object.transient", "obj": "e" * 32, "exp": EXP}),
        ("object.transient", "not_scrubbed"),
    ),
    (after("notice.published", {"ty": "backup.created", "size": 256}), ("backup.created", "backup_ahead")),
    ([*without("consent.recorded"), INVALID], ("consent.invalidated", "consent_unknown")),
    (after("result.released", INVALID, INVALID), ("consent.invalidated", "invalidated_twice")),
    (after("consent.recorded", INVALID), ("decision.made", "consent_invalid")),
    (after("job.created", INVALID), ("job.dispatched", "consent_invalid")),
    (after("consent.recorded", RENEWAL, RENEWAL), ("consent.renewal", "renewal_twice")),
    (after("consent.withdrawn", RENEWAL), ("consent.renewal", "consent_over")),
    (after("consent.recorded", {**RENEWAL, "ntc": OBJ}), ("consent.renewal", "notice_unpublished")),
    (after("job.succeeded", {**KEPT, "cat": "original"}), ("object.kept", "object_unknown")),
    (after("job.succeeded", {**KEPT, "pur": "train"}), ("object.kept", "consent_unknown")),
    (after("consent.withdrawn", KEPT), ("object.kept", "consent_withdrawn")),
    ([*STORY, {**KEPT, "obj": OBJ, "cat": "original"}], ("object.kept", "kept_destroyed")),
    (trained(0, 1, 3, 4, 5), ("dataset.added", "dataset_unknown")),
    (trained(2, 2), ("dataset.created", "dataset_twice")),
    (trained(0, 1, 2, 3, 4, 6, 5), ("dataset.added", "dataset_over")),
    (trained(2, 11, 11), ("dataset.expired", "dataset_over")),
    (trained(2, 6, 11, 7), ("dataset.released", "dataset_over")),
    (trained(0, 1, 2, 3, 4, 5, 5), ("dataset.added", "added_twice")),
    (trained(2, 3, 4, 5), ("dataset.added", "consent_unknown")),
    (trained(0, 1, 8, 2, 3, 4, 5), ("dataset.added", "added_withdrawn")),
    (trained(2, 3, 4, {**ADDED, "con": CON}), ("dataset.added", "purpose_differs")),
    (trained(0, 1, 2, 3, 4, {**ADDED, "job": OBJ}), ("dataset.added", "no_result")),
    (trained(0, 1, 2, 5), ("dataset.added", "picture_unknown")),
    (trained(0, 1, 2, 3, 4, 10, 5), ("dataset.added", "picture_destroyed")),
    (trained(2, 9), ("dataset.reduced", "item_unknown")),
    (trained(0, 1, 2, 3, 4, 5, 9, 9), ("dataset.reduced", "reduced_twice")),
    (trained(2, 7), ("dataset.released", "not_completed")),
    (changed("image.scrubbed", kind="metadata"), ("job.created", "faces_not_masked")),
    (trained(0, 1, 2, *picture(CPY, "output", "landmarks"), 5), ("dataset.added", "faces_not_masked")),
    (counted(0, 1, 3), ("landmarks.released", "not_permitted")),
    (counted(0, 1, 2, {**COUNTED[2], "dec": "deny"}, 3), ("landmarks.released", "after_deny")),
    (counted(0, 1, {**COUNTED[2], "pur": "train"}, 3), ("landmarks.released", "purpose_differs")),
    (counted(0, 1, 2, 4, 3), ("landmarks.released", "consent_withdrawn")),
    (counted(0, 1, 2, {**COUNTED[3], "obj": ZIP}), ("landmarks.released", "picture_unknown")),
    (after("object.destroyed", *COUNTED[:4], nth=1), ("landmarks.released", "released_destroyed")),
    (
        [
            {**e, "exp": START_MS} if e.get("cat") == "output" and "exp" in e else e
            for e in counted(0, 1, 2, 3)
        ],
        ("landmarks.released", "released_late"),
    ),
    ([*STORY, LEFT], ("record.expired", "incident_unknown")),
    ([*STORY, BREACH[0], LEFT, BREACH[1]], ("incident.recorded", "incident_over")),
    ([*STORY, BREACH[1]], ("incident.recorded", "incident_version")),
    ([*STORY, BREACH[0], BREACH[0]], ("incident.recorded", "incident_version")),
    (after("notice.published", {"ty": "backup.restored", "size": 256}), ("backup.restored", "backup_ahead")),
]


@pytest.mark.parametrize(
    ("story", "rule"), LIES, ids=[f"{number}-{rule[1]}" for number, (_, rule) in enumerate(LIES)]
)
def test_each_lie_is_found_and_named(story: list[Event], rule: tuple[str, str]) -> None:
    assert rule in broken(story)


def test_every_code_of_a_rule_is_found_by_some_test() -> None:
    """A rule that no test has seen broken may be one that cannot be."""
    codes = re.findall(r'rule="([a-z_]+)"', Path(replay.__file__).read_text())
    assert codes
    assert set(codes) <= {code for _, (_, code) in LIES}


def test_a_violation_names_the_event_the_rule_and_what_the_log_says() -> None:
    report = run(placed(changed("decision.made", dec="deny")))
    assert Violation(2, "decision.made", "decision_differs", "dec: deny, not allow") in report.violations
    assert report.verdict == "violated"
    assert report.promises["forwarded_with_consent"] == Tally(broken=1)


@pytest.mark.parametrize("story", [story for story, _ in LIES])
def test_a_rule_says_nothing_of_what_lies_outside_the_export(story: list[Event]) -> None:
    """What is forbidden is seen in a part as well; what is missing may stand before it."""
    assert broken(STORY, start=5) == set()
    present = {rule for _, rule in broken(story, start=5)}
    assert not present & {
        "not_permitted",
        "request_unknown",
        "not_scrubbed",
        "notice_unpublished",
        "no_result",
    } - {rule for rule in ("no_result", "request_unknown") if "obj" in str(story)}


def test_what_a_part_does_not_show_is_counted_as_unseen() -> None:
    tail = placed(STORY)[6:]
    assert run(tail).violations == ()
    assert run(tail).promises["forwarded_with_consent"] == Tally(unseen=1)


def test_what_lies_so_close_that_clocks_cannot_tell_is_unclear_and_no_violation() -> None:
    withdrawn = after("job.created", STORY[15], {"ty": "job.stopping", "job": JOB})
    story = [event for place, event in enumerate(withdrawn) if place <= 8]
    at_once = run(placed(story, gap_ms=CLOSE_MS // 4))
    assert not {v for v in at_once.violations if v.type == "job.dispatched"}
    assert at_once.promises["forwarded_with_consent"] == Tally(unclear=1)
    later = run(placed(story, gap_ms=CLOSE_MS + 1))
    assert later.promises["forwarded_with_consent"] == Tally(broken=1)


def test_an_event_may_lag_behind_the_one_that_needs_it_as_far_as_clocks_differ() -> None:
    first, second = index("job.created"), index("job.dispatched")
    swapped = [*STORY]
    swapped[first], swapped[second] = STORY[second], STORY[first]
    assert broken(swapped) == set()
    assert ("job.dispatched", "job_unknown") in broken(swapped, gap_ms=SKEW_MS + 1)


def sealed_until(end_ms: int, *more: Event) -> list[Event]:
    return [*picture(OBJ, "original"), *more, {"ty": "signal.recorded", "t": end_ms}]


@pytest.mark.parametrize(
    ("end_ms", "tally"),
    [
        (EXP, Tally(pending=1)),
        (EXP + SWEEP_GRACE_MS, Tally(pending=1)),
        (EXP + SWEEP_GRACE_MS + 1, Tally(broken=1)),
    ],
)
def test_an_object_is_pending_until_its_term_and_the_sweepers_grace_are_over(
    end_ms: int, tally: Tally
) -> None:
    report = run(placed(sealed_until(end_ms)))
    assert report.promises["destroyed_in_time"] == tally
    assert [v.rule for v in report.violations] == ["not_destroyed"] * tally.broken


@pytest.mark.parametrize(("late_ms", "rules"), [(0, []), (1, ["destroyed_late"])])
def test_an_object_that_is_destroyed_late_is_found(late_ms: int, rules: list[str]) -> None:
    gone = {"ty": "object.destroyed", "obj": OBJ, "cat": "original", "t": EXP + SWEEP_GRACE_MS + late_ms}
    report = run(placed([*picture(OBJ, "original"), gone]))
    assert [violation.rule for violation in report.violations] == rules


def test_an_object_that_is_kept_is_unseen_where_events_are_left_out() -> None:
    rows = placed(sealed_until(EXP + 2 * SWEEP_GRACE_MS))
    gapped = [*rows[:-1], (rows[-1][0] + 5, rows[-1][1])]
    assert run(gapped).violations == ()
    assert run(gapped).promises["destroyed_in_time"] == Tally(unseen=1)


@pytest.mark.parametrize(
    ("released_ms", "gone_ms", "rule"),
    [
        (None, None, None),
        (None, EXP + 3 * SWEEP_GRACE_MS, "destroyed_under_hold"),
        (EXP + 2 * SWEEP_GRACE_MS, EXP + 3 * SWEEP_GRACE_MS, None),
        (EXP + 2 * SWEEP_GRACE_MS, EXP + 3 * SWEEP_GRACE_MS + 1, "destroyed_late"),
        (EXP + 2 * SWEEP_GRACE_MS, None, "not_destroyed"),
        (START_MS + 60_000, None, "not_destroyed"),
    ],
)
def test_a_hold_covers_an_object_until_it_is_released(
    released_ms: int | None, gone_ms: int | None, rule: str | None
) -> None:
    rows = placed(picture(OBJ, "original"))
    rows.insert(0, (0, {"ty": "hold.placed", "hld": HLD, "seals": [], "t": START_MS}))
    rows[1:] = [(place + 1, event) for place, event in rows[1:]]
    held = [
        {"ty": "object.held", "hld": HLD, "cat": "original", "t": START_MS + 50_000},
        {"ty": "object.freed", "t": released_ms},
    ]
    gone = {"ty": "object.destroyed", "cat": "original", "t": gone_ms}
    end = {"ty": "signal.recorded", "t": EXP + 9 * SWEEP_GRACE_MS}
    events = [event for event in (*held, gone, end) if event["t"] is not None]
    for event in sorted(events, key=lambda event: event["t"]):
        rows.append((len(rows), {"obj": OBJ, "seals": [], **event}))
    assert [violation.rule for violation in run(rows).violations] == ([] if rule is None else [rule])


# --- decisions -----------------------------------------------------------------------------------


def opened(payload: object, slot: int = 0) -> Payload:
    text = payload if isinstance(payload, bytes) else canonical.encode(payload)
    return Payload(2, slot, "opened", bytes(32), text)


def test_an_open_payload_is_what_is_decided_on() -> None:
    facts = {"purpose": "generate", "at": "now", "consented": True}
    report = run(placed(STORY), (opened(facts),))
    assert (report.full, report.coded, report.violations) == (1, 0, ())
    denied = run(placed(STORY), (opened({**facts, "consented": False}),))
    assert {violation.rule for violation in denied.violations} == {"decision_differs"}


def test_who_decided_is_not_what_was_decided_on() -> None:
    staff = opened({"actor": "eileen", "role": "privacy_officer"})
    assert run(placed(STORY), (staff,)).coded == 1
    facts = {"purpose": "generate", "at": "now", "consented": True}
    assert run(placed(STORY), (staff, opened(facts, 1))).full == 1


def test_a_payload_that_is_none_is_a_violation() -> None:
    assert [v.rule for v in run(placed(STORY), (opened(b"{"),)).violations] == ["payload_malformed"]
    never = opened({"purpose": "generate", "at": "never", "consented": True})
    assert [(v.rule, v.detail) for v in run(placed(STORY), (never,)).violations] == [
        ("decision_contradicts", "facts_malformed")
    ]


def test_a_decision_that_nothing_follows_for_is_counted_and_the_verdict_is_not_kept() -> None:
    report = replay.replay(placed(STORY), (), {}, honest.decide)
    assert (report.full, report.coded, report.not_replayable) == (0, 0, 1)
    assert report.reasons == {"pack_unreadable": 1}
    assert report.verdict == "incomplete"


@pytest.mark.parametrize("error", [LookupError(), LookupError("Eileen Collins"), KeyError("x" * 99)])
def test_a_reason_is_a_code_or_none_is_given(error: Exception) -> None:
    def cannot(*_: object) -> Mapping[str, Any]:
        raise error

    assert replay.replay(placed(STORY), (), {}, cannot).reasons == {"not_decided": 1}


def test_a_permission_from_before_consents_were_named_is_unseen() -> None:
    old = {
        k: v for k, v in decision().items() if k not in {"cons", "base", "at", "law", "yes", "no", "under"}
    }
    rows = placed([*STORY[:2], old, *STORY[3:]])
    for _, row in rows:
        if row["ty"] == "decision.made":
            for name in ("cons", "base", "at", "law", "yes", "no", "under", "told"):
                row.pop(name, None)
    report = replay.replay(rows, (), {}, honest.decide)
    assert (report.not_replayable, report.violations) == (1, ())
    assert report.promises["forwarded_with_consent"] == Tally(unseen=1)


def denied(state: str, **recorded: Any) -> list[Event]:
    said = [{"st": state, "form": "explicit", "flags": ["separate"], "con": CON}]
    gone = decision(dec="deny", rc="DENY_NO_CONSENT", cons=said, base=[], at=START_MS + 5 * SECOND)
    return [STORY[0], {**STORY[1], **recorded}, gone]


@pytest.mark.parametrize(
    ("story", "rules"),
    [
        (denied("withdrawn"), {"consent_not_withdrawn"}),
        (denied("expired"), {"consent_not_expired"}),
        (denied("expired", exp=START_MS + 5 * SECOND), set()),
        (denied("overtaken"), set()),
        ([*denied("withdrawn")[:2], STORY[15], denied("withdrawn")[2]], set()),
    ],
)
def test_a_denial_says_of_consents_what_the_log_says(story: list[Event], rules: set[str]) -> None:
    assert {rule for _, rule in broken(story)} == rules


def test_a_denial_may_be_written_down_after_a_withdrawal_that_came_after_it() -> None:
    late = decision(dec="deny", rc="DENY_NO_CONSENT", base=[], at=START_MS + 500)
    rows = placed([*STORY[:2], STORY[15], late])
    found = {violation.rule for violation in run(rows).violations}
    assert "consent_withdrawn" not in found
    allowed = placed([*STORY[:2], STORY[15], decision(at=START_MS + 500)])
    assert "consent_withdrawn" in {violation.rule for violation in run(allowed).violations}


def test_a_consent_that_ended_before_its_job_was_forwarded_is_found_unless_another_may_stand() -> None:
    late = {**STORY[6], "t": EXP + SKEW_MS + 1}
    story = [*STORY[:6], late]
    assert ("job.dispatched", "consent_expired") in broken(story)
    another = {**STORY[1], "con": "9" * 32, "exp": EXP + SWEEP_GRACE_MS}
    report = run(placed([*STORY[:6], another, late]))
    assert report.promises["forwarded_with_consent"] == Tally(unseen=1)


# --- payloads ------------------------------------------------------------------------------------


def seals(number: int) -> list[list[str]]:
    return [[f"{slot:032x}", "audit", "0" * 64] for slot in range(number)]


def test_once_a_backup_was_restored_a_later_leaf_may_have_erased_what_an_earlier_one_counted() -> None:
    erased = {"ty": "payload.erased", "nseal": 2}
    story = [
        {"ty": "signal.recorded", "seals": seals(2)},
        erased,
        erased,
        {"ty": "backup.restored", "size": 1},
    ]
    found = tuple(Payload(0, slot, "erased", by=2) for slot in range(2))
    assert run(placed(story), found).violations == ()
    assert [v.rule for v in run(placed(story[:3]), found).violations] == ["payloads_not_erased"]


@pytest.mark.parametrize(
    ("said", "states", "rule"),
    [
        (1, ("erased", "opened"), None),
        (2, ("erased", "erased"), None),
        (1, ("erased", "erased"), "payloads_erased"),
        (2, ("erased", "opened"), "payloads_not_erased"),
        (2, ("erased", "withheld"), None),
    ],
)
def test_as_many_payloads_are_erased_as_the_leaf_says(
    said: int, states: tuple[Any, ...], rule: str | None
) -> None:
    story = [{"ty": "signal.recorded", "seals": seals(2)}, {"ty": "payload.erased", "nseal": said}]
    found = tuple(
        Payload(0, slot, state, payload=b"{}", by=1 if state == "erased" else -1)
        for slot, state in enumerate(states)
    )
    assert [violation.rule for violation in run(placed(story), found).violations] == (
        [] if rule is None else [rule]
    )


# --- exports, with the policy there is ----------------------------------------------------------------

PACKS = load_packs()
SOURCES = {pack.digest: pack.source_bytes for pack in PACKS.values()}


def real(consents: list[Event], job: str) -> Event:
    question = {
        "subject": {"residence": "DE", "location": "DE", "age": 30, "is_uploader": True},
        "purpose": "generate",
        "data": {"kind": "original", "template_extracted": True},
        "consents": consents,
        "notices": ["collection"],
        "at": "2026-11-23T12:00:00Z",
    }
    facts = parse_facts(question)
    codes = code(facts, decide(facts, PACKS), PACKS, [CON] * len(consents))
    return {"ty": "decision.made", **codes, "job": job, "facts": question}


def real_log(*decisions: Event) -> tuple[list[bytes], list[Payload]]:
    """Return a log of decisions, each of which seals its facts, and the openings."""
    at = 1_795_435_200_000
    events = [
        logs.event("notice.published", at_ms=at - 2, ntc=NTC, pur=["generate"]),
        logs.event(
            "consent.recorded", at_ms=at - 1, start=50, con=CON, ntc=NTC, flags=["separate"], exp=at + 1
        ),
    ]
    found = []
    for place, said in enumerate(decisions, start=2):
        fields = {name: value for name, value in said.items() if name not in {"ty", "facts"}}
        made = leaf.new_event(
            "decision.made", at_ms=at, actor="svc:app", random=logs.counter(place * 9), **fields
        )
        payload, salt = canonical.encode(said["facts"]), bytes([place]) * 32
        commitment = seal.commit_payload(payload, salt).hex()
        events.append({**made, "seals": [[f"{place:032x}", "audit", commitment]]})
        found.append(Payload(place, 0, "opened", salt, payload))
    return [leaf.encode(event) for event in events], found


DECISIONS = (real([yes()], "a" * 32), real([], "b" * 32))
DISCLOSED = {"disclosed": ("audit",), "expires_ms": START_MS}


@pytest.mark.parametrize("is_open", [False, True])
def test_a_forged_export_in_which_a_denial_was_turned_into_a_permission_is_found(is_open: bool) -> None:
    """The forger has the log's key and makes everything anew, tree and manifest: only replay finds it."""
    denial = DECISIONS[1]
    forged = {**denial, "dec": "allow", "rc": "ALLOW_EXPLICIT_CONSENT", "base": [], "law": "gdpr"}
    for decisions, wanted in ((DECISIONS, set()), ((DECISIONS[0], forged), {(3, "decision_differs")})):
        log, found = real_log(*decisions)
        withheld = [Payload(one.index, one.slot, "withheld") for one in found]
        terms = {"terms": logs.export.Terms("auditor", "audit", "lethe/test", **DISCLOSED)} if is_open else {}
        files = exported(log, packs=SOURCES, found=found if is_open else withheld, **terms)
        assert verify_export(files, TRUST).verdict == "valid"
        report = replay.replay(*replay.read(files), recompute)
        assert {(violation.index, violation.rule) for violation in report.violations} == wanted
        assert (report.full, report.coded) == ((2, 0) if is_open else (0, 2))


def test_a_forger_who_makes_the_codes_fit_is_found_by_the_consents_of_the_log() -> None:
    """The permission is copied to a consent that was never given: the log has none of that id."""
    invented = json.loads(json.dumps(DECISIONS[0]).replace(CON, "f" * 32))
    log, found = real_log(DECISIONS[0], {**invented, "job": "b" * 32})
    files = exported(log, packs=SOURCES, found=[Payload(one.index, 0, "withheld") for one in found])
    report = replay.replay(*replay.read(files), recompute)
    assert [(v.index, v.rule) for v in report.violations] == [(3, "consent_unknown")]


def test_a_part_of_a_log_has_the_places_that_its_manifest_gives() -> None:
    log, found = real_log(*DECISIONS)
    withheld = [Payload(one.index, 0, "withheld") for one in found]
    files = exported(log, packs=SOURCES, start=2, found=withheld)
    export = replay.read(files)
    assert [place for place, _ in export.rows] == [2, 3]
    report = replay.replay(*export, recompute)
    assert (report.coded, report.violations) == (2, ())


@pytest.mark.parametrize("path", ["manifest.json", "entries.jsonl", "payloads.jsonl"])
def test_an_export_without_its_files_cannot_be_replayed(path: str) -> None:
    files = exported(real_log(*DECISIONS)[0], packs=SOURCES)
    del files[path]
    with pytest.raises(ExportInvalid, match="file_missing"):
        replay.read(files)


def test_the_examples_of_every_type_can_be_replayed() -> None:
    """Nothing of what the schema lets through brings the replay down."""
    lines: Callable[[], list[bytes]] = logs.lines
    rows = list(enumerate(map(leaf.decode, lines())))
    report = replay.replay(rows, (), {PACK_DIGEST: PACK}, recompute)
    assert (ORIGIN, SIGNER.name) == (SIGNER.name, ORIGIN)
    assert report.verdict == "violated"
