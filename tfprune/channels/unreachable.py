"""What a person can do when no removal of channels meets a budget."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfprune.budget import Bound, write_amount
from tfprune.channels.counting import ChannelCosts
from tfprune.channels.planning import Selection
from tfprune.errors import InputError

_BY_PICTURE = ("macs", "activation_bytes", "arena_bytes", "latency_ms")
"""Quantities that fall with the number of pixels."""
_MOST_REASONS = 3


def explain_unreachable(
    bound: Bound,
    selection: Selection,
    costs: ChannelCosts,
    keep: np.ndarray,
    *,
    before: float,
    least: float,
    limit: float,
) -> InputError:
    """Return the error for a bound that the strongest removal, which keeps `keep`, does not meet.

    Args:
        bound: the bound.
        selection: its guards kept channels from going.
        costs: of the dense model.
        keep: bool per label of the graph's space.
        before, least, limit: the quantity of the dense model, of the strongest removal, and what it may be.
    """

    def text(value: float) -> str:
        return write_amount(bound.quantity, value)

    said = [
        f"budget {bound} cannot be met by removing channels: {bound.quantity} is {text(before)} before and "
        f"{text(least)} with all gone that may go, and the limit is {text(limit)}."
    ]
    if bound.quantity in _BY_PICTURE:
        said += _smaller_picture(costs.graph.model, costs, limit / least)
    if bound.quantity in ("activation_bytes", "arena_bytes"):
        said += _narrower_start(costs, keep, limit / least)
    if bound.quantity in ("file_bytes", "parameters"):
        said.append("Start from a net with fewer levels, or a narrower first level.")
    reasons = costs.graph.space.frozen_reasons().values()
    stuck = [reason for reason in dict.fromkeys(reasons) if not reason.endswith(("model input", "model output"))]
    said.append(f"What keeps channels from going: {'; '.join([selection.guards, *stuck[:_MOST_REASONS]])}.")
    return InputError(" ".join(said))


def _smaller_picture(model: Any, costs: ChannelCosts, share: float) -> list[str]:
    """Name the picture size at which the strongest removal would fit: all of these fall with its pixels."""
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or None in shape[1:3]:
        return []
    stride = costs.stride()
    size = [math.floor(side * math.sqrt(share) / stride) * stride for side in shape[1:3]]
    if min(size) < stride:
        return []
    return [f"Pictures of {size[0]}x{size[1]} in place of {shape[1]}x{shape[2]} would do."]


def _narrower_start(costs: ChannelCosts, keep: np.ndarray, share: float) -> list[str]:
    """Name what is largest at the peak, and the width of it that would fit."""
    _, moment = costs.peak(keep)
    largest = max(moment.alive, key=lambda key: costs.tensor_size(key, keep))
    width = int(keep[costs.labels(largest)].sum())
    said = f"The peak is where '{moment.layer}' runs; its largest tensor is that of '{costs.names[largest]}'"
    narrower = math.floor(width * share)
    if not narrower or costs.is_input(largest):
        return [f"{said}."]
    return [f"{said}, with {width} channels: a net with {narrower} there would do."]
