"""What a search finds on corrosion photographs, and what its machinery costs.

    python benchmarks/search_corrosion_field.py --quick         the machinery alone, under 45 s; nothing is written
    python benchmarks/search_corrosion_field.py --data DIR      runs recipes/search_corrosion_field.yaml, or goes on
    python benchmarks/search_corrosion_field.py --data DIR --defaults   the recipe itself, without its search
    python benchmarks/search_corrosion_field.py --record-only   records what has ended so far

The second runs about two hours of one core, the third 20 minutes, and both can be stopped at any moment. All but the
first write
docs/results/search_corrosion_field.{md,json,jsonl} (one line of the last per trial) and a picture of each front.
The last line is {"trials": ended, "feasible": ..., ...}, for --quick {"seconds_per_trial": ..., ...}.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, page_head  # noqa: E402
from tfprune.data.sets import open_set  # noqa: E402
from tfprune.recipe import check_search, load_recipe  # noqa: E402
from tfprune.recipe.sections import Recipe  # noqa: E402
from tfprune.records import plain, read_json, write_bytes, write_json, write_text  # noqa: E402
from tfprune.report.search import describe_search, read_search  # noqa: E402
from tfprune.report.search_figures import draw_cost_front, draw_hypervolume  # noqa: E402
from tfprune.report.wording import COSTS, as_cost, as_score, describe_values  # noqa: E402
from tfprune.search.fronts import write_search_record  # noqa: E402
from tfprune.search.recipes import RecipeTrial, search_recipe  # noqa: E402
from tfprune.search.searching import Task, search  # noqa: E402
from tfprune.search.trials import find_broken, find_limits, load_trials  # noqa: E402

NAME = "search_corrosion_field"
RESULTS = FOLDER / f"{NAME}.json"
COMMAND = f"python benchmarks/{NAME}.py --data DIR/corrosion_field"
DEFAULTS: dict[str, dict[str, Any]] = {"default_width16": {}, "default_width12": {"architecture.width": 12}}
"""The recipe as it is written, and at the greatest width that the search may choose."""
QUICK_TRIALS = 60


def measure_machinery() -> dict[str, float]:
    """Time a search of trials that do nothing, and going on with it."""
    ranges = load_recipe(NAME).search.model_dump(exclude_unset=True)["ranges"]
    settings = check_search({"oracle": "random", "trials": QUICK_TRIALS, "ranges": ranges})
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        task = Task(settings, lambda values, place: {"mean_iou": 0.5, "file_bytes": 1.0}, Path(folder), {})
        for name in ("seconds_per_trial", "seconds_per_replayed_trial"):
            started = time.perf_counter()
            search(task)
            found[name] = round((time.perf_counter() - started) / QUICK_TRIALS, 4)
        started = time.perf_counter()
        find_limits(settings)
        write_search_record(folder, settings, name="quick")
        found["seconds_of_the_record"] = round(time.perf_counter() - started, 4)
    return found


def run_defaults(recipe: Recipe, data: Path, out: Path) -> None:
    """Run the recipe with its own values; a width that trials have takes their dense net."""
    for name, values in DEFAULTS.items():
        folder = out / f"{NAME}_defaults" / name
        if not (folder / "figures.json").exists():
            dense = out / NAME if values else folder.parent
            figures = RecipeTrial(recipe, open_set(data), dense, data=data)(values, folder)
            write_json(folder / "figures.json", figures)


def read_defaults(out: Path) -> dict[str, dict[str, float]]:
    """Return name -> figures of the defaults that have been run."""
    paths = {name: out / f"{NAME}_defaults" / name / "figures.json" for name in DEFAULTS}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def write_results(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Record what has ended of a search, and return the figures."""
    write_search_record(folder, recipe.search, name=recipe.name, purpose=recipe.about.purpose)
    found, records = read_search(folder), load_trials(folder)
    dense = sorted(path.name for path in (folder / "dense").glob("*") if (path / "stages").exists())
    machine = read_json(folder / "environment.json")
    figures = {
        "trials": len(records),
        "planned": recipe.search.trials,
        "feasible": sum(record.is_feasible for record in records),
        "dense_trainings": len(dense),
        "seconds": round(sum(record.seconds for record in records), 1),
    }
    head = {"command": COMMAND, "date": date.today().isoformat(), "seed": recipe.seed, "machine": machine}
    defaults = read_defaults(folder.parent)
    write_json(RESULTS, {**head, **figures, "defaults": defaults, "search": found})
    lines = [json.dumps(plain(record)) for record in records]
    write_text(RESULTS.with_suffix(".jsonl"), "".join(f"{line}\n" for line in lines))
    pictures = {cost: draw_cost_front(found, cost) for cost in found["costs"]}
    pictures["hypervolume"] = draw_hypervolume(found)
    for name, picture in pictures.items():
        if picture:
            write_bytes(_picture(name), base64.b64decode(picture.split(",", 1)[1]))
    write_text(
        RESULTS.with_suffix(".md"),
        describe(head, figures, found, [name for name, one in pictures.items() if one], defaults),
    )
    return figures


