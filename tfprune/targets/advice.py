"""What each method buys on a target, before anything is trained: variants of a net, exported and measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.budget import Bound
from tfprune.channels.planning import Selection
from tfprune.channels.removal import remove_channels
from tfprune.errors import InputError, TfpruneError
from tfprune.export.conversion import MINIMUM_CALIBRATION, export_tflite
from tfprune.keras import finish_weights, keras
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.targets import find_target, rules
from tfprune.targets.lint import lint_file
from tfprune.targets.vela import System, estimate_with_vela
from tfprune.verification.arena import measure_arena
from tfprune.verification.footprint import measure_footprint
from tfprune.verification.latency import measure_latency
from tfprune.verification.runtimes import open_runtime

LATENCY_SETS, LATENCY_RUNS = 6, 12
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
    """How a target's own figures come about: what fills them, how far that is from the device, which extra it needs."""

    measure: Callable[[Mapping[str, Path]], dict[str, dict[str, Any]]]
    said: str
    module: str = ""
    extra: str = ""


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


def sized(model: Any, size: tuple[int, int]) -> Any:
    """Return the same net for pictures of one height and width; `model` itself when it takes just those.

    Raises:
        InputError: when the net cannot be built for them.
    """
    if tuple(model.input_shape[1:3]) == tuple(size):
        return model
    config = model.get_config()
    (first,) = [row["config"] for row in config["layers"] if row["class_name"] == "InputLayer"]
    first["batch_input_shape"] = (None, *size, model.input_shape[3])
    try:
        other = type(model).from_config(config)
        other.set_weights(model.get_weights())
        finish_weights(other)
    except (ValueError, TypeError) as error:
        raise InputError(f"its layers cannot be built for pictures of {size[0]} x {size[1]}") from error
    return other


def halved(model: Any) -> Any:
    """Return the same net for pictures of half the height and width, as `sized` does."""
    _, height, width, _ = model.input_shape
    return sized(model, (height // 2, width // 2))


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
        target: a name that `tfprune.targets.find_target` takes.
        folder: where the files are written.
        scheme: the number format; default: the target's.
        head: of all variants but the coarse one.

    Raises:
        InputError: the target is unknown, or the dense model cannot be exported.
    """
    chosen = find_target(target)
    shape = tuple(model.input_shape[1:])
    if None in shape:
        raise InputError(f"model '{model.name}' takes pictures of any size; `sized` builds it for one")
    files, left_out = {}, {}
    given = scheme or chosen.scheme
    integers_only = rules.computes_in_integers in chosen.rules
    for name, (make, differs) in VARIANTS.items():
        if name == "float32" and (integers_only or given == "float32"):
            continue
        path = Path(folder) / f"{stem_of(name)}.tflite"
        try:
            export_untrained(make(model), path, **{"scheme": given, "head": head, **differs})
        except TfpruneError as error:
            if name == "dense":
                raise
            left_out[name] = str(error)
            continue
        files[name] = path
    rows, said = measure_on(target, files)
    return Advice(target, rows, left_out, said)


def stem_of(variant: str) -> str:
    """Return the name of a variant's file, without its ending.

    >>> stem_of("-50 % channels")
    '-50_percent_channels'
    """
    return variant.replace(" ", "_").replace("%", "percent").replace(":", "_")


def measure_on(target: str, files: Mapping[str, Path]) -> tuple[tuple[Figures, ...], str]:
    """Return what files cost on a target, and in words where those figures come from.

    Raises:
        InputError: the target is unknown, or its own tool is missing or refuses a file.
    """
    proof = _find_proof(target)
    measured = proof.measure(files)
    return tuple(_figures(name, path, target, measured.get(name, {})) for name, path in files.items()), proof.said


def export_untrained(
    model: Any, path: Path, *, scheme: str, head: str, input_size: tuple[int, int] | None = None
) -> None:
    """Export as if the model were trained, with random pictures: values change no operator, no size and no time."""
    shape = (MINIMUM_CALIBRATION, *(input_size or model.input_shape[1:3]), model.input_shape[3])
    pictures = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    names = [str(index) for index in range(max(2, model.output_shape[-1]))]
    settings = {"scheme": scheme, "head": head, "class_names": names, "input_size": input_size}
    with _as_if_trained(model):
        export_tflite(model, path, calibration=pictures, **settings)


@contextmanager
def _as_if_trained(model: Any) -> Iterator[None]:
    """Give biases and norms, which are all of one value before training, different ones for a moment.

    The converter stores equal constants once: the file of an untrained net was up to 9 % too small.
    """
    drawn = np.random.default_rng(0)
    equal = [weight for weight in model.weights if weight.shape.rank == 1 and np.ptp(weight.numpy()) == 0]
    before = [weight.numpy() for weight in equal]
    for weight, values in zip(equal, before, strict=True):
        weight.assign(values + drawn.uniform(0, 0.1, values.shape))
    try:
        yield
    finally:
        for weight, values in zip(equal, before, strict=True):
            weight.assign(values)


def check_tool(target: str) -> None:
    """Refuse a target whose figures come from a tool that is not installed.

    Raises:
        InputError: with the extra that brings it.
    """
    proof = _find_proof(target)
    if proof.module and importlib.util.find_spec(proof.module) is None:
        raise InputError(f"figures for target {target} need {proof.module}: pip install 'tfprune[{proof.extra}]'")


def _find_proof(target: str) -> Proof:
    system = find_target(target).system
    if system is None:
        return _PROOFS.get(target, _NO_PROOF)
    names = ", ".join((system.accelerator, system.system, system.memory))
    said = f"flash, SRAM, time: estimates of Arm's compiler for {names}"
    return Proof(partial(_ask_vela, system), said, "ethosu", "ethos")


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
    # of several medians the smallest: a busy machine makes calls slower and never faster
    sets = [measure_latency(calls, runs=LATENCY_RUNS) for _ in range(LATENCY_SETS)]
    return {name: {"time_ms": min(latencies[name].median_ms for latencies in sets)} for name in calls}


def _ask_micro(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    return {name: {"memory_bytes": measure_arena(path)} for name, path in files.items()}


def _ask_vela(system: System, files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    rows = {}
    for name, path in files.items():
        found = estimate_with_vela(path, system)
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
    "tflm": Proof(
        _ask_micro,
        "arena: measured with TFLite Micro on this machine; time: MACs are the rule of thumb",
        "tflite_micro",
        "micro",
    ),
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
