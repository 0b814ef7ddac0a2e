"""Distillation: the numbers by hand, whose weights move, and that a small net comes nearer to its teacher."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.channels import remove_channels
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.objectives.losses import build_loss
from tfprune.training.distillation import attention_distance, distill, shared_maps, soft_cross_entropy


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_divergence_by_hand():
    rng = np.random.default_rng(0)
    answer, logits = rng.standard_normal((2, 2, 3, 3, 4)).astype(np.float32)
    p, q = softmax(answer / 3), softmax(logits / 3)
    expected = 9 * (p * np.log(p / q)).sum(-1).mean()
    assert float(soft_cross_entropy(tf.constant(answer), tf.constant(logits), temperature=3.0)) == pytest.approx(
        expected, rel=1e-5
    )
    assert float(soft_cross_entropy(tf.constant(answer), tf.constant(answer), temperature=3.0)) == pytest.approx(0)


def test_one_output_is_a_sigmoid():
    answer, logits = tf.constant([[[[2.0]]]]), tf.constant([[[[-1.0]]]])
    p, q = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(1.0))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert float(soft_cross_entropy(answer, logits, temperature=1.0)) == pytest.approx(expected, rel=1e-5)


def test_attention_does_not_mind_scale_or_number_of_channels():
    maps = np.random.default_rng(0).random((2, 4, 4, 3)).astype(np.float32)
    twice = np.concatenate([maps, maps], -1) * 5
    assert float(attention_distance(tf.constant(maps), tf.constant(twice))) == pytest.approx(0, abs=1e-6)
    assert float(attention_distance(tf.constant(maps), tf.constant(maps[:, ::-1]))) > 0.01


@pytest.mark.parametrize("features", [0.0, 1.0])
def test_a_small_net_follows_its_teacher_and_only_it_moves(discs, features):
    images, masks = discs
    teacher = tiny_net(seed=0)
    teacher.get_layer("logits").set_weights([3 * weight for weight in teacher.get_layer("logits").get_weights()])
    before = [weight.copy() for weight in teacher.get_weights()]
    student = remove_channels(teacher, 0.5, criterion="random").model
    data = tf.data.Dataset.from_tensor_slices((images.astype(np.float32), masks)).batch(8)
    far = {}
    for strength in (0.0, 100.0):
        pupil = keras.models.clone_model(student)
        pupil.set_weights(student.get_weights())
        model = distill(pupil, teacher, strength=strength, features=features)
        assert [id(weight) for weight in model.weights] == [id(weight) for weight in pupil.weights]
        model.compile(keras.optimizers.Adam(0.01), build_loss("cross_entropy"))
        assert set(model.fit(data, epochs=4, verbose=0).history) == {"loss"}
        answers = pupil(images.astype(np.float32), training=True) - teacher(images.astype(np.float32))
        far[strength] = float(np.abs(answers).mean())
    assert far[100.0] < 0.5 * far[0.0]
    for weight, old in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_maps_are_compared_once_per_size():
    assert shared_maps(tiny_net(), tiny_net()) == ["last_norm", "middle_norm"]


def any_size(nested):
    layers = keras.layers
    image = keras.Input((None, None, 4))
    inside = layers.Conv2D(4, 3, padding="same", name="first")
    x = keras.Model(image, inside(image), name="backbone")(image) if nested else inside(inside(image))
    x = layers.UpSampling2D()(layers.Conv2D(4, 3, name="second", padding="same")(layers.MaxPooling2D()(x)))
    return keras.Model(image, layers.Conv2D(2, 1, name="logits")(x))


@pytest.mark.parametrize(("nested", "name"), [(True, "backbone"), (False, "first")])
def test_maps_of_nested_models_of_layers_called_twice_and_of_any_size(nested, name):
    nets = any_size(nested), any_size(nested)
    assert shared_maps(*nets) == [name, "second"]
    images = tf.random.stateless_normal((2, 8, 8, 4), (0, 1))
    model = distill(*nets, features=1.0)
    model.compile(keras.optimizers.SGD(0.1), build_loss("cross_entropy"))
    before = nets[0].get_layer(name).get_weights()[0]
    model.train_on_batch(images, tf.zeros((2, 8, 8), tf.uint8))
    assert not np.array_equal(nets[0].get_layer(name).get_weights()[0], before)


def test_what_cannot_be_distilled():
    with pytest.raises(InputError, match=r"answers \(None, 32, 32, 3\).*must be alike"):
        distill(tiny_net(outputs=2), tiny_net(outputs=3))
    with pytest.raises(InputError, match="temperature 0 above 0"):
        distill(tiny_net(), tiny_net(), temperature=0)
