"""The controller's facts, the register of breaches and a training set, as an officer types them."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lethe.v1 import consent_pb2, incident_pb2, tenant_pb2, training_pb2

from gateway.client import Refused
from tests.gateway import (
    PORTRAIT,
    Gateway,
    add_subject,
    consent,
    finished,
    header,
    lethe,
    make_folder,
    publish_notice,
    running,
)

SUBJECT = "u-4711"


async def typed(gateway: Gateway, *words: str | Path) -> dict[str, object]:
    """Type a command as an officer does and return what it says."""
    env = {"LETHE_CLIENT": str(gateway.layout.profile("officer")), "NO_COLOR": "1"}
    said = await asyncio.to_thread(lethe, *words, "-o", "json", env=env)
    assert said.returncode == 0, said.stderr
    told: dict[str, object] = json.loads(said.stdout)
    return told


async def test_facts_incidents_and_training_sets_from_a_terminal(tmp_path: Path) -> None:
    facts, incident, tar = (tmp_path / name for name in ("facts.yaml", "incident.yaml", "set.tar"))
    facts.write_text("targets: [DE, NO]\ntime_zone: Europe/Berlin\ncalendar: DE\ntraining_enabled: true\n")
    aware = datetime.now(UTC) - timedelta(hours=1)
    incident.write_text(
        f"aware_time: '{aware.isoformat()}'\nkind: access\ndata_kinds: [output]\nresidences: [DE]\n"
        "about_subjects: 3\nnature: a laptop was left on a train\n"
    )
    layout = make_folder(tmp_path / "dev")
    async with (
        running(layout) as gateway,
        gateway.client("officer") as officer,
        gateway.client("app") as app,
    ):
        with pytest.raises(Refused, match="switched on"):
            await officer.call(
                officer.training.CreateDataset, training_pb2.CreateDatasetRequest(label="heads")
            )
        changed = await typed(gateway, "tenant", "update", facts, "--apply")
        assert changed["tenant"]["version"] == "1"  # type: ignore[index]
        shown = (await app.call(app.tenant.GetTenant, tenant_pb2.GetTenantRequest())).tenant
        assert (list(shown.targets), shown.calendar, shown.unsaid) == (
            ["DE", "NO"],
            "DE",
            ["establishments"],
        )

        added = await typed(gateway, "incident", "add", incident)
        first = added["incident"]["duties"][0]  # type: ignore[index]
        assert datetime.fromisoformat(first["due"]) == aware + timedelta(hours=72)
        listed = await officer.call(officer.incidents.ListIncidents, incident_pb2.ListIncidentsRequest())
        assert [one.nature for one in listed.incidents] == ["a laptop was left on a train"]

        await publish_notice(officer, "generate", "train")
        await add_subject(app, SUBJECT)
        await consent(app, SUBJECT)
        made = await app.create_job(header(SUBJECT), PORTRAIT.read_bytes())
        await finished(app, made.job.name)
        opted = await consent(app, SUBJECT, "train")
        begun = await officer.call(
            officer.training.CreateDataset, training_pb2.CreateDatasetRequest(label="heads")
        )
        name = begun.dataset.name
        async with asyncio.timeout(20):
            while True:
                found = await officer.call(
                    officer.training.GetDataset, training_pb2.GetDatasetRequest(name=name)
                )
                if found.dataset.state == training_pb2.Dataset.STATE_READY:
                    break
                await asyncio.sleep(0.1)
        await typed(gateway, "dataset", "download", name, "--out", tar)
        with tarfile.open(fileobj=io.BytesIO(tar.read_bytes())) as opened:
            *pictures, last = opened.getnames()
        assert (len(pictures), last) == (1, "manifest.json")

        await app.call(app.consents.WithdrawConsent, consent_pb2.WithdrawConsentRequest(name=opted))
        told = await typed(gateway, "dataset", "show", name)
        assert told["dataset"]["state"] == "STATE_STALE"  # type: ignore[index]
        (gone,) = told["dataset"]["removed_items"]  # type: ignore[index]
        assert pictures[0].startswith(f"items/{gone}.")