def describe(
    head: dict[str, Any],
    figures: dict[str, Any],
    found: dict[str, Any],
    pictures: list[str],
    defaults: dict[str, dict[str, float]],
) -> str:
    """Return the page for people."""
    lines = [
        *page_head(
            "A search on corrosion photographs: 24 ways to prune a plain U-Net",
            head,
            RESULTS,
            note=f"seed {head['seed']}",
        )[:-1],
        f"Trials: [{NAME}.jsonl]({NAME}.jsonl).",
        "",
        "[The recipe](../../tfprune/recipes/search_corrosion_field.yaml) varies width, sparsity, criterion, the",
        "schedule and learning rate of the pruning stage, proposed at random, under constraints on the int8 file and",
        "on TFLite Micro's arena. The search sees the IoU of corrosion on validation; test pictures choose nothing.",
        "",
        f"**{figures['trials']} of {figures['planned']} trials have ended**; dense nets begun or trained: "
        f"{figures['dense_trainings']}; work: {figures['seconds'] / 3600:.1f} hours.",
        *([describe_search(found)] if found["trials"] else []),
    ]
    if figures["trials"] < figures["planned"]:
        lines += ["", "The rest is not done: the same command goes on."]
    if found["trials"]:
        lines += ["", *_table(found)]
    lines += [f"\n![{name}]({_picture(name).name})" for name in pictures]
    for name, default in defaults.items():
        lines += ["", *_beside(name, default, found)]
    return "\n".join(lines) + "\n"


def _table(found: dict[str, Any]) -> list[str]:
    costs, quality = found["costs"], found["quality"]
    heads = ["trial", f"{quality}, val", f"{quality}, test", *(f"{COSTS[c].label}, {COSTS[c].unit}" for c in costs)]
    rows = [f"| {' | '.join([*heads, 'values'])} |", "|---|" + "---:|" * (2 + len(costs)) + "---|"]
    for trial in found["trials"]:
        figures = trial["figures"]
        cells = [as_score(figures.get(quality)), as_score(figures.get(f"test_{quality}"))]
        for cost in costs:
            mark = " ◆" if trial["trial"] in found["fronts"][cost] else ""
            cells.append(as_cost(cost, figures.get(cost)) + mark)
        said = describe_values(trial["values"]) + (f" ({trial['status']})" if trial["status"] != "finished" else "")
        rows.append(f"| {' | '.join([trial['trial'], *cells, said])} |")
    return [*rows, "", "◆ no other trial within the constraints is better at that cost or less."]


def _beside(name: str, default: dict[str, float], found: dict[str, Any]) -> list[str]:
    """Return what the cheapest trials cost that are no worse on validation than a default."""
    quality = found["quality"]
    scores = f"{as_score(default[quality])} on validation, {as_score(default[f'test_{quality}'])} on test"
    limits = find_limits(load_recipe(NAME).search)
    broken = f" It breaks {' and '.join(found_broken)}." if (found_broken := find_broken(limits, default)) else ""
    lines = [f"**{name}** (`--defaults`): {quality} {scores}.{broken} The cheapest trials that are no worse on"]
    lines += ["validation:", ""]
    lines += [f"| cost | {name} | trial | its cost | its {quality}, test |", "|---|---:|---|---:|---:|"]
    feasible = [trial for trial in found["trials"] if trial["status"] == "finished" and not trial["broken"]]
    equal = [trial for trial in feasible if trial["figures"][quality] >= default[quality]]
    for cost in found["costs"]:
        best = min(equal, key=lambda trial: trial["figures"][cost], default=None)
        cells = [COSTS[cost].label, as_cost(cost, default[cost], unit=True), "none", "", ""]
        if best:
            its = best["figures"]
            cells[2:] = [best["trial"], as_cost(cost, its[cost], unit=True), as_score(its[f"test_{quality}"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _picture(name: str) -> Path:
    return RESULTS.with_name(f"{NAME}_{name}.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the machinery alone; nothing is written")
    parser.add_argument("--data", type=Path, help="the folder of corrosion_field")
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="folder for the runs")
    parser.add_argument("--defaults", action="store_true", help="run the recipe itself in place of its search")
    parser.add_argument("--record-only", action="store_true", help="run nothing, record what has ended")
    options = parser.parse_args()
    recipe = load_recipe(NAME)
    if options.quick:
        figures: dict[str, Any] = measure_machinery()
        for name, value in figures.items():
            print(f"{name:30}{value}")
    else:
        if options.defaults:
            run_defaults(recipe, options.data, options.out)
        elif not options.record_only:
            search_recipe(recipe, data=options.data, out=options.out, say=print)
        figures = write_results(options.out / recipe.name, recipe)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
