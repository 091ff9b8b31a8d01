"""Lints what is deployed: the Containerfile, the compose file, the systemd unit.

Each rule says what it protects from.  `systemd-analyze` reads the unit as systemd would.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
EXPOSURE_AT_MOST = 2.0
"""The score of `systemd-analyze security`, from 0 (closed) to 10 (open)."""


def containerfile(text: str) -> Iterator[str]:
    """Yield what is wrong with a Containerfile."""
    steps = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    words = [step.split(maxsplit=1) for step in steps]
    final = words[max(number for number, (verb, *_) in enumerate(words) if verb == "FROM") :]
    users = [rest[0] for verb, *rest in final if verb == "USER"]
    if not users or not re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", users[-1]):
        yield "the last USER is not a numeric user and group other than root"
    if any(verb == "ADD" for verb, *_ in words):
        yield "ADD fetches and unpacks: use COPY"
    if any(re.search(r":latest\b", rest[0]) or ":" not in rest[0] for verb, *rest in words if verb == "FROM"):
        yield "a base image has no version"
    for step in steps:
        if re.search(r"pip install(?!.*(--require-hashes|--no-deps))", step):
            yield "pip installs something that no hash locks"
        if re.search(r"\b(curl|wget)\b", step):
            yield "something is fetched that no lock names"
    if not any(verb == "ENTRYPOINT" and rest[0].startswith("[") for verb, *rest in final):
        yield "ENTRYPOINT is not in exec form, so SIGTERM would not arrive"


def compose(tree: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a compose file."""
    for name, service in tree["services"].items():
        if name in {"gateway", "backend"}:
            if service.get("read_only") is not True:
                yield f"{name}: its root file system can be written"
            if service.get("cap_drop") != ["ALL"]:
                yield f"{name}: it keeps capabilities"
            if "no-new-privileges:true" not in service.get("security_opt", []):
                yield f"{name}: it may gain privileges"
        if service.get("privileged") or service.get("network_mode") == "host":
            yield f"{name}: it is let out of its container"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name}: a port is open to the network before anybody chose so"
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN", key) and not key.endswith("_FILE"):
                yield f"{name}: a secret stands in the environment ({key})"
            if "://" in str(value) and re.search(r"://[^/@]*:[^/@]*@", str(value)):
                yield f"{name}: a password stands in a URL ({key})"


def unit(path: Path) -> Iterator[str]:
    """Yield what systemd itself says of a unit; the programs it names need not be installed here."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        message = "MISSING systemd-analyze: apt install systemd"
        if os.environ.get("LETHE_REQUIRE") == "all":
            yield message
        print(message, file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", path.read_text()))
        for arguments in (
            ["verify", "--man=no", str(copy)],
            ["security", "--offline=true", f"--threshold={EXPOSURE_AT_MOST * 10:.0f}", str(copy)],
        ):
            done = subprocess.run([analyze, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                yield f"systemd-analyze {arguments[0]}: {(done.stderr or done.stdout).strip()[-500:]}"


def main() -> int:
    """Lint everything and name every fault."""
    faults = {
        "Containerfile": list(containerfile((DEPLOY / "Containerfile").read_text())),
        "compose.yaml": list(compose(yaml.safe_load((DEPLOY / "compose.yaml").read_text()))),
        "lethe.service": list(unit(DEPLOY / "lethe.service")),
    }
    for file, found in faults.items():
        for fault in found:
            print(f"deploy/{file}: {fault}", file=sys.stderr)
    clean = sum(not found for found in faults.values())
    print(f"{clean} of {len(faults)} deploy files clean")
    return 0 if clean == len(faults) else 1


if __name__ == "__main__":
    raise SystemExit(main())
