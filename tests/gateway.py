"""A real gateway inside the test's own process: real server, mutual TLS, real records, real keyring.

Only the inference backend and whoever sees to faces are fakes unless a test says otherwise; a test
may put anything between the flows and their doors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from lethe.v1 import common_pb2, consent_pb2, dsr_pb2, generation_pb2, notice_pb2, subject_pb2
from typer.testing import CliRunner, Result

from gateway import compose
from gateway.adapters.keys_local import LocalKeyring
from gateway.admin import folder
from gateway.admin.folder import Layout, Person, init_folder
from gateway.admin.pki import Authority
from gateway.client import Client, Refused
from gateway.main import app as command_line
from gateway.ports.records import Leaf, Record
from gateway.settings import Settings, load
from tests.command import terminal
from tests.fakes.faces import FakeDeidentifier
from tests.fakes.inference import FakeInference
from tests.schema import migrated

R = TypeVar("R", bound=Record)
PORTRAIT = Path(compose.__file__).parent / "admin" / "data" / "eileen-collins.jpg"
NOTICE_TEXT = "We make a studio portrait of you and keep nothing else."
QUICK: dict[str, Any] = {
    "jobs": {"poll_ms": 20, "lease_s": 2.0, "attempts": 3},
    "audit": {"sequence_interval_ms": 20},
    "sweep": {"interval_s": 0.2},
    "listen": {"drain_s": 2.0, "reload_s": 0.2},
}
"""Short intervals, so that tests need not wait."""


@dataclass
class Gateway:
    """A gateway that runs: its folder, its settings, its doors and its backend."""

    layout: Layout
    settings: Settings
    outside: compose.Outside
    backend: FakeInference

    def client(self, name: str, timeout_s: float = 20.0) -> Client:
        """Return a client of one of the profiles: app, officer, second-officer, auditor."""
        return Client.from_profile(self.layout.profile(name), timeout_s)

    async def rows(self, kind: type[R], **equal: Any) -> list[R]:
        """Return the records of a kind, as they stand behind the gateway's back."""
        return await self.outside.records.transact(lambda tx: tx.find(kind, equal=equal))

    async def leaves(self, ty: str = "") -> list[dict[str, Any]]:
        """Return the events in the log, sequenced or not, oldest first, of one type where `ty` is given."""
        found = sorted(await self.rows(Leaf, **({"ty": ty} if ty else {})), key=lambda leaf: leaf.queued_at)
        return [json.loads(leaf.line) for leaf in found]

    def object_files(self) -> list[Path]:
        """Return every file of the object store but its marker."""
        return [p for p in self.layout.objects.rglob("*") if p.is_file() and p.name != "store"]


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_folder(directory: Path, *, records_url: str = "", **sections: dict[str, Any]) -> Layout:
    """Make a development folder with quick intervals; `sections` change its configuration."""
    layout = init_folder(
        directory,
        make_keyring=LocalKeyring.create,
        now=datetime.now(UTC),
        address=f"127.0.0.1:{free_port()}",
        backend_address=f"127.0.0.1:{free_port()}",
    )
    tree = yaml.safe_load(layout.config.read_text())
    for name, changes in {**QUICK, **sections}.items():
        tree[name] = {**tree.get(name, {}), **QUICK.get(name, {}), **changes}
    if records_url:
        tree["records"] = {"url": records_url}
    layout.config.write_text(yaml.safe_dump(tree))
    return layout


def add_tenant(layout: Layout, name: str) -> None:
    """Add a controller with a log and the clients NAME-app, NAME-officer and NAME-auditor of its own."""
    ca, key = layout.ca.read_bytes(), layout.ca.with_name("ca.key").read_bytes()
    authority = Authority(load_pem_private_key(key, None), x509.load_pem_x509_certificate(ca))
    tree = yaml.safe_load(layout.config.read_text())
    origin = f"{folder.TRUST_DOMAIN}/{secrets.token_hex(8)}"
    tree["tenants"][name] = {"log_origin": origin, "controller": {"name": "Another"}}
    for role, kind in (("app", "service"), ("officer", "privacy_officer"), ("auditor", "auditor")):
        person = Person(f"{name}-{role}", kind, is_person=role != "app")
        folder._client(layout, authority, person, datetime.now(UTC), tree["listen"]["address"])
        tree["callers"].append(
            {
                "identity": folder._identity(person),
                "name": person.name,
                "tenant": name,
                "role": person.role,
                "is_person": person.is_person,
            }
        )
    layout.config.write_text(yaml.safe_dump(tree))


