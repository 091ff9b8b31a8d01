"""`lethe init`: a folder with all that a gateway and its backend need on one machine.  Not for production.

    lethe.yaml          the gateway's configuration
    trust.txt           the vkey of its log: give it to auditors by another way than the export
    ca/                 the CA of the gateway and its clients
    backend-ca/         the CA of backends and of gateways towards them, and of nobody else
    marking-ca/         the root of what signs results, and of nobody else
    certs/              gateway, backend, gateway-to-backend, marking
    clients/            a profile (NAME.yaml), certificate and key for each client
    keys/  audit/  data/    keyring, the log's signing key, database and objects

All CA keys lie beside what they sign: whoever reads the folder can be anybody.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from gateway.admin.pki import Authority, write_secret

TRUST_DOMAIN = "lethe.test"
TENANT = "demo"
BACKEND = "studio"
WARNING = "NOT FOR PRODUCTION: development certificates, CA keys in the clear, keys on this disk"
GATEWAY_ADDRESS = "127.0.0.1:8443"
BACKEND_ADDRESS = "127.0.0.1:8444"


@dataclass(frozen=True, slots=True)
class Person:
    """A client of the development gateway and what it stands for."""

    name: str
    role: str
    is_person: bool


CLIENTS = (
    Person("app", "service", is_person=False),
    Person("officer", "privacy_officer", is_person=True),
    Person("second-officer", "privacy_officer", is_person=True),
    Person("auditor", "auditor", is_person=True),
)
"""Two officers, because the one who opens a request may not approve it."""


class FolderNotEmpty(Exception):
    """Something is there already; a development folder never overwrites."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything in the folder lies."""

    root: Path

    @property
    def config(self) -> Path:
        """The gateway's configuration."""
        return self.root / "lethe.yaml"

    @property
    def trust(self) -> Path:
        """The log's vkey."""
        return self.root / "trust.txt"

    @property
    def ca(self) -> Path:
        """The CA of the gateway and its clients."""
        return self.root / "ca" / "ca.pem"

    @property
    def backend_ca(self) -> Path:
        """The CA of backends and of gateways towards them."""
        return self.root / "backend-ca" / "ca.pem"

    @property
    def marking_ca(self) -> Path:
        """The root of what signs results as artificial."""
        return self.root / "marking-ca" / "ca.pem"

    @property
    def signing_key(self) -> Path:
        """The seed of the log's signing key, in hex."""
        return self.root / "audit" / "log.seed"

    @property
    def signing_key_mldsa(self) -> Path:
        """The seed of the log's second key, of ML-DSA-44."""
        return self.root / "audit" / "log-mldsa.seed"

    @property
    def lock(self) -> Path:
        """The lock of the logs' heads, which `lethe migrate` makes."""
        return self.root / "audit" / "lock"

    @property
    def published(self) -> Path:
        """The logs as files."""
        return self.root / "data" / "log"

    @property
    def keys(self) -> Path:
        """The keyring."""
        return self.root / "keys"

    @property
    def database(self) -> Path:
        """The records."""
        return self.root / "data" / "lethe.db"

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.root / "data" / "objects"

    def cert(self, name: str) -> Path:
        """The certificate of `gateway`, `backend`, `gateway-to-backend` or `marking`."""
        return self.root / "certs" / f"{name}.pem"

    def key(self, name: str) -> Path:
        """The key of that certificate."""
        return self.root / "certs" / f"{name}.key"

    def profile(self, client: str) -> Path:
        """The profile of a client, for `--as`."""
        return self.root / "clients" / f"{client}.yaml"


