from __future__ import annotations

from pathlib import Path

import pytest

from gateway.client import ClientFiles, ProfileInvalid, read_profile

GOOD = "address: localhost:1\nca: ca.pem\ncert: c.pem\nkey: c.key\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ca.pem", "c.pem", "c.key"):
        (tmp_path / name).touch()
    return tmp_path


def test_paths_are_relative_to_the_profile(folder: Path) -> None:
    (folder / "p.yaml").write_text(GOOD)
    expected = ClientFiles("localhost:1", folder / "ca.pem", folder / "c.pem", folder / "c.key")
    assert expected == read_profile(folder / "p.yaml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "mapping"),
        ("- a", "mapping"),
        ("a: [", "cannot be read"),
        (GOOD + "color: blue\n", "color"),
        (GOOD.replace("key: c.key\n", ""), "key"),
        (GOOD.replace("c.key", "gone.key"), "gone.key"),
        (GOOD.replace("localhost:1", "[1]"), "mapping"),
    ],
)
def test_a_bad_profile_says_what_is_wrong_with_it(folder: Path, text: str, named: str) -> None:
    (folder / "p.yaml").write_text(text)
    with pytest.raises(ProfileInvalid, match=named):
        read_profile(folder / "p.yaml")


def test_who_names_no_profile_is_told_how(lethe) -> None:
    result = lethe("tenant", "show")
    assert result.exit_code == 2
    assert "error: PROFILE_REQUIRED" in result.stderr
    assert "LETHE_CLIENT" in result.stderr


def test_who_names_a_missing_profile_is_told(lethe, tmp_path: Path) -> None:
    result = lethe("tenant", "show", "--as", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert "error: PROFILE_INVALID" in result.stderr


def test_the_environment_can_name_the_profile(gateway, layout, lethe, monkeypatch) -> None:
    from lethe.v1 import tenant_pb2

    gateway.script["TenantService/GetTenant"] = tenant_pb2.GetTenantResponse()
    monkeypatch.setenv("LETHE_CLIENT", str(layout.profile("auditor")))
    assert lethe("tenant", "show").exit_code == 0
    assert gateway.callers == ["spiffe://lethe.test/client/auditor"]
