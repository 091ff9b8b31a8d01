"""The configuration: read once, refused whole, and quiet about values."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import ConfigInvalid, load

CANARY = "hunter2-canary"


def tree() -> dict[str, Any]:
    """Return the smallest configuration that is accepted."""
    backend = {"name": "studio", "address": "h:1", "ca": "ca.pem", "cert": "c.pem", "key": "c.key"}
    return {
        "listen": {"cert": "certs/g.pem", "key": "/abs/g.key", "client_ca": "ca.pem"},
        "records": {"url": "sqlite:////var/lib/lethe.db"},
        "objects": {"directory": "objects"},
        "keys": {"directory": "keys"},
        "audit": {"signing_key": "log.seed"},
        "tenants": {"acme": {"log_origin": "lethe.test/0a", "controller": {"name": "Acme"}}},
        "callers": [{"identity": "spiffe://a/app", "name": "app", "tenant": "acme", "role": "service"}],
        "backends": [backend],
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "lethe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def refused(path: Path) -> str:
    with pytest.raises(ConfigInvalid) as fault:
        load(path)
    assert CANARY not in str(fault.value)
    assert CANARY not in repr(fault.value)
    return str(fault.value)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(write(tmp_path, tree()))
    assert settings.listen.cert == tmp_path / "certs" / "g.pem"
    assert settings.listen.key == Path("/abs/g.key")
    assert settings.backends[0].ca == tmp_path / "ca.pem"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load(write(tmp_path, tree()))
    with pytest.raises(ValueError, match="frozen"):
        settings.jobs.workers = 2


@pytest.mark.parametrize("place", [(), ("listen",), ("tenants", "acme"), ("callers", 0), ("backends", 0)])
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, place: tuple[Any, ...]) -> None:
    content = tree()
    section: Any = content
    for step in place:
        section = section[step]
    section["passwrod"] = CANARY
    assert "passwrod" in refused(write(tmp_path, content))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("records", "url", [CANARY]),
        ("jobs", "workers", CANARY),
        ("jobs", "lease_s", 0),
        ("limits", "max_pixels", -1),
        ("telemetry", "level", CANARY),
        ("sweep", "interval_s", "nan"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_without_being_quoted(
    tmp_path: Path, section: str, key: str, value: object
) -> None:
    content = tree()
    content[section] = {**content.get(section, {}), key: value}
    assert f"{section}.{key}" in refused(write(tmp_path, content))


@pytest.mark.parametrize("missing", sorted(tree()))
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    content = tree()
    del content[missing]
    assert missing in refused(write(tmp_path, content))


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tree() | {"jobs": {"workers": 3, "attempts": 7}}
    monkeypatch.setenv("LETHE__JOBS__WORKERS", "5")
    settings = load(write(tmp_path, content))
    assert (settings.jobs.workers, settings.jobs.attempts) == (5, 7)


def test_a_misspelt_section_in_the_environment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE__JOB__WORKERS", CANARY)
    assert "LETHE__JOB__WORKERS" in refused(write(tmp_path, tree()))


def test_a_bad_value_from_the_environment_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE__JOBS__WORKERS", CANARY)
    refused(write(tmp_path, tree()))


def test_a_text_from_the_environment_that_should_be_a_list_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LETHE__CALLERS", CANARY)
    refused(write(tmp_path, tree()))


def _twice(content: dict[str, Any], what: str) -> dict[str, Any]:
    if what == "callers":
        content["callers"] = [content["callers"][0], {**content["callers"][0], "name": "again"}]
    elif what == "backends":
        content["backends"] *= 2
    elif what == "tenants":
        content["tenants"]["other"] = content["tenants"]["acme"]
    else:
        content["callers"][0]["tenant"] = "nobody"
    return content


@pytest.mark.parametrize("what", ["callers", "backends", "tenants", "unknown tenant"])
def test_what_would_be_ambiguous_is_refused(tmp_path: Path, what: str) -> None:
    assert what.rsplit(maxsplit=1)[-1] in refused(write(tmp_path, _twice(tree(), what)))


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"a: [", b"\xff\xfe", None])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lethe.yaml"
    if content is not None:
        path.write_bytes(content)
    assert "configuration file" in refused(path)


@pytest.mark.parametrize("key", ["", "Acme", "a b", "../a", "x" * 64])
def test_a_tenant_is_named_by_a_code(tmp_path: Path, key: str) -> None:
    content = tree()
    content["tenants"] = {key: content["tenants"]["acme"]}
    content["callers"] = []
    refused(write(tmp_path, content))


def test_timestamps_without_their_extra_are_refused_with_the_remedy(tmp_path, monkeypatch) -> None:
    content = tree()
    content["audit"]["timestamps"] = {"url": "https://tsa.test/", "roots": "roots.pem"}
    found = load(write(tmp_path, content)).audit.timestamps if _has_extra() else None
    assert found is None or found.roots == tmp_path / "roots.pem"
    monkeypatch.setattr("gateway.settings.find_spec", lambda _name: None)
    with pytest.raises(ConfigInvalid, match=r"audit\.timestamps needs the extra .*lethe\[timestamp\]"):
        load(write(tmp_path, content))


def test_marks_need_their_extra_and_one_word_on_the_watermark(tmp_path, monkeypatch) -> None:
    content = tree()
    content["marking"] = {"key": "m.key", "chain": "m.pem", "anchors": "roots.pem"}
    assert load(write(tmp_path, content)).marking.key == tmp_path / "m.key"
    both = content | {
        "marking": content["marking"] | {"watermark_elsewhere": True, "unsafe_no_watermark": True}
    }
    with pytest.raises(ConfigInvalid, match="a watermark is put on elsewhere, or there is none"):
        load(write(tmp_path, both))
    monkeypatch.setattr("gateway.settings.find_spec", lambda _name: None)
    with pytest.raises(ConfigInvalid, match=r"marking needs the extra .*lethe\[c2pa\]"):
        load(write(tmp_path, content))


def test_a_model_for_prompts_without_its_extra_is_refused_with_the_remedy(tmp_path, monkeypatch) -> None:
    assert not load(write(tmp_path, tree())).prompts.ner
    content = tree() | {"prompts": {"ner": True}}
    monkeypatch.setattr("gateway.settings.find_spec", lambda _name: None)
    with pytest.raises(ConfigInvalid, match=r"prompts\.ner needs the extra .*lethe\[ner\]"):
        load(write(tmp_path, content))


def _has_extra() -> bool:
    return find_spec("rfc3161_client") is not None


TOKEN = {"module": "/usr/lib/m.so", "token": "lethe", "pin_file": "pin"}


def with_keys(audit: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    made = tree()
    return made | {"keys": keys, "audit": made["audit"] | (audit or {})}


def test_a_token_needs_no_keyring_directory(tmp_path: Path) -> None:
    settings = load(write(tmp_path, with_keys(audit={"lock": "lock"}, kind="pkcs11", pkcs11=TOKEN)))
    assert settings.keys.pkcs11 is not None
    assert settings.keys.pkcs11.pin_file == tmp_path / "pin"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({}, "keys.directory"),
        ({"kind": "pkcs11"}, "keys.pkcs11"),
        ({"kind": "pkcs11", "pkcs11": TOKEN}, "audit.lock"),
        ({"kind": "paper"}, "keys.kind"),
        ({"kind": "pkcs11", "pkcs11": {**TOKEN, "pin": CANARY}}, "keys.pkcs11.pin"),
    ],
)
def test_a_key_service_without_what_it_needs_is_refused(
    tmp_path: Path, keys: dict[str, Any], named: str
) -> None:
    assert named in refused(write(tmp_path, with_keys(**keys)))


def test_a_key_service_whose_extra_is_missing_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.settings.find_spec", lambda _module: None)
    content = with_keys(directory="keys", kind="pkcs11", pkcs11=TOKEN)
    assert "lethe[hsm]" in refused(write(tmp_path, content))


AWS = {"region": "eu-central-1"}
TRANSIT = {"url": "https://bao.test:8200", "token_file": "credential"}


@pytest.mark.parametrize(("kind", "section"), [("aws", AWS), ("transit", TRANSIT)])
def test_keys_far_away_need_a_register_nearby(tmp_path: Path, kind: str, section: dict[str, Any]) -> None:
    whole = {"directory": "register", "kind": kind, kind: section}
    assert load(write(tmp_path, with_keys(**whole))).keys.directory == tmp_path / "register"
    assert "keys.directory" in refused(write(tmp_path, with_keys(**{**whole, "directory": None})))
    assert f"keys.{kind}" in refused(write(tmp_path, with_keys(directory="register", kind=kind)))


@pytest.mark.parametrize("days", [6, 31])
def test_a_waiting_period_that_kms_would_refuse_is_refused(tmp_path: Path, days: int) -> None:
    content = with_keys(directory="register", kind="aws", aws={**AWS, "waiting_days": days})
    assert "keys.aws.waiting_days" in refused(write(tmp_path, content))


def test_a_namespace_that_no_alias_may_hold_is_refused(tmp_path: Path) -> None:
    content = with_keys(directory="register", kind="aws", aws={**AWS, "namespace": "eu.prod"})
    assert "keys.aws.namespace" in refused(write(tmp_path, content))


S3 = {"bucket": "portraits", "credentials": "s3.ini"}


def with_objects(**section: Any) -> dict[str, Any]:
    return {**tree(), "objects": section}


def test_objects_may_lie_in_a_bucket(tmp_path: Path) -> None:
    settings = load(write(tmp_path, with_objects(kind="s3", s3=S3)))
    assert settings.objects.s3 is not None
    assert settings.objects.s3.credentials == tmp_path / "s3.ini"
    assert settings.objects.s3.url == "https://s3.us-east-1.amazonaws.com"
    assert settings.objects.directory is None


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "s3"},
        {"kind": "s3", "directory": "objects"},
        {"kind": "s3", "directory": "objects", "s3": S3},
        {"kind": "local", "s3": S3},
        {"directory": "objects", "s3": S3},
        {},
    ],
)
def test_a_directory_and_a_bucket_exclude_each_other(tmp_path: Path, section: dict[str, Any]) -> None:
    assert "kind" in refused(write(tmp_path, with_objects(**section)))


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1/"])
def test_plain_http_is_for_loopback_and_must_be_asked_for(tmp_path: Path, endpoint: str) -> None:
    asked = {**S3, "endpoint": endpoint, "unsafe_http": True}
    load(write(tmp_path, with_objects(kind="s3", s3=asked)))
    assert "loopback" in refused(write(tmp_path, with_objects(kind="s3", s3={**S3, "endpoint": endpoint})))
    elsewhere = {**asked, "endpoint": "http://s3.lethe.test"}
    assert "loopback" in refused(write(tmp_path, with_objects(kind="s3", s3=elsewhere)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("endpoint", f"https://{CANARY}@s3.lethe.test"),
        ("endpoint", f"https://s3.lethe.test/{CANARY}"),
        ("prefix", f"/{CANARY}/"),
        ("prefix", f"../{CANARY}"),
        ("prefix", CANARY),
        ("bucket", "Not_A_Bucket"),
        ("secret_access_key", CANARY),
    ],
)
def test_a_bucket_is_named_well_and_no_secret_is_a_value(tmp_path: Path, key: str, value: str) -> None:
    assert key in refused(write(tmp_path, with_objects(kind="s3", s3={**S3, key: value})))


def test_where_nothing_is_kept_every_process_has_workers(tmp_path: Path) -> None:
    content = tree()
    (tenant,) = content["tenants"].values()
    tenant["zero_retention"] = True
    content["jobs"] = {"workers": 0}
    assert "zero_retention" in refused(write(tmp_path, content))


CONTRACT: dict[str, Any] = {
    "region": "DE",
    "operator": "Example Hosting GmbH",
    "input_retention_s": 0,
    "output_retention_s": 0,
    "trains_on_inputs": False,
    "face_features": "none",
    "styles": ["oil"],
}


def oip(**changes: Any) -> dict[str, Any]:
    """Return a backend behind the Open Inference Protocol."""
    made = {
        "name": "triton",
        "kind": "oip",
        "address": "h:1",
        "ca": "ca.pem",
        "contract": CONTRACT,
        "model": "portrait",
        "input": {"tensor": "IMAGE"},
        "output": {"tensor": "RESULT", "form": "chw", "batched": True},
    }
    return {**made, **changes}


def test_a_backend_without_a_kind_speaks_our_own_protocol(tmp_path: Path) -> None:
    content = tree()
    content["backends"].append(
        {**content["backends"][0], "name": "two", "kind": "lethe", "contract": CONTRACT}
    )
    content["backends"].append(oip())
    settings = load(write(tmp_path, content))
    assert [backend.kind for backend in settings.backends] == ["lethe", "lethe", "oip"]
    assert settings.backends[2].ca == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": "psychic"}, "union_tag_invalid"),
        ({"kind": ["oip"]}, "union_tag_invalid"),
        ({"contract": None}, "contract"),
        ({"contract": {**CONTRACT, "styles": []}}, "contract.styles"),
        ({"contract": {**CONTRACT, "styles": ["oil", "ink"]}}, "style_tensor"),
        ({"contract": {**CONTRACT, "takes_prompts": True}}, "prompt_tensor"),
        ({"prompt_tensor": "PROMPT"}, "prompt_tensor"),
        ({"contract": {**CONTRACT, "supports_forget": True}}, "supports_forget"),
        ({"contract": {**CONTRACT, "region": "Europe"}}, "region"),
        ({"contract": {**CONTRACT, "input_retention_s": -1}}, "input_retention_s"),
        ({"contract": {**CONTRACT, "safeguards": {"mechanism": "EXPLICIT_CONSENT_49_1_A"}}}, "mechanism"),
        ({"contract": {**CONTRACT, "promise": CANARY}}, "promise"),
        ({"cert": "c.pem"}, "certificate"),
        ({"pseudonym": "subject"}, "pseudonym"),
        ({"input": {"tensor": "IMAGE", "form": "jpeg2000"}}, "form"),
    ],
)
def test_a_backend_whose_contract_or_mapping_does_not_hold_together_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    content = tree()
    content["backends"] = [oip(**changes)]
    assert named in refused(write(tmp_path, content))


PROMISED = {**{key: value for key, value in CONTRACT.items() if key != "styles"}, "takes_prompts": True}
HTTP: dict[str, dict[str, Any]] = {
    "openai_images": {"url": "https://images.test/v1", "model": "painter-1", "credential": "k"},
    "comfyui": {
        "url": "http://127.0.0.1:8188",
        "workflow": "workflow.json",
        "image": "1.image",
        "output": "3",
        "prompt": "2.text",
    },
    "fal": {"model": "fal-ai/painter/edit", "credential": "k", "platform_credential": "a"},
}


def http(kind: str, **changes: Any) -> dict[str, Any]:
    made = {"name": "far", "kind": kind, "contract": PROMISED, "styles": {"oil": "In oil."}, **HTTP[kind]}
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


@pytest.mark.parametrize("kind", HTTP)
def test_each_kind_behind_http_has_its_section(tmp_path: Path, kind: str) -> None:
    content = tree()
    content["backends"] = [http(kind)]
    (backend,) = load(write(tmp_path, content)).backends
    assert (backend.kind, backend.contract.takes_prompts) == (kind, True)
    for name in ("credential", "platform_credential", "workflow"):
        path = getattr(backend, name, None)
        assert path is None or path.parent == tmp_path


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("openai_images", {"contract": None}, "contract"),
        ("openai_images", {"styles": {}}, "styles"),
        ("openai_images", {"styles": {"Oil": "x"}}, "styles"),
        ("openai_images", {"url": "http://images.test/v1"}, "loopback"),
        ("openai_images", {"url": "https://images.test/v1?k=v"}, "url"),
        ("openai_images", {"url": "https://me:secret@images.test/v1"}, "url"),
        ("openai_images", {"cert": "c.pem"}, "certificate"),
        ("openai_images", {"contract": {**PROMISED, "styles": ["oil"]}}, "contract.styles"),
        ("openai_images", {"contract": {**PROMISED, "supports_forget": True}}, "supports_forget"),
        ("comfyui", {"image": "image"}, "image"),
        ("comfyui", {"pseudonym": "subject"}, "pseudonym"),
        ("comfyui", {"url": "http://192.0.2.7:8188"}, "loopback"),
        ("fal", {"platform_credential": None}, "platform_credential"),
        ("fal", {"platform_url": "http://api.test/v1"}, "loopback"),
        ("fal", {"model": "../admin"}, "model"),
        ("fal", {"pseudonym": "subject"}, "pseudonym"),
    ],
)
def test_a_backend_behind_http_that_does_not_hold_together_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], named: str
) -> None:
    content = tree()
    content["backends"] = [http(kind, **changes)]
    assert named in refused(write(tmp_path, content))
