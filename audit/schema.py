"""What a leaf may say: one closed set of fields per event type, and a pattern for every value.

No value is free text.  What a pattern cannot rule out, the caller does: a code
of `[a-z0-9_]` or `[A-Z0-9_]` comes from our own tables, never from a message
(the exceptions are `rc` of `dsr.refused`, `dsr.partrefused` and `log.keyrevoked`, which an officer
or operator gives).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Check = Callable[[Any], bool]

MAX_MS = 253_402_300_799_999  # the last millisecond of the year 9999
MAX_LIST = 64
MAX_SEALS = 8

# A citation is made of a closed vocabulary and of places: `GDPR Art. 17(3)(b),(e)`,
# `Cal. Civ. Code 1798.105(d)(8)`, `PIPEDA Sch. 1 cl. 4.5.2`.  The one open word is an
# acronym of two to six capitals.  A new statute may need a word here.
_ABBREVIATIONS = (
    "Ann|Arts?|Bus|Cal|Ch|Civ|Com|Dec|Dir|Ill|Mont|No|Pub|Rec|Reg|Regs|Rev|Sch|Secs?|Stat|Tex|Wash|"
    "c|ch|cl|ff|para|paras|s|ss|tit"
)
_WORDS = "Act|Code|Guidelines|Interpretation|Law|Rules|Standards|and|guidance|guidelines|of|para|paras|under"
_NUMBER = "[0-9]{1,5}[a-z]?"
_LETTER = r"\((?:[0-9]{1,3}|[a-z]{1,2}|[ivx]{1,5}|[A-Z])\)"
_PLACE = rf"(?:[A-Z]-)?(?:{_NUMBER}|{_LETTER})(?:{_LETTER}|[.,/-](?:{_NUMBER}|{_LETTER}))*"
_CITED = rf"(?:(?:{_ABBREVIATIONS})\.|{_WORDS}|&|\(?[A-Z]{{2,6}}\)?|[A-Z]{{2,6}}/{_PLACE}|{_PLACE})"
# Something named and some place in it; no numbers side by side (telephone), no four with dots (address).
_SHAPE = r"(?=[^;]*[A-Z])(?=[^;]*[0-9])(?![^;]*[0-9] [0-9])(?![^;]*(?:[0-9]+\.){3}[0-9])"
CITATION = rf"{_SHAPE}{_CITED}(?: {_CITED}){{0,9}}"
"""One citation; a rule of `kept` is one or more of them, joined by `; `."""

REASONS = frozenset(
    {
        "NOTICE_UNKNOWN",
        "SUBJECT_UNKNOWN",
        "SUBJECT_BLOCKED",
        "OBJECT_EXPIRED",
        "HOLD_ACTIVE",
        "IMAGE_REJECTED",
        "PAYLOAD_TOO_LARGE",
        "IDEMPOTENCY_CONFLICT",
        "RESIDENCY_NO_TARGET",
        "BACKEND_RETENTION_TOO_LONG",
        "BACKEND_UNAVAILABLE",
        "JOB_CANCELLED",
        "AUDIT_UNAVAILABLE",
        "KEY_SERVICE_UNAVAILABLE",
        "MARKING_UNAVAILABLE",
        "STORE_UNAVAILABLE",
        "POLICY_UNAVAILABLE",
        "PREVIEW_STALE",
        "SECOND_PERSON_REQUIRED",
        "IDENTITY_REQUIRED",
        "MANDATE_REQUIRED",
        "EXTENSION_REFUSED",
        "SECOND_FACTOR_REQUIRED",
        "ROLE_REQUIRED",
        "RATE_LIMITED",
        "DEADLINE_REQUIRED",
        "DEADLINE_TOO_SHORT",
        "MESSAGE_INVALID",
        "NOT_FOUND",
        "METHOD_NOT_BUILT",
        "FACT_UNKNOWN",
        "SCRUBBER_UNAVAILABLE",
        "PROMPT_REJECTED",
        "STATE_CONFLICT",
        "TRAINING_OFF",
        "DEIDENTIFICATION_REQUIRED",
        "BACKEND_PROTOCOL",
        "ATTESTATION_REQUIRED",
        "DISK_RESERVE",
        "INPUT_LOST",
        "ZERO_RETENTION",
        "INTERNAL",
        "DENY",
    }
)
"""Reasons that the gateway gives for a refusal; those of policy begin with `DENY_`."""

_SERVICES = (
    "Generation|Subject|Notice|Consent|Dsr|Retention|Policy|Audit|Backend|Key|Tenant|Training|"
    "Analytics|Incident"
)


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields that an event must have and those it may have."""

    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict)
    _known: Mapping[str, Check] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Put both together, once."""
        object.__setattr__(self, "_known", {**self.required, **self.optional})

    def fault(self, value: Mapping[str, Any]) -> str:
        """Return what is wrong with `value` as a code, or nothing; the code never quotes it."""
        known = self._known
        if not value.keys() <= known.keys():
            return "field_unknown"
        if not value.keys() >= self.required.keys():
            return f"field_missing_{min(self.required.keys() - value.keys())}"
        wrong = [name for name in value if not known[name](value[name])]
        return f"field_value_{min(wrong)}" if wrong else ""


def text(pattern: str, longest: int = 255) -> Check:
    """Return a check for text that matches `pattern` from end to end."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: (
        isinstance(value, str) and len(value) <= longest and compiled.fullmatch(value) is not None
    )


