"""The whole story with a hardware module as the root, through the real server."""

from __future__ import annotations

import contextlib
import shutil

import pytest
import yaml
from lethe.v1 import dsr_pb2, generation_pb2, key_pb2

from audit import verify
from gateway.admin.folder import Layout
from gateway.client import Client, Refused
from tests.fakes.backend_server import serving_backend
from tests.gateway import (
    PORTRAIT,
    add_subject,
    consent,
    finished,
    fulfilled,
    header,
    lethe,
    make_folder,
    publish_notice,
)
from tests.process import Process, serving, until
from tests.softhsm import LABEL, PIN, SoftHsm, make_softhsm

ALICE, BOB = "crew-4711", "crew-4712"


@pytest.fixture
def hsm(tmp_path, monkeypatch) -> SoftHsm:
    return make_softhsm(tmp_path / "hsm", monkeypatch)


@pytest.fixture
def layout(tmp_path, hsm) -> Layout:
    """A development folder without a keyring."""
    made = make_folder(tmp_path / "dev")
    tree = yaml.safe_load(made.config.read_text())
    place = {"module": str(hsm.place.module), "token": LABEL, "pin_file": str(hsm.place.pin_file)}
    tree["keys"] = {"kind": "pkcs11", "pkcs11": place}
    made.config.write_text(yaml.safe_dump(tree))
    shutil.rmtree(made.keys)
    return made


async def portrait(app: Client, subject: str) -> generation_pb2.Job:
    return await finished(app, (await app.create_job(header(subject), PORTRAIT.read_bytes())).job.name)


async def picture(app: Client, job: str) -> bytes:
    return (await app.download(job))[1]


async def erased(process: Process, subject: str) -> dsr_pb2.Dsr:
    async with process.client("officer") as officer, process.client("second-officer") as second:
        request = dsr_pb2.CreateDsrRequest(subject=f"subjects/{subject}", kind=dsr_pb2.Dsr.KIND_ERASURE)
        opened = await officer.call(officer.dsrs.CreateDsr, request)
        await second.call(second.dsrs.ApproveDsr, dsr_pb2.ApproveDsrRequest(name=opened.dsr.name))
        return await fulfilled(second, opened.dsr.name)


async def test_a_portrait_is_made_kept_and_erased_under_keys_of_a_token(hsm, layout) -> None:
    assert lethe("key", "init", "--config", layout.config).returncode == 0
    async with serving_backend(layout), serving(layout) as process:
        async with process.client("app") as app, process.client("officer") as officer:
            await publish_notice(officer)
            for subject in (ALICE, BOB):
                await add_subject(app, subject)
                await consent(app, subject)
            jobs = {subject: (await portrait(app, subject)).name for subject in (ALICE, BOB)}
            before = await picture(app, jobs[BOB])
            found = await erased(process, ALICE)
            # The survivor was re-wrapped under keys that the token made meanwhile.
            assert before == await picture(app, jobs[BOB])
            with pytest.raises(Refused):
                await picture(app, jobs[ALICE])
            state = await officer.call(officer.keys.GetKeyStatus, key_pb2.GetKeyStatusRequest())
            assert state.adapter == "pkcs11"
            assert not state.copies_outside_our_control
            assert not state.experimental
            assert sum(epoch.wrapped_keys for epoch in state.epochs) > 0

            request = dsr_pb2.GetCertificateRequest(name=found.certificate)

            async def certificate() -> dsr_pb2.GetCertificateResponse | None:
                with contextlib.suppress(Refused):
                    return await officer.call(officer.dsrs.GetCertificate, request)
                return None

            await until(certificate)
            proved = await certificate()
            assert proved is not None
            report = verify.verify_certificate(proved.tlog_proof, proved.opening, layout.trust.read_text())
            assert (report.verdict, report.fault) == ("valid", "")
            assert report.opening["key_service"] == "pkcs11"

            # The token is pulled out: nothing is opened or sealed.  Put back, all goes on.
            hsm.take_out()
            with pytest.raises(Refused) as refusal:
                await add_subject(app, "crew-4713")
            assert refusal.value.reason == "KEY_SERVICE_UNAVAILABLE"
            hsm.put_back()
            await add_subject(app, "crew-4713")
        assert await process.drain() == 0
        assert PIN.encode() not in process.said()


def test_a_token_is_made_once_by_the_command(hsm, layout) -> None:
    first, second = (lethe("key", "init", "--config", layout.config) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 1)
    assert "KEYS_EXIST" in second.stderr
    hsm.place.pin_file.write_text("wrong-4711")
    refused = lethe("key", "init", "--config", layout.config)
    assert refused.returncode == 1
    assert "KEY_SERVICE_UNAVAILABLE (pin_refused)" in refused.stderr
    assert "4711" not in refused.stderr + refused.stdout


def test_the_configuration_is_checked(hsm, layout) -> None:
    assert lethe("config", "check", "--config", layout.config).returncode == 0
    hsm.place.pin_file.unlink()
    missing = lethe("config", "check", "--config", layout.config)
    assert missing.returncode == 1
    assert "keys.pkcs11.pin_file" in missing.stderr
