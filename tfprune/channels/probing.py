"""Ops without weights that no rule knows: ask them what they do with channels, with random numbers.

A slice, a split, a lambda or a layer of the user's own is called on random signed floats, whole and
with some channels left out. What it does then tells how its output channels hang on its inputs. In
this order: it sums channels away (contraction), it only picks channels (gather), it does the same
to what is left when channels are left out (keeps them apart), it does so in blocks. Else it freezes.

An op can behave differently on other numbers. That is why a finished model is always compared with
its masked original, and the probed ops are frozen when the two differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tfprune.channels.copying import copy_layer, is_op_layer
from tfprune.channels.graph import Call, Gather
from tfprune.channels.labels import Labels
from tfprune.channels.sampling import Left, is_constant, map_arguments
from tfprune.keras import keras, tf

_MAX_BLOCK_CHANNELS = 512
_MAX_TEAM = 4
_SMALL = (5, 4)
_ERRORS = (ValueError, TypeError, IndexError, tf.errors.OpError)

Arrays = list[np.ndarray]


class Experiment:
    """An op and random inputs for it: `run(inputs)` gives its outputs, or None where it refuses them."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.rng = np.random.default_rng(0)
        self.varied = [
            i
            for i, tensor in enumerate(call.tensors)
            if (tensor.dtype.is_floating or tensor.dtype.is_bool) and len(tensor.shape)
        ]
        self.inputs, self.outputs = self._start()
        self.summed: set[int] = set()

    def _start(self) -> tuple[Arrays, Arrays | None]:
        """Try on small images where all of the call have one size and no channels on it, else at the real size."""
        shapes = [self._real_shape(tensor) for tensor in self.call.tensors]
        ends = [tuple(tensor.shape) for tensor in self.call.outputs]
        sizes = {shape[1:3] for shape in [*shapes, *ends] if len(shape) == 4 and shape[1:3] != (1, 1)}
        channels_within = any(labels.ndim == 4 and max(labels.shape[1:3]) > 1 for labels in self.call.inputs)
        if len(sizes) == 1 and not channels_within and None not in (size := sizes.pop()) and min(size) > max(_SMALL):
            small = [(shape[0], *_SMALL, *shape[3:]) if shape[1:3] == size else shape for shape in shapes]
            inputs = self._draw(small)
            outputs = self.run(inputs)
            wanted = [_SMALL if end[1:3] == size else end[1:3] for end in ends]
            if outputs is not None and [output.shape[1:3] for output in outputs] == wanted:
                return inputs, outputs
        inputs = self._draw(shapes)
        return inputs, self.run(inputs)

    def _real_shape(self, tensor: Any) -> tuple[int, ...]:
        shape = tuple(tensor.shape)
        if None in shape[1:]:
            return tuple(self.call.graph.samples[id(tensor)].shape)
        return (2, *shape[1:]) if shape and shape[0] is None else shape

    def _draw(self, shapes: list[tuple[int, ...]]) -> Arrays:
        arrays = []
        for index, (tensor, shape) in enumerate(zip(self.call.tensors, shapes, strict=True)):
            if index in self.varied:
                values = self.rng.normal(size=shape)
                arrays.append(values > 0 if tensor.dtype.is_bool else values.astype(tensor.dtype.as_numpy_dtype))
            else:
                arrays.append(np.asarray(self.call.graph.samples[id(tensor)]))
        return arrays

    def run(self, inputs: Arrays, left: Left | None = None) -> Arrays | None:
        """Return the outputs for these inputs, or None when the op does not take them.

        With `left`, arrays among its arguments lose the numbers of the channels that are not left.
        """
        values = {id(t): tf.constant(array) for t, array in zip(self.call.tensors, inputs, strict=True)}
        args, kwargs = map_arguments(self.call.node, values, inference=True, left=left)
        layer = self.call.layer
        # A layer of the user's may have noted the width when it was built: each run gets a new one.
        is_function = is_op_layer(layer) or type(layer) is keras.layers.Lambda
        try:
            outputs = (layer if is_function else copy_layer(layer))(*args, **kwargs)
        except _ERRORS:
            return None
        return [np.asarray(output) for output in tf.nest.flatten(outputs)]

    def taken(
        self, which: list[int], axes: dict[int, int], chosen: np.ndarray, array_axis: int | None = None
    ) -> Arrays | None:
        """Return the outputs when only the `chosen` channels of the inputs `which` are there.

        Arrays among the arguments lose channels on `array_axis`, None where they have none.
        """
        inputs, count = list(self.inputs), self.inputs[which[0]].shape[axes[which[0]]]
        for index in which:
            inputs[index] = inputs[index].take(chosen, axes[index])
        return self.run(inputs, None if array_axis is None else Left(chosen, count, array_axis))


