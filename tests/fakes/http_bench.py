"""A bench of the backend kit before a server of HTTP, over TLS, with certificates of its own."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.adapters.inference_http import Credential, Tls
from gateway.admin.pki import Authority
from gateway.ports.inference import BackendFacts
from tests.contract.backend_kit import Bench
from tests.fakes.http_server import PAGE, HttpFake

PLAIN = {"certificate": "plain HTTP on loopback; TLS is the same for every kind, and tried with one"}


@dataclass(frozen=True)
class Papers:
    """The certificates of a server, and those of somebody else at its address."""

    tls: Tls
    own: ssl.SSLContext
    anothers: ssl.SSLContext

    @classmethod
    def make(cls, folder: Path) -> Papers:
        now = datetime.now(UTC)
        contexts = []
        for name in ("own", "another"):
            authority = Authority.create(name, now)
            chain, key = authority.issue(f"spiffe://test/{name}", now, hosts=("127.0.0.1",))
            (folder / f"{name}-ca.pem").write_bytes(authority.pem())
            (folder / f"{name}.pem").write_bytes(chain)
            (folder / f"{name}.key").write_bytes(key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
            contexts.append(context)
        return cls(Tls(ca=folder / "own-ca.pem"), *contexts)


def credential(folder: Path, secret: str, scheme: str) -> Credential:
    """Return a credential in a file of ours alone."""
    file = folder / f"{scheme.lower()}.credential"
    file.write_text(secret)
    file.chmod(0o600)
    return Credential(file, scheme)


def declared(name: str = "backend-1", **changes: object) -> BackendFacts:
    """Return what an operator may have in writing of a backend that says nothing of itself."""
    made = {
        "name": name,
        "version": "1",
        "device": "hosted",
        "model_digest": hashlib.sha256(name.encode()).hexdigest(),
        "styles": ("studio_grey",),
        "region": "DE",
        "retention_s": 0,
        "trains_on_inputs": False,
        "template_extracted": True,
        "supports_cancel": True,
        "supports_forget": False,
        "source": "generated",
        "takes_prompts": True,
    }
    return BackendFacts(**{**made, **changes})


@dataclass
class HttpBench(Bench):
    """The server does what the kit asks for; `fault_at` is where its faults show."""

    server: HttpFake | None = None
    papers: Papers | None = None

    def hold(self) -> None:
        self.server.hold()

    def release(self) -> None:
        self.server.release()

    def working(self) -> int:
        return self.server.working

    def keeps(self) -> int:
        return self.server.keeps()

    def runs(self) -> int:
        return self.server.runs

    def seen(self) -> bytes:
        return bytes(self.server.wire)

    async def misbehave(self, fault: str) -> None:
        server = self.server
        server.fault, server.says, server.result = "", {}, None
        await server.stop()
        if fault == "unreachable":
            return
        papers = self.papers
        await server.start(papers and (papers.anothers if fault == "certificate" else papers.own))
        if fault == "other_job":
            server.be_another()
        elif fault == "no_picture":
            server.result = PAGE
        elif fault != "certificate":
            server.fault = fault
