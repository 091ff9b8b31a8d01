"""The `lethe` command: the admin tool, and the servers that only the roof can build."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.admin.app import app, audit_app, backend_app, backup_app, key_app, run_cli
from gateway.admin.options import Apply, Output, Trust, Weights
from gateway.admin.output import Form, emit, fail, say

Config = Annotated[
    Path, typer.Option("--config", envvar="LETHE_CONFIG", help="The configuration file (lethe.yaml).")
]


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    address: Annotated[str, typer.Option(help="Where the gateway will listen.")] = "127.0.0.1:8443",
    backend_address: Annotated[str, typer.Option(help="Where the backend will listen.")] = "127.0.0.1:8444",
    output: Output = Form.TABLE,
) -> None:
    """Make a folder with configuration, certificates and keys for development.  Not for production.

    Example: lethe init dev
    """
    from gateway.adapters.clock import SystemClock
    from gateway.adapters.keys_local import LocalKeyring
    from gateway.admin.init import make

    make(
        directory,
        LocalKeyring.create,
        now=SystemClock().now(),
        address=address,
        backend_address=backend_address,
        output=output,
    )


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Leave export, trust file, certificate and pictures here.")
    ] = None,
    weights: Weights = Path(".cache/weights"),
) -> None:
    """Tell the whole story on a real portrait; exits 0 only if each step held.

    Example: lethe demo --keep demo-out
    """
    from gateway.adapters.clock import SystemClock
    from gateway.adapters.keys_local import LocalKeyring
    from gateway.admin.demo import tell_all
    from gateway.admin.folder import init_folder

    with tempfile.TemporaryDirectory(prefix="lethe-demo-") as folder:
        layout = init_folder(
            Path(folder) / "gateway",
            make_keyring=LocalKeyring.create,
            now=SystemClock().now(),
            address=f"127.0.0.1:{_free_port()}",
            backend_address=f"127.0.0.1:{_free_port()}",
        )
        out = keep or Path(folder) / "out"
        out.mkdir(parents=True, exist_ok=True)
        code = tell_all(layout, out, weights)
    if keep and not code:
        typer.echo(f"     Kept in {keep}: {', '.join(sorted(path.name for path in keep.iterdir()))}")
    raise typer.Exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@app.command()
def serve(config: Config = Path("lethe.yaml")) -> None:
    """Run the gateway until SIGTERM, then drain.

    Example: lethe serve --config /etc/lethe/lethe.yaml
    """
    from gateway import compose
    from gateway.adapters import telemetry
    from gateway.adapters.sql.schema import SchemaMismatch
    from gateway.errors import LetheError
    from gateway.rpc.certificates import CertificateInvalid
    from gateway.settings import ConfigInvalid, load
    from policy.errors import PackInvalid

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await compose.serve(settings, lambda address: typer.echo(f"listening {address}"), stop)

    try:
        settings = load(config)
        telemetry.set_up_logs(settings.telemetry.level)
        compose.make_folders(settings)
        asyncio.run(run())
    except (ConfigInvalid, CertificateInvalid, PackInvalid, SchemaMismatch) as fault:
        fail(1, "CONFIG_INVALID", str(fault))
    except LetheError as refusal:
        fail(1, refusal.reason, f"{refusal} ({refusal.detail})" if refusal.detail else str(refusal))


@app.command()
def migrate(config: Config = Path("lethe.yaml")) -> None:
    """Bring the database to the schema of this version; make the checkpoint lock if there is none.

    Never run it to get past a lock that was lost: a log that fell back would not be noticed.

    Example: lethe migrate --config /etc/lethe/lethe.yaml
    """
    from gateway import compose
    from gateway.adapters.sql.schema import SchemaMismatch
    from gateway.adapters.sql.schema import migrate as upgrade
    from gateway.errors import LetheError
    from gateway.settings import ConfigInvalid, load

    try:
        settings = load(config)
        compose.make_folders(settings)
        asyncio.run(upgrade(compose.records_url(settings)))
        compose.make_lock(settings)
    except (ConfigInvalid, SchemaMismatch) as fault:
        fail(1, "CONFIG_INVALID", str(fault))
    except LetheError as refusal:
        fail(1, refusal.reason, str(refusal))


@key_app.command("init")
def key_init(config: Config = Path("lethe.yaml")) -> None:
    """Make the root of the key service, once: a keyring directory, or a root key in the token.

    It never replaces one.  Run it on an empty key service only: with another root nothing opens.

    Example: lethe key init --config /etc/lethe/lethe.yaml
    """
    from gateway import compose
    from gateway.errors import LetheError
    from gateway.settings import ConfigInvalid, load

    try:
        settings = load(config)
        asyncio.run(compose.make_keys(settings))
    except ConfigInvalid as fault:
        fail(1, "CONFIG_INVALID", str(fault))
    except LetheError as refusal:
        fail(1, refusal.reason, str(refusal), refusal.detail)
    except FileExistsError as fault:
        fail(1, "KEYS_EXIST", str(fault))
    except OSError as fault:
        fail(1, "FILE_UNWRITABLE", f"the keyring: {fault.strerror}")
    typer.echo(f"{settings.keys.kind}: made")


@backup_app.command("create")
def backup_create(
    out: Annotated[Path, typer.Argument(help="The file to make; one that is there is left alone.")],
    config: Config = Path("lethe.yaml"),
    recipient: Annotated[
        Path | None,
        typer.Option(help="Public key it is sealed to (lethe backup keygen); else backup.recipient."),
    ] = None,
    output: Output = Form.TABLE,
) -> None:
    """Back up the records and the objects they name, of one moment, while the gateway runs.

    No key is in it but the sealed subject keys: back up the keyring's root.key, destroyed/ and
    fences/ apart, and its epochs/ and the checkpoint lock never.  The verb may be left out.

    Example: lethe backup create /backups/lethe.backup --config lethe.yaml --recipient recipient.pem
    """
    from gateway import compose
    from gateway.adapters.sql.schema import SchemaMismatch
    from gateway.admin.backup import refuse
    from gateway.admin.files import read_bytes, refuse_existing
    from gateway.admin.progress import progress
    from gateway.errors import LetheError
    from gateway.settings import ConfigInvalid, load
    from gateway.vault.errors import BackupInvalid

    refuse_existing(out, force=False)
    try:
        settings = load(config)
        public = recipient or settings.backup.recipient
        if public is None:
            raise typer.BadParameter("to whom? --recipient, or backup.recipient in the configuration")
        with progress() as show:
            made = asyncio.run(compose.back_up(settings, out, read_bytes(public), show))
    except (ConfigInvalid, SchemaMismatch) as fault:
        fail(1, "CONFIG_INVALID", str(fault))
    except BackupInvalid as fault:
        refuse(fault.code, str(fault))
    except LetheError as refusal:
        fail(1, refusal.reason, str(refusal), refusal.detail)
    else:
        emit(made, output)


@app.command()
def restore(
    backup: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file of lethe backup.")],
    identity: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The private key it is sealed to.")
    ],
    config: Config = Path("lethe.yaml"),
    output: Output = Form.TABLE,
) -> None:
    """Read a backup into an empty database and an empty object store; there is no overwriting.

    The whole file is checked before anything is written.  The keyring, the checkpoint lock and
    audit.published must be those of now: they say what was erased since, and the next
    `lethe serve` does that again before it serves.  Cut, it can be run again.

    Example: lethe restore /backups/lethe.backup --identity /media/safe/identity.pem --config lethe.yaml
    """
    from gateway import compose
    from gateway.adapters.sql.schema import SchemaMismatch
    from gateway.admin.backup import refuse
    from gateway.admin.files import read_bytes
    from gateway.admin.progress import progress
    from gateway.errors import LetheError
    from gateway.settings import ConfigInvalid, load
    from gateway.vault.errors import BackupInvalid

    try:
        settings = load(config)
        compose.make_folders(settings)
        with progress() as show:
            found = asyncio.run(compose.restore(settings, backup, read_bytes(identity), show))
    except (ConfigInvalid, SchemaMismatch) as fault:
        fail(1, "CONFIG_INVALID", str(fault))
    except BackupInvalid as fault:
        refuse(fault.code, str(fault))
    except LetheError as refusal:
        fail(1, refusal.reason, str(refusal), refusal.detail)
    except OSError as fault:
        fail(1, "FILE_UNREADABLE", f"{backup}: {fault.strerror}")
    else:
        emit(found, output)
        say("next: lethe serve; what had ended since the backup is ended again before it serves")


@backend_app.command("serve")
def backend_serve(
    address: Annotated[str, typer.Option(help="Host and port to listen on; port 0 takes a free one.")],
    cert: Annotated[Path, typer.Option(help="Certificate chain (PEM).")],
    key: Annotated[Path, typer.Option(help="Private key (PEM).")],
    ca: Annotated[Path, typer.Option(help="CA that clients must chain to (PEM).")],
    weights: Weights = Path(".cache/weights"),
) -> None:
    """Run the reference backend, a headshot studio on the CPU, as its own process.

    Example: lethe backend serve --address 127.0.0.1:8444 --cert b.pem --key b.key --ca ca.pem
    """
    from gateway.backends.studio.main import run

    sys.exit(run(address=address, cert=cert, key=key, ca=ca, weights=weights))


@audit_app.command("witness")
def audit_witness(
    directory: Annotated[Path, typer.Option("--dir", help="The witness's own folder: keys and state.")],
    listen: Annotated[str, typer.Option(help="Host and port; port 0 takes a free one.")] = "127.0.0.1:8445",
    log: Annotated[
        list[Path] | None, typer.Option(help="Keys of a log that is witnessed (vkeys); may be repeated.")
    ] = None,
    init_as: Annotated[
        str,
        typer.Option("--init", help="Make the folder of a witness of this name, print its vkeys, and end."),
    ] = "",
    cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM), for https.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
) -> None:
    """Run a witness: a second party that cosigns growing logs, and never two histories of one.

    Example: lethe audit witness --dir witness --log trust.txt --listen 127.0.0.1:8445
    """
    from gateway.adapters import witness_server
    from gateway.adapters.witness_folder import WitnessFolderInvalid, create
    from gateway.errors import LetheError

    if init_as:
        try:
            typer.echo("\n".join(create(directory, init_as)))
        except WitnessFolderInvalid as fault:
            fail(1, fault.code.upper(), str(fault))
        except LetheError as refusal:
            fail(1, refusal.reason, str(refusal), refusal.detail)
        except OSError as fault:
            fail(1, "FILE_UNWRITABLE", f"{directory}: {fault.strerror}")
        return
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter("an address is HOST:PORT", param_hint="--listen")
    if not log or (cert is None) != (key is None):
        raise typer.BadParameter("--log is needed; --cert and --key go together")
    address = (host.strip("[]"), int(port))
    sys.exit(witness_server.run(directory=directory, listen=address, logs=log, cert=cert, key=key))


@audit_app.command("fsck")
def audit_fsck(
    directory: Annotated[
        Path | None,
        typer.Argument(exists=True, file_okay=False, help="The log as published: checkpoint and tile/."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Or check every log in the database that this lethe.yaml names."),
    ] = None,
    trust: Trust = None,
    min_index: Annotated[
        int,
        typer.Option("--min-index", min=0, help="The log's minimum index: entries before it may be gone."),
    ] = 0,
    deep: Annotated[bool, typer.Option("--deep", help="Also read each entry as an event.")] = False,
    output: Output = Form.TABLE,
) -> None:
    """Check a whole log offline: 0 valid, 4 not (the first fault is named), 5 consistent but no trust given.

    With --config leaves, tiles, head and newest checkpoint in the database are compared, no server
    needed; whose signatures count is what the configuration says, unless --trust says it.

    Example: lethe audit fsck /srv/log --trust trust.txt
    """
    from gateway.admin.fsck import believed, check_folder, check_logs, watched

    if (directory is None) == (config is None):
        raise typer.BadParameter("name a published log, or --config")
    if directory is not None:
        check_folder(directory, trust, min_index, deep=deep, output=output)
        return
    if min_index:
        raise typer.BadParameter("the database says itself where it begins", param_hint="--min-index")
    assert config is not None  # noqa: S101 - tells mypy what was asked above

    from gateway import compose
    from gateway.adapters.sql.schema import SchemaMismatch
    from gateway.errors import LetheError
    from gateway.settings import ConfigInvalid, load

    given = believed(trust)
    try:
        settings = load(config)
        reports = watched(
            lambda step: asyncio.run(compose.fsck_database(settings, given, deep=deep, step=step))
        )
    except (ConfigInvalid, SchemaMismatch) as fault:
        fail(1, "CONFIG_INVALID", str(fault))
    except LetheError as refusal:
        fail(1, refusal.reason, str(refusal), refusal.detail)
    check_logs(reports, output)


@audit_app.command("revoke")
def audit_revoke(
    key: Annotated[
        list[str],
        typer.Option(help="Id of a key: the 8 hex digits after the first + of its vkey; may be repeated."),
    ],
    reason: Annotated[
        str,
        typer.Option(
            help="Why, as a code like KEY_STOLEN, never free text: it is written into the log, for good."
        ),
    ],
    size: Annotated[
        int | None,
        typer.Option(min=0, help="From checkpoints of this size on nothing it signed is believed."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Or: from this instant (UTC) on, in every tenant's log, since one seed serves them all."
        ),
    ] = None,
    config: Config = Path("lethe.yaml"),
    apply: Apply = False,
    output: Output = Form.TABLE,
) -> None:
    """Revoke a signing key of the log that was stolen; a key that signs today is rotated first.

    Checkpoints and exports that it signed from there on are refused by whoever has the new keys.txt;
    a rehearsal says how many we keep. No gateway needs to run, and none needs a restart.

    Example: lethe audit revoke --key 0a1b2c3d --since 2026-03-01T09:30:00 --reason KEY_STOLEN
    """
    from gateway import compose
    from gateway.adapters.sql.schema import SchemaMismatch
    from gateway.admin.exits import exit_code
    from gateway.admin.words import reason_code
    from gateway.errors import LetheError
    from gateway.settings import ConfigInvalid, load

    if (size is None) == (since is None):
        raise typer.BadParameter("from where on? --size or --since")
    start = size if since is None else since.replace(tzinfo=UTC)
    assert start is not None  # noqa: S101 - tells mypy what was asked above
    code = reason_code(reason)
    try:
        settings = load(config)
        done = asyncio.run(compose.revoke_keys(settings, key, start, code, rehearse=not apply))
    except (ConfigInvalid, SchemaMismatch) as fault:
        fail(1, "CONFIG_INVALID", str(fault))
    except LetheError as refusal:
        fail(exit_code(refusal.reason), refusal.reason, str(refusal), refusal.detail)
    emit(
        {"revoked": [{**asdict(one), "keys": list(one.keys)} for one in done]},
        output,
        rows="revoked",
        columns=("origin", "keys", "size", "checkpoints"),
    )
    if apply:
        say("next: hand out `lethe audit head --keys` anew, to witnesses and auditors")
    else:
        say("rehearsal: nothing was changed; --apply revokes")


def main() -> None:
    """Run the command line."""
    run_cli()


if __name__ == "__main__":
    main()
