"""`lethe image`: folders in, clean pictures and a report out."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from gateway import weights
from tests.needs import missing, needs
from tests.unit.deidentify import plant, portraits
from tests.unit.deidentify.test_real_files import _telling

IMAGES = Path(__file__).parents[2] / "data" / "images"
SHARED = Path(__file__).parents[4] / "shared" / "data" / "metadata"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with canaries, one of them below, and something else."""
    made = tmp_path / "in"
    (made / "below").mkdir(parents=True)
    (made / "one.jpg").write_bytes(plant.jpeg(6))
    (made / "below" / "two.PNG").write_bytes(plant.png(3))
    (made / "below" / "notes.txt").write_bytes(b"no picture")
    return made


def report(path: Path) -> dict[str, Any]:
    told = json.loads(path.read_text())
    assert {"cleaned", "rejected", "files"} == told.keys()
    return {Path(row["file"]).name: row for row in told["files"]}


def test_a_folder_is_cleaned_and_what_is_no_picture_named(folder: Path, tmp_path: Path, lethe) -> None:
    out = tmp_path / "out"
    result = lethe("image", "clean", folder, "--out", out, "--report", tmp_path / "report.json")
    assert result.exit_code == 5
    assert {Path("one.jpg"), Path("below/two.PNG")} == {
        file.relative_to(out) for file in out.rglob("*") if file.is_file()
    }
    rows = report(tmp_path / "report.json")
    assert (rows["one.jpg"]["state"], rows["one.jpg"]["mode"], rows["one.jpg"]["orientation"]) == (
        "cleaned", "lossless", 6,
    )  # fmt: skip
    assert rows["one.jpg"]["dropped"]["exif"] > 0
    assert (rows["notes.txt"]["state"], rows["notes.txt"]["detail"]) == ("rejected", "not_an_image")
    assert "IMAGE_REJECTED (not_an_image)" in result.stderr
    for file in (folder / "one.jpg", folder / "below" / "two.PNG"):
        clean = (out / file.relative_to(folder)).read_bytes()
        assert plant.CANARY not in clean
        assert plant.pixels(file.read_bytes()) == plant.pixels(clean)


def test_canonical_turns_pictures_upright(folder: Path, tmp_path: Path, lethe) -> None:
    out = tmp_path / "out"
    result = lethe("image", "clean", folder / "one.jpg", "--out", out, "--mode", "canonical", "-o", "json")
    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)["files"]
    assert (row["mode"], row["width"], row["height"], row["orientation"]) == ("canonical", 32, 48, 1)


def test_files_alone_are_taken_and_all_rejected_is_a_failure(folder: Path, tmp_path: Path, lethe) -> None:
    out = tmp_path / "out"
    assert lethe("image", "clean", folder / "below" / "notes.txt", "--out", out).exit_code == 1
    assert not out.exists()


