"""A log's keys rotate under an operator's hands: real gateways, a real witness, auditors with files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml
from lethe.v1 import audit_pb2

from audit import canonical
from audit.checkpoint import Checkpoint, parse, sign
from audit.export import statement
from audit.keys import KeyBook
from audit.note import Signer
from audit.note import parse as parse_note
from gateway.admin.folder import Layout
from tests import gateway as commands
from tests.gateway import add_subject, free_port, make_folder, publish_notice
from tests.process import PATIENCE_S, Process, serving, until

NAME = "witness.test/w"
SEEDS = {"signing_key": "log.seed", "signing_key_mldsa": "log-mldsa.seed"}


async def lethe(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(commands.lethe, *arguments)


async def verified(export: Path, trust: Path, *more: str | Path) -> str:
    """Return the first fault that an auditor finds who has nothing of ours but `audit.verify`."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "audit.verify", str(export), "--trust", str(trust), *map(str, more)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (4 if done.stderr else 0)
    return done.stderr


def change(layout: Layout, **sections: dict[str, Any]) -> None:
    tree = yaml.safe_load(layout.config.read_text())
    for name, changes in sections.items():
        tree[name] = {**tree[name], **changes}
    layout.config.write_text(yaml.safe_dump(tree))


def rotate(layout: Layout) -> None:
    """Do what docs/how-to/rotate-log-keys.md says."""
    audit = layout.signing_key.parent
    for key, name in SEEDS.items():
        (audit / name).rename(audit / f"old-{name}")
        (audit / name).write_text(secrets.token_hex(32) + "\n")
        change(layout, audit={f"retiring_{key}": f"audit/old-{name}"})


def beside(layout: Layout, root: Path) -> Layout:
    """Return the folder of a second gateway on the same database, lock, keyring and objects."""
    # What lies in data/ is shared, and written to while it is copied.
    shutil.copytree(layout.root, root, ignore=shutil.ignore_patterns("data"))
    made, port = Layout(root), free_port()
    shared = {"lock": str(layout.lock), "published": str(layout.published)}
    change(made, audit=shared, objects={"directory": str(layout.objects)})
    change(made, keys={"directory": str(layout.keys)}, listen={"address": f"127.0.0.1:{port}"})
    for profile in made.profile("app").parent.glob("*.yaml"):
        tree = yaml.safe_load(profile.read_text())
        profile.write_text(yaml.safe_dump({**tree, "address": f"127.0.0.1:{port}"}))
    return made


async def shown(process: Process) -> tuple[str, Checkpoint, KeyBook]:
    """Return the newest published checkpoint and the keys, as the gateway shows them."""
    async with process.client("auditor") as auditor:
        found = await auditor.call(auditor.audit.GetCheckpoint, audit_pb2.GetCheckpointRequest())
    return found.checkpoint, parse(parse_note(found.checkpoint)[0]), KeyBook.parse("\n".join(found.vkeys))


async def grown(process: Process, size: int) -> tuple[str, Checkpoint, KeyBook]:
    """Return the newest checkpoint once it is larger."""

    async def is_larger() -> bool:
        return (await shown(process))[1].size > size

    await until(is_larger)
    return await shown(process)


async def export(layout: Layout, out: Path, *more: str | Path) -> Path:
    done = await lethe("audit", "export", "--out", out, "--as", layout.profile("auditor"), *more)
    assert done.returncode == 0, done.stderr
    return out


async def trust(layout: Layout, path: Path) -> Path:
    """Write the log's keys as an auditor gets them."""
    done = await lethe("audit", "head", "--keys", "--as", layout.profile("auditor"))
    path.write_text(done.stdout)  # noqa: ASYNC240 - a test may wait for its disk
    return path


def forge(folder: Path, thief: Signer) -> None:
    """Sign the checkpoint and the manifest of an export again, with the old key."""
    head = parse(parse_note((folder / "checkpoint").read_text())[0])
    forged = sign(head.origin, head.size, head.root, thief).encode()
    manifest = canonical.parse((folder / "manifest.json").read_bytes(), 1 << 20)
    manifest["files"]["checkpoint"] = hashlib.sha256(forged).hexdigest()
    stated = canonical.encode(manifest) + b"\n"
    signature = thief.sign(statement(head.origin, stated)).encode()
    for name, content in {
        "checkpoint": forged,
        "manifest.json": stated,
        "manifest.sig": signature,
    }.items():
        (folder / name).write_bytes(content)


