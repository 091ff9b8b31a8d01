"""`lethe init`, but for the keyring, which only the roof can make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from gateway.admin.exits import FAILED, USAGE
from gateway.admin.folder import BACKEND, CLIENTS, WARNING, FolderNotEmpty, Layout, init_folder
from gateway.admin.output import Form, emit, fail, say
from gateway.errors import LetheError


def make(
    directory: Path,
    make_keyring: Callable[[Path], object],
    *,
    now: datetime,
    address: str,
    backend_address: str,
    output: Form,
) -> None:
    """Make the folder, warn, and say what comes next."""
    try:
        layout = init_folder(
            directory,
            make_keyring=make_keyring,
            now=now,
            address=address,
            backend_address=backend_address,
        )
    except FolderNotEmpty as fault:
        fail(USAGE, "FOLDER_NOT_EMPTY", str(fault))
    except LetheError as refusal:
        fail(FAILED, refusal.reason, str(refusal), refusal.detail)
    except OSError as fault:
        fail(FAILED, "FILE_UNWRITABLE", f"{directory}: {fault.strerror}")
    _announce(layout, backend_address, output)


def _announce(layout: Layout, backend_address: str, output: Form) -> None:
    say(f"*** {WARNING} ***")
    tree = {
        "config": str(layout.config),
        "trust": str(layout.trust),
        "clients": [str(layout.profile(client.name)) for client in CLIENTS],
    }
    emit(tree, output)
    say("next:")
    say(f"  lethe migrate --config {layout.config}")
    say(
        f"  lethe backend serve --address {backend_address} --cert {layout.cert('backend')} "
        f"--key {layout.key('backend')} --ca {layout.backend_ca}    # backends/{BACKEND}"
    )
    say(f"  lethe serve --config {layout.config}")
