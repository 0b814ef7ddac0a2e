"""Masks under everything a training can bring: loops, compilers, precisions, replicas, files, nested nets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.pruning.test_engine import Smallest, loss, masked, train
from tests.tiny import tiny_net
from tfprune.architectures import build_model
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning import scope
from tfprune.pruning.controller import MaskController
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.pruning.schedules import build_schedule
from tfprune.pruning.selection import layers_of_kind, select_layers
from tfprune.training.distillation import distill
from tfprune.training.optimizers import build_optimizer
from tfprune.training.stage import fit_stage

from tensorflow_model_optimization.sparsity import keras as tfmot

GATHERING = ["magnitude", "taylor", "movement"]


def batches_of(discs, size=8):
    return [(discs[0][i : i + size].astype(np.float32), discs[1][i : i + size]) for i in range(0, 40, size)]


def strided_net():
    """A net that XLA can train: TensorFlow has no gradient of UpSampling2D there."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="down")(
        layers.Rescaling(1 / 255)(image)
    )
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(16, 3, padding="same", name="middle")(x))
    x = layers.Conv2DTranspose(8, 2, strides=2, name="up")(x)
    return keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))


@pytest.mark.parametrize("criterion", GATHERING)
def test_xla_gives_the_same_masks(discs, criterion):
    results = []
    for jit_compile in (False, True):
        controller = masked(strided_net(), min_weights=400, criterion=criterion, steps=4, prunes=2)
        train(controller, discs, steps=4, optimizer=keras.optimizers.SGD(0.01), jit_compile=jit_compile)
        results.append(controller.layers[0].mask.numpy())
    assert np.mean(results[0] == results[1]) > 0.98 and results[1].mean() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("criterion", GATHERING)
def test_mixed_float16_trains_and_masks(discs, criterion):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        source = tiny_net()
        controller = masked(source, criterion=criterion, granularity="filter", steps=4, prunes=2)
        train(controller, discs, steps=4)
        assert isinstance(controller.model.optimizer, keras.mixed_precision.LossScaleOptimizer)
        plain = controller.strip()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert controller.layers[0].kernel.dtype == tf.float32 and controller.layers[0].compute_dtype == "float16"
    pictures = discs[0][40:].astype(np.float32)
    np.testing.assert_array_equal(plain.predict(pictures, verbose=0), controller.model.predict(pictures, verbose=0))
    assert controller.total_sparsity() == pytest.approx(0.5, abs=1e-6)
    for layer in controller.layers:
        assert np.isfinite(layer.whole("kernel").numpy()).all()


REPLICAS = """
import sys
import numpy as np
from tfprune.keras import keras, tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.pruning.test_engine import loss, masked
from tests.tiny import tiny_net
rng = np.random.default_rng(0)
pictures = rng.uniform(0, 255, (16, 32, 32, 3)).astype(np.float32)
truth = (pictures.mean(-1) > 127).astype(np.uint8)
strategies = {"one": tf.distribute.get_strategy(), "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
for criterion in ("magnitude", "taylor", "taylor_gate", "movement"):
    masks = {}
    for name, strategy in strategies.items():
        with strategy.scope():
            granularity = "filter" if criterion == "taylor_gate" else "weight"
            controller = masked(tiny_net(norm=False), criterion=criterion, steps=4, prunes=2, granularity=granularity)
            controller.model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss())
        data = tf.data.Dataset.from_tensor_slices((pictures, truth)).batch(8).repeat()
        controller.model.fit(data, epochs=1, steps_per_epoch=4, verbose=0)
        for layer in controller.layers:
            for variable in (layer.mask, layer.kernel, *([layer.evidence] if layer.gathers else [])):
                copies = [copy.numpy() for copy in strategy.experimental_local_results(variable)]
                assert all(np.array_equal(copies[0], copy) for copy in copies), (criterion, variable.name)
                assert len(copies) == strategy.num_replicas_in_sync
        masks[name] = np.concatenate([layer.mask.numpy().ravel() for layer in controller.layers])
    same = np.mean(masks["one"] == masks["two"])
    print(criterion, same, masks["two"].mean())
    assert same == 1, criterion
"""


