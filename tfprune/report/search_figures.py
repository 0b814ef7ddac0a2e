"""The drawings of a search: fronts, hypervolume, and all trials as lines over parallel axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize

from tfprune.report.figures import BLUE, GREY, INK, RUN_COLOURS, STYLE, as_data_uri, new_figure, scale_costs
from tfprune.report.wording import COSTS, as_cost, write_value

Trial = Mapping[str, Any]
_MOST_LABELS = 6
_ABSENT = -0.2
"""Where a line passes an axis whose field the trial does not have."""


def draw_cost_front(search: Mapping[str, Any], cost: str) -> str | None:
    """Return a cost against the quality of all finished trials, with the line of what nothing else beats."""
    quality = search["quality"]
    shown = [
        trial for trial in search["trials"] if trial["figures"].get(quality) is not None and trial["figures"].get(cost)
    ]
    if not shown:
        return None
    scale, front = COSTS[cost].per_unit, set(search["fronts"][cost])
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 3.6)
        for trial in sorted(shown, key=lambda trial: trial["trial"] in front):  # the front on top of its equals
            place = (trial["figures"][cost] / scale, trial["figures"][quality])
            marker, colour = ("x", GREY) if trial["broken"] else ("o", BLUE if trial["trial"] in front else GREY)
            axes.plot(*place, marker, color=colour, markersize=6, markeredgecolor=colour if marker == "x" else "white")
        line = sorted((t["figures"][cost] / scale, t["figures"][quality]) for t in shown if t["trial"] in front)
        if line:
            axes.step(*zip(*line, strict=True), where="post", color=BLUE, linewidth=1, linestyle=":", zorder=1)
        for trial in shown:
            if trial["trial"] in front:
                place = (trial["figures"][cost] / scale, trial["figures"][quality])
                text = trial["trial"].removeprefix("trial_")
                axes.annotate(text, place, xytext=(4, 4), textcoords="offset points", fontsize=8)
        scale_costs(axes, [trial["figures"][cost] / scale for trial in shown])
        axes.margins(0.08)
        axes.set_xlabel(f"{COSTS[cost].label}, {COSTS[cost].unit}")
        axes.set_ylabel(f"{quality}, validation")
        return as_data_uri(figure)


def draw_hypervolume(search: Mapping[str, Any]) -> str | None:
    """Return the hypervolume of each cost's front after each trial; None where nothing is feasible."""
    lines = {cost: values for cost, values in search["hypervolume"].items() if any(values)}
    if not lines:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 3.2)
        for index, (cost, values) in enumerate(lines.items()):
            colour, dashes = RUN_COLOURS[index % len(RUN_COLOURS)], "-" if index < len(RUN_COLOURS) else "--"
            trials = range(1, len(values) + 1)
            axes.step(trials, values, dashes, where="post", color=colour, linewidth=1.6, label=COSTS[cost].label)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("trials that have ended")
        axes.set_ylabel("hypervolume")
        axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower center", ncols=min(4, len(lines)), fontsize=9)
        return as_data_uri(figure)


def draw_parallel(search: Mapping[str, Any]) -> str | None:
    """Return every finished trial as a line over one axis per range, cost and quality, coloured by its quality."""
    quality = search["quality"]
    shown = [trial for trial in search["trials"] if trial["figures"].get(quality) is not None]
    if not shown:
        return None
    names = [*search["ranges"], *search["costs"], quality]
    heights = {name: _heights(search, shown, name) for name in names}
    scores = [trial["figures"][quality] for trial in shown]
    colours = matplotlib.colormaps["viridis_r"]
    norm = Normalize(min(scores), max(max(scores), min(scores) + 1e-6))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = new_figure(max(6.0, 1.25 * len(names)), 4.0)
        order = np.argsort(scores)
        for index in order:
            trial, ys = shown[index], [heights[name][0][index] for name in names]
            style = {"linestyle": "--", "color": GREY} if trial["broken"] else {"color": colours(norm(scores[index]))}
            axes.plot(range(len(names)), ys, linewidth=1.4, alpha=0.85, **style)
        for position, name in enumerate(names):
            axes.axvline(position, color=INK, linewidth=0.8)
            for height, text in heights[name][1]:
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
                axes.annotate(text, (position, height), xytext=(3, 0), textcoords="offset points", fontsize=7, bbox=box)
        axes.set_xlim(-0.2, len(names) - 0.4)
        axes.set_ylim(_ABSENT - 0.05, 1.06)
        axes.set_xticks(range(len(names)), [_axis_name(name) for name in names], fontsize=8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        return as_data_uri(figure)


def _heights(search: Mapping[str, Any], shown: Sequence[Trial], name: str) -> tuple[list[float], list[Any]]:
    """Return where each trial crosses an axis (0 to 1), and the labels on it: (height, text)."""
    if name in search["ranges"]:
        options = search["ranges"][name]
        last = max(1, len(options) - 1)
        places = [options.index(t["values"][name]) / last if name in t["values"] else _ABSENT for t in shown]
        chosen = sorted({round(share * last) for share in np.linspace(0, 1, min(_MOST_LABELS, len(options)))})
        labels = [(index / last, write_value(options[index])) for index in chosen if index < len(options)]
        return places, labels + ([(_ABSENT, "absent")] if _ABSENT in places else [])
    told = [trial["figures"].get(name) for trial in shown]
    known = [value for value in told if value is not None] or [0.0]
    low, room = min(known), (max(known) - min(known)) or 1.0
    ends = [(0.0, min(known)), (1.0, max(known))] if max(known) > min(known) else [(0.0, low)]
    labels = [(height, as_cost(name, value) if name in COSTS else f"{value:.3f}") for height, value in ends]
    return [_ABSENT if value is None else (value - low) / room for value in told], labels


def _axis_name(name: str) -> str:
    return f"{COSTS[name].label}\n{COSTS[name].unit}" if name in COSTS else name.replace(".", "\n").replace("_", "\n")
