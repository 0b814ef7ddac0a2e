"""Schedules: training step -> sparsity, as tfmot's `PruningSchedule`, exact at their end.

tfmot misses its last prune silently when its frequency does not divide the ramp; here the ramp
is laid backwards from its end, so that the last prune always meets the final sparsity.
"""

from __future__ import annotations

from typing import Any

from tensorflow_model_optimization.sparsity import keras as tfmot

from tfprune.errors import InputError, look_up

_POWERS = {"polynomial": 3, "linear": 1}


def build_schedule(
    name: str, final_sparsity: float, *, begin_step: int, end_step: int, prunes: int, initial_sparsity: float = 0.0
) -> Any:
    """Return a tfmot `PolynomialDecay` with `prunes` mask updates, the last one at `end_step`.

    `polynomial` is the cubic curve of Zhu & Gupta (arXiv 1710.01878, equation 1), `linear` its
    first power. The first of the `prunes` updates comes one interval after the begin.

    Args:
        name: `polynomial` or `linear`.
        final_sparsity: fraction of zeros at the end, 0 <= z < 1.
        begin_step: training step before which nothing is pruned.
        end_step: step of the last prune.
        prunes: number of mask updates, at most one a step.
        initial_sparsity: sparsity at the begin.

    Raises:
        InputError: when the schedule cannot reach its target, with the numbers.
    """
    power = look_up("schedule", name, _POWERS)
    if not 0.0 <= initial_sparsity <= final_sparsity < 1.0:
        raise InputError(
            f"schedule '{name}': sparsity goes from {initial_sparsity} to {final_sparsity}; accepted is "
            "0 <= initial_sparsity <= final_sparsity < 1 (a fraction: .9 means 90 % zeros)"
        )
    ramp_steps = end_step - begin_step
    if begin_step < 0 or prunes < 1 or ramp_steps < prunes:
        raise InputError(
            f"schedule '{name}' cannot reach {final_sparsity}: {prunes} prunes do not fit into the {ramp_steps} "
            f"training steps from step {begin_step} to step {end_step}. Give fewer prunes or a longer ramp."
        )
    interval = ramp_steps // prunes
    return tfmot.PolynomialDecay(
        initial_sparsity=initial_sparsity,
        final_sparsity=final_sparsity,
        begin_step=end_step - prunes * interval,
        end_step=end_step,
        power=power,
        frequency=interval,
    )


def sparsity_by_step(schedule: Any) -> dict[int, float]:
    """Return the steps at which a tfmot schedule prunes, with the sparsity of each.

    Step 0 is never a prune: nothing has been trained by then.

    Raises:
        InputError: when the last prune falls before the end of the schedule, so that it would
            stop short of its final sparsity.
    """
    steps = range(schedule.begin_step + schedule.frequency, schedule.end_step + 1, schedule.frequency)
    points = {step: float(schedule(step)[1]) for step in steps}
    reached = points.get(schedule.end_step)
    if reached is None:
        raise InputError(
            f"{type(schedule).__name__} prunes every {schedule.frequency} steps from step {schedule.begin_step}, "
            f"which misses its end at step {schedule.end_step}: it would stay below its final sparsity. "
            "Let frequency divide end_step - begin_step."
        )
    return points