def run_fresh(code: str, *arguments: str) -> str:
    """Run Python code in a fresh process at the repository's root."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=root, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_replicas_hold_the_same_masks_as_one_on_the_same_batch():
    assert len(run_fresh(REPLICAS).splitlines()) == 4


CONTINUE = """
import sys
from pathlib import Path
import numpy as np
from tfprune.keras import keras
from tfprune.pruning import scope
from tests.pruning.test_surroundings import go_on
discs = np.load(sys.argv[1])
for path in map(Path, sys.argv[2:]):
    with scope():
        model = keras.models.load_model(path)
    go_on(model, (discs["images"], discs["masks"]), 6, 10)
    np.savez(path.with_suffix(".npz"), *[weight.numpy() for weight in model.controller.strip().weights])
"""


def go_on(model, discs, first, last):
    """Train the steps first..last - 1, one batch each."""
    batches = batches_of(discs)
    for step in range(first, last):
        model.train_on_batch(*batches[step % len(batches)])


def test_saved_models_go_on_in_a_fresh_process_as_if_never_stopped(discs, tmp_path):
    np.savez(tmp_path / "discs.npz", images=discs[0], masks=discs[1])
    controllers = {
        tmp_path / f"{criterion}.keras": masked(criterion=criterion, granularity=granularity)
        for criterion, granularity in (("taylor", "filter"), ("movement", "weight"))
    }
    for path, controller in controllers.items():
        controller.model.compile(keras.optimizers.Adam(0.01), loss())
        go_on(controller.model, discs, 0, 6)
        controller.model.save(path)
        go_on(controller.model, discs, 6, 10)
    run_fresh(CONTINUE, str(tmp_path / "discs.npz"), *map(str, controllers))
    for path, controller in controllers.items():
        with np.load(path.with_suffix(".npz")) as stored:
            for name, weight in zip(stored.files, controller.strip().weights, strict=True):
                np.testing.assert_array_equal(stored[name] == 0, weight.numpy() == 0)
                np.testing.assert_allclose(stored[name], weight.numpy(), atol=2e-5)


def test_all_settings_come_back_with_a_loaded_model(discs, tmp_path):
    controller = masked(criterion=Smallest(2.0), scope="global", normalize=True, layer_sparsity={"^last": 0.3})
    train(controller, discs, steps=3)
    controller.model.save(tmp_path / "masked.keras")
    with pytest.raises(InputError, match=r"scope\(Smallest\)"):
        keras.models.load_model(tmp_path / "masked.keras")
    with scope(Smallest):
        loaded = keras.models.load_model(tmp_path / "masked.keras").controller
    assert loaded.get_config() == controller.get_config() and loaded.selection == controller.selection
    assert loaded.sparsity_at == controller.sparsity_at and loaded.sparsity() == controller.sparsity()
    assert int(loaded.model.mask_step) == 3


def test_a_killed_stage_of_pruning_ends_with_the_same_masks(discs, tmp_path):
    def run(folder, epochs):
        controller = masked(criterion="movement", steps=12, prunes=4)
        fit_stage(
            controller.model,
            lambda first: tf.data.Dataset.from_generator(
                lambda: iter(batches_of(discs)[:4] * 4),
                output_signature=(tf.TensorSpec((8, 32, 32, 3)), tf.TensorSpec((8, 32, 32), tf.uint8)),
            ),
            epochs=epochs,
            steps_per_epoch=4,
            loss=loss(),
            optimizer=build_optimizer("adam", 0.01),
            folder=folder,
        )
        return controller

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    resumed = run(tmp_path / "cut", 3)
    assert resumed.total_sparsity() == pytest.approx(0.5, abs=1e-3)
    for ours, theirs in zip(resumed.layers, whole.layers, strict=True):
        np.testing.assert_array_equal(ours.mask.numpy(), theirs.mask.numpy())


@pytest.mark.parametrize("criterion", GATHERING)
def test_a_loop_of_ones_own_equals_fit(discs, criterion):
    data = batches_of(discs)
    with_fit = masked(tiny_net(norm=False), criterion=criterion, steps=5)
    with_fit.model.compile(keras.optimizers.Adam(0.01), loss())
    for pictures, truth in data:
        with_fit.model.train_on_batch(pictures, truth)

    controller = masked(tiny_net(norm=False), criterion=criterion, steps=5)
    model, optimizer, loss_function = controller.model, keras.optimizers.Adam(0.01), loss()
    for step, (pictures, truth) in enumerate(data, start=1):
        with tf.GradientTape() as tape:
            tape.watch(controller.taps)
            value = loss_function(truth, model(pictures, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(value, [*variables, *controller.taps])
        controller.gather(gradients[len(variables) :], step=step)
        optimizer.apply_gradients(zip(gradients, variables, strict=False))
        controller.update(step, optimizer)
    for ours, theirs in zip(controller.layers, with_fit.layers, strict=True):
        assert np.mean(ours.mask.numpy() == theirs.mask.numpy()) > 0.995
    assert controller.total_sparsity() == with_fit.total_sparsity()


def test_strip_warns_of_masks_that_have_not_closed(discs):
    controller = MaskController(tiny_net(), build_schedule("linear", 0.8, begin_step=0, end_step=6, prunes=6))
    optimizer = keras.optimizers.SGD(0.01)
    for step in (1, 2, 3):
        controller.update(step, optimizer)
    with pytest.warns(UserWarning, match=r"at 40.0% zeros after step 3, and the schedule ends at 80.0%"):
        controller.strip()
    images, masks = discs
    controller.model.compile("adam", loss())
    controller.model.fit(images, masks, batch_size=16, epochs=1, verbose=0)  # goes on where the loop was
    controller.strip()
    assert controller.total_sparsity() == pytest.approx(0.8, abs=1e-3)


def test_a_loop_that_gathers_nothing_is_told(discs):
    controller = masked(criterion="taylor")
    with pytest.raises(InputError, match=r"controller\.gather"):
        controller.update(2, keras.optimizers.SGD())


def nested_net():
    layers = keras.layers
    inner_image = keras.Input((16, 16, 8))
    inner = keras.Model(inner_image, layers.Conv2D(8, 3, padding="same", name="conv")(inner_image), name="inner")
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="first")(image)
    x = layers.Add()([inner(shared(x)), shared(inner(x))])
    x = tf.nn.relu(x * 2.0)
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", name="up")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    head = keras.Model(inner2 := keras.Input((32, 32, 8)), layers.Conv2D(2, 1, name="logits")(inner2), name="head")
    return keras.Model(image, head(x), name="nested")


@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_nested_shared_transposed_and_odd_layers(discs, granularity):
    model = nested_net()
    selection = select_layers(model, min_weights=64)
    assert selection.masked == ("first", "shared", "inner/conv", "up", "separable")
    assert {row.layer: row.reason for row in selection.dense} == {
        "depthwise": "excluded: depthwise",
        "head/logits": "output head stays dense",
    }
    schedule = build_schedule("polynomial", 0.5, begin_step=0, end_step=4, prunes=2)
    controller = MaskController(
        model, schedule, selection=selection, granularity=granularity, criterion="taylor", scope="layer"
    )
    pictures = discs[0].astype(np.float32)
    np.testing.assert_array_equal(controller.model.predict(pictures, verbose=0), model.predict(pictures, verbose=0))
    train(controller, discs, steps=4)
    assert all(row.sparsity == pytest.approx(0.5, abs=1e-6) for row in controller.sparsity())
    expected = controller.model.predict(pictures, verbose=0)
    np.testing.assert_array_equal(controller.strip().predict(pictures, verbose=0), expected)
    stripped = tfmot.strip_pruning(controller.model)
    np.testing.assert_array_equal(stripped.predict(pictures, verbose=0), expected)
    stripped.compile("sgd", loss())
    stripped.train_on_batch(pictures[:4], discs[1][:4])  # it has no masks, and trains as a plain net


class Squares(keras.regularizers.Regularizer):
    """A regularizer that Keras does not know by name."""

    def __call__(self, kernel):
        return tf.reduce_sum(kernel**2)

    def get_config(self):
        return {}


def net_of_many_habits():
    """A dictionary in, two out, a layer in two nested models, and all ways to add a loss."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    shared = layers.Conv2D(8, 3, padding="same", kernel_regularizer=Squares(), name="shared")
    stem_in, twin_in = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    stem = keras.Model(stem_in, layers.ReLU()(shared(stem_in)), name="stem")
    twin = keras.Model(twin_in, layers.Conv2D(8, 1, name="half_frozen")(shared(twin_in)), name="twin")
    twin.trainable = False
    shared.trainable = True  # in `twin` it stays frozen, as `twin` is
    x = layers.Concatenate()([stem(image), twin(image)])
    x = layers.Conv2D(8, 3, padding="same", activity_regularizer="l2", name="middle")(x)
    ends = {"main": layers.Conv2D(2, 1, name="logits")(x), "side": layers.Conv2D(2, 1, name="other")(x)}
    net = keras.Model({"picture": image}, ends, name="habits")
    net.add_loss(tf.reduce_mean(tf.abs(x)))
    net.add_metric(tf.reduce_max(x), name="largest")
    return net


