"""Segmentation losses on logits, as Keras losses that save, load and compile.

Every loss takes the truth as class ids (N, H, W), with `IGNORE_ID` where a pixel is not judged, and
the model's output (N, H, W, K), and returns one value per image. K = 1 is one sigmoid output for
class 1 of two classes; K >= 2 is a softmax over all classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from numbers import Real
from pkgutil import resolve_name
from typing import Any

from tfprune.errors import InputError, look_up, unknown_name
from tfprune.keras import keras, tf
from tfprune.objectives import LOSSES
from tfprune.records import IGNORE_ID

_TINY = 1e-7  # the smallest probability a logarithm is taken of when outputs are not logits


class SegmentationLoss(keras.losses.Loss):
    """What all losses share: reading truth and outputs, class weights, and the configuration."""

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = True,
        reduction: str = "auto",
        name: str | None = None,
    ) -> None:
        """Take one weight per class (also for K = 1: two), and whether outputs are logits or probabilities."""
        super().__init__(reduction=reduction, name=name)
        self.class_weights = None if class_weights is None else _weights(class_weights)
        self.from_logits = _flag("from_logits", from_logits)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the same loss."""
        return {**super().get_config(), "class_weights": self.class_weights, "from_logits": self.from_logits}

    def _read(self, y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
        """Return labels int32 (N, H, W) with 0 where not judged, judged float32 (N, H, W), outputs float32."""
        truth, outputs = tf.convert_to_tensor(y_true), tf.cast(tf.convert_to_tensor(y_pred), tf.float32)
        if truth.shape.rank != 3 or outputs.shape.rank != 4:
            raise InputError(
                f"a segmentation loss takes class ids (N, H, W) and outputs (N, H, W, K), "
                f"not shapes {truth.shape} and {outputs.shape}"
            )
        classes = max(2, outputs.shape[-1])
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise InputError(
                f"class_weights has {len(self.class_weights)} numbers, but the model's {outputs.shape[-1]} "
                f"output(s) stand for {classes} classes; give one weight per class"
            )
        labels = tf.cast(truth, tf.int32)
        judged = tf.not_equal(labels, IGNORE_ID)
        return tf.where(judged, labels, 0), tf.cast(judged, tf.float32), outputs


@keras.utils.register_keras_serializable("tfprune")
class Tversky(SegmentationLoss):
    """1 - mean over classes of TI = (TP + s) / (TP + alpha FP + beta FN + s), with soft counts.

    For K = 1 the only class is class 1, unless `class_weights` asks for both. Without anything to
    count (`smooth` 0, class in neither) TI is 1. Source: Salehi et al. 2017, arXiv 1706.05721.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 0.5,
        smooth: float = 1.0,
        per_batch: bool = False,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = True,
        reduction: str = "auto",
        name: str | None = "tversky",
    ) -> None:
        """Take the weights of FP and FN, `smooth` in pixels, and whether counts are summed over the batch."""
        super().__init__(class_weights=class_weights, from_logits=from_logits, reduction=reduction, name=name)
        self.alpha = _number("alpha", alpha)
        self.beta = _number("beta", beta)
        self.smooth = _number("smooth", smooth)
        self.per_batch = _flag("per_batch", per_batch)
        self._flatten_classes = False

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the same loss."""
        own = {"alpha": self.alpha, "beta": self.beta, "smooth": self.smooth, "per_batch": self.per_batch}
        return {**super().get_config(), **own}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, float32 (N,)."""
        labels, judged, outputs = self._read(y_true, y_pred)
        target, probability = self._one_hot_pair(labels, outputs)
        target, probability = target * judged[..., None], probability * judged[..., None]
        if self._flatten_classes and outputs.shape[-1] > 1:
            target, probability = target[..., 1:], probability[..., 1:]
        axes = [0] * self.per_batch + [1, 2] + [3] * self._flatten_classes
        tp = tf.reduce_sum(target * probability, axes)
        fp = tf.reduce_sum(probability, axes) - tp
        fn = tf.reduce_sum(target, axes) - tp
        below = tp + self.alpha * fp + self.beta * fn + self.smooth
        index = tf.where(below > 0, (tp + self.smooth) / tf.where(below > 0, below, 1.0), 1.0)
        if not self._flatten_classes:
            weights = tf.ones(tf.shape(index)[-1]) if self.class_weights is None else tf.constant(self.class_weights)
            index = tf.reduce_sum(index * weights, -1) / tf.reduce_sum(weights)
        return tf.broadcast_to(1.0 - index, tf.shape(labels)[:1])

    def _one_hot_pair(self, labels: Any, outputs: Any) -> tuple[Any, Any]:
        classes = outputs.shape[-1]
        if classes > 1:
            return tf.one_hot(labels, classes), tf.nn.softmax(outputs) if self.from_logits else outputs
        target = tf.cast(labels == 1, tf.float32)[..., None]
        probability = tf.nn.sigmoid(outputs) if self.from_logits else outputs
        if self.class_weights is None:
            return target, probability
        return tf.concat([1 - target, target], -1), tf.concat([1 - probability, probability], -1)


@keras.utils.register_keras_serializable("tfprune")
class Dice(Tversky):
    """1 - mean over classes of (2 TP + s) / (2 TP + FP + FN + s): Tversky at .5, .5 and s / 2.

    `flatten_classes` sums the counts over classes 1, 2, ... first, as the Severstal systems do, whose outputs
    have no background: with it, the sum would be little else.
    """

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        per_batch: bool = False,
        flatten_classes: bool = False,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = True,
        reduction: str = "auto",
        name: str | None = "dice",
    ) -> None:
        """Take `smooth` in pixels, and what the counts are summed over."""
        super().__init__(
            smooth=_number("smooth", smooth) / 2,
            per_batch=per_batch,
            class_weights=class_weights,
            from_logits=from_logits,
            reduction=reduction,
            name=name,
        )
        self._flatten_classes = _flag("flatten_classes", flatten_classes)
        if flatten_classes and class_weights is not None:
            raise InputError("dice: flatten_classes sums the classes up, so class_weights cannot apply; drop one")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the same loss."""
        config = super().get_config()
        del config["alpha"], config["beta"]
        return {**config, "smooth": 2 * self.smooth, "flatten_classes": self._flatten_classes}


@keras.utils.register_keras_serializable("tfprune")
class SoftIoU(Tversky):
    """1 - mean over classes of (I + s) / (U + s): Tversky at alpha = beta = 1.

    `per_batch` flattens the whole batch, as CorroSeg does; the loss then depends on the batch size.
    """

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        per_batch: bool = False,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = True,
        reduction: str = "auto",
        name: str | None = "soft_iou",
    ) -> None:
        """Take `smooth` in pixels, and what the counts are summed over."""
        super().__init__(
            alpha=1.0,
            beta=1.0,
            smooth=smooth,
            per_batch=per_batch,
            class_weights=class_weights,
            from_logits=from_logits,
            reduction=reduction,
            name=name,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the same loss."""
        config = super().get_config()
        del config["alpha"], config["beta"]
        return config


@keras.utils.register_keras_serializable("tfprune")
class CrossEntropy(SegmentationLoss):
    """Mean over the judged pixels of -w log p of the true class; binary for K = 1."""

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = True,
        reduction: str = "auto",
        name: str | None = "cross_entropy",
    ) -> None:
        """Take a factor per class."""
        super().__init__(class_weights=class_weights, from_logits=from_logits, reduction=reduction, name=name)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, float32 (N,)."""
        labels, judged, outputs = self._read(y_true, y_pred)
        pixels = self._pixel_loss(labels, self._log_probability(labels, outputs))
        if self.class_weights is not None:
            pixels *= tf.gather(tf.constant(self.class_weights), labels)
        return tf.reduce_sum(pixels * judged, [1, 2]) / tf.maximum(tf.reduce_sum(judged, [1, 2]), 1.0)

    def _pixel_loss(self, labels: Any, log_probability: Any) -> Any:
        return -log_probability

    def _log_probability(self, labels: Any, outputs: Any) -> Any:
        """Return log p of the true class, float32 (N, H, W)."""
        classes = outputs.shape[-1]
        if classes == 1:
            outputs = outputs[..., 0]
            if self.from_logits:
                return tf.math.log_sigmoid(tf.where(labels == 1, outputs, -outputs))
            chosen = tf.where(labels == 1, outputs, 1 - outputs)
        elif self.from_logits:
            return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)
        else:
            chosen = tf.reduce_sum(tf.one_hot(labels, classes) * outputs, -1)
        return tf.math.log(tf.clip_by_value(chosen, _TINY, 1.0))


