"""What `VERIFY.md` tells an auditor to type is typed here, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.foreign import Tools
from tests.unit.audit import sealed
from tests.unit.audit.logs import SIGNER, exported, lines

LINES = lines()
SOME = [(place, LINES[place]) for place in (3, 8, 11)]
EXPORTS = {
    "whole": exported(LINES),
    "range": exported(LINES, start=5, end=21, previous=13),
    "nothing": exported(LINES, start=9, end=9),
    "events": exported(LINES, kind="events", entries=SOME, previous=3),
    "hashes": exported(LINES, start=2, end=20, kind="hashes", entries=SOME),
    "opened": exported(sealed.LOG, found=sealed.OPENED, terms=sealed.DISCLOSING),
}
GUIDE = EXPORTS["whole"]["VERIFY.md"].decode()
COMMITMENTS = [seal[2] for line in sealed.LOG for seal in json.loads(line)["seals"]]
BASH = ("bash", "jq", "xxd", "openssl", "sha256sum")


def written(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL))


@dataclass(frozen=True)
class Programs:
    """The programs of the guide, ready to run."""

    commands: dict[str, tuple[str | Path, ...]]
    modules: Path

    def ask(self, name: str, folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.commands[name], folder, SIGNER.vkey()],
            env={**os.environ, "NODE_PATH": str(self.modules)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def programs(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    at = tmp_path_factory.mktemp("guide")
    for name, language in (("main.go", "go"), ("check.py", "python"), ("check.js", "js")):
        (at / name).write_text(written(language))
    shutil.copytree(tools.folder / "go/x-mod", at / "x-mod")
    (at / "go.mod").write_text((tools.folder / "go/go.mod").read_text())
    environment = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    environment |= {"GOPATH": str(at / "gopath"), "GOCACHE": str(at / "gocache")}
    (go,) = (tools.folder / "venv/lib").glob("python*/site-packages/go/bin/go")
    subprocess.run(
        [go, "build", "-o", at / "check", "."], cwd=at, env={**os.environ, **environment}, check=True
    )
    commands = {
        "x/mod": (at / "check",),
        "aics-tlog": (tools.python, at / "check.py"),
        "sigstore": (tools.folder / "node", at / "check.js"),
    }
    return Programs(commands, tools.folder / "js/node_modules")


def laid(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", sorted(EXPORTS))
@pytest.mark.parametrize("name", ["x/mod", "aics-tlog", "sigstore"])
def test_the_programs_of_the_guide_accept_each_export(
    programs: Programs, name: str, kind: str, tmp_path: Path
) -> None:
    done = programs.ask(name, laid(tmp_path / "export", EXPORTS[kind]))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("whole", "checkpoint"),
        ("whole", "entries.jsonl"),
        ("range", "entries.jsonl"),
        ("range", "consistency"),
        ("range", "proofs/left-edge"),
        ("range", "proofs/right-edge"),
        ("hashes", "entries.jsonl"),
        ("hashes", "proofs/leaf-hashes"),
        ("events", "entries.jsonl"),
        ("events", "proofs/8.tlog-proof"),
    ],
)
def test_the_program_for_x_mod_refuses_each_changed_proof(
    programs: Programs, kind: str, path: str, tmp_path: Path
) -> None:
    content = EXPORTS[kind][path]
    for at in {"proofs/8.tlog-proof": (100, 3200), "consistency": (30,)}.get(path, (len(content) // 2,)):
        changed = bytearray(content)
        changed[min(at, len(content) - 20)] ^= 1
        done = programs.ask("x/mod", laid(tmp_path / "export", {**EXPORTS[kind], path: bytes(changed)}))
        assert done.returncode, at


@pytest.mark.skipif(not all(map(shutil.which, BASH)), reason="not every command of the guide is here")
@pytest.mark.parametrize("kind", sorted(EXPORTS))
def test_the_commands_of_the_guide_find_nothing_wrong_and_what_is_wrong(kind: str, tmp_path: Path) -> None:
    folder = laid(tmp_path / "export", EXPORTS[kind])
    (tmp_path / "trust.txt").write_text(f"{SIGNER.vkey()}\n")

    def typed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", written("sh")],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )

    done = typed()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert "the manifest is the signed one" in done.stdout
    opened = EXPORTS[kind]["payloads.jsonl"].count(b'"opened"')
    assert opened == sum(commitment in done.stdout for commitment in COMMITMENTS)
    (folder / "more.txt").write_text("")
    assert typed().returncode
    (folder / "more.txt").unlink()
    (folder / "consistency").write_text("")
    assert typed().returncode
