"""The composite regularizer of a model: its penalties, what happens to the gradients, the ramp of the strengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from tfprune.errors import InputError
from tfprune.keras import tf
from tfprune.pruning.graph import prunable_kernel, walk_layers
from tfprune.pruning.named import read_part, write_part
from tfprune.pruning.wrapper import MaskedLayer
from tfprune.regularization import REGULARIZERS

_NAMES = {path.split(":")[1]: name for name, path in REGULARIZERS.items()}


@dataclass(frozen=True)
class Ramp:
    """A schedule training step -> share of the strengths: 0 up to `begin_step`, 1 from `end_step` on.

    >>> [float(Ramp(2, 6)(step)) for step in (1, 3, 6, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """

    begin_step: int
    end_step: int

    def __post_init__(self) -> None:
        if not 0 <= self.begin_step < self.end_step:
            raise InputError(
                f"a ramp from step {self.begin_step} to step {self.end_step}: give 0 <= begin_step < end_step"
            )

    def __call__(self, step: Any) -> Any:
        """Return the share at a training step counted from 1, a float32 scalar."""
        done = (tf.cast(step, tf.float32) - self.begin_step) / (self.end_step - self.begin_step)
        return tf.clip_by_value(done, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Ramp:
        """Return the ramp of a config."""
        return cls(**config)


class StepGradients(NamedTuple):
    """What a training step needs.

    Attributes:
        variables: one gradient for each of `model.trainable_variables`; under a `tf.distribute` strategy
            this replica's share of it, which the optimizer sums.
        taps: the gradients of the evidence of a mask controller, of the task alone.
        h_share: H / size over the layers concerned, 0-1; masked weights count as zeros.
    """

    variables: list[Any]
    taps: list[Any]
    h_share: Any


@dataclass(frozen=True)
class Placed:
    """A penalty on one weight of one layer (a layer of a nested model is `MODEL/LAYER`)."""

    layer: str
    weight: str
    penalty: Any


@dataclass(frozen=True)
class Composite:
    """f = task + share(step) * (lambda sum R + beta sum H), as `model.composite` of a `MaskedModel`.

    It is in `fit`, and in the `losses` of the model; saved and loaded with it; and goes along when masks
    are put on the model, of which it sees what they leave.

    Args:
        penalties: what is placed where.
        layers: the layers whose kernels' gradients are looked at.
        reading: a reading of H (`tfprune.regularization.gradients`); None leaves the gradients alone.
        ramp: training step -> share of all strengths; None is 1.
    """

    penalties: tuple[Placed, ...]
    layers: tuple[str, ...]
    reading: Any = None
    ramp: Any = None

    def share(self, step: Any) -> Any:
        """Return the share of the strengths at a training step, a float32 scalar."""
        return tf.constant(1.0) if self.ramp is None else self.ramp(step)

    def measures(self, model: Any) -> dict[str, Any]:
        """Return the measures of the penalties without their strengths, by name, each summed over the layers."""
        sums: dict[str, Any] = {}
        for placed, weight in self._weights(model):
            kind = type(placed.penalty).__name__
            name = _NAMES.get(kind, kind)
            sums[name] = sums.get(name, 0.0) + placed.penalty.measure(weight)
        return sums

    def penalty(self, model: Any) -> Any:
        """Return the sum of all penalties at full strength, a float32 scalar."""
        return tf.add_n([tf.constant(0.0), *(placed.penalty(weight) for placed, weight in self._weights(model))])

    def _weights(self, model: Any) -> Iterator[tuple[Placed, Any]]:
        layers = dict(walk_layers(model))
        for placed in self.penalties:
            layer = layers[placed.layer]
            if isinstance(layer, MaskedLayer):  # through its mask, or the gradient would move what is masked
                yield placed, layer.gated(placed.weight)
            else:
                yield placed, getattr(layer, placed.weight)

    def gradients(
        self, model: Any, task: Callable[[], Any], *, step: Any, taps: Sequence[Any] = (), optimizer: Any = None
    ) -> StepGradients:
        """Return S(gradient of the task) + gradient of everything else, for one training step.

        Args:
            model: the one that holds this composite.
            task: computes the task's loss alone, a scalar.
            step: the training step, counted from 1.
            taps: `controller.taps` of a model with masks.
            optimizer: needed when it scales the loss (mixed precision).

        Raises:
            InputError: when the surrogate meets several replicas.
        """
        variables, share = model.trainable_variables, self.share(step)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(taps)
                loss = task()
            wanted = [*variables, *taps]
            if optimizer is None:
                found = inner.gradient(loss, wanted)
            else:
                found = [gradient for gradient, _ in optimizer.compute_gradients(loss, wanted, inner)]
            found, of_taps = self._sum_over_replicas(found[: len(variables)]), found[len(variables) :]
            sparse, of_h = self._read(model, variables, found, share)
            regularizers = model.losses[:-1]  # of the layers themselves; the last is the composite's
            penalty = share * self.penalty(model)
            if getattr(self.reading, "second_order", False):
                penalty += share * self.reading.strength * tf.add_n(of_h)
            penalty += tf.add_n([tf.constant(0.0), *regularizers])
        pulls = outer.gradient(penalty, variables)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        updates = [_add(sparse.get(index, found[index]), pull, replicas) for index, pull in enumerate(pulls)]
        size = sum(variables[index].shape.num_elements() for index in sparse)
        return StepGradients(updates, of_taps, tf.add_n([tf.constant(0.0), *of_h]) / max(size, 1))

    def _read(
        self, model: Any, variables: Sequence[Any], gradients: Sequence[Any], share: Any
    ) -> tuple[dict[int, Any], list[Any]]:
        """Return S by the index of its variable, and H of each."""
        if self.reading is None:
            return {}, []
        layers = dict(walk_layers(model))
        chosen = [layers[path] for path in self.layers]
        chosen = [layer.layer if isinstance(layer, MaskedLayer) else layer for layer in chosen]
        kernels = {id(getattr(layer, prunable_kernel(layer))) for layer in chosen}
        sparse = {
            index: self.reading(gradients[index], tf.convert_to_tensor(variable), share)
            for index, variable in enumerate(variables)
            if id(variable) in kernels and gradients[index] is not None
        }
        return sparse, [self.reading.measure(each) for each in sparse.values()]

    def _sum_over_replicas(self, gradients: list[Any]) -> list[Any]:
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return gradients
        if getattr(self.reading, "second_order", False):
            raise InputError("the surrogate of H needs its whole batch on one replica; take another reading of H")
        there = [index for index, gradient in enumerate(gradients) if gradient is not None]
        summed = replica.all_reduce(tf.distribute.ReduceOp.SUM, [gradients[index] for index in there])
        found = dict(zip(there, summed, strict=True))
        return [found.get(index) for index in range(len(gradients))]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments in plain values."""
        return {
            "penalties": [[each.layer, each.weight, write_part(each.penalty)] for each in self.penalties],
            "layers": list(self.layers),
            "reading": write_part(self.reading),
            "ramp": write_part(self.ramp),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Composite:
        """Return the composite of a config."""
        penalties = tuple(Placed(layer, weight, read_part(part)) for layer, weight, part in config["penalties"])
        return cls(penalties, tuple(config["layers"]), read_part(config["reading"]), read_part(config["ramp"]))


def _add(gradient: Any, pull: Any, replicas: int) -> Any:
    parts = [tf.convert_to_tensor(part) for part in (gradient, pull) if part is not None]
    return tf.add_n(parts) / replicas if parts else None
