"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfprune.errors import InputError, look_up
from tfprune.keras import keras, tf

_OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
}


@keras.utils.register_keras_serializable("tfprune")
class Triangular(keras.optimizers.schedules.LearningRateSchedule):
    """Cyclic learning rate: up from `low` to `high` in `half_cycle_steps`, and down again.

    With `shrink` .5 every cycle's peak is half as far above `low` as the one before
    (`triangular2`). Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.

    >>> rate = Triangular(0.0, 1.0, half_cycle_steps=2)
    >>> [round(float(rate(step)), 2) for step in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(self, low: float, high: float, half_cycle_steps: int, shrink: float = 1.0) -> None:
        super().__init__()
        self.low, self.high, self.half_cycle_steps, self.shrink = low, high, half_cycle_steps, shrink

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at `step` (a scalar float32 tensor)."""
        position = tf.cast(step, tf.float32) / float(self.half_cycle_steps)
        cycle = tf.floor(position / 2.0)
        height = 1.0 - tf.abs(position - 2.0 * cycle - 1.0)
        return self.low + (self.high - self.low) * height * tf.pow(float(self.shrink), cycle)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "low": self.low,
            "high": self.high,
            "half_cycle_steps": self.half_cycle_steps,
            "shrink": self.shrink,
        }


def build_learning_rate(
    schedule: str, rate: float, *, total_steps: int, low: float | None = None, half_cycle_steps: int | None = None
) -> Any:
    """Return a learning rate for a Keras optimizer: a number, or a schedule over training steps.

    Args:
        schedule: a name from `tfprune.training.LEARNING_RATE_SCHEDULES`; `on_plateau` starts as a
            constant, and `fit_stage` lowers it.
        rate: the highest learning rate.
        total_steps: training steps of the stage; `cosine` ends there.
        low: where `cosine` ends (default 0) and the triangular cycles begin (default rate / 100).
        half_cycle_steps: steps from `low` to `rate` (default: a quarter of the stage, two cycles).

    Raises:
        InputError: for an unknown schedule.
    """
    half_cycle = half_cycle_steps or max(1, total_steps // 4)
    foot = rate / 100 if low is None else low
    builders: dict[str, Callable[[], Any]] = {
        "constant": lambda: rate,
        "on_plateau": lambda: rate,
        "cosine": lambda: keras.optimizers.schedules.CosineDecay(rate, max(1, total_steps), alpha=(low or 0.0) / rate),
        "triangular": lambda: Triangular(foot, rate, half_cycle),
        "triangular2": lambda: Triangular(foot, rate, half_cycle, shrink=0.5),
    }
    return look_up("learning-rate schedule", schedule, builders)()


def build_optimizer(name: str, learning_rate: Any, **options: Any) -> Any:
    """Return a fresh Keras optimizer; `options` are its own (`momentum`, `weight_decay`, `clipnorm`, ...).

    Raises:
        InputError: for an unknown name, an option that the optimizer does not have, or averages that nobody would see.
    """
    kind = look_up("optimizer", name, _OPTIMIZERS)
    if options.get("use_ema") and not options.get("ema_overwrite_frequency"):
        raise InputError(
            f"optimizer '{name}': use_ema averages weights that the best epoch then replaces; leave it out, or give "
            "ema_overwrite_frequency, the steps after which training goes on from the averages"
        )
    try:
        return kind(learning_rate=learning_rate, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer '{name}' does not take {options}: {error}") from error
