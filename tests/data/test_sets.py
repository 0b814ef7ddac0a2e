"""Opening folders, and splits that are whole, disjoint and repeatable."""

from __future__ import annotations

import json
import shutil
import unicodedata

import pytest

from tests.conftest import real_data
from tests.data.small_set import CLASSES, write_set
from tfprune.data.folders import Pair
from tfprune.data.sets import open_set
from tfprune.data.splits import make_splits
from tfprune.errors import InputError


def stems(found, split):
    return [pair.stem for pair in found.splits[split]]


def pairs_named(names):
    return tuple(Pair(name, f"images/{name}.png", f"masks/{name}.png") for name in names)


def test_given_splits_are_kept(tmp_path):
    found = open_set(write_set(tmp_path / "a", {"train": 4, "val": 2, "test": 3}))
    assert {name: len(pairs) for name, pairs in found.splits.items()} == {"train": 4, "val": 2, "test": 3}
    assert (found.name, found.classes.names, found.channels) == ("small", CLASSES, 3)


def test_a_flat_folder_is_cut_into_three_disjoint_parts(tmp_path):
    folder = write_set(tmp_path / "a", {"": 20}, channels=1)
    found = open_set(folder, val_share=0.25, test_share=0.2, seed=3)
    parts = [set(stems(found, name)) for name in ("train", "val", "test")]
    assert [len(part) for part in parts] == [12, 4, 4]
    assert len(set.union(*parts)) == 20
    assert found.channels == 1
    assert open_set(folder, val_share=0.25, test_share=0.2, seed=3) == found
    assert open_set(folder, val_share=0.25, test_share=0.2, seed=4) != found


def test_a_missing_val_part_is_cut_from_train_and_test_stays(tmp_path):
    found = open_set(write_set(tmp_path / "a", {"train": 10, "test": 3}), val_share=0.2)
    assert [len(found.splits[name]) for name in ("train", "val", "test")] == [8, 2, 3]
    assert stems(found, "test") == ["p010", "p011", "p012"]


def test_the_order_of_files_has_no_influence():
    names = [f"s{number}" for number in range(30)]
    first, _ = make_splits({"all": pairs_named(names)}, seed=1)
    second, _ = make_splits({"all": pairs_named(names[::-1])}, seed=1)
    assert {pair.stem for pair in first["test"]} == {pair.stem for pair in second["test"]}


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_straddle(seed):
    names = [f"bridge{group}_{number}" for group in range(9) for number in range(group + 1)]
    splits, findings = make_splits({"all": pairs_named(names)}, group_pattern=r"^(bridge\d+)_", seed=seed)
    groups = {name: {pair.stem.split("_")[0] for pair in pairs} for name, pairs in splits.items()}
    assert findings == []
    assert all(groups.values())
    assert not (groups["train"] & groups["val"] | groups["train"] & groups["test"] | groups["val"] & groups["test"])
    assert sum(len(pairs) for pairs in splits.values()) == len(names)
    assert abs(len(splits["test"]) - 0.2 * len(names)) <= 5


def test_given_splits_that_share_a_group_are_refused(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 4, "val": 2, "test": 2})
    with pytest.raises(InputError, match=r"group 'p' lies in more than one split: test, train, val"):
        open_set(folder, group_pattern="^(p)")


def test_a_split_file_picks_stems_from_any_folder(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 4, "test": 4})
    content = {"note": "by hand", "train": ["p000", "p005", "p001"], "test": ["p002", "p006"]}
    (folder / "split.json").write_text(json.dumps(content))
    found = open_set(folder, split_file="split.json", val_share=0.4)
    assert stems(found, "test") == ["p002", "p006"]
    assert sorted(stems(found, "train") + stems(found, "val")) == ["p000", "p001", "p005"]
    assert len(found.splits["val"]) == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"train": ["p000", "nowhere"]}, "nowhere: is listed in train, but there is no pair"),
        ({"train": ["p000", "p001"], "test": ["p001"]}, "p001: is listed in train and again in test"),
        ({"train": ["p000"], "tset": ["p001"]}, "unknown split 'tset'; did you mean 'test'"),
        ({"test": ["p001"]}, "nothing under 'train'"),
        ({"train": [1, 2]}, "must be a list of texts"),
        (["p000"], "a split file is JSON such as"),
        ("{", "cannot be read"),
    ],
)
def test_split_files_that_cannot_be_used(tmp_path, content, text):
    folder = write_set(tmp_path / "a", {"": 4})
    (folder / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=text):
        open_set(folder, split_file="split.json")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"class_names": ["rust"]}, "name the background too"),
        ({"channels": 4}, "channels must be 1"),
        ({"val_share": 1.5}, "val_share is a share"),
        ({"split_file": "none.json"}, "there is no such split file"),
        ({"group_pattern": "("}, "is not a regular expression"),
        ({"group_pattern": "p"}, r"has no \(group\)"),
        ({"group_pattern": 3}, r"'?3'? has no \(group\)"),
        ({"group_pattern": "(bridge)"}, "does not match the file stem 'p000'"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, options, text):
    folder = write_set(tmp_path / "a", {"": 4})
    with pytest.raises(InputError, match=text):
        open_set(folder, **options)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        open_set(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no pictures in a known place"):
        open_set(tmp_path)
    folder = write_set(tmp_path / "a", {"train": 3})
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match="no class names; give class_names"):
        open_set(folder)
    assert len(open_set(folder, class_names=CLASSES).splits["train"]) > 0
    (folder / "images").mkdir()
    with pytest.raises(InputError, match="keep one of the two forms"):
        open_set(folder, class_names=CLASSES)
    shutil.rmtree(folder / "train" / "images")
    with pytest.raises(InputError, match="holds no images"):
        open_set(folder, class_names=CLASSES)


