"""`lethe config`: the configuration, looked at without starting anything."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.admin import options
from gateway.admin.exits import FAILED
from gateway.admin.output import Form, emit, fail, say

if TYPE_CHECKING:
    from gateway.settings import Settings

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The configuration.")

File = Annotated[
    Path, typer.Option("--config", envvar="LETHE_CONFIG", help="The configuration file (lethe.yaml).")
]


@app.command()
def check(file: File = Path("lethe.yaml")) -> None:
    """Check the configuration: every key is known, every file it names is there, and every model.

    Example: lethe config check --config /etc/lethe/lethe.yaml
    """
    from gateway import weights
    from gateway.deidentify.faces.names import needed
    from gateway.packs import own_packs
    from gateway.settings import is_private
    from policy.errors import PackInvalid
    from policy.pack import load_packs

    settings = _load(file)
    missing = [f"{name}: {path}" for name, path in _files(settings) if not path.exists()]
    if missing:
        fail(FAILED, "CONFIG_INVALID", "not there: " + "; ".join(missing))
    s3 = settings.objects.s3
    if s3 is not None and not is_private(s3.credentials):
        fail(FAILED, "CONFIG_INVALID", "objects.s3.credentials: the file is open to other users")
    if settings.marking is not None and not is_private(settings.marking.key):
        fail(FAILED, "CONFIG_INVALID", "marking.key: the file is open to other users")
    if s3 is not None and not all(map(find_spec, ("obstore", "botocore"))):
        fail(FAILED, "CONFIG_INVALID", "objects.kind s3 needs the extra `s3`: pip install 'lethe[s3]'")
    if gone := weights.missing(
        folder := weights.directory(settings.deidentify.weights),
        weights.named(*needed(mask_text=settings.deidentify.mask_text)),
    ):
        fail(
            FAILED,
            "CONFIG_INVALID",
            f"deidentify.weights: {', '.join(gone)}: not in {folder}, or another file; "
            f"fetched by `make weights`, or python -m gateway.weights.fetch --dest {folder}",
        )
    try:
        load_packs(own_packs(settings.policy.packs_dir))
    except PackInvalid as fault:
        fail(FAILED, "CONFIG_INVALID", str(fault))
    say(f"{file}: ok")


@app.command()
def show(file: File = Path("lethe.yaml"), output: options.Output = Form.YAML) -> None:
    """Show the configuration in force, defaults and environment included.

    Example: lethe config show --config /etc/lethe/lethe.yaml -o json
    """
    tree: dict[str, Any] = _load(file).model_dump(mode="json")
    tree["records"]["url"] = _without_password(tree["records"]["url"])
    emit(tree, output)


def _load(file: Path) -> Settings:
    from gateway.settings import ConfigInvalid, load

    try:
        return load(file)
    except ConfigInvalid as fault:
        fail(FAILED, "CONFIG_INVALID", str(fault))


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield (key, path) of every file that must be there before the gateway starts."""
    listen = settings.listen
    yield from (
        ("listen.cert", listen.cert),
        ("listen.key", listen.key),
        ("listen.client_ca", listen.client_ca),
    )
    yield "audit.signing_key", settings.audit.signing_key
    stamping = settings.audit.timestamps
    if stamping is not None:
        yield "audit.timestamps.roots", stamping.roots
        if stamping.ca is not None:
            yield "audit.timestamps.ca", stamping.ca
    if settings.marking is not None:
        for name in ("key", "chain", "anchors"):
            yield f"marking.{name}", getattr(settings.marking, name)
    yield from _key_files(settings)
    if settings.records.password_file is not None:
        yield "records.password_file", settings.records.password_file
    if settings.objects.s3 is not None:
        yield "objects.s3.credentials", settings.objects.s3.credentials
        if settings.objects.s3.ca is not None:
            yield "objects.s3.ca", settings.objects.s3.ca
    for number, backend in enumerate(settings.backends):
        for name in ("ca", "cert", "key", "credential", "platform_credential", "workflow"):
            path = getattr(backend, name, None)
            if path is not None:
                yield f"backends.{number}.{name}", path
        for name, path in getattr(backend, "files", {}).items():
            yield f"backends.{number}.files.{name}", path


def _key_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    keys = settings.keys
    if keys.kind != "pkcs11" and keys.directory is not None:
        yield "keys.directory", keys.directory
    if keys.kind == "pkcs11" and keys.pkcs11 is not None:
        yield "keys.pkcs11.module", keys.pkcs11.module
        yield "keys.pkcs11.pin_file", keys.pkcs11.pin_file
    if keys.kind == "transit" and keys.transit is not None:
        yield "keys.transit.token_file", keys.transit.token_file
        if keys.transit.ca is not None:
            yield "keys.transit.ca", keys.transit.ca


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()
