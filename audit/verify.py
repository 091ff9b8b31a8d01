"""What an auditor runs, alone: the standard library and `cryptography`, no server, no configuration.

`python -m audit.verify DIR --trust FILE` exits with 0 (valid), 4 (not; the first
fault on stderr), 5 (consistent in itself, but no trust was given) or 2 (usage).  A
`.tlog-proof` in the place of the folder is verified as the proof of one event.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from audit import b64, canonical, derive, export, note, payloads, proof, ranges, schema, tree
from audit.certificate import CertificateReport, verify_certificate
from audit.checkpoint import Checkpoint
from audit.errors import (
    AuditError,
    CheckpointInconsistent,
    CheckpointInvalid,
    ExportInvalid,
    ProofInvalid,
    TrustInvalid,
)
from audit.folder import read_folder, read_trust_file
from audit.note import Verifier
from audit.payloads import Payload
from audit.single import ProofReport, verify_proof
from audit.trust import Trust, read_trust

__all__ = [
    "CertificateReport",
    "ProofReport",
    "Report",
    "main",
    "read_folder",
    "read_trust",
    "read_trust_file",
    "verify_certificate",
    "verify_export",
    "verify_proof",
]

MAX_SKEW_MS = 5_000
MAX_MANIFEST_BYTES = 64 << 20
MAX_CONSISTENCY_BYTES = 16 << 10
EXIT_CODES = {"valid": 0, "invalid": 4, "untrusted": 5}
_USAGE = 2
_PATH = re.compile(r"[A-Za-z0-9._/-]{1,200}", re.ASCII)
_ALWAYS = (
    export.CHECKPOINT,
    export.ENTRIES,
    export.PAYLOADS,
    export.CONSISTENCY,
    export.KEYS,
    export.POLICY,
    export.GUIDE,
)
_BY_KIND = {
    "range": (export.LEFT_EDGE, export.RIGHT_EDGE),
    "events": (export.INDICES,),
    "hashes": (export.LEFT_EDGE, export.RIGHT_EDGE, export.INDICES, export.LEAF_HASHES),
}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_MANIFEST = schema.Fields(
    {
        "format": schema.text(".*"),
        "generator": schema.text(".*"),
        "origin": lambda value: isinstance(value, str),
        "size": schema.SIZE,
        "root": schema.HEX32,
        "from": schema.SIZE,
        "to": schema.SIZE,
        "kind": schema.one_of(*export.KINDS),
        "complete": lambda value: isinstance(value, bool),
        "filter": _is_object,
        "entries": schema.SIZE,
        "counts": _is_object,
        "payloads": _is_object,
        "disclosed": schema.listed(schema.CLASS),
        "recipient": schema.CODE,
        "purpose": schema.CODE,
        "controller": _is_object,
        "backends": _is_object,
        "files": lambda value: isinstance(value, dict) and all(map(schema.HEX32, value.values())),
    },
    {"expires_ms": schema.MS},
)
_GROWTH = schema.Fields(
    {
        "from": schema.SIZE,
        "to": schema.SIZE,
        "root": schema.HEX32,
        "hashes": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    }
)


@dataclass(frozen=True, slots=True)
class Report:
    """What an export is worth.

    Attributes:
        verdict: `untrusted` says that it is consistent in itself and that nobody knows whose it is.
        fault: The first fault, a sentence that begins with its code; empty where there is none.
        size: Of the log at the export's checkpoint.
        root: In hex.
        start: Index of the first leaf of the range.
        end: Index after its last.
        kind: `range`, `events` or `hashes`.
        complete: Whether it shows that no leaf of the range is missing.
        counts: Number of events by type.
        payloads: Number of payloads by class and state.
        continues: Size of the log from which it is shown to have grown; 0 is nothing.
        expires_ms: When the recipient must have destroyed it, or None.
        unchecked: Derived files whose content could not be made again here, and a timestamp, which needs
            the certificates of its authority.
    """

    verdict: Literal["valid", "invalid", "untrusted"]
    fault: str = ""
    origin: str = ""
    size: int = 0
    root: str = ""
    start: int = 0
    end: int = 0
    kind: str = ""
    complete: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    payloads: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    continues: int = 0
    recipient: str = ""
    purpose: str = ""
    expires_ms: int | None = None
    unchecked: tuple[str, ...] = ()


def verify_export(
    files: Mapping[str, bytes], trust: str | None, previous: Mapping[str, bytes] | None = None
) -> Report:
    """Return what an export is worth, by the keys of `trust`.

    Without trust the export's own keys are used and the verdict is at best
    `untrusted`: whoever forges an export forges its keys too.

    Args:
        files: Content by path, as `read_folder` gives it.
        trust: Text of a trust file (`read_trust`), or None.
        previous: The export that the auditor had before; of it only the checkpoint is used.

    Raises:
        TrustInvalid: No key can be taken from `trust`.
    """
    believed = None if trust is None else read_trust(trust)
    try:
        if believed is not None:
            return _verify(files, believed, previous)
        return replace(_verify(files, read_trust(_text(files, export.KEYS)), previous), verdict="untrusted")
    except AuditError as error:
        return Report("invalid", str(error))


def _verify(files: Mapping[str, bytes], trust: Trust, previous: Mapping[str, bytes] | None) -> Report:
    """Return the report on an export in which nothing is wrong.

    The steps, in this order, so that the first fault is the most telling one:
        (1) The manifest is signed by a known key, and lists every file as it is.
        (2) The checkpoint is all that the trust asks for, and the manifest is about it.
        (3) The entries are leaves, at their places under the checkpoint's root.
        (4) The entries do not contradict each other: ids, times.
        (5) The rule books that decisions name are there.
        (6) Each payload is opened, erased by a leaf that says so, or withheld.
        (7) The log grew from the tree of the export before.
        (8) The keys and the policy in it fit.
        (9) Whatever is derived is what deriving it again gives, the manifest too.
    """
    # (1)
    stated, signer = _manifest(files, trust)
    _check_listing(files, stated)
    # (2)
    head = trust.open(_text(files, export.CHECKPOINT))
    _check_head(stated, head, trust, signer)
    span = export.Span(
        head, stated["from"], stated["to"], stated["kind"], export.Filter.parse(stated["filter"])
    )
    # (3)
    reading = export.read(export.exported(files))
    source = export.Source(span, reading, _facts(stated), _text(files, export.CHECKPOINT), ())
    export.check_places(reading, span)
    source = _placed(files, source)
    # (4)
    _check_events(reading)
    # (5)
    allowed = _check_packs(files, reading)
    # (6)
    terms = _terms(stated)
    tally, others = _check_payloads(files, source, trust, terms)
    allowed |= others
    # (7)
    before = _growth(_content(files, export.CONSISTENCY), head)
    if previous is not None:
        _check_previous(previous, trust, before, source)
    # (8)
    keys, policy = _text(files, export.KEYS), _text(files, export.POLICY)
    _check_own(source.note, keys, policy, head, trust)
    source = replace(source, vkeys=export.signing_keys(source.note, keys, signer))
    # (9)
    unchecked = derive.check(files, source, trust.verifiers)
    allowed |= {*_ALWAYS, *_BY_KIND[span.kind], *export.DERIVED, export.TIMESTAMP}
    if export.TIMESTAMP in files:
        unchecked = (*unchecked, export.TIMESTAMP)
    if span.kind == "events":
        allowed |= {export.proof_path(index) for index in reading.indices}
    _check_manifest(files, stated, export.manifest(span, reading, tally, terms, source.facts, _listed(files)))
    for path in sorted(_listed(files).keys() - allowed):
        raise ExportInvalid("file_unknown", f"{_shown(path)} is no file of this export")
    return Report(
        "valid",
        "",
        head.origin,
        head.size,
        head.root.hex(),
        span.start,
        span.end,
        span.kind,
        stated["complete"],
        reading.counts(),
        tally,
        before.size,
        terms.recipient,
        terms.purpose,
        terms.expires_ms,
        unchecked,
    )


# (1)
def _manifest(files: Mapping[str, bytes], trust: Trust) -> tuple[dict[str, Any], Verifier]:
    """Return what the manifest states and the key that signed it; the signature is the only one."""
    content = _content(files, export.MANIFEST)
    signature = _text(files, export.SIGNATURE)
    body, signed = note.open_note(signature, trust.verifiers)
    value = canonical.parse(content, MAX_MANIFEST_BYTES)
    if not isinstance(value, dict):
        raise ExportInvalid("manifest_malformed", "manifest.json is not an object")
    if value.get("format") != export.FORMAT:
        raise ExportInvalid("manifest_format", f"not of the format {export.FORMAT}")
    fault = _MANIFEST.fault(value)
    if fault:
        raise ExportInvalid("manifest_malformed", f"manifest.json is not of this format ({fault})")
    if body != export.statement(value["origin"], content):
        raise ExportInvalid("manifest_signature", "manifest.sig is over another manifest")
    if len(note.parse(signature)[1]) != 1:
        raise ExportInvalid("manifest_signatures", "manifest.sig has more than one signature")
    if signed[0].name != value["origin"]:
        raise CheckpointInvalid("manifest_key_name", "no key of the origin's name has signed the manifest")
    return value, signed[0]


def _check_listing(files: Mapping[str, bytes], stated: Mapping[str, Any]) -> None:
    found, listed = _listed(files), stated["files"]
    for path in sorted(found.keys() | listed.keys()):
        if path not in listed:
            raise ExportInvalid("file_unlisted", f"{_shown(path)} is not in the manifest")
        if path not in found:
            raise ExportInvalid("file_missing", f"{_shown(path)} is in the manifest and not there")
        if hashlib.sha256(files[path]).hexdigest() != listed[path]:
            raise ExportInvalid("file_changed", f"{_shown(path)} is not what the manifest says")
    for path in (*_ALWAYS, *_BY_KIND[stated["kind"]]):
        _content(files, path)


# (2)
def _check_head(stated: Mapping[str, Any], head: Checkpoint, trust: Trust, signer: Verifier) -> None:
    if stated["origin"] != head.origin:
        raise ExportInvalid("export_origin", "the manifest and the checkpoint are of different logs")
    if stated["size"] != head.size:
        raise ExportInvalid("manifest_size", "the manifest states another size than the checkpoint")
    if stated["root"] != head.root.hex():
        raise ExportInvalid("manifest_root", "the manifest states another root than the checkpoint")
    trust.book.check_signer(signer, head.size)


def _facts(stated: Mapping[str, Any]) -> export.Facts:
    return export.Facts.parse(stated["controller"], stated["backends"])


def _terms(stated: Mapping[str, Any]) -> export.Terms:
    return export.Terms(
        recipient=stated["recipient"],
        purpose=stated["purpose"],
        generator=stated["generator"],
        disclosed=tuple(stated["disclosed"]),
        expires_ms=stated.get("expires_ms"),
    )


# (3)
def _placed(files: Mapping[str, bytes], source: export.Source) -> export.Source:
    """Return the source with the hashes around the entries, once these are under the checkpoint's root."""
    span, reading = source.span, source.reading
    if span.kind == "events":
        for index, line in zip(reading.indices, reading.lines, strict=True):
            _check_proof(files, index, source.note, span.head, line)
        return source
    left = ranges.parse(_content(files, export.LEFT_EDGE), 0, span.start)
    right = ranges.parse(_content(files, export.RIGHT_EDGE), span.end, span.head.size)
    hashes: tuple[bytes, ...] = ()
    if span.kind == "hashes":
        hashes = tuple(ranges.parse_leaves(_content(files, export.LEAF_HASHES), span.end - span.start))
        export.check_selected(reading, hashes, span.start)
    export.check_root(span, left, hashes or reading.hashes, right)
    return replace(source, left=left, right=right, hashes=hashes)


