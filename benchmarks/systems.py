"""The published systems at a size for two cores: every cell is a shipped recipe with settings, run from data to report.

    python benchmarks/systems.py --quick                           one tiny recipe; nothing is written; under 45 s
    python benchmarks/systems.py --data DIR [--parts s4_camvid]    runs what is missing; DIR holds camvid and neu_seg
    python benchmarks/systems.py --report                          the page from the finished cells

Parts: s4_camvid, s4_vessels, s3_strips, s3_neu_seg, s2_wells. A cell is a run folder in --out and can be repeated alone
with the command that the page shows; runs that share a dense net train it once. Finished cells are lines of
docs/results/systems_small.jsonl; a second start goes on with the rest, and a killed run goes on inside.
The last line is one JSON object: the cells' names and their mean IoU on the test split.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.results import FOLDER, append_line, read_lines  # noqa: E402
from tfprune.keras import keras  # noqa: E402
from tfprune.recipe import load_recipe  # noqa: E402
from tfprune.records import plain, read_json, write_json, write_text  # noqa: E402
from tfprune.run import run_recipe  # noqa: E402

RESULTS = FOLDER / "systems_small.jsonl"
SCORES = ("mean_iou", "iou", "dice", "sensitivity", "specificity", "pixel_accuracy", "balanced_accuracy", "error")
SIZES = ("file_bytes", "gzip_bytes", "parameters", "nonzero_parameters", "macs")
SEEDS: dict[str, tuple[int, ...]] = {"s2_wells": (0, 1, 2)}
"""Seeds of the parts that have more than seed 0."""


@dataclass(frozen=True)
class Net:
    """One row of a part's table: a shipped recipe with settings; `data` is a folder of --data, None a generated set."""

    title: str
    recipe: str
    settings: tuple[str, ...] = ()
    data: str | None = None


_PLAIN = "regularization=null"
_NORMS = "norm_momentum: 0.9"
_UNET = (
    f"architecture={{name: plain_unet, width: 8, depth: 5, activation: leaky_relu, upsampling: transpose, {_NORMS}}}"
)
_INVERTED = _UNET.replace("activation: leaky_relu", "block: inverted_residual")
_DEEPLAB = (
    "architecture={name: deeplab_v3_plus, width: 0.5, rates: [], detail_filters: 0, output_stride: 8, " + _NORMS + "}"
)
_CAT = (
    "architecture={name: corroseg, encoder: mobilenetv2, decoder_filters: [128, 64, 32, 16], head: sigmoid, "
    + _NORMS
    + "}"
)


def _camvid(title: str, sparsity: float, *settings: str) -> Net:
    return Net(title, "s4_camvid_small", (f"pruning.final_sparsity={sparsity}", *settings), "camvid")


def _s3(recipe: str, data: str | None) -> dict[str, Net]:
    return {
        "unet": Net("U-Net with norms", recipe, (_UNET,), data),
        "res_unet": Net("ResU-Net, multi-scale context", recipe, (), data),
        "inverted": Net("inverted-residual U-Net", recipe, (_INVERTED,), data),
        "deeplab": Net("DeepLabV3+", recipe, (_DEEPLAB,), data),
    }


PARTS: dict[str, dict[str, Net]] = {
    "s4_camvid": {
        "half_plain": _camvid("three rounds of 50 %", 0.875, _PLAIN),
        "tenth_plain": _camvid("three rounds of 10 %", 0.271, _PLAIN),
        "dense_plain": _camvid("dense, trained as long", 0, _PLAIN),
        "half_composite": _camvid("three rounds of 50 %, composite loss", 0.875),
        "tenth_composite": _camvid("three rounds of 10 %, composite loss", 0.271),
        "dense_composite": _camvid("dense, trained as long, composite loss", 0),
    },
    "s4_vessels": {
        "scratch_plain": Net("from scratch", "s4_vessels_small", (_PLAIN,)),
        "scratch_composite": Net("from scratch, composite loss", "s4_vessels_small"),
        "added_plain": Net("added filters", "s4_vessels_small", ("architecture.added_filters=32", _PLAIN)),
        "added_composite": Net("added filters, composite loss", "s4_vessels_small", ("architecture.added_filters=32",)),
    },
    "s3_strips": _s3("s3_res_unet_small", None),
    "s3_neu_seg": _s3("s3_neu_seg_small", "neu_seg"),
    "s2_wells": {
        "baseline": Net("baseline", "s2_xscat_small", ("architecture={name: fcn, depth: 0, head: sigmoid}",)),
        "xscat": Net("XSCat-UNet", "s2_xscat_small"),
        "cat": Net("Cat-CorroSeg on MobileNetV2", "s2_xscat_small", (_CAT,)),
    },
}