def test_another_container_gets_another_ending(tmp_path: Path, lethe) -> None:
    result = lethe("image", "clean", IMAGES / "hopper.gif", "--out", tmp_path, "-o", "json")
    (row,) = json.loads(result.stdout)["files"]
    assert (row["out"], row["mode"]) == ("hopper.gif.png", "canonical")
    assert (tmp_path / "hopper.gif.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_written_over_without_force(folder: Path, tmp_path: Path, lethe) -> None:
    one, out = folder / "one.jpg", tmp_path / "out"
    assert lethe("image", "clean", one, "--out", out).exit_code == 0
    again = lethe("image", "clean", one, "--out", out)
    assert again.exit_code == 1
    assert "FILE_EXISTS" in again.stderr
    assert lethe("image", "clean", one, "--out", out, "--force").exit_code == 0


def test_the_folder_itself_a_missing_one_and_two_of_a_name_are_refused(
    folder: Path, tmp_path: Path, lethe
) -> None:
    (tmp_path / "one.jpg").write_bytes(plant.jpeg())
    (tmp_path / "empty").mkdir()
    for inputs in ([folder], [tmp_path / "nowhere"], [folder, tmp_path / "one.jpg"], [tmp_path / "empty"]):
        assert lethe("image", "clean", *inputs, "--out", folder).exit_code == 2


def test_links_are_not_followed_and_results_below_are_no_content(folder: Path, tmp_path: Path, lethe) -> None:
    (folder / "link.jpg").symlink_to(folder / "one.jpg")
    out = folder / "out"
    for _ in range(2):
        result = lethe("image", "clean", folder, "--out", out, "--force", "-o", "json")
        assert len(json.loads(result.stdout)["files"]) == 3


def _clean_and_ask(source: Path, tmp_path: Path, lethe) -> tuple[dict[str, Any], list[dict[str, object]]]:
    """Clean a folder; return the report's rows by file, and what exiftool finds in the results."""
    exiftool = needs("exiftool", "libimage-exiftool-perl")
    out, told = tmp_path / "out", tmp_path / "report.json"
    lethe("image", "clean", source, "--out", out, "--report", told)
    asked = subprocess.run(
        [exiftool, "-r", "-a", "-u", "-G1", "-s", "-json", out], check=True, capture_output=True
    ).stdout
    rows = {row["file"]: row for row in json.loads(told.read_text())["files"]}
    found = json.loads(asked)
    assert sum(row["state"] == "cleaned" for row in rows.values()) == len(found)
    for file, row in rows.items():
        if row["state"] == "cleaned" and row["mode"] == "lossless":
            clean = (out / row["out"]).read_bytes()
            assert plant.pixels(Path(file).read_bytes()) == plant.pixels(clean)
        if row["state"] == "rejected":
            assert row["detail"]
    return rows, [tags for tags in map(_telling, found) if tags]


def test_exiftool_finds_only_structure_in_the_committed_pictures(tmp_path: Path, lethe) -> None:
    rows, telling = _clean_and_ask(IMAGES, tmp_path, lethe)
    assert not telling
    assert sum(row["state"] == "cleaned" for row in rows.values()) > 15


def test_exiftool_finds_only_structure_in_a_folder_of_camera_files(tmp_path: Path, lethe) -> None:
    if not SHARED.is_dir():
        missing("the folder of camera files", f"lay it at {SHARED}")
    rows, telling = _clean_and_ask(SHARED, tmp_path, lethe)
    assert not telling
    assert sum(row["state"] == "cleaned" for row in rows.values()) > 100


@pytest.mark.parametrize("name", ["Canon1DmkIII.jpg", "ExtendedXMP.jpg", "pixel-motion-photo-shortened.jpg"])
def test_no_word_of_the_old_metadata_is_in_the_new_file(name: str, tmp_path: Path, lethe) -> None:
    if not SHARED.is_dir():
        missing("the folder of camera files", f"lay it at {SHARED}")
    exiftool = needs("exiftool", "libimage-exiftool-perl")
    (source,) = SHARED.rglob(name)
    one = shutil.copy(source, tmp_path / name)
    lethe("image", "clean", one, "--out", tmp_path / "out")
    clean = (tmp_path / "out" / name).read_bytes()
    asked = subprocess.run(
        [exiftool, "-a", "-u", "-G1", "-json", one], check=True, capture_output=True
    ).stdout
    words = {
        str(value).encode()
        for tag, value in json.loads(asked)[0].items()
        if not tag.startswith(("File", "System"))
    }
    telling = {word for word in words if len(word) > 7}
    assert telling
    assert not [word for word in telling if word in clean]


# --- faces -----------------------------------------------------------------------------------------------


def test_faces_are_hidden_and_the_report_says_what_was_measured(tmp_path: Path, lethe) -> None:
    portraits.files()
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    small = portraits.scaled(portraits.portrait("collins"), 300)
    (folder / "one.jpg").write_bytes(plant.jpeg(photo=Image.fromarray(small)))
    (folder / "two.jpg").write_bytes(plant.jpeg(6))
    command = ("image", "deidentify", folder, "--profile", "landmarks", "--out", out)
    result = lethe(*command, "--report", tmp_path / "report.json", "--weights", weights.directory())
    assert result.exit_code == 5
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["deidentified"], told["rejected"]) == (1, 1)
    one, two = sorted(told["files"], key=lambda row: str(row["file"]))
    assert (one["profile"], one["faces"], one["out"]) == ("landmarks", 1, "one.jpg")
    assert 0 <= one["similarity"] <= 300
    assert one["masked"] >= 1
    assert {"place", "size", "yaw", "pitch", "roll", "faces"} < one["record"].keys()
    assert (two["reason"], two["detail"]) == ("IMAGE_REJECTED", "no_face")
    assert [file.name for file in out.iterdir()] == ["one.jpg"]
    assert plant.CANARY not in (out / "one.jpg").read_bytes()


def test_writing_is_covered_where_that_is_asked_for(tmp_path: Path, lethe) -> None:
    portraits.files()
    photo = Image.fromarray(portraits.scaled(portraits.portrait("collins"), 400))
    ImageDraw.Draw(photo).text((10, 340), "Eileen 4711", font=ImageFont.load_default(30), fill="white")
    photo.save(tmp_path / "one.png")
    command = ("image", "deidentify", tmp_path / "one.png", "--profile", "bystanders", "--mask-text")
    result = lethe(*command, "--out", tmp_path / "out", "--weights", weights.directory(), "--output", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["files"][0]["words"] >= 1
    with Image.open(tmp_path / "out" / "one.png") as made:
        assert made.getpixel((40, 360)) == (128, 128, 128)


def test_without_the_models_no_face_is_looked_for(tmp_path: Path, lethe) -> None:
    (tmp_path / "one.jpg").write_bytes(plant.jpeg())
    command = ("image", "deidentify", tmp_path / "one.jpg", "--profile", "redact", "--out", tmp_path / "out")
    result = lethe(*command, "--weights", tmp_path)
    assert result.exit_code == 1
    assert "make weights" in result.stderr
