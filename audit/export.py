"""Exports: a folder that an auditor verifies without us (decision 0016, docs/reference/export.md)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import pairwise
from typing import Any, Literal

from audit import b64, canonical, leaf, payloads, proof, ranges, schema, tiles, tree
from audit.checkpoint import Checkpoint, open_signed
from audit.errors import AuditError, CheckpointInconsistent, ExportInvalid, ProofInvalid
from audit.note import KeyType, Signer, Verifier
from audit.payloads import Payload
from audit.trust import read_trust
from audit.views.rows import Controller

FORMAT = "lethe.dev/audit-export/v2"

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
CHECKPOINT, ENTRIES, PAYLOADS = "checkpoint", "entries.jsonl", "payloads.jsonl"
LEFT_EDGE, RIGHT_EDGE = "proofs/left-edge", "proofs/right-edge"
INDICES, LEAF_HASHES = "proofs/indices", "proofs/leaf-hashes"
LATER, LATER_CONSISTENCY = "proofs/later-checkpoint", "proofs/later-consistency"
CONSISTENCY, KEYS, POLICY, GUIDE = "consistency", "keys.txt", "policy.txt", "VERIFY.md"
TIMESTAMP = "checkpoint.tsr"
"""An authority's timestamp over the checkpoint, where there is one; it takes its certificates to verify."""
DERIVED = frozenset(
    {"article30.csv", "article30.json", "events.csv", "events.parquet", "ocsf.jsonl", "report.html"}
)
"""Files that are made of the others and prove nothing by themselves."""

# A reader of folders takes 10,000 files.
MAX_PROOFS = 8_000
MAX_BACKENDS = 1_000
MAX_FACT_CHARS = 1_000

