"""What each method buys on a target, before anything is trained: variants of a net, exported and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.budget import Bound
from tfprune.channels.planning import Selection
from tfprune.channels.removal import remove_channels
from tfprune.errors import InputError, TfpruneError, look_up
from tfprune.export.conversion import MINIMUM_CALIBRATION, export_tflite
from tfprune.keras import keras
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.targets import TARGETS, rules
from tfprune.targets.lint import lint_file
from tfprune.targets.vela import SYSTEMS, estimate_with_vela
from tfprune.verification.arena import measure_arena
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.latency import measure_latency
from tfprune.verification.runtimes import open_runtime

LATENCY_RUNS = 30
WORTH = 0.05
"""A figure that falls by less than this share of the dense net's is said not to fall."""


@dataclass(frozen=True)
class Figures:
    """What one variant costs on a target; None where nothing tells.

    Attributes:
        variant: a key of `VARIANTS`.
        file_bytes, gzip_bytes, macs: of the file; `macs` counts zeros.
        flash_bytes: what the target stores, where that is not the file.
        memory_bytes: working memory: TFLite Micro's arena, or Ethos-U's SRAM.
        time_ms: of one picture.
        mapped: share of the operators that run on the accelerator.
    """

    variant: str
    file_bytes: int
    gzip_bytes: int
    macs: int
    flash_bytes: int | None = None
    memory_bytes: int | None = None
    time_ms: float | None = None
    mapped: float = 1.0


@dataclass(frozen=True)
class Proof:
    """How a target's own figures come about: what fills them, and how far that is from the device."""

    measure: Callable[[Mapping[str, Path]], dict[str, dict[str, Any]]]
    said: str


@dataclass(frozen=True)
class Advice:
    """The variants of a net on a target, the dense one first, those that could not be made, and how it was found."""

    target: str
    rows: tuple[Figures, ...]
    left_out: Mapping[str, str]
    said: str


def masked(model: Any, sparsity: float, *, granularity: str = "weight") -> Any:
    """Return a copy of a model with the smallest weights set to zero, by the mask engine, without training."""
    schedule = build_schedule("one_shot", sparsity, begin_step=0, end_step=1, prunes=1)
    controller = MaskController(model, schedule, granularity=granularity)
    controller.update(controller.last_step, keras.optimizers.SGD())
    return controller.strip()


def narrowed(model: Any, ratio: float) -> Any:
    """Return a model with a share of its channels removed, in multiples of 8 where there are as many."""
    return remove_channels(model, Selection(ratio=ratio, multiple_of=8), check=False).model


def halved(model: Any) -> Any:
    """Return the same net for pictures of half the height and width.

    Raises:
        InputError: when the net cannot be built for them.
    """
    shape = tuple(model.input_shape)
    config = model.get_config()
    (first,) = [row["config"] for row in config["layers"] if row["class_name"] == "InputLayer"]
    first["batch_input_shape"] = (None, shape[1] // 2, shape[2] // 2, shape[3])
    try:
        smaller = type(model).from_config(config)
        smaller.set_weights(model.get_weights())
    except (ValueError, TypeError) as error:
        raise InputError("its layers are built for one picture size") from error
    return smaller


VARIANTS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "dense": (lambda model: model, {}),
    "float32": (lambda model: model, {"scheme": "float32"}),
    "50 % zeros": (partial(masked, sparsity=0.5), {}),
    "80 % zeros": (partial(masked, sparsity=0.8), {}),
    "90 % zeros": (partial(masked, sparsity=0.9), {}),
    "2:4 zeros": (partial(masked, sparsity=0.5, granularity="pattern"), {}),
    "-25 % channels": (partial(narrowed, ratio=0.25), {}),
    "-50 % channels": (partial(narrowed, ratio=0.5), {}),
    "-75 % channels": (partial(narrowed, ratio=0.75), {}),
    "coarse classes": (lambda model: model, {"head": "coarse_class_map"}),
    "half picture": (halved, {}),
}
"""Name -> how the model is made from the dense one, and what differs in its export."""


def advise(model: Any, target: str, folder: str | Path, *, scheme: str | None = None, head: str = "logits") -> Advice:
    """Export untrained variants of a model and measure them for a target.

    Args:
        model: a functional tf_keras model of fixed picture size, trained or not.
        target: a key of `tfprune.targets.TARGETS`.
        folder: where the files are written.
        scheme: the number format; default: the target's.
        head: of all variants but the coarse one.

    Raises:
        InputError: the target is unknown, or the dense model cannot be exported.
    """
    chosen = look_up("target", target, TARGETS)
    shape = tuple(model.input_shape[1:])
    if None in shape:
        raise InputError(f"model '{model.name}' takes pictures of any size; build it for one")
    files, left_out = {}, {}
    given = scheme or chosen.scheme
    integers_only = rules.computes_in_integers in chosen.rules
    for name, (make, differs) in VARIANTS.items():
        if name == "float32" and (integers_only or given == "float32"):
            continue
        path = Path(folder) / f"{name.replace(' ', '_').replace('%', 'percent').replace(':', '_')}.tflite"
        try:
            export_untrained(make(model), path, **{"scheme": given, "head": head, **differs})
        except TfpruneError as error:
            if name == "dense":
                raise
            left_out[name] = str(error)
            continue
        files[name] = path
    proof = _PROOFS.get(target, _NO_PROOF)
    measured = proof.measure(files)
    rows = tuple(_figures(name, path, target, measured.get(name, {})) for name, path in files.items())
    return Advice(target, rows, left_out, proof.said)


