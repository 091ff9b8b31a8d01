"""The combinations of real parts that one suite runs on, and a look at each behind the gateway's back.

files    SQLite, objects in files, a keyring in a directory
bucket   PostgreSQL, objects in a versioned bucket (SeaweedFS), a keyring in a directory
token    SQLite, objects in files, a hardware module (SoftHSM) as the root
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import yaml

from gateway import compose
from gateway.adapters.objects_s3 import MARKER
from gateway.adapters.sql.records import sqlite_path
from gateway.admin.folder import Layout
from gateway.settings import Settings, load
from tests.gateway import make_folder
from tests.postgres import Postgres, running_postgres
from tests.seaweed import Seaweed, running_seaweed
from tests.softhsm import LABEL, SoftHsm

PLACES = ("files", "bucket", "token")


@dataclass(frozen=True)
class Parts:
    """The servers that a combination needs; none for plain files."""

    postgres: Postgres | None = None
    seaweed: Seaweed | None = None
    hsm: SoftHsm | None = None


@contextlib.contextmanager
def running_parts(place: str) -> Iterator[Parts]:
    """Yield what `files` or `bucket` needs, for tests that share no servers with others."""
    if place == "files":
        yield Parts()
        return
    with running_postgres(is_durable=False) as postgres, running_seaweed() as seaweed:
        yield Parts(postgres, seaweed)


@dataclass
class Place:
    """A gateway's folder with the parts it is configured for."""

    layout: Layout
    parts: Parts
    since: float = field(default_factory=time.time)

    @property
    def settings(self) -> Settings:
        return load(self.layout.config)

    @property
    def is_scoured(self) -> bool:
        """Whether a deleted row's bytes leave the database's files: PostgreSQL keeps them in heap and WAL."""
        return self.parts.postgres is None

    def configure(self, section: str, **changes: Any) -> None:
        tree = yaml.safe_load(self.layout.config.read_text())
        tree[section].update(changes)
        self.layout.config.write_text(yaml.safe_dump(tree))

    def stored(self) -> set[str]:
        """Return the ids of all objects whose bytes lie in the store: in a bucket, every version."""
        if self.parts.seaweed is None:
            return {path.name for path in self.layout.objects.glob("??/??/*")}
        return {name for name in self._listed("Versions") if name != MARKER}

    def drafts(self) -> list[str]:
        """Return what a broken write left: drafts, or unfinished uploads and delete markers."""
        if self.parts.seaweed is None:
            return [path.name for path in (self.layout.objects / "tmp").iterdir()]
        return self._listed("DeleteMarkers") + self._listed("Uploads")

    def _listed(self, what: str) -> list[str]:
        assert self.parts.seaweed is not None
        section = self._bucket()
        where = {"Bucket": section["bucket"], "Prefix": section["prefix"]}
        client = self.parts.seaweed.looker
        look = client.list_multipart_uploads if what == "Uploads" else client.list_object_versions
        return [entry["Key"].removeprefix(section["prefix"]) for entry in look(**where).get(what, ())]

    def _bucket(self) -> dict[str, Any]:
        section: dict[str, Any] = yaml.safe_load(self.layout.config.read_text())["objects"]["s3"]
        return section

    async def copied(self, directory: Path, *, with_keys: bool = False) -> Place:
        """Return a copy of the folder, the database and the objects; nobody may be in them.

        The key service stays where it is, unless it is a keyring and asked for.
        """
        keys = self.layout.keys.name
        left_out = None if with_keys else shutil.ignore_patterns(keys)
        shutil.copytree(self.layout.root, directory, ignore=left_out)
        made = Place(Layout(directory), self.parts, self.since)
        if self.parts.postgres is None:
            made.configure("records", url=f"sqlite://{made.layout.database}")
        else:
            url = await self.parts.postgres.create(a_name(), template=database_of(self.settings.records.url))
            made.configure("records", url=url)
        if self.parts.seaweed is not None:
            section = self._bucket()
            made.configure("objects", s3={**section, "prefix": f"t{a_name()}/"})
            for name in {*self.stored(), MARKER}:
                self.parts.seaweed.looker.copy_object(
                    Bucket=section["bucket"],
                    Key=made._bucket()["prefix"] + name,
                    CopySource={"Bucket": section["bucket"], "Key": section["prefix"] + name},
                )
        return made

    async def lose(self) -> None:
        """Lose the database and the objects: what is left is an empty database and an empty store."""
        url = self.settings.records.url
        if self.parts.postgres is None:
            for path in list(sqlite_path(url).parent.glob(f"{sqlite_path(url).name}*")):
                path.unlink()
        else:
            self.configure("records", url=await self.parts.postgres.create(a_name()))
        if self.parts.seaweed is None:
            shutil.rmtree(self.layout.objects)
        else:
            self.configure("objects", s3={**self._bucket(), "prefix": f"t{a_name()}/"})

    async def remove(self) -> None:
        """Remove the folder and the database; a bucket keeps its objects as long as its server."""
        if self.parts.postgres is not None:
            await self.parts.postgres.drop(database_of(self.settings.records.url))
        shutil.rmtree(self.layout.root)

    async def alone(self) -> None:
        """Return once nobody is connected to the database any more: who was killed may still commit."""
        if self.parts.postgres is None:
            return
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        connection = await asyncpg.connect(self.parts.postgres.url)
        try:
            while await connection.fetchval(others, database_of(self.settings.records.url)):
                pass
        finally:
            await connection.close()

    async def holding(self, *needles: bytes) -> dict[bytes, list[str]]:
        """Return which raw files hold which of the needles.

        They are all files of the folder, and of the servers those that were written since
        the place was made: heap, write-ahead log, the bucket's volumes with every version.
        """
        if self.parts.postgres is not None:
            connection = await asyncpg.connect(self.settings.records.url)
            await connection.execute("CHECKPOINT")
            await connection.close()
        found: dict[bytes, list[str]] = {}
        for path in self._raw():
            for needle in _in_file(path, needles):
                found.setdefault(needle, []).append(str(path))
        return found

    def _raw(self) -> Iterator[Path]:
        yield from (path for path in self.layout.root.rglob("*") if path.is_file())
        homes = [server.home for server in (self.parts.postgres, self.parts.seaweed) if server is not None]
        for path in (path for home in homes for path in home.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # the server tidies up beside us
                if path.is_file() and path.stat().st_mtime >= self.since - 1:
                    yield path


def _in_file(path: Path, needles: Collection[bytes]) -> list[bytes]:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return [needle for needle in needles if content.find(needle) >= 0]
    return []


async def make_place(directory: Path, parts: Parts, **sections: dict[str, Any]) -> Place:
    """Make a folder whose gateway uses the parts; its keys are made, its database is empty."""
    since = time.time()
    url = await parts.postgres.create(a_name()) if parts.postgres is not None else ""
    made = Place(make_folder(directory, records_url=url, **sections), parts, since)
    if parts.seaweed is not None:
        s3 = parts.seaweed.section(parts.seaweed.bucket(versioned=True), timeout_s=5.0)
        tree = yaml.safe_load(made.layout.config.read_text())
        tree["objects"] = {"kind": "s3", "s3": s3}
        made.layout.config.write_text(yaml.safe_dump(tree))
    if parts.hsm is not None:
        on_token(made.layout, parts.hsm)
        await compose.make_keys(made.settings)
    return made


def on_token(layout: Layout, hsm: SoftHsm) -> None:
    """Let the token be the folder's key service, in place of its keyring."""
    tree = yaml.safe_load(layout.config.read_text())
    place = {"module": str(hsm.place.module), "token": LABEL, "pin_file": str(hsm.place.pin_file)}
    tree["keys"] = {"kind": "pkcs11", "pkcs11": place}
    layout.config.write_text(yaml.safe_dump(tree))
    shutil.rmtree(layout.keys)


def a_name() -> str:
    """Return a name for a database or a prefix."""
    return f"lethe_{secrets.token_hex(6)}"


def database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")
