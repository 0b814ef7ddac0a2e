"""Resizes of version 2: nearest ones give the same bits, bilinear ones do not, and older compilers read both."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.nets import class_names
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras
from tfprune.targets.lint import lint_file
from tfprune.verification.graph import read_operators
from tfprune.verification.runtimes import open_runtime

L = keras.layers
PICTURES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)


def exported(tmp_path, interpolation, *, scheme="int8", **options):
    keras.utils.set_random_seed(0)
    image = L.Input((32, 32, 3))
    x = L.Conv2D(8, 3, strides=4, padding="same", activation="relu")(image)
    x = L.Conv2D(8, 3, padding="same", activation="relu")(L.UpSampling2D(2, interpolation=interpolation)(x))
    model = keras.Model(image, L.Conv2D(2, 1)(L.UpSampling2D(2, interpolation=interpolation)(x)))
    path = tmp_path / f"{interpolation}{'_v2' * bool(options)}.tflite"
    settings = {"scheme": scheme, "head": "logits", "class_names": class_names(2), "calibration": PICTURES}
    return export_tflite(model, path, **settings, **options)


def answers(path):
    runtime = open_runtime(path)
    return np.stack([runtime.predict(picture).astype(np.float32) for picture in PICTURES])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_only_bilinear_resizes_change_with_their_version(tmp_path, interpolation):
    new = exported(tmp_path, interpolation)
    old = exported(tmp_path, interpolation, resize_v2=True)
    versions = [{one.version for one in read_operators(path) if one.name.startswith("RESIZE_")} for path in (new, old)]
    assert versions == [{3}, {2}]
    assert not lint_file(old, "coral").falls_back and lint_file(new, "coral").falls_back
    assert np.array_equal(answers(new), answers(old)) == (interpolation == "nearest")


def test_a_bilinear_resize_of_version_2_takes_the_corner_as_it_is(tmp_path):
    """Without half-pixel centres the first row and column of the larger picture are those of the smaller."""
    image = L.Input((4, 4, 3))
    model = keras.Model(image, L.UpSampling2D(2, interpolation="bilinear")(L.AveragePooling2D(2)(image)))
    path = tmp_path / "corner.tflite"
    export_tflite(model, path, head="logits", class_names=class_names(3), resize_v2=True)
    picture = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    small = picture.reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))
    large = open_runtime(path).predict(picture)
    np.testing.assert_allclose(large[::2, ::2], small, rtol=1e-5)
    np.testing.assert_allclose(large[0, 1], (small[0, 0] + small[0, 1]) / 2, rtol=1e-5)
