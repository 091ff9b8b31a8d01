"""SoftHSM: a real PKCS#11 module whose tokens are directories."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.adapters.keys_pkcs11 import TokenPlace
from tests.needs import missing, needs

MODULES = [
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/pkcs11/libsofthsm2.so"),
]
LABEL, PIN, SO_PIN = "lethe", "fence-4711", "officer-4711"


@dataclass(frozen=True)
class SoftHsm:
    """A SoftHSM of its own, with one token; `env` is what a process needs to see it."""

    root: Path
    place: TokenPlace

    @property
    def tokens(self) -> Path:
        return self.root / "tokens"

    @property
    def env(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.root / "softhsm2.conf")}

    def take_out(self) -> None:
        """Pull the token out."""
        self.tokens.rename(self.root / "away")

    def put_back(self) -> None:
        """Put it in again."""
        (self.root / "away").rename(self.tokens)

    def add_token(self, label: str) -> None:
        """Add an empty token."""
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN],
            env={**os.environ, **self.env},
            check=True,
            capture_output=True,
        )


def make_softhsm(root: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    """Return a SoftHSM in `root` that this process and its children use until the test ends."""
    needs("softhsm2-util", "softhsm2")
    module = next((path for path in MODULES if path.exists()), None) or missing(
        "libsofthsm2.so", "apt install softhsm2"
    )
    (root / "tokens").mkdir(parents=True)
    (root / "softhsm2.conf").write_text(f"directories.tokendir = {root / 'tokens'}\nlog.level = ERROR\n")
    pin = root / "pin"
    pin.touch(mode=0o600)
    pin.write_text(PIN + "\n")
    hsm = SoftHsm(root, TokenPlace(module, LABEL, pin))
    for name, value in hsm.env.items():
        monkeypatch.setenv(name, value)
    hsm.add_token(LABEL)
    return hsm