def _check_proof(
    files: Mapping[str, bytes], index: int, under: str, head: Checkpoint, line: bytes | None
) -> bytes:
    """Return the leaf of a proof that hangs on the note `under`; it is `line`, where that is given."""
    path = export.proof_path(index)
    found = proof.parse(_text(files, path))
    if found.index != index:
        raise ProofInvalid("proof_index", f"{path} is of another place in the log")
    if found.checkpoint != under:
        raise ProofInvalid("proof_checkpoint", f"{path} hangs on another checkpoint")
    if found.extra is None or (line is not None and found.extra != line):
        raise ProofInvalid("proof_leaf", f"{path} carries another leaf")
    try:
        return proof.check(found, head, None)
    except ProofInvalid as error:
        raise ProofInvalid(error.code, f"{path} does not lead from its leaf to the root") from None


# (4)
def _check_events(reading: export.Reading) -> None:
    seen: set[str] = set()
    latest = 0
    for index, event in reading.placed():
        if event["id"] in seen:
            raise ExportInvalid("event_id_twice", f"entry {index} has the id of one before it")
        seen.add(event["id"])
        if event["t"] < latest - MAX_SKEW_MS:
            raise ExportInvalid("event_time", f"entry {index} lags by more than 5 s behind one before it")
        latest = max(latest, event["t"])


