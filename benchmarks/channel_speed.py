"""How long it takes to plan, to rebuild and to check, on nets of many layers.

    python benchmarks/channel_speed.py --quick    two nets, three pairs each, under 45 s
    python benchmarks/channel_speed.py            writes docs/results/channel_speed.json

`plan_s`: labels, groups, magnitude scores and the plan, median of several. `rebuild_ratio`: rebuilding
without the check divided by `keras.models.clone_model` of the same net, which draws new weights and
copies none; the two take turns in one process, and the median of the paired ratios counts. `verify_s`:
the comparison with the masked original, once.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.channels.topologies import randomize  # noqa: E402
from tfprune.architectures import ARCHITECTURES, build_model  # noqa: E402
from tfprune.channels import Selection, apply_plan, plan_channels  # noqa: E402
from tfprune.channels.checking import compare_with_masked  # noqa: E402
from tfprune.channels.groups import ChannelGroups  # noqa: E402
from tfprune.channels.labelling import label_channels  # noqa: E402
from tfprune.channels.planning import read_plan  # noqa: E402
from tfprune.keras import keras  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "channel_speed.json"
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


def measure(architecture: str, encoder: str, *, pairs: int) -> dict[str, float]:
    """Time one net; the first round warms up and does not count."""
    model = randomize(build_model(architecture, input_size=(64, 64), outputs=3, encoder=encoder, seed=0))
    times, ratios = [], []
    for round_ in range(pairs + 1):
        plan_s, plan = seconds(lambda: plan_channels(model, Selection(ratio=0.5)))
        clone_s, _ = seconds(lambda: keras.models.clone_model(model))
        rebuild_s, removal = seconds(lambda plan=plan: apply_plan(model, plan, check=False))
        if round_:
            times.append(plan_s)
            ratios.append(rebuild_s / clone_s)
    groups = ChannelGroups(label_channels(model))
    keep = groups.keep(read_plan(groups, plan))
    verify_s, equality = seconds(lambda: compare_with_masked(groups.graph, keep, removal.model))
    if not equality.holds:
        raise SystemExit(f"{architecture}/{encoder} is not exact: {equality}")
    return {
        "plan_s": round(statistics.median(times), 3),
        "rebuild_ratio": round(statistics.median(ratios), 2),
        "rebuild_ratio_low": round(min(ratios), 2),
        "rebuild_ratio_high": round(max(ratios), 2),
        "verify_s": round(verify_s, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two nets; nothing is written")
    parser.add_argument("--pairs", type=int, default=5, help="rounds that count")
    options = parser.parse_args()
    rows = {}
    for architecture, encoder in QUICK if options.quick else NETS:
        if architecture not in ARCHITECTURES:
            print(f"{architecture}/{encoder}: no such architecture here", flush=True)
            continue
        keras.backend.clear_session()
        row = measure(architecture, encoder, pairs=3 if options.quick else options.pairs)
        rows[f"{architecture}/{encoder}"] = row
        print(
            f"{architecture + '/' + encoder:28}", "  ".join(f"{key} {value}" for key, value in row.items()), flush=True
        )
    record = {key: {net: row[key] for net, row in rows.items()} for key in ("plan_s", "rebuild_ratio", "verify_s")}
    if not options.quick:
        machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps({"rows": rows, "machine": machine}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
