"""New certificates are taken when they fit; a bad one keeps the old and raises one alarm."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.admin.pki import Authority
from gateway.rpc.certificates import CertificateFiles, CertificateInvalid, Reloader

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CA = Authority.create("a CA", NOW)


def issue() -> tuple[bytes, bytes]:
    return CA.issue("spiffe://lethe.test/gateway", NOW, hosts=("localhost",))


@pytest.fixture
def files(tmp_path) -> CertificateFiles:
    made = CertificateFiles(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    chain, key = issue()
    made.cert.write_bytes(chain)
    made.key.write_bytes(key)
    made.client_ca.write_bytes(CA.pem())
    return made


@pytest.fixture
def alarms() -> list[str]:
    return []


def test_a_start_with_a_bad_certificate_is_refused(files, alarms):
    files.cert.write_bytes(b"garbage")
    with pytest.raises(CertificateInvalid):
        Reloader(files, alarms.append)


def test_a_new_certificate_is_served_at_the_next_handshake(files, alarms):
    reloader = Reloader(files, alarms.append)
    assert reloader._fetch() is None
    chain, key = issue()
    files.cert.write_bytes(chain)
    files.key.write_bytes(key)
    assert reloader._fetch() is not None
    assert reloader._fetch() is None
    assert alarms == []


@pytest.mark.parametrize("fault", ["garbage", "missing", "other_key"])
def test_a_bad_new_certificate_keeps_the_old_and_raises_one_alarm(files, alarms, fault):
    reloader = Reloader(files, alarms.append)
    if fault == "garbage":
        files.cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    elif fault == "missing":
        files.key.unlink()
    else:
        files.key.write_bytes(issue()[1])
    assert reloader._fetch() is None
    reloader.refresh()
    assert len(alarms) == 1


def test_an_alarm_is_raised_again_after_it_was_mended(files, alarms):
    reloader = Reloader(files, alarms.append)
    good = files.key.read_bytes()
    for _ in range(2):
        files.key.unlink()
        reloader.refresh()
        files.key.write_bytes(good)
        reloader.refresh()
    assert len(alarms) == 2


def test_each_handshake_knocks(files, alarms):
    knocks: list[int] = []
    reloader = Reloader(files, alarms.append, knock=lambda: knocks.append(1))
    reloader._fetch()
    reloader._fetch()
    assert len(knocks) == 2