def run_cell(part: str, key: str, seed: int, *, data: Path | None, out: Path) -> dict[str, Any]:
    """Run the recipe of a cell, or go on with it, and return its line."""
    net, name = PARTS[part][key], f"{part}_{key}_{seed}"
    settings = [f"seed={seed}", *net.settings]
    recipe = load_recipe(net.recipe, [f"name={name}", *settings])
    folder = run_recipe(
        recipe, data=data / net.data if net.data else None, out=out, shared=out / "dense", say=lambda text: None
    )
    keras.backend.clear_session()
    return {"part": part, "net": key, "seed": seed, "command": _command(net, settings), **read_cell(folder)}


def _command(net: Net, settings: Sequence[str]) -> str:
    given = " ".join(f"--set {json.dumps(item) if ' ' in item else item}" for item in settings if item != "seed=0")
    data = f" --data DIR/{net.data}" if net.data else ""
    return " ".join(f"tfprune run {net.recipe}{data} {given}".split())


def read_cell(folder: Path) -> dict[str, Any]:
    """Return what a finished run folder says, all of it measured on the exported files but the rounds."""
    verification, run, data = (
        read_json(folder / name) for name in ("records/verification.json", "records/run.json", "data.json")
    )
    machine, recipe = read_json(folder / "environment.json"), load_recipe(folder / "recipe.yaml")
    shares = data["splits"]["test"]["class_shares"]
    files = {
        f"{row['variant']} {row['scheme']}": {
            **{name: row["scores"][name] for name in SCORES},
            "kaggle_dice": row["scores"]["kaggle_dice"],
            **{name: row["footprint"][name] for name in SIZES},
            **({"arena_bytes": row["arena_bytes"]} if row.get("arena_bytes") else {}),
        }
        for row in verification["rows"]
    }
    return plain(
        {
            "files": files,
            "background_mean_iou": next(iter(shares.values())) / len(shares),
            "rounds": _rounds(folder, recipe) if recipe.pruning is not None else [],
            "test_images": verification["dataset"]["test_images"],
            "epochs": [stage["epochs"] for stage in run["stages"]],
            "finished": run["finished"],
            "machine": {key: machine[key] for key in ("cpu", "cores", "tensorflow")},
            "runtime": verification["runtime"],
        }
    )


