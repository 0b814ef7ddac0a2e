"""Lint: faults planted in small files are found, each by its operator, and sound files pass."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.nets import class_names
from tfprune.architectures import build_model
from tfprune.errors import InputError
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.targets import TARGETS, rules
from tfprune.targets.lint import gathered, lint_file
from tfprune.verification.graph import read_operators
from tfprune.verification.runtimes import open_runtime

L = keras.layers
SIZE = 32
ETHOS = ("ethos-u55", "ethos-u65", "ethos-u85")


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


def twenty_four(folder):
    return written(folder, "twenty_four", net(L.ReLU(), first=24))


def float_net(folder):
    return written(folder, "float", net(L.ReLU()), scheme="float32")


def open_batch(folder):
    return converted(folder, "open", lambda x: tf.nn.relu(tf.image.resize(x, (8, 8))), (None, 4, 4, 3))


def five_dimensions(folder):
    return converted(
        folder, "five", lambda x: tf.transpose(tf.reshape(x, (1, 2, 2, 2, 8)), (0, 1, 3, 2, 4)), (1, 4, 4, 4)
    )


def float_island(folder):
    """Negation has no integer kernel: the converter puts it between DEQUANTIZE and QUANTIZE."""
    return written(folder, "island", net(L.Lambda(tf.negative)))


def plain_unet():
    return build_model("plain_unet", input_size=(SIZE, SIZE), outputs=2, seed=0, width=8, depth=2)


def sparse_net(*, zeros=0.8):
    """Return the net for XNNPACK's sparse kernels with zeros in its 1x1 convolutions."""
    model = build_model("sparse_unet", input_size=(SIZE, SIZE), outputs=2, seed=0, width=8, depth=2, blocks=1)
    for layer in model.layers:
        if isinstance(layer, L.Conv2D) and layer.kernel_size == (1, 1):
            kernel = layer.kernel.numpy()
            kernel.reshape(-1)[: int(np.ceil(kernel.size * zeros))] = 0
            layer.kernel.assign(kernel)
    return model


def asymmetric_stem(folder):
    """The net for sparse kernels, with the stem that everybody writes."""
    image = L.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = L.Conv2D(8, 1, kernel_initializer="zeros")(L.DepthwiseConv2D(3, padding="same")(x))
    model = keras.Model(image, L.Lambda(lambda t: tf.nn.depth_to_space(t, 2))(x))
    return converted(folder, "asymmetric", model, (1, SIZE, SIZE, 3))


