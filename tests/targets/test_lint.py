"""Lint: faults planted in small files are found, each by its operator, and sound files pass."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.nets import class_names
from tfprune.architectures import build_model
from tfprune.errors import InputError
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.targets import TARGETS
from tfprune.targets.lint import gathered, lint_file, lint_operators
from tfprune.verification.graph import read_operators

L = keras.layers
SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lint")


def net(build, *, size=SIZE, down=1, first=8, outputs=3):
    """Return conv of stride `down` -> what `build` makes, of the input's size -> 1x1 conv."""
    image = L.Input((size, size, 3))
    x = build(L.Conv2D(first, 3, strides=down, padding="same", activation="relu", name="first")(image))
    return keras.Model(image, L.Conv2D(outputs, 1, name="logits")(x))


def written(folder, name, model, *, scheme="int8", head="logits"):
    path = folder / f"{name}_{scheme}_{head}.tflite"
    if not path.exists():
        size, outputs = model.input_shape[1], model.output_shape[-1]
        pictures = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
        export_tflite(model, path, scheme=scheme, head=head, class_names=class_names(outputs), calibration=pictures)
    return path


def converted(folder, name, function, shape):
    """Convert a function of one float tensor, without anything that tfprune does for a file."""
    path = folder / f"{name}.tflite"
    concrete = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32)]).get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    return path


def bilinear_4x(folder):
    return written(folder, "bilinear", net(L.UpSampling2D(4, interpolation="bilinear"), down=4))


def nearest_2x(folder):
    return written(folder, "nearest", net(L.UpSampling2D(2), down=2))


def stride_3(folder):
    return written(folder, "stride", net(L.Conv2DTranspose(8, 3, strides=3, padding="same"), size=30, down=3))


def softmax_inside(folder):
    return written(folder, "softmax", net(L.Softmax()))


def leaky(folder):
    return written(folder, "leaky", net(L.LeakyReLU(0.1)))


def thirteen(folder):
    return written(folder, "thirteen", net(L.ReLU(), first=13))


def float_net(folder):
    return written(folder, "float", net(L.ReLU()), scheme="float32")


def open_batch(folder):
    return converted(folder, "open", lambda x: tf.nn.relu(tf.image.resize(x, (8, 8))), (None, 4, 4, 3))


def five_dimensions(folder):
    return converted(
        folder, "five", lambda x: tf.transpose(tf.reshape(x, (1, 2, 2, 2, 8)), (0, 1, 3, 2, 4)), (1, 4, 4, 4)
    )


