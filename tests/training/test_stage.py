"""The training stage: it learns, keeps its best epoch, and resumes after a kill with the same result."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning.selection import select_layers
from tfprune.regularization.attaching import regularize_model
from tfprune.training.optimizers import Triangular, build_learning_rate, build_optimizer
from tfprune.training.stage import MONITOR, fit_stage, set_determinism


class MeanAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """Stands in for the mean IoU: any metric of that name is watched."""

    def __init__(self) -> None:
        super().__init__(name="mean_iou")


@pytest.fixture
def batches(discs):
    images, masks = discs

    def build(first_epoch):
        def epoch(number):
            order = np.random.default_rng(number).permutation(32)
            return (images[order].astype(np.float32), masks[order])

        def generate():
            for number in range(first_epoch, 6):
                pictures, truth = epoch(number)
                for start in range(0, 32, 8):
                    yield pictures[start : start + 8], truth[start : start + 8]

        signature = (tf.TensorSpec((None, 32, 32, 3), tf.float32), tf.TensorSpec((None, 32, 32), tf.uint8))
        return tf.data.Dataset.from_generator(generate, output_signature=signature)

    return build


@pytest.fixture
def validation(discs):
    images, masks = discs
    return tf.data.Dataset.from_tensor_slices((images[32:].astype(np.float32), masks[32:])).batch(8)


def fit(model, batches, validation, folder, epochs=6, **options):
    settings = {"optimizer": build_optimizer("adam", 0.01), **options}
    return fit_stage(
        model,
        batches,
        epochs=epochs,
        steps_per_epoch=4,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[MeanAccuracy()],
        validation=validation,
        folder=folder,
        seed=3,
        **settings,
    )


class Killed(Exception):
    """Stands in for a kill."""


class KillIn(keras.callbacks.Callback):
    """Stops the process, as it were, in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch, self.current = epoch, -1

    def on_epoch_begin(self, epoch, logs=None):
        self.current = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.current == self.epoch and batch == 1:
            raise Killed


@pytest.mark.parametrize("schedule", ["constant", "on_plateau"])
def test_a_killed_stage_ends_with_the_same_weights(tmp_path, batches, validation, schedule):
    set_determinism(0)
    settings = {"plateau_epochs": 1} if schedule == "on_plateau" else {}
    undisturbed = tiny_net(dropout=0.3)
    expected = fit(undisturbed, batches, validation, tmp_path / "whole", **settings)
    for epoch in (1, 4):
        with pytest.raises(Killed):
            fit(tiny_net(dropout=0.3), batches, validation, tmp_path / "cut", callbacks=[KillIn(epoch)], **settings)
    resumed = tiny_net(dropout=0.3)
    result = fit(resumed, batches, validation, tmp_path / "cut", **settings)
    assert [row["loss"] for row in result.history] == [row["loss"] for row in expected.history]
    assert [row["learning_rate"] for row in result.history] == [row["learning_rate"] for row in expected.history]
    assert result.best_epoch == expected.best_epoch
    for ours, theirs in zip(resumed.weights, undisturbed.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_a_stage_learns_and_keeps_its_best_epoch(tmp_path, batches, validation):
    model = tiny_net()
    result = fit(model, batches, validation, tmp_path)
    scores = [row[MONITOR] for row in result.history]
    assert result.best_epoch == int(np.argmax(scores)) and scores[result.best_epoch] > 0.9
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [float(row[MONITOR]) for row in rows] == scores
    assert model.evaluate(validation, verbose=0, return_dict=True)["mean_iou"] == pytest.approx(max(scores), abs=1e-6)


def test_best_epoch_waits_for_the_ramp_and_works_without_a_folder(batches, validation):
    result = fit(tiny_net(), batches, validation, None, epochs=3, best_from_epoch=2)
    assert result.best_epoch == 2 and result.best_val_mean_iou == result.history[2][MONITOR]


def test_early_stop_ends_the_stage(tmp_path, batches, validation):
    for _ in range(2):  # the second start finds the stage stopped and trains no further
        optimizer = build_optimizer("sgd", 1e-12)
        result = fit(tiny_net(norm=False), batches, validation, tmp_path, optimizer=optimizer, early_stop_epochs=1)
        assert result.epochs == 2


def test_early_stop_waits_for_the_ramp(batches, validation):
    given = {"epochs": 7, "best_from_epoch": 3, "early_stop_epochs": 2}
    result = fit(tiny_net(norm=False), batches, validation, None, optimizer=build_optimizer("sgd", 1e-12), **given)
    assert result.best_epoch == 3 and result.epochs == 6


def test_the_rate_falls_behind_the_ramp_and_stays_low_after_a_kill(tmp_path, batches, validation):
    def run(name, **options):
        image = keras.Input((32, 32, 3))
        net = keras.Model(image, keras.layers.Conv2D(2, 1, kernel_initializer="ones")(image))
        options |= {"optimizer": build_optimizer("sgd", 1e-12), "plateau_epochs": 1, "best_from_epoch": 2}
        return [row["learning_rate"] for row in fit(net, batches, validation, tmp_path / name, **options).history]

    expected = pytest.approx([1e-12] * 4 + [1e-13, 1e-14], rel=1e-5, abs=0)
    assert run("whole") == expected
    with pytest.raises(Killed):
        run("cut", callbacks=[KillIn(5)])
    assert run("cut") == expected


@pytest.mark.parametrize("has_folder", [False, True])
def test_a_regularizer_ramps_on_behind_the_best_epoch(tmp_path, batches, validation, has_folder):
    net = tiny_net(norm=False)
    model = regularize_model(net, {"l2": {"strength": 0.1}}, selection=select_layers(net, min_weights=1))
    for name in ("frozen_0", "frozen_1"):
        folder, optimizer = tmp_path / name if has_folder else None, build_optimizer("sgd", 1e-12)
        assert fit(model, batches, validation, folder, epochs=2, optimizer=optimizer).best_epoch == 0
    assert int(model.mask_step) == 16


def test_state_of_another_model_is_refused(tmp_path, batches, validation):
    fit(tiny_net(), batches, validation, tmp_path, epochs=1)
    with pytest.raises(InputError, match="another model"):
        fit(tiny_net(norm=False), batches, validation, tmp_path, epochs=2)


def test_triangular_rate_at_its_corners():
    rate = Triangular(1e-4, 1e-2, half_cycle_steps=2000, shrink=0.5)
    values = [float(rate(step)) for step in (0, 2000, 4000, 6000)]
    assert values == pytest.approx([1e-4, 1e-2, 1e-4, 1e-4 + (1e-2 - 1e-4) / 2], rel=1e-4)
    assert Triangular.from_config(rate.get_config()).get_config() == rate.get_config()


def test_cosine_ends_at_the_low_rate():
    rate = build_learning_rate("cosine", 0.1, total_steps=10, low=0.01)
    assert [float(rate(step)) for step in (0, 10)] == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: build_optimizer("adm", 0.1), "did you mean 'adam'"),
        (lambda: build_optimizer("adam", 0.1, momentun=1), "momentun"),
        (lambda: build_optimizer("sgd", 0.1, use_ema=True), "give ema_overwrite_frequency"),
        (lambda: build_learning_rate("cosin", 0.1, total_steps=1), "did you mean 'cosine'"),
        (lambda: fit_stage(None, None, epochs=0, loss=None, optimizer=None), "at least 1"),
    ],
)
def test_wrong_settings_are_named(call, text):
    with pytest.raises(InputError, match=text):
        call()
