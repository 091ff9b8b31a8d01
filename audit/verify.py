"""What an auditor runs, alone: the standard library and `cryptography`, no server, no configuration.

`python -m audit.verify DIR --trust FILE` exits with 0 (valid), 4 (not; the first
fault on stderr), 5 (consistent in itself, but no trust was given) or 2 (usage).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from audit import canonical, export, note
from audit.certificate import CertificateReport, verify_certificate
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.errors import AuditError, CheckpointInvalid, ExportInvalid, TrustInvalid
from audit.folder import read_folder
from audit.note import Verifier
from audit.trust import read_trust

__all__ = [
    "CertificateReport",
    "Report",
    "main",
    "read_folder",
    "read_trust",
    "verify_certificate",
    "verify_export",
]

MAX_SKEW_MS = 5_000
MAX_MANIFEST_BYTES = 64 << 20
EXIT_CODES = {"valid": 0, "invalid": 4, "untrusted": 5}
_USAGE = 2
_PATH = re.compile(r"[A-Za-z0-9._/-]{1,200}", re.ASCII)
_FIELDS = frozenset({"format", "origin", "from", "to", "size", "root", "counts", "files"})
_ALWAYS = (
    export.CHECKPOINT,
    export.ENTRIES,
    export.PAYLOADS,
    export.RIGHT_EDGE,
    export.CONSISTENCY,
    export.KEYS,
    export.POLICY,
    export.EVENTS_CSV,
    export.GUIDE,
)


@dataclass(frozen=True, slots=True)
class Report:
    """What an export is worth.

    Attributes:
        verdict: `untrusted` says that it is consistent in itself and that nobody knows whose it is.
        fault: The first fault, a sentence that begins with its code; empty where there is none.
        root: In hex.
        counts: Number of events by type.
    """

    verdict: Literal["valid", "invalid", "untrusted"]
    fault: str = ""
    origin: str = ""
    size: int = 0
    root: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


def verify_export(files: Mapping[str, bytes], trust: str | None) -> Report:
    """Return what an export is worth, by the keys of `trust`.

    Without trust the export's own keys are used and the verdict is at best
    `untrusted`: whoever forges an export forges its keys too.

    Args:
        files: Content by path, as `read_folder` gives it.
        trust: Text of a trust file (`read_trust`), or None.

    Raises:
        TrustInvalid: No key can be taken from `trust`.
    """
    verifiers = None if trust is None else read_trust(trust)
    try:
        head, reading = _verify(files, _own_keys(files) if verifiers is None else verifiers)
    except AuditError as error:
        return Report("invalid", str(error))
    verdict: Literal["valid", "untrusted"] = "valid" if verifiers else "untrusted"
    return Report(verdict, "", head.origin, head.size, head.root.hex(), reading.counts())


def _own_keys(files: Mapping[str, bytes]) -> Sequence[Verifier]:
    return read_trust(_text(files, export.KEYS))


def _verify(files: Mapping[str, bytes], verifiers: Sequence[Verifier]) -> tuple[Checkpoint, export.Reading]:
    """Return the head and the entries of an export in which nothing is wrong.

    The steps, in this order, so that the first fault is the most telling one:
        (1) The manifest is signed by a known key, and lists every file as it is.
        (2) The checkpoint is signed by a known key of the origin's name.
        (3) The entries are leaves, and have the checkpoint's size and root.
        (4) The entries do not contradict each other: ids, times.
        (5) The rule books that decisions name are there.
        (6) Whatever is derived is what deriving it again gives, the manifest too.
    """
    # (1)
    manifest = _manifest(files, verifiers)
    _check_listing(files, manifest)
    # (2)
    head = open_checkpoint(_text(files, export.CHECKPOINT), verifiers)
    if head.origin != manifest["origin"]:
        raise ExportInvalid("export_origin", "the manifest and the checkpoint are of different logs")
    # (3)
    reading = export.read(_entries(files[export.ENTRIES]))
    export.confirm(reading, head)
    # (4)
    _check_events(reading)
    # (5)
    packs = _check_packs(files, reading)
    # (6)
    _check_derived(files, head, reading, verifiers)
    unknown = files.keys() - {*_ALWAYS, *packs, export.MANIFEST, export.SIGNATURE}
    if unknown:
        raise ExportInvalid("file_unknown", f"{_shown(min(unknown))} is no file of this format")
    return head, reading


# (1)
def _manifest(files: Mapping[str, bytes], verifiers: Sequence[Verifier]) -> dict[str, Any]:
    content = _present(files, export.MANIFEST)
    body, signed = note.open_note(_text(files, export.SIGNATURE), verifiers)
    value = canonical.parse(content, MAX_MANIFEST_BYTES)
    if not isinstance(value, dict) or value.keys() != _FIELDS or not isinstance(value["origin"], str):
        raise ExportInvalid("manifest_malformed", "manifest.json has not the fields of this format")
    if value["format"] != export.FORMAT:
        raise ExportInvalid("manifest_format", "another version of the format")
    if body != export.statement(value["origin"], content):
        raise ExportInvalid("manifest_signature", "manifest.sig is over another manifest")
    if not any(verifier.name == value["origin"] for verifier in signed):
        raise CheckpointInvalid("manifest_key_name", "no key of the origin's name has signed the manifest")
    return value


def _check_listing(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    listed = manifest["files"]
    if not isinstance(listed, dict):
        raise ExportInvalid("manifest_malformed", "the list of files is none")
    found = files.keys() - {export.MANIFEST, export.SIGNATURE}
    for path in sorted(found | listed.keys()):
        if path not in listed:
            raise ExportInvalid("file_unlisted", f"{_shown(path)} is not in the manifest")
        if path not in found:
            raise ExportInvalid("file_missing", f"{_shown(path)} is in the manifest and not there")
        if hashlib.sha256(files[path]).hexdigest() != listed[path]:
            raise ExportInvalid("file_changed", f"{_shown(path)} is not what the manifest says")
    for path in _ALWAYS:
        _present(files, path)


# (3)
def _entries(content: bytes) -> list[bytes]:
    if not content:
        return []
    if not content.endswith(b"\n"):
        raise ExportInvalid("entries_truncated", "the last entry has no line end")
    return content[:-1].split(b"\n")


# (4)
def _check_events(reading: export.Reading) -> None:
    seen: set[str] = set()
    latest = 0
    for index, event in enumerate(reading.events):
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
        if hashlib.sha256(_present(files, path)).hexdigest() != digest:
            raise ExportInvalid("pack_differs", "a rule book differs from the digest that decisions name")
        paths.add(path)
    return paths


# (6)
def _check_derived(
    files: Mapping[str, bytes], head: Checkpoint, reading: export.Reading, verifiers: Sequence[Verifier]
) -> None:
    listed = {
        path: content for path, content in files.items() if path not in {export.MANIFEST, export.SIGNATURE}
    }
    derived = {
        export.PAYLOADS: b"",
        export.RIGHT_EDGE: export.right_edge(reading.frontier),
        export.CONSISTENCY: export.consistency(head.size),
        export.EVENTS_CSV: export.table(reading),
        export.MANIFEST: export.manifest(head, reading, listed),
    }
    for path, content in derived.items():
        if files[path] != content:
            raise ExportInvalid("derived_differs", f"{path} is not what the entries give")
    named = _own_keys(files)
    known = [key for key in named if key in verifiers and key.name == head.origin]
    if not known:
        raise ExportInvalid("keys_differ", "keys.txt does not name the key that signed")
    if files[export.POLICY] not in {export.trust_policy(key) for key in known}:
        raise ExportInvalid("derived_differs", "policy.txt does not name the key that signed")


def _present(files: Mapping[str, bytes], path: str) -> bytes:
    if path not in files:
        raise ExportInvalid("file_missing", f"{path} is not there")
    return files[path]


def _text(files: Mapping[str, bytes], path: str) -> str:
    try:
        return _present(files, path).decode()
    except UnicodeDecodeError:
        raise ExportInvalid("file_not_text", f"{path} is not UTF-8") from None


def _shown(path: str) -> str:
    """Return a name for a terminal: one that someone else chose may hold anything."""
    return path if _PATH.fullmatch(path) else "a file with an odd name"


def main(argv: Sequence[str] | None = None) -> int:
    """Verify an export on disk; print what it is, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m audit.verify", description="Verify an audit export, offline."
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="the export")
    parser.add_argument(
        "--trust", metavar="FILE", type=Path, help="the log's verifier keys, obtained elsewhere"
    )
    wanted = parser.parse_args(argv)
    try:
        trust = wanted.trust.read_text(encoding="utf-8") if wanted.trust else None
        if trust is not None:
            read_trust(trust)  # wrong usage is said before anything about the export is
        report = verify_export(read_folder(wanted.folder), trust)
    except ExportInvalid as error:
        report = Report("invalid", str(error))
    except (OSError, UnicodeDecodeError) as error:
        return _complain(f"unreadable: {type(error).__name__}", _USAGE)
    except TrustInvalid as error:
        return _complain(str(error), _USAGE)
    sys.stdout.write(json.dumps(asdict(report), sort_keys=True) + "\n")
    if report.verdict == "untrusted":
        return _complain(
            "no_trust: consistent in itself, but nobody vouches for its keys", EXIT_CODES["untrusted"]
        )
    return _complain(report.fault, EXIT_CODES[report.verdict])


def _complain(what: str, code: int) -> int:
    if what:
        sys.stderr.write(f"{what}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
