from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from tests.export.nets import (
    NETS,
    SIZE,
    L,
    class_names,
    classes_of_logits,
    exported,
    logits_of,
    pictures,
    plain_net,
)
from tfprune.errors import InputError
from tfprune.export import CLASS_MAPS, HEADS, SCHEMES
from tfprune.export.conversion import export_tflite
from tfprune.export.heads import _BUILDERS
from tfprune.keras import keras, tf
from tfprune.verification.agreement import compare_classes
from tfprune.verification.engines import TensorInfo
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.runtimes import open_runtime

CASES = [("plain", 3), ("light", 3), ("plain", 1), ("light", 2), ("plain", 4)]
TEST_IMAGES = pictures(6, seed=2)


def answers(path, images=TEST_IMAGES):
    model = open_runtime(path)
    return np.stack([model.predict(image) for image in images])


def classes(path, images=TEST_IMAGES):
    model = open_runtime(path)
    return np.stack([model.classes_of(image) for image in images])


def real(path):
    """Outputs in the numbers they stand for."""
    scale, zero_point = open_runtime(path).quantization
    values = answers(path).astype(np.float32)
    return (values - zero_point) * scale if scale else values


def test_every_head_has_a_builder():
    assert set(HEADS) == set(_BUILDERS)


@pytest.mark.parametrize(("net", "outputs"), CASES)
def test_float32_equals_keras(net, outputs):
    wanted = logits_of(NETS[net](outputs), TEST_IMAGES)
    assert np.abs(real(exported(net, outputs, "float32", "logits")) - wanted).max() < 1e-4
    soft = tf.sigmoid(wanted) if outputs == 1 else tf.nn.softmax(wanted)
    assert np.abs(real(exported(net, outputs, "float32", "probabilities")) - soft).max() < 1e-4
    for head in set(HEADS) - {"coarse_class_map"}:
        same = compare_classes(classes(exported(net, outputs, "float32", head)), classes_of_logits(wanted))
        assert same.equal_ratio > 0.9999


@pytest.mark.parametrize(("net", "outputs"), CASES)
def test_int8_is_near_keras_and_all_integer(net, outputs):
    path = exported(net, outputs, "int8", "logits")
    wanted = logits_of(NETS[net](outputs), TEST_IMAGES)
    noise = real(path) - wanted
    assert 10 * np.log10((wanted**2).mean() / (noise**2).mean()) >= 20
    assert compare_classes(classes(path), classes_of_logits(wanted)).equal_ratio > 0.95
    assert measure_footprint(path).float_ops == ()
    ordered = np.sort(wanted, axis=-1)
    margin = np.abs(wanted[..., 0]) if outputs == 1 else ordered[..., -1] - ordered[..., -2]
    clear = margin > 6 * noise.std()
    assert (classes(path) == classes_of_logits(wanted))[clear].mean() > 0.999


@pytest.mark.parametrize(("net", "outputs"), CASES)
def test_int8_heads_give_the_same_classes(net, outputs):
    from_logits = classes(exported(net, outputs, "int8", "logits"))
    np.testing.assert_array_equal(classes(exported(net, outputs, "int8", "class_map")), from_logits)
    probabilities = answers(exported(net, outputs, "int8", "probabilities")).astype(int)
    ordered = np.sort(probabilities, axis=-1)
    tied = probabilities[..., 0] == 128 if outputs == 1 else ordered[..., -1] == ordered[..., -2]
    equal = classes(exported(net, outputs, "int8", "probabilities")) == from_logits
    assert equal[~tied].all()
    assert equal.mean() > 0.98


