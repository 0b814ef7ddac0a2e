"""Forms of published sets: run lengths, float patches with a table, merged classes, DRIVE's TIFF and GIF."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.small_set import write_set
from tfprune.data import check_folder, load_arrays, open_set
from tfprune.data.images import SUFFIXES
from tfprune.data.masks import build_class_table, decode_ids
from tfprune.data.patches import convert_patches, fit_scaling, is_corrupt
from tfprune.data.run_length import decode_runs, encode_runs, write_table
from tfprune.errors import InputError
from tfprune.report.predictions import find_images

DEFECTS = ("background", "first", "second", "third", "fourth")


def reference_runs(mask):
    """Walk down the columns and count, pixel by pixel."""
    runs, start = [], None
    for number, value in enumerate([*mask.T.ravel(), 0], start=1):
        if value and start is None:
            start = number
        elif not value and start is not None:
            runs += [start, number - start]
            start = None
    return " ".join(map(str, runs))


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_runs_are_those_of_a_loop_and_come_back(share):
    mask = np.random.default_rng(3).random((13, 7)) < share
    assert encode_runs(mask) == reference_runs(mask)
    np.testing.assert_array_equal(decode_runs(encode_runs(mask), mask.shape), mask)


def test_the_first_pixel_is_one_and_the_second_lies_below_it():
    mask = decode_runs("1 2 13 1", (4, 5))
    assert np.argwhere(mask).tolist() == [[0, 0], [0, 3], [1, 0]]


@pytest.fixture
def strips(tmp_path):
    """A folder in the run-length form, and the masks that were written."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    masks = {}
    for number in range(4):
        mask = rng.integers(0, 5, (6, 9)).astype(np.uint8) if number else np.zeros((6, 9), np.uint8)
        Image.fromarray(rng.integers(0, 256, (6, 9), dtype=np.uint8)).save(tmp_path / "images" / f"p{number}.png")
        masks[f"p{number}.png"] = mask
    write_table(tmp_path / "masks.csv", masks, len(DEFECTS))
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": DEFECTS}))
    return tmp_path, masks


def test_a_table_of_run_lengths_stands_in_place_of_masks(strips):
    folder, masks = strips
    found = open_set(folder, test_share=0, val_share=0)
    loaded = load_arrays(found.splits["train"], found.classes, size=(6, 9), channels=1)
    assert loaded.stems == ("p0", "p1", "p2", "p3")
    for stem, mask in zip(loaded.stems, loaded.masks, strict=True):
        np.testing.assert_array_equal(mask, masks[f"{stem}.png"])
    assert check_folder(folder, test_share=0, val_share=0).findings == ()
    lines = (folder / "masks.csv").read_text().splitlines()
    assert lines[:3] == ["ImageId_ClassId,EncodedPixels", "p0.png_1,", "p0.png_2,"]


def test_the_table_may_have_three_columns_and_leave_out_pictures_without_defect(strips):
    folder, _ = strips
    (folder / "masks.csv").write_text("ImageId,ClassId,EncodedPixels\np2.png,3,2 4\n")
    found = open_set(folder, test_share=0, val_share=0)
    loaded = load_arrays(found.splits["train"], found.classes, size=(6, 9), channels=1)
    expected = np.zeros((6, 9), np.uint8)
    expected[1:5, 0] = 3
    np.testing.assert_array_equal(loaded.masks, [0 * expected, 0 * expected, expected, 0 * expected])


@pytest.mark.parametrize(
    ("table", "kind", "text"),
    [
        (
            "ImageId_ClassId,EncodedPixels\np9.png_1,1 1\n",
            "missing_image",
            "masks.csv: has rows of p9.png, and there is no",
        ),
        ("ImageId_ClassId,EncodedPixels\np1.png_1,54 2\n", "run_lengths", "p1.png holds runs outside pixels 1 to 54"),
        ("ImageId_ClassId,EncodedPixels\np1.png_1,0 2\n", "run_lengths", "outside pixels 1 to 54"),
        ("ImageId_ClassId,EncodedPixels\np1.png_1,5\n", "run_lengths", "no pairs of whole numbers: '5'"),
        ("ImageId_ClassId,EncodedPixels\np1.png_7,1 1\n", "class_ids", "runs of class 7, which is none"),
    ],
)
def test_faults_of_a_table_are_found(strips, table, kind, text):
    folder, _ = strips
    (folder / "masks.csv").write_text(table)
    findings = check_folder(folder, test_share=0, val_share=0).findings
    assert [finding.kind for finding in findings] == [kind]
    assert text in str(findings[0])


