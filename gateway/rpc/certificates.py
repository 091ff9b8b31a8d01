"""Serves certificates from files and takes new ones without dropping connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization


class CertificateInvalid(Exception):
    """The certificate files are missing, broken, or do not belong together."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Paths of the server's chain and key and of the CA that clients must chain to, all PEM."""

    cert: Path
    key: Path
    client_ca: Path

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Return (chain, key, client CA) if they can be used together.

        Raises:
            CertificateInvalid: They cannot; the message names the file, not its content.
        """
        try:
            chain, key, client_ca = (path.read_bytes() for path in (self.cert, self.key, self.client_ca))
        except OSError as error:
            raise CertificateInvalid(f"a certificate file cannot be read: {type(error).__name__}") from error
        try:
            leaf = x509.load_pem_x509_certificates(chain)[0]
            private = serialization.load_pem_private_key(key, password=None)
            x509.load_pem_x509_certificates(client_ca)
        except (ValueError, TypeError) as error:
            raise CertificateInvalid("a certificate file is not valid PEM") from error
        encoding = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if leaf.public_key().public_bytes(*encoding) != private.public_key().public_bytes(*encoding):
            raise CertificateInvalid("the certificate and the key do not belong together")
        return chain, key, client_ca


@dataclass(slots=True)
class Reloader:
    """Feeds grpc the newest usable certificate; a bad one keeps the old and raises the alarm once."""

    files: CertificateFiles
    alarm: Callable[[str], None]
    knock: Callable[[], None] = lambda: None
    _current: tuple[bytes, bytes, bytes] = field(init=False)
    _served: tuple[bytes, bytes, bytes] = field(init=False)
    _last_fault: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Read the certificates for the first time; a bad one refuses the start."""
        self._current = self._served = self.files.read()

    def credentials(self) -> grpc.ServerCredentials:
        """Return server credentials that demand a client certificate and follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._current),
            self._fetch,  # type: ignore[arg-type] # grpc takes None for "no change"; the stubs do not know
            require_client_authentication=True,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the handshake that begins uses; None means what grpc has."""
        self.knock()
        self.refresh()
        if self._current == self._served:
            return None
        self._served = self._current
        return _configuration(self._served)

    def refresh(self) -> None:
        """Look at the files and take them if they can be used; called at handshakes and on a timer."""
        try:
            self._current = self.files.read()
            self._last_fault = ""
        except CertificateInvalid as fault:
            if str(fault) != self._last_fault:
                self._last_fault = str(fault)
                self.alarm(self._last_fault)


def _configuration(files: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    chain, key, client_ca = files
    return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=client_ca)
