from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit import b64, checkpoint, note, proof, tree
from audit.cosign import Cosigner
from audit.errors import AuditError, ProofInvalid
from audit.note import Signer
from tests.unit.audit.logs import SIGNER, STRANGER, head, lines, reader

VECTOR = json.loads(Path(__file__).parents[2].joinpath("vectors/c2sp.json").read_text())["proof"]
LINES = lines()
HASHES = [tree.hash_leaf(line) for line in LINES]
INDEX = 5
PATH = tree.inclusion_proof(INDEX, len(LINES), reader(HASHES))
NOTE = head(LINES)
TEXT = proof.write(index=INDEX, hashes=PATH, checkpoint=NOTE, extra=LINES[INDEX])
BARE = proof.write(index=INDEX, hashes=PATH, checkpoint=NOTE, extra=None)
HASH = b64.encode(PATH[0])


def test_the_head_of_the_specifications_example_is_read_once_its_extra_is_whole() -> None:
    # The specification's `extra` is cut in the middle and is no base64; all else is taken as printed.
    text = (
        VECTOR["head"].replace("YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ", "YWdl") + "\n" + NOTE
    )
    found = proof.parse(text)
    assert (VECTOR["index"], 5, b"age", NOTE) == (
        found.index,
        len(found.hashes),
        found.extra,
        found.checkpoint,
    )
    assert text == proof.write(
        index=found.index, hashes=found.hashes, checkpoint=found.checkpoint, extra=found.extra
    )


def test_a_proof_reads_as_the_specification_lays_it_out() -> None:
    written = TEXT.split("\n")
    assert written[0] == "c2sp.org/tlog-proof@v1"
    assert f"extra {b64.encode(LINES[INDEX])}" == written[1]
    assert written[2] == "index 5"
    assert [b64.encode(hashed) for hashed in PATH] == written[3 : 3 + len(PATH)]
    assert "\n".join(written[3 + len(PATH) :]) == "\n" + NOTE


def test_the_leaf_in_the_proof_is_proven() -> None:
    found, checked = proof.verify(TEXT, [SIGNER.verifier], None)
    assert (LINES[INDEX], len(LINES)) == (found.extra, checked.size)


def test_a_leaf_beside_the_proof_is_proven_and_extra_is_not_trusted() -> None:
    proof.verify(BARE, [SIGNER.verifier], LINES[INDEX])
    lying = proof.write(index=INDEX, hashes=PATH, checkpoint=NOTE, extra=LINES[0])
    proof.verify(lying, [SIGNER.verifier], LINES[INDEX])
    with pytest.raises(ProofInvalid, match="proof_root"):
        proof.verify(lying, [SIGNER.verifier], None)


def test_a_proof_without_a_leaf_proves_nothing() -> None:
    with pytest.raises(ProofInvalid, match="proof_leaf_missing"):
        proof.verify(BARE, [SIGNER.verifier], None)


def test_a_proof_under_a_strangers_checkpoint_is_refused() -> None:
    forged = proof.write(index=INDEX, hashes=PATH, checkpoint=head(LINES, STRANGER), extra=LINES[INDEX])
    with pytest.raises(AuditError):
        proof.verify(forged, [SIGNER.verifier], None)


def test_a_tree_of_one_leaf_has_a_proof_without_hashes() -> None:
    text = proof.write(index=0, hashes=[], checkpoint=head(LINES[:1]), extra=LINES[0])
    assert proof.verify(text, [SIGNER.verifier], None)[0].hashes == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        TEXT.replace("@v1", "@v2"),
        TEXT.replace("c2sp.org", "C2SP.org"),
        " " + TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("index 5", "index 05"),
        TEXT.replace("index 5", "index -5"),
        TEXT.replace("index 5", "index ٥"),
        TEXT.replace("index 5", "index  5"),
        TEXT.replace("index 5", "index 5 "),
        TEXT.replace("index 5\n", ""),
        TEXT.replace("index 5", "index " + "9" * 5000),
        TEXT.replace("index 5", "index 6"),
        TEXT.replace("extra ", "extra  "),
        TEXT.replace("extra ", "Extra "),
        TEXT.replace("extra ", "extra *"),
        BARE.replace("index ", "extra \nindex "),
        TEXT.replace("extra ", "extra AAAA\nextra "),
        TEXT.replace(HASH, HASH[:-1]),
        TEXT.replace(HASH, HASH + " "),
        TEXT.replace(HASH, b64.encode(bytes(64))),
        TEXT.replace(HASH, b64.encode(bytes(32))),
        TEXT.replace(HASH + "\n", ""),
        TEXT.replace(HASH, f"{HASH}\n{HASH}"),
        TEXT.replace(HASH, "\n".join([HASH] * 64)),
        TEXT.replace("\n\n", "\n", 1),
        TEXT + "\n",
        TEXT[:-1],
        TEXT + "x" * proof.MAX_CHARS,
    ],
)
def test_an_altered_proof_is_refused(text: str) -> None:
    with pytest.raises(AuditError):
        proof.verify(text, [SIGNER.verifier], None)


@pytest.mark.parametrize(
    ("index", "hashes"), [(-1, PATH), (1 << 63, PATH), (5, [b"x"]), (5, [bytes(32)] * 64)]
)
def test_what_is_no_proof_is_not_written(index: int, hashes: list[bytes]) -> None:
    with pytest.raises(ProofInvalid):
        proof.write(index=index, hashes=hashes, checkpoint=NOTE, extra=None)


def test_no_data_is_no_line() -> None:
    assert proof.write(index=INDEX, hashes=PATH, checkpoint=NOTE, extra=b"") == BARE


def test_a_proof_carries_a_checkpoint_of_many_signatures() -> None:
    post = Signer(SIGNER.name, bytes(32), "ml-dsa-44")
    many = checkpoint.sign(SIGNER.name, len(LINES), tree.root_of_leaves(HASHES), [SIGNER, post], 5)
    witnesses = [Cosigner(f"witness.example/{place}", bytes([place]) * 32) for place in range(16)]
    many = note.add_signatures(many, [witness.cosign(many, 5) for witness in witnesses])
    text = proof.write(index=INDEX, hashes=PATH, checkpoint=many, extra=LINES[INDEX])
    for keys in ([SIGNER.verifier], [post.verifier], [SIGNER.verifier, *(w.verifier for w in witnesses)]):
        assert len(LINES) == proof.verify(text, keys, None)[1].size


def test_every_flipped_byte_of_a_proof_is_noticed() -> None:
    data = TEXT.encode()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises((AuditError, UnicodeDecodeError)):
            proof.verify(flipped.decode(), [SIGNER.verifier], None)
