from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from audit import note
from audit.errors import CheckpointInvalid, NoteInvalid
from audit.note import KeyType, Signer, Verifier, open_note
from audit.tree import EMPTY_ROOT

VECTORS = json.loads(Path(__file__).parents[2].joinpath("vectors/signed_note.json").read_text())
COSIGNATURE = json.loads(Path(__file__).parents[2].joinpath("vectors/cosignature.json").read_text())
PETER, ENOCH, C2SP = VECTORS["peter"], VECTORS["enoch"], VECTORS["c2sp"]
PETER_NOTE = f"{PETER['text']}\n{PETER['line']}"
BOTH = PETER_NOTE + ENOCH["line"]
SIGNER = Signer("log.example/a", bytes(range(32)))
TEXT = "one\n\nthree\n"
NOTE = SIGNER.sign(TEXT)
SIGNATURE = NOTE.rsplit(" ", 1)[1].strip()


def test_signing_gives_the_note_of_go_byte_for_byte() -> None:
    seed = base64.b64decode(PETER["seed"])[1:]
    signer = Signer(PETER["name"], seed)
    assert PETER["vkey"] == signer.vkey()
    assert signer.sign(PETER["text"]) == PETER_NOTE


def test_notes_of_go_and_of_the_specification_open() -> None:
    peter, enoch, c2sp = (Verifier.parse(case["vkey"]) for case in (PETER, ENOCH, C2SP))
    assert (PETER["text"], [peter]) == open_note(PETER_NOTE, [peter])
    assert (PETER["text"], [peter, enoch]) == open_note(BOTH, [enoch, peter])
    assert ("This is an example message.\n", [c2sp]) == open_note(C2SP["note"], [c2sp])


@pytest.mark.parametrize(
    "vkey",
    [
        PETER["vkey"],
        ENOCH["vkey"],
        C2SP["vkey"],
        VECTORS["plus_vkey"],
        VECTORS["cosigner_vkey"],
        COSIGNATURE["subtree"]["vkey"],
    ],
)
def test_verifier_keys_are_written_back_byte_for_byte(vkey: str) -> None:
    assert vkey == Verifier.parse(vkey).vkey()


def test_key_ids_are_those_of_other_implementations() -> None:
    for case in COSIGNATURE["key_ids"]:
        size, step, start = case.get("ramp", (0, 0, 0))
        key = bytes((step * place + start) & 0xFF for place in range(size)) or bytes.fromhex(case["key"])
        verifier = Verifier(case["name"], key, KeyType(case["type"]))
        assert case["id"] == verifier.key_id.hex()
        assert verifier == Verifier.parse(verifier.vkey())


def test_a_key_of_a_type_that_is_not_known_is_refused() -> None:
    for data in (b"\x02" + bytes(32), b"\x05" + bytes(32), b"\xff" + bytes(40)):
        key_id = hashlib.sha256(b"a\n" + data).hexdigest()[:8]
        with pytest.raises(NoteInvalid, match="vkey_type"):
            Verifier.parse(f"a+{key_id}+{base64.b64encode(data).decode()}")


@pytest.mark.parametrize("size", [0, 31, 33, 1311, 1312, 1313])
def test_a_key_whose_length_is_not_that_of_its_type_is_refused(size: int) -> None:
    for kind in KeyType:
        if size != (1312 if kind is KeyType.ML_DSA_44 else 32):
            with pytest.raises(NoteInvalid, match="vkey_malformed"):
                Verifier.parse(Verifier("a", bytes(size), kind).vkey())