def test_what_training_sees_of_a_net_is_the_same_with_masks_and_after(discs):
    net = net_of_many_habits()
    pictures = {"picture": discs[0][:8].astype(np.float32)}
    truth = {"main": discs[1][:8], "side": discs[1][:8]}

    def figures(model):
        model.compile(keras.optimizers.SGD(1e-9), {"main": loss(), "side": loss()})
        kernels = (weight.name for weight in model.trainable_weights if "kernel" in weight.name)
        names = sorted(name.removeprefix("masked_layer_") for name in kernels)
        return model.evaluate(pictures, truth, verbose=0, return_dict=True), names

    expected, trained = figures(net)
    assert {"largest", "logits_loss", "other_loss"} < set(expected) and len(trained) == 4
    controller = masked(net, min_weights=200, steps=4, prunes=2)
    assert controller.selection.masked == ("stem/shared", "middle")
    assert figures(controller.model) == (pytest.approx(expected, rel=1e-6), trained)
    with scope(Squares):
        again = controller.model.from_config(controller.model.get_config())
    assert figures(again)[0].keys() == expected.keys()
    controller.model.fit(pictures, truth, batch_size=2, epochs=1, verbose=0)
    assert [row.sparsity for row in controller.sparsity()] == pytest.approx([0.5, 0.5], abs=1e-6)
    stripped = controller.strip()
    assert stripped.count_params() == net.count_params()
    assert figures(stripped) == (pytest.approx(figures(controller.model)[0], rel=1e-6), trained)


