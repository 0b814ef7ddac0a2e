"""The composite regularizer while a net trains: in fit, in other loops, with masks, after a kill, from a file."""

from __future__ import annotations

import numpy as np
import pytest

from tests.pruning.test_engine import loss
from tests.pruning.test_surroundings import batches_of, run_fresh
from tests.tiny import tiny_net
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.pruning.selection import select_layers
from tfprune.regularization.attaching import PenaltyLog, regularize_model
from tfprune.regularization.composite import Ramp
from tfprune.training.stage import fit_stage, set_determinism

WEIGHTS = {"orthogonality": {"strength": 3.0}}
READINGS = {
    "count": {"count": {}},
    "threshold": {"threshold": {"sparsity": 0.5}},
    "soft_threshold": {"soft_threshold": {"strength": 1e-3}},
    "surrogate": {"surrogate": {"strength": 1e-3, "tau": 1e-2}},
}


def regularized(model=None, weights=WEIGHTS, gradients=None, **settings):
    model = model or tiny_net()
    return regularize_model(model, weights, gradients, selection=select_layers(model, min_weights=500), **settings)


def with_masks(model, *, final=0.5, steps=4, **settings):
    schedule = build_schedule("polynomial", final, begin_step=0, end_step=steps, prunes=2)
    return MaskController(model, schedule, selection=select_layers(model, min_weights=500), **settings)


def r_of(model):
    return float(model.composite.measures(model)["orthogonality"])


