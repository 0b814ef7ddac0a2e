"""Channels physically removed from any functional Keras model, exactly.

The way through: `labels` (union-find) <- `rules`, `ops`, `probing` (what each call does with its
channels) <- `labelling` (walks a model; `graph` holds what it finds) -> `groups` (what goes together)
-> `scores` -> `planning`, `plan` (what goes) -> `rebuild` (the smaller model) -> `checking` (it equals
the masked original). `removal` strings these together; `dead` removes what does nothing already;
`cost` counts.

Importing this package loads no TensorFlow; using it does.
"""

from __future__ import annotations

import importlib
from typing import Any

WAYS = {
    "one_shot": "all at once, then the epochs",
    "iterative": "in rounds that halve the work, with epochs between them, ranked anew each time",
    "gradual": "masks close on a schedule for ramp_epochs (default: half), the masked channels go, then the rest",
    "from_scratch": "the smaller net drawn anew, trained for the epochs of all stages before and these",
}
"""How channels go and accuracy comes back."""

CONTROLS = {
    "random": "channels drawn by lot, the same share of every layer, as many MACs, the same epochs",
    "width_scaled": "all layers narrowed alike to as many MACs, from scratch for all epochs together",
    "one_shot": "the same criterion and budget, all at once, the same epochs",
    "dense_longer": "the dense net, trained on for all epochs that came after it, nothing masked or removed",
}
"""Nets that stand beside a smaller one, so that what it owes to pruning can be seen."""

_HOMES = {
    "Call": "graph",
    "ChannelGraph": "graph",
    "ChannelGroups": "groups",
    "Cost": "cost",
    "Equality": "checking",
    "Family": "groups",
    "LayerCost": "cost",
    "LayerPlan": "plan",
    "OPS": "ops",
    "Plan": "plan",
    "RULES": "rules",
    "Removal": "removal",
    "Selection": "planning",
    "Slice": "groups",
    "apply_plan": "removal",
    "label_channels": "labelling",
    "measure_cost": "cost",
    "narrowed": "removal",
    "plan_channels": "removal",
    "remove_channels": "removal",
    "remove_dead_channels": "dead",
    "score_groups": "scores",
}
"""Name -> the module of this package that it lives in."""

__all__ = sorted([*_HOMES, "CONTROLS", "WAYS"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
