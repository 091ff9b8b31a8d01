"""A request for access from its opening to the ZIP file in hand, on both databases."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest
from lethe.v1 import dsr_pb2

from gateway.client import Client, Refused
from gateway.ports.records import Dsr, StoredObject
from tests.gateway import PORTRAIT, Gateway, approve, erase, finished, fulfilled, header
from tests.integration.conftest import SUBJECT

ACCESS = dsr_pb2.Dsr.KIND_ACCESS


@pytest.mark.usefixtures("ready")
async def test_a_person_gets_what_is_held_and_nobody_gets_it_once_they_are_erased(
    gateway: Gateway, app: Client, officer: Client
) -> None:
    """GDPR Art. 15, 17."""
    job = await finished(app, (await app.create_job(header(SUBJECT), PORTRAIT.read_bytes())).job.name)
    request = dsr_pb2.CreateDsrRequest(subject=f"subjects/{SUBJECT}", kind=ACCESS)
    opened = (await officer.call(officer.dsrs.CreateDsr, request)).dsr
    async with gateway.client("second-officer") as second:
        with pytest.raises(Refused) as refusal:
            await officer.package(opened.name, bytearray().extend)
        assert refusal.value.reason == "STATE_CONFLICT"
        await approve(second, opened.name)
        await fulfilled(second, opened.name)
    (dsr,) = [row for row in await gateway.rows(Dsr) if opened.name.endswith(row.dsr_id)]

    data = bytearray()
    announced = await officer.package(opened.name, data.extend)
    assert announced.object == f"objects/{dsr.package_id}"
    package = zipfile.ZipFile(io.BytesIO(data))
    assert package.testzip() is None
    said = json.loads(package.read("data.json"))
    assert said["subject"]["id"] == SUBJECT
    (picture,) = said["images"]
    assert package.read(picture["file"]) == (await app.download(job.name))[1]
    (made,) = await gateway.leaves("package.made")
    assert made["dig"] == hashlib.sha256(data).hexdigest()

    resumed = dsr_pb2.DownloadPackageRequest(name=opened.name, offset=len(data) - 5)
    parts = [part.chunk async for part in officer.stream(officer.dsrs.DownloadPackage, resumed)]
    assert b"".join(parts) == data[-5:]
    assert [event.get("from") for event in await gateway.leaves("package.released")] == [None, len(data) - 5]

    await erase(gateway, SUBJECT)
    with pytest.raises(Refused) as refusal:
        await officer.package(opened.name, bytearray().extend)
    assert refusal.value.reason == "SUBJECT_BLOCKED"
    assert await gateway.rows(StoredObject) == []
    assert gateway.object_files() == []
