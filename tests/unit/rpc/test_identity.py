"""The certificate says who calls; two answers are none."""

from __future__ import annotations

from gateway.caller import Caller, Role
from gateway.rpc.identity import Directory

APP = Caller("acme", "app", Role.SERVICE, is_person=False)
OFFICER = Caller("acme", "officer", Role.PRIVACY_OFFICER, is_person=True)
DIRECTORY = Directory({"spiffe://acme.test/app": APP, "app.acme.test": APP, "officer.acme.test": OFFICER})


def test_a_spiffe_id_names_the_caller():
    assert DIRECTORY.find({"peer_spiffe_id": [b"spiffe://acme.test/app"]}) == APP


def test_a_dns_name_names_the_caller():
    assert DIRECTORY.find({"x509_subject_alternative_name": [b"officer.acme.test"]}) == OFFICER


def test_a_spiffe_id_wins_over_names():
    auth = {
        "peer_spiffe_id": [b"spiffe://acme.test/app"],
        "x509_subject_alternative_name": [b"officer.acme.test"],
    }
    assert DIRECTORY.find(auth) == APP


def test_two_known_names_are_nobody():
    assert DIRECTORY.find({"x509_subject_alternative_name": [b"app.acme.test", b"officer.acme.test"]}) is None


def test_an_unknown_or_missing_name_is_nobody():
    assert DIRECTORY.find({}) is None
    assert DIRECTORY.find({"peer_spiffe_id": [b"spiffe://acme.test/other"]}) is None
    assert DIRECTORY.find({"x509_subject_alternative_name": [b"\xff\xfe"]}) is None