@contextlib.asynccontextmanager
async def running(
    layout: Layout,
    *,
    backend: FakeInference | None = None,
    wrap: Callable[[compose.Outside], compose.Outside] = lambda outside: outside,
    is_backend_real: bool = False,
    are_faces_real: bool = False,
) -> AsyncIterator[Gateway]:
    """Run a gateway on the folder until the block ends; a gateway that dies fails the test."""
    settings = load(layout.config)
    compose.make_folders(settings)
    await migrated(compose.records_url(settings))
    compose.make_lock(settings)
    fake = backend or FakeInference()
    # A backend goes by the name we configured for it, whatever it calls itself.
    fake.facts = replace(fake.facts, name=folder.BACKEND)
    seen: list[compose.Outside] = []

    def put_between(outside: compose.Outside) -> compose.Outside:
        chosen = (
            outside if is_backend_real else replace(outside, backends=dict.fromkeys(outside.backends, fake))
        )
        seen.append(wrap(chosen))
        return seen[0]

    stop, up = asyncio.Event(), asyncio.Event()
    make = compose.make_deidentifier if are_faces_real else lambda _section, _limits: FakeDeidentifier()
    with mock.patch.object(compose, "make_deidentifier", make):
        serving = asyncio.create_task(compose.serve(settings, lambda _address: up.set(), stop, put_between))
        waiting = asyncio.create_task(up.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    if serving.done():
        serving.result()
    try:
        yield Gateway(layout, settings, seen[0], fake)
    finally:
        stop.set()
        await serving


async def publish_notice(officer: Client, *purposes: str) -> None:
    """Publish `notices/portraits` in English for the purposes, `generate` if none is named."""
    values = [common_pb2.Purpose.Value(f"PURPOSE_{p.upper()}") for p in purposes or ("generate",)]
    notice = notice_pb2.Notice(
        name="notices/portraits",
        language="en",
        title="Your portrait",
        text=NOTICE_TEXT,
        purposes=values,
        retention_term="24 hours for the original, 30 days for the result",
        recipients=["studio"],
        transfer_countries=["DE"],
        withdrawal_method="one tap in the app",
    )
    await officer.call(officer.notices.PublishNotice, notice_pb2.PublishNoticeRequest(notice=notice))


async def add_subject(app: Client, subject: str, residence: str = "DE", birth_year: int = 1980) -> None:
    """Make a subject known."""
    made = subject_pb2.Subject(name=f"subjects/{subject}", residence=residence, birth_year=birth_year)
    await app.call(app.subjects.UpsertSubject, subject_pb2.UpsertSubjectRequest(subject=made))


def consent_of(subject: str, purpose: str = "generate", **changes: Any) -> consent_pb2.Consent:
    """Return a full, explicit consent to `notices/portraits`."""
    made: dict[str, Any] = {
        "subject": f"subjects/{subject}",
        "purpose": common_pb2.Purpose.Value(f"PURPOSE_{purpose.upper()}"),
        "form": consent_pb2.Consent.FORM_EXPLICIT,
        "separate": True,
        "notice": "notices/portraits",
        "notice_version": 1,
        "notice_language": "en",
        "act": consent_pb2.Consent.ACT_CHECKBOX,
        "channel": "web",
        "ui_version": "1",
        "withdrawal_method_shown": "one tap in the app",
    }
    return consent_pb2.Consent(**{**made, **changes})


async def consent(app: Client, subject: str, purpose: str = "generate", **changes: Any) -> str:
    """Record a consent and return its name."""
    request = consent_pb2.RecordConsentRequest(consent=consent_of(subject, purpose, **changes))
    return (await app.call(app.consents.RecordConsent, request)).consent.name


def header(subject: str, **changes: Any) -> generation_pb2.JobHeader:
    """Return the header of an upload."""
    made: dict[str, Any] = {
        "subject": f"subjects/{subject}",
        "purpose": common_pb2.PURPOSE_GENERATE,
        "notice": "notices/portraits",
        "parameters": generation_pb2.GenerationParameters(style="studio_grey"),
    }
    return generation_pb2.JobHeader(**{**made, **changes})


async def finished(app: Client, job: str) -> generation_pb2.Job:
    """Return the job once it has ended."""
    return [state async for state in app.watch(job)][-1]


async def erase(gateway: Gateway, subject: str) -> dsr_pb2.Dsr:
    """Open, approve by a second person, wait for, and return an erasure."""
    async with gateway.client("officer") as officer, gateway.client("second-officer") as second:
        opened = await officer.call(
            officer.dsrs.CreateDsr,
            dsr_pb2.CreateDsrRequest(subject=f"subjects/{subject}", kind=dsr_pb2.Dsr.KIND_ERASURE),
        )
        await approve(second, opened.dsr.name)
        return await fulfilled(second, opened.dsr.name)


async def approve(second: Client, dsr: str) -> dsr_pb2.ApproveDsrResponse:
    """Look at a request, and approve what was seen; look again where something came in between."""
    while True:
        seen = await second.call(second.dsrs.PreviewDsr, dsr_pb2.PreviewDsrRequest(name=dsr))
        request = dsr_pb2.ApproveDsrRequest(name=dsr, preview_etag=seen.preview_etag)
        try:
            return await second.call(second.dsrs.ApproveDsr, request)
        except Refused as refused:
            if refused.reason != "PREVIEW_STALE":
                raise


async def fulfilled(officer: Client, dsr: str) -> dsr_pb2.Dsr:
    """Return the request once it is fulfilled."""
    async with asyncio.timeout(30):
        while True:
            found = (await officer.call(officer.dsrs.GetDsr, dsr_pb2.GetDsrRequest(name=dsr))).dsr
            if found.state == dsr_pb2.Dsr.STATE_FULFILLED:
                return found
            await asyncio.sleep(0.05)


def lethe(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a person would."""
    return terminal().run(*arguments, env={**os.environ, **(env or {})})


def lethe_here(*arguments: str | Path) -> Result:
    """Run the command line in this process, which spares the time that a new one needs to start."""
    return CliRunner().invoke(command_line, [*map(str, arguments)])


def lines(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a text, one a line."""
    return [json.loads(line) for line in text.splitlines() if line]
