"""`check_folder` finds and names every planted fault, and nothing in clean sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import real_data
from tests.data.small_set import write_set
from tfprune.data.check import check_folder
from tfprune.errors import InputError

# stem numbers below index the sorted pictures of train; each fault has a pair of its own


def plant_missing_mask(folder: Path, stems: list[str]) -> tuple[str, str]:
    (folder / f"train/masks/{stems[0]}.png").unlink()
    return "missing_mask", f"train/images/{stems[0]}.jpg"


def plant_truncated_jpeg(folder: Path, stems: list[str]) -> tuple[str, str]:
    path = folder / f"train/images/{stems[1]}.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return "unreadable", f"train/images/{stems[1]}.jpg"


def plant_mask_of_another_size(folder: Path, stems: list[str]) -> tuple[str, str]:
    path = folder / f"train/masks/{stems[2]}.png"
    picture = Image.open(path)
    picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST).save(path)
    return "mask_size", f"train/masks/{stems[2]}.png"


def plant_class_seven(folder: Path, stems: list[str]) -> tuple[str, str]:
    path = folder / f"train/masks/{stems[3]}.png"
    mask = np.array(Image.open(path))
    mask[2:4, 2:4] = 7
    Image.fromarray(mask).save(path)
    return "class_ids", f"train/masks/{stems[3]}.png"


def plant_rgb_mask(folder: Path, stems: list[str]) -> tuple[str, str]:
    path = folder / f"train/masks/{stems[4]}.png"
    mask = np.array(Image.open(path))
    Image.fromarray(np.stack([mask * 200, mask * 30, mask * 30], axis=-1)).save(path)
    return "rgb_mask", f"train/masks/{stems[4]}.png"


def plant_text_file(folder: Path, stems: list[str]) -> tuple[str, str]:
    (folder / f"train/masks/{stems[5]}.png").write_text("this is a note, not a mask\n")
    return "not_an_image", f"train/masks/{stems[5]}.png"


def plant_duplicate_stem(folder: Path, stems: list[str]) -> tuple[str, str]:
    path = folder / f"train/images/{stems[6]}.jpg"
    Image.open(path).save(path.with_suffix(".png"))
    return "duplicate_stem", f"train/images/{stems[6]}.jpg"


def plant_empty_file(folder: Path, stems: list[str]) -> tuple[str, str]:
    (folder / f"train/images/{stems[7]}.jpg").write_bytes(b"")
    return "empty_file", f"train/images/{stems[7]}.jpg"


def plant_floats(folder: Path, stems: list[str]) -> tuple[str, str]:
    path = folder / f"train/images/{stems[8]}.jpg"
    Image.open(path).convert("F").save(path.with_suffix(".tif"))
    path.unlink()
    return "unsupported_mode", f"train/images/{stems[8]}.tif"


def plant_copy_in_test(folder: Path, stems: list[str]) -> tuple[str, str]:
    shutil.copy(folder / f"train/images/{stems[9]}.jpg", folder / "test/images/new.jpg")
    shutil.copy(folder / f"train/masks/{stems[9]}.png", folder / "test/masks/new.png")
    return "copy_across_splits", f"train/images/{stems[9]}.jpg"


FAULTS = [
    plant_missing_mask,
    plant_truncated_jpeg,
    plant_mask_of_another_size,
    plant_class_seven,
    plant_rgb_mask,
    plant_text_file,
    plant_duplicate_stem,
    plant_empty_file,
    plant_floats,
    plant_copy_in_test,
]


def plant_and_check(folder: Path) -> None:
    """Plant all ten faults and see that each is one finding that names its file, and that there is no other."""
    stems = sorted(path.stem for path in (folder / "train" / "images").iterdir())
    planted = [plant(folder, stems) for plant in FAULTS]
    report = check_folder(folder)
    for kind, file in planted:
        named = [finding for finding in report.findings if file in finding.files]
        assert [finding.kind for finding in named] == [kind], file
        assert Path(named[0].files[0]).stem in str(named[0])
    assert len(report.findings) == len(FAULTS), [str(finding) for finding in report.findings]


def test_ten_planted_faults_in_a_small_set(tmp_path):
    plant_and_check(write_set(tmp_path / "a", {"train": 14, "val": 3, "test": 4}))


def test_ten_planted_faults_in_corrosion_field(tmp_path):
    folder = tmp_path / "corrosion_field"
    shutil.copytree(real_data("corrosion_field"), folder)
    plant_and_check(folder)


@pytest.mark.parametrize("name", ["corrosion_field", "camvid", "neu_seg", "nea"])
def test_real_sets_have_no_findings(name):
    report = check_folder(real_data(name))
    assert report.findings == ()
    kinds = {warning.kind for warning in report.warnings}
    if name in ("corrosion_field", "camvid"):
        assert kinds == set()
    if name == "nea":  # frames of one video, split at random
        assert kinds == {"look_alikes"}
        twins = {warning.files[0].split("/")[0]: len(warning.files) // 2 for warning in report.warnings}
        assert twins["val"] > 20


def test_a_small_clean_set_and_what_it_holds(tmp_path):
    report = check_folder(write_set(tmp_path / "a", {"train": 6, "val": 3, "test": 3}))
    assert (report.findings, report.warnings) == ((), ())
    assert report.splits["train"].pairs == 6
    assert report.splits["train"].sizes == {"32x24": 6}
    assert sum(report.splits["test"].class_shares.values()) == pytest.approx(1, abs=1e-5)


def test_exact_copies_in_another_file_format_and_without_a_mask(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 6, "val": 3, "test": 3})
    Image.open(folder / "train/images/p001.jpg").save(folder / "val/images/other.png")
    findings = {finding.kind: finding for finding in check_folder(folder).findings}
    assert findings.keys() == {"missing_mask", "copy_across_splits"}
    assert findings["copy_across_splits"].files == ("val/images/other.png", "train/images/p001.jpg")


def test_a_look_alike_is_a_warning(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 6, "val": 3, "test": 3}, size=(96, 128))
    brighter = np.asarray(Image.open(folder / "train/images/p002.jpg"), np.float32) * 0.9 + 20
    Image.fromarray(brighter.astype(np.uint8)).save(folder / "test/images/p010.jpg", quality=70)
    report = check_folder(folder)
    assert report.findings == ()
    assert [warning.files for warning in report.warnings] == [("test/images/p010.jpg", "train/images/p002.jpg")]
    assert "1 of 3 pictures in test have such a twin in train" in str(report.warnings[0])


def test_other_warnings(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 6, "val": 3, "test": 3})
    (folder / "train/images/notes.txt").write_text("hello")
    (folder / "train/images/.hidden").write_text("hello")
    for path in (folder / "val/masks").iterdir():
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(path)
    picture = Image.open(folder / "test/images/p010.jpg")
    exif = picture.getexif()
    exif[274] = 6
    picture.save(folder / "test/images/p010.jpg", exif=exif)
    report = check_folder(folder)
    assert report.findings == ()
    texts = {warning.kind: str(warning) for warning in report.warnings}
    assert texts.keys() == {"unused_files", "absent_class", "exif_rotation"}
    assert "val holds no pixel of: corrosion" in texts["absent_class"]
    assert "notes.txt" in texts["unused_files"]


@pytest.mark.parametrize(("brightest", "kinds"), [(4095, ["few_levels"]), (40000, [])])
def test_pictures_of_12_bit_cameras_are_told(tmp_path, brightest, kinds):
    folder = write_set(tmp_path / "a", {"": 9}, suffix=".png")
    for number, path in enumerate((folder / "images").iterdir()):
        values = np.random.default_rng(number).integers(0, brightest, (24, 32))
        values[0, 0] = brightest
        Image.fromarray(values.astype(np.uint16)).save(path)
    warnings = check_folder(folder).warnings
    assert [warning.kind for warning in warnings] == kinds
    assert not warnings or "above 4095: read as 0..65535, they have 16 of 256 levels" in str(warnings[0])


@pytest.mark.parametrize("empty", ["val", "test"])
def test_a_given_part_without_pictures_is_a_finding(tmp_path, empty):
    folder = write_set(tmp_path / "a", {"train": 6, **{name: int(name != empty) for name in ("val", "test")}})
    (finding,) = check_folder(folder).findings
    assert finding.kind == "empty_split" and f"no usable pair lies in {empty}" in str(finding)


def test_splits_of_a_list_file_are_what_is_checked(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 6, "test": 3})
    shutil.copy(folder / "train/images/p001.jpg", folder / "train/images/p003.jpg")
    assert check_folder(folder, val_share=0).findings == ()
    (folder / "split.json").write_text('{"train": ["p000", "p001", "p002"], "test": ["p003", "gone"], "val": ["p004"]}')
    kinds = [finding.kind for finding in check_folder(folder, split_file="split.json").findings]
    assert kinds == ["listed_but_missing", "copy_across_splits"]


def test_shares_that_nobody_knows_are_not_nought(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 4, "val": 2, "test": 2})
    for path in (folder / "val" / "masks").iterdir():
        path.write_bytes(b"")
    report = check_folder(folder)
    assert set(report.splits["val"].class_shares.values()) == {None} and report.warnings == ()
    assert sum(report.splits["test"].class_shares.values()) == pytest.approx(1, abs=1e-5)


def test_a_folder_that_is_nothing_but_faults_still_gives_a_report(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 3})
    for path in (folder / "train").rglob("*.*"):
        path.write_bytes(b"\x89PNG broken")
    report = check_folder(folder)
    assert len([finding for finding in report.findings if finding.kind in ("not_an_image", "unreadable")]) == 6


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        check_folder(tmp_path / "nowhere")