def probe(call: Call) -> list[Labels]:
    """Label the outputs of an op by experiment; see the head of this module."""
    if (copies := _copies(call)) is not None:
        return copies
    if all(call.graph.space.is_frozen(labels).all() for labels in call.inputs):
        return call.frozen_outputs("reads frozen channels only")
    experiment = Experiment(call)
    if experiment.outputs is None:
        return call.opaque("it could not be probed")
    axes = _label_axes(experiment)
    summed = experiment.summed = _summed_away(experiment, axes)
    rest = {index: axis for index, axis in axes.items() if index not in summed}
    yes_or_no = any(experiment.inputs[index].dtype == bool for index in rest)  # too little to tell channels by
    for finding in (_apart,) if summed or yes_or_no else (_gather, _apart, _blocks):
        if (labels := finding(experiment, rest)) is not None:
            call.graph.probed[call.path] = call.layer
            return labels
    if not summed:
        return call.opaque(_why_frozen(experiment, rest))
    _freeze_others(call, summed)
    call.graph.probed[call.path] = call.layer
    return call.frozen_outputs("sums channels away")


def _why_frozen(experiment: Experiment, axes: dict[int, int]) -> str:
    if not axes:
        return "reads a single channel, which stays"
    for team in _teams(experiment, axes):
        fewer = np.arange(experiment.inputs[team[0]].shape[axes[team[0]]] - 1)
        if experiment.taken(team, axes, fewer) is not None:
            return "mixes its channels"
    return "its code or its arrays fix the number of channels"


def _copies(call: Call) -> list[Labels] | None:
    """Repeat, tile: every output channel is a copy of the one channel there is, and may go on its own."""
    floats = [i for i, tensor in enumerate(call.tensors) if tensor.dtype.is_floating and len(tensor.shape)]
    read = {id(call.tensors[i]): call.tensors[i] for i in floats}
    if [tensor.shape[-1] for tensor in read.values()] != [1] or len(call.outputs) > 1:
        return None
    if not len(call.outputs[0].shape) or call.outputs[0].shape[-1] in (None, 1):
        return None
    experiment = Experiment(call)
    source = experiment.inputs[floats[-1]]
    if experiment.outputs is None or not np.array_equal(*np.broadcast_arrays(source, experiment.outputs[0])):
        return None
    width = experiment.outputs[0].shape[-1]
    call.graph.probed[call.path] = call.layer
    call.graph.gathers[id(call.node)] = Gather((floats[0],), (np.zeros(width, int),))
    return [call.spread(call.fresh(width))]


def _label_axes(experiment: Experiment) -> dict[int, int]:
    """Return for each input with channels the axis they lie on; of several labelled axes one is left.

    That is the last one that the op keeps apart on its own: maxout takes the largest along one axis, and keeps another.
    """
    call, axes = experiment.call, {}
    for index in experiment.varied:
        labels = call.inputs[index]
        labelled = [axis for axis, size in enumerate(labels.shape) if size > 1]
        if len(labelled) > 1:
            chosen = {axis: np.arange(labels.shape[axis] - 1) for axis in labelled[::-1]}
            kept = (axis for axis, some in chosen.items() if _output_axis(experiment, [index], {index: axis}, some))
            labelled = [next(kept, labelled[-1])]
            call.inputs[index] = _united_on(call, labels, labelled[0])
        if labelled:
            axes[index] = labelled[0]
    return axes