@pytest.mark.parametrize("head", HEADS)
def test_int8_takes_camera_bytes(head):
    """Scale 1 and zero point 0: the calibration pictures stay within 20..235, and nothing is clipped."""
    model = open_runtime(exported("plain", 3, "int8", head))
    assert model._input == TensorInfo("uint8", (1, SIZE, SIZE, 3), scale=1.0, zero_point=0)
    assert model._output.dtype == ("int32" if head in CLASS_MAPS else "uint8")
    if head == "probabilities":
        assert model.quantization == (1 / 256, 0)


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_same_bytes_again_and_in_another_process(scheme, tmp_path):
    code = (
        "import sys; from tests.export import nets\n"
        f"path = nets.exported('plain', 3, {scheme!r}, 'probabilities')\n"
        "import hashlib; print(hashlib.sha256(path.read_bytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=".")
    first = exported("plain", 3, scheme, "probabilities")
    assert other.stdout.strip() == hashlib.sha256(first.read_bytes()).hexdigest()
    again = export_tflite(
        plain_net(3),
        tmp_path / "again.tflite",
        scheme=scheme,
        class_names=class_names(3),
        calibration=pictures(16, seed=1),
    )
    assert again.read_bytes() == first.read_bytes()


def test_export_is_silent(tmp_path, capfd):
    for scheme in SCHEMES:
        export_tflite(
            plain_net(2),
            tmp_path / f"{scheme}.tflite",
            scheme=scheme,
            class_names=class_names(2),
            calibration=pictures(8),
        )
    assert capfd.readouterr() == ("", "")


def user_net(build, *, outputs=3, size=SIZE):
    """A net that takes pixels and ends the way `build(x, outputs)` says."""
    keras.utils.set_random_seed(3)
    image = L.Input((size, size, 3))
    x = L.Conv2D(6, 3, padding="same", activation="relu")(image)
    return keras.Model(image, build(x, outputs))


def nested(x, outputs):
    inner_in = L.Input(x.shape[1:])
    inner = keras.Model(inner_in, L.Softmax()(L.Conv2D(outputs, 1)(inner_in)))
    return inner(x)


ENDINGS = {
    "activation argument": lambda x, outputs: L.Conv2D(outputs, 1, activation="softmax")(x),
    "activation layer": lambda x, outputs: L.Activation("softmax")(L.Conv2D(outputs, 1)(x)),
    "softmax layer": lambda x, outputs: L.Softmax()(L.Conv2D(outputs, 1)(x)),
    "nested model": nested,
    "plain code": lambda x, outputs: tf.nn.softmax(L.Conv2D(outputs, 1)(x)),
    "linear after softmax": lambda x, outputs: L.Activation("linear")(L.Conv2D(outputs, 1, activation="softmax")(x)),
}


def user_export(model, path, **more):
    outputs = model.output_shape[-1]
    return export_tflite(model, path, class_names=class_names(outputs), preprocessing=(1 / 255, 0), **more)


@pytest.mark.parametrize("ending", ENDINGS)
def test_softmax_of_a_users_model_is_not_applied_twice(ending, tmp_path):
    model = user_net(ENDINGS[ending])
    wanted = model(TEST_IMAGES.astype(np.float32) / 255).numpy()
    found = answers(user_export(model, tmp_path / "a.tflite"))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    logits = answers(user_export(model, tmp_path / "b.tflite", head="logits"))
    assert logits.min() < 0
    np.testing.assert_allclose(tf.nn.softmax(logits), wanted, atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_sigmoid_of_a_users_model_stays_a_sigmoid(outputs, tmp_path):
    model = user_net(lambda x, outputs: L.Conv2D(outputs, 1, activation="sigmoid")(x), outputs=outputs)
    wanted = model(TEST_IMAGES.astype(np.float32) / 255).numpy()
    np.testing.assert_allclose(answers(user_export(model, tmp_path / "a.tflite")), wanted, atol=1e-5)
    logits = answers(user_export(model, tmp_path / "b.tflite", head="logits"))
    np.testing.assert_allclose(tf.sigmoid(logits), wanted, atol=1e-5)


def test_softmax_below_a_resize_is_refused(tmp_path):
    model = user_net(lambda x, outputs: L.UpSampling2D()(L.Conv2D(outputs, 1, strides=2, activation="softmax")(x)))
    with pytest.raises(InputError, match=r"softmax .* is followed by .*up_sampling"):
        user_export(model, tmp_path / "a.tflite")
    assert list(tmp_path.iterdir()) == []


def test_softmax_over_one_channel_is_refused(tmp_path):
    with pytest.raises(InputError, match="softmax over one channel"):
        user_export(user_net(ENDINGS["softmax layer"], outputs=1), tmp_path / "a.tflite")


def test_preprocessing_per_channel(tmp_path):
    model = user_net(lambda x, outputs: L.Conv2D(outputs, 1)(x))
    mean, deviation = np.array([124.0, 117.0, 104.0]), np.array([58.0, 57.0, 57.0])
    wanted = model((TEST_IMAGES - mean) / deviation).numpy()
    path = export_tflite(
        model,
        tmp_path / "a.tflite",
        head="logits",
        class_names=class_names(3),
        preprocessing=(1 / deviation, -mean / deviation),
    )
    np.testing.assert_allclose(answers(path), wanted, atol=1e-4)


def test_open_picture_size_needs_a_size(tmp_path):
    model = user_net(lambda x, outputs: L.Conv2D(outputs, 1)(x), size=None)
    with pytest.raises(InputError, match="input_size"):
        user_export(model, tmp_path / "a.tflite")
    path = user_export(model, tmp_path / "a.tflite", head="logits", input_size=(16, 24))
    assert open_runtime(path).input_size == (16, 24)
    assert answers(path, TEST_IMAGES[:, :16, :24]).shape == (6, 16, 24, 3)


def test_mixed_precision_model_is_exported_in_float32(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = user_net(lambda x, outputs: L.Conv2D(outputs, 1, dtype="float32")(x))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.layers[1].compute_dtype == "float16"
    found = answers(user_export(model, tmp_path / "a.tflite", head="logits"))
    np.testing.assert_allclose(found, model(TEST_IMAGES.astype(np.float32) / 255).numpy(), atol=5e-3)


def test_op_without_tflite_kernel_is_named_with_its_layer(tmp_path, capfd):
    model = user_net(lambda x, outputs: L.Conv2D(outputs, 1)(L.Activation(tf.math.erf, name="odd_layer")(x)))
    with pytest.raises(InputError, match=r"no op for Erf of .*odd_layer/Erf"):
        user_export(model, tmp_path / "a.tflite")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_op_without_integer_kernel_is_named_as_float(tmp_path):
    model = user_net(lambda x, outputs: L.Conv2D(outputs, 1)(L.Activation(tf.sin, name="wave")(x)))
    path = user_export(model, tmp_path / "a.tflite", scheme="int8", calibration=pictures(8))
    (named,) = measure_footprint(path).float_ops
    assert named.startswith("SIN (") and "wave" in named


WRONG = {
    "unknown scheme": ({"scheme": "int7"}, "did you mean 'int8'"),
    "unknown head": ({"head": "logit"}, "did you mean 'logits'"),
    "no calibration": ({"scheme": "int8"}, "needs calibration"),
    "few pictures": ({"scheme": "int8", "calibration": pictures(7)}, "N >= 8"),
    "float pictures": ({"scheme": "int8", "calibration": pictures(8) / 255}, "float64"),
    "other size": ({"scheme": "int8", "calibration": pictures(8, size=16)}, r"\(8, 16, 16, 3\)"),
    "grey pictures": ({"scheme": "int8", "calibration": pictures(8, channels=1)}, r"\(8, 32, 32, 1\)"),
    "too few names": ({"class_names": ["a", "b"]}, "has 3 classes"),
    "ids beyond a byte": ({"head": "class_map", "class_names": ["a"] * 256}, "at most 255"),
    "sparse and dynamic": ({"scheme": "dynamic_int8", "sparse": True}, "accepted for them: float32, float16, int8, "),
    "two lines": ({"class_names": ["a", "b\nc", "d"]}, "lines of text"),
    "one word": ({"class_names": "abc"}, "has 3 classes"),
    "wrong preprocessing": ({"preprocessing": (1, [0, 0])}, "one per channel"),
    "one number": ({"preprocessing": 255}, "scale, offset"),
    "size against the model": ({"input_size": (64, 64)}, "takes pictures of 32 x 32"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case, tmp_path):
    arguments, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        export_tflite(plain_net(3), tmp_path / "a.tflite", **{"class_names": class_names(3), **arguments})
    assert list(tmp_path.iterdir()) == []


def test_pruning_wrappers_are_refused(tmp_path):
    from tensorflow_model_optimization.sparsity import keras as sparsity

    image = L.Input((8, 8, 3))
    wrapper = sparsity.prune_low_magnitude(L.Conv2D(3, 1, name="thin"), sparsity.ConstantSparsity(0.5, 0))
    with pytest.raises(InputError, match=r"wrappers \(.*thin.* strip it first"):
        export_tflite(keras.Model(image, wrapper(image)), tmp_path / "a.tflite", class_names=class_names(3))


def test_one_answer_in_a_dictionary_is_an_answer(tmp_path):
    image = L.Input((8, 8, 3))
    net = keras.Model({"picture": image}, {"map": L.Conv2D(3, 1, activation="softmax")(image)})
    path = export_tflite(net, tmp_path / "a.tflite", class_names=class_names(3))
    (picture,) = pictures(1, size=8)
    np.testing.assert_allclose(
        open_runtime(path).predict(picture), net({"picture": picture[None].astype(np.float32)})["map"][0], atol=1e-5
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_added_for_training_is_not_exported(scheme, tmp_path):
    image, inside = L.Input((8, 8, 3)), L.Input((8, 8, 3))
    nested = keras.Model(inside, L.Conv2D(4, 3, padding="same")(inside))
    nested.add_metric(tf.reduce_max(nested.output), name="largest")
    x = nested(image)
    net = keras.Model(image, L.Conv2D(3, 1, activation="softmax")(x))
    net.add_loss(tf.reduce_mean(tf.abs(x)))
    net.add_metric(tf.reduce_mean(x), name="mean")
    calibration = pictures(8, size=8) if SCHEMES[scheme].calibrated else None
    path = export_tflite(
        net, tmp_path / "a.tflite", class_names=class_names(3), scheme=scheme, head="logits", calibration=calibration
    )
    assert not {"ABS", "REDUCE_MAX", "MEAN", "ASSIGN_VARIABLE"} & set(measure_footprint(path).ops)


def test_models_that_do_not_segment_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"takes a model, and net\.keras is a path; read it with .*load_model"):
        export_tflite("net.keras", tmp_path / "a.tflite", class_names=class_names(3))
    with pytest.raises(InputError, match=r"tf_keras .* not builtins\.function"):
        export_tflite(user_net, tmp_path / "a.tflite", class_names=class_names(3))
    image = L.Input((8, 8, 3))
    two = keras.Model([image, L.Input((8, 8, 3))], image)
    with pytest.raises(InputError, match="one input"):
        export_tflite(two, tmp_path / "a.tflite", class_names=class_names(3))
    five = L.Input((8, 8, 5))
    with pytest.raises(InputError, match="5 channels"):
        export_tflite(keras.Model(five, L.Conv2D(3, 1)(five)), tmp_path / "a.tflite", class_names=class_names(3))
    for output in (L.Flatten()(image), L.Conv2D(3, 1, strides=2)(image), [image, L.Conv2D(3, 1)(image)]):
        with pytest.raises(InputError, match="one float output"):
            export_tflite(keras.Model(image, output), tmp_path / "a.tflite", class_names=class_names(3))
    odd = L.Input((None, None, 3))
    joined = L.Concatenate()([L.UpSampling2D()(L.MaxPooling2D()(odd)), odd])
    with pytest.raises(InputError, match="cannot be run"):
        export_tflite(keras.Model(odd, joined), tmp_path / "a.tflite", class_names=class_names(3), input_size=(9, 9))
