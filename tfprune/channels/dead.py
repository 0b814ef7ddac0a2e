"""Exact shrinking: what does nothing in a model goes, and its output stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfprune.channels.checking import TOLERANCE, logits_of, relative_difference, runs_in_float32
from tfprune.channels.constants import Constants, find_constants, reader_axes, reads_all_places_alike
from tfprune.channels.graph import ChannelGraph, walk
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.labelling import label_channels
from tfprune.channels.planning import write_plan
from tfprune.channels.rebuild import Rebuilder, rebuild
from tfprune.channels.removal import Equality, Removal
from tfprune.channels.sampling import random_inputs
from tfprune.errors import InputError, TfpruneError
from tfprune.keras import keras


def remove_dead_channels(model: Any, *, check: bool = True) -> Removal:
    """Remove the channels that contribute nothing, as masks at filter granularity leave them.

    A channel goes when everything that reads it multiplies by zero, or when it is zero everywhere, or
    when it is one number everywhere and its readers have a bias to take that over and no padding
    (with padding the border would change). Nothing else goes, and the output stays.

    Args:
        model: a functional or sequential tf_keras model; it is not changed.
        check: compare the outputs of both models on random inputs.

    Raises:
        InputError: when the model is no graph of layers, or nothing in it is dead.
        TfpruneError: when the outputs differ, which is a fault of tfprune.
    """
    graph = label_channels(model)
    groups = ChannelGroups(graph)
    constants = find_constants(graph)
    removed = _dead_groups(groups, constants)
    if not removed.any():
        raise InputError(f"model '{model.name}' has no dead channel: every one of its {len(groups)} groups counts")
    keep = groups.keep(removed)
    rebuilder = Rebuilder(graph, keep)
    folded = _folded_biases(graph, constants, keep)

    def read(variable: Any) -> np.ndarray:
        return folded.get(id(variable), variable.numpy())

    rebuilder.fill(read)
    equality = None
    if check:
        pair = (model, rebuilder.model) if runs_in_float32(model) else _twins(graph, keep, read)
        inputs = random_inputs(model, batch=2)
        difference = relative_difference(*(logits_of(each, inputs) for each in pair))
        equality = Equality(difference, 0.0)
        if not equality.holds:
            raise TfpruneError(
                f"model '{model.name}': removing dead channels changed the output by {difference:.1e} of its scale "
                f"(accepted: {TOLERANCE:.0e}); please report this"
            )
    return Removal(rebuilder.model, write_plan(groups, removed), equality)


def _twins(graph: ChannelGraph, keep: np.ndarray, read: Callable[[Any], np.ndarray]) -> tuple[Any, Any]:
    """Return a model and what is left of it, both in float32 and always in inference mode."""
    left = Rebuilder(graph, keep, dtype="float32")
    left.fill(read)
    return rebuild(graph, np.ones(len(keep), bool), dtype="float32"), left.model


def _dead_groups(groups: ChannelGroups, constants: Constants) -> np.ndarray:
    """Return which groups are dead; a channel that only dead filters read is dead as well."""
    removed = np.zeros(len(groups), bool)
    if not len(groups):
        return removed
    reads = np.array([slot.role == "in" for slot in groups.slots], bool)[groups.slot_index]
    possible = np.ones(len(groups), bool)
    for labels in groups.graph.contracted:
        numbers = groups.numbers(labels)
        possible[numbers[numbers >= 0]] = False
    while True:
        harmless = _harmless_reads(groups, constants, groups.keep(removed))
        entries = zip(groups.slot_index[reads], groups.positions[reads], strict=True)
        fine = np.array([harmless[index][position] for index, position in entries], bool)
        dead = possible & (np.bincount(groups.group_of[reads], ~fine, minlength=len(groups)) == 0)
        for together in groups.never_empty:
            if dead[together].all():
                dead[together[0]] = False
        if np.array_equal(dead, removed):
            return removed
        removed = dead


def _harmless_reads(groups: ChannelGroups, constants: Constants, keep: np.ndarray) -> dict[int, np.ndarray]:
    """Return for every reading slot and position whether nothing changes when that is left out."""
    graph, number = groups.graph, {id(slot): index for index, slot in enumerate(groups.slots)}
    harmless = {index: np.zeros(len(slot.labels), bool) for index, slot in enumerate(groups.slots)}
    seen: set[int] = set()
    for _, node in walk(graph.model):
        axes = reader_axes(node.layer)
        slot = graph.slots.get((id(axes[0]), axes[1] % len(axes[0].shape))) if axes else None
        if slot is None:
            continue
        given = constants[id(node.keras_inputs[0])].reshape(-1, len(slot.labels))
        fine = (given == 0).all(axis=0) | ~_weighs(graph, axes, keep)
        if _folds(node.layer):
            fine |= ~np.isnan(given).any(axis=0)
        index = number[id(slot)]
        harmless[index] = fine & harmless[index] if index in seen else fine
        seen.add(index)
    return harmless


def _weighs(graph: ChannelGraph, axes: tuple[Any, int, int], keep: np.ndarray) -> np.ndarray:
    """Return for each channel a kernel reads whether any filter that stays has a weight for it."""
    variable, reads, makes = axes
    kernel = keras.backend.get_value(variable)
    makers = graph.slots[id(variable), makes % kernel.ndim]
    kernel = kernel.compress(keep[makers.labels], makes)
    return (np.moveaxis(kernel, reads, -1) != 0).reshape(-1, kernel.shape[reads]).any(axis=0)


def _folds(layer: Any) -> bool:
    """Return whether a bias can take over what a layer makes of a constant, exactly and at all places."""
    plain = type(layer).__name__ in ("Conv1D", "Conv2D", "Conv3D", "Dense") and getattr(layer, "groups", 1) == 1
    return plain and layer.bias is not None and reads_all_places_alike(layer) and len(layer._inbound_nodes) == 1


def _folded_biases(graph: ChannelGraph, constants: Constants, keep: np.ndarray) -> dict[int, np.ndarray]:
    """Return id of bias -> its value with the constants of removed channels added."""
    folded = {}
    for _, node in walk(graph.model):
        axes = reader_axes(node.layer)
        if axes is None or not _folds(node.layer):
            continue
        slot = graph.slots[id(axes[0]), axes[1] % len(axes[0].shape)]
        given = np.where(keep[slot.labels], 0.0, np.nan_to_num(constants[id(node.keras_inputs[0])]))
        if given.any():
            kernel = keras.backend.get_value(axes[0]).astype(np.float64)
            taps = kernel.reshape(-1, *kernel.shape[-2:])
            bias = keras.backend.get_value(node.layer.bias)
            folded[id(node.layer.bias)] = (bias + np.einsum("tio,i->o", taps, given)).astype(bias.dtype)
    return folded