def gradients_by_hand(net, pictures, truth, reading):
    """Return S + the gradients of the penalties, from nested tapes over a plain net with penalties."""
    kernels = [net.get_layer(name).kernel for name in ("middle_conv", "last_conv")]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            task = loss()(truth, net(pictures, training=True))
        found = dict(zip(map(id, net.trainable_variables), inner.gradient(task, net.trainable_variables), strict=True))
        extra = tf.add_n(net.losses)
        if reading == "surrogate":
            extra += 1e-3 * tf.add_n([tf.reduce_sum(found[id(k)] ** 2 / (found[id(k)] ** 2 + 1e-4)) for k in kernels])
    pulls = outer.gradient(extra, net.trainable_variables, unconnected_gradients="zero")
    for kernel in kernels:
        g = found[id(kernel)].numpy()
        if reading == "threshold":
            g = g * (np.abs(g) >= np.sort(np.abs(g).ravel())[g.size // 2])
        elif reading == "soft_threshold":
            g = np.sign(g) * np.maximum(np.abs(g) - 1e-3, 0)
        found[id(kernel)] = g
    nonzero = sum(np.count_nonzero(found[id(kernel)]) for kernel in kernels)
    updates = [found[id(variable)] + pull for variable, pull in zip(net.trainable_variables, pulls, strict=True)]
    return updates, nonzero / sum(kernel.shape.num_elements() for kernel in kernels)


@pytest.mark.parametrize("reading", READINGS)
def test_a_step_of_fit_subtracts_what_the_formula_says(discs, reading):
    pictures, truth = discs[0][:8].astype(np.float32), discs[1][:8]
    plain = regularized()
    expected, share = gradients_by_hand(plain, pictures, truth, reading)
    model = regularized(gradients=READINGS[reading])
    model.compile(keras.optimizers.SGD(1.0), loss())
    before = [variable.numpy() for variable in model.trainable_variables]
    logs = model.train_on_batch(pictures, truth, return_dict=True)
    for variable, old, gradient in zip(model.trainable_variables, before, expected, strict=True):
        np.testing.assert_allclose(old - variable.numpy(), gradient, rtol=2e-3, atol=2e-6)
    if reading == "surrogate":
        assert 0 < logs["h_share"] < share
    else:
        assert logs["h_share"] == pytest.approx(share, abs=1e-3)
    assert (share < 0.51) == (reading == "threshold")


def test_the_ramp_scales_every_strength_and_the_loss_that_is_shown(discs):
    data = batches_of(discs)
    model = regularized(tiny_net(norm=False), ramp=Ramp(1, 3), gradients=READINGS["threshold"])
    penalty = float(model.composite.penalty(model))
    model.compile(keras.optimizers.SGD(0.0), loss())
    assert penalty > 0.1
    for share in (0, 0.5, 1, 1):
        logs = model.train_on_batch(*data[0], return_dict=True)
        task = float(loss()(data[0][1], model(data[0][0], training=True)))
        assert logs["loss"] == pytest.approx(task + share * penalty, rel=1e-4)
        assert logs["h_share"] == pytest.approx({0: 0.94, 0.5: 0.75, 1: 0.5}[share], abs=0.01)  # 6 % are zero anyway
        judged = model.test_on_batch(*data[0], return_dict=True)
        assert judged == {"loss": pytest.approx(task + share * penalty, rel=1e-4)}


def test_history_holds_r_and_h_of_every_epoch(discs):
    model = regularized(gradients=READINGS["threshold"])
    begin = r_of(model)
    model.compile(keras.optimizers.SGD(0.1), loss())
    data = tf.data.Dataset.from_tensor_slices((discs[0].astype(np.float32), discs[1])).batch(8)
    history = model.fit(data, epochs=3, verbose=0, callbacks=[PenaltyLog()], validation_data=data).history
    assert set(history) == {"loss", "h_share", "val_loss", "orthogonality"}
    assert history["h_share"] == pytest.approx([0.5] * 3, abs=0.02)
    assert begin > history["orthogonality"][0] > history["orthogonality"][2]
    assert history["orthogonality"][2] == pytest.approx(r_of(model))


@pytest.mark.parametrize("reading", ["threshold", "surrogate"])
def test_a_loop_of_ones_own_equals_fit_with_masks_and_without(discs, reading):
    settings = {"gradients": READINGS[reading], "ramp": Ramp(0, 3)}
    for masked in (False, True):
        models, controllers = [regularized(tiny_net(norm=False), **settings) for _ in range(2)], [None, None]
        if masked:
            controllers = [with_masks(model, criterion="taylor", granularity="filter") for model in models]
            models = [controller.model for controller in controllers]
        (by_fit, model), controller = models, controllers[1]
        by_fit.compile(keras.optimizers.Adam(0.01), loss())
        optimizer = keras.optimizers.Adam(0.01)
        for step, (pictures, truth) in enumerate(batches_of(discs), start=1):
            by_fit.train_on_batch(pictures, truth)

            def task(pictures=pictures, truth=truth, model=model):
                return loss()(truth, model(pictures, training=True))

            taps = controller.taps if masked else ()
            found = model.composite.gradients(model, task, step=step, taps=taps)
            if masked:
                controller.gather(found.taps, step=step)
            optimizer.apply_gradients(zip(found.variables, model.trainable_variables, strict=True))
            if masked:
                controller.update(step, optimizer)
        for ours, theirs in zip(model.trainable_variables, by_fit.trainable_variables, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0.02, atol=2e-3)
        if masked:
            assert controller.total_sparsity() == controllers[0].total_sparsity() == pytest.approx(0.5)


def test_penalties_alone_are_in_the_losses_of_the_model(discs):
    pictures, truth = batches_of(discs)[0]
    by_fit, model = regularized(), regularized()
    by_fit.compile(keras.optimizers.SGD(0.1), loss())
    by_fit.train_on_batch(pictures, truth)
    with tf.GradientTape() as tape:
        value = loss()(truth, model(pictures, training=True)) + tf.add_n(model.losses)
    variables = model.trainable_variables
    keras.optimizers.SGD(0.1).apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
    for ours, theirs in zip(variables, by_fit.trainable_variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)


def test_masked_filters_leave_r_and_stay_zero(discs):
    controller = with_masks(regularized(gradients=READINGS["threshold"]), granularity="filter")
    controller.model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss())
    for pictures, truth in batches_of(discs):
        logs = controller.model.train_on_batch(pictures, truth, return_dict=True)
    plain = controller.strip()
    assert not plain.losses
    sizes = 0.0
    for name in ("middle_conv", "last_conv"):
        kernel = plain.get_layer(name).kernel.numpy()
        rows = kernel.reshape(-1, kernel.shape[-1]).T
        alive = rows[rows.any(axis=1)]
        assert 2 * len(alive) == len(rows)
        sizes += np.sum((alive @ alive.T - np.eye(len(alive))) ** 2) / len(alive) ** 2
    assert r_of(controller.model) == pytest.approx(sizes, rel=1e-4)
    assert logs["h_share"] < 0.5  # a quarter of the last batch's gradients, masked weights count as zeros


@pytest.mark.parametrize("criterion", ["taylor", "movement"])
def test_the_evidence_is_that_of_the_task_alone(discs, criterion):
    pictures, truth = batches_of(discs)[0]
    evidence = []
    for model in (tiny_net(), regularized(), regularized(gradients=READINGS["threshold"], ramp=Ramp(0, 2))):
        controller = with_masks(model, criterion=criterion)
        controller.model.compile(keras.optimizers.SGD(0.0), loss())
        controller.model.train_on_batch(pictures, truth)
        evidence.append([layer.evidence.numpy() for layer in controller.layers])
    for other in evidence[1:]:
        for ours, theirs in zip(evidence[0], other, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-9)
            assert ours.any()


@pytest.mark.parametrize("precision", ["xla", "mixed_float16"])
def test_compilers_and_precisions(discs, precision):
    pictures, truth = batches_of(discs)[0]
    layers = keras.layers
    try:
        keras.mixed_precision.set_global_policy("mixed_float16" if precision == "mixed_float16" else "float32")
        image = keras.Input((32, 32, 3))
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(layers.Rescaling(1 / 255)(image)))
        net = keras.Model(image, layers.Conv2D(2, 1, dtype="float32")(x))
        settings = {"gradients": READINGS["threshold"], "ramp": Ramp(0, 2)}
        model = regularize_model(net, WEIGHTS, **settings, selection=select_layers(net, min_weights=200))
        model.compile(keras.optimizers.SGD(0.1), loss(), jit_compile=precision == "xla")
        start = r_of(model)
        for _ in range(5):
            logs = model.train_on_batch(pictures, truth, return_dict=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert logs["h_share"] == pytest.approx(0.5, abs=0.02)
    assert r_of(model) < start


def test_an_optimizer_of_old_is_refused(discs):
    model = regularized(gradients=READINGS["count"])
    model.compile(keras.optimizers.legacy.SGD(0.1), loss())
    with pytest.raises(InputError, match="legacy one"):
        model.train_on_batch(*batches_of(discs)[0])


REPLICAS = """
import numpy as np
from tfprune.keras import keras, tf
cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.regularization.test_training import READINGS, Ramp, loss, regularized, tiny_net
from tfprune.errors import InputError
rng = np.random.default_rng(0)
pictures = rng.uniform(0, 255, (16, 32, 32, 3)).astype(np.float32)
data = tf.data.Dataset.from_tensor_slices((pictures, (pictures.mean(-1) > 127).astype(np.uint8))).batch(8).repeat()
kernels, shares = [], []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        model = regularized(tiny_net(norm=False), gradients=READINGS["threshold"], ramp=Ramp(0, 3))
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss())
    shares.append(model.fit(data, epochs=1, steps_per_epoch=4, verbose=0).history["h_share"][0])
    kernels.append(model.get_layer("middle_conv").kernel.numpy())
assert abs(shares[0] - shares[1]) < 1e-3, shares
assert np.abs(kernels[0] - kernels[1]).max() < 1e-4, np.abs(kernels[0] - kernels[1]).max()
with strategy.scope():
    model = regularized(tiny_net(norm=False), gradients=READINGS["surrogate"])
    model.compile("sgd", loss())
try:
    model.fit(data, epochs=1, steps_per_epoch=1, verbose=0)
except Exception as error:
    assert "on one replica" in str(error)
    print("told")
"""


def test_two_replicas_train_as_one_on_the_same_batch():
    assert run_fresh(REPLICAS).strip() == "told"


CONTINUE = """
import sys
import numpy as np
from contextlib import nullcontext
from tfprune.keras import keras
from tfprune.pruning import scope
with scope() if sys.argv[1].endswith("h5") else nullcontext():
    model = keras.models.load_model(sys.argv[1])
discs = np.load(sys.argv[2])
pictures, truth = discs["images"].astype(np.float32), discs["masks"]
penalty = float(sum(model.losses))
for start in range(16, 40, 8):
    model.train_on_batch(pictures[start : start + 8], truth[start : start + 8])
np.savez(sys.argv[3], penalty, *[weight.numpy() for weight in model.weights])
"""


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_saved_model_goes_on_in_a_fresh_process(discs, tmp_path, ending):
    model, data = regularized(gradients=READINGS["threshold"], ramp=Ramp(0, 4)), batches_of(discs)
    model.compile(keras.optimizers.Adam(0.01), loss())
    for batch in data[:2]:
        model.train_on_batch(*batch)
    paths = [str(tmp_path / name) for name in (f"model.{ending}", "discs.npz", "out.npz")]
    if ending == "h5":
        with pytest.warns(UserWarning, match="saving your model as an HDF5"):
            model.save(paths[0])
    else:
        model.save(paths[0])
    np.savez(paths[1], images=discs[0], masks=discs[1])
    penalty = float(tf.add_n(model.losses))
    for batch in data[2:]:
        model.train_on_batch(*batch)
    run_fresh(CONTINUE, *paths)
    with np.load(paths[2]) as stored:
        assert float(stored["arr_0"]) == pytest.approx(penalty, rel=1e-5)
        for index, weight in enumerate(model.weights, start=1):
            np.testing.assert_allclose(stored[f"arr_{index}"], weight.numpy(), rtol=1e-3, atol=1e-4)


def test_a_killed_stage_ends_with_the_same_weights(discs, tmp_path):
    set_determinism(0)

    def run(folder, epochs):
        controller = with_masks(regularized(gradients=READINGS["threshold"], ramp=Ramp(0, 10)), steps=12)
        data = tf.data.Dataset.from_tensor_slices((discs[0][:32].astype(np.float32), discs[1][:32])).batch(8).repeat()
        result = fit_stage(
            controller.model,
            lambda first: data,
            epochs=epochs,
            steps_per_epoch=4,
            loss=loss(),
            optimizer=keras.optimizers.Adam(0.01),
            folder=folder,
            callbacks=[PenaltyLog()],
        )
        return controller.model, result.history

    whole, expected = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 1)
    resumed, history = run(tmp_path / "cut", 3)
    for ours, theirs in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for name in ("loss", "orthogonality", "h_share"):
        assert [row[name] for row in history] == [row[name] for row in expected]