def test_selection_by_kind_and_expression():
    net = tiny_net()
    everything = {"min_weights": 1, "exclude": ()}
    assert select_layers(net, include=["decoder"], **everything).masked == ("last_conv", "logits")
    assert select_layers(net, include=["encoder"], **everything).masked == ("down_conv", "middle_conv")
    assert select_layers(net, min_weights=1, exclude=["first", "head"]).masked == ("middle_conv", "last_conv")
    assert select_layers(net, include=["^mid", "head"], **everything).masked == ("middle_conv", "logits")
    net.get_layer("middle_conv").trainable = False
    assert "excluded: frozen" in {row.reason for row in select_layers(net).dense}
    for wrong in ("middel", "("):
        with pytest.raises(InputError, match="include: "):
            select_layers(net, include=[wrong])


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnetb0"])
def test_an_encoder_ends_where_the_picture_grows_and_not_where_it_is_padded_or_gated(encoder):
    net = build_model("unet", encoder=encoder, input_size=(32, 32), outputs=2, decoder_filters=[8, 8, 8, 8, 8])
    weighted = {layer.name for layer in net.layers if layer.weights}
    decoder = {name for name in weighted if name.startswith(("decoder_", "logits"))}
    assert {layer.name for layer in layers_of_kind(net, "decoder") if layer.weights} == decoder
    assert {layer.name for layer in layers_of_kind(net, "encoder") if layer.weights} == weighted - decoder


