"""A development folder, a scripted gateway behind real mutual TLS, and the command line in front of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.keys_local import LocalKeyring
from gateway.admin.folder import Layout, init_folder
from gateway.main import app
from tests.unit.admin.scripted import Gateway


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    directory = tmp_path_factory.mktemp("lethe") / "dev"
    return init_folder(directory, make_keyring=LocalKeyring.create, now=datetime.now(UTC))


@pytest.fixture(scope="session")
def listening(layout: Layout) -> Iterator[Gateway]:
    gateway = Gateway()
    server = grpc.server(ThreadPoolExecutor(4), handlers=(gateway,))
    pair = (layout.key("gateway").read_bytes(), layout.cert("gateway").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], layout.ca.read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    for profile in layout.root.glob("clients/*.yaml"):
        profile.write_text(profile.read_text().replace("127.0.0.1:8443", f"127.0.0.1:{port}"))
    server.start()
    yield gateway
    server.stop(None).wait()


@pytest.fixture
def gateway(listening: Gateway) -> Gateway:
    listening.script, listening.calls, listening.callers = {}, [], []
    return listening


Lethe = Callable[..., Result]


@pytest.fixture
def lethe(monkeypatch: pytest.MonkeyPatch) -> Lethe:
    """Run the command line as a terminal-less caller would."""
    monkeypatch.delenv("LETHE_CLIENT", raising=False)
    runner = CliRunner()

    def run(*arguments: str | Path, stdin: str | bytes = "") -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments], input=stdin)

    return run


@pytest.fixture
def as_officer(layout: Layout, gateway: Gateway) -> tuple[str, Path]:
    return ("--as", layout.profile("officer"))


@pytest.fixture
def as_app(layout: Layout, gateway: Gateway) -> tuple[str, Path]:
    return ("--as", layout.profile("app"))
