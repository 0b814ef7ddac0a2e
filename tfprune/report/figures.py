"""The drawings of a report, each a small SVG as a data URI; drawn without a display."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import lt
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tfprune.report.folder import Row
from tfprune.report.wording import as_percent, as_stage

BLUE, ORANGE, GREY, INK = "#0072B2", "#B75A00", "#8a8a8a", "#222222"
MARKERS = "osD^vPX*<>hp8d"
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA3377", "#B08A00", "#56B4E9", "#222222")
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "tfprune",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
}

REGULARIZATION = {
    "orthogonality": "R, distance from orthonormal filters",
    "l2": "sum of squared weights",
    "gamma_l1": "sum of |gamma|",
    "group_lasso": "sum of filter lengths",
    "h_share": "H / size, share of non-zero gradients",
}
"""Columns of a history that tell of the regularizer, without strengths and summed over layers, and their labels."""

_AXES_INCHES, _LETTER_INCHES = 4.6, 0.075
"""About as wide are the axes of a figure of 5.6 inches, and a letter at 9 points."""

Histories = Mapping[str, Mapping[str, np.ndarray]]


def draw_scores(histories: Histories, sparsity: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return mean IoU over the epochs of all stages, best epochs and the share of zeros marked; None without data."""
    return _draw_curves(histories, sparsity, column="mean_iou", label="mean IoU", stages=stages)


def draw_losses(histories: Histories, sparsity: Mapping[str, Any]) -> str | None:
    """Return the loss over the epochs of all stages, the ramp marked; None without data."""
    return _draw_curves(histories, sparsity, column="loss", label="loss", stages=())


