"""Losses and the metric against numpy, scikit-learn and numbers done by hand; and as Keras objects."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, log_loss

from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.objectives import LOSSES
from tfprune.objectives.losses import CrossEntropy, Dice, Focal, SoftIoU, Tversky, WeightedSum, bce_dice, build_loss
from tfprune.objectives.metrics import MeanIoU

NAMES = list(LOSSES)


def draw(outputs: int, *, seed: int = 0, ignored: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return truth uint8 (3, 6, 5) and logits float32 (3, 6, 5, outputs)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, max(outputs, 2), (3, 6, 5)).astype(np.uint8)
    truth[rng.random(truth.shape) < ignored] = 255
    return truth, rng.normal(0, 2, (3, 6, 5, outputs)).astype(np.float32)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return (N, H, W, classes) in float64, two classes for one output."""
    logits = logits.astype(np.float64)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], -1)
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def numpy_tversky(truth, logits, *, alpha, beta, smooth, per_batch=False, weights=None):
    p, axes = probabilities(logits), (0, 1, 2) if per_batch else (1, 2)
    judged = (truth != 255)[..., None]
    target = (truth[..., None] == np.arange(p.shape[-1])) & judged
    p = p * judged
    tp, fp, fn = (target * p).sum(axes), ((1 - target) * p).sum(axes), (target * judged * (1 - p)).sum(axes)
    index = (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)
    if weights is None:
        weights = [0, 1] if logits.shape[-1] == 1 else np.ones(p.shape[-1])
    return np.broadcast_to(1 - np.average(index, axis=-1, weights=weights), len(truth))


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("per_batch", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_tversky_equals_numpy(outputs, per_batch, weighted):
    truth, logits = draw(outputs, ignored=0.2)
    weights = [0.5, 2.0, 1.0, 0.25][: max(outputs, 2)] if weighted else None
    loss = Tversky(alpha=0.3, beta=0.7, smooth=2.0, per_batch=per_batch, class_weights=weights)
    expected = numpy_tversky(truth, logits, alpha=0.3, beta=0.7, smooth=2.0, per_batch=per_batch, weights=weights)
    np.testing.assert_allclose(loss.call(truth, logits), expected, rtol=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_dice_and_soft_iou_are_tversky_indexes(outputs):
    truth, logits = draw(outputs)
    dice = numpy_tversky(truth, logits, alpha=0.5, beta=0.5, smooth=0.5)
    np.testing.assert_allclose(Dice(smooth=1.0).call(truth, logits), dice, rtol=1e-5)
    iou = numpy_tversky(truth, logits, alpha=1, beta=1, smooth=1)
    np.testing.assert_allclose(SoftIoU(smooth=1.0).call(truth, logits), iou, rtol=1e-5)


def test_region_losses_by_hand():
    truth = np.array([[[1, 1, 0, 0]]], np.uint8)
    p = np.array([0.8, 0.6, 0.4, 0.0], np.float32).reshape(1, 1, 4, 1)
    # TP 1.4, FP .4, FN .6
    assert Dice(smooth=0.0, from_logits=False).call(truth, p).numpy() == pytest.approx([1 - 2.8 / 3.8])
    assert SoftIoU(smooth=1.0, from_logits=False).call(truth, p).numpy() == pytest.approx([1 - 2.4 / 3.4])
    tversky = Tversky(alpha=0.25, beta=0.75, smooth=0.0, from_logits=False)
    assert tversky.call(truth, p).numpy() == pytest.approx([1 - 1.4 / (1.4 + 0.1 + 0.45)])


def test_flattened_dice_by_hand():
    truth = np.array([[[0, 1, 2, 2]]], np.uint8)
    p = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]].reshape(1, 1, 4, 3)
    # of classes 1 and 2: TP 2, FP 1, FN 1; the background is not counted
    loss = Dice(smooth=1.0, flatten_classes=True, from_logits=False)
    assert loss.call(truth, p).numpy() == pytest.approx([1 - 5 / 7])