def test_pixels_of_two_classes_are_told_and_have_the_higher_one(strips):
    folder, _ = strips
    (folder / "masks.csv").write_text("ImageId,ClassId,EncodedPixels\np2.png,3,2 4\np2.png,1,1 3\np1.png,1,1 3\n")
    found = open_set(folder, test_share=0, val_share=0)
    loaded = load_arrays(found.splits["train"], found.classes, size=(6, 9), channels=1)
    assert loaded.masks[2][:, 0].tolist() == [1, 3, 3, 3, 3, 0]
    told = [str(one) for one in check_folder(folder, test_share=0, val_share=0).warnings if one.kind != "absent_class"]
    assert told == [
        "masks.csv: has 2 pixel(s) of 1 picture(s) in runs of more than one class; "
        "a pixel has one class here, that of the higher number"
    ]


def test_a_table_of_another_form_is_answered_with_the_accepted_ones(strips):
    folder, _ = strips
    (folder / "masks.csv").write_text("image,mask\n")
    with pytest.raises(InputError, match=r"masks\.csv: the first line is 'image,mask'; it must be ImageId,ClassId,"):
        open_set(folder)
    (folder / "masks.csv").write_text("ImageId_ClassId,EncodedPixels\np1.png,1 1\n")
    with pytest.raises(InputError, match=r"masks\.csv:2: 'p1\.png,1 1' names no picture and class"):
        open_set(folder)


def test_merged_classes_are_those_of_the_recipe():
    table = build_class_table(
        ["sky", "building", "pole", "road", "void"],
        ignore_index=4,
        merge_classes={"sky": ["sky"], "built": ["building", "pole"], "other": "rest"},
    )
    assert table.names == ("sky", "built", "other")
    assert decode_ids(np.array([[0, 1, 2, 3, 4]]), table).tolist() == [[0, 1, 1, 2, 255]]


@pytest.mark.parametrize(
    ("merged", "text"),
    [
        ({"a": ["skye"], "b": "rest"}, "unknown class 'skye'; did you mean 'sky'"),
        ({"a": ["sky"], "b": ["road", "sky"]}, "'sky' becomes more than one class"),
        ({"a": ["sky"], "b": ["road"]}, "pole becomes nothing"),
        ({"a": "rest"}, "two classes are needed"),
        (["sky", "road"], "merge_classes maps each new class to the names"),
        ({"a": 1, "b": "rest"}, "merge_classes maps each new class to the names"),
    ],
)
def test_wrong_merges_are_answered(merged, text):
    with pytest.raises(InputError, match=text):
        build_class_table(["sky", "road", "pole"], merge_classes=merged)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pictures_are_found_under_every_name_that_is_read(tmp_path, suffix):
    folder = write_set(tmp_path, {"train": 2, "val": 1, "test": 1}, suffix=suffix)
    pairs = open_set(folder).splits["train"]
    assert [pair.image.name for pair in pairs] == [f"p000{suffix}", f"p001{suffix}"]
    assert find_images([folder / "train" / "images"]) == [pair.image for pair in pairs]


def test_palette_masks_are_merged_when_they_are_read(tmp_path):
    folder = write_set(tmp_path, {"train": 2, "val": 1, "test": 1}, class_names=("a", "b", "c"))
    for path in (folder / "train" / "masks").iterdir():
        mask = Image.open(path).convert("P")
        mask.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90] + [0] * 759)
        mask.save(path)
    colours = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    found = open_set(folder, merge_classes={"b": ["b"], "other": "rest"}, colours=colours)
    whole = open_set(folder, colours=colours)
    pair = found.splits["train"][0]
    merged, plain = (
        load_arrays([pair], table, size=(24, 32), channels=3).masks[0] for table in (found.classes, whole.classes)
    )
    np.testing.assert_array_equal(merged, np.where(plain == 1, 0, 1))