@keras.utils.register_keras_serializable("tfprune")
class Focal(CrossEntropy):
    """Cross-entropy with the factor a (1 - p)^gamma: a is alpha for classes 1.., 1 - alpha for class 0.

    `alpha` None leaves a out. Source: Lin et al. 2017, arXiv 1708.02002, equation (5).
    """

    def __init__(
        self,
        *,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = True,
        reduction: str = "auto",
        name: str | None = "focal",
    ) -> None:
        """Take `alpha` in [0, 1] or None, and gamma >= 0."""
        super().__init__(class_weights=class_weights, from_logits=from_logits, reduction=reduction, name=name)
        self.alpha = None if alpha is None else _number("alpha", alpha, high=1.0)
        self.gamma = _number("gamma", gamma)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the same loss."""
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma}

    def _pixel_loss(self, labels: Any, log_probability: Any) -> Any:
        # kept off 0: for gamma < 1 the slope of the power is infinite there
        missing = tf.maximum(-tf.math.expm1(log_probability), _TINY)
        loss = -log_probability * tf.pow(missing, self.gamma)
        return loss if self.alpha is None else loss * tf.where(labels == 0, 1 - self.alpha, self.alpha)


@keras.utils.register_keras_serializable("tfprune")
class WeightedSum(keras.losses.Loss):
    """The sum of losses times their weights."""

    def __init__(
        self,
        losses: Sequence[Any],
        weights: Sequence[float],
        *,
        reduction: str = "auto",
        name: str | None = "weighted_sum",
    ) -> None:
        """Take Keras losses that return one value per image, and one weight for each."""
        super().__init__(reduction=reduction, name=name)
        self.losses = [keras.losses.deserialize(loss) if isinstance(loss, dict) else loss for loss in losses]
        self.weights = [_number("weight", weight) for weight in weights]
        if not self.losses or len(self.losses) != len(self.weights):
            raise InputError(f"a weighted sum needs one weight per loss, not {len(weights)} for {len(losses)}")

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to build the same loss."""
        losses = [keras.losses.serialize(loss) for loss in self.losses]
        return {**super().get_config(), "losses": losses, "weights": self.weights}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, float32 (N,)."""
        parts = zip(self.losses, self.weights, strict=True)
        return tf.add_n([weight * loss.call(y_true, y_pred) for loss, weight in parts])


def bce_dice(
    *,
    bce_weight: float = 1.0,
    dice_weight: float = 1.0,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
    from_logits: bool = True,
) -> WeightedSum:
    """Return cross-entropy (binary for K = 1) plus Dice flattened over classes 1, 2, ...

    `class_weights` apply to the cross-entropy.
    """
    entropy = CrossEntropy(class_weights=class_weights, from_logits=from_logits)
    dice = Dice(smooth=smooth, flatten_classes=True, from_logits=from_logits)
    return WeightedSum([entropy, dice], [bce_weight, dice_weight], name="bce_dice")


def build_loss(
    spec: Any, *, class_weights: Sequence[float] | None = None, from_logits: bool = True, where: str = "loss"
) -> Any:
    """Return the Keras loss that a specification of plain values asks for.

    Args:
        spec: a name (`"tversky"`), a name with parameters (`{"tversky": {"alpha": 0.3}}`), or a list of
            such mappings, each with an optional `"weight"` (1 by default), for their weighted sum.
        class_weights: one number per class, for every loss in `spec` that names none of its own.
        from_logits: False when the model ends in a sigmoid or softmax.
        where: what messages call the place of the specification.

    Raises:
        InputError: for an unknown loss or parameter, or a value out of its range.
    """
    if isinstance(spec, str):
        spec = {spec: {}}
    if isinstance(spec, Mapping):
        return _build_one(spec, class_weights=class_weights, from_logits=from_logits, where=where)
    if not isinstance(spec, Sequence) or not spec:
        raise InputError(
            f"{where}: {spec!r} is not a loss. Accepted: a name, a mapping like {{tversky: {{alpha: 0.3}}}}, "
            f"or a list of such mappings with weights. Names: {', '.join(LOSSES)}"
        )
    losses, weights = [], []
    for index, item in enumerate(spec):
        place = f"{where}[{index}]"
        item = {item: {}} if isinstance(item, str) else item
        if not isinstance(item, Mapping):
            raise InputError(f"{place}: {item!r} is not a loss; write for example {{dice: {{}}, weight: 0.5}}")
        weights.append(_number(f"{place}.weight", item.get("weight", 1.0)))
        one = {name: parameters for name, parameters in item.items() if name != "weight"}
        losses.append(_build_one(one, class_weights=class_weights, from_logits=from_logits, where=place))
    return WeightedSum(losses, weights)


def _build_one(spec: Mapping[str, Any], *, class_weights: Sequence[float] | None, from_logits: bool, where: str) -> Any:
    if len(spec) != 1:
        raise InputError(
            f"{where}: expected one loss, got {len(spec)} ({', '.join(map(str, spec)) or 'nothing'}); "
            "for a weighted sum give a list of mappings"
        )
    ((name, parameters),) = spec.items()
    build = resolve_name(look_up("loss", name, LOSSES, where))
    parameters = {} if parameters is None else parameters
    if not isinstance(parameters, Mapping):
        raise InputError(f"{where}.{name}: the parameters must be a mapping, not {parameters!r}")
    accepted = [key for key in inspect.signature(build).parameters if key not in ("from_logits", "reduction", "name")]
    for key in parameters:
        if key not in accepted:
            raise unknown_name("parameter", key, accepted, f"{where}.{name}")
    try:
        return build(**{"class_weights": class_weights, **parameters}, from_logits=from_logits)
    except InputError as error:
        raise InputError(f"{where}.{name}: {error}") from None


def _number(name: str, value: Any, *, high: float = float("inf")) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= high or value == float("inf"):
        bound = f"in [0, {high:g}]" if high < float("inf") else ">= 0"
        raise InputError(f"{name} must be a number {bound}, not {value!r}")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {value!r}")
    return value


def _weights(values: Any) -> list[float]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"class_weights must be a list with one number per class, not {values!r}")
    weights = [_number("a class weight", value) for value in values]
    if not sum(weights):
        raise InputError("class_weights are all 0, so nothing would be learned")
    return weights