def test_a_border_added_by_an_op_enlarges_nothing():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(tf.pad(image, [[0, 0], [1, 1], [1, 1], [0, 0]]))
    net = keras.Model(image, keras.layers.Conv2D(2, 1, name="last")(x))
    assert layers_of_kind(net, "decoder") == []


class OwnStep(keras.Model):
    """A model whose training step is its own."""

    def train_step(self, data):
        return super().train_step(data)


class OwnLoss(keras.Model):
    """A model whose loss is its own."""

    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


class OwnCall(keras.Sequential):
    """A model that does something else than its layers say."""

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class Subclassed(keras.Model):
    """A model without a graph."""


def test_models_that_cannot_be_wrapped_are_refused():
    plain = tiny_net()
    with pytest.raises(InputError, match="train_step of its own"):
        MaskController(OwnStep(plain.inputs, plain.outputs), None)
    with pytest.raises(InputError, match="compute_loss of its own"):
        MaskController(OwnLoss(plain.inputs, plain.outputs), None)
    with pytest.raises(InputError, match="call of its own"):
        inner = OwnCall([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 1)])
        MaskController(keras.Model(plain.inputs, inner(plain.inputs[0])), None)
    with pytest.raises(InputError, match=r"'tiny' inside 'sequential.*' is masked; wrap"):
        without_schedule = MaskController(plain, None, selection=select_layers(plain, min_weights=500)).model
        MaskController(keras.Sequential([plain.inputs[0], without_schedule]), None)
    with pytest.raises(InputError, match="is not functional"):
        MaskController(Subclassed(name="graphless"), None)
    with pytest.raises(InputError, match="is masked already"):
        MaskController(masked(plain).model, None)


def test_a_masked_model_is_refused_as_a_part_of_another():
    model = masked().model
    image = keras.Input((32, 32, 3))
    with pytest.raises(InputError, match="its masks would never move"):
        keras.layers.Softmax()(model(image))
    with pytest.raises(InputError, match="its masks would never move"):
        keras.Sequential([image, model])
    with pytest.raises(InputError, match="its masks would never move"):
        distill(model, tiny_net())
    assert model(np.zeros((1, 32, 32, 3), np.float32)).shape == (1, 32, 32, 2)


def test_sequential_models_and_several_steps_per_execution(discs):
    source = keras.Sequential([keras.layers.Conv2D(8, 3, padding="same", input_shape=(32, 32, 3), name="conv")])
    source.add(keras.layers.Conv2D(2, 1, name="logits"))
    controller = masked(source, min_weights=1, steps=6, prunes=3)
    train(controller, discs, steps=6, steps_per_execution=4)
    assert int(controller.model.mask_step) == 6
    assert controller.total_sparsity() == pytest.approx(0.5, abs=1e-3)


def test_a_stage_after_the_ramp_leaves_the_masks_alone(discs):
    controller = masked(criterion="taylor")
    train(controller, discs, steps=10)
    before = [layer.mask.numpy() for layer in controller.layers]
    train(controller, discs, steps=10)
    assert not controller.model._gathers
    for layer, mask in zip(controller.layers, before, strict=True):
        np.testing.assert_array_equal(layer.mask.numpy(), mask)


def test_history_and_tensorboard_show_the_sparsity_of_every_layer(discs, tmp_path):
    controller = masked(steps=5)
    controller.model.compile("sgd", loss())
    board = keras.callbacks.TensorBoard(tmp_path)
    history = controller.model.fit(
        discs[0][:40].astype(np.float32),
        discs[1][:40],
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[controller.callback(), board],
    )
    assert history.history["sparsity"] == pytest.approx([0.5, 0.5], abs=1e-3)
    events = b"".join(path.read_bytes() for path in tmp_path.rglob("events*"))
    for row in controller.sparsity():
        assert history.history[f"sparsity/{row.layer}"][-1] == row.sparsity
        assert f"sparsity/{row.layer}".encode() in events