PLANTED = {
    "bilinear x4": (bilinear_4x, "ethos-u55", "RESIZE_BILINEAR", "resizes 4x, bilinear"),
    "transposed conv of stride 3": (stride_3, "ethos-u55", "TRANSPOSE_CONV", "stride 3x3"),
    "softmax inside": (softmax_inside, "coral", "SOFTMAX", "no softmax over one row"),
    "open batch": (open_batch, "android-cpu", "RESIZE_BILINEAR", "open shape"),
    "leaky ReLU": (leaky, "coral", "LEAKY_RELU", "has no LEAKY_RELU"),
    "5-D reshape": (five_dimensions, "android-gpu", "RESHAPE", "5 dimensions"),
    "float net": (float_net, "coral", "CONV_2D", "works on float32"),
    "13 channels": (thirteen, "android-cpu", "CONV_2D", "13 channels, which cost as much as 16"),
    "resize of version 3": (nearest_2x, "coral", "RESIZE_NEAREST_NEIGHBOR", "version 3"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_with_its_operator_and_a_way_out(folder, fault):
    plant, target, operator, reason = PLANTED[fault]
    verdict = lint_file(plant(folder), target)
    found = [one for one in verdict.findings if one.operator == operator and reason in one.reason]
    assert found and all(one.way_out for one in found)
    assert verdict.operators[found[0].place] == operator
    assert verdict.falls_back == (fault != "13 channels")
    assert verdict.unmapped >= {one.place for one in found if one.falls_back}


def test_a_float_operator_between_integer_ones_is_an_island(folder):
    operators = list(read_operators(written(folder, "island", net(L.Conv2D(8, 3, padding="same")))))
    clean = lint_operators(operators, TARGETS["android-cpu"])
    island = next(op for op in read_operators(float_net(folder)) if op.name == "CONV_2D")
    broken = lint_operators([operators[0], operators[1], island, *operators[2:]], TARGETS["android-cpu"])
    assert not clean.findings
    assert [(one.place, one.falls_back) for one in broken.findings] == [(2, True)]


def sparse_net(*, stem=True, skip="add"):
    image = L.Input((SIZE, SIZE, 3))
    x = L.ZeroPadding2D(1)(image) if stem else image
    x = L.Conv2D(8, 3, strides=2, padding="valid" if stem else "same", activation="relu")(x)
    y = L.Conv2D(8, 1, activation="relu", name="thin")(L.DepthwiseConv2D(3, padding="same")(x))
    x = L.Add()([x, y]) if skip == "add" else L.Concatenate()([x, y])
    x = L.Conv2D(12, 1, name="wide")(x)
    model = keras.Model(image, L.Lambda(lambda t: tf.nn.depth_to_space(t, 2))(x))
    for name in ("thin", "wide"):
        layer = model.get_layer(name)
        kernel = layer.kernel.numpy()
        kernel.reshape(-1)[: int(kernel.size * 0.8)] = 0
        layer.kernel.assign(kernel)
    return model


@pytest.mark.parametrize(
    ("options", "reason"),
    [({}, None), ({"stem": False}, "does not begin with ZeroPadding2D"), ({"skip": "join"}, "not among the sparse")],
)
def test_what_keeps_sparse_kernels_away_is_named(folder, options, reason):
    model = sparse_net(**options)
    path = converted(folder, f"sparse{len(options)}{reason}".replace(" ", "")[:20], model, (1, SIZE, SIZE, 3))
    reasons = [one.reason for one in lint_file(path, "android-sparse").findings]
    assert reasons == [] if reason is None else any(reason in said for said in reasons)


def test_a_dense_net_of_the_right_shape_lacks_zeros(folder):
    model = sparse_net()
    model.get_layer("wide").kernel.assign(tf.ones_like(model.get_layer("wide").kernel))
    path = converted(folder, "dense", model, (1, SIZE, SIZE, 3))
    (found,) = lint_file(path, "android-sparse").findings
    assert "zero, and more than 67 % must be" in found.reason


def test_behind_the_first_operator_that_does_not_map_nothing_runs_on_coral(folder):
    verdict = lint_file(leaky(folder), "coral")
    first = verdict.operators.index("LEAKY_RELU")
    assert verdict.unmapped == set(range(first, len(verdict.operators)))
    assert lint_file(leaky(folder), "ethos-u55").unmapped == set()


@pytest.mark.parametrize("target", ["android-cpu", "android-gpu", "x86-cpu", "ethos-u55", "ethos-u85", "tflm"])
def test_a_plain_unet_maps_wherever_nothing_is_wrong_with_it(folder, target):
    model = build_model("plain_unet", input_size=(SIZE, SIZE), outputs=2, seed=0, width=8, depth=2)
    scheme = "float32" if TARGETS[target].scheme == "float16" else TARGETS[target].scheme
    verdict = lint_file(
        written(
            folder, "unet", model, scheme=scheme, head="class_map" if target in ("android-cpu", "tflm") else "logits"
        ),
        target,
    )
    assert not verdict.findings and len(verdict.operators) > 5


def test_findings_of_a_kind_are_told_once_with_all_their_places(folder):
    verdict = lint_file(float_net(folder), "coral")
    together = gathered(verdict.findings)
    assert sum(len(places) for _, places in together) == len(verdict.findings)
    assert len(together) < len(verdict.findings)


def test_an_unknown_target_is_answered_with_the_accepted_ones(folder):
    with pytest.raises(InputError, match=r"did you mean 'coral'.*ethos-u55"):
        lint_file(leaky(folder), "corall")