def export_untrained(
    model: Any, path: Path, *, scheme: str, head: str, input_size: tuple[int, int] | None = None
) -> None:
    """Export with random pictures for the ranges, which change no operator, no size and no time."""
    shape = (MINIMUM_CALIBRATION, *(input_size or model.input_shape[1:3]), model.input_shape[3])
    pictures = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    names = [str(index) for index in range(max(2, model.output_shape[-1]))]
    settings = {"scheme": scheme, "head": head, "class_names": names, "input_size": input_size}
    export_tflite(model, path, calibration=pictures, **settings)


def _figures(name: str, path: Path, target: str, measured: dict[str, Any]) -> Figures:
    footprint, verdict = measure_footprint(path), lint_file(path, target)
    mapped = 1 - len(verdict.unmapped) / max(1, len(verdict.operators))
    return Figures(name, footprint.file_bytes, footprint.gzip_bytes, footprint.macs or 0, mapped=mapped, **measured)


def _time_here(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    calls = {}
    for name, path in files.items():
        runtime = open_runtime(path, threads=1)
        picture = np.zeros((*runtime.input_size, runtime.channels), np.uint8)
        calls[name] = partial(runtime.time, picture)
    return {name: {"time_ms": row.median_ms} for name, row in measure_latency(calls, runs=LATENCY_RUNS).items()}


def _ask_micro(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    return {name: {"memory_bytes": measure_arena(path)} for name, path in files.items()}


def _ask_vela(target: str, files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    rows = {}
    for name, path in files.items():
        found = estimate_with_vela(path, target)
        rows[name] = {
            "flash_bytes": found.flash_bytes,
            "memory_bytes": found.sram_bytes,
            "time_ms": found.time_ms,
        }
    return rows


_HERE = "time: measured on this machine, XNNPACK, one thread"
_NO_PROOF = Proof(lambda files: {}, "time and memory: nothing here tells; MACs are the rule of thumb")
_PROOFS = {
    "x86-cpu": Proof(_time_here, _HERE),
    "android-cpu": Proof(_time_here, f"{_HERE}, as a stand-in for an Arm processor"),
    "tflm": Proof(_ask_micro, "arena: measured with TFLite Micro on this machine; time: MACs are the rule of thumb"),
    **{
        target: Proof(partial(_ask_vela, target), f"flash, SRAM, time: estimates of Arm's compiler for {names[0]}")
        for target, names in SYSTEMS.items()
    },
}

_GAINS = {"flash_bytes": "flash", "file_bytes": "file", "memory_bytes": "memory", "time_ms": "time", "macs": "MACs"}
_BOUNDED = {
    "file_bytes": "file_bytes",
    "gzip_bytes": "gzip_bytes",
    "arena_bytes": "memory_bytes",
    "macs": "macs",
    "latency_ms": "time_ms",
}
"""Quantity of the budget language -> the figure it bounds."""


def gains(row: Figures, dense: Figures) -> dict[str, float]:
    """Return what a variant makes smaller on the device, and by which factor.

    The file counts where the device stores it as it is, MACs where nothing tells the time.
    """
    told = {"flash_bytes" if dense.flash_bytes is not None else "file_bytes", "memory_bytes"}
    told.add("macs" if dense.time_ms is None else "time_ms")
    found = {}
    for field, word in _GAINS.items():
        before, after = getattr(dense, field), getattr(row, field)
        if field in told and before and after and after < before * (1 - WORTH):
            found[word] = before / after
    return found


def meeting(advice: Advice, budget: Sequence[Bound]) -> list[Figures]:
    """Return the variants that meet all bounds of a budget, the mildest first.

    Raises:
        InputError: when a bound is on something that nothing tells for this target.
    """
    dense = advice.rows[0]
    for bound in budget:
        field = _BOUNDED.get(bound.quantity)
        if field is None or getattr(dense, field) is None:
            known = ", ".join(name for name, field in _BOUNDED.items() if getattr(dense, field) is not None)
            raise InputError(f"budget {bound}: advice for {advice.target} tells {known}")
    fields = [(_BOUNDED[bound.quantity], bound) for bound in budget]
    return [
        row
        for row in advice.rows
        if all(getattr(row, field) <= bound.limit(getattr(dense, field)) for field, bound in fields)
    ]


def conclude(advice: Advice) -> list[str]:
    """Return in words what each kind of variant buys; one of them speaks for its kind."""
    dense, by_name = advice.rows[0], {row.variant: row for row in advice.rows}
    lines = []
    for row in (by_name[name] for name in _SPOKESMEN if name in by_name):
        won = gains(row, dense)
        said = ", ".join(f"{word} {factor:.1f}x smaller" for word, factor in won.items()) or "nothing on the device"
        if "file" not in won and row.gzip_bytes < dense.gzip_bytes * (1 - WORTH):
            said += f"; the download {dense.gzip_bytes / row.gzip_bytes:.1f}x smaller"
        lines.append(f"{row.variant}: {said}")
    return lines


_SPOKESMEN = ("90 % zeros", "-50 % channels", "coarse classes", "half picture")
