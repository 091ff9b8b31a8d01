"""A client that is not ours: `buf curl`, which learns the contract from reflection alone."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from tests.gateway import add_subject, make_folder, publish_notice
from tests.needs import needs
from tests.process import Process, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONSENT = {
    "consent": {
        "subject": "subjects/crew-1",
        "purpose": "PURPOSE_GENERATE",
        "form": "FORM_EXPLICIT",
        "separate": True,
        "notice": "notices/portraits",
        "noticeVersion": 1,
        "noticeLanguage": "en",
        "act": "ACT_CHECKBOX",
        "channel": "web",
        "uiVersion": "1",
        "withdrawalMethodShown": "one tap in the app",
    }
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    async with serving(make_folder(tmp_path_factory.mktemp("foreign") / "dev")) as started:
        async with started.client("officer") as officer, started.client("app") as app:
            await publish_notice(officer)
            await add_subject(app, "crew-1")
        yield started


async def buf_curl(process: Process, *arguments: str, path: str = "") -> tuple[int, str, str]:
    """Run `buf curl` as the app, and return its exit code, stdout and stderr."""
    beside = shutil.which("buf", path=str(Path(sys.executable).parent))
    buf = needs("buf", "buf-bin (PyPI)", beside)
    app = process.layout.profile("app")
    child = await asyncio.create_subprocess_exec(
        buf,
        "curl",
        *("--protocol", "grpc", "--cacert", str(process.layout.ca)),
        *("--cert", str(app.with_suffix(".pem")), "--key", str(app.with_suffix(".key"))),
        *arguments,
        f"https://{process.address}{path}",
        cwd=process.layout.root,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await child.communicate()
    return child.returncode or 0, out.decode(), err.decode()


async def call(process: Process, method: str, request: dict[str, Any]) -> dict[str, Any]:
    """Make a call with a deadline of ten seconds, and return its answer."""
    data = ("--header", "lethe-timeout-ms: 10000", "--data", json.dumps(request))
    code, out, err = await buf_curl(process, *data, path=f"/lethe.v1.{method}")
    assert code == 0, err
    return dict(json.loads(out))


async def test_it_lists_the_services(process):
    code, out, _ = await buf_curl(process, "--list-services")
    assert code == 0
    assert {"lethe.v1.ConsentService", "lethe.v1.DsrService", "grpc.health.v1.Health"} <= set(out.split())


async def test_it_lists_the_methods(process):
    code, out, _ = await buf_curl(process, "--list-methods")
    assert code == 0
    assert "lethe.v1.ConsentService/RecordConsent" in out.split()


async def test_it_records_a_consent_and_reads_it_back(process):
    made = await call(process, "ConsentService/RecordConsent", CONSENT)
    assert len(made["receipt"]["eventId"]) == 32
    found = await call(process, "ConsentService/GetConsent", {"name": made["consent"]["name"]})
    assert found["consent"]["subject"] == "subjects/crew-1"
    assert found["consent"]["purpose"] == "PURPOSE_GENERATE"


async def test_without_a_deadline_it_is_told_the_reason(process):
    code, _, err = await buf_curl(process, "--data", "{}", path="/lethe.v1.NoticeService/ListNotices")
    assert code == 3 << 3  # INVALID_ARGUMENT, as buf says it
    (detail,) = json.loads(err)["details"]
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(detail["value"] + "=="))
    assert info.reason == "DEADLINE_REQUIRED"
