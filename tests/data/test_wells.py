"""The generated wells: grooves that run on, a scale per position, corrupt patches, and one split for each well."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfprune.data import load_arrays, open_set
from tfprune.data.patches import is_corrupt
from tfprune.data.wells import SENTINEL, draw_well, generate_wells
from tfprune.errors import InputError

COUNTS = {"train": 90, "val": 20, "test": 60}


@pytest.fixture(scope="module")
def wells():
    drawn = [draw_well(np.random.default_rng((2, well))) for well in range(12)]
    return np.stack([values for values, _ in drawn]), np.stack([masks for _, masks in drawn])


def test_some_patches_are_corrupt_and_a_twelfth_of_the_wall_is_corroded(wells):
    values, masks = wells
    corrupt = is_corrupt(values.reshape(-1, 36, 36))
    assert 0.02 < corrupt.mean() < 0.06
    assert (values.reshape(-1, 36, 36)[corrupt].min(axis=(1, 2)) == np.float32(SENTINEL)).all()
    assert not masks.reshape(-1, 36, 36)[corrupt].any()
    assert 0.04 < masks.mean() < 0.12


def test_grooves_run_on_into_the_next_patch(wells):
    _, masks = wells
    above, below = masks[:, :-1, -1], masks[:, 1:, 0]
    both = (above & below).sum() / (above | below).sum()
    shuffled = (above & np.roll(below, 1, axis=0)).sum() / (above | np.roll(below, 1, axis=0)).sum()
    assert both > 0.6 > 0.2 > shuffled


def test_positions_have_a_level_and_a_spread_of_their_own(wells):
    values, masks = wells
    sound = np.ma.masked_array(values, (masks == 1) | (values < -100))
    levels, spreads = sound.mean(axis=(0, 1)), sound.std(axis=(0, 1))
    assert levels.std() > 0.25 and spreads.max() > 2 * spreads.min()


def test_corroded_wall_is_thinner_but_a_threshold_does_not_find_it(wells):
    values, masks = wells
    known = ~is_corrupt(values.reshape(-1, 36, 36))
    flat, truth = values.reshape(-1, 36, 36)[known], masks.reshape(-1, 36, 36)[known] == 1
    assert flat[truth].mean() < flat[~truth].mean() - 0.5
    best = max(((flat < cut) & truth).sum() / ((flat < cut) | truth).sum() for cut in np.linspace(-4, 1, 26))
    assert best < 0.5


def test_a_set_on_disk_keeps_wells_together_and_is_completed(tmp_path):
    folder = generate_wells(tmp_path / "set", counts=COUNTS, seed=1)
    found = open_set(folder)
    wells = {split: {pair.stem.split("_patch")[0] for pair in pairs} for split, pairs in found.splits.items()}
    assert [len(wells[split]) for split in COUNTS] == [3, 1, 2] and len(set.union(*wells.values())) == 6
    described = json.loads((folder / "dataset.json").read_text())
    corrupt = {split: len(stems) for split, stems in described["corrupt"].items()}
    assert len(found.splits["train"]) == 90 - corrupt["train"] and len(found.splits["test"]) == 60
    loaded = load_arrays(found.splits["test"], found.classes, size=(36, 36), channels=1)
    patch = np.load(folder / "patches" / "test" / "images" / f"{loaded.stems[3]}.npy")
    assert patch.dtype == np.float32 and patch.shape == (36, 36)
    before = (folder / "dataset.json").read_bytes()
    (folder / "dataset.json").rename(folder / "dataset.json.partial")
    (folder / "dataset.json.partial").write_text(json.dumps({"generator": described["generator"]}))
    generate_wells(folder, counts=COUNTS, seed=1)
    assert (folder / "dataset.json").read_bytes() == before
    with pytest.raises(InputError, match="made with other parameters"):
        generate_wells(folder, counts=COUNTS, seed=2)


def test_other_classes_are_answered(tmp_path):
    with pytest.raises(InputError, match=r"wells: classes is 3; accepted: 2 \(background, corrosion\)"):
        generate_wells(tmp_path, classes=3, counts=COUNTS)