def test_norm_statistics_are_the_exact_averages_of_all_batches(discs):
    model = tiny_net(dropout=0.5)
    data = [discs[0][:20].astype(np.float32), discs[0][20:32].astype(np.float32)]
    assert reestimate_batch_norm(model, data) == 32
    norm = model.get_layer("down_norm")
    inputs = [keras.Model(model.input, norm.input)(part).numpy().astype(np.float64) for part in data]
    everything = np.concatenate(inputs)
    np.testing.assert_allclose(norm.moving_mean.numpy(), everything.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), everything.var((0, 1, 2)), rtol=1e-5)
    first = [weight.numpy() for weight in model.weights]
    assert norm.momentum == 0.8 and model.get_layer("dropout").rate == 0.5
    reestimate_batch_norm(model, [(part, None) for part in data])
    for before, after in zip(first, model.weights, strict=True):
        np.testing.assert_array_equal(before, after.numpy())
    with pytest.raises(InputError, match="no batches"):
        reestimate_batch_norm(model, [])
    np.testing.assert_array_equal(
        norm.moving_mean.numpy(), first[[w.name for w in model.weights].index(norm.moving_mean.name)]
    )


@pytest.mark.parametrize("size", [2, 64])
def test_norm_statistics_of_one_number_per_picture_and_of_two_calls(size):
    layers, norm = keras.layers, keras.layers.BatchNormalization()
    image = keras.Input((4, 4, 3))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(image)
    model = keras.Model(image, layers.Add()([norm(pooled), norm(layers.Rescaling(1.0, offset=10.0)(pooled))]))
    pictures = np.random.default_rng(0).normal(size=(64, 4, 4, 3)).astype(np.float32)
    reestimate_batch_norm(model, [pictures[start : start + size] for start in range(0, 64, size)])
    means = pictures.mean((1, 2))
    everything = np.concatenate([means, means + 10]).astype(np.float64)
    np.testing.assert_allclose(norm.moving_mean.numpy(), everything.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), everything.var(0), rtol=1e-5)
    assert "call" not in vars(norm)


def test_pictures_that_are_no_batches_or_never_end_are_refused(discs):
    images = discs[0]
    with pytest.raises(InputError, match=r"a batch of shape \(32, 32, 3\); hand it batches"):
        reestimate_batch_norm(tiny_net(), images)
    with pytest.raises(InputError, match="a dataset without end"):
        reestimate_batch_norm(tiny_net(), tf.data.Dataset.from_tensor_slices(images).batch(8).repeat())


def test_statistics_taken_anew_mend_a_masked_net(discs):
    controller = masked(granularity="filter", final=0.5, steps=1, prunes=1)
    train(controller, discs, steps=1, optimizer=keras.optimizers.SGD(0.0))
    pictures = discs[0][:32].astype(np.float32)

    def gap():
        model = controller.model
        return float(np.abs(model(pictures, training=True) - model(pictures, training=False)).mean())

    before = gap()
    reestimate_batch_norm(controller.model, [pictures])
    assert gap() < before / 4


def test_taylor_ranks_filters_as_brute_force_removal_does(discs):
    pictures, truth = discs[0].astype(np.float32), discs[1]
    model = tiny_net(norm=False)
    model.compile(keras.optimizers.Adam(0.003), loss())
    model.fit(pictures, truth, batch_size=8, epochs=3, verbose=0)
    layer = model.get_layer("middle_conv")
    kernel, bias = layer.get_weights()

    def loss_without(index):
        keep = np.arange(16) != index
        layer.set_weights([kernel * keep, bias * keep])
        return float(loss()(truth, model(pictures, training=False)))

    damage = np.array([loss_without(index) for index in range(17)])  # 16 is no filter
    assert damage[16] < 0.4
    controller = masked(model, criterion="taylor_gate", granularity="filter", steps=100)
    controller.model.compile(keras.optimizers.SGD(0.0), loss())
    for start in range(0, 48, 8):
        controller.model.train_on_batch(pictures[start : start + 8], truth[start : start + 8])
    scores = controller.layers[0].evidence.numpy()
    assert spearmanr(scores, np.abs(damage[:16] - damage[16])).statistic >= 0.9
