"""Milliseconds per call of several candidates, interleaved so that all of them see the same machine."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfprune.errors import InputError


@dataclass(frozen=True)
class Latency:
    """Times of one candidate over `runs` rounds.

    `ratio_to_first` is the median over the rounds of (time of the first candidate / time of this one) within
    the same round: above 1 is faster. `ratio_low` and `ratio_high` are the 10th and 90th percentile of it.
    """

    median_ms: float
    p95_ms: float
    runs: int
    ratio_to_first: float
    ratio_low: float
    ratio_high: float


def measure_latency(
    candidates: Mapping[str, Callable[[], float]], *, runs: int = 50, warmup: int = 5
) -> dict[str, Latency]:
    """Time every candidate once per round, for `warmup` discarded and `runs` counted rounds.

    The order turns round from one round to the next, so that nobody always runs behind the same neighbour.
    A candidate is a call without arguments that returns the seconds it took, such as
    `functools.partial(model.time, image)`; how many threads it uses is its own affair (`TFLiteModel.description`
    says it).

    Raises:
        InputError: no candidates, or fewer than one run.

    >>> times = measure_latency({"dense": lambda: 0.003, "pruned": lambda: 0.001}, runs=5, warmup=1)
    >>> round(times["pruned"].median_ms, 3), round(times["pruned"].ratio_to_first, 3)
    (1.0, 3.0)
    """
    if not candidates or runs < 1 or warmup < 0:
        raise InputError(
            f"{len(candidates)} candidates, {runs} runs, {warmup} warm-up rounds: latency needs at least one "
            "candidate and one run"
        )
    rounds = np.empty((runs, len(candidates)))
    calls = list(enumerate(candidates.values()))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(-warmup, runs):
            for column, call in calls if number % 2 == 0 else reversed(calls):
                elapsed = call()
                if number >= 0:
                    rounds[number, column] = elapsed
    finally:
        if collecting:
            gc.enable()
    return {name: _summarize(rounds[:, 0], rounds[:, column]) for column, name in enumerate(candidates)}


def _summarize(first: np.ndarray, seconds: np.ndarray) -> Latency:
    ratios = first / np.maximum(seconds, 1e-9)  # a clock tick can round to nothing
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    return Latency(
        median_ms=float(np.median(seconds) * 1e3),
        p95_ms=float(np.percentile(seconds, 95) * 1e3),
        runs=len(seconds),
        ratio_to_first=float(middle),
        ratio_low=float(low),
        ratio_high=float(high),
    )