def test_an_ml_dsa_key_signs_checkpoints_and_nothing_else() -> None:
    signer = Signer("log.example/a", bytes(32), "ml-dsa-44")
    assert signer.vkey() == Verifier.parse(signer.vkey()).vkey()
    with pytest.raises(NoteInvalid, match="note_key_type"):
        signer.sign(TEXT)
    with pytest.raises(CheckpointInvalid):
        signer.line(TEXT, 0)
    body = f"log.example/a\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\n"
    line = signer.line(body, 7)
    assert [signer.verifier] == open_note(note.assemble(body, [line]), [signer.verifier])[1]
    with pytest.raises(NoteInvalid, match="note_signature"):
        open_note(note.assemble(TEXT, [line]), [signer.verifier])
    with pytest.raises(NoteInvalid, match="signature_time"):
        signer.line(body, 1 << 63)


def test_each_byte_of_a_timestamped_signature_counts() -> None:
    signer = Signer("log.example/a", bytes(32), "ml-dsa-44")
    body = f"log.example/a\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\n"
    name, _, value = signer.line(body, 7).rpartition(" ")
    data = base64.b64decode(value)
    for place in (4, 11, 12, 100, 1000, len(data) - 1):
        flipped = bytes(byte ^ (spot == place) for spot, byte in enumerate(data))
        line = f"{name} {base64.b64encode(flipped).decode()}"
        with pytest.raises(NoteInvalid, match="note_signature"):
            open_note(note.assemble(body, [line]), [signer.verifier])
    for cut in (data[:5], data[:12], data[:-1], data + b"x"):
        line = f"{name} {base64.b64encode(cut).decode()}"
        with pytest.raises(NoteInvalid, match="note_signature"):
            open_note(note.assemble(body, [line]), [signer.verifier])


def test_a_signature_of_an_unknown_type_under_a_known_name_is_ignored() -> None:
    foreign = f"\u2014 {SIGNER.name} {base64.b64encode(bytes(300)).decode()}\n"
    assert [SIGNER.verifier] == open_note(NOTE + foreign, [SIGNER.verifier])[1]


def test_a_long_name_is_ignored_with_its_signature_and_is_no_key() -> None:
    name = "w" * 256
    text = NOTE + f"\u2014 {name} {base64.b64encode(bytes(68)).decode()}\n"
    assert [SIGNER.verifier] == open_note(text, [SIGNER.verifier])[1]
    for bad in (name, "\u00e9" * 128):
        with pytest.raises(NoteInvalid, match="key_name"):
            Signer(bad, bytes(32))
        with pytest.raises(NoteInvalid, match="vkey_malformed"):
            Verifier.parse(Verifier(bad, bytes(32)).vkey())


def test_signatures_are_appended_once_and_only_whole_ones() -> None:
    line = ENOCH["line"]
    assert note.add_signatures(PETER_NOTE, [line]) == BOTH
    assert note.add_signatures(PETER_NOTE, [line.removesuffix("\n"), line]) == BOTH
    assert note.add_signatures(BOTH, [line]) == BOTH
    assert note.add_signatures(PETER_NOTE, []) == PETER_NOTE
    for bad in ("", "x", line + line, "\n" + line, line.replace("EnochRoot", "Enoch\nRoot")):
        with pytest.raises(NoteInvalid):
            note.add_signatures(PETER_NOTE, [bad])
    with pytest.raises(NoteInvalid, match="note_malformed"):
        note.add_signatures("text\n", [line])
    with pytest.raises(NoteInvalid, match="note_too_many_signatures"):
        note.add_signatures(PETER_NOTE, [f"\u2014 {place} AAAAAAA=" for place in range(64)])


def test_an_unknown_signature_is_ignored_and_a_known_false_one_rejects() -> None:
    enoch = Verifier.parse(ENOCH["vkey"])
    assert [enoch] == open_note(BOTH, [enoch])[1]
    false = ENOCH["line"].replace("rwz+eBzm", "rwz+eBzn")
    with pytest.raises(NoteInvalid, match="note_signature"):
        open_note(PETER_NOTE + false, [enoch, Verifier.parse(PETER["vkey"])])


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    for verifiers in ([], [Verifier.parse(ENOCH["vkey"])], [Verifier(SIGNER.name, bytes(32))]):
        with pytest.raises(NoteInvalid, match="note_unknown_keys"):
            open_note(NOTE, verifiers)


