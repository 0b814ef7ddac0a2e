"""What masks cost while a net trains: a step between mask updates, and one update, beside tfmot's own wrapper.

Every step is timed against the plain dense step of the same net, interleaved in blocks in one
process (the median of the blocks' ratios), 128x128, batch 8, Adam.
Usage: python benchmarks/mask_overhead.py [--quick]
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.architectures import build_model
from tfprune.keras import keras, tf
from tfprune.pruning import SCOPES
from tfprune.pruning.controller import MaskController
from tfprune.pruning.schedules import build_schedule
from tfprune.records import write_json, write_text
from tfprune.run.folder import environment_record

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.results import FOLDER, page_head

METHODS = ("magnitude", "taylor", "movement")
NETS = {
    "plain_unet": {"architecture": "plain_unet"},
    "mobilenetv2_unet": {"architecture": "unet", "encoder": "mobilenetv2"},
}
FAR = 10**6
RESULTS = FOLDER / "mask_overhead.json"


def build_net(name: str, size: int) -> Any:
    """Build a net of the comparison for size x size pixels, with random weights."""
    options = dict(NETS[name])
    if "encoder" in options:
        options["encoder_weights"] = None
    return build_model(options.pop("architecture"), input_size=(size, size), channels=3, outputs=2, seed=0, **options)


def build_tfmot(net: Any, masked: tuple[str, ...]) -> Any:
    """Wrap the same layers by tfmot, with no mask update in sight."""
    from tensorflow_model_optimization.sparsity import keras as tfmot

    schedule = tfmot.PolynomialDecay(0.0, 0.5, FAR, 2 * FAR, frequency=FAR)

    def wrap(layer: Any) -> Any:
        if layer.name not in masked:
            return layer.__class__.from_config(layer.get_config())
        return tfmot.prune_low_magnitude(layer.__class__.from_config(layer.get_config()), pruning_schedule=schedule)

    model = keras.models.clone_model(net, clone_function=wrap)
    for layer in model.layers:
        if hasattr(layer, "pruning_step"):
            layer.pruning_step.assign(1)  # what its callback does; the graph counts on
    return model


def prepare(model: Any, batch: Any) -> Callable[[], None]:
    """Compile a model and return a function that trains one step and waits for it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss)
    function = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())

    def step() -> None:
        float(function(batches)["loss"])

    for _ in range(2):
        step()
    return step