def _united_on(call: Call, labels: Labels, axis: int) -> Labels:
    """Unite labels that lie on several axes along all but one, and return those on that one."""
    rows = np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis])
    call.unite(rows[1:], rows[:1])
    return np.moveaxis(rows[:1].reshape((1,) * (labels.ndim - 1) + (-1,)), -1, axis)


def _teams(experiment: Experiment, axes: dict[int, int]) -> Iterator[list[int]]:
    """Yield sets of inputs of one width that may lose channels together, large sets first.

    Of sets as large, that of the widest inputs comes first, for the others are then frozen; and of inputs as wide the
    last one: in `tf.matmul(keys, values, transpose_a=True)` the values' channels end on the last axis.
    """
    call = experiment.call
    widths = {index: experiment.inputs[index].shape[axis] for index, axis in axes.items()}
    free = {index: int((~call.graph.space.is_frozen(call.inputs[index])).sum()) for index in axes}
    order = sorted(axes, key=lambda index: (free[index], index), reverse=True)
    sizes = range(len(axes), 0, -1) if len(axes) <= _MAX_TEAM else sorted({len(axes), 1}, reverse=True)
    for size in sizes:
        for team in combinations(order, size):
            if len({widths[index] for index in team}) == 1:
                yield list(team)


def _unite(call: Call, team: Iterable[int]) -> np.ndarray:
    """Unite the channels of some inputs and return them."""
    labels = [call.inputs[index].reshape(-1) for index in team]
    for other in labels[1:]:
        call.unite(other, labels[0])
    return labels[0]


def _freeze_others(call: Call, free: Collection[int], reason: str = "is read whole") -> None:
    for index, inputs in enumerate(call.inputs):
        if index not in free:
            call.freeze(inputs, reason)


