"""Zero retention through the real server: no byte of a picture is in any file; a kill loses it for good."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from pathlib import Path

import pytest
import yaml

from gateway.adapters.dumps import forbid_dumps
from gateway.admin.folder import TENANT, Layout
from gateway.client import Client, Refused
from tests.fakes.backend_server import serving_backend
from tests.gateway import PORTRAIT, add_subject, consent, header, make_folder, publish_notice
from tests.process import Process, serving, until

PIECE = 24
"""So many bytes of a picture in a row are found nowhere by chance."""


def folder(root: Path) -> Layout:
    layout = make_folder(root / "dev", jobs={"lease_s": 1.0, "poll_ms": 20})
    tree = yaml.safe_load(layout.config.read_text())
    tree["tenants"][TENANT]["zero_retention"] = True
    layout.config.write_text(yaml.safe_dump(tree))
    return layout


def pieces(*pictures: bytes) -> set[bytes]:
    """Return pieces of the pictures from everywhere in them; those of few different bytes are left out."""
    found = {one[at : at + PIECE] for one in pictures for at in range(0, len(one) - PIECE, len(one) // 25)}
    return {piece for piece in found if len(set(piece)) > PIECE // 2}


def found_in(directory: Path, wanted: set[bytes]) -> list[str]:
    found = []
    for path in directory.rglob("*"):
        # Files that are being written come and go.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            held = path.read_bytes()
            found += [path.name for piece in wanted if piece in held]
    return found


def stored(layout: Layout) -> list[Path]:
    return [path for path in layout.objects.rglob("*") if path.is_file() and path.name != "store"]


async def prepared(process: Process) -> Client:
    async with process.client("officer") as officer:
        await publish_notice(officer)
    app = process.client("app")
    await app.__aenter__()
    await add_subject(app, "ann")
    await consent(app, "ann")
    return app


async def test_no_byte_of_a_picture_reaches_a_disk_and_a_kill_loses_it(tmp_path: Path) -> None:
    """GDPR Art. 5(1)(c), (e); 25(1)."""
    layout = folder(tmp_path)
    data = layout.root / "data"
    picture = PORTRAIT.read_bytes()
    async with serving_backend(layout) as backend:
        async with serving(layout) as process:
            app = await prepared(process)
            with pytest.raises(Refused) as refused:
                await app.create_job(header("ann"), picture)
            assert refused.value.reason == "ZERO_RETENTION"
            assert core_limits(process) == ["0", "0"]
            answers = [answer async for answer in app.generate(header("ann"), picture)]
            result = b"".join(answer.chunk for answer in answers)
            assert result.startswith(b"\xff\xd8\xff")
            canaries = pieces(picture, result, *(call.image for call in backend.seen if call.image))
            assert len(canaries) > 40
            assert found_in(tmp_path, canaries) == []
            (tmp_path / "leak").write_bytes(b"..." + picture)
            assert found_in(tmp_path, canaries) != []  # it would be found
            (tmp_path / "leak").unlink()
            assert stored(layout) == []

            backend.hold()
            waiting = asyncio.ensure_future(_all(app, picture))
            await until(backend.held.is_set)
            assert found_in(layout.root, canaries) == []  # the database, its WAL, outputs, the store
            process.child.kill()
            await process.child.wait()
            with pytest.raises(Refused):
                await waiting
            await app.__aexit__(None, None, None)
        assert found_in(data, canaries) == []
        backend.release()
        async with serving(layout) as process, process.client("officer") as officer:
            await until(lambda: _reasons(officer, "INPUT_LOST"))
            assert len([call for call in backend.seen if call.method == "generate"]) == 2
            assert found_in(layout.root, canaries) == []
            assert stored(layout) == []


def core_limits(process: Process) -> list[str]:
    limits = Path(f"/proc/{process.child.pid}/limits").read_text().splitlines()
    (line,) = [line for line in limits if line.startswith("Max core file size")]
    return line.split()[4:6]


async def _all(app: Client, picture: bytes) -> int:
    return len([answer async for answer in app.generate(header("ann"), picture)])


async def _reasons(officer: Client, reason: str) -> bool:
    from lethe.v1 import generation_pb2 as pb

    jobs = (await officer.call(officer.generation.ListJobs, pb.ListJobsRequest())).jobs
    return reason in {job.failure.reason for job in jobs}


def test_a_system_that_cannot_promise_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "somewhere")
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(OSError, match="no switch"):
        forbid_dumps()