def time_blocks(
    steps: dict[str, Callable[[], None]], *, blocks: int, length: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return wall and processor seconds per step of each, block by block, in an order that changes.

    Processor time is shown beside: on a machine with other work it spreads far less.
    """
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for block in range(blocks):
        shift = block % len(names)
        for name in names[shift:] + names[:shift]:
            begin, begin_cpu = time.perf_counter(), time.process_time()
            for _ in range(length):
                steps[name]()
            wall[name].append((time.perf_counter() - begin) / length)
            cpu[name].append((time.process_time() - begin_cpu) / length)
    return wall, cpu


def ratios_to(seconds: dict[str, list[float]], first: str) -> dict[str, list[float]]:
    """Return the ratios to the one named, block by block."""
    return {
        key: [mine / base for mine, base in zip(values, seconds[first], strict=True)]
        for key, values in seconds.items()
        if key != first
    }


def measure_steps(name: str, *, size: int, blocks: int, length: int) -> dict[str, Any]:
    """Return the step ratios of one net."""
    net = build_net(name, size)
    rng = np.random.default_rng(0)
    batch = (
        rng.uniform(0, 255, (8, size, size, 3)).astype(np.float32),
        rng.integers(0, 2, (8, size, size)).astype(np.uint8),
    )
    schedule = build_schedule("one_shot", 0.8, begin_step=FAR, end_step=2 * FAR, prunes=1)
    models = {"dense": keras.models.clone_model(net)}
    for method in METHODS:
        controller = MaskController(net, None, criterion=method)
        controller.schedule, controller.last_step = schedule, FAR  # evidence is gathered, no update comes
        models[method] = controller.model
    masked = controller.selection.masked
    models["tfmot"] = build_tfmot(net, masked)
    steps = {key: prepare(model, batch) for key, model in models.items()}
    for method in METHODS:  # zeros where they would be in the middle of a training
        models[method].controller.sparsity_at = {0: 0.8}
        for layer in models[method].controller.layers:
            layer.set_mask(layer.masked[0], rng.random(layer.mask.shape) > 0.8)
    wall, cpu = time_blocks(steps, blocks=blocks, length=length)
    ratios = ratios_to(wall, "dense")
    return {
        "net": name,
        "parameters": int(net.count_params()),
        "dense_step_ms": 1e3 * statistics.median(wall["dense"]),
        "ratio": {key: statistics.median(values) for key, values in ratios.items()},
        "spread": {key: (min(values), max(values)) for key, values in ratios.items()},
        "cpu_ratio": {key: statistics.median(values) for key, values in ratios_to(cpu, "dense").items()},
        "update": measure_update(net, masked, repeats=blocks),
    }


def measure_update(net: Any, masked: tuple[str, ...], *, repeats: int) -> dict[str, float]:
    """Return the milliseconds of one mask update, ours (Adam's momentum included) and tfmot's, interleaved.

    The speedup is that of layer by layer, which is all that tfmot knows.
    """
    from tensorflow_model_optimization.sparsity import keras as tfmot

    schedule = build_schedule("one_shot", 0.8, begin_step=1, end_step=2, prunes=1)
    updates: dict[str, Callable[[], Any]] = {}
    for scope in SCOPES:
        controller = MaskController(net, schedule, scope=scope)
        optimizer = keras.optimizers.Adam()
        optimizer.build(controller.model.trainable_variables)
        updates[scope] = functools.partial(controller.update, 1, optimizer)
        updates[scope]()  # traced once
    theirs = build_tfmot(net, masked)
    layers = [layer for layer in theirs.layers if hasattr(layer, "pruning_obj")]
    for layer in layers:
        layer.pruning_obj._pruning_schedule = tfmot.ConstantSparsity(0.8, 0, -1, 1)

    @tf.function
    def update_theirs() -> None:
        for layer in layers:
            layer.pruning_obj.conditional_mask_update()

    update_theirs()
    wall, cpu = time_blocks({**updates, "tfmot": update_theirs}, blocks=repeats, length=1)
    return {
        "weights": sum(row.weights for row in controller.sparsity()),
        "ours_ms": 1e3 * statistics.median(wall["layer"]),
        "ours_global_ms": 1e3 * statistics.median(wall["global"]),
        "tfmot_ms": 1e3 * statistics.median(wall["tfmot"]),
        "speedup": statistics.median(ratios_to(wall, "layer")["tfmot"]),
        "cpu_speedup": statistics.median(ratios_to(cpu, "layer")["tfmot"]),
    }


def write_report(results: list[dict[str, Any]], figures: dict[str, Any], *, load: float) -> None:
    """Write the page for people and the figures for machines."""
    record = {"command": "python benchmarks/mask_overhead.py", "date": date.today().isoformat()}
    record |= {"load_at_start": load, "machine": environment_record()}
    write_json(RESULTS, {**record, **figures})
    lines = [
        *page_head(
            "What masks cost in a training step, and what an update of them costs",
            record,
            RESULTS,
            note=f"load {load:.1f} at the start",
        ),
        "128x128 pixels, batch 8, Adam. *Step*: time of a masked training step between updates over that of the dense",
        "step of the same net, the median of blocks that take turns in one process, the lowest and highest block, and",
        "the same ratio in processor time. `tfmot` is tfmot's own wrapper on the same layers.",
        "",
        "| net | method | step | lowest | highest | processor time |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        for method, ratio in result["ratio"].items():
            low, high = result["spread"][method]
            cpu = result["cpu_ratio"][method]
            lines.append(f"| {result['net']} | {method} | {ratio:.3f} | {low:.3f} | {high:.3f} | {cpu:.3f} |")
    lines += [
        "",
        "*Update*: one setting of all masks at 80 % zeros: ours by magnitude, layer by layer and over all layers",
        "(weights, masks, kept values and Adam's momentum written), and tfmot's, which knows layer by layer only and",
        "sorts every kernel. *Faster*: tfmot's time over ours layer by layer.",
        "",
        "| net | dense step | masked weights | ours, per layer | ours, over all | tfmot | faster | in processor time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        update = result["update"]
        times = [f"{update[name]:.1f} ms" for name in ("ours_ms", "ours_global_ms", "tfmot_ms")]
        ratios = [f"{update[name]:.1f}x" for name in ("speedup", "cpu_speedup")]
        first = [result["net"], f"{result['dense_step_ms']:.0f} ms", f"{update['weights']:,}"]
        lines.append(f"| {' | '.join([*first, *times, *ratios])} |")
    write_text(RESULTS.with_suffix(".md"), "\n".join(lines) + "\n")


def main() -> None:
    """Measure, print a table, and the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one net at 64x64, few blocks: under 45 s")
    parser.add_argument("--blocks", type=int, default=11)
    parser.add_argument("--length", type=int, default=3, help="steps in a block")
    arguments = parser.parse_args()
    names = ["plain_unet"] if arguments.quick else list(NETS)
    size, blocks, length = (64, 7, 2) if arguments.quick else (128, arguments.blocks, arguments.length)
    results, load = [], os.getloadavg()[0]
    for name in names:
        results.append(measure_steps(name, size=size, blocks=blocks, length=length))
        keras.backend.clear_session()  # five nets with their optimizers fill 2 GB
        gc.collect()
    print(f"{'net':18}{'method':12}{'step ratio':>11}{'lowest':>9}{'highest':>9}{'processor time':>16}")
    for result in results:
        for method, ratio in result["ratio"].items():
            low, high = result["spread"][method]
            print(f"{result['net']:18}{method:12}{ratio:11.3f}{low:9.3f}{high:9.3f}{result['cpu_ratio'][method]:16.3f}")
        update = result["update"]
        print(
            f"{result['net']:18}dense step {result['dense_step_ms']:.0f} ms; update of {update['weights']:,} weights: "
            f"ours {update['ours_ms']:.1f} ms (over all layers {update['ours_global_ms']:.1f}), "
            f"tfmot {update['tfmot_ms']:.1f} ms "
            f"({update['speedup']:.1f}x; {update['cpu_speedup']:.1f}x in processor time)"
        )
    worst = {key: round(max(result["ratio"][key] for result in results), 4) for key in results[0]["ratio"]}
    speedup = round(min(result["update"]["speedup"] for result in results), 2)
    figures = {"step_ratio": worst, "update_speedup_over_tfmot": speedup, "nets": results}
    if not arguments.quick:
        write_report(results, figures, load=load)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