# (5)
def _check_packs(files: Mapping[str, bytes], reading: export.Reading) -> set[str]:
    paths: set[str] = set()
    for digest in sorted(reading.packs()):
        path = export.policy_path(digest)
        if hashlib.sha256(_content(files, path)).hexdigest() != digest:
            raise ExportInvalid("pack_differs", "a rule book differs from the digest that decisions name")
        paths.add(path)
    return paths


# (6)
def _check_payloads(
    files: Mapping[str, bytes], source: export.Source, trust: Trust, terms: export.Terms
) -> tuple[dict[str, dict[str, int]], set[str]]:
    """Return how many payloads there are by class and state, and the files that this took."""
    lines = export.split_lines(_content(files, export.PAYLOADS), export.PAYLOADS)
    parsed = list(map(payloads.parse, lines))
    beyond = _beyond(parsed, source.reading)
    others, used = _erasing_leaves(files, beyond, source, trust)
    find = export.finder(source.reading, others)
    found = [payload for payload, _ in parsed]
    return payloads.check(found, source.reading.placed(), find, terms.disclosed), used


def _beyond(parsed: Sequence[tuple[Payload, str]], reading: export.Reading) -> list[int]:
    """Return the places of erasing leaves that are not among the entries; each has its proof named."""
    own = set(reading.indices)
    beyond: set[int] = set()
    for payload, path in parsed:
        if payload.state != "erased":
            continue
        if path != ("" if payload.by in own else export.proof_path(payload.by)):
            raise ExportInvalid(
                "payload_proof", f"entry {payload.index}: the proof of what erased is not named"
            )
        if path:
            beyond.add(payload.by)
    return sorted(beyond)


