"""Certificates for a backend and a gateway that trust one CA and nobody else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from gateway.admin.pki import Authority
from gateway.backends.studio.server import MutualTls

HOSTS = ("backend.test",)


@dataclass(frozen=True)
class Pki:
    """A CA and what it issued, PEM: (chain, key) of the backend and of the gateway."""

    ca: bytes
    backend: tuple[bytes, bytes]
    gateway: tuple[bytes, bytes]

    @classmethod
    def create(cls) -> Pki:
        now = datetime.now(UTC)
        authority = Authority.create("test", now)
        return cls(
            authority.pem(),
            authority.issue("spiffe://test/backend", now, hosts=HOSTS),
            authority.issue("spiffe://test/gateway", now),
        )

    def server_credentials(self) -> grpc.ServerCredentials:
        chain, key = self.backend
        return grpc.ssl_server_credentials([(key, chain)], self.ca, require_client_auth=True)

    def files(self, folder: Path) -> MutualTls:
        tls = MutualTls(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
        tls.cert.write_bytes(self.backend[0])
        tls.key.write_bytes(self.backend[1])
        tls.ca.write_bytes(self.ca)
        return tls