def _rounds(folder: Path, recipe: Any) -> list[dict[str, float]]:
    """Return sparsity and validation mean IoU in the last epoch of each round."""
    with (folder / "stages" / "prune" / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    length = (recipe.pruning.end_epoch or recipe.pruning.epochs) // recipe.pruning.prunes
    last = [length * number - 2 for number in range(2, recipe.pruning.prunes + 1)]  # before the next prune, at its end
    kept = [rows[index] for index in last] + [rows[-1]]
    return [{"sparsity": float(row["sparsity"]), "val_mean_iou": float(row["val_mean_iou"])} for row in kept]


def run_cells(parts: Sequence[str], *, data: Path | None, out: Path, results: Path) -> None:
    """Run every cell that has no line yet; the first seed of all nets of a part comes first."""
    done = {(row["part"], row["net"], row["seed"]) for row in read_lines(results)}
    for part in parts:
        for seed in SEEDS.get(part, (0,)):
            for key, net in PARTS[part].items():
                if (part, key, seed) in done:
                    continue
                if net.data and data is None:
                    raise SystemExit(f"{part} needs --data DIR, a folder that holds {net.data}")
                row = run_cell(part, key, seed, data=data, out=out)
                append_line(results, row)
                print(f"{part} {key} {seed}: {_means(row)}", flush=True)


def _means(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(file["mean_iou"], 4) for name, file in row["files"].items()}


def write_report(results: Path) -> None:
    """Write the page and the figures from the finished cells."""
    rows = read_lines(results)
    lines = [_HEAD.format(name=results.name, json=results.with_suffix(".json").name)]
    if rows:
        machine, dates = rows[0]["machine"], sorted(row["finished"][:10] for row in rows)
        lines.append(
            f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, {machine['cpu']}, {machine['cores']} cores, "
            f"of which other work had a part; TensorFlow {machine['tensorflow']}; {rows[0]['runtime']}.\n"
        )
    for part, (title, table) in _TABLES.items():
        found = {key: [row for row in rows if (row["part"], row["net"]) == (part, key)] for key in PARTS[part]}
        found = {key: cells for key, cells in found.items() if cells}
        if found:
            lines += [f"## {title}\n", *table(part, found), "", *_commands(part, found), ""]
    write_text(results.with_suffix(".md"), "\n".join(lines).rstrip() + "\n")
    write_json(results.with_suffix(".json"), {"cells": rows})


_HEAD = """# The published systems at a small size

`python benchmarks/systems.py --data DIR`; each cell is a shipped recipe with settings, which `tfprune run` repeats
alone. Figures are those of the exported .tflite files on the test split. What they say is in [systems.md](systems.md).
Finished cells: [{name}]({name}); for machines: [{json}]({json}).
"""

Cells = Mapping[str, Sequence[Mapping[str, Any]]]


def _mean(cells: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], float | None]) -> float | None:
    values = [value for value in map(read, cells) if value is not None]
    return statistics.mean(values) if values else None


def _spread(cells: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], float]) -> str:
    """Return the mean over the seeds, and the lowest and highest where there are several."""
    values = [read(row) for row in cells]
    ends = f" ({_score(min(values))}-{_score(max(values))})" if len(values) > 1 else ""
    return _score(statistics.mean(values)) + ends


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".replace("0.", ".", 1)


def _row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|---" * len(cells) + "|"]


def _commands(part: str, found: Cells) -> list[str]:
    return [
        "Commands of seed 0:",
        "",
        *(f"- {PARTS[part][key].title}: `{cells[0]['command']}`" for key, cells in found.items()),
    ]


def _camvid_table(part: str, found: Cells) -> list[str]:
    """Return the table of the rounds, each beside the dense net that was trained as long."""
    lines = [
        "Validation mean IoU at the end of each round; test mean IoU of the dense net before pruning, and after all",
        "rounds. The change is relative to the dense net that was trained as long with the same loss.",
        "",
        *_head(
            "net",
            "non-zero parameters",
            "round 1",
            "round 2",
            "round 3",
            "test, before",
            "test, after",
            "change",
            "test, after, int8",
        ),
    ]
    for key, cells in found.items():
        rounds = [
            _score(_mean(cells, lambda row, index=index: row["rounds"][index]["val_mean_iou"])) for index in range(3)
        ]
        after = statistics.mean(_file(row, "pruned")["mean_iou"] for row in cells)
        last, same = _file(cells[0], "pruned"), found.get(f"dense_{key.split('_')[1]}", ())
        control = _mean(same, lambda row: _file(row, "pruned")["mean_iou"])
        lines.append(
            _row(
                PARTS[part][key].title,
                f"{last['nonzero_parameters']:,} of {last['parameters']:,}",
                *rounds,
                _spread(cells, lambda row: _file(row, "dense")["mean_iou"]),
                _spread(cells, lambda row: _file(row, "pruned")["mean_iou"]),
                "-" if control is None else f"{(after - control) / control:+.1%}",
                _spread(cells, lambda row: _file(row, "pruned", "int8")["mean_iou"]),
            )
        )
    return lines