def _erasing_leaves(
    files: Mapping[str, bytes], places: Sequence[int], source: export.Source, trust: Trust
) -> tuple[dict[int, bytes], set[str]]:
    head = source.span.head
    used = {export.proof_path(index) for index in places}
    under = {True: (source.note, head)}
    if places and places[-1] >= head.size:
        later = _text(files, export.LATER)
        under[False] = (later, _later(files, later, head, trust))
        used |= {export.LATER, export.LATER_CONSISTENCY}
    return {index: _check_proof(files, index, *under[index < head.size], None) for index in places}, used


def _later(files: Mapping[str, bytes], later: str, head: Checkpoint, trust: Trust) -> Checkpoint:
    """Return the later checkpoint, once the log is seen to have grown to it."""
    grown = trust.open(later)
    if grown.origin != head.origin or grown.size <= head.size:
        raise ExportInvalid("later_size", "the later checkpoint is of another log, or not larger")
    if _growth(_content(files, export.LATER_CONSISTENCY), grown) != head:
        raise ExportInvalid("later_consistency", "the later checkpoint's proof begins at another tree")
    return grown


# (7)
def _growth(content: bytes, head: Checkpoint) -> Checkpoint:
    """Return the tree from which the log is shown to have grown to `head`."""
    value = canonical.parse(content, MAX_CONSISTENCY_BYTES)
    if not isinstance(value, dict) or _GROWTH.fault(value) or canonical.encode(value) + b"\n" != content:
        raise ExportInvalid("consistency_malformed", "a consistency proof is not of this format")
    if value["to"] != head.size:
        raise ExportInvalid("consistency_size", "a consistency proof leads to another size")
    before = Checkpoint(head.origin, value["from"], bytes.fromhex(value["root"]))
    tree.verify_consistency(
        first=before.size,
        second=head.size,
        first_root=before.root,
        second_root=head.root,
        proof=[b64.decode(item) or b"" for item in value["hashes"]],
    )
    return before


def _check_previous(
    previous: Mapping[str, bytes], trust: Trust, before: Checkpoint, source: export.Source
) -> None:
    """Return if the log grew from the checkpoint of the previous export.

    Either the consistency proof begins there, or the leaf hashes here span it.
    """
    known = trust.open(_text(previous, export.CHECKPOINT))
    span = source.span
    if known.origin != span.head.origin:
        raise CheckpointInconsistent("previous_origin", "the previous export is of another log")
    if known.size > span.head.size:
        raise CheckpointInconsistent("previous_size", "the log was larger at the previous export")
    if known.size == before.size:
        root = before.root
    elif known.size == span.head.size:
        root = span.head.root
    elif span.kind != "events" and span.start <= known.size <= span.end:
        hashes = (source.hashes or source.reading.hashes)[: known.size - span.start]
        root = ranges.root(span.start, source.left, hashes, known.size, ())
    else:
        raise CheckpointInconsistent("previous_gap", "nothing here begins where the previous export ended")
    if root != known.root:
        raise CheckpointInconsistent("previous_root", "the log is not the one of the previous export")


