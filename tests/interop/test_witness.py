"""A witness written by others cosigns our log, and nothing that does not extend what it has seen."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from audit import b64, cosign, note
from audit.errors import NoteInvalid, QuorumNotMet
from audit.note import Verifier
from audit.quorum import Policy
from tests.interop.foreign import Refused, Tools, flip, flip_signature
from tests.interop.published import LAST, LOG, ORIGIN, Published

NAME = "witness.example/w1"


@dataclass
class Witness:
    """aics-witness, running."""

    url: str
    vkey: str
    log: Published

    def ask(self, old: int, hashes: list[str], note: str) -> tuple[int, str]:
        """Return the status and the body of the answer to add-checkpoint."""
        body = "".join(f"{line}\n" for line in (f"old {old}", *hashes, "")) + note
        answer = httpx.post(f"{self.url}/add-checkpoint", content=body, trust_env=False)
        return answer.status_code, answer.text

    def add(self, old: int, new: int) -> tuple[int, str]:
        """Have it told, as we tell it, that the log grew from one size to another."""
        hashes = self.log.growth(old, new) if old else []
        return self.ask(old, hashes, self.log.head(new).read_text("utf-8"))


@pytest.fixture
def witness(tools: Tools, log: Published, tmp_path: Path) -> Iterator[Witness]:
    """A witness that knows our log, and has seen nothing of it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    program = (tools.python, "-m", "aics_witness")
    where = ("--config", tmp_path / "witness.json")
    vkey = _run(*program, "init", *where, "--name", NAME, "--listen", address).strip()
    log_vkey = log.keys.read_text("utf-8").split("\n")[0]
    _run(*program, "add-log", *where, "--origin", ORIGIN, "--vkey", log_vkey)
    server = subprocess.Popen((*program, "serve", *where), stderr=subprocess.DEVNULL)
    try:
        _wait_for(address, server)
        yield Witness(f"http://{address}", vkey, log)
    finally:
        server.terminate()
        server.wait(10)


def test_it_cosigns_a_log_that_grows(tools: Tools, log: Published, witness: Witness, tmp_path: Path):
    """And its cosignature is one: others say so of the note that it is added to."""
    keys = tmp_path / "keys"
    keys.write_text(f"{log.keys.read_text('utf-8')}{witness.vkey}\n", "utf-8")
    for old, new in ((0, 256), (256, 65_537), (65_537, 65_537), (65_537, LAST)):
        status, line = witness.add(old, new)
        assert (status, line.startswith(f"\u2014 {NAME} ")) == (200, True)
        cosigned = tmp_path / "cosigned"
        cosigned.write_text(log.head(new).read_text("utf-8") + line, "utf-8")
        for verifier in ("x/mod", "aics-tlog"):
            tools.ask(verifier, "head", keys, cosigned)


def test_we_count_its_cosignature(log: Published, witness: Witness):
    """It makes the quorum of a policy, and one byte changed it is no longer a note that we open."""
    logs = "".join(f"log {key.vkey()}\n" for key in LOG)
    policy = Policy.parse(f"{logs}witness w1 {witness.vkey}\nquorum w1\n")
    head = log.head(LAST).read_text("utf-8")
    with pytest.raises(QuorumNotMet):
        policy.check(head)
    before = int(time.time())
    cosigned = note.add_signatures(head, [witness.add(0, LAST)[1]])
    assert policy.check(cosigned).size == LAST
    assert before <= cosign.verify(cosigned, Verifier.parse(witness.vkey)) <= time.time()
    with pytest.raises(NoteInvalid):
        policy.check(flip_signature(cosigned, -2, -1))


def test_a_cosignature_of_another_checkpoint_is_refused(
    tools: Tools, log: Published, witness: Witness, tmp_path: Path
):
    keys = tmp_path / "keys"
    keys.write_text(f"{log.keys.read_text('utf-8')}{witness.vkey}\n", "utf-8")
    _, line = witness.add(0, 256)
    cosigned = tmp_path / "cosigned"
    cosigned.write_text(log.head(257).read_text("utf-8") + line, "utf-8")
    for verifier in ("x/mod", "aics-tlog"):
        with pytest.raises(Refused):
            tools.ask(verifier, "head", keys, cosigned)


def test_it_names_the_size_it_knows_when_asked_from_another(witness: Witness):
    witness.add(0, 65_537)
    assert witness.add(256, LAST) == (409, "65537\n")


@pytest.mark.parametrize("at", [0, -1])
def test_it_refuses_a_proof_with_a_flipped_byte(log: Published, witness: Witness, at: int):
    witness.add(0, 65_537)
    hashes = log.growth(65_537, LAST)
    hashes[at] = b64.encode(flip(b64.decode(hashes[at]) or b""))
    assert witness.ask(65_537, hashes, log.head(LAST).read_text("utf-8"))[0] == 422


def test_it_refuses_a_checkpoint_with_a_flipped_byte(log: Published, witness: Witness):
    note = log.head(LAST).read_text("utf-8").replace(f"\n{LAST}\n", f"\n{LAST ^ 1}\n")
    assert witness.ask(0, [], note)[0] == 403


def test_it_refuses_a_fork(log: Published, witness: Witness):
    """The forked checkpoint is signed with the log's own key."""
    witness.add(0, 65_537)
    assert witness.ask(65_537, [], log.forked(65_537))[0] == 422
    assert witness.ask(65_537, log.growth(65_537, LAST), log.forked(LAST))[0] == 422
    assert witness.add(65_537, LAST)[0] == 200


def _run(*command: Path | str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AICS_", "WITNESS_"))
    }
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    host, port = address.split(":")
    until = time.monotonic() + 15
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            assert server.poll() is None, "the witness has ended"
            assert time.monotonic() < until, "the witness does not listen"
            time.sleep(0.05)
        else:
            return