PLANTED = {
    "bilinear x4": (bilinear_4x, "ethos-u55", "RESIZE_BILINEAR", "resizes 4x, bilinear"),
    "transposed conv of stride 3": (stride_3, "ethos-u55", "TRANSPOSE_CONV", "stride 3x3"),
    "softmax inside": (softmax_inside, "coral", "SOFTMAX", "no softmax over one row"),
    "open batch": (open_batch, "android-cpu", "RESIZE_BILINEAR", "open shape"),
    "leaky ReLU": (leaky, "coral", "LEAKY_RELU", "has no LEAKY_RELU"),
    "5-D reshape": (five_dimensions, "android-gpu", "RESHAPE", "5 dimensions"),
    "float island": (float_island, "android-cpu", "NEG", "works on float32"),
    "asymmetric stem": (asymmetric_stem, "android-sparse", "", "padded by the convolution"),
    "float net": (float_net, "coral", "CONV_2D", "works on float32"),
    "13 channels": (thirteen, "android-cpu", "CONV_2D", "13 channels, which cost as much as 16"),
    "24 channels": (twenty_four, "x86-cpu", "CONV_2D", "24 channels, which cost as much as 32"),
    "resize of version 3": (nearest_2x, "coral", "RESIZE_NEAREST_NEIGHBOR", "version 3"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_with_its_operator_and_a_way_out(folder, fault):
    plant, target, operator, reason = PLANTED[fault]
    verdict = lint_file(plant(folder), target)
    found = [one for one in verdict.findings if one.operator == operator and reason in one.reason]
    assert found and all(one.way_out for one in found)
    assert not operator or verdict.operators[found[0].place] == operator
    assert verdict.falls_back == (not fault.endswith(" channels"))
    assert verdict.unmapped >= {one.place for one in found if one.falls_back and one.operator}


SPARSE_REASONS = {
    "plain_unet": ["begins with a 3x3 convolution of stride 1", "does not end in DEPTH", "3x3 kernel", "not among"],
    "fewer zeros": ["60% of the weights in 1x1 convolutions are zero, and more than 67 % must be"],
    "integers": ["works on integers"],
}


@pytest.mark.parametrize("fault", SPARSE_REASONS)
def test_what_keeps_sparse_kernels_away_from_other_nets_is_named(folder, fault):
    model = plain_unet() if fault == "plain_unet" else sparse_net(zeros=0.6 if fault == "fewer zeros" else 0.8)
    path = written(folder, f"sparse_{fault}", model, scheme="int8" if fault == "integers" else "float32")
    verdict = lint_file(path, "android-sparse")
    reasons = [one.reason for one in verdict.findings]
    assert all(any(wanted in said for said in reasons) for wanted in SPARSE_REASONS[fault])
    assert verdict.falls_back and (len(reasons) == 1 or fault != "fewer zeros")


@pytest.mark.parametrize("scheme", ["float32", "float16"])
def test_the_net_built_for_sparse_kernels_qualifies(folder, scheme):
    verdict = lint_file(written(folder, "sparse", sparse_net(), scheme=scheme), "android-sparse")
    assert not verdict.findings and verdict.operators[-1] == "DEPTH_TO_SPACE"


def test_a_halving_layer_that_pads_itself_keeps_sparse_kernels_away(folder):
    image = L.Input((SIZE, SIZE, 3))
    x = L.Conv2D(8, 3, strides=2, activation="relu")(L.ZeroPadding2D(1)(image))
    x = L.DepthwiseConv2D(3, strides=2, padding="same")(x)
    model = keras.Model(image, L.Lambda(lambda t: tf.nn.depth_to_space(t, 4))(L.Conv2D(32, 1)(x)))
    reasons = [
        one.reason
        for one in lint_file(converted(folder, "halving", model, (1, SIZE, SIZE, 3)), "android-sparse").findings
    ]
    assert "is not padded alike on all sides" in reasons


def test_behind_the_first_operator_that_does_not_map_nothing_runs_on_coral(folder):
    verdict = lint_file(leaky(folder), "coral")
    first = verdict.operators.index("LEAKY_RELU")
    assert verdict.unmapped == set(range(first, len(verdict.operators)))
    assert lint_file(leaky(folder), "ethos-u55").unmapped == set()


@pytest.mark.parametrize("target", ["android-cpu", "android-gpu", "x86-cpu", "ethos-u55", "ethos-u85", "tflm"])
def test_a_plain_unet_maps_wherever_nothing_is_wrong_with_it(folder, target):
    model = plain_unet()
    scheme = "float32" if TARGETS[target].scheme == "float16" else TARGETS[target].scheme
    verdict = lint_file(
        written(
            folder, "unet", model, scheme=scheme, head="class_map" if target in ("android-cpu", "tflm") else "logits"
        ),
        target,
    )
    assert not verdict.findings and len(verdict.operators) > 5


def test_weights_in_float16_do_not_run_on_micro_and_do_elsewhere(folder):
    path = written(folder, "halves", net(lambda x: x), scheme="float16")
    verdict = lint_file(path, "tflm")
    assert {verdict.operators[place] for place in verdict.unmapped} == {"DEQUANTIZE"}
    assert verdict.findings[0].way_out == "export with --scheme float32 or int8"
    assert lint_file(path, "android-gpu").unmapped == set()
    with pytest.raises(InputError):  # what the lint says, Micro itself says too
        open_runtime(path, runtime="micro")


@pytest.mark.parametrize("target", ["android-cpu", "android-gpu", "android-sparse", "x86-cpu", "coral", "tflm"])
def test_tensorflows_own_operators_run_on_no_accelerator(folder, target):
    path = folder / "flex.tflite"
    if not path.exists():
        count = tf.function(tf.strings.length, input_signature=[tf.TensorSpec([1], tf.string)])
        converter = tf.lite.TFLiteConverter.from_concrete_functions([count.get_concrete_function()])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        path.write_bytes(converter.convert())
    verdict = lint_file(path, target)
    assert verdict.operators == ("FlexStringLength",) and verdict.unmapped == {0}


def test_weights_that_do_not_fit_on_coral_are_noted(folder):
    operators = read_operators(leaky(folder))
    tensors = {one.index: one for operator in operators for one in operator.inputs if one.values is not None}
    size = sum(one.values.nbytes for one in tensors.values())
    assert list(rules.keeps_weights_of(size)(operators)) == []
    (found,) = rules.keeps_weights_of(size - 1)(operators)
    assert "MiB of weights" in found.reason and not found.falls_back


def test_every_target_says_what_pruning_is_worth_on_it():
    for name, target in TARGETS.items():
        assert target.pays.channels != "nothing"
        assert (target.pays.zeros.startswith("nothing")) == (name not in ("android-sparse", *ETHOS))


def test_findings_of_a_kind_are_told_once_with_all_their_places(folder):
    verdict = lint_file(float_net(folder), "coral")
    together = gathered(verdict.findings)
    assert sum(len(places) for _, places in together) == len(verdict.findings)
    assert len(together) < len(verdict.findings)


def test_an_unknown_target_is_answered_with_the_accepted_ones(folder):
    with pytest.raises(InputError, match=r"did you mean 'coral'.*ethos-u55"):
        lint_file(leaky(folder), "corall")


@pytest.mark.parametrize(
    ("name", "build", "scheme", "refused"),
    [
        ("log", lambda x: tf.math.log(x + 1.0), "int8", "LOG of int8"),
        ("exponential", lambda x: tf.exp(-x), "int8", "EXP of int8"),
        ("bilinear", L.UpSampling2D(interpolation="bilinear"), "int16x8", "RESIZE_BILINEAR of int16"),
        (
            "mirrored",
            lambda x: tf.pad(x, [[0, 0], [0, 0], [1, 1], [0, 0]], "REFLECT"),
            "int16x8",
            "MIRROR_PAD of int16",
        ),
        ("smallest", lambda x: x - tf.reduce_min(x, -1, keepdims=True), "int8", ""),
        ("sine", tf.sin, "int8", ""),  # in float32, between integers
    ],
)
def test_micro_opens_and_runs_what_lint_lets_pass(name, build, scheme, refused, folder):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed: pip install --pre tflite-micro")

    def answer(x):
        x = build(x)
        return L.Resizing(SIZE, SIZE, interpolation="nearest")(x) if x.shape[1:3] != (SIZE, SIZE) else x

    path = written(folder, f"micro_{name}", net(answer), scheme=scheme)
    found = [row.reason for row in lint_file(path, "tflm").findings if row.falls_back]
    assert found == ([f"TensorFlow Lite Micro has no {refused}"] if refused else [])
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    if refused:
        with pytest.raises(InputError, match=rf"{path.name}: (TFLite Micro cannot run|tflite-micro cannot open)"):
            open_runtime(path, runtime="micro").predict(picture)
    else:
        assert open_runtime(path, runtime="micro").predict(picture).size
