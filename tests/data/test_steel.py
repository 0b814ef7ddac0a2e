"""The generated steel set: exact masks, reproducible pictures, resumable writing, and too hard for a colour rule."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tfprune.data import steel_scene
from tfprune.data.steel import CLASS_NAMES, draw_steel, generate_steel
from tfprune.errors import InputError

COUNTS = {"train": 4, "val": 2, "test": 3}


def _draw_many(count: int, *, classes: int, size: tuple[int, int], split: int = 0) -> tuple[np.ndarray, np.ndarray]:
    pairs = [draw_steel(np.random.default_rng((5, split, i)), classes=classes, size=size) for i in range(count)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def _files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    return _draw_many(150, classes=4, size=(64, 64))


@pytest.fixture(scope="module")
def steel_folder(tmp_path_factory):
    return generate_steel(tmp_path_factory.mktemp("steel") / "set", classes=3, counts=COUNTS, size=(40, 56), seed=3)


def test_every_class_is_common_and_corrosion_is_the_smaller_part(pictures) -> None:
    _, masks = pictures
    present = [(masks == level).any((1, 2)).mean() for level in range(4)]
    assert min(present) >= 1 / 3
    assert 0.05 < (masks > 0).mean() < 0.2
    assert (masks == 3).mean() > 0.008
    assert 0.04 < (masks == 0).all((1, 2)).mean() < 0.3, "some pictures, not many, show no corrosion at all"


def test_pictures_vary(pictures) -> None:
    images, _ = pictures
    thumbnails = images.reshape(len(images), 8, 8, 8, 8, 3).mean((2, 4)).reshape(len(images), -1)
    distances = np.sqrt(((thumbnails[:, None] - thumbnails[None]) ** 2).mean(-1))
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 5
    assert images.mean((1, 2, 3)).std() > 20


def test_the_class_modes_show_the_same_scene_with_coarser_classes() -> None:
    for index in range(6):
        drawn = {k: draw_steel(np.random.default_rng(index), classes=k, size=(48, 48)) for k in CLASS_NAMES}
        assert all((image == drawn[4][0]).all() for image, _ in drawn.values())
        np.testing.assert_array_equal(drawn[2][1], drawn[4][1] > 0)
        np.testing.assert_array_equal(drawn[3][1], np.array([0, 1, 1, 2])[drawn[4][1]])


@pytest.mark.parametrize("size", [(16, 16), (33, 71), (90, 40)])
def test_any_size_can_be_drawn(size) -> None:
    image, mask = draw_steel(np.random.default_rng(1), size=size)
    assert image.shape == (*size, 3) and mask.shape == size
    assert image.dtype == mask.dtype == np.uint8


def test_features_grow_with_the_picture() -> None:
    agreements = []
    for index in range(8):
        small = draw_steel(np.random.default_rng(index), classes=2, size=(64, 80))[1]
        large = draw_steel(np.random.default_rng(index), classes=2, size=(192, 240))[1]
        agreements.append((small == large[1::3, 1::3]).mean())
    assert min(agreements) > 0.95


@pytest.mark.parametrize("layer", sorted(set(steel_scene.CORRODED), key=lambda layer: layer.__name__))
def test_the_mask_is_what_was_drawn(layer) -> None:
    marked = 0
    for seed in range(5):
        scene = steel_scene.Scene(np.random.default_rng(seed), (96, 96))
        scene.albedo[:] = (0.1, 0.4, 0.9)
        before = scene.albedo.copy()
        layer(scene)
        changed = np.abs(scene.albedo - before).max(-1)
        corroded = scene.level > 0
        marked += corroded.sum()
        assert (changed[corroded] > 0.03).all()
        assert not changed[~corroded].any()
    assert marked > 0


@pytest.mark.parametrize(
    "layer", sorted(set(steel_scene.STAINED + steel_scene.BUILT), key=lambda layer: layer.__name__)
)
def test_what_only_looks_like_rust_is_background(layer) -> None:
    scene = steel_scene.Scene(np.random.default_rng(0), (64, 64))
    layer(scene)
    assert not scene.level.any()


def test_what_lies_on_rust_hides_it() -> None:
    for layer in set(steel_scene.LAID_ON) - {steel_scene.draw_chalk}:
        scene = steel_scene.Scene(np.random.default_rng(0), (64, 64))
        scene.level[:] = 3
        layer(scene)
        assert (scene.level == 0).any() and (scene.level == 3).any()


def test_lighter_rust_is_not_drawn_over_worse() -> None:
    scene = steel_scene.Scene(np.random.default_rng(2), (64, 64))
    scene.level[20:44, 20:44] = 3
    for layer in (steel_scene.draw_freckles, steel_scene.draw_rusted_scratch) * 8:
        layer(scene)
    assert (scene.level[20:44, 20:44] == 3).all() and (scene.level == 1).any()
    assert not scene.albedo[20:44, 20:44].any()


def test_the_set_has_the_standard_form(steel_folder) -> None:
    record = json.loads((steel_folder / "dataset.json").read_text())
    assert record["class_names"] == ["background", "rust", "pitting"]
    assert (record["resolution"], record["channels"], record["ignore_index"]) == ([56, 40], 3, None)
    assert (record["splits"], record["licence"], record["generator"]["seed"]) == (COUNTS, "generated", 3)
    names = {str(path.relative_to(steel_folder)) for path in steel_folder.rglob("*") if path.is_file()}
    pairs = {f"{s}/{part}/{i:04d}.png" for s, n in COUNTS.items() for part in ("images", "masks") for i in range(n)}
    assert names == pairs | {"dataset.json"}
    with (
        Image.open(steel_folder / "test/masks/0000.png") as mask,
        Image.open(steel_folder / "test/images/0000.png") as im,
    ):
        assert (mask.mode, im.mode, mask.size, im.size) == ("L", "RGB", (56, 40), (56, 40))
    expected = draw_steel(np.random.default_rng((3, 2, 1)), classes=3, size=(40, 56))
    for part, pixels in zip(("images", "masks"), expected, strict=True):
        with Image.open(steel_folder / "test" / part / "0001.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_a_picture_does_not_depend_on_the_counts(steel_folder, tmp_path) -> None:
    counts = {"train": 2, "val": 3, "test": 1}
    other = _files(generate_steel(tmp_path / "other", classes=3, counts=counts, size=(40, 56), seed=3))
    shared = [name for name, data in _files(steel_folder).items() if name in other and name.endswith("png")]
    assert len(shared) == 2 * (2 + 2 + 1)
    assert all(other[name] == _files(steel_folder)[name] for name in shared)
    pixels = [data for name, data in other.items() if "images" in name]
    assert len(set(pixels)) == 6, "no picture is in two splits"


def test_a_complete_set_is_left_alone_and_another_refused(steel_folder) -> None:
    times = {path: path.stat().st_mtime_ns for path in steel_folder.rglob("*")}
    generate_steel(str(steel_folder), classes=3, counts=COUNTS, size=[40, 56], seed=3)
    assert times == {path: path.stat().st_mtime_ns for path in steel_folder.rglob("*")}
    with pytest.raises(InputError, match="class_names"):
        generate_steel(steel_folder, classes=2, counts=COUNTS, size=(40, 56), seed=3)
    with pytest.raises(InputError, match="seed"):
        generate_steel(steel_folder, classes=3, counts=COUNTS, size=(40, 56), seed=4)


def test_an_interrupted_set_is_completed(steel_folder, tmp_path, monkeypatch) -> None:
    folder, drawn = tmp_path / "cut", []

    def draw_until_killed(rng, **options):
        drawn.append(1)
        if len(drawn) == 6:
            raise KeyboardInterrupt
        return draw_steel(rng, **options)

    with monkeypatch.context() as patch:
        patch.setattr("tfprune.data.steel.draw_steel", draw_until_killed)
        with pytest.raises(KeyboardInterrupt):
            generate_steel(folder, classes=3, counts=COUNTS, size=(40, 56), seed=3)
    assert not (folder / "dataset.json").exists()
    (folder / "train/images/.0002.half.png").write_bytes(b"cut off")
    with pytest.raises(InputError, match="other parameters"):
        generate_steel(folder, classes=3, counts=COUNTS, size=(40, 40), seed=3)
    generate_steel(folder, classes=3, counts=COUNTS, size=(40, 56), seed=3)
    assert _files(folder) == _files(steel_folder)


def test_foreign_and_broken_folders_are_refused(steel_folder, tmp_path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="not of a generated set"):
        generate_steel(tmp_path, counts=COUNTS)
    broken = tmp_path / "broken"
    shutil.copytree(steel_folder, broken)
    (broken / "dataset.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        generate_steel(broken, counts=COUNTS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 5}, "accepted: 2"),
        ({"size": (96, 8)}, "whole number from 16"),
        ({"size": 96}, "height, width"),
        ({"seed": -1}, "whole number from 0"),
        ({"seed": 0.5}, "whole number from 0"),
        ({"counts": {"train": 3}}, "train, val, test"),
        ({"counts": {"train": 3, "val": 0, "test": 1}}, "counts of val"),
    ],
)
def test_wrong_parameters_are_named(tmp_path, wrong, message) -> None:
    with pytest.raises(InputError, match=message):
        generate_steel(tmp_path / "set", **({"counts": COUNTS} | wrong))
    assert not (tmp_path / "set").exists()


def _colour_features(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a colour rule could look at: redness in several forms, hue, saturation and darkness."""
    red, green, blue = np.moveaxis(images.astype(np.float64), -1, 0)
    total, high, low = red + green + blue + 1, images.max(-1) + 1.0, images.min(-1) + 0.0
    return {
        "red - blue": red - blue,
        "red - green": red - green,
        "excess red": 2 * red - green - blue,
        "red share": red / total,
        "blue share": -blue / total,
        "red / green": red / (green + 1),
        "hue near orange": -np.abs(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) - 0.4),
        "saturation": (high - low) / high,
        "dark": -total,
        "dark and red": (red - blue) / total - 0.5 * total / 765,
    }


