from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from gateway.adapters.keys_local import LocalKeyring
from gateway.admin.folder import CLIENTS, FolderNotEmpty, Layout, init_folder
from gateway.caller import Role
from gateway.client import read_profile
from gateway.settings import load

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make(directory: Path, **options: str) -> Layout:
    return init_folder(directory, make_keyring=LocalKeyring.create, now=NOW, **options)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path: Path) -> x509.SubjectAlternativeName:
    return certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_the_folder_and_every_secret_are_its_owners_alone(layout: Layout) -> None:
    assert stat.S_IMODE(layout.root.stat().st_mode) == 0o700
    secrets = [*layout.root.rglob("*.key"), layout.signing_key]
    assert 3 + 4 + len(CLIENTS) + 1 + 1 == len(secrets)  # CAs, certs, clients, root.key, seed
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in secrets}


def test_an_empty_folder_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert stat.S_IMODE(make(tmp_path).root.stat().st_mode) == 0o700


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(FolderNotEmpty):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_failure_leaves_the_folder_empty(tmp_path: Path) -> None:
    def broken(_directory: Path) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        init_folder(tmp_path / "dev", make_keyring=broken, now=NOW)
    assert list((tmp_path / "dev").iterdir()) == []


def test_the_configuration_loads_and_names_files_that_are_there(layout: Layout, lethe) -> None:
    settings = load(layout.config)
    assert layout.keys == settings.keys.directory
    assert f"sqlite://{layout.database}" == settings.records.url
    assert lethe("config", "check", "--config", layout.config).exit_code == 0


def test_two_officers_an_auditor_and_a_service_may_call(layout: Layout) -> None:
    callers = {caller.name: caller for caller in load(layout.config).callers}
    assert {"app", "officer", "second-officer", "auditor"} == set(callers)
    assert Role.PRIVACY_OFFICER == callers["officer"].role == callers["second-officer"].role
    assert not callers["app"].is_person
    for name, caller in callers.items():
        found = names(layout.profile(name).with_suffix(".pem"))
        assert [caller.identity] == found.get_values_for_type(x509.UniformResourceIdentifier)


def test_the_backend_trusts_a_ca_that_signed_no_client(layout: Layout) -> None:
    """The studio serves whoever its CA signed, so that CA is for gateways alone."""
    backend_ca = certificate(layout.backend_ca)
    for name in ("backend", "gateway-to-backend"):
        certificate(layout.cert(name)).verify_directly_issued_by(backend_ca)
    others = [layout.cert("gateway"), *(layout.profile(c.name).with_suffix(".pem") for c in CLIENTS)]
    for path in others:
        with pytest.raises(ValueError):
            certificate(path).verify_directly_issued_by(backend_ca)


def test_servers_are_named_by_loopback_and_by_where_they_listen(tmp_path: Path) -> None:
    layout = make(tmp_path / "dev", address="gateway.internal:443", backend_address="10.0.0.7:8444")
    assert names(layout.cert("gateway")).get_values_for_type(x509.DNSName) == [
        "localhost",
        "gateway.internal",
    ]
    addresses = names(layout.cert("backend")).get_values_for_type(x509.IPAddress)
    assert [str(address) for address in addresses] == ["127.0.0.1", "10.0.0.7"]
    assert read_profile(layout.profile("app")).address == "gateway.internal:443"


def test_trust_names_the_log_of_the_configuration(layout: Layout) -> None:
    (tenant,) = load(layout.config).tenants.values()
    assert layout.trust.read_text().startswith(tenant.log_origin + "+")


def test_two_folders_share_no_log(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert first.trust.read_text().split("+")[0] != second.trust.read_text().split("+")[0]


def test_a_path_with_spaces_works(tmp_path: Path, lethe) -> None:
    layout = make(tmp_path / "my folder #1")
    assert lethe("config", "check", "--config", layout.config).exit_code == 0
    assert "my%20folder%20%231" in load(layout.config).records.url


def test_init_warns_loudly_and_says_what_comes_next(tmp_path: Path, lethe) -> None:
    result = lethe("init", tmp_path / "dev")
    assert result.exit_code == 0
    assert "NOT FOR PRODUCTION" in result.stderr
    assert "lethe serve --config" in result.stderr
    assert "lethe.yaml" in result.stdout


def test_init_refuses_a_folder_that_is_not_empty(layout: Layout, lethe) -> None:
    result = lethe("init", layout.root)
    assert result.exit_code == 2
    assert "error: FOLDER_NOT_EMPTY" in result.stderr