def test_tiff_pictures_and_gif_masks_are_paired_by_the_number_in_their_names(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    masks = []
    for number in (21, 22):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
            tmp_path / "images" / f"{number}_training.tif", compression="tiff_lzw"
        )
        masks.append((rng.random((20, 24)) < 0.2).astype(np.uint8))
        Image.fromarray(masks[-1] * 255).save(tmp_path / "masks" / f"{number}_manual1.gif")
    description = {"class_names": ["background", "vessel"], "stem_pattern": r"^(\d+)_"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    found = open_set(tmp_path, test_share=0, val_share=0)
    loaded = load_arrays(found.splits["train"], found.classes, size=(20, 24), channels=3)
    assert loaded.stems == ("21_training", "22_training")
    np.testing.assert_array_equal(loaded.masks, masks)
    with pytest.raises(InputError, match=r"stem_pattern .* does not match the file stem '21_training'"):
        open_set(tmp_path, stem_pattern="(training)x")


@pytest.fixture
def retina(tmp_path):
    """DRIVE's files under the names of a set, with what is in them: vessels, and where the picture shows the eye."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:20, :24]
    inside = (rows - 9.5) ** 2 + (columns - 11.5) ** 2 < 81
    vessels = (rng.random((20, 24)) < 0.2).astype(np.uint8)
    for split, number in (("train", 21), ("train", 22), ("test", 1)):
        files = {
            f"images/{number:02d}_{split}.tif": rng.integers(0, 256, (20, 24, 3), dtype=np.uint8),
            f"masks/{number:02d}_manual1.gif": vessels * 255,
            f"judged/{number:02d}_{split}_mask.gif": inside.astype(np.uint8) * 255,
        }
        for name, pixels in files.items():
            path = tmp_path / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    description = {"class_names": ["background", "vessel"], "stem_pattern": r"^(\d+)_"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path, vessels, inside


def test_outside_the_field_of_view_nothing_is_judged(retina):
    folder, vessels, inside = retina
    found = open_set(folder, val_share=0)
    loaded = load_arrays([*found.splits["train"], *found.splits["test"]], found.classes, size=(20, 24), channels=3)
    np.testing.assert_array_equal(loaded.masks, 3 * [np.where(inside, vessels, 255)])
    report = check_folder(folder, val_share=0)
    assert report.findings == () and {warning.kind for warning in report.warnings} <= {"look_alikes"}
    assert report.splits["train"].class_shares["vessel"] == pytest.approx(vessels[inside].mean(), abs=1e-6)


@pytest.mark.parametrize("form", ["index", "sixteen_bit", "rgb", "one_bit"])
def test_what_is_judged_may_be_stored_in_any_way(retina, form):
    folder, vessels, inside = retina
    stored = {
        "index": Image.fromarray(inside.astype(np.uint8)),
        "sixteen_bit": Image.fromarray(inside.astype(np.uint16)),
        "rgb": Image.fromarray(np.stack([inside, 0 * inside, 0 * inside], axis=-1).astype(np.uint8)),
        "one_bit": Image.fromarray(inside),
    }[form]
    (folder / "test" / "judged" / "01_test_mask.gif").unlink()
    stored.save(folder / "test" / "judged" / "01_test_mask.png")
    found = open_set(folder, val_share=0)
    loaded = load_arrays(found.splits["test"], found.classes, size=(20, 24), channels=3)
    np.testing.assert_array_equal(loaded.masks[0], np.where(inside, vessels, 255))


def test_faults_of_what_is_judged_are_found(retina):
    folder, _, inside = retina
    judged = folder / "train" / "judged"
    (judged / "21_train_mask.gif").rename(judged / "23_train_mask.gif")
    Image.fromarray(inside[:, 1:]).save(judged / "22_train_mask.gif")
    kinds = {finding.kind: str(finding) for finding in check_folder(folder, val_share=0).findings}
    assert kinds == {
        "missing_judged": "train/images/21_train.tif: has no picture in judged/ that says where it is judged; "
        "the others have one",
        "missing_image": "train/judged/23_train_mask.gif: says where an image is judged, and there is no image "
        "images/23.*",
        "judged_size": "train/judged/22_train_mask.gif: is 23x20 pixels (width x height), its mask is 24x20",
    }
    with pytest.raises(InputError, match="2 faults in the data"):
        open_set(folder)


def test_run_lengths_have_a_field_of_view_too(strips):
    folder, masks = strips
    (folder / "judged").mkdir()
    for name in masks:
        Image.fromarray(np.uint8(masks[name] != 2)).save(folder / "judged" / name)
    found = open_set(folder, test_share=0, val_share=0)
    loaded = load_arrays(found.splits["train"], found.classes, size=(6, 9), channels=1)
    np.testing.assert_array_equal(loaded.masks, [np.where(mask == 2, 255, mask) for mask in masks.values()])


@pytest.fixture
def wells(tmp_path):
    """Patches of eight wells, some corrupt, and what is in them."""
    rng = np.random.default_rng(1)
    (tmp_path / "raw" / "images").mkdir(parents=True)
    scale = rng.uniform(0.1, 9, (36, 36))
    rows, patches = [",".join(["", *map(str, range(1296))])], {}
    for well in range(1, 9):
        for number in range(6):
            name = f"well_{well}_patch_{number}"
            patch = (rng.normal(0, 1, (36, 36)) * scale).astype(np.float32)
            if number == 5:
                patch[3, 4] = -999.25
            np.save(tmp_path / "raw" / "images" / f"{name}.npy", patch[..., None] if well == 1 else patch)
            mask = rng.random((36, 36)) < 0.07
            rows.append(",".join([name, *map(str, mask.astype(int).ravel())]))
            patches[name] = patch, mask
    (tmp_path / "raw" / "masks.csv").write_text("\n".join(rows))
    return tmp_path, patches


def test_patches_become_pictures_split_by_well(wells):
    tmp_path, patches = wells
    found = open_set(convert_patches(tmp_path / "raw", tmp_path / "set"))
    of_split = {split: {pair.stem.split("_patch")[0] for pair in pairs} for split, pairs in found.splits.items()}
    assert sum(map(len, of_split.values())) == 8 == len(set.union(*of_split.values()))
    assert [len(of_split[split]) for split in ("train", "val", "test")] == [5, 1, 2]
    assert found.channels == 1 and len(found.splits["train"]) == 25 and len(found.splits["test"]) == 12
    described = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert {split: len(stems) for split, stems in described["corrupt"].items()} == {"train": 5, "val": 1, "test": 2}
    loaded = load_arrays(found.splits["test"], found.classes, size=(36, 36), channels=1)
    for stem, picture, mask in zip(loaded.stems, loaded.images, loaded.masks, strict=True):
        np.testing.assert_array_equal(mask, patches[stem][1])
        assert stem.endswith("_5") == (not picture.any())


def test_positions_are_scaled_as_the_robust_scaler_of_scikit_learn_does(wells):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    _, patches = wells
    values = np.stack([patch for patch, _ in patches.values()])
    sound = values[~is_corrupt(values)]
    assert len(sound) == 40
    reference = preprocessing.RobustScaler().fit(sound.reshape(len(sound), -1))
    centre, scale = fit_scaling(sound)
    np.testing.assert_allclose(centre.ravel(), reference.center_, rtol=1e-5)
    np.testing.assert_allclose(scale.ravel(), reference.scale_, rtol=1e-5)


def test_faults_of_patches_are_answered(wells):
    tmp_path, _ = wells
    raw = tmp_path / "raw"
    with pytest.raises(InputError, match=r"holds no images; .* first go through `tfprune data convert`"):
        open_set(raw, class_names=["a", "b"])
    np.save(raw / "images" / "well_2_patch_0.npy", np.zeros((36, 35), np.float32))
    with pytest.raises(InputError, match=r"\.npy: is of shape \(36, \d\d\); it must be as the others"):
        convert_patches(raw, tmp_path / "set")
    np.save(raw / "images" / "well_2_patch_0.npy", np.zeros((36, 36), np.float32))
    table = (raw / "masks.csv").read_text().splitlines()
    (raw / "masks.csv").write_text("\n".join(line for line in table if not line.startswith("well_3_patch_1,")))
    with pytest.raises(InputError, match=r"masks\.csv: has no row of well_3_patch_1"):
        convert_patches(raw, tmp_path / "set")
    with pytest.raises(InputError, match="holds a set already"):
        convert_patches(raw, raw)
