"""A Keras model to a .tflite file: batch 1, raw pixels in, the head asked for, a card at the end."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.channels.copying import added_tensors
from tfprune.channels.graph import is_graph
from tfprune.errors import InputError, look_up
from tfprune.export import SCHEMES
from tfprune.export.card import CARD_FORMAT, write_card
from tfprune.export.converter import convert_function
from tfprune.export.heads import attach_head
from tfprune.export.metadata import add_metadata
from tfprune.export.noise import KeptFloat
from tfprune.export.ranges import mend_zero_constants
from tfprune.export.replacing import operators_on_mixed_numbers
from tfprune.export.resizes import without_half_pixels
from tfprune.export.rounding import distinct_biases, rounded_kernels
from tfprune.keras import finish_weights, keras, tf
from tfprune.quantization.training import bake_model, is_quantized
from tfprune.quantization.wiring import Copies, wire_flat
from tfprune.records import IGNORE_ID, atomic_path
from tfprune.silence import quiet_stderr

MINIMUM_CALIBRATION = 8
"""Fewer pictures than this say too little about the range of a tensor; about a hundred are usual."""


def export_tflite(
    model: keras.Model,
    path: str | Path,
    *,
    class_names: Sequence[str],
    scheme: str = "float32",
    head: str = "probabilities",
    sparse: bool = False,
    resize_v2: bool = False,
    calibration: np.ndarray | None = None,
    clip: float = 0.0,
    keep_float: int | Sequence[KeptFloat] = 0,
    preprocessing: tuple[Any, Any] | None = None,
    input_size: tuple[int, int] | None = None,
) -> Path:
    """Write `model` as a .tflite file that takes one picture of raw pixels (1, H, W, C) and return its path.

    The same model gives the same bytes each time.

    Args:
        model: takes float32 (N, H, W, C) in 0..255, gives (N, H, W, K): logits, or what its closing
            softmax or sigmoid makes of them (it is found and not applied twice).
        class_names: all classes in the order of their ids; two of them for a model with one output.
        scheme: a key of `tfprune.export.SCHEMES`.
        head: a key of `tfprune.export.HEADS`.
        sparse: store mostly-zero weights without their zeros. The file shrinks and loads more slowly; see
            `Scheme.sparse` for the formats that have it. TFLite Micro does not load such files.
        resize_v2: write resizes as compilers 14 and 15 of Coral read them; see `tfprune.export.resizes` for
            what that changes.
        calibration: uint8 (N, H, W, C) pictures from the training split, all of which are used, in order;
            needed by integer schemes only, and not for a model of `tfprune.quantization.training.quantize_model`,
            which has learnt its ranges.
        clip: the share of a tensor's values at either end that its range leaves out, 0 to .01; 0: none.
        keep_float: in schemes with int8 activations, how many operators compute in float32 all the same, with
            those that read what they make: the ones whose noise costs the answers most (`tfprune.export.noise`).
            Or those that another file's card names.
        preprocessing: (scale, offset), scalars or one number per channel, when the model does not take raw
            pixels: it is put in front as `pixels * scale + offset`.
        input_size: (H, W) for a model that leaves them open.

    Raises:
        InputError: an argument does not fit, or the converter has no TensorFlow Lite op for one in the model.
    """
    chosen = look_up("scheme", scheme, SCHEMES)
    if sparse and not chosen.sparse:
        having = ", ".join(name for name, row in SCHEMES.items() if row.sparse)
        raise InputError(f"no runtime loads scheme {scheme!r} with sparse weights; accepted for them: {having}")
    shape = _input_shape(model, input_size)
    is_learnt = is_quantized(model)
    if is_learnt:
        _check_learnt(model, scheme, preprocessing)
    _check_choices(scheme, is_learnt=is_learnt, clip=clip, keep_float=keep_float)
    calibrated = chosen.calibrated and not is_learnt
    calibration = _checked_calibration(calibration, shape, scheme) if calibrated else None
    with _quiet():
        model = bake_model(model) if is_learnt else _answering_alone(_in_float32(model))
        rounding = rounded_kernels(model) if calibrated and not keep_float else nullcontext()
        with rounding, distinct_biases(model) if scheme == "int16x8" else nullcontext():
            function, outputs = _trace(model, shape, head=head, preprocessing=preprocessing)
        _check_class_names(class_names, outputs)
        flatbuffer, kept = convert_function(
            function, model, chosen, calibration, sparse=sparse, clip=clip, keep_float=keep_float
        )
        if chosen.activations == "int16":
            flatbuffer = mend_zero_constants(flatbuffer)
            _check_opens(flatbuffer, model.name)
    if resize_v2:
        flatbuffer = without_half_pixels(flatbuffer)
    card = {
        "format": CARD_FORMAT,
        "classes": list(class_names),
        "head": head,
        "scheme": scheme,
        "outputs": outputs,
        "input_size": list(shape[1:3]),
        "channels": shape[3],
    }
    if calibrated:
        card["calibration"] = {"pictures": len(calibration), "clip": clip}
    if kept:
        card["kept_float"] = [asdict(row) for row in kept]
    with atomic_path(path) as temporary:
        temporary.write_bytes(add_metadata(flatbuffer, card))
        write_card(temporary, card)
    return Path(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the converter's chatter, and before an `InputError`, which says it better, drop it."""
    said = None
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except InputError as error:
            said = error
    if said is not None:
        raise said


