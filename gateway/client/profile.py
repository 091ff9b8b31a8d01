"""A client profile: the small YAML file that says where to call and as whom.

    address: 127.0.0.1:8443
    ca: ../ca/ca.pem
    cert: officer.pem
    key: officer.key

Paths are relative to the profile's own folder; `server_name` may be added where
the certificate names another host than `address`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

_REQUIRED = frozenset({"address", "ca", "cert", "key"})
_KNOWN = _REQUIRED | {"server_name"}


class ProfileInvalid(Exception):
    """The profile cannot be used; the message names the key or file at fault."""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Where to call and as whom: address, CA, certificate chain, key (PEM files)."""

    address: str
    ca: Path
    cert: Path
    key: Path
    server_name: str = ""


def read_profile(path: Path) -> ClientFiles:
    """Return what a profile says, its paths made absolute.

    Raises:
        ProfileInvalid: It is missing, is no profile, or names a file that cannot be read.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileInvalid(f"{path}: cannot be read ({type(error).__name__})") from error
    if not isinstance(tree, dict) or not all(isinstance(value, str) for value in tree.values()):
        raise ProfileInvalid(f"{path}: not a mapping of words to words")
    _refuse_keys(path, set(tree))
    root = path.resolve().parent
    files = {name: root / tree[name] for name in ("ca", "cert", "key")}
    for name, file in files.items():
        if not file.is_file():
            raise ProfileInvalid(f"{path}: {name}: there is no file {file}")
    return ClientFiles(tree["address"], **files, server_name=tree.get("server_name", ""))


def _refuse_keys(path: Path, given: set[object]) -> None:
    unknown, missing = given - _KNOWN, _REQUIRED - given
    if unknown:
        raise ProfileInvalid(f"{path}: unknown key {', '.join(sorted(map(str, unknown)))}")
    if missing:
        raise ProfileInvalid(f"{path}: {', '.join(sorted(missing))} missing")