def one_of(*codes: str) -> Check:
    """Return a check for one of `codes`."""
    return lambda value: isinstance(value, str) and value in codes


def number(low: int, high: int) -> Check:
    """Return a check for an integer from `low` to `high`, both included."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def listed(check: Check, longest: int = MAX_LIST) -> Check:
    """Return a check for a list of at most `longest` different values that pass `check`."""

    def passes(value: Any) -> bool:
        if not isinstance(value, (list, tuple)) or len(value) > longest:
            return False
        return all(map(check, value)) and all(item not in value[:place] for place, item in enumerate(value))

    return passes


def counts(name: Check) -> Check:
    """Return a check for a mapping of at most `MAX_LIST` codes to numbers."""
    amount = number(0, 1 << 40)
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= MAX_LIST
        and all(name(key) and amount(item) for key, item in value.items())
    )


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Return a check for an object with exactly these fields."""
    fields = Fields(required, optional or {})
    return lambda value: isinstance(value, dict) and not fields.fault(value)


HEX16 = text(r"[0-9a-f]{32}")
KEY_ID = text(r"[0-9a-f]{8}")
HEX32 = text(r"[0-9a-f]{64}")
CODE = text(r"[a-z][a-z0-9_]{0,31}")
DETAIL = text(r"[a-z0-9_]{1,63}")
MS = number(0, MAX_MS)
COUNT = number(0, 1 << 40)
SIZE = number(0, (1 << 53) - 1)
PACK = text(r"[a-z][a-z0-9_]{1,31}")
ACTOR = text(r"svc:[a-z0-9][a-z0-9._-]{0,62}|tok:[0-9a-f]{32}|sys:lethe")
PURPOSE = one_of(
    "generate", "retain_original", "retain_output", "train", "analytics", "sell_share", "transfer"
)
KIND = one_of("original", "output", "template", "landmarks", "prompt", "telemetry")
OBJECT = one_of("original", "output", "template", "landmarks", "prompt", "telemetry", "package")
LAYER = one_of("manifest", "watermark")
BARE = one_of("landmarks", "redact")
SIMILARITY = number(0, 1000)
SOURCE = one_of("generated", "composite_generated", "composite_synthetic", "enhanced")
FORM = one_of(
    "implied", "opt_out", "express", "explicit", "written_release", "signed_authorization", "parental"
)
FLAGS = ("separate", "presented_separately", "highlighted", "condition_of_service", "two_step_confirmed")
FLAG = one_of(*FLAGS)
SIGNAL = one_of("gpc", "limit_spi")
FACT = one_of(
    "agreement",
    "ai_exemption",
    "comparable",
    "consents",
    "dpf_listed",
    "for_children",
    "for_money",
    "fulfilled",
    "gpc",
    "guardian",
    "guardian_text",
    "identifying",
    "infers",
    "limit_spi",
    "manifest",
    "over",
    "over_year",
    "pia_done",
    "place",
    "release",
    "requested",
    "restricted",
    "template",
    "uncoded",
    "uploader",
    "watermark",
)
NOTICE = one_of(
    "bipa_policy",
    "before_capture",
    "cai_notified",
    "chd_privacy_policy",
    "collection",
    "foreign_processing",
    "opt_out_signal",
    "right_to_opt_out",
)
ROLE = one_of("processor", "third_party", "other")
REGION = text(r"local|[A-Z]{2}(?:-[A-Z0-9]{1,3})?")
SENT = one_of("original", "prompt", "subject_pseudonym")
LAND = text(r"[A-Z]{2}(?:-[A-Z0-9]{1,3})?")
MECHANISM = one_of(
    "ADDENDUM",
    "ANPD_SCC",
    "BCR",
    "EXPLICIT_CONSENT_49_1_A",
    "IDTA",
    "SCC",
    "SCC_2021_914",
    "SCC_ANPD",
    "UK_ADDENDUM",
    "OTHER",
)
DAY = text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
CONSIDERED = record(
    {
        "st": one_of("standing", "withdrawn", "overtaken", "expired"),
        "form": FORM,
        "flags": listed(one_of(*FLAGS, "signature", "term_shown", "terms", "year_old")),
    },
    {"con": HEX16, "by": one_of("depicted", "depicted_guardian", "guardian", "other")},
)
ENTITY = one_of(
    "national_id",
    "iban",
    "payment_card",
    "email",
    "url",
    "ip_address",
    "mac_address",
    "file_name",
    "date_of_birth",
    "phone",
    "document_number",
    "coordinates",
    "address",
    "handle",
    "person",
    "hidden_text",
)
AGE = one_of("lt13", "13-15", "16-17", "adult", "unknown")
CLASS = one_of("content", "profile", "evidence", "dsr", "audit")
DSR_KIND = one_of(
    "access",
    "erasure",
    "correction",
    "portability",
    "restriction",
    "opt_out",
    "withdrawal",
    "objection",
    "limit_spi",
    "complaint",
    "appeal",
)
SHOWN_BY = one_of(
    "account_session",
    "direct_confirmation",
    "two_data_points",
    "three_data_points_declaration",
    "reauthentication",
)
WHY = one_of(
    "cancelled", "deleted", "denied", "erasure", "expired", "job_done", "lost", "restored", "withdrawn"
)
FORGOT = one_of("confirmed", "lapsed", "given_up")
RULE = text(rf"{CITATION}(?:; {CITATION}){{0,15}}", 400)
DECISION = text(r"(?:ALLOW|DENY)_[A-Z][A-Z0-9_]{1,60}")
PLACE = text(r"[a-z][a-z0-9_]{1,47}")
GIVEN_REASON = text(r"[A-Z][A-Z0-9_]{2,63}")
METHOD = text(rf"(?:{_SERVICES})Service/[A-Z][A-Za-z]{{1,39}}")
MONTH = text(r"[0-9]{4}-(?:0[1-9]|1[0-2])|open")
POLICY = listed(record({"id": PACK, "sha256": HEX32}))
MARKS: Mapping[str, Check] = MappingProxyType({"mark": listed(LAYER), "lack": listed(LAYER)})
KEPT = listed(record({"cls": CLASS, "rule": RULE}, {"until": MS}))