def _subsets(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Return random permuted subsets of sizes C/2, C - 1 and 1."""
    sizes = {count // 2, count - 1, 1} - {0, count}
    return [rng.permutation(count)[:size] for size in sorted(sizes)]


def _summed_away(experiment: Experiment, axes: dict[int, int]) -> set[int]:
    """Return the inputs that Q.K^T and its like sum over: leaving channels out equals setting them to zero."""
    summed: set[int] = set()
    for team in _teams(experiment, axes):
        subsets = _subsets(experiment.rng, experiment.inputs[team[0]].shape[axes[team[0]]])
        if summed & set(team) or not subsets:
            continue
        if all(_sums_away(experiment, team, axes, chosen) for chosen in subsets):
            experiment.call.graph.contracted.append(_unite(experiment.call, team))
            summed |= set(team)
    return summed


def _sums_away(experiment: Experiment, team: list[int], axes: dict[int, int], chosen: np.ndarray) -> bool:
    left = experiment.taken(team, axes, chosen)
    masked = list(experiment.inputs)
    for index in team:
        shape = [1] * masked[index].ndim
        shape[axes[index]] = -1
        kept = np.isin(np.arange(masked[index].shape[axes[index]]), chosen)
        masked[index] = masked[index] * kept.reshape(shape).astype(masked[index].dtype)
    return _alike(left, experiment.run(masked))


def _gather(experiment: Experiment, axes: dict[int, int]) -> list[Labels] | None:
    """Slice, split, shuffle: every output channel is one input channel, at every position.

    All channels of one input in their order is no gather: a resize to the same size looks like that.
    Inputs of one channel are among those that are picked from.
    """
    call = experiment.call
    if not axes or any(axis != experiment.inputs[index].ndim - 1 for index, axis in axes.items()):
        return None
    first = experiment.inputs[min(axes)]
    one = {index for index in experiment.varied if experiment.inputs[index].shape == (*first.shape[:-1], 1)}
    which = sorted({*axes, *one})
    inputs = [experiment.inputs[index] for index in which]
    if len({(array.shape[:-1], array.dtype) for array in inputs}) > 1:
        return None
    source = np.concatenate(inputs, axis=-1)
    picks = []
    for output in experiment.outputs:
        if output.ndim != source.ndim or output.shape[:-1] != source.shape[:-1] or output.shape[-1] == 0:
            return None
        first = {value: channel for channel, value in enumerate(source.reshape(-1, source.shape[-1])[0].tolist())}
        pick = [first.get(value, -1) for value in output.reshape(-1, output.shape[-1])[0].tolist()]
        if -1 in pick or not np.array_equal(source[..., pick], output):
            return None
        picks.append(np.array(pick))
    ends = np.cumsum([array.shape[-1] for array in inputs]).tolist()
    wholes = [np.arange(end - array.shape[-1], end) for array, end in zip(inputs, ends, strict=True)]
    if len(picks) == 1 and any(np.array_equal(picks[0], whole) for whole in wholes):
        return None
    _freeze_others(call, which)
    call.graph.gathers[id(call.node)] = Gather(tuple(which), tuple(picks))
    labels = np.concatenate([call.inputs[index].reshape(-1) for index in which])
    return [call.spread(labels[pick], i) for i, pick in enumerate(picks)]


def _apart(experiment: Experiment, axes: dict[int, int]) -> list[Labels] | None:
    """Elementwise ops, pooling, resizing, A.V: leaving channels out leaves the same ones out of the output.

    So it is with arrays among the arguments that have numbers for each channel, on their last axis or, as the kernel
    of a depthwise convolution, on the one before.
    """
    call = experiment.call
    for team, array_axis in product(_teams(experiment, axes), (None, *_array_axes(call))):
        count = experiment.inputs[team[0]].shape[axes[team[0]]]
        found = [_output_axis(experiment, team, axes, chosen, array_axis) for chosen in _subsets(experiment.rng, count)]
        if not found or None in found or any(axis != found[0] for axis in found):
            continue
        labels = _unite(call, team)
        _freeze_others(call, {*team, *experiment.summed})
        if array_axis is not None:
            call.graph.constants[id(call.node)] = (labels, array_axis)
        outputs = []
        for tensor, axis in zip(call.outputs, found[0], strict=True):
            shape = [1] * len(tensor.shape)
            shape[axis] = -1
            outputs.append(labels.reshape(shape))
        return outputs
    return None


def _array_axes(call: Call) -> list[int]:
    """Return the axes on which arrays among the arguments may have channels."""
    arguments = (*call.node.call_args, *call.node.call_kwargs.values())
    rank = max((np.ndim(item) for item in arguments if is_constant(item)), default=0)
    return [-1, -2][:rank]


def _output_axis(
    experiment: Experiment, team: list[int], axes: dict[int, int], chosen: np.ndarray, array_axis: int | None = None
) -> tuple[int, ...] | None:
    """Return per output the axis on which only the chosen channels are left, or None."""
    outputs = experiment.taken(team, axes, chosen, array_axis)
    if outputs is None or len(outputs) != len(experiment.outputs):
        return None
    count, found = experiment.inputs[team[0]].shape[axes[team[0]]], []
    for less, whole in zip(outputs, experiment.outputs, strict=True):
        if less.ndim != whole.ndim:
            return None
        changed = [axis for axis in range(whole.ndim) if less.shape[axis] != whole.shape[axis]]
        if len(changed) != 1 or whole.shape[changed[0]] != count:
            return None
        if not _alike([less], [whole.take(chosen, changed[0])]):
            return None
        found.append(changed[0])
    return tuple(found)


def _blocks(experiment: Experiment, axes: dict[int, int]) -> list[Labels] | None:
    """Depth to space, space to depth, crelu, padding: blocks of input channels make blocks of output channels.

    Output channels that no input moves, as coordinates that are joined to an image, stay, unless they are zeros around
    an unchanged input. The blocks lie on the last axis, or both on the same other one.
    """
    call = experiment.call
    if len(experiment.inputs) != 1 or len(experiment.outputs) != 1 or not axes:
        return None
    source, whole, axis = experiment.inputs[0], experiment.outputs[0], axes[0]
    is_last = axis == source.ndim - 1
    if whole.ndim < 2 or not (is_last or whole.ndim == source.ndim):
        return None
    if not 1 < source.shape[axis] <= _MAX_BLOCK_CHANNELS:
        return None
    made_on = whole.ndim - 1 if is_last else axis
    moved = []
    for channel in range(source.shape[axis]):
        changed = np.moveaxis(source.copy(), axis, 0)
        changed[channel] = experiment.rng.normal(size=changed.shape[1:])
        outputs = experiment.run([np.moveaxis(changed, 0, axis)])
        if outputs is None or outputs[0].shape != whole.shape:
            return None
        moved.append(np.moveaxis(outputs[0] != whole, made_on, 0).any(axis=tuple(range(1, whole.ndim))))
    inputs_of, outputs_of = _components(np.array(moved))
    if not _keeps_blocks_apart(experiment, axis, inputs_of, made_on, outputs_of):
        return None
    labels = call.inputs[0].reshape(-1)
    block_label = np.array([labels[inputs_of == block][0] for block in range(inputs_of.max() + 1)])
    call.unite(labels, block_label[inputs_of])
    made = call.graph.space.frozen(len(outputs_of), f"'{call.path}': depends on no channel")
    moved_by = outputs_of <= inputs_of.max()
    made[moved_by] = block_label[outputs_of[moved_by]]
    start = int(moved_by.argmax())
    around = [(start, len(moved_by) - start - source.shape[axis]) if i == axis else (0, 0) for i in range(source.ndim)]
    if not moved_by.all() and min(map(min, around)) >= 0 and np.array_equal(np.pad(source, around), whole):
        made[~moved_by] = call.fresh(int((~moved_by).sum()))
        call.graph.paddings[id(call.node)] = axis, start
    return [np.moveaxis(call.spread(made), -1, made_on)]


def _components(moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the block of each input and each output channel, given which moves which (C_in, C_out).

    Blocks are numbered by their first member, inputs first: a block of outputs alone has a number
    above all those of the inputs.
    """
    rows, columns = np.nonzero(moved)
    total = sum(moved.shape)
    _, block = connected_components(coo_array((np.ones(len(rows)), (rows, columns + len(moved))), shape=(total, total)))
    return block[: len(moved)], block[len(moved) :]


def _keeps_blocks_apart(
    experiment: Experiment, axis: int, inputs_of: np.ndarray, made_on: int, outputs_of: np.ndarray
) -> bool:
    """Return whether outputs on `made_on` lose the blocks that inputs on `axis` lose, and nothing else."""
    count = int(inputs_of.max()) + 1
    subsets = _subsets(experiment.rng, count)
    if not subsets or outputs_of.min() >= count:
        return False
    for chosen in subsets:
        left = experiment.run([experiment.inputs[0].compress(np.isin(inputs_of, chosen), axis)])
        stay = np.isin(outputs_of, chosen) | (outputs_of >= count)
        if not _alike(left, [experiment.outputs[0].compress(stay, made_on)]):
            return False
    return True


def _alike(a: Arrays | None, b: Arrays | None) -> bool:
    """Return whether two sets of outputs are equal up to rounding, and numbers at least in places."""
    if a is None or b is None or len(a) != len(b):
        return False
    return all(
        x.shape == y.shape
        and bool(np.isfinite(x).any())
        and np.allclose(x.astype(float), y.astype(float), rtol=1e-4, atol=1e-5, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


_ELEMENTWISE_NAMES = (
    *("linear", "relu", "sigmoid", "tanh", "elu", "selu", "gelu"),
    *("swish", "softplus", "softsign", "hard_sigmoid", "exponential", "mish"),
)
_ELEMENTWISE = {getattr(keras.activations, name, None) for name in _ELEMENTWISE_NAMES}


def keeps_channels_apart(function: Callable[[Any], Any] | None) -> bool:
    """Return whether an activation treats every channel on its own; an unknown one is tried out."""
    return function is None or function in _ELEMENTWISE or _tried_out(function)


@cache
def _tried_out(function: Callable[[Any], Any]) -> bool:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, size=(4, 12)).astype(np.float32)
    try:
        whole = np.asarray(function(tf.constant(values)))
        return whole.shape == values.shape and all(
            _alike([np.asarray(function(tf.constant(values[:, chosen])))], [whole[:, chosen]])
            for chosen in _subsets(rng, values.shape[1])
        )
    except _ERRORS:
        return False