def _vessels_table(part: str, found: Cells) -> list[str]:
    heads = ("net", "parameters", "Sens", "Spec", "Acc", "BAcc", "F1", "Jacc", "Error", "Jacc, int8")
    lines = ["Of the class branch, float32 (the last column int8); (11) to (17) of the paper.", "", *_head(*heads)]
    for key, cells in found.items():
        file = _file(cells[0], "dense")
        named = [
            _spread(cells, lambda row, name=name: _file(row, "dense")[name]["branch"])
            for name in ("sensitivity", "specificity")
        ]
        single = [
            _spread(cells, lambda row, name=name: _file(row, "dense")[name])
            for name in ("pixel_accuracy", "balanced_accuracy")
        ]
        overlap = [
            _spread(cells, lambda row, name=name: _file(row, "dense")[name]["branch"]) for name in ("dice", "iou")
        ]
        error = _spread(cells, lambda row: _file(row, "dense")["error"])
        rounded = _spread(cells, lambda row: _file(row, "dense", "int8")["iou"]["branch"])
        lines.append(_row(PARTS[part][key].title, f"{file['parameters']:,}", *named, *single, *overlap, error, rounded))
    return lines


def _classes_table(part: str, found: Cells) -> list[str]:
    """Return the table of S2 and S3: IoU of each class, and the Dice per picture beside an all-empty answer's."""
    first = next(iter(found.values()))[0]
    names = list(_file(first, "dense")["iou"])[1:]
    heads = ("net", "parameters", "mean IoU", *names, "Dice", "Dice where it is", "mean IoU, int8", "int8 file, KiB")
    lines = [
        f"{first['test_images']} test pictures. *Dice*: mean over pictures and classes, 1 where truth and answer are",
        "both empty; *where it is* counts only what the truth shows.",
        "",
        *_head(*heads),
        _row(
            "nothing anywhere",
            "",
            _score(first["background_mean_iou"]),
            *[".000"] * len(names),
            _score(_file(first, "dense")["kaggle_dice"]["all_empty"]),
            ".000",
            "",
            "",
        ),
    ]
    for key, cells in found.items():
        file = _file(cells[0], "dense")
        lines.append(
            _row(
                PARTS[part][key].title,
                f"{file['parameters']:,}",
                _spread(cells, lambda row: _file(row, "dense")["mean_iou"]),
                *(_spread(cells, lambda row, name=name: _file(row, "dense")["iou"][name] or 0.0) for name in names),
                _spread(cells, lambda row: _file(row, "dense")["kaggle_dice"]["score"]),
                _spread(cells, lambda row: _file(row, "dense")["kaggle_dice"]["defect_positive"]),
                _spread(cells, lambda row: _file(row, "dense", "int8")["mean_iou"]),
                f"{_file(cells[0], 'dense', 'int8')['file_bytes'] / 1024:,.0f}",
            )
        )
    return lines


def _file(row: Mapping[str, Any], variant: str, scheme: str = "float32") -> Mapping[str, Any]:
    return row["files"][f"{variant} {scheme}"]


_TABLES: dict[str, tuple[str, Callable[[str, Cells], list[str]]]] = {
    "s4_camvid": ("S4, road scenes: three rounds of pruning", _camvid_table),
    "s4_vessels": ("S4, thin branching lines: MobileNetV3-Small with lite R-ASPP", _vessels_table),
    "s3_strips": ("S3, drawn strips", _classes_table),
    "s3_neu_seg": ("S3, neu_seg", _classes_table),
    "s2_wells": ("S2, drawn wells", _classes_table),
}


def run_quick() -> dict[str, float]:
    """Run one tiny recipe twice in a temporary folder, and read its cell; the second start has nothing to do."""
    small = ["data.generate.counts={train: 40, val: 8, test: 8}", "training.epochs=1", "data.copies=[]"]
    recipe = load_recipe("s2_xscat_small", ["name=quick", *small, "verification.also=[]"])
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            place = run_recipe(recipe, out=folder, shared=Path(folder, "dense"))
        return {name: file["mean_iou"] for name, file in read_cell(place)["files"].items()}


def main() -> None:
    """Run what is missing, write the page, and print the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny recipe; nothing is written")
    parser.add_argument("--report", action="store_true", help="only write the page from the finished cells")
    parser.add_argument("--data", type=Path, help="the folder that holds camvid and neu_seg")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "systems", help="folder for the runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        print(json.dumps(run_quick()))
        return
    if not options.report:
        run_cells(options.parts, data=options.data, out=options.out, results=options.results)
    write_report(options.results)
    print(json.dumps({f"{row['part']}_{row['net']}_{row['seed']}": _means(row) for row in read_lines(options.results)}))


if __name__ == "__main__":
    main()
