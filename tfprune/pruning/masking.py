"""From evidence to masks: the criterion, pooled by granularity, ranked in its scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfprune.channels.planning import keep_one_of_each
from tfprune.errors import InputError
from tfprune.pruning.choice import keep_highest, keep_over_all
from tfprune.pruning.granularity import Block, Pattern, Weight
from tfprune.pruning.graph import filter_axis, norms_after, prunable_kernel, trace_calls
from tfprune.pruning.groups import ChannelGroup, Member, drop_channels, sum_channels

Masks = dict[tuple[str, str], np.ndarray]
"""(layer, weight) -> bool mask of the weight's shape."""


def filters_last(layer: Any, array: np.ndarray) -> np.ndarray:
    """Return a kernel-shaped array with its filters on the last axis (and back: it is its own inverse)."""
    return array if filter_axis(layer) == -1 else np.swapaxes(array, -1, -2)


def filter_groups(model: Any, masked: Sequence[str]) -> tuple[ChannelGroup, ...]:
    """Return one group per layer: its filters, each with its bias and the gamma and beta of the norm that follows.

    Without the norm's beta, relu(beta) would keep a dropped channel alive.
    """
    calls, _ = trace_calls(model)
    layers, norms = {call.path: call.layer for call in calls}, norms_after(calls)
    groups = []
    for path in masked:
        layer = layers[path]
        kernel = prunable_kernel(layer)
        channels = int(getattr(layer, kernel).shape[filter_axis(layer)])
        members = [Member(path, kernel, filter_axis(layer), tuple((i,) for i in range(channels)))]
        followers = [(path, layer, "bias")]
        if path in norms:
            followers += [(*norms[path], "gamma"), (*norms[path], "beta")]
        for owner, owner_layer, name in followers:
            vector = getattr(owner_layer, name, None)
            if vector is not None:
                each = int(vector.shape[0]) // channels  # more than one with a depth multiplier
                indices = tuple(tuple(range(i * each, (i + 1) * each)) for i in range(channels))
                members.append(Member(owner, name, 0, indices))
        groups.append(ChannelGroup(path, tuple(members)))
    return tuple(groups)


def mask_kernels(
    paths: Sequence[str],
    score: Callable[[str], np.ndarray],
    granularity: Weight | Block | Pattern,
    sparsity: Callable[[str], float | None],
    *,
    global_sparsity: float | None,
    normalize: bool,
) -> dict[str, np.ndarray]:
    """Return the bool masks of kernels (filters last), each for itself or, with `global_sparsity`, ranked together.

    Args:
        score: layer -> its scores, of the kernel's shape; asked for one after the other, so that
            those of a layer that is ranked for itself need not be kept.
        sparsity: layer -> its own sparsity; None leaves it to the ranking over all.
    """
    masks, together = {}, {}
    for path in paths:
        own = sparsity(path)
        if own is None:
            together[path] = score(path)
        else:
            masks[path] = granularity.mask(score(path), own)
    if together:
        scores, sizes = zip(*map(granularity.pool, together.values()), strict=True)
        kept = keep_over_all(scores, sizes if sizes[0] is not None else None, global_sparsity, normalize=normalize)
        for (path, layer_scores), keep in zip(together.items(), kept, strict=True):
            masks[path] = granularity.spread(keep, layer_scores.shape)
    return masks


def filter_scores(scores: np.ndarray) -> np.ndarray:
    """Return the score of each filter, shape (filters,): the sum over its weights, unless it has one already."""
    return scores if scores.ndim == 1 else scores.reshape(-1, scores.shape[-1]).sum(axis=0)


def score_groups(
    groups: Sequence[ChannelGroup],
    scores_of: Mapping[str, np.ndarray],
    kernels: Mapping[str, tuple[str, int]],
    shapes: Mapping[tuple[str, str], tuple[int, ...]],
) -> list[np.ndarray]:
    """Return the scores of each group's channels: the sum over the filters in it, shape (channels,).

    The input slices of the layers that follow are not counted: they would count the same channel twice.

    Args:
        scores_of: per layer, shape (filters,).
        kernels: per masked layer the name of its kernel and the axis of its filters, counted from the end.
        shapes: of all weights that the groups touch.

    Raises:
        InputError: when a group holds no filters of a masked layer.
    """
    scores = []
    for group in groups:
        filters = [
            member
            for member in group.members
            if member.layer in kernels and (member.weight, _signed(member, shapes)) == kernels[member.layer]
        ]
        if not filters:
            raise InputError(
                f"channel group '{group.name}' holds no filters of a masked layer, so nothing can be scored; "
                f"it has {', '.join(f'{m.layer}.{m.weight} axis {m.axis}' for m in group.members)}"
            )
        scores.append(sum(sum_channels(scores_of[member.layer], member.indices) for member in filters))
    return scores


def _signed(member: Member, shapes: Mapping[tuple[str, str], tuple[int, ...]]) -> int:
    """Return a member's axis counted from the end."""
    rank = len(shapes[member.layer, member.weight])
    return member.axis % rank - rank


def mask_groups(
    groups: Sequence[ChannelGroup],
    scores: Sequence[np.ndarray],
    shapes: Mapping[tuple[str, str], tuple[int, ...]],
    sparsity: Callable[[str], float | None],
    *,
    global_sparsity: float | None,
    normalize: bool,
) -> Masks:
    """Return the bool masks of all weights that the groups touch, from the scores of their channels."""
    own = [sparsity(group.name) for group in groups]
    kept = [keep_highest(score, z) if z is not None else None for score, z in zip(scores, own, strict=True)]
    together = [index for index, z in enumerate(own) if z is None]
    if together:
        ranked = keep_over_all(
            [scores[index] for index in together],
            [_channel_sizes(groups[index], shapes) for index in together],
            global_sparsity,
            normalize=normalize,
        )
        for index, keep in zip(together, ranked, strict=True):
            kept[index] = keep
    masks = {key: np.ones(shape, bool) for key, shape in shapes.items()}
    for group, score, keep in zip(groups, scores, kept, strict=True):
        keep = ~keep_one_of_each(group.never_empty, ~keep, score, families=[np.arange(group.channels)])
        for member in group.members:
            drop_channels(masks[member.layer, member.weight], member, keep)
    return masks


def _channel_sizes(group: ChannelGroup, shapes: Mapping[tuple[str, str], tuple[int, ...]]) -> np.ndarray:
    """Return the weights in each channel of a group."""
    sizes = np.zeros(group.channels, np.int64)
    for member in group.members:
        shape = shapes[member.layer, member.weight]
        each = int(np.prod(shape)) // shape[member.axis]
        sizes += each * np.array([len(positions) for positions in member.indices])
    return sizes
