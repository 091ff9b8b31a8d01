"""`lethe tenant`, `lethe incident` and `lethe dataset` against a scripted gateway."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from lethe.v1 import analytics_pb2, common_pb2, incident_pb2, tenant_pb2, training_pb2

from tests.unit.admin.scripted import Refusal

ID = "0123456789abcdef0123456789abcdef"
UPDATE, RECORD = "TenantService/UpdateTenant", "IncidentService/RecordIncident"
DOWNLOAD, CREATE = "TrainingService/DownloadDataset", "TrainingService/CreateDataset"
GET_RECORD = "AnalyticsService/GetRecord"


def asked(gateway: Any, method: str) -> Any:
    return next(request for path, request in gateway.calls if path == method)


def test_an_update_rehearses_and_changes_only_the_facts_that_the_file_names(
    gateway, lethe, as_app, tmp_path: Path
) -> None:
    gateway.script[UPDATE] = tenant_pb2.UpdateTenantResponse(tenant=tenant_pb2.Tenant(version=1))
    file = tmp_path / "facts.yaml"
    file.write_text("establishments: [NO]\ntargets: []\nthresholds: {ccpa_business: no}\netag: v0\n")
    for apply in ((), ("--apply",)):
        result = lethe("tenant", "update", file, *apply, *as_app, "-o", "json")
        assert result.exit_code == 2  # `no` is a word, and no answer
    file.write_text("establishments: [NO]\ntargets: []\nthresholds: {ccpa_business: false}\netag: v0\n")
    result = lethe("tenant", "update", file, *as_app, "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["tenant"]["version"]) == (0, "1")
    assert "rehearsal" in result.stderr
    request = asked(gateway, UPDATE)
    assert list(request.update_mask.paths) == ["establishments", "targets", "thresholds"]
    assert (list(request.tenant.establishments), request.tenant.etag) == (["NO"], "v0")
    assert (dict(request.tenant.thresholds), request.validate_only) == ({"ccpa_business": False}, True)


def test_a_file_that_names_no_fact_is_refused_before_anything_is_sent(
    gateway, lethe, as_app, tmp_path: Path
) -> None:
    file = tmp_path / "facts.yaml"
    file.write_text("etag: v0\n")
    assert lethe("tenant", "update", file, *as_app).exit_code == 2
    assert gateway.calls == []


def test_an_incident_comes_from_a_file_and_its_clocks_are_shown(
    gateway, lethe, as_app, tmp_path: Path
) -> None:
    duty = incident_pb2.BreachDuty(regime="gdpr", tell="authority", due="2026-11-23T18:20:00+01:00")
    gateway.script[RECORD] = incident_pb2.RecordIncidentResponse(
        incident=incident_pb2.Incident(name=f"incidents/{ID}", duties=[duty])
    )
    file = tmp_path / "incident.yaml"
    file.write_text(
        "aware_time: '2026-11-20T18:20:00+01:00'\nkind: access\ndata_kinds: [output, original]\n"
        'subjects: {rule: "GDPR Art. 34(3)(a)"}\n'
    )
    result = lethe("incident", "add", file, *as_app)
    assert result.exit_code == 0
    assert "2026-11-23T18:20:00+01:00" in result.stdout
    request = asked(gateway, RECORD)
    assert (request.incident.subjects.rule, len(request.incident.data_kinds)) == ("GDPR Art. 34(3)(a)", 2)
    assert request.request_id


@pytest.mark.parametrize("noun", ["incident", "dataset"])
def test_an_empty_list_is_no_error(gateway, lethe, as_app, noun: str) -> None:
    gateway.script["IncidentService/ListIncidents"] = incident_pb2.ListIncidentsResponse()
    gateway.script["TrainingService/ListDatasets"] = training_pb2.ListDatasetsResponse()
    assert lethe(noun, "list", *as_app).exit_code == 0


@pytest.mark.parametrize("profile", ["landmarks", "redact"])
def test_a_training_set_is_asked_for_with_what_is_done_about_faces(
    gateway, lethe, as_app, profile: str
) -> None:
    wanted = common_pb2.FaceProfile.Value(f"FACE_PROFILE_{profile.upper()}")
    gateway.script[CREATE] = training_pb2.CreateDatasetResponse(
        dataset=training_pb2.Dataset(name=f"datasets/{ID}", profile=wanted)
    )
    chosen = ("--profile", profile) if profile == "redact" else ()
    result = lethe("dataset", "create", "heads", *chosen, *as_app, "-o", "json")
    assert json.loads(result.stdout)["dataset"]["profile"] == f"FACE_PROFILE_{profile.upper()}"
    assert asked(gateway, CREATE).profile == wanted
    assert lethe("dataset", "create", "heads", "--profile", "bystanders", *as_app).exit_code == 2


def test_a_record_of_a_picture_is_shown_in_bins(gateway, lethe, as_app) -> None:
    gateway.script[GET_RECORD] = analytics_pb2.GetRecordResponse(face_count=1, yaw_bin=-2, is_smiling=True)
    result = lethe("subject", "record", ID, *as_app, "-o", "json")
    shown = json.loads(result.stdout)
    assert (shown["face_count"], shown["yaw_bin"], shown["is_smiling"]) == (1, -2, True)
    assert asked(gateway, GET_RECORD).object == f"objects/{ID}"


def test_a_training_set_is_written_for_its_owner_only(gateway, lethe, as_app, tmp_path: Path) -> None:
    gateway.script[DOWNLOAD] = [training_pb2.DownloadDatasetResponse(chunk=part) for part in (b"ab", b"c")]
    out = tmp_path / "set.tar"
    result = lethe("dataset", "download", f"datasets/{ID}", "--out", out, *as_app, "-o", "json")
    assert (result.exit_code, out.read_bytes()) == (0, b"abc")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_refused_download_leaves_no_file_and_is_a_refusal(gateway, lethe, as_app, tmp_path: Path) -> None:
    gateway.script[DOWNLOAD] = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "TRAINING_OFF")
    result = lethe("dataset", "download", ID, "--out", tmp_path / "set.tar", *as_app)
    assert result.exit_code == 3
    assert list(tmp_path.iterdir()) == []