def draw_regularization(histories: Histories, sparsity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (what it shows, figure) for each measure of the regularizer over the epochs of all stages."""
    drawn = [
        (label, _draw_curves(histories, sparsity, column=column, label=label, stages=()))
        for column, label in REGULARIZATION.items()
    ]
    return [(label, figure) for label, figure in drawn if figure]


def draw_front(points: Sequence[tuple[str, Row]]) -> str | None:
    """Return file size against mean IoU for (run name, row) pairs, with the line of what nothing else beats."""
    shown = [(run, row) for run, row in points if row.file_bytes and row.mean_iou is not None]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 3.4 + 0.1 * len(shown))
        runs = list(dict.fromkeys(run for run, _ in shown))
        kinds = list(dict.fromkeys(row.name for _, row in shown))
        front = pareto_front([((row.file_bytes or 0) / 1024, row.mean_iou or 0.0) for _, row in shown])
        axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=1, linestyle=":", zorder=1)
        for run, row in shown:
            axes.plot(
                (row.file_bytes or 0) / 1024,
                row.mean_iou,
                MARKERS[kinds.index(row.name) % len(MARKERS)],
                color=RUN_COLOURS[runs.index(run) % len(RUN_COLOURS)],
                markersize=8,
                markeredgewidth=0.5,
                markeredgecolor="white",
            )
        scale_costs(axes, [row.file_bytes or 0 for _, row in shown])
        axes.set_xlabel("file, KiB")
        axes.set_ylabel("mean IoU")
        _add_front_legend(figure, runs, kinds)
        return as_data_uri(figure)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (size, score) points that no other beats in both, by growing size.

    >>> pareto_front([(2, .5), (1, .4), (3, .5), (4, .6)])
    [(1, 0.4), (2, 0.5), (4, 0.6)]
    """
    front: list[tuple[float, float]] = []
    for size, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((size, score))
    return front


def _draw_curves(
    histories: Histories,
    sparsity: Mapping[str, Any],
    *,
    column: str,
    label: str,
    stages: Sequence[Mapping[str, Any]],
) -> str | None:
    drawn = {name: columns for name, columns in histories.items() if column in columns or f"val_{column}" in columns}
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 3.3)
        starts = _stage_starts(drawn)
        zeros = _zeros_by_epoch(sparsity, starts)
        if column == "mean_iou":
            axes.set_ylim(0, 1)
            if zeros:
                axes.fill_between(
                    *zip(*zeros, strict=True), step="mid", color="#d9d9d9", label="share of zeros", zorder=0
                )
        for position, (name, columns) in enumerate(drawn.items()):
            epochs = columns["epoch"] + starts[name]
            for key, colour, style, legend in (
                (column, ORANGE, "--", "train"),
                (f"val_{column}", BLUE, "-", "validation"),
            ):
                if key in columns:
                    text = legend if position == 0 else None
                    axes.plot(epochs, columns[key], style, color=colour, linewidth=1.6, marker=".", ms=4, label=text)
        _mark_best(axes, drawn, starts, stages)
        _mark_stages(axes, drawn, starts)
        _mark_ramp(axes, zeros)
        if column != "mean_iou":
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.2 * (high - low))
        axes.set_xlim(0.5, max(columns["epoch"][-1] + starts[name] for name, columns in drawn.items()) + 0.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        handles, _ = axes.get_legend_handles_labels()
        figure.legend(loc="outside lower center", ncols=len(handles), fontsize=9, handlelength=1.8)
        return as_data_uri(figure)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure, sizes in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def scale_costs(axes: Axes, costs: Sequence[float]) -> None:
    """Write costs along the x axis, by factors where they differ much."""
    if max(costs) > 5 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def _stage_starts(histories: Histories) -> dict[str, float]:
    """Return what to add to a stage's epochs so that all stages stand in one row, the first epoch being 1."""
    starts, end = {}, 0.0
    for name, columns in histories.items():
        first, last = columns["epoch"][0], columns["epoch"][-1]
        starts[name] = end + 1 - first
        end = last + starts[name]
    return starts


def _zeros_by_epoch(sparsity: Mapping[str, Any], starts: Mapping[str, float]) -> list[tuple[float, float]]:
    return [
        (entry["epoch"] + starts[entry["stage"]], entry["sparsity"])
        for entry in sparsity.get("history") or []
        if entry.get("stage") in starts and entry.get("sparsity") is not None
    ]


def _mark_stages(axes: Axes, histories: Histories, starts: Mapping[str, float]) -> None:
    """Write each stage's name above its epochs, with a line where it begins; names turn where they would overlap."""
    ends = {name: (columns["epoch"] + starts[name])[[0, -1]] for name, columns in histories.items()}
    centres = [(first + last) / 2 for first, last in ends.values()]
    inches = _AXES_INCHES / max(last for _, last in ends.values())
    wide = [inches * (right - left) for left, right in pairwise(centres)]
    needed = [_LETTER_INCHES * (len(left) + len(right) + 2) / 2 for left, right in pairwise(ends)]
    turned = {"rotation": 45, "ha": "left"} if any(map(lt, wide, needed)) else {"ha": "center"}
    for (name, (first, _)), centre in zip(ends.items(), centres, strict=True):
        if first > 1:
            axes.axvline(first - 0.5, color=INK, linewidth=0.8)
        coordinates = ("data", "axes fraction")
        axes.annotate(as_stage(name), (centre, 1.02), xycoords=coordinates, va="bottom", fontsize=9, **turned)


def _mark_ramp(axes: Axes, zeros: Sequence[tuple[float, float]]) -> None:
    """Hatch the epochs at which zeros are added and write how many there are at their end."""
    if not zeros:
        return
    highest = max(share for _, share in zeros)
    end = next(epoch for epoch, share in zeros if share >= highest - 1e-4)
    axes.axvspan(
        zeros[0][0] - 0.5, end + 0.5, facecolor="none", edgecolor="#c4c4c4", hatch="///", linewidth=0, zorder=0
    )
    place = ((zeros[0][0] + end) / 2, 0.97)
    text = f"ramp to\n{as_percent(highest, 0)} zeros"
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.annotate(text, place, xycoords=("data", "axes fraction"), ha="center", va="top", fontsize=8, bbox=box)


def _mark_best(
    axes: Axes, histories: Histories, starts: Mapping[str, float], stages: Sequence[Mapping[str, Any]]
) -> None:
    """Ring the epoch whose weights each stage kept."""
    text: str | None = "kept"
    for stage in stages:
        name, best = stage.get("name"), stage.get("best_epoch")
        column = histories.get(str(name), {}).get("val_mean_iou")
        if column is None or best is None:
            continue
        here = histories[str(name)]["epoch"] == best
        if here.any():
            place = (best + starts[str(name)], column[here][0])
            axes.plot(*place, "o", ms=9, markerfacecolor="none", markeredgecolor=INK, linestyle="none", label=text)
            text = None


def _add_front_legend(figure: Figure, runs: Sequence[str], kinds: Sequence[str]) -> None:
    handles = [
        *(_handle("s", RUN_COLOURS[index % len(RUN_COLOURS)], run) for index, run in enumerate(runs)),
        *(_handle(MARKERS[index % len(MARKERS)], GREY, kind) for index, kind in enumerate(kinds)),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)


def _handle(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], marker=marker, color=colour, linestyle="none", label=label)


def as_data_uri(figure: Figure) -> str:
    """Return a figure as an SVG that a page can hold."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
