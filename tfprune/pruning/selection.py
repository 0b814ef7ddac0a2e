"""Which layers are masked, and why the others stay dense."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.errors import InputError, look_up
from tfprune.keras import keras
from tfprune.pruning.graph import Call, prunable_kernel, trace_calls

KINDS = ("first", "head", "depthwise", "encoder", "decoder", "frozen")

_DECODERS = ("decoder", "fpn_stage", "psp_level")
"""How the names of decoders begin: some narrow, pool and look far before anything enlarges, as DeepLabV3+ does."""


@dataclass(frozen=True)
class DenseLayer:
    """A layer with weights that is left dense, and the reason."""

    layer: str
    weights: int
    reason: str


@dataclass(frozen=True)
class Selection:
    """The names of the layers to mask, in model order, and the layers left dense.

    A layer of a nested model is named `MODEL/LAYER`.
    """

    masked: tuple[str, ...]
    dense: tuple[DenseLayer, ...]


def select_layers(
    model: Any,
    *,
    min_weights: int = 1024,
    include: Sequence[str] = (),
    exclude: Sequence[str] = ("head", "depthwise", "frozen"),
) -> Selection:
    """Choose the layers to mask, by kind and by regular expression.

    The kinds: `first`, the first layer with a kernel; `head`, a layer with a kernel after which
    no other one comes before the model's output (at 90 % a 16-weight sigmoid head kept two weights,
    both negative, and every output was wrong); `depthwise`; `decoder`, a layer that enlarges the
    picture, or whose name (or that of a nested model around it) begins with `decoder`, and every
    layer behind such a one; `encoder`, every other; `frozen`, not trainable.

    Args:
        model: a functional tf_keras model.
        min_weights: a kernel with fewer weights stays dense.
        include: kinds and regular expressions (`re.search` in the layer's name); when given, only
            layers that one of them fits are masked.
        exclude: kinds and regular expressions of layers that stay dense.

    Raises:
        InputError: when nothing is left to mask, or an expression is wrong or fits no layer.
    """
    calls, outputs = trace_calls(model)
    layers = {call.path: call.layer for call in calls if call.layer.weights}
    kinds = _kinds(calls, outputs)
    chosen = _matcher(include, kinds, layers, "include")
    barred = _matcher(exclude, kinds, layers, "exclude")
    masked, dense = [], []
    for path, layer in layers.items():
        if isinstance(layer, keras.layers.BatchNormalization):
            continue
        kernel = prunable_kernel(layer)
        if kernel is None:
            reason = f"tfmot prunes nothing in a {type(layer).__name__}"
        elif found := barred(path):
            reason = "output head stays dense" if found == "head" else f"excluded: {found}"
        elif include and not chosen(path):
            reason = f"not among the included: {', '.join(include)}"
        elif int(getattr(layer, kernel).shape.num_elements()) < min_weights:
            reason = f"tiny: fewer than {min_weights} weights in the kernel"
        else:
            masked.append(path)
            continue
        dense.append(DenseLayer(path, int(layer.count_params()), reason))
    if not masked:
        listed = (
            "; ".join(f"{item.layer}, {item.weights} weights: {item.reason}" for item in dense)
            or "it has no layers with weights"
        )
        raise InputError(f"model '{model.name}' has no layer to mask ({listed})")
    return Selection(tuple(masked), tuple(dense))


def layers_of_kind(model: Any, kind: str) -> list[Any]:
    """Return the layers of one of `KINDS`, in the order of computation; see `select_layers`.

    Raises:
        InputError: when the model is not functional.
    """
    look_up("kind", kind, dict.fromkeys(KINDS))
    calls, outputs = trace_calls(model)
    found = _kinds(calls, outputs)[kind]
    return list({id(call.layer): call.layer for call in calls if call.path in found}.values())


def _matcher(
    patterns: Sequence[str], kinds: dict[str, set[str]], paths: Iterable[str], where: str
) -> Callable[[str], str | None]:
    """Return a function path -> the first pattern that fits it."""
    expressions = {}
    for pattern in patterns:
        if pattern in KINDS:
            continue
        expressions[pattern] = read_expression(pattern, where)
        if not any(expressions[pattern].search(path) for path in paths):
            raise InputError(
                f"{where}: '{pattern}' fits no layer of the model; it must be one of {', '.join(KINDS)}, "
                f"or an expression found in a name such as {', '.join(list(paths)[:3])}"
            )

    def first_match(path: str) -> str | None:
        for pattern in patterns:
            if path in kinds[pattern] if pattern in KINDS else expressions[pattern].search(path):
                return pattern
        return None

    return first_match


def read_expression(given: str, where: str) -> re.Pattern[str]:
    """Return a regular expression of layer names.

    Raises:
        InputError: it is none; `where` is the option that has it.
    """
    try:
        return re.compile(given)
    except re.error as error:
        raise InputError(f"{where}: '{given}' is not a regular expression ({error})") from error


def _kinds(calls: Sequence[Call], outputs: Sequence[int]) -> dict[str, set[str]]:
    """Return for each kind the paths of its layers."""
    with_kernel = [call for call in calls if prunable_kernel(call.layer)]
    behind: set[int] = set()
    decoder = set()
    for call in calls:
        is_named = any(part.startswith(_DECODERS) for part in call.path.split("/"))
        if is_named or call.grows or behind & set(call.inputs):
            behind |= set(call.outputs)
            decoder.add(call.path)
    return {
        "first": {call.path for call in with_kernel[:1]},
        "head": _heads(calls, outputs),
        "depthwise": {call.path for call in calls if isinstance(call.layer, keras.layers.DepthwiseConv2D)},
        "encoder": {call.path for call in calls} - decoder,
        "decoder": decoder,
        "frozen": {call.path for call in calls if call.layer.weights and not call.layer.trainable_weights},
    }


def _heads(calls: Sequence[Call], outputs: Sequence[int]) -> set[str]:
    """Return the layers with kernels that are met first on the way back from the outputs."""
    makers = {label: call for call in calls for label in call.outputs}
    heads: set[str] = set()
    seen: set[int] = set()
    waiting = list(outputs)
    while waiting:
        label = waiting.pop()
        call = makers.get(label)
        if label in seen or call is None:
            continue
        seen.add(label)
        if prunable_kernel(call.layer):
            heads.add(call.path)
        else:
            waiting.extend(call.inputs)
    return heads
