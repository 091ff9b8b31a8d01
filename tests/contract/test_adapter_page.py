"""The adapter on the page for authors: it stands there whole, is short, and keeps the contract."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from gateway import compose
from gateway.adapters.inference_contract import ContractedInference
from gateway.settings import ConfigInvalid, load
from tests.contract.backend_kit import BackendContract, Bench, StrangerContract
from tests.gateway import make_folder

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/write-a-backend-adapter.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


ADAPTER, QUESTIONS = blocks("python")


def module(name: str, text: str) -> ModuleType:
    made = ModuleType(name)
    made.__file__ = f"{name}.py"
    exec(compile(text, f"{name}.py", "exec"), made.__dict__)  # noqa: S102 - what the page says is tried
    return made


sys.modules["sketch"] = module("sketch", ADAPTER)
_asked = module("test_sketch", QUESTIONS)
del sys.modules["sketch"]


class TestSketch(BackendContract, StrangerContract):
    """The bench on the page, and the adapter on the page."""

    @pytest.fixture
    async def bench(self) -> AsyncIterator[Bench]:
        async with _asked.benched() as made:
            yield made


def test_the_adapter_is_under_a_hundred_lines():
    assert len(ADAPTER.splitlines()) < 100


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the adapter as its author would: a module, and an entry point."""
    (folder / "sketch.py").write_text(ADAPTER)
    info = folder / "sketch-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sketch\nVersion: 2.0\n")
    (said,) = blocks("toml")
    section, line = said.splitlines()
    assert section == '[project.entry-points."lethe.backends"]'
    (info / "entry_points.txt").write_text(f"[lethe.backends]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(folder)


async def test_a_kind_that_another_package_brings_is_one_of_the_gateways(tmp_path, monkeypatch):
    layout = make_folder(tmp_path / "g")
    tree = yaml.safe_load(layout.config.read_text())
    tree["backends"] = yaml.safe_load(blocks("yaml")[0])["backends"]
    del tree["backends"][0]["files"]
    layout.config.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigInvalid, match="union_tag_invalid"):
        load(layout.config)
    installed(tmp_path, monkeypatch)
    assert [point.value for point in entry_points(group="lethe.backends", name="sketch")] == ["sketch:Sketch"]
    (section,) = load(layout.config).backends
    door = compose.inference(section)
    assert isinstance(door, ContractedInference)
    assert type(door.inner).__name__ == "Sketch"
    await door.close()
    tree["backends"][0]["options"] = {}
    layout.config.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigInvalid, match=r"backends\.sketches: options\.url: missing"):
        compose.inference(load(layout.config).backends[0])
    sys.modules.pop("sketch", None)