def _input_shape(model: keras.Model, input_size: tuple[int, int] | None) -> tuple[int, int, int, int]:
    if isinstance(model, str | Path):
        raise InputError(f"export takes a model, and {model} is a path; read it with architectures.files.load_model")
    if not isinstance(model, keras.Model):
        raise InputError(
            f"export takes a model of tf_keras (Keras 2), not {type(model).__module__}.{type(model).__name__}; "
            "set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported and build or load it again"
        )
    wrapped = [layer.name for layer in model.submodules if hasattr(layer, "pruning_vars")]
    if wrapped:
        raise InputError(
            f"{model.name} still wears its pruning wrappers ({', '.join(wrapped[:3])}, ...); strip it first"
        )
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        given = [tuple(item.shape) for item in inputs] or "a model without a known input"
        raise InputError(f"export needs a model with one input (N, H, W, C); {model.name} has {given}")
    _, height, width, channels = inputs[0].shape
    if channels not in (1, 3):
        raise InputError(f"export takes grey (1) or RGB (3) pictures; {model.name} has {channels} channels")
    if input_size is None:
        if None in (height, width):
            raise InputError(f"{model.name} leaves its picture size open ({height}, {width}); give input_size=(H, W)")
        return (1, height, width, channels)
    if (height or input_size[0], width or input_size[1]) != tuple(input_size):
        raise InputError(f"{model.name} takes pictures of {height} x {width}; input_size says {tuple(input_size)}")
    return (1, int(input_size[0]), int(input_size[1]), channels)


def _check_learnt(model: keras.Model, scheme: str, preprocessing: tuple[Any, Any] | None) -> None:
    """Refuse what a model cannot be exported with that learnt the rounding of int8."""
    accepted = [name for name, row in SCHEMES.items() if row.activations == "int8"]
    if scheme not in accepted:
        raise InputError(
            f"{model.name} was trained with the rounding of int8, and scheme {scheme!r} has another; export it as "
            f"{' or '.join(accepted)}, or export the model that it was made of"
        )
    if preprocessing is not None:
        raise InputError(
            f"{model.name} was trained on the pictures that it takes: nothing can be put in front of it. Build the "
            "preprocessing into the model (a Rescaling layer) before it is quantized"
        )


def _check_choices(scheme: str, *, is_learnt: bool, clip: float, keep_float: int | Sequence[KeptFloat]) -> None:
    """Refuse clipping and operators in float32 where they have no meaning."""
    if isinstance(keep_float, int) and keep_float < 0:
        raise InputError(f"keep_float is {keep_float}; give a number of operators, 0 or more")
    if keep_float and (SCHEMES[scheme].activations != "int8" or is_learnt):
        made = "a model that learnt its rounding" if is_learnt else f"scheme {scheme!r}"
        raise InputError(f"keep_float chooses operators after calibration to int8, and {made} has none; leave it out")
    if not 0 <= clip <= 0.01:
        raise InputError(f"clip is {clip}; give the share of values to leave out at either end, from 0 to .01")
    if clip and (is_learnt or not SCHEMES[scheme].calibrated):
        raise InputError(
            "clip changes the ranges that calibration finds, and this file is not calibrated; leave it out"
        )


def _checked_calibration(pictures: np.ndarray | None, shape: tuple[int, ...], scheme: str) -> np.ndarray:
    """Return calibration pictures whose values reach from 0 to 255.

    Two corner pixels of the first picture see to it: the input's scale is then exactly 1 and its zero
    point 0, so that camera bytes are the quantized values, and no highlight is clipped.
    """
    wanted = f"uint8 (N, {', '.join(map(str, shape[1:]))}) with N >= {MINIMUM_CALIBRATION}"
    if pictures is None:
        raise InputError(f"scheme {scheme!r} needs calibration: {wanted} raw pixels from the training split")
    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8 or pictures.shape[1:] != shape[1:] or len(pictures) < MINIMUM_CALIBRATION:
        raise InputError(f"calibration is {pictures.dtype} {pictures.shape}; scheme {scheme!r} needs {wanted}")
    first = pictures[:1].copy()
    first[0, 0, 0], first[0, -1, -1] = 0, 255
    return np.concatenate([first, pictures[1:]])