@contextlib.asynccontextmanager
async def witnessing(folder: Path, log: Path, port: int) -> AsyncIterator[None]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.main", "audit", "witness", "--dir", str(folder)),
        *("--log", str(log), "--listen", f"127.0.0.1:{port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert b"listening" in await child.stdout.readline()
        yield
    finally:
        child.terminate()
        await child.wait()


async def test_keys_rotate_with_one_restart_before_the_eyes_of_a_witness(tmp_path: Path) -> None:
    layout, port = make_folder(tmp_path / "dev"), free_port()
    vkey = (await lethe("audit", "witness", "--dir", tmp_path / "w", "--init", NAME)).stdout.split()[0]
    (layout.root / "quorum.policy").write_text(f"witness w {vkey}\nquorum w\n")
    asked = {"vkey": vkey, "url": f"http://127.0.0.1:{port}"}
    change(layout, audit={"policy": "quorum.policy", "witnesses": [asked]})

    async with witnessing(tmp_path / "w", layout.trust, port):
        async with serving(layout) as process:
            async with process.client("officer") as officer:
                await publish_notice(officer)
            before = (await grown(process, 0))[1]
            first = await export(layout, tmp_path / "first", "--size", str(before.size))
            old = await trust(layout, tmp_path / "old.txt")
            assert await process.drain() == 0
        rotate(layout)
        async with serving(layout) as process:
            text, turned, book = await grown(process, before.size)
            assert book.check_handover(text) == turned
            assert "witness.test/w" in text  # which knows the old keys alone
            new = await trust(layout, tmp_path / "new.txt")
            second = await export(layout, tmp_path / "second", "--previous", str(before.size))
            again = await export(layout, tmp_path / "again", "--size", str(before.size))
            # An export is an event: the next head is of the new keys alone, which the witness does not know.
            await until(lambda: b"publish_failing" in process.said())
            assert (await shown(process))[1] == turned

    # The operator gives the witness the new file; the old seeds are gone.
    for name in SEEDS.values():
        (layout.signing_key.parent / f"old-{name}").unlink()
    change(layout, audit={f"retiring_{key}": None for key in SEEDS})
    async with witnessing(tmp_path / "w", new, port), serving(layout) as process:
        after = (await grown(process, turned.size))[1]
        third = await export(layout, tmp_path / "third", "--previous", str(turned.size))
        revoke = (
            "--key",
            book.keys[0].verifier.key_id.hex(),
            "--reason",
            "key-stolen",
            "--config",
            layout.config,
        )
        rehearsed = await lethe("audit", "revoke", *revoke, "--size", str(before.size), "-o", "json")
        assert json.loads(rehearsed.stdout)["revoked"][0]["checkpoints"] == 2
        assert "rehearsal" in rehearsed.stderr
        assert "revoked=" not in (await trust(layout, tmp_path / "rehearsed.txt")).read_text()
        revoked = await lethe("audit", "revoke", *revoke, "--size", str(before.size), "--apply")
        assert revoked.returncode == 0, revoked.stderr
        less = await trust(layout, tmp_path / "less.txt")
        fourth = await export(layout, tmp_path / "fourth", "--previous", str(after.size))

    assert await verified(first, old) == await verified(first, new) == ""
    assert await verified(second, new, "--previous", first) == ""
    assert await verified(again, new) == ""
    assert await verified(third, new, "--previous", second) == ""
    for folder in (first, second):  # whose checkpoints it signed, too
        assert (await verified(folder, less)).startswith("key_revoked")
    assert await verified(third, less) == await verified(fourth, less, "--previous", third) == ""
    for folder in (second, again, third):
        assert "note_unknown_keys" in await verified(folder, old)
    assert b'"ty":"log.rekeyed"' in (second / "entries.jsonl").read_bytes()
    done = await lethe("audit", "fsck", layout.published / after.origin, "--trust", new)
    assert done.returncode == 0, done.stderr


async def test_a_gateway_that_still_runs_with_the_old_keys_signs_nothing_more(tmp_path: Path) -> None:
    layout = make_folder(tmp_path / "dev")
    async with serving(layout) as old:
        async with old.client("officer") as officer:
            await publish_notice(officer)
        await grown(old, 0)
        other = beside(layout, tmp_path / "other")
        rotate(other)
        async with serving(other) as new:
            text, turned, book = await shown(new)
            assert book.check_handover(text) == turned
            async with old.client("app") as app:
                await add_subject(app, "crew-4711")  # served, and sequenced by the other one
            text, head, book = await grown(new, turned.size)
            assert book.open(text) == head
            await until(lambda: b"sequence_failing" in old.said())
            refused = await lethe(
                "audit", "export", "--out", tmp_path / "none", "--as", layout.profile("auditor")
            )
            assert "AUDIT_UNAVAILABLE" in refused.stderr
            trusted = await trust(other, tmp_path / "new.txt")
            made = await export(other, tmp_path / "export")
            assert await new.drain() == 0
        await old.drain()

    assert await verified(made, trusted) == ""
    forge(made, Signer(head.origin, bytes.fromhex(layout.signing_key.read_text())))
    assert (await verified(made, trusted)).startswith("key_retired")

    again = await asyncio.to_thread(commands.lethe, "serve", "--config", layout.config)
    assert again.returncode == 1
    assert "log_key_retired" in again.stderr