def REASON(value: Any) -> bool:  # noqa: N802 - a check like those above, made of two of them
    """Return whether `value` is a reason of the gateway or a denial of policy."""
    return isinstance(value, str) and (value in REASONS or (value.startswith("DENY_") and DECISION(value)))


def SEAL(value: Any) -> bool:  # noqa: N802 - likewise
    """Return whether `value` is a seal: `[token, class, commitment]` (`audit.seal`)."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and HEX16(value[0])
        and CLASS(value[1])
        and HEX32(value[2])
    )


COMMON: Mapping[str, Check] = MappingProxyType(
    {
        "v": number(1, 1),
        "ty": text(r"[a-z]{1,15}\.[a-z]{1,15}"),
        "id": HEX16,
        "t": MS,
        "n": HEX16,
        "act": ACTOR,
        # One per (subject, class) that the event has something to say of, opened elsewhere or erased.
        "seals": listed(SEAL, MAX_SEALS),
    }
)
"""The fields of every leaf."""

EVENTS: Mapping[str, Fields] = MappingProxyType(
    {
        # Somebody read the log: what was asked for, and how many leaves were shown.
        "audit.read": Fields({"mthd": METHOD, "nrow": COUNT}, {"from": SIZE, "to": SIZE}),
        "access.refused": Fields({"mthd": METHOD, "rc": REASON}),
        # A backup was made: the log of that moment, objects that are in it, and such as were gone by then.
        "backup.created": Fields(
            {"bkp": HEX16, "size": SIZE, "root": HEX32, "nobj": COUNT, "ngone": COUNT, "dig": HEX32}
        ),
        # A backup was restored, and what was ended since is ended again; nothing was served before this.
        "backup.restored": Fields(
            {
                # Which, of when, and how many events the log had then; later ones came from its files.
                "bkp": HEX16,
                "at": MS,
                "size": SIZE,
                # Erased subjects, keys that open nothing, objects, jobs and consents that were ended (again).
                "nsub": COUNT,
                "nkey": COUNT,
                "nobj": COUNT,
                "njob": COUNT,
                "ncon": COUNT,
                # Payloads and open requests that are lost; subjects restricted, since the log names no one.
                "nseal": COUNT,
                "ndsr": COUNT,
                "nres": COUNT,
            },
            # Facts of the controller whose values are lost, and entries of breaches whose words are.
            {"nfact": COUNT, "ninc": COUNT},
        ),
        "consent.recorded": Fields(
            {
                "con": HEX16,
                "pur": PURPOSE,
                "form": FORM,
                "flags": listed(one_of(*FLAGS, "signature")),
                "ntc": HEX16,
                "minor": one_of("own", "guardian"),
            },
            {"exp": MS},
        ),
        # Found never to have been valid.
        "consent.invalidated": Fields({"con": HEX16, "pur": PURPOSE}),
        # To be asked for anew, because of this version of its notice.
        "consent.renewal": Fields({"con": HEX16, "ntc": HEX16}),
        "consent.withdrawn": Fields({"con": HEX16, "pur": PURPOSE, "meth": one_of("api", "erasure")}),
        # A version of a training set: begun, a copy of a job's picture taken into it by virtue of a consent,
        # finished, an item removed (holders of a copy remove it, too), given out, ended.
        # `kind`: what is done about faces, as `image.scrubbed` says of the copy (not in older leaves).
        "dataset.created": Fields({"dst": HEX16, "ver": COUNT, "exp": MS}, {"kind": BARE}),
        "dataset.added": Fields(
            {"dst": HEX16, "itm": HEX16, "job": HEX16, "obj": HEX16, "con": HEX16}, {"kind": BARE}
        ),
        "dataset.completed": Fields({"dst": HEX16, "nobj": COUNT}),
        "dataset.reduced": Fields({"dst": HEX16, "itm": HEX16, "why": WHY}),
        "dataset.released": Fields({"dst": HEX16, "nobj": COUNT}),
        "dataset.expired": Fields({"dst": HEX16}),
        "decision.made": Fields(
            {
                "pur": PURPOSE,
                "dec": one_of("allow", "deny"),
                "rc": DECISION,
                "pol": POLICY,
                "packs": listed(PACK),
                "age": AGE,
                "minor": one_of("own", "guardian", "none"),
                "sig": listed(SIGNAL),
                "layer": one_of("legal", "house"),
                "cat": KIND,
            },
            {
                # The job that it permits, or the picture whose record it does.
                "job": HEX16,
                "obj": HEX16,
                "form": FORM,
                "flags": listed(FLAG),
                # The instant decided on, the deciding pack, the consents that the answer rests on.
                "at": MS,
                "law": PACK,
                "base": listed(HEX16),
                # Facts by code: known to hold, known not to; notices shown; rules for the young that bite
                # (`gdpr.0`); who receives; each consent for the purpose and what it is worth.
                "yes": listed(FACT),
                "no": listed(FACT),
                "told": listed(NOTICE),
                "under": listed(text(r"[a-z][a-z0-9_]{1,31}\.[0-9]{1,2}")),
                "rcp": record({}, {"role": ROLE, "land": LAND, "mech": MECHANISM}),
                "placed": DAY,
                "cons": listed(CONSIDERED),
            },
        ),
        # `rcp`: ids of the recipients that are to be told of it, beside the backends.
        "dsr.approved": Fields({"dsr": HEX16}, {"rcp": listed(HEX16)}),
        "dsr.cancelled": Fields({"dsr": HEX16}),
        # The time for an answer was extended: the reason, and the new last moment.
        "dsr.extended": Fields({"dsr": HEX16, "rc": GIVEN_REASON, "due": MS}),
        # A request other than an erasure was answered; of somebody who is gone, nothing was held.
        "dsr.fulfilled": Fields(
            {"dsr": HEX16, "out": one_of("complied", "complied_in_part", "nothing_held")}
        ),
        # A part of a request was refused, and why: pictures that are withheld, or purposes that go on.
        "dsr.partrefused": Fields(
            {"dsr": HEX16, "rc": GIVEN_REASON}, {"objs": listed(HEX16, 1000), "pur": listed(PURPOSE)}
        ),
        # A question to the subject stops the clock; its answer lets it go on, to a new last moment.
        "dsr.paused": Fields({"dsr": HEX16}),
        "dsr.resumed": Fields({"dsr": HEX16, "due": MS}),
        # A recipient was told of what a request changes, has acknowledged that, or is excused, and why.
        "dsr.propagated": Fields(
            {"dsr": HEX16, "rcp": HEX16, "out": one_of("told", "acknowledged", "excused")},
            {"why": one_of("impossible", "disproportionate", "not_appropriate", "never_received")},
        ),
        # `due`: last moment for the answer; `pol`: the rule books it is answered under.
        "dsr.received": Fields({"dsr": HEX16, "dkind": DSR_KIND, "reg": PACK}, {"due": MS, "pol": POLICY}),
        "dsr.refused": Fields({"dsr": HEX16, "rc": GIVEN_REASON}),
        # A check of identity: how, and whether it was shown; the last moment, where the law counts anew.
        "dsr.verified": Fields(
            {"dsr": HEX16, "meth": SHOWN_BY, "out": one_of("shown", "not_shown")}, {"due": MS}
        ),
        # The search after an erasure found something in these stores or tables: no certificate yet.
        "erasure.incomplete": Fields({"dsr": HEX16, "where": listed(PLACE)}),
        "export.created": Fields(
            {"from": SIZE, "to": SIZE, "size": SIZE, "root": HEX32},
            # `man`: SHA-256 of the manifest; `prev`: size of the export before it; `open`: classes disclosed.
            {"man": HEX32, "prev": SIZE, "open": listed(CLASS), "filt": one_of("all", "type", "time")},
        ),
        # After an erasure a backend confirmed that it forgot a job, or by its contract keeps nothing any more
        # (`lapsed`), or is given up, at the `ntry`th try.
        # Without `dsr` where the erasure was done again after a restore: then only its subject is known.
        "forget.ended": Fields({"bak": HEX16, "how": FORGOT, "ntry": COUNT}, {"dsr": HEX16}),
        # A legal hold on what is held of one subject; `dsr` where an open request asks for it.
        "hold.placed": Fields(
            {"hld": HEX16, "cls": listed(CLASS), "rule": RULE}, {"until": MS, "dsr": HEX16}
        ),
        # `rc`, here and below, is what an officer gave as the reason.
        "hold.released": Fields({"hld": HEX16, "why": one_of("released", "ended")}, {"rc": GIVEN_REASON}),
        # `kind`: what was taken out, metadata alone or heads, too; `mode`: whether pixels stayed coded as
        # they were (not in older leaves).  Faces found, heads masked, and how like the output a recogniser
        # holds the input to be (cosine in thousandths).
        "image.scrubbed": Fields(
            {
                "obj": HEX16,
                "kind": one_of("metadata", "bystanders", "landmarks", "redact"),
                "meas": counts(CODE),
            },
            {
                "mode": one_of("lossless", "canonical"),
                "nface": COUNT,
                "nhead": COUNT,
                "sim": SIMILARITY,
            },
        ),
        # A result carries a signed manifest: by which certificate (SHA-256), and what it says of its making.
        "image.marked": Fields({"obj": HEX16, "cert": HEX32, "src": SOURCE}),
        # What was found in the prompt of a job, and how often; `obj` is the picture that it came with.
        "prompt.scrubbed": Fields({"obj": HEX16, "job": HEX16, "ents": counts(ENTITY)}),
        # A breach as it was known then: kind, when it was noticed, packs that apply, whether the authorities
        # and the persons were told (`exempt`: need not be), the earliest end of a clock that runs.
        "incident.recorded": Fields(
            {
                "inc": HEX16,
                "ver": COUNT,
                "ikind": one_of(
                    "destruction", "loss", "alteration", "disclosure", "access", "unavailability"
                ),
                "at": MS,
                "packs": listed(PACK),
                "auth": one_of("open", "told", "exempt"),
                "subj": one_of("open", "told", "exempt"),
            },
            {"due": MS},
        ),
        "job.cancelled": Fields({"job": HEX16, "why": WHY}),
        # `kind`: what was done about faces, as `image.scrubbed` says of the picture (not in older leaves).
        "job.created": Fields(
            {"job": HEX16, "bak": HEX16, "pur": PURPOSE, "obj": HEX16}, {"kind": one_of("bystanders")}
        ),
        "job.deleted": Fields({"job": HEX16}),
        # Where the backend runs; the SHA-256 of what is promised of it; what it was sent, by kind (none of
        # these in older leaves).
        "job.dispatched": Fields(
            {"job": HEX16, "bak": HEX16}, {"land": REGION, "ctr": HEX32, "sent": listed(SENT)}
        ),
        "job.failed": Fields({"job": HEX16, "bak": HEX16, "rc": REASON}, {"det": DETAIL}),
        "job.stopping": Fields({"job": HEX16}),
        # `mark`, here and in `result.released`: layers of a mark that the packs demand; `lack`: those of them
        # without which the operator lets results go.
        "job.succeeded": Fields({"job": HEX16, "bak": HEX16, "obj": HEX16}, {"dig": HEX32, **MARKS}),
        # The abstract record of a picture was given out, or refused; what it says is nowhere in the log.
        "landmarks.released": Fields(
            {"obj": HEX16, "pur": one_of("analytics"), "nface": COUNT, "sim": SIMILARITY}
        ),
        "landmarks.refused": Fields({"obj": HEX16, "rc": REASON}, {"det": DETAIL}),
        # A witness (`wit`: ids of its keys) disputes our head of `size`: it knows a larger log, another root
        # of that size, or a past that ours does not continue, at `known`; or its cosignature is none.
        "log.disputed": Fields(
            {"why": one_of("ahead", "root", "proof", "lied"), "wit": listed(KEY_ID), "size": SIZE},
            {"known": SIZE},
        ),
        # Entries below `to` are not kept any more; their hashes are.
        # Subject keys were wrapped anew, and the epoch keys that wrapped them before destroyed.
        "key.rotated": Fields({"nkey": COUNT, "nepo": COUNT}, {"rc": GIVEN_REASON}),
        "log.pruned": Fields({"to": SIZE}),
        # Nothing is believed that these retired keys signed for a checkpoint of `from` leaves or more.
        "log.keyrevoked": Fields({"key": listed(KEY_ID), "from": SIZE, "rc": GIVEN_REASON}),
        # The keys of the log changed: key ids (C2SP, 8 hex) that signed until here and that sign from here.
        "log.rekeyed": Fields({"old": listed(KEY_ID), "new": listed(KEY_ID)}),
        # `dig`: SHA-256 of all that the version says.
        "notice.published": Fields({"ntc": HEX16, "pur": listed(PURPOSE)}, {"dig": HEX32}),
        "object.destroyed": Fields({"obj": HEX16, "cat": OBJECT, "why": WHY}),
        # A hold stops the destruction of an object (`why` it was due); no hold does any more.
        "object.held": Fields({"obj": HEX16, "cat": OBJECT, "hld": HEX16, "why": WHY}),
        "object.freed": Fields({"obj": HEX16, "cat": OBJECT}),
        # What it was made for has ended; from here on another consent is why it is kept.
        "object.kept": Fields({"obj": HEX16, "cat": KIND, "pur": PURPOSE, "con": HEX16}),
        # A package has no purpose of its own: it answers a request.
        "object.sealed": Fields({"obj": HEX16, "cat": OBJECT, "exp": MS}, {"pur": PURPOSE}),
        # A picture is in memory only, and gone by then: it is never stored.
        "object.transient": Fields({"obj": HEX16, "cat": KIND, "exp": MS, "pur": PURPOSE}),
        # The bytes of an object whose key is destroyed could not be removed, and are not tried any more.
        "object.stuck": Fields({"obj": HEX16, "rc": REASON, "ntry": COUNT}),
        # What answers a request for access or portability: which object it is, its size and SHA-256;
        # and that it was given out, whole or from a byte on.
        "package.made": Fields({"dsr": HEX16, "obj": HEX16, "dig": HEX32, "size": SIZE}),
        "package.released": Fields({"dsr": HEX16, "obj": HEX16}, {"from": SIZE}),
        # The keys and bytes of `nseal` payloads were destroyed: by an erasure, or because their term ended.
        "payload.erased": Fields({"nseal": COUNT}),
        "payload.expired": Fields({"cls": CLASS, "month": MONTH, "nseal": COUNT}),
        "record.expired": Fields({}, {"con": HEX16, "dsr": HEX16, "inc": HEX16}),
        # An officer had the sweeper come at once: objects that were due then, and debts taken up again.
        "retention.swept": Fields({"rc": GIVEN_REASON, "nobj": COUNT, "nowed": COUNT}),
        "result.released": Fields({"job": HEX16, "obj": HEX16}, MARKS),
        "signal.recorded": Fields({"sig": listed(SIGNAL)}),
        "subject.blocked": Fields({"dsr": HEX16}),
        "subject.erased": Fields(
            {
                "dsr": HEX16,
                "cls": listed(CLASS),
                "kept": KEPT,
                "nobj": COUNT,
                "ncon": COUNT,
                "njob": COUNT,
                "nkey": COUNT,
                # Jobs whose backend had not confirmed that it forgot them.
                "nowed": COUNT,
                "meth": one_of("key_destroyed_bytes_deleted"),
                "t1": MS,
                "opn": HEX32,
            },
            # Absent where copies of the keys lie outside our control: then no moment is promised.
            {"t2": MS},
        ),
        "subject.restricted": Fields({}),
        "subject.unrestricted": Fields({}),
        "subject.upserted": Fields({"age": AGE}),
        # Facts of the controller changed: which version, which facts; the codes of places that are new.
        "tenant.updated": Fields(
            {
                "ver": COUNT,
                "chg": listed(
                    one_of(
                        "name",
                        "contact",
                        "establishments",
                        "targets",
                        "time_zone",
                        "calendar",
                        "thresholds",
                        "is_training_on",
                        "recipients",
                    )
                ),
            },
            {"est": listed(LAND), "tgt": listed(LAND)},
        ),
        "upload.refused": Fields({"rc": REASON, "pur": PURPOSE}, {"det": DETAIL}),
    }
)
"""Event type to its own fields, beside the common ones."""