def _check_class_names(class_names: Sequence[str], outputs: int) -> None:
    wanted = max(outputs, 2)
    if isinstance(class_names, str) or len(class_names) != wanted or wanted > IGNORE_ID:
        raise InputError(
            f"class_names is {class_names!r}; a model with {outputs} output{'s' * (outputs > 1)} has {wanted} classes "
            f"(at most {IGNORE_ID}), so give that many names in the order of their ids"
        )
    if not all(isinstance(name, str) and name.strip() and name.isprintable() for name in class_names):
        raise InputError(
            f"class_names is {class_names!r}; the file's labels are lines of text, one non-empty name each"
        )


def _in_float32(model: keras.Model) -> keras.Model:
    """Return `model`, or its float32 twin when it was trained in mixed precision, which TFLite cannot take."""
    layers = [part for part in (model, *model.submodules) if isinstance(part, keras.layers.Layer)]
    if all(layer.compute_dtype in (None, "float32") for layer in layers):
        return model

    def replaced(node: Any, key: str = "") -> Any:
        if key == "dtype" and re.search(r"float16", json.dumps(node, default=str)):
            return "float32"
        if isinstance(node, dict):
            return {name: replaced(item, name) for name, item in node.items()}
        return [replaced(item) for item in node] if isinstance(node, list | tuple) else node

    twin = type(model).from_config(replaced(model.get_config()))
    twin.set_weights(model.get_weights())
    finish_weights(twin)
    return twin


def _check_opens(flatbuffer: bytes, name: str) -> None:
    """Refuse an int16 file that no runtime opens."""
    mixed = operators_on_mixed_numbers(flatbuffer)
    if mixed:
        raise InputError(
            f"TensorFlow Lite's converter gives {', '.join(mixed)} of {name} one int16 and one float input in scheme "
            "'int16x8', and no runtime opens such a file; take another scheme, or replace the layer it comes from (a "
            "comparison, as in ReLU with a slope and a threshold, or padding by another number than zero)"
        )


def _answering_alone(model: keras.Model) -> keras.Model:
    """Return `model`, or its twin without what `add_metric` added: counting is an operator that no file has."""
    graphs = [part for part in model._flatten_layers() if is_graph(part)]
    return wire_flat(model, Copies(), keep_added=False) if any(map(added_tensors, graphs)) else model


def _trace(
    model: keras.Model, shape: tuple[int, int, int, int], *, head: str, preprocessing: tuple[Any, Any] | None
) -> tuple[Any, int]:
    """Return the concrete function pixels -> head, and K."""
    outputs = 0

    def answer(pixels: tf.Tensor) -> tf.Tensor:
        nonlocal outputs
        answers = tf.nest.flatten(model(_preprocessed(pixels, preprocessing), training=False))
        output = answers[0]  # alone, as it is or in a dictionary
        if len(answers) > 1 or not output.dtype.is_floating or output.shape[:-1] != shape[:-1]:
            given = ", ".join(f"{item.dtype.name} {tuple(item.shape)}" for item in answers)
            raise InputError(
                f"export needs a model with one float output (N, {shape[1]}, {shape[2]}, K); {model.name} gives "
                f"{given}. Of several outputs take one, keras.Model(model.inputs, OUTPUT); resize one of another size"
            )
        outputs = output.shape[-1]
        return attach_head(output, head)

    # autograph would wrap the exceptions above
    function = tf.function(answer, autograph=False)
    try:
        concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="pixels"))
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise InputError(f"{model.name} cannot be run on one picture of {shape[1:]}: {error}") from error
    return concrete, outputs


def _preprocessed(pixels: tf.Tensor, preprocessing: tuple[Any, Any] | None) -> tf.Tensor:
    if preprocessing is None:
        return pixels
    try:
        scale, offset = (np.asarray(part, np.float32) for part in preprocessing)
        accepted = ((), (1,), (pixels.shape[-1],))
        fits = all(part.shape in accepted and np.isfinite(part).all() for part in (scale, offset))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"preprocessing is {preprocessing!r}; give (scale, offset), each a number or one per channel, "
            f"of which there are {pixels.shape[-1]}"
        )
    return pixels * scale + offset