def test_pictures_in_folders_of_folders_and_without_any_masks(tmp_path):
    folder = write_set(tmp_path / "a", {"": 3})
    (folder / "masks").rename(folder / "annotations")
    with pytest.raises(InputError, match=r"neither masks/ nor masks.csv; put the masks into .*a/masks"):
        open_set(folder)
    (folder / "images").rename(folder / "day 1")
    (folder / "images").mkdir()
    (folder / "day 1").rename(folder / "images" / "day 1")
    with pytest.raises(InputError, match=r"holds no images; .*images/day 1: 1 folder\(s\) or file\(s\) of other kinds"):
        open_set(folder)


@pytest.mark.parametrize(
    ("described", "text"),
    [
        ({"ignore_indx": 255}, "dataset.json: unknown key 'ignore_indx'; did you mean 'ignore_index'"),
        ({"colors": []}, "did you mean 'colours'"),
        ({"split_file": "split.json"}, "split_file is not read from here; give it in the recipe"),
    ],
)
def test_misspelt_keys_of_a_description_are_refused(tmp_path, described, text):
    with pytest.raises(InputError, match=text):
        open_set(write_set(tmp_path / "a", {"": 3}, **described))


def test_a_description_may_hold_notes(tmp_path):
    notes = {"source": "ours", "licence": "CC0", "splits": {}, "resolution": [320, 240]}
    assert open_set(write_set(tmp_path / "a", {"": 3}, **notes)).name == "small"


def test_files_without_a_partner_are_named(tmp_path):
    folder = write_set(tmp_path / "a", {"train": 6})
    (folder / "train" / "masks" / "p001.png").unlink()
    (folder / "train" / "images" / "p002.jpg").unlink()
    with pytest.raises(InputError, match="2 faults") as caught:
        open_set(folder)
    assert "train/images/p001.jpg: has no mask" in str(caught.value)
    assert "train/masks/p002.png: is a mask without its image" in str(caught.value)


def test_accents_pair_in_either_spelling(tmp_path):
    folder = write_set(tmp_path / "a", {"": 4}, suffix=".png")
    spellings = {"images": "NFD", "masks": "NFC"}
    for kind, form in spellings.items():
        for number in range(4):
            old = folder / kind / f"p{number:03d}.png"
            old.rename(old.with_name(unicodedata.normalize(form, f"Brücke {number}.png")))
    found = open_set(folder)
    names = sorted(name for split in found.splits for name in stems(found, split))
    assert names == [f"Brücke {number}" for number in range(4)]
    listed = {"train": [unicodedata.normalize("NFD", f"Brücke {n}") for n in (0, 1)], "val": ["Brücke 2"]}
    (folder / "split.json").write_text(json.dumps(listed | {"test": ["Brücke 3"]}), encoding="utf-8-sig")
    assert stems(open_set(folder, split_file="split.json"), "train") == ["Brücke 0", "Brücke 1"]


def test_text_files_may_begin_with_a_byte_order_mark(tmp_path):
    folder = write_set(tmp_path / "a", {"": 4}, suffix=".png")
    described = folder / "dataset.json"
    described.write_text(described.read_text(), encoding="utf-8-sig")
    shutil.rmtree(folder / "masks")
    rows = "".join(f"p{number:03d}.png_1,1 5\n" for number in range(4))
    (folder / "masks.csv").write_text(f"ImageId_ClassId,EncodedPixels\n{rows}", encoding="utf-8-sig")
    pairs = [pair for part in open_set(folder).splits.values() for pair in part]
    assert [pair.mask.runs for pair in pairs] == [((1, "1 5"),)] * 4


def test_real_sets_open():
    camvid = open_set(real_data("camvid"))
    assert len(camvid.classes.names) == 11
    assert camvid.classes.ignore_index == 11
    assert "unlabelled" not in camvid.classes.names
    nea = open_set(real_data("nea"), split_file="block_split.json")
    assert sum(len(pairs) for name, pairs in nea.splits.items() if name != "test") == 193
    assert len(nea.splits["test"]) == 71
    assert open_set(real_data("neu_seg")).channels == 1
