"""From the net of a library to one of ours: flat, named, seeded, on raw pixels, safe to save.

The libraries number layers by what was built before them, put slashes into names, and use Lambda
layers, which cannot be loaded without running code from the file. The graph is therefore wired anew.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.keras import keras

layers = keras.layers


@dataclass(frozen=True)
class Draft:
    """A net as its builder leaves it: any layer names, ending in its logits.

    `scale` and `offset` make the net's input from pixels 0..255: a number, or one per channel.
    `loaded` tells whether a layer, by its name in `net`, keeps its weights (those read from a file);
    all others are drawn from the seed. `bgr` turns the first kernel around for RGB pixels.
    """

    net: Any
    scale: float | Sequence[float] = 1.0
    offset: float | Sequence[float] = 0.0
    loaded: Callable[[str], bool] | None = None
    bgr: bool = False


def finish_model(draft: Draft, *, name: str, input_size: tuple[int, int], channels: int, seed: int | None) -> Any:
    """Return the drafted net as `image` -> `preprocessing` -> ... -> `logits`.

    The last layer is called `logits`; a linear Activation at the end is dropped.
    """
    image = layers.Input((*input_size, channels), name="image")
    rescaling = layers.Rescaling(_plain_numbers(draft.scale), _plain_numbers(draft.offset), name="preprocessing")
    body = _without_linear_end(draft.net.layers[1:])
    wiring = _Wiring(draft.net.input, rescaling(image), last=body[-1], seed=seed)
    for layer in body:
        wiring.add(layer)
    model = keras.Model(image, wiring.tensors[id(body[-1].output)], name=name)
    if draft.loaded is not None:
        for new, originals in wiring.origins:
            if all(draft.loaded(original.name) for original in originals):
                # a grouped convolution comes from several: their kernels lie side by side
                parts = zip(*(original.get_weights() for original in originals), strict=True)
                new.set_weights([np.concatenate(part, -1) if len(part) > 1 else part[0] for part in parts])
    if draft.bgr:
        first = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))
        kernel, *rest = first.get_weights()
        first.set_weights([kernel[:, :, ::-1], *rest])
    return model


def set_norm_momentum(model: Any, momentum: float) -> None:
    """Set the momentum of every batch norm of a model that has not been trained yet."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = float(momentum)


@dataclass(frozen=True)
class _Slice:
    """Channels of a tensor that one convolution of a hand-made grouped convolution reads."""

    source: Any
    convolution: Any = None


class _Wiring:
    """The new tensors, by the id of the library's tensors, and which new layer comes from which."""

    def __init__(self, old_input: Any, new_input: Any, *, last: Any, seed: int | None) -> None:
        self.tensors: dict[int, Any] = {id(old_input): new_input}
        self.origins: list[tuple[Any, list[Any]]] = []
        self._last = last
        self._seed = seed
        self._numbers: dict[str, int] = {}

    def add(self, layer: Any) -> None:
        """Wire one layer of the library's net, whose inputs are wired already."""
        old = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [self.tensors[id(tensor)] for tensor in old]
        self.tensors[id(layer.output)] = self._wire(layer, inputs)

    def _wire(self, layer: Any, inputs: list[Any]) -> Any:
        if isinstance(layer, layers.Lambda):
            return self._wire_lambda(layer, inputs)
        if isinstance(inputs[0], _Slice):
            if isinstance(layer, layers.Concatenate):
                return self._grouped(layer, inputs)
            return _Slice(inputs[0].source, layer)
        copy = self._copy(layer)
        self.origins.append((copy, [layer]))
        if type(layer).__name__ == "TFOpLambda":  # an op's arguments stand in the call, not in the config
            call = layer.inbound_nodes[0]
            return copy(inputs[0], *call.call_args[1:], **call.call_kwargs)
        return copy(inputs if isinstance(layer.input, list) else inputs[0])

    def _wire_lambda(self, layer: Any, inputs: list[Any]) -> Any:
        function = layer.function.__name__
        if function == "slice_tensor":
            return _Slice(inputs[0])
        if function == "expand_dims":
            shape = (1, 1, inputs[0].shape[-1])
            return layers.Reshape(shape, name=self._name(layer, "reshape"))(inputs[0])
        if set(layer.arguments) == {"scale"}:  # the scaled residuals of Inception-ResNet
            name = self._name(layer, "add")
            scaled = layers.Rescaling(float(layer.arguments["scale"]), name=f"{name}_scale")(inputs[1])
            return layers.Add(name=name)([inputs[0], scaled])
        raise InputError(
            f"the layer '{layer.name}' is a Lambda ({function}) that tfprune does not know; "
            "this version of segmentation-models is not supported, install segmentation-models 1.0.1"
        )

    def _grouped(self, joined: Any, parts: list[_Slice]) -> Any:
        """Make one grouped convolution of slices, convolutions and their concatenation."""
        originals = [part.convolution for part in parts]
        config = originals[0].get_config()
        config["filters"] *= len(parts)
        config["groups"] = len(parts)
        grouped = layers.Conv2D.from_config(self._seeded(config, self._name(joined, "grouped_conv2d")))
        self.origins.append((grouped, originals))
        return grouped(parts[0].source)

    def _copy(self, layer: Any) -> Any:
        kind, config = type(layer), layer.get_config()
        if kind.__name__ == "FixedDropout":  # tf_keras' own takes None in noise_shape by now
            kind = layers.Dropout
        if kind is layers.Activation and getattr(layer.activation, "__name__", "") == "swish":
            config["activation"] = "swish"  # Keras' own, not the library's
        return kind.from_config(self._seeded(config, self._name(layer, _snake_case(kind.__name__))))

    def _name(self, layer: Any, kind: str) -> str:
        """Return a name without slashes; a number that Keras gave is replaced by one that counts here.

        Layers without a name of their own are found in the libraries' encoders only.
        """
        if layer is self._last:
            return "logits"
        automatic = _snake_case(type(layer).__name__).replace("_", "")
        if re.sub(r"_\d+$", "", layer.name).replace("_", "") != automatic:
            return layer.name.replace("/", "_")
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        return f"encoder_{kind}_{self._numbers[kind]}"

    def _seeded(self, config: dict[str, Any], name: str) -> dict[str, Any]:
        """Return a layer's config with a new name and with a seed in each initializer that draws."""
        config = {**config, "name": name}
        if self._seed is None:
            return config
        for key, value in config.items():
            if isinstance(value, dict) and "seed" in value.get("config", {}):
                seed = zlib.crc32(f"{self._seed}/{name}/{key}".encode()) & 0x7FFFFFFF
                config[key] = {**value, "config": {**value["config"], "seed": seed}}
        return config


def _without_linear_end(body: list[Any]) -> list[Any]:
    last = body[-1]
    if isinstance(last, layers.Activation) and last.get_config()["activation"] == "linear":
        return body[:-1]
    return body


def _snake_case(name: str) -> str:
    """Return `zero_padding2d` for `ZeroPadding2D`."""
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", name).lower()


def _plain_numbers(values: float | Sequence[float]) -> float | list[float]:
    if isinstance(values, int | float):
        return float(values)
    numbers = [float(value) for value in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers
