"""A net that trains with the rounding of its int8 file: ranges, zeros, files, and what stays float."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.architectures.files import load_model
from tfprune.errors import InputError
from tfprune.export.conversion import export_tflite
from tfprune.keras import keras, tf
from tfprune.objectives.losses import build_loss
from tfprune.objectives.metrics import MeanIoU
from tfprune.quantization.layers import LearntRange, QuantizedLayer
from tfprune.quantization.rules import float_layers
from tfprune.quantization.training import describe_quantized, quantize_model
from tfprune.training.stage import fit_stage
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.graph import read_operators
from tfprune.verification.runtimes import open_runtime

layers = keras.layers


def pruned_net(share=0.8, **options):
    """Return the tiny net, most weights of two layers zero."""
    model = tiny_net(**options)
    rng = np.random.default_rng(0)
    for name in ("middle_conv", "last_conv"):
        kernel, *rest = model.get_layer(name).get_weights()
        kernel[rng.random(kernel.shape) < share] = 0
        model.get_layer(name).set_weights([kernel, *rest])
    return model


def fit(model, discs, *, epochs=2, folder=None, rate=1e-2):
    images, masks = discs
    data = tf.data.Dataset.from_tensor_slices((images.astype(np.float32), masks)).batch(8)
    return fit_stage(
        model,
        data,
        epochs=epochs,
        loss=build_loss("cross_entropy"),
        optimizer=keras.optimizers.Adam(rate),
        metrics=[MeanIoU(classes=2)],
        validation=data,
        folder=folder,
    )


def zeros_of(path):
    footprint = measure_footprint(path)
    return 1 - footprint.nonzero_parameters / footprint.parameters


def float_operators(path):
    tensors = [(operator.name, (*operator.inputs, *operator.outputs)) for operator in read_operators(path)]
    return [name for name, some in tensors if any(tensor is not None and tensor.dtype == "FLOAT32" for tensor in some)]


def answer(path, image):
    """Return what a file makes of a picture, in real numbers."""
    file = open_runtime(path, runtime="litert")
    scale, zero_point = file.quantization if file.predict(image).dtype == np.uint8 else (1, 0)
    return (file.predict(image).astype(np.float32) - zero_point) * scale


@pytest.fixture(scope="module")
def trained(discs):
    """A pruned net, and what two epochs with rounding made of it."""
    model = pruned_net()
    quantized = quantize_model(model, discs[0][:16])
    return model, quantized, fit(quantized, discs)


def test_it_learns_and_the_original_stays(trained, discs):
    model, _, stage = trained
    losses = [row["loss"] for row in stage.history]
    assert losses[1] < losses[0]
    for untouched, fresh in zip(model.get_weights(), pruned_net().get_weights(), strict=True):
        np.testing.assert_array_equal(untouched, fresh)


def test_pruned_zeros_stay_zero_in_the_file_and_else_they_grow_back(trained, discs, tmp_path):
    model, quantized, _ = trained
    pruned = {name: np.mean(model.get_layer(name).get_weights()[0] == 0) for name in ("middle_conv", "last_conv")}
    for name, share in pruned.items():
        assert np.mean(quantized.get_layer(name).rounded().numpy() == 0) >= share > 0.75
    path = export_tflite(quantized, tmp_path / "kept.tflite", class_names=["a", "b"], scheme="int8")
    free = quantize_model(model, discs[0][:16], keep_zeros=False)
    fit(free, discs)
    lost = export_tflite(free, tmp_path / "lost.tflite", class_names=["a", "b"], scheme="int8")
    weights = sum(layer.count_params() for layer in model.layers if isinstance(layer, layers.Conv2D))
    zeros = sum(int((layer.get_weights()[0] == 0).sum()) for layer in model.layers if isinstance(layer, layers.Conv2D))
    assert zeros_of(path) >= 0.995 * zeros / (weights + 34) and zeros_of(lost) < 0.2
    assert describe_quantized(quantized)["zeros"] > 0.6


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("scheme", ["int8", "int8_float_io"])
def test_the_file_computes_in_int8_what_the_net_computes(discs, tmp_path, outputs, scheme):
    quantized = quantize_model(tiny_net(outputs=outputs), discs[0][:16])
    path = export_tflite(quantized, tmp_path / "net.tflite", class_names=["a", "b"], scheme=scheme, head="logits")
    ends = {"int8": [], "int8_float_io": ["QUANTIZE", "DEQUANTIZE"]}
    assert float_operators(path) == ends[scheme]
    ours = quantized(discs[0][:1].astype(np.float32), training=False).numpy()[0]
    noise = np.square(answer(path, discs[0][0]) - ours).mean()
    assert 10 * np.log10(np.square(ours).mean() / noise) > 25


@pytest.mark.parametrize("head", ["probabilities", "class_map", "coarse_class_map"])
def test_every_head_stays_in_integers(trained, tmp_path, head):
    path = export_tflite(trained[1], tmp_path / "net.tflite", class_names=["a", "b"], scheme="int8", head=head)
    assert float_operators(path) == []


def body_of(name, x):
    """Return one of the layers that tfmot's own registry refuses, or a net of TensorFlow's ops, behind `x`."""
    if name == "squeeze and excite":
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="relu")(gate))
        return layers.Multiply()([x, gate])
    if name == "hard swish of ops":
        return layers.Multiply()([x, tf.math.multiply(layers.ReLU(6.0)(x + 3.0), 1 / 6)])
    if name == "pixel shuffle":
        return tf.nn.depth_to_space(layers.Conv2D(32, 1, strides=2)(x), 2)
    if name == "slices":
        return tf.concat([x[..., :4], tf.nn.relu6(x[..., 4:])], -1)
    if name == "sum and product of four":
        parts = [layers.Conv2D(8, 3, dilation_rate=rate, padding="same")(x) for rate in (1, 2, 3, 4)]
        return layers.Maximum()([layers.ReLU()(layers.Add()(parts)), layers.Multiply()(parts), *parts])
    if name == "attention":
        rows = layers.Reshape((256, 8))(x)
        scores = layers.Softmax()(layers.Dot((2, 2))([rows, rows]))
        return layers.Reshape((16, 16, 8))(layers.Dot((2, 1))([scores, rows]))
    if name == "nested":
        inside = layers.Input(x.shape[1:])
        made = layers.ReLU()(layers.BatchNormalization()(layers.Conv2DTranspose(8, 3, padding="same")(inside)))
        return keras.Model(inside, made)(x)
    built = {
        "prelu": lambda: layers.PReLU(shared_axes=[1, 2], alpha_initializer="uniform"),
        "group norm": lambda: layers.GroupNormalization(4),
        "hard sigmoid": lambda: layers.Activation("hard_sigmoid"),
    }
    return built[name]()(x)


FLOAT = {"group norm": "GroupNormalization", "hard sigmoid": "hard_sigmoid"}


@pytest.mark.parametrize(
    "name",
    [
        "squeeze and excite",
        "hard swish of ops",
        "pixel shuffle",
        "slices",
        "sum and product of four",
        "attention",
        "nested",
        "prelu",
        *FLOAT,
    ],
)
def test_what_stays_float_is_named_and_everything_else_is_int8(name, tmp_path):
    keras.utils.set_random_seed(0)
    image = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same")(layers.Rescaling(1 / 127.5, -1)(image))
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(body_of(name, x)))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    quantized = quantize_model(model, pixels)
    assert [row.kind for row in float_layers(quantized)] == ([FLOAT[name]] if name in FLOAT else [])
    path = export_tflite(quantized, tmp_path / "net.tflite", class_names=["a", "b"], scheme="int8", head="logits")
    assert bool(float_operators(path)) == (name in FLOAT)
    before = model(pixels[:1].astype(np.float32), training=False).numpy()[0]
    noise = np.square(answer(path, pixels[0]) - before).mean()
    # drawn queries attend to all 256 positions alike: weights of about one step of a softmax in int8
    assert 10 * np.log10(np.square(before).mean() / noise) > (10 if name == "attention" else 20)


def test_first_ranges_are_the_extremes_of_the_pictures_and_follow_the_batches(discs):
    model = tiny_net()
    quantized = quantize_model(model, discs[0][:8])
    low, high = (float(end) for end in quantized.get_layer("logits_range").get_weights())
    logits = model(discs[0][:8].astype(np.float32), training=False).numpy()
    assert (low, high) == pytest.approx((min(logits.min(), 0), max(logits.max(), 0)), rel=1e-4)
    fit(quantized, discs, epochs=1)
    assert quantized.get_layer("logits_range").get_weights() != [low, high]
    assert quantized.get_layer("image_range").get_weights() == [0, 255]


def test_a_kernel_is_rounded_to_127_steps_of_its_largest_weight_per_filter():
    layer = QuantizedLayer(layers.Conv2DTranspose(2, 1, use_bias=False, name="up"))
    layer.build((None, 4, 4, 3))
    kernel = np.float32([[[[1.27, 0.018, -0.0149], [0.5, 0.0, -0.254]]]])
    layer.layer.set_weights([kernel])
    step = np.float32([0.01, 0.5 / 127])[:, None]
    np.testing.assert_allclose(layer.rounded().numpy(), np.round(kernel / step) * step, atol=1e-7)


def test_a_saved_net_loads_in_a_fresh_process(trained, discs, tmp_path):
    path = tmp_path / "quantized.keras"
    trained[1].save(path)
    images = discs[0][:2].astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import sys, numpy as np; from tfprune.architectures.files import load_model; "
        "np.save(sys.argv[3], load_model(sys.argv[1])(np.load(sys.argv[2]), training=False).numpy())"
    )
    paths = [path, tmp_path / "images.npy", tmp_path / "answers.npy"]
    subprocess.run([sys.executable, "-c", script, *map(str, paths)], check=True)
    np.testing.assert_array_equal(np.load(paths[2]), trained[1](images, training=False).numpy())
    assert describe_quantized(load_model(path))["zeros"] == describe_quantized(trained[1])["zeros"]


def test_a_stopped_stage_ends_as_an_undisturbed_one(trained, discs, tmp_path):
    for epochs in (1, 2):
        again = quantize_model(trained[0], discs[0][:16])
        fit(again, discs, epochs=epochs, folder=tmp_path)
    for expected, got in zip(trained[1].get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, got)


def test_floats_have_a_range_for_the_input(discs):
    model = tiny_net()
    plain = keras.Model(model.get_layer("down_conv").input, model.output)
    quantized = quantize_model(plain, discs[0][:8].astype(np.float32) / 255)
    first = next(layer for layer in quantized.layers if isinstance(layer, LearntRange))
    assert first.fixed is None and first.get_weights()[1] == pytest.approx(discs[0][:8].max() / 255)


@pytest.mark.parametrize("scheme", ["float32", "int16x8"])
def test_other_formats_are_refused(trained, tmp_path, scheme):
    with pytest.raises(InputError, match=r"rounding of int8.*export it as int8 or int8_float_io"):
        export_tflite(trained[1], tmp_path / "net.tflite", class_names=["a", "b"], scheme=scheme)


def test_nothing_is_put_in_front_of_it(trained, tmp_path):
    with pytest.raises(InputError, match="Build the preprocessing into the model"):
        export_tflite(
            trained[1], tmp_path / "n.tflite", class_names=["a", "b"], scheme="int8", preprocessing=(1 / 255, 0)
        )


def test_it_is_quantized_once_only(trained, discs):
    with pytest.raises(InputError, match="is quantized already"):
        quantize_model(trained[1], discs[0][:8])


class Doubled(keras.Model):
    """A model that does something else than its layers say."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_what_stands_in_no_graph_of_layers_is_refused(discs):
    net = tiny_net()
    with pytest.raises(InputError, match="call of its own"):
        quantize_model(Doubled(net.inputs, net.outputs), discs[0][:8])


def net_with_losses():
    """A dictionary in and out, losses and a metric of maps, also in front of a norm, and all kinds of regularizers."""
    keras.utils.set_random_seed(0)
    image, inside = keras.Input((32, 32, 3)), keras.Input((32, 32, 8))
    x = layers.Conv2D(8, 3, padding="same", activity_regularizer="l2")(layers.Rescaling(1 / 255)(image))
    before = layers.Conv2D(8, 3, padding="same", kernel_regularizer="l2")(layers.BatchNormalization()(x))
    nested = keras.Model(inside, layers.Conv2D(8, 1)(inside))
    nested.add_loss(tf.reduce_mean(tf.square(nested.output)))
    x = nested(layers.ReLU()(layers.BatchNormalization()(before)))
    x = layers.SeparableConv2D(8, 3, padding="same", depthwise_regularizer="l1", pointwise_regularizer="l2")(x)
    net = keras.Model({"picture": image}, {"main": layers.Conv2D(2, 1)(x), "side": layers.Conv2D(2, 1)(x)})
    net.add_loss(tf.reduce_mean(tf.abs(before)))
    net.add_metric(tf.reduce_max(x), name="largest")
    return net


def test_what_training_sees_of_a_net_stays(discs, tmp_path):
    net, pictures = net_with_losses(), {"picture": discs[0][:8].astype(np.float32)}
    truth = {"main": discs[1][:8], "side": discs[1][:8]}

    def figures(model):
        losses = {name: build_loss("cross_entropy") for name in truth}
        model.compile("sgd", losses)
        found = model.evaluate(pictures, truth, verbose=0, return_dict=True)
        model(pictures)
        return found["loss"], found["largest"], sorted(float(part) for part in model.losses)

    quantized = quantize_model(net, discs[0][:8])
    loss, largest, parts = figures(net)
    assert len(parts) == 6 and figures(quantized) == (
        pytest.approx(loss, rel=0.02),
        pytest.approx(largest, rel=0.02),
        pytest.approx(parts, rel=0.02),
    )
    assert describe_quantized(quantized)["float_layers"] == ()
    quantized.save(tmp_path / "net.keras")
    assert figures(load_model(tmp_path / "net.keras"))[0] == pytest.approx(figures(quantized)[0], rel=1e-5)
    one = keras.Model(quantized.input, quantized.output["main"])
    export_tflite(one, tmp_path / "net.tflite", class_names=["a", "b"], scheme="int8", head="logits")
    assert float_operators(tmp_path / "net.tflite") == []


def test_losses_that_would_be_lost_are_refused(discs):
    net = tiny_net()
    net.add_loss(lambda: tf.reduce_sum(net.layers[2].kernel))
    with pytest.raises(InputError, match="'tiny' has a loss that is a function"):
        quantize_model(net, discs[0][:8])
    image = keras.Input((32, 32, 3))
    hidden = layers.Conv2D(4, 1, activation="sigmoid", activity_regularizer="l2", name="sparse")(image)
    with pytest.raises(InputError, match=r"'sparse' .* \(sigmoid\) that int8 files compute apart"):
        quantize_model(keras.Model(image, hidden), discs[0][:8])


def test_pictures_that_the_net_does_not_take_are_refused(discs):
    image, other = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    two = keras.Model([image, other], layers.Add()([image, other]))
    for net, pictures in ((two, discs[0]), (tiny_net(), discs[0][:, :16]), (tiny_net(), discs[0][:0])):
        with pytest.raises(InputError, match=r"pictures are \(.* and model '.*' takes \(None, 32, 32, 3\)"):
            quantize_model(net, pictures)


REPLICAS = """
import numpy as np
from tfprune.keras import keras, tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.quantization.test_quantize import pruned_net
from tfprune.objectives.losses import build_loss
from tfprune.quantization.layers import QuantizedLayer
from tfprune.quantization.training import quantize_model
rng = np.random.default_rng(0)
pictures = rng.uniform(0, 255, (16, 32, 32, 3)).astype(np.float32)
truth = (pictures.mean(-1) > 127).astype(np.uint8)
strategies = {"one": tf.distribute.get_strategy(), "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
weights = {}
for name, strategy in strategies.items():
    with strategy.scope():
        model = quantize_model(pruned_net(norm=False), pictures.astype(np.uint8))
        model.compile(keras.optimizers.SGD(0.01), build_loss("cross_entropy"))
    model.fit(tf.data.Dataset.from_tensor_slices((pictures, truth)).batch(8), epochs=2, verbose=0)
    weights[name] = model.get_weights()
    for layer in model.layers:
        if isinstance(layer, QuantizedLayer):
            assert np.all(layer.rounded().numpy()[layer.mask.numpy() == 0] == 0)
for one, two in zip(weights["one"], weights["two"]):
    np.testing.assert_allclose(one, two, rtol=0.02, atol=0.02)
"""


@pytest.mark.slow
def test_two_replicas_learn_what_one_learns():
    """A range follows the mean of what the replicas see, which is nearly what one sees of both halves."""
    subprocess.run([sys.executable, "-c", REPLICAS], check=True, cwd=Path(__file__).parents[2])
