"""The encoders of segmentation-models: their pixels, their weights, and the ways these can fail."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from tfprune.architectures import ENCODERS
from tfprune.errors import InputError, look_up

with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # like the redirection: the library prints and warns when it is imported
    import tfprune.keras  # noqa: F401  it chooses the Keras that the library looks for

    import segmentation_models

STRIDE = 32
"""Every encoder halves its input five times."""


@dataclass(frozen=True)
class Preprocessing:
    """The net's input from RGB pixels 0..255: pixel * scale + offset; `bgr` when it wants BGR."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    bgr: bool = False


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_RAW = Preprocessing((1.0,) * 3, (0.0,) * 3)
_SIGNED = Preprocessing((1 / 127.5,) * 3, (-1.0,) * 3)
_STANDARD = Preprocessing(
    tuple(1 / (255 * one) for one in _DEVIATION),
    tuple(-mean / one for mean, one in zip(_MEAN, _DEVIATION, strict=True)),
)
_CENTRED_BGR = Preprocessing((1.0,) * 3, (-123.68, -116.779, -103.939), bgr=True)

_BY_FAMILY = {
    "vgg": _CENTRED_BGR,
    "mobilenet": _SIGNED,
    "inception": _SIGNED,
    "densenet": _STANDARD,
    "efficientnet": _STANDARD,
    "senet": _STANDARD,
    "seresnext": _STANDARD,
    "seresnet": _STANDARD,
    "seresnet18": _RAW,
    "seresnet34": _RAW,
    "resne": _RAW,
}


def encoder_preprocessing(encoder: str, channels: int) -> Preprocessing:
    """Return what an encoder does to pixels before its first layer.

    Other than RGB pictures get the mean of the three channels' numbers on each channel.
    """
    family = max((prefix for prefix in _BY_FAMILY if encoder.startswith(prefix)), key=len)
    found = _BY_FAMILY[family]
    if channels == 3:
        return found
    return Preprocessing((sum(found.scale) / 3,) * channels, (sum(found.offset) / 3,) * channels)


def build_on_encoder(
    library_net: str, *, encoder: str, encoder_weights: str | None, channels: int, **options: Any
) -> Any:
    """Call a net of segmentation-models with an encoder, its weights, and linear outputs.

    Args:
        library_net: its name in segmentation_models: `Unet`, `FPN`, `Linknet` or `PSPNet`.
        encoder: a name of `ENCODERS`.
        encoder_weights: `imagenet`, the path of a weights file (.h5) of this encoder, or None.
        channels: channels of the pictures.
        **options: what else that function takes.

    Raises:
        InputError: for an unknown encoder, and for weights that cannot be had, read or fitted.
    """
    look_up("encoder", encoder, dict.fromkeys(ENCODERS))
    weights = check_encoder_weights(encoder_weights, encoder, channels)
    with weights_errors(weights, encoder, channels), warnings.catch_warnings():
        # about channel numbers other than 1 and 3, and about weights of another input size
        warnings.simplefilter("ignore", UserWarning)
        build = getattr(segmentation_models, library_net)
        return build(encoder, encoder_weights=weights, activation="linear", **options)


@contextlib.contextmanager
def weights_errors(weights: str | None, encoder: str, channels: int) -> Iterator[None]:
    """Turn what goes wrong with the weights of an encoder into an InputError that says what to do."""
    try:
        yield
    except Exception as error:  # Keras reports a failed download as a plain Exception
        if weights is None:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if weights == "imagenet":
            raise InputError(
                f"encoder_weights: the ImageNet weights of {encoder} could not be had ({reason}). They are downloaded "
                "once and kept in ~/.keras/models. Without a network set encoder_weights to none, or to the path of "
                "the weights file (.h5, without top) of this encoder, downloaded elsewhere."
            ) from error
        raise InputError(
            f"encoder_weights: {weights} does not fit {encoder} with {channels} channels ({reason})"
        ) from error


def check_encoder_weights(weights: str | None, encoder: str, channels: int) -> str | None:
    """Return `imagenet`, the path of an existing HDF5 file, or None.

    Raises:
        InputError: for anything else, and for ImageNet weights of other than three channels.
    """
    if weights is None or weights == "none":
        return None
    if weights == "imagenet":
        if channels != 3:
            raise InputError(
                f"encoder_weights: ImageNet weights are for 3 channels, and the pictures have {channels}. Read them "
                "with channels: 3 (grey is repeated), or set encoder_weights to none to train from scratch."
            )
        return weights
    if not isinstance(weights, str | Path) or not Path(weights).is_file():
        raise InputError(
            f"encoder_weights: '{weights}' is neither imagenet nor none nor a weights file (.h5) of {encoder}"
        )
    if not h5py.is_hdf5(weights):
        raise InputError(f"encoder_weights: {weights} is not a Keras weights file in HDF5 format (.h5)")
    return str(weights)
