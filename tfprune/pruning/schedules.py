"""Schedules: training step -> sparsity, as tfmot's `PruningSchedule`, exact at their end.

tfmot misses its last prune silently when its frequency does not divide the ramp; here the ramp
is laid backwards from its end, so that the last prune always meets the final sparsity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfprune.errors import InputError, look_up
from tfprune.keras import tf
from tfprune.pruning import SCHEDULES

from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule as tfmot

_WARM_UP, _COOL_DOWN = 0.4, 0.2


class IterativeRounds(tfmot.PruningSchedule):
    """Rounds of pruning that compound: 1 - (1 - rate)^i after round i, or i * rate of the first weights.

    Khan et al. (arXiv 2210.07451) use rate .1 or .5 and 3 rounds of 5 epochs. Round i ends with a
    prune at `begin_step + i * frequency`.

    >>> rounds = IterativeRounds(0.5, rounds=3, begin_step=0, frequency=10)
    >>> [round(float(rounds(step)[1]), 4) for step in (10, 20, 30)]
    [0.5, 0.75, 0.875]
    """

    def __init__(self, rate: float, *, rounds: int, begin_step: int, frequency: int, compounding: bool = True) -> None:
        reached = 1 - (1 - rate) ** rounds if compounding else rate * rounds
        if not (rate >= 0 and 0 <= reached < 1 and rounds >= 1 and begin_step >= 0 and frequency >= 1):
            raise InputError(
                f"{rounds} rounds of rate {rate} every {frequency} steps from step {begin_step} would end at sparsity "
                f"{reached:.4g}; accepted are at least 1 round, a frequency of at least 1, and an end in [0, 1)"
            )
        self.rate, self.rounds, self.begin_step, self.frequency = rate, rounds, begin_step, frequency
        self.compounding = compounding
        self.end_step = begin_step + rounds * frequency

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether to prune at `step`, and the sparsity then."""
        done = tf.cast((step - self.begin_step) // self.frequency, tf.float64)
        done = tf.clip_by_value(done, 0.0, float(self.rounds))
        left = tf.constant(1.0 - self.rate, tf.float64)
        sparsity = 1.0 - left**done if self.compounding else self.rate * done
        prunes = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        return prunes, tf.cast(sparsity, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Return class name and arguments, in tfmot's form."""
        names = ("rate", "rounds", "begin_step", "frequency", "compounding")
        return {"class_name": type(self).__name__, "config": {name: getattr(self, name) for name in names}}


def build_schedule(
    name: str, final_sparsity: float, *, begin_step: int, end_step: int, prunes: int, initial_sparsity: float = 0.0
) -> Any:
    """Return a tfmot schedule with `prunes` mask updates that ends exactly at `final_sparsity`.

    - `polynomial`: the cubic curve of Zhu & Gupta (arXiv 1710.01878, equation 1) from begin to end.
    - `linear`: its first power.
    - `movement`: the cubic curve between a warm-up of 40 % and a cool-down of 20 % of the steps, in
      which nothing changes (20 and 10 of 50 epochs in the corrosion-pruning runs).
    - `iterative`: every update drops the same share of what is left.
    - `one_shot`: one update, at `begin_step` (at least 1), and none after it.
    - `constant`: the final sparsity at every update.

    Args:
        final_sparsity: fraction of zeros at the end, 0 <= z < 1.
        begin_step: training step before which nothing is pruned.
        end_step: step of the last prune (of the end of the cool-down for `movement`).
        prunes: number of mask updates, at most one a step; the first comes one interval after the
            begin. `one_shot` has one.
        initial_sparsity: sparsity at the begin, for `polynomial`, `linear` and `movement`.

    Raises:
        InputError: when the schedule cannot reach its target, with the numbers.
    """
    look_up("schedule", name, dict.fromkeys(SCHEDULES))
    if not 0.0 <= initial_sparsity <= final_sparsity < 1.0:
        raise InputError(
            f"schedule '{name}': sparsity goes from {initial_sparsity} to {final_sparsity}; accepted is "
            "0 <= initial_sparsity <= final_sparsity < 1 (a fraction: .9 means 90 % zeros)"
        )
    if initial_sparsity and name not in ("polynomial", "linear", "movement"):
        raise InputError(f"schedule '{name}' has no initial sparsity; leave out {initial_sparsity}")
    if name == "one_shot":
        begin_step, prunes = max(begin_step, 1) - 1, 1
        end_step = min(begin_step + 1, end_step)
    if name == "movement":
        whole = end_step - begin_step
        begin_step, end_step = begin_step + round(_WARM_UP * whole), end_step - round(_COOL_DOWN * whole)
    ramp_steps = end_step - begin_step
    if begin_step < 0 or prunes < 1 or ramp_steps < prunes:
        raise InputError(
            f"schedule '{name}' cannot reach {final_sparsity}: {prunes} prunes do not fit into the {ramp_steps} "
            f"training steps from step {begin_step} to step {end_step}. Give fewer prunes or a longer ramp."
        )
    interval = ramp_steps // prunes
    first = end_step - prunes * interval
    if name in ("one_shot", "constant"):
        return tfmot.ConstantSparsity(final_sparsity, first + interval, end_step, interval)
    if name == "iterative":
        rate = 1 - (1 - final_sparsity) ** (1 / prunes)
        return IterativeRounds(rate, rounds=prunes, begin_step=first, frequency=interval)
    power = 1 if name == "linear" else 3
    return tfmot.PolynomialDecay(initial_sparsity, final_sparsity, first, end_step, power, interval)


def schedule_epochs(
    name: str,
    final_sparsity: float,
    *,
    epochs: int,
    steps_per_epoch: int,
    prunes: int,
    begin_epoch: int = 0,
    end_epoch: int | None = None,
    initial_sparsity: float = 0.0,
) -> Any:
    """Return `build_schedule` for a training of `epochs`, with its ramp over `begin_epoch`..`end_epoch`.

    Raises:
        InputError: when the ramp ends after the training does, or cannot reach its target.
    """
    end = epochs if end_epoch is None else end_epoch
    if not 0 <= begin_epoch < end <= epochs:
        raise InputError(
            f"schedule '{name}' cannot reach {final_sparsity}: it goes from epoch {begin_epoch} to epoch {end} of a "
            f"training of {epochs} epochs; accepted is 0 <= begin_epoch < end_epoch <= epochs"
        )
    return build_schedule(
        name,
        final_sparsity,
        begin_step=begin_epoch * steps_per_epoch,
        end_step=end * steps_per_epoch,
        prunes=prunes,
        initial_sparsity=initial_sparsity,
    )


def sparsity_by_step(schedule: Any) -> dict[int, float]:
    """Return the steps at which a tfmot schedule prunes, with the sparsity of each.

    Step 0 is never a prune: nothing has been trained by then.

    Raises:
        InputError: when the schedule has no end, or its last prune falls short of its final sparsity.
    """
    name, end = type(schedule).__name__, int(schedule.end_step)
    if end < 1:
        raise InputError(
            f"{name} has no end (end_step is {end}), and masks are frozen at a schedule's end; give it an end_step"
        )
    flags, values = (np.asarray(item) for item in schedule(tf.range(1, end + 1)))
    # Float32 carries seven digits; the eighth would decide where n * sparsity is half a weight.
    values = np.round(np.broadcast_to(values, flags.shape).astype(np.float64), 6)
    points = {int(step): float(values[step - 1]) for step in np.flatnonzero(flags) + 1}
    reached = points[max(points)] if points else 0.0
    if reached < values[-1]:
        frequency = getattr(schedule, "frequency", "?")
        raise InputError(
            f"{name} prunes every {frequency} steps from step {getattr(schedule, 'begin_step', '?')}, "
            f"which misses its end at step {end}: it would stop at sparsity {reached:.4g} instead of {values[-1]:.4g}. "
            "Let frequency divide end_step - begin_step."
        )
    return {step: value for step, value in points.items() if value > 0}