def test_text_may_hold_empty_lines() -> None:
    assert (TEXT, [SIGNER.verifier]) == open_note(NOTE, [SIGNER.verifier])


def test_sixteen_large_foreign_signatures_are_accepted() -> None:
    foreign = base64.b64encode(bytes(5000)).decode()
    text = NOTE + "".join(f"\u2014 witness.example/{number} {foreign}\n" for number in range(16))
    assert [SIGNER.verifier] == open_note(text, [SIGNER.verifier])[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n",
        TEXT,
        NOTE[:-1],
        NOTE + "\n",
        NOTE + "x\n",
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("one", "o\x00e"),
        NOTE.replace("one", "o\te"),
        NOTE.replace("one", "o\ud800e"),
        NOTE.replace("one", "two"),
        NOTE.replace("\u2014", "-"),
        NOTE.replace("\u2014 ", "\u2014  "),
        NOTE.replace("\u2014 ", "\u2014"),
        NOTE.replace(SIGNATURE, SIGNATURE + " "),
        NOTE.replace(SIGNATURE, SIGNATURE.rstrip("=")),
        NOTE.replace(SIGNATURE, SIGNATURE + "===="),
        NOTE.replace(SIGNATURE, SIGNATURE[:20] + " " + SIGNATURE[20:]),
        NOTE.replace(SIGNATURE, SIGNATURE[:-2] + "B="),
        NOTE.replace(SIGNATURE, "AAAA"),
        NOTE.replace(SIGNATURE, base64.b64encode(bytes(4)).decode()),
        NOTE.replace(SIGNATURE, SIGNATURE[:6] + "AA=="),
        NOTE.replace("log.example/a", ""),
        NOTE.replace("log.example/a", "log+example"),
        NOTE.replace("log.example/a", "log\u2003example"),
        NOTE + "\u2014 a AAAAAAA=\n" * 64,
        "x" * note.MAX_NOTE_CHARS + NOTE,
    ],
)
def test_what_is_no_note_of_the_key_is_refused(text: str) -> None:
    with pytest.raises(NoteInvalid):
        open_note(text, [SIGNER.verifier])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a",
        "a+b",
        "a+00000000+",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        PETER["vkey"].replace("c74f20a3", "c74f20a4"),
        PETER["vkey"].replace("c74f20a3", "C74F20A3"),
        PETER["vkey"].replace("PeterNeumann", "Peter Neumann"),
        PETER["vkey"].replace("PeterNeumann", "Peter\nNeumann"),
        PETER["vkey"] + "\n",
        PETER["vkey"][:-4],
        PETER["vkey"].replace("+AR", "+ AR"),
        PETER["vkey"].replace("c74f20a3", "٣٣٣٣٣٣٣٣"),
        "x" * 2000 + PETER["vkey"],
    ],
)
def test_a_malformed_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(NoteInvalid):
        Verifier.parse(vkey)


@pytest.mark.parametrize("text", ["", "no newline", "control\x07\n", "return\r\n"])
def test_only_text_that_ends_in_a_newline_is_signed(text: str) -> None:
    with pytest.raises(NoteInvalid):
        SIGNER.sign(text)


@pytest.mark.parametrize(
    ("name", "seed"), [("", bytes(32)), ("a b", bytes(32)), ("a+b", bytes(32)), ("a", bytes(31))]
)
def test_a_signer_needs_a_name_and_a_whole_seed(name: str, seed: bytes) -> None:
    with pytest.raises(NoteInvalid):
        Signer(name, seed)


def test_a_signer_does_not_show_its_seed() -> None:
    assert "seed" not in repr(SIGNER)


def test_errors_do_not_quote_what_failed() -> None:
    with pytest.raises(NoteInvalid) as caught:
        open_note(NOTE.replace("one", "Eileen Collins"), [SIGNER.verifier])
    assert "Eileen" not in str(caught.value)
    assert caught.value.code == "note_signature"