# (8)
def _check_own(checkpoint: str, keys: str, policy: str, head: Checkpoint, trust: Trust) -> None:
    """Return if the export's own keys and policy fit its checkpoint, and name a key that is trusted."""
    if not any(key in trust.verifiers and key.name == head.origin for key in read_trust(keys)):
        raise ExportInvalid("keys_differ", "keys.txt does not name the key that signed")
    export.vouched(checkpoint, keys, policy)


# (9)
def _check_manifest(files: Mapping[str, bytes], stated: Mapping[str, Any], made: bytes) -> None:
    expected = canonical.parse(made, MAX_MANIFEST_BYTES)
    for name in sorted(stated.keys() | expected.keys()):
        if name not in stated or name not in expected or not _same(stated[name], expected[name]):
            raise ExportInvalid(f"manifest_{name}", "the manifest does not say what the files give")
    if files[export.MANIFEST] != made:
        raise ExportInvalid("manifest_not_canonical", "manifest.json is not in its canonical form")


def _same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are the same; `True == 1` in Python and not here."""
    return canonical.encode(left) == canonical.encode(right)


def _listed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files that a manifest lists: all but itself and its signature."""
    return {
        path: content for path, content in files.items() if path not in {export.MANIFEST, export.SIGNATURE}
    }


def _content(files: Mapping[str, bytes], path: str) -> bytes:
    if path not in files:
        raise ExportInvalid("file_missing", f"{path} is not there")
    return files[path]


def _text(files: Mapping[str, bytes], path: str) -> str:
    try:
        return _content(files, path).decode()
    except UnicodeDecodeError:
        raise ExportInvalid("file_not_text", f"{path} is not UTF-8") from None


def _shown(path: str) -> str:
    """Return a name for a terminal: one that someone else chose may hold anything."""
    return path if _PATH.fullmatch(path) else "a file with an odd name"


def main(argv: Sequence[str] | None = None) -> int:
    """Verify an export, or the proof of one event, on disk; print what it is, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m audit.verify", description="Verify an audit export, or a .tlog-proof, offline."
    )
    parser.add_argument("path", metavar="DIR|FILE", type=Path, help="the export, or the proof of one event")
    parser.add_argument(
        "--trust", metavar="FILE", type=Path, help="the log's verifier keys, obtained elsewhere"
    )
    parser.add_argument("--previous", metavar="DIR", type=Path, help="the export you had before")
    wanted = parser.parse_args(argv)
    folders = [path for path in (wanted.path, wanted.previous) if path and path.is_dir()]
    report: Report | ProofReport
    try:
        trust = read_trust_file(wanted.trust, *folders) if wanted.trust else None
        if trust is not None:
            read_trust(trust)  # wrong usage is said before anything about the export is
        if wanted.path.is_file():
            report = verify_proof(wanted.path.read_bytes().decode(errors="replace"), trust)
        else:
            report = verify_export(*_folders(wanted.path, trust, wanted.previous))
    except ExportInvalid as error:
        report = Report("invalid", str(error))
    except OSError as error:
        return _complain(f"unreadable: {type(error).__name__}", _USAGE)
    except TrustInvalid as error:
        return _complain(str(error), _USAGE)
    sys.stdout.write(json.dumps(asdict(report), sort_keys=True) + "\n")
    if report.verdict == "untrusted":
        return _complain(
            "no_trust: consistent in itself, but nobody vouches for its keys", EXIT_CODES["untrusted"]
        )
    return _complain(report.fault, EXIT_CODES[report.verdict])


def _folders(
    folder: Path, trust: str | None, previous: Path | None
) -> tuple[dict[str, bytes], str | None, dict[str, bytes] | None]:
    return read_folder(folder), trust, read_folder(previous) if previous else None


def _complain(what: str, code: int) -> int:
    if what:
        sys.stderr.write(f"{what}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