def init_folder(
    directory: Path,
    *,
    make_keyring: Callable[[Path], object],
    now: datetime,
    address: str = GATEWAY_ADDRESS,
    backend_address: str = BACKEND_ADDRESS,
) -> Layout:
    """Make the folder and return its layout; a failure leaves it empty.

    Args:
        directory: A new or empty folder; it becomes its owner's alone (0700).
        make_keyring: Makes the keyring in the folder it is given.
        now: When the certificates begin, give or take five minutes.
        address: Where the gateway will listen, `host:port`.
        backend_address: Where the backend will listen.

    Raises:
        FolderNotEmpty: There is something in it.
        OSError: The disk refuses.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FolderNotEmpty(f"{directory} is there and not empty")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    layout = Layout(directory.resolve())
    try:
        _fill(layout, make_keyring, now, address, backend_address)
    except BaseException:
        for entry in layout.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise
    return layout


def _fill(
    layout: Layout, make_keyring: Callable[[Path], object], now: datetime, address: str, backend_address: str
) -> None:
    authorities = ("ca", "backend-ca", "marking-ca")
    for name in (*authorities, "certs", "clients", "audit", "data", "data/objects", "data/log"):
        (layout.root / name).mkdir(mode=0o700)
    make_keyring(layout.keys)
    own = _authority(layout.ca, "Lethe development CA", now)
    backends = _authority(layout.backend_ca, "Lethe development backend CA", now)
    _issue(layout, own, "gateway", now, _hosts(address))
    _issue(layout, backends, "backend", now, _hosts(backend_address))
    _issue(layout, backends, "gateway-to-backend", now, ())
    marking = _authority(layout.marking_ca, "Lethe development marking root", now)
    chain, key = marking.issue_signer("Lethe development marking", now)
    layout.cert("marking").write_bytes(chain)
    write_secret(layout.key("marking"), key)
    for client in CLIENTS:
        _client(layout, own, client, now, address)
    origin = f"{TRUST_DOMAIN}/{secrets.token_hex(8)}"
    _signing_key(layout, origin)
    config = _config(layout, origin, address, backend_address)
    layout.config.write_text(f"# {WARNING}.\n" + yaml.safe_dump(config, sort_keys=False))


def _authority(ca: Path, name: str, now: datetime) -> Authority:
    made = Authority.create(name, now)
    ca.write_bytes(made.pem())
    write_secret(ca.with_name("ca.key"), made.key_pem())
    return made


def _issue(layout: Layout, authority: Authority, name: str, now: datetime, hosts: tuple[str, ...]) -> None:
    chain, key = authority.issue(f"spiffe://{TRUST_DOMAIN}/{name}", now, hosts=hosts)
    layout.cert(name).write_bytes(chain)
    write_secret(layout.key(name), key)


def _client(layout: Layout, authority: Authority, client: Person, now: datetime, address: str) -> None:
    chain, key = authority.issue(_identity(client), now)
    profile = layout.profile(client.name)
    profile.with_suffix(".pem").write_bytes(chain)
    write_secret(profile.with_suffix(".key"), key)
    tree = {
        "address": address,
        "ca": os.path.relpath(layout.ca, profile.parent),
        "cert": f"{client.name}.pem",
        "key": f"{client.name}.key",
    }
    profile.write_text(yaml.safe_dump(tree, sort_keys=False))


def _identity(client: Person) -> str:
    return f"spiffe://{TRUST_DOMAIN}/client/{client.name}"


def _hosts(address: str) -> tuple[str, ...]:
    """Return the names a server's certificate needs: loopback, and the host it listens on."""
    host = address.rpartition(":")[0].strip("[]")
    return ("localhost", "127.0.0.1", *({host} - {"", "localhost", "127.0.0.1", "0.0.0.0", "::"}))  # noqa: S104 - left out, not bound


def _signing_key(layout: Layout, origin: str) -> None:
    """Write the log's seeds and, for auditors, the keys that verify what they sign."""
    from audit.note import Algorithm, Signer

    seeds: dict[Algorithm, Path] = {"ed25519": layout.signing_key, "ml-dsa-44": layout.signing_key_mldsa}
    vkeys = []
    for algorithm, path in seeds.items():
        seed = secrets.token_bytes(32)
        write_secret(path, seed.hex().encode() + b"\n")
        vkeys.append(Signer(origin, seed, algorithm).vkey() + "\n")
    layout.trust.write_text("".join(vkeys))


def _config(layout: Layout, origin: str, address: str, backend_address: str) -> dict[str, Any]:
    """Return the configuration; paths are relative to it, but for the database, whose URL wants it whole."""

    def here(path: Path) -> str:
        return str(path.relative_to(layout.root))

    def pair(name: str) -> dict[str, str]:
        return {"cert": here(layout.cert(name)), "key": here(layout.key(name))}

    return {
        "listen": {"address": address, **pair("gateway"), "client_ca": here(layout.ca)},
        "records": {"url": f"sqlite://{quote(str(layout.database))}"},
        "objects": {"directory": here(layout.objects)},
        "keys": {"directory": here(layout.keys)},
        "audit": {
            "signing_key": here(layout.signing_key),
            "signing_key_mldsa": here(layout.signing_key_mldsa),
            "lock": here(layout.lock),
            "published": here(layout.published),
        },
        # The studio draws a backdrop and puts no watermark on.
        "marking": {
            "key": here(layout.key("marking")),
            "chain": here(layout.cert("marking")),
            "anchors": here(layout.marking_ca),
            "unsafe_no_watermark": True,
        },
        "tenants": {
            TENANT: {
                "log_origin": origin,
                "controller": {"name": "Example Portraits (development)", "contact": "privacy@lethe.test"},
            }
        },
        "callers": [
            {
                "identity": _identity(client),
                "name": client.name,
                "tenant": TENANT,
                "role": client.role,
                "is_person": client.is_person,
            }
            for client in CLIENTS
        ],
        "backends": [
            {
                "name": BACKEND,
                "address": backend_address,
                "ca": here(layout.backend_ca),
                **pair("gateway-to-backend"),
            }
        ],
    }
