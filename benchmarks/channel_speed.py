"""How long it takes to plan, to rebuild and to check, on nets of many layers.

    python benchmarks/channel_speed.py --quick    two nets, three rounds each, under 45 s; nothing is written
    python benchmarks/channel_speed.py            writes docs/results/channel_speed.{md,json}

`plan_s`: labels, groups, magnitude scores and the plan, in seconds. `rebuild_ratio`: rebuilding without
the check divided by `keras.models.clone_model` of the same net, which draws new weights and copies none;
the two take turns in one process. Both are medians over rounds, of which the first warms up and does
not count (its plan is `first_plan_s`). `verify_s`: the comparison with the masked original, once, in seconds.
The last line is {"plan_s": {net: s}, "rebuild_ratio": {net: ratio}, "verify_s": {net: s}}.
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, page_head  # noqa: E402
from tests.channels.topologies import randomize  # noqa: E402
from tfprune.architectures import build_model  # noqa: E402
from tfprune.channels import Selection, apply_plan, plan_channels  # noqa: E402
from tfprune.channels.checking import compare_with_masked  # noqa: E402
from tfprune.channels.groups import ChannelGroups  # noqa: E402
from tfprune.channels.labelling import label_channels  # noqa: E402
from tfprune.channels.planning import read_plan  # noqa: E402
from tfprune.keras import keras  # noqa: E402
from tfprune.records import write_json, write_text  # noqa: E402
from tfprune.run.folder import environment_record  # noqa: E402

RESULTS = FOLDER / "channel_speed.json"
NETS = (
    *(("unet", "mobilenetv2"), ("unet", "resnet18"), ("unet", "densenet121"), ("fpn", "efficientnetb0")),
    *(("unet", "resnet101"), ("unet_plus_plus", "resnet101"), ("unet", "resnext50")),
)
QUICK = (("unet", "mobilenetv2"), ("unet", "resnet18"))


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def measure(architecture: str, encoder: str, *, rounds: int) -> dict[str, float]:
    """Time one net."""
    model = randomize(build_model(architecture, input_size=(64, 64), outputs=3, encoder=encoder, seed=0))
    times, ratios = [], []
    for _ in range(rounds + 1):
        plan_s, plan = seconds(lambda: plan_channels(model, Selection(ratio=0.5)))
        clone_s, _ = seconds(lambda: keras.models.clone_model(model))
        rebuild_s, removal = seconds(lambda plan=plan: apply_plan(model, plan, check=False))
        times.append(plan_s)
        ratios.append(rebuild_s / clone_s)
    groups = ChannelGroups(label_channels(model))
    keep = groups.keep(read_plan(groups, plan))
    verify_s, equality = seconds(lambda: compare_with_masked(groups.graph, keep, removal.model))
    if not equality.holds:
        raise SystemExit(f"{architecture}/{encoder} is not exact: {equality}")
    first_plan_s, times, ratios = times[0], times[1:], ratios[1:]
    return {
        "layers": len(model.layers),
        "groups": len(groups),
        "first_plan_s": round(first_plan_s, 3),
        "plan_s": round(statistics.median(times), 3),
        "plan_s_highest": round(max(times), 3),
        "rebuild_ratio": round(statistics.median(ratios), 2),
        "rebuild_ratio_lowest": round(min(ratios), 2),
        "rebuild_ratio_highest": round(max(ratios), 2),
        "verify_s": round(verify_s, 2),
    }


def write_report(rows: dict[str, dict[str, float]], *, rounds: int, load: float) -> None:
    command = "python benchmarks/channel_speed.py"
    record = {"command": command, "date": date.today().isoformat(), "load_at_start": load, "rounds": rounds}
    record |= {"machine": environment_record(), "rows": rows}
    write_json(RESULTS, record)
    lines = [
        *page_head(
            "How long it takes to plan, rebuild and check a net with fewer channels",
            record,
            RESULTS,
            note=f"load {load:.1f} at the start",
        ),
        f"Half of the channel groups go; random weights, 64x64 pixels; medians of {rounds} rounds in one process:",
        "",
        "- *plan*: seconds to label the channels, group them, score them by magnitude, write the plan; the first time,",
        "  and the median and highest of those after it.",
        "- *rebuild*: time to build the smaller model with its weights, over the time of `keras.models.clone_model` of",
        "  the whole net just before; the lowest and highest round beside it.",
        "- *check*: seconds of the comparison with the masked original, once.",
        "",
        "| net | layers | groups | plan, first | plan | highest | rebuild | lowest | highest | check |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['layers']} | {row['groups']:,} | {row['first_plan_s']} s | {row['plan_s']} s "
            f"| {row['plan_s_highest']} s | {row['rebuild_ratio']}x | {row['rebuild_ratio_lowest']}x "
            f"| {row['rebuild_ratio_highest']}x | {row['verify_s']} s |"
        )
    write_text(RESULTS.with_suffix(".md"), "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two nets; nothing is written")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    options = parser.parse_args()
    rounds, load = 3 if options.quick else options.rounds, os.getloadavg()[0]
    rows = {}
    for architecture, encoder in QUICK if options.quick else NETS:
        keras.backend.clear_session()
        row = rows[f"{architecture}/{encoder}"] = measure(architecture, encoder, rounds=rounds)
        figures = "  ".join(f"{key} {value}" for key, value in row.items())
        print(f"{architecture + '/' + encoder:26}  {figures}", flush=True)
    if not options.quick:
        write_report(rows, rounds=rounds, load=load)
    keys = ("plan_s", "rebuild_ratio", "verify_s")
    print(json.dumps({key: {net: row[key] for net, row in rows.items()} for key in keys}))


if __name__ == "__main__":
    main()