Kind = Literal["range", "events", "hashes"]
KINDS = ("range", "events", "hashes")
_GENERATOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,63}", re.ASCII)
_PROOF_PATH = re.compile(r"proofs/(?:0|[1-9][0-9]{0,18})\.tlog-proof", re.ASCII)
_CLASSES = schema.listed(schema.CLASS)
_FILTER = schema.Fields(
    {},
    {
        "types": schema.listed(schema.one_of(*schema.EVENTS)),
        "from_ms": schema.MS,
        "until_ms": schema.MS,
    },
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events of a range were asked for; one that says nothing asks for all.

    Attributes:
        types: Event types; none means any.
        from_ms: The first instant of events, or None.
        until_ms: The first instant that is too late, or None.
    """

    types: tuple[str, ...] = ()
    from_ms: int | None = None
    until_ms: int | None = None

    def __post_init__(self) -> None:
        fault = _FILTER.fault(self.value())
        if fault:
            raise ExportInvalid("manifest_filter", f"no filter of this format ({fault})")

    def admits(self, event: Mapping[str, Any]) -> bool:
        """Return whether the event is one of those asked for."""
        if self.types and event["ty"] not in self.types:
            return False
        if self.from_ms is not None and event["t"] < self.from_ms:
            return False
        return self.until_ms is None or event["t"] < self.until_ms

    def value(self) -> dict[str, Any]:
        """Return what the manifest says."""
        stated = {"types": list(self.types), "from_ms": self.from_ms, "until_ms": self.until_ms}
        return {name: item for name, item in stated.items() if item not in (None, [])}

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Filter:
        """Return what a manifest says.

        Raises:
            ExportInvalid: It is no filter.
        """
        fault = _FILTER.fault(value)
        if fault:
            raise ExportInvalid("manifest_filter", f"no filter of this format ({fault})")
        return cls(tuple(value.get("types", ())), value.get("from_ms"), value.get("until_ms"))


@dataclass(frozen=True, slots=True)
class Terms:
    """For whom an export is, and on what terms.

    Attributes:
        recipient: A code for who receives it, never a person.
        purpose: A code for what it is for.
        generator: Name and version of what made it.
        disclosed: Classes whose payloads the recipient may read, sorted.
        expires_ms: When the recipient must have destroyed it; needed where a class is disclosed.
    """

    recipient: str
    purpose: str
    generator: str
    disclosed: tuple[str, ...] = ()
    expires_ms: int | None = None

    def __post_init__(self) -> None:
        if not schema.CODE(self.recipient) or not schema.CODE(self.purpose):
            raise ExportInvalid("terms_code", "recipient and purpose are codes")
        if not _GENERATOR.fullmatch(self.generator):
            raise ExportInvalid("terms_generator", "the generator is a name and a version")
        if not _CLASSES(self.disclosed) or list(self.disclosed) != sorted(self.disclosed):
            raise ExportInvalid("terms_disclosed", "what is disclosed is a sorted list of classes")
        if self.expires_ms is not None and not schema.MS(self.expires_ms):
            raise ExportInvalid("terms_expiry", "the expiry is not a number of milliseconds")
        if self.disclosed and self.expires_ms is None:
            raise ExportInvalid("terms_expiry", "what discloses payloads must expire")

    def value(self) -> dict[str, Any]:
        """Return what the manifest says."""
        stated: dict[str, Any] = {
            "recipient": self.recipient,
            "purpose": self.purpose,
            "generator": self.generator,
            "disclosed": list(self.disclosed),
        }
        return stated if self.expires_ms is None else stated | {"expires_ms": self.expires_ms}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the operator adds in words, for the derived files; no leaf bears it out.

    Attributes:
        controller: Who answers for the processing.
        backends: Names of backends by the id that leaves give them.
    """

    controller: Controller = field(default_factory=Controller)
    backends: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(map(_is_fact, asdict(self.controller).values())):
            raise ExportInvalid("facts_controller", "a fact of the controller is not text, or too long")
        named = self.backends.items()
        if len(named) > MAX_BACKENDS or not all(schema.HEX16(key) and _is_fact(name) for key, name in named):
            raise ExportInvalid("facts_backends", "backends are names by id")

    def value(self) -> dict[str, Any]:
        """Return what the manifest says."""
        stated = {name: fact for name, fact in asdict(self.controller).items() if fact}
        return {"controller": stated, "backends": dict(self.backends)}

    @classmethod
    def parse(cls, controller: Mapping[str, Any], backends: Mapping[str, Any]) -> Facts:
        """Return what a manifest says.

        Raises:
            ExportInvalid: They are no facts of this format.
        """
        if not controller.keys() <= asdict(Controller()).keys():
            raise ExportInvalid("facts_controller", "no such fact of a controller")
        return cls(Controller(**controller), backends)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the entries of an export say, read once; the four have one item for each entry, in order."""

    indices: Sequence[int]
    lines: Sequence[bytes] = field(repr=False)
    events: Sequence[dict[str, Any]] = field(repr=False)
    hashes: Sequence[bytes] = field(repr=False)

    def placed(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Return the events with their places in the log."""
        return zip(self.indices, self.events, strict=True)

    def counts(self) -> dict[str, int]:
        """Return how many events there are of each type."""
        return dict(Counter(event["ty"] for event in self.events))

    def packs(self) -> set[str]:
        """Return the digests of all rule books that a decision names."""
        return {named["sha256"] for event in self.events for named in event.get("pol", ())}


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of which log an export is of.

    Attributes:
        start: Index of the first leaf of the range.
        end: Index after its last.
        kind: `range` is all leaves; `events` is some, each proven alone, which cannot show that
            none is missing; `hashes` is some, and the hash of every other.
        asked: What the entries were chosen by.
    """

    head: Checkpoint
    start: int
    end: int
    kind: Kind
    asked: Filter

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= self.head.size:
            raise ExportInvalid("range_bounds", "the range is not within the checkpoint's size")
        if self.kind not in KINDS:
            raise ExportInvalid("manifest_kind", "no such kind of export")
        if self.kind == "range" and self.asked != Filter():
            raise ExportInvalid("manifest_filter", "a whole range is not filtered")

    def value(self) -> dict[str, Any]:
        """Return what the manifest says."""
        return {
            "origin": self.head.origin,
            "size": self.head.size,
            "root": self.head.root.hex(),
            "from": self.start,
            "to": self.end,
            "kind": self.kind,
            "complete": self.kind != "events",
            "filter": self.asked.value(),
        }


@dataclass(frozen=True, slots=True)
class Source:
    """What derived files are made of.

    Attributes:
        note: The checkpoint as a signed note.
        vkeys: The log's Ed25519 keys that signed the checkpoint, and the one that signs the manifest.
        left: The compact range of [0, start); empty for the kind `events`.
        right: That of [end, size); likewise.
        hashes: All leaf hashes of the range for the kind `hashes`, else empty.
    """

    span: Span
    reading: Reading
    facts: Facts
    note: str
    vkeys: tuple[str, ...]
    left: tuple[bytes, ...] = ()
    right: tuple[bytes, ...] = ()
    hashes: tuple[bytes, ...] = ()


Derive = Callable[[Source, Callable[[str], str]], Mapping[str, bytes]]
"""Derived files by path, from their source and what signs a text as a note (`audit.derive.derive`)."""


def build(
    *,
    origin: str,
    checkpoint: str,
    keys: str,
    policy: str,
    start: int,
    end: int,
    entries: Iterable[tuple[int, bytes]],
    nodes: tree.NodeReader,
    packs: Mapping[str, bytes],
    signer: Signer,
    terms: Terms,
    kind: Kind = "range",
    asked: Filter | None = None,
    previous: int | None = None,
    found: Sequence[Payload] = (),
    erasures: Mapping[int, bytes] | None = None,
    later: str | None = None,
    timestamp: bytes | None = None,
    facts: Facts | None = None,
    derive: Derive | None = None,
) -> dict[str, bytes]:
    """Return the files of an export by path.

    The same arguments give the same bytes.  Of `packs` (SHA-256 in hex to source)
    only those that a decision names go in: what is loaded later does not change
    what was exported before.

    Args:
        checkpoint: A stored signed note; its size may be less than the log's today.
        keys: Text of `keys.txt`.
        policy: Text of `policy.txt`, a C2SP tlog-policy; the checkpoint must satisfy it.
        start: Index of the first leaf of the range.
        end: Index after its last.
        entries: Leaves with their indices, ascending: for the kind `range` all of the range,
            else those that were asked for.
        nodes: Reads the tree up to the checkpoint's size, and to that of `later` (`tiles_needed`).
        signer: The log's Ed25519 key.
        kind: See `Span`.
        asked: What the entries were chosen by.
        previous: Size of the checkpoint of the recipient's export before this one.
        found: What became of each payload that an entry seals, by index and slot.
        erasures: Leaves that erased payloads and are not among `entries`, by index; more do no harm.
        later: A signed note of a larger size, where such a leaf lies beyond the checkpoint.
        timestamp: A response of RFC 3161 over the checkpoint, in DER; nothing here looks into it.
        derive: Makes the derived files; without it there are none.

    Raises:
        ExportInvalid: The arguments contradict each other, or a rule book or a payload's line is missing.
        CheckpointInconsistent: The entries are not those of the checkpoint.
        ProofInvalid: `previous` is larger than the log.
        LeafInvalid, NoteInvalid, CheckpointInvalid, TrustInvalid, KeyRefused:
            An input is malformed, or the checkpoint is not signed as `keys` asks.
    """
    head = vouched(checkpoint, keys, policy)
    if head.origin != origin or signer.name != origin:
        raise ExportInvalid("export_origin", "the checkpoint or the signer is of another log")
    facts = facts or Facts()
    span = Span(head, start, end, kind, asked or Filter())
    reading = read(entries)
    check_places(reading, span)
    needed = _needed(found, reading, erasures or {})
    tally = payloads.check(found, reading.placed(), finder(reading, needed), terms.disclosed)
    source = _source(span, reading, facts, checkpoint, keys, signer.verifier, nodes)
    files = {
        CHECKPOINT: checkpoint.encode(),
        ENTRIES: _lines(reading.lines),
        PAYLOADS: _lines(item.line(proof_path(item.by) if item.by in needed else "") for item in found),
        CONSISTENCY: _consistency(previous or 0, head.size, nodes),
        KEYS: keys.encode(),
        POLICY: policy.encode(),
        GUIDE: resources.files("audit").joinpath(GUIDE).read_bytes(),
        **_proofs(source, nodes),
        **_erasures(source, needed, later, keys, policy, nodes),
        **_policies(reading.packs(), packs),
        **_derived(derive, source, signer),
    }
    if timestamp:
        files[TIMESTAMP] = timestamp
    if sum(map(is_proof_path, files)) > MAX_PROOFS:
        raise ExportInvalid("selection_too_large", "too many leaves to prove one by one: use `hashes`")
    files[MANIFEST] = manifest(span, reading, tally, terms, facts, files)
    files[SIGNATURE] = signer.sign(statement(origin, files[MANIFEST])).encode()
    return files


def tiles_needed(
    *,
    size: int,
    start: int,
    end: int,
    kind: Kind,
    places: Collection[int],
    previous: int = 0,
    erasures: Collection[int] = (),
    later: int = 0,
) -> set[tuple[int, int]]:
    """Return (level, index) of the tiles from which `nodes` of `build` is read, and of no other.

    For a range they are O(log n), whatever its length; for selected events at most one
    each and O(log n), and those of the whole range where all its hashes are shown.

    Args:
        size: Of the checkpoint.
        places: Of the entries.
        erasures: Places of the leaves that erased, without those that are entries.
        later: Size of the later checkpoint, where one of them lies beyond the checkpoint.
    """
    needed: set[tuple[int, int]] = set()

    def note(level: int, index: int) -> bytes:
        needed.add(tiles.tile_of(level, index))
        return bytes(tree.HASH_BYTES)

    _consistency(previous, size, note)
    if kind == "events":
        for index in places:
            tree.inclusion_proof(index, size, note)
    else:
        ranges.edge(0, start, note)
        ranges.edge(end, size, note)
    if kind == "hashes":
        needed |= {(0, index) for index in range(start // tiles.WIDTH, -(-end // tiles.WIDTH))}
    for index in erasures:
        tree.inclusion_proof(index, size if index < size else later, note)
    if any(index >= size for index in erasures):
        _consistency(size, later, note)
    return needed


def read(entries: Iterable[tuple[int, bytes]]) -> Reading:
    """Return the events of leaves, with their places in the log.

    Raises:
        LeafInvalid: One is not a leaf.
    """
    given = list(entries)
    lines = [line for _, line in given]
    events = [leaf.decode(line) for line in lines]
    return Reading([index for index, _ in given], lines, events, list(map(tree.hash_leaf, lines)))


def exported(files: Mapping[str, bytes]) -> list[tuple[int, bytes]]:
    """Return the leaves of an export with their places in the log; only what is verified means anything.

    Raises:
        ExportInvalid: The manifest, the entries or their indices are malformed.
    """
    stated = canonical.parse(files[MANIFEST], len(files[MANIFEST]))
    lines = split_lines(files[ENTRIES], ENTRIES)
    if stated["kind"] == "range":
        return list(enumerate(lines, stated["from"]))
    indices = ranges.parse_indices(files[INDICES])
    if len(indices) != len(lines):
        raise CheckpointInconsistent("entries_size", "there are not as many entries as indices")
    return list(zip(indices, lines, strict=True))


def split_lines(content: bytes, path: str) -> list[bytes]:
    """Return the lines of a file, each of which ends in a line feed.

    Raises:
        ExportInvalid: The last one does not.
    """
    if not content:
        return []
    if not content.endswith(b"\n"):
        raise ExportInvalid("file_truncated", f"the last line of {path} has no end")
    return content[:-1].split(b"\n")


def check_places(reading: Reading, span: Span) -> None:
    """Return if the entries are where they are asked for, and what was asked for.

    Raises:
        ExportInvalid: One lies elsewhere, out of order, or is not what the filter admits.
        CheckpointInconsistent: There are not as many as the range has.
    """
    places = reading.indices
    if span.kind == "range" and len(places) != span.end - span.start:
        raise CheckpointInconsistent("entries_size", "there are not as many entries as the range has")
    if any(after <= before for before, after in pairwise(places)):
        raise ExportInvalid("entries_order", "the indices do not ascend")
    if places and not span.start <= places[0] <= places[-1] < span.end:
        raise ExportInvalid("entries_outside", "an entry lies outside the range")
    for index, event in reading.placed():
        if not span.asked.admits(event):
            raise ExportInvalid("entries_filter", f"entry {index} is not one that was asked for")


def check_root(span: Span, left: Sequence[bytes], hashes: Iterable[bytes], right: Sequence[bytes]) -> None:
    """Return if the leaf hashes of the range, between the two compact ranges, give the checkpoint's root.

    Raises:
        CheckpointInconsistent: They do not.
    """
    if ranges.root(span.start, left, hashes, span.head.size, right) != span.head.root:
        raise CheckpointInconsistent("entries_root", "the entries do not have the checkpoint's root")


def check_selected(reading: Reading, hashes: Sequence[bytes], start: int) -> None:
    """Return if each entry has the leaf hash of its place.

    Raises:
        ProofInvalid: One has another.
    """
    for index, hashed in zip(reading.indices, reading.hashes, strict=True):
        if hashes[index - start] != hashed:
            raise ProofInvalid("leaf_hash_differs", f"entry {index} has not the leaf hash of its place")


def vouched(checkpoint: str, keys: str, policy: str) -> Checkpoint:
    """Return the checkpoint of a note that an export's own keys have signed and its own policy accepts.

    Whoever forges an export forges these too: it shows that they fit, not whose they are.

    Raises:
        ExportInvalid: The policy does not accept it.
        AuditError: The keys do not.
    """
    head = read_trust(keys).open(checkpoint)
    try:
        read_trust(policy).open(checkpoint)
    except AuditError as error:
        raise ExportInvalid("policy_unmet", f"not what policy.txt asks for ({error.code})") from None
    return head


def signing_keys(checkpoint: str, keys: str, signer: Verifier) -> tuple[str, ...]:
    """Return the log's Ed25519 keys that signed the checkpoint, and the manifest's, in the order of `keys`.

    Raises:
        ExportInvalid: The manifest's key is not in `keys`.
    """
    known = read_trust(keys)
    if signer not in known:
        raise ExportInvalid("keys_differ", "keys.txt does not name the key that signed the manifest")
    head, signed = open_signed(checkpoint, known.verifiers)
    return tuple(
        key.vkey()
        for key in known
        if key == signer or (key in signed and key.name == head.origin and key.type is KeyType.ED25519)
    )


def finder(reading: Reading, others: Mapping[int, bytes]) -> Callable[[int], Mapping[str, Any]]:
    """Return what gives the event at a place in the log, of the entries or of `others`.

    Raises:
        LeafInvalid: One of `others` is not a leaf.
    """
    known: dict[int, Mapping[str, Any]] = {index: leaf.decode(line) for index, line in others.items()}
    known.update(reading.placed())

    def event_at(index: int) -> Mapping[str, Any]:
        if index not in known:
            raise ExportInvalid("payload_erased_leaf", f"leaf {index}, which is said to erase, is not there")
        return known[index]

    return event_at


def manifest(
    span: Span,
    reading: Reading,
    tally: Mapping[str, Mapping[str, int]],
    terms: Terms,
    facts: Facts,
    files: Mapping[str, bytes],
) -> bytes:
    """Return the manifest over `files`, which are all but the manifest and its signature.

    Args:
        tally: How many payloads there are, by class and state.
    """
    value = {
        "format": FORMAT,
        **span.value(),
        **terms.value(),
        **facts.value(),
        "entries": len(reading.lines),
        "counts": reading.counts(),
        "payloads": {cls: dict(states) for cls, states in tally.items()},
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in files.items()},
    }
    return canonical.encode(value) + b"\n"


def statement(origin: str, manifest_bytes: bytes) -> str:
    """Return the text that is signed for a manifest.

    It can be no checkpoint: the second line of one is a number.
    """
    return f"{FORMAT}\n{origin}\nsha256 {hashlib.sha256(manifest_bytes).hexdigest()}\n"


def consistency(size: int, root: bytes, grown: int, hashes: Sequence[bytes]) -> bytes:
    """Return the file which shows that the log of `size` leaves grew to `grown` and lost nothing."""
    value = {"from": size, "root": root.hex(), "to": grown, "hashes": list(map(b64.encode, hashes))}
    return canonical.encode(value) + b"\n"


def trust_policy(verifier: Verifier) -> str:
    """Return a C2SP tlog-policy that trusts a log's key and asks for no witness."""
    return f"log {verifier.vkey()}\nquorum none\n"


def policy_path(digest: str) -> str:
    """Return where a rule book lies in an export."""
    return f"policy/{digest}.yaml"


def proof_path(index: int) -> str:
    """Return where the proof of a leaf lies in an export."""
    return f"proofs/{index}.tlog-proof"


def is_proof_path(path: str) -> bool:
    """Return whether `path` is where the proof of some leaf lies."""
    return _PROOF_PATH.fullmatch(path) is not None


def _source(
    span: Span,
    reading: Reading,
    facts: Facts,
    note: str,
    keys: str,
    signer: Verifier,
    nodes: tree.NodeReader,
) -> Source:
    """Return what derived files are made of, once the entries are seen to be those of the checkpoint."""
    vkeys = signing_keys(note, keys, signer)
    if span.kind == "events":
        return Source(span, reading, facts, note, vkeys)
    left = ranges.edge(0, span.start, nodes)
    right = ranges.edge(span.end, span.head.size, nodes)
    if span.kind == "range":
        check_root(span, left, reading.hashes, right)
        return Source(span, reading, facts, note, vkeys, left, right)
    every = tuple(nodes(0, index) for index in range(span.start, span.end))
    check_selected(reading, every, span.start)
    check_root(span, left, every, right)
    return Source(span, reading, facts, note, vkeys, left, right, every)


def _proofs(source: Source, nodes: tree.NodeReader) -> dict[str, bytes]:
    span, reading = source.span, source.reading
    indices = {INDICES: ranges.write_indices(reading.indices)}
    if span.kind == "events":
        if len(reading.lines) > MAX_PROOFS:
            raise ExportInvalid("selection_too_large", "too many leaves to prove one by one: use `hashes`")
        return indices | {
            proof_path(index): _proof(index, line, source.note, span.head, nodes)
            for index, line in zip(reading.indices, reading.lines, strict=True)
        }
    edges = {
        LEFT_EDGE: ranges.write(0, span.start, source.left),
        RIGHT_EDGE: ranges.write(span.end, span.head.size, source.right),
    }
    if span.kind == "range":
        return edges
    return {**edges, **indices, LEAF_HASHES: ranges.write_leaves(source.hashes)}


def _proof(index: int, line: bytes, note: str, head: Checkpoint, nodes: tree.NodeReader) -> bytes:
    """Return the proof of a leaf, which it carries.

    Raises:
        ProofInvalid: The leaf is not the log's.
    """
    hashes = tree.inclusion_proof(index, head.size, nodes)
    tree.verify_inclusion(
        index=index, size=head.size, leaf_hash=tree.hash_leaf(line), proof=hashes, root=head.root
    )
    return proof.write(index=index, hashes=hashes, checkpoint=note, extra=line).encode()


def _needed(found: Sequence[Payload], reading: Reading, erasures: Mapping[int, bytes]) -> dict[int, bytes]:
    """Return the leaves that erased something here and are not among the entries, by index."""
    wanted = {item.by for item in found if item.state == "erased"} - set(reading.indices)
    return {index: erasures[index] for index in sorted(wanted & erasures.keys())}


def _erasures(
    source: Source,
    needed: Mapping[int, bytes],
    later: str | None,
    keys: str,
    policy: str,
    nodes: tree.NodeReader,
) -> dict[str, bytes]:
    """Return the proofs of leaves that erased; those beyond the checkpoint hang on a later one."""
    head = source.span.head
    files: dict[str, bytes] = {}
    note, grown = source.note, head
    if any(index >= head.size for index in needed):
        if later is None:
            raise ExportInvalid("later_missing", "a leaf beyond the checkpoint needs a later checkpoint")
        note, grown = later, vouched(later, keys, policy)
        if grown.origin != head.origin or grown.size <= head.size:
            raise ExportInvalid("later_size", "the later checkpoint is of another log, or not larger")
        files = {LATER: later.encode(), LATER_CONSISTENCY: _consistency(head.size, grown.size, nodes)}
    for index, line in needed.items():
        under = (source.note, head) if index < head.size else (note, grown)
        files[proof_path(index)] = _proof(index, line, *under, nodes)
    return files


def _consistency(size: int, grown: int, nodes: tree.NodeReader) -> bytes:
    if not 0 <= size <= grown:
        raise ProofInvalid("proof_sizes", "a log does not shrink")
    hashes = tree.consistency_proof(size, grown, nodes) if size else ()
    return consistency(size, tree.root_of(size, nodes), grown, hashes)


def _policies(named: Iterable[str], packs: Mapping[str, bytes]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for digest in sorted(named):
        if digest not in packs:
            raise ExportInvalid("pack_missing", "a decision names a rule book that is not there")
        if hashlib.sha256(packs[digest]).hexdigest() != digest:
            raise ExportInvalid("pack_differs", "a rule book differs from its digest")
        files[policy_path(digest)] = packs[digest]
    return files


def _derived(derive: Derive | None, source: Source, signer: Signer) -> dict[str, bytes]:
    made = dict(derive(source, signer.sign)) if derive else {}
    if not made.keys() <= DERIVED:
        raise ExportInvalid("file_unknown", "a derived file is none of this format")
    return made


def _lines(lines: Iterable[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _is_fact(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_FACT_CHARS
