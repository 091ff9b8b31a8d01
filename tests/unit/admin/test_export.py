from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from lethe.v1 import audit_pb2 as pb

from tests.unit.admin.scripted import Refusal

EXPORT = "AuditService/Export"


def parts(*named: tuple[str, bytes]) -> list[pb.ExportResponse]:
    made = []
    for name, content in named:
        made.append(pb.ExportResponse(file=name))
        made += [pb.ExportResponse(chunk=content[i : i + 4]) for i in range(0, len(content), 4)]
    return made


@pytest.fixture
def export(gateway, lethe, layout, tmp_path: Path):
    def run(answer: list[object], out: Path = tmp_path / "out"):
        gateway.script[EXPORT] = answer
        return lethe("audit", "export", "--as", layout.profile("auditor"), "--out", out, "-o", "json")

    return run


def test_files_are_written_as_they_are_sent(export, tmp_path: Path) -> None:
    result = export(parts(("manifest.json", b"{}"), ("policy/gdpr.yaml", b"0123456789"), ("empty", b"")))
    assert result.exit_code == 0
    assert json.loads(result.stdout)["files"] == 3
    assert (tmp_path / "out/policy/gdpr.yaml").read_bytes() == b"0123456789"
    assert (tmp_path / "out/empty").read_bytes() == b""


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/../../x",
        "a//b",
        "",
        ".",
        "..",
        ".ssh/x",
        "a/.b",
        "a\\..\\x",
        "a\0b",
        "a\nb",
        "é",
        "a/",
        "x" * 129,
        "a/" * 9 + "a",
    ],
)
def test_a_path_that_might_lead_elsewhere_writes_nothing(export, tmp_path: Path, name: str) -> None:
    result = export(parts(("good", b"x"), (name, b"bad")))
    assert result.exit_code == 1
    assert "error: EXPORT_UNSAFE" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("second", ["a", "a/b"])
def test_a_file_is_written_once_and_is_no_folder(export, tmp_path: Path, second: str) -> None:
    assert export(parts(("a", b"x"), (second, b"y"))).exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_bytes_of_no_file_are_refused(export, tmp_path: Path) -> None:
    assert export([pb.ExportResponse(chunk=b"x")]).exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_broken_export_leaves_nothing(export, tmp_path: Path) -> None:
    broken = Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    result = export([*parts(("a", b"x")), broken])
    assert result.exit_code == 1
    assert "error: STORE_UNAVAILABLE" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_asked(
    export, gateway, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    assert export(parts(("a", b"x"))).exit_code == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export(parts(("a", b"x"))).exit_code == 0
    assert (tmp_path / "out/a").read_bytes() == b"x"


def test_a_service_may_not_export(gateway, lethe, as_app, tmp_path: Path) -> None:
    gateway.script[EXPORT] = [Refusal(grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")]
    result = lethe("audit", "export", *as_app, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert list(tmp_path.iterdir()) == []
