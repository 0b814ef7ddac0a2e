"""Training a small net on what a large one answers, beside the truth."""

from __future__ import annotations

from typing import Any

from tfprune.channels.cost import tensor_shapes
from tfprune.channels.graph import nodes_of
from tfprune.channels.sampling import DYNAMIC_SIZE
from tfprune.errors import InputError
from tfprune.keras import keras, tf


class DistilledModel(keras.Model):
    """A functional model whose training step also follows a teacher; made by `distill`."""

    def train_step(self, data: Any) -> Any:
        """Train on one batch; the loss that is logged is the task's alone."""
        images, truth, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            *maps, logits = tf.nest.flatten(self._student(images, training=True))
            loss = self.compute_loss(images, truth, logits, sample_weight)
            *guides, answer = tf.nest.flatten(self._teacher(images, training=False))
            loss += self._strength * soft_cross_entropy(answer, logits, temperature=self._temperature)
            for ours, theirs in zip(maps, guides, strict=True):
                loss += self._features * attention_distance(theirs, ours)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self.compute_metrics(images, truth, logits, sample_weight)


def distill(
    model: Any, teacher: Any, *, strength: float = 1.0, temperature: float = 2.0, features: float = 0.0
) -> DistilledModel:
    """Return a model to compile and fit in place of `model`, whose layers it shares; both end in logits.

    The loss is task + strength * T^2 * KL(teacher || model) of the classes at temperature T, mean over
    pixels (Hinton et al. 2015, arXiv 1503.02531), + features * the sum, over one layer per size of map,
    of the distance between attention maps (Zagoruyko & Komodakis 2017, arXiv 1612.03928), which needs no
    equal numbers of channels.

    Args:
        model: the functional model that learns.
        teacher: a functional model for the same images and classes; it is not changed.
        strength: weight of what the teacher answers.
        temperature: T, above 0.
        features: weight of the attention maps.

    Raises:
        InputError: when the two do not answer alike, share no layer names to compare maps at, or the model is masked.
    """
    if getattr(model, "controller", None) is not None:
        raise InputError(
            f"model '{model.name}' is masked, and while it follows a teacher its masks would never move: take "
            "`controller.strip()`"
        )
    if model.input_shape != teacher.input_shape or model.output_shape != teacher.output_shape:
        raise InputError(
            f"the teacher takes {teacher.input_shape} and answers {teacher.output_shape}; the model takes "
            f"{model.input_shape} and answers {model.output_shape}. They must be alike"
        )
    if temperature <= 0 or strength < 0 or features < 0:
        raise InputError(
            f"distillation: strength {strength} and features {features} must be at least 0, temperature "
            f"{temperature} above 0"
        )
    names = shared_maps(model, teacher) if features else []
    if features and not names:
        raise InputError("distillation of features compares layers of equal names, and the two nets share none")

    def with_maps(net: Any) -> Any:
        maps = _maps_of(net)
        return keras.Model(net.inputs, [*(maps[name] for name in names), net.outputs[0]])

    distilled = DistilledModel(model.inputs, model.outputs, name=model.name)
    # Past Keras' tracking: neither the teacher's weights nor these numbers belong to what is trained.
    for name, value in (
        ("_student", with_maps(model)),
        ("_teacher", with_maps(teacher)),
        ("_strength", strength),
        ("_temperature", temperature),
        ("_features", features),
    ):
        object.__setattr__(distilled, name, value)
    return distilled


def soft_cross_entropy(answer: Any, logits: Any, *, temperature: float) -> Any:
    """Return T^2 * KL(teacher || student), mean over pixels; one output is a sigmoid.

    Args:
        answer: logits of the teacher, (N, H, W, K).
        logits: those of the student.
        temperature: T.
    """
    if logits.shape[-1] == 1:
        answer, logits = (tf.concat([tf.zeros_like(one), one], -1) for one in (answer, logits))
    target, guess = (tf.nn.log_softmax(tf.cast(one, tf.float32) / temperature) for one in (answer, logits))
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(target) * (target - guess), -1))


def attention_distance(theirs: Any, ours: Any) -> Any:
    """Return the mean over images of the distance between normalised sums of squares over channels."""

    def attention(maps: Any) -> Any:
        energy = tf.reduce_sum(tf.square(tf.cast(maps, tf.float32)), -1)
        return tf.math.l2_normalize(tf.reshape(energy, (tf.shape(energy)[0], -1)), axis=-1)

    return tf.reduce_mean(tf.reduce_sum(tf.square(attention(theirs) - attention(ours)), -1))


def shared_maps(model: Any, teacher: Any) -> list[str]:
    """Return the last layer, of those with a name in both, at each size of map (H, W); the logits left out."""
    shapes = tensor_shapes(model, input_size=(DYNAMIC_SIZE, DYNAMIC_SIZE))
    known = _maps_of(teacher)
    last = {shapes[id(maps)][1:3]: name for name, maps in _maps_of(model).items() if name in known}
    return list(last.values())


def _maps_of(net: Any) -> dict[str, Any]:
    """Return name of a layer with weights, or of a nested model -> the map (N, H, W, C) of its last call in a net."""
    return {
        node.layer.name: node.outputs
        for node in nodes_of(net)
        if node.layer.weights and len(getattr(node.outputs, "shape", ())) == 4 and node.outputs is not net.outputs[0]
    }