def _iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float((truth & predicted).sum() / (truth | predicted).sum())


def _best_cut(score: np.ndarray, truth: np.ndarray) -> float:
    cuts = np.quantile(score, np.linspace(0.02, 0.995, 100))
    return max(cuts, key=lambda cut: _iou(truth, score > cut))


def measure_threshold_iou(train, test) -> float:
    """Return the test IoU of the feature and threshold that are best on train."""
    features, held_out = _colour_features(train[0]), _colour_features(test[0])
    cuts = {name: _best_cut(score, train[1]) for name, score in features.items()}
    best = max(cuts, key=lambda name: _iou(train[1], features[name] > cuts[name]))
    return _iou(test[1], held_out[best] > cuts[best])


def measure_colour_table_iou(train, test) -> float:
    """Return the test IoU of the best rule on colour alone: the corrosion rate per colour, with the best cut."""
    cells = [(images // 16).astype(np.intp) @ np.array([256, 16, 1]) for images in (train[0], test[0])]
    corroded = np.bincount(cells[0].ravel(), weights=train[1].ravel(), minlength=4096)
    rate = corroded / (np.bincount(cells[0].ravel(), minlength=4096) + 2)
    return _iou(test[1], rate[cells[1]] > _best_cut(rate[cells[0]], train[1]))


def measure_unet_iou(train, test, *, epochs: int) -> float:
    """Return the test IoU of a plain-conv U-Net of about 30 000 weights."""
    from tfprune.keras import keras, tf

    def block(x, width):
        for _ in range(2):
            x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        return x

    def dice_and_entropy(truth, logits):
        entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=truth, logits=logits))
        share = tf.sigmoid(logits)
        overlap, total = tf.reduce_sum(truth * share), tf.reduce_sum(truth) + tf.reduce_sum(share)
        return entropy + 1 - (2 * overlap + 1) / (total + 1)

    keras.utils.set_random_seed(0)
    pixels = keras.Input(train[0].shape[1:])
    x, skips = keras.layers.Rescaling(1 / 127.5, -1)(pixels), []
    for width in (8, 16):
        skips.append(block(x, width))
        x = keras.layers.MaxPooling2D()(skips[-1])
    x = block(x, 32)
    for width, skip in zip((16, 8), reversed(skips), strict=True):
        x = block(keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), skip]), width)
    model = keras.Model(pixels, keras.layers.Conv2D(1, 1)(x))
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * -(-len(train[0]) // 16))
    model.compile(keras.optimizers.Adam(rate), dice_and_entropy)
    model.fit(
        train[0].astype("float32"), train[1][..., None].astype("float32"), batch_size=16, epochs=epochs, verbose=0
    )
    return _iou(test[1], model.predict(test[0].astype("float32"), verbose=0)[..., 0] > 0)


@pytest.mark.slow
def test_a_colour_rule_stays_clearly_below_a_small_unet() -> None:
    train, test = (
        (images, masks > 0)
        for images, masks in (_draw_many(n, classes=2, size=(64, 64), split=s) for n, s in ((400, 0), (100, 2)))
    )
    threshold, table = measure_threshold_iou(train, test), measure_colour_table_iou(train, test)
    unet = measure_unet_iou(train, test, epochs=20)
    assert max(threshold, table) + 0.15 < unet, f"threshold {threshold:.3f}, table {table:.3f}, U-Net {unet:.3f}"
    assert unet > 0.45