def test_counting_over_the_batch_differs_from_per_image():
    truth, logits = draw(2)
    per_image, per_batch = SoftIoU().call(truth, logits), SoftIoU(per_batch=True).call(truth, logits)
    assert np.ptp(per_batch) == 0
    assert not np.allclose(np.mean(per_image), np.mean(per_batch), rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_cross_entropy_equals_scikit_learn(outputs):
    truth, logits = draw(outputs, ignored=0.2)
    p = probabilities(logits)
    expected = [log_loss(t[t != 255], q[t != 255], labels=range(p.shape[-1])) for t, q in zip(truth, p, strict=True)]
    np.testing.assert_allclose(CrossEntropy().call(truth, logits), expected, rtol=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_class_weights_multiply_the_pixels_of_their_class(outputs):
    truth, logits = draw(outputs, ignored=0.1)
    weights = np.array([0.2, 3.0, 1.0])[: max(outputs, 2)]
    judged = truth != 255
    p_true = np.take_along_axis(probabilities(logits), np.where(judged, truth, 0)[..., None].astype(int), -1)[..., 0]
    expected = (-np.log(p_true) * weights[np.where(judged, truth, 0)] * judged).sum((1, 2)) / judged.sum((1, 2))
    np.testing.assert_allclose(CrossEntropy(class_weights=list(weights)).call(truth, logits), expected, rtol=1e-5)


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_focal_equals_numpy(outputs):
    truth, logits = draw(outputs)
    p_true = np.take_along_axis(probabilities(logits), truth[..., None].astype(int), -1)[..., 0]
    factor = np.where(truth == 0, 0.7, 0.3) * (1 - p_true) ** 1.5
    expected = (-factor * np.log(p_true)).mean((1, 2))
    np.testing.assert_allclose(Focal(alpha=0.3, gamma=1.5).call(truth, logits), expected, rtol=1e-4)


def test_focal_without_its_factors_is_cross_entropy():
    truth, logits = draw(3)
    np.testing.assert_allclose(
        Focal(alpha=None, gamma=0.0).call(truth, logits), CrossEntropy().call(truth, logits), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["focal", "cross_entropy", "bce_dice"])
def test_one_sigmoid_output_is_a_two_class_softmax(name):
    truth, logits = draw(1)
    pair = np.concatenate([np.zeros_like(logits), logits], -1)
    np.testing.assert_allclose(build_loss(name).call(truth, logits), build_loss(name).call(truth, pair), rtol=1e-5)


def test_bce_dice_is_the_sum_of_both():
    truth, logits = draw(1)
    expected = CrossEntropy().call(truth, logits) + 0.5 * Dice(flatten_classes=True).call(truth, logits)
    np.testing.assert_allclose(bce_dice(dice_weight=0.5).call(truth, logits), expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
class TestEveryLoss:
    """What holds for each loss of the table."""

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_it_gives_one_value_per_image(self, name, outputs):
        values = build_loss(name).call(*draw(outputs))
        assert values.shape == (3,)
        assert values.dtype == tf.float32

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_ignored_pixels_change_nothing(self, name, outputs):
        truth, logits = draw(outputs, ignored=0.3)
        other = np.where((truth == 255)[..., None], np.float32(50), logits)
        np.testing.assert_array_equal(build_loss(name).call(truth, logits), build_loss(name).call(truth, other))

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_an_image_without_judged_pixels_costs_nothing(self, name, outputs):
        truth, logits = draw(outputs)
        truth[1] = 255
        assert build_loss(name).call(truth, logits).numpy()[1] == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_probabilities_and_logits_agree(self, name, outputs):
        truth, logits = draw(outputs)
        p = probabilities(logits).astype(np.float32)[..., -outputs:]
        loss = build_loss(name, from_logits=False)
        np.testing.assert_allclose(loss.call(truth, p), build_loss(name).call(truth, logits), rtol=1e-3, atol=1e-6)

    @pytest.mark.parametrize("outputs", [1, 3])
    @pytest.mark.parametrize("size", [0.0, 80.0, 1e4])
    def test_extreme_logits_give_finite_values_and_gradients(self, name, outputs, size):
        truth, logits = draw(outputs)
        logits = tf.constant(np.sign(logits) * np.float32(size))
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = build_loss(name)(truth, logits)
        assert np.isfinite(value)
        assert np.isfinite(tape.gradient(value, logits)).all()

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_the_truth_costs_less_than_its_opposite(self, name, outputs):
        truth, _ = draw(outputs)
        right = 8 * (truth[..., None] == np.arange(max(outputs, 2))).astype(np.float32) - 4
        right = right[..., -outputs:]
        good, bad = build_loss(name)(truth, right), build_loss(name)(truth, -right)
        assert good < 0.1 < bad

    def test_its_configuration_comes_back(self, name):
        loss = build_loss(name, class_weights=[1.0, 2.0, 3.0])
        back = keras.losses.deserialize(keras.losses.serialize(loss))
        assert type(back) is type(loss)
        assert back.get_config() == loss.get_config()
        np.testing.assert_array_equal(back.call(*draw(3)), loss.call(*draw(3)))

    def test_a_model_compiles_and_learns_with_it(self, name):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        images = rng.random((8, 8, 8, 1), np.float32)
        truth = (images[..., 0] > 0.5).astype(np.uint8)
        truth[:, 0] = 255
        model = keras.Sequential([keras.layers.Conv2D(2, 1, input_shape=(8, 8, 1))])
        model.compile(keras.optimizers.Adam(0.1), build_loss(name), metrics=[MeanIoU(2)])
        history = model.fit(images, truth, batch_size=4, epochs=8, verbose=0).history
        assert history["loss"][-1] < history["loss"][0]
        assert 0 <= history["mean_iou"][-1] <= 1


@pytest.mark.parametrize(
    "loss",
    [
        Tversky(alpha=0.2, beta=0.9, smooth=3.0, per_batch=True, class_weights=[1, 2]),
        Dice(smooth=0.5, flatten_classes=True),
        SoftIoU(per_batch=True, smooth=2.0, from_logits=False),
        Focal(alpha=None, gamma=1.0),
        WeightedSum([Dice(), WeightedSum([Focal(gamma=3.0)], [0.5])], [1.0, 2.0]),
    ],
    ids=lambda loss: loss.name,
)
def test_options_survive_the_configuration(loss):
    back = type(loss).from_config(loss.get_config())
    assert back.get_config() == loss.get_config()
    truth, logits = draw(2)
    p = logits if getattr(loss, "from_logits", True) else probabilities(logits).astype(np.float32)
    np.testing.assert_array_equal(back.call(truth, p), loss.call(truth, p))


def test_a_saved_model_keeps_its_loss_and_metric(tmp_path):
    model = keras.Sequential([keras.layers.Conv2D(2, 1, input_shape=(6, 5, 2))])
    loss = build_loss([{"dice": {"smooth": 2.0}}, {"focal": {"gamma": 1.0}, "weight": 0.5}])
    model.compile("sgd", loss, metrics=[MeanIoU(2)])
    truth, logits = draw(2)
    before = model.evaluate(logits, truth, verbose=0)
    model.save(tmp_path / "model.keras")
    after = keras.models.load_model(tmp_path / "model.keras").evaluate(logits, truth, verbose=0)
    assert after == pytest.approx(before)


def test_sums_are_weighted():
    truth, logits = draw(3)
    loss = build_loss([{"tversky": {"alpha": 0.3}}, {"cross_entropy": {}, "weight": 0.25}, "dice"])
    expected = (
        Tversky(alpha=0.3).call(truth, logits) + 0.25 * CrossEntropy().call(truth, logits) + Dice().call(truth, logits)
    )
    np.testing.assert_allclose(loss.call(truth, logits), expected, rtol=1e-6)


def test_class_weights_reach_every_part_but_those_with_their_own():
    loss = build_loss([{"dice": {}}, {"focal": {"class_weights": [3, 4]}}], class_weights=[1, 2])
    assert [part.class_weights for part in loss.losses] == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("twersky", r"loss: unknown loss 'twersky'; did you mean 'tversky'\? Accepted: tversky, dice"),
        (
            {"tversky": {"alhpa": 1}},
            r"loss\.tversky: unknown parameter 'alhpa'; did you mean 'alpha'\? Accepted: alpha",
        ),
        ({"tversky": {"alpha": -1}}, r"loss\.tversky: alpha must be a number >= 0, not -1"),
        ({"focal": {"alpha": 15}}, r"loss\.focal: alpha must be a number in \[0, 1\], not 15"),
        ({"focal": {"gamma": "2"}}, r"gamma must be a number >= 0, not '2'"),
        ({"soft_iou": {"per_batch": 1}}, r"per_batch must be true or false, not 1"),
        ({"dice": 3}, r"loss\.dice: the parameters must be a mapping, not 3"),
        ({"dice": {}, "focal": {}}, r"expected one loss, got 2 \(dice, focal\)"),
        ([], r"\[\] is not a loss"),
        (3, r"3 is not a loss"),
        ([3], r"loss\[0\]: 3 is not a loss"),
        ([{"dice": {}, "weight": -1}], r"loss\[0\]\.weight must be a number >= 0, not -1"),
        ([{"dice": {}}, {"vocal": {}}], r"loss\[1\]: unknown loss 'vocal'; did you mean 'focal'"),
        ({"dice": {"class_weights": [0, 0]}}, r"class_weights are all 0"),
        ({"dice": {"class_weights": 2}}, r"class_weights must be a list"),
        ({"dice": {"class_weights": [1, 2], "flatten_classes": True}}, r"drop one"),
        ({"dice": {"from_logits": False}}, r"unknown parameter 'from_logits'"),
    ],
)
def test_wrong_specifications_are_answered(spec, text):
    with pytest.raises(InputError, match=text):
        build_loss(spec)


def test_class_weights_of_another_length_are_answered():
    with pytest.raises(InputError, match=r"class_weights has 3 numbers.*stand for 2 classes"):
        Dice(class_weights=[1, 2, 3]).call(*draw(1))


def test_truth_of_another_shape_is_answered():
    truth, logits = draw(2)
    with pytest.raises(InputError, match=r"class ids \(N, H, W\)"):
        Dice().call(truth[..., None], logits)


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_mean_iou_streams_to_scikit_learns_value(outputs):
    metric = MeanIoU(max(outputs, 2))
    batches = [draw(outputs, seed=seed, ignored=0.2) for seed in range(3)]
    for truth, logits in batches:
        metric.update_state(truth, logits)
    truth = np.concatenate([t.ravel() for t, _ in batches])
    answer = np.concatenate([probabilities(logits).argmax(-1).ravel() for _, logits in batches])
    expected = jaccard_score(truth[truth != 255], answer[truth != 255], average="macro")
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_mean_iou_leaves_absent_classes_out():
    metric = MeanIoU(5)
    metric.update_state(np.array([[[0, 0, 1, 255]]]), np.eye(5)[[[[0, 1, 1, 4]]]])
    assert float(metric.result()) == pytest.approx(0.5)


def test_mean_iou_weighs_samples():
    truth, logits = draw(2)
    weighted, alone = MeanIoU(2), MeanIoU(2)
    weighted.update_state(truth, logits, sample_weight=[0.0, 2.0, 0.0])
    alone.update_state(truth[1:2], logits[1:2])
    assert float(weighted.result()) == pytest.approx(float(alone.result()))


def test_mean_iou_of_probabilities():
    truth, logits = draw(1)
    p = probabilities(logits)[..., 1:].astype(np.float32)
    one, other = MeanIoU(2), MeanIoU(2, from_logits=False)
    one.update_state(truth, logits)
    other.update_state(truth, p)
    assert float(one.result()) == float(other.result())


def test_mean_iou_configuration_comes_back():
    metric = MeanIoU(3, from_logits=False, name="score")
    assert MeanIoU.from_config(metric.get_config()).get_config() == metric.get_config()


@pytest.mark.parametrize("classes", [1, 2.0, True])
def test_mean_iou_refuses_what_is_no_number_of_classes(classes):
    with pytest.raises(InputError, match="classes must be a whole number of at least 2"):
        MeanIoU(classes)
