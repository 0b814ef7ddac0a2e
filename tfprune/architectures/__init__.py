"""Segmentation nets by name: raw pixels in, logits out, one flat graph with stable layer names.

`build_model` is the way in. A new architecture is one function in a file of its own decoder family,
which returns a `tfprune.architectures.finishing.Draft`, and one line in `ARCHITECTURES`.
"""

from __future__ import annotations

import inspect
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from tfprune.errors import InputError, look_up, unknown_name

if TYPE_CHECKING:
    from tfprune.keras import keras

ARCHITECTURES: dict[str, str] = {
    "plain_unet": "tfprune.architectures.plain_unet:plain_unet",
    "sparse_unet": "tfprune.architectures.sparse_unet:sparse_unet",
    "unet": "tfprune.architectures.library_nets:unet",
    "fpn": "tfprune.architectures.library_nets:fpn",
    "linknet": "tfprune.architectures.library_nets:linknet",
    "pspnet": "tfprune.architectures.library_nets:pspnet",
    "unet_plus_plus": "tfprune.architectures.unet_plus_plus:unet_plus_plus",
    "manet": "tfprune.architectures.manet:manet",
    "deeplab_v3_plus": "tfprune.architectures.deeplab:deeplab_v3_plus",
    "lraspp": "tfprune.architectures.lraspp:lraspp",
    "corroseg": "tfprune.architectures.corroseg:corroseg",
    "fcn": "tfprune.architectures.corroseg:fcn",
}
"""Name of an architecture -> `module:function` that drafts it; strings, because those import TensorFlow."""

ENCODERS: tuple[str, ...] = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("seresnet18", "seresnet34", "seresnet50", "seresnet101", "seresnet152"),
    *("seresnext50", "seresnext101", "senet154", "resnext50", "resnext101"),
    *("vgg16", "vgg19", "densenet121", "densenet169", "densenet201"),
    *("inceptionresnetv2", "inceptionv3", "mobilenet", "mobilenetv2"),
    *("efficientnetb0", "efficientnetb1", "efficientnetb2", "efficientnetb3"),
    *("efficientnetb4", "efficientnetb5", "efficientnetb6", "efficientnetb7"),
)
"""The encoders of segmentation-models, for every architecture but `plain_unet`, `sparse_unet`, `fcn` and `lraspp`."""


def build_model(
    architecture: str,
    *,
    input_size: tuple[int, int],
    channels: int = 3,
    outputs: int,
    seed: int | None = None,
    norm_momentum: float | None = None,
    **options: Any,
) -> keras.Model:
    """Build an untrained net: `image` (N, H, W, C) of raw pixels 0..255 -> `logits` (N, H, W, outputs).

    The graph is flat: input `image`, then the Rescaling layer `preprocessing`, the net, and the linear
    layer `logits`. Layer names depend on the arguments alone.

    Args:
        architecture: a name of `ARCHITECTURES`.
        input_size: (H, W) in pixels, multiples of the net's stride.
        channels: channels of the pictures, 1 or more.
        outputs: K; 1 is a sigmoid output for two classes, 2 and more a softmax over as many.
        seed: the same seed gives the same weights; None draws other weights each time.
        norm_momentum: of every batch norm; None leaves the net's own (.99, MobileNetV2 .999), whose
            moving averages lag many epochs behind in a short training from scratch: .9 suits that.
        **options: those of the architecture, see its function.

    Raises:
        InputError: for an unknown architecture or option, or a value that it does not take.
    """
    draft_net = resolve_name(look_up("architecture", architecture, ARCHITECTURES))
    parameters = inspect.signature(draft_net).parameters
    accepted = [name for name in parameters if name not in ("input_size", "channels", "outputs")] + ["norm_momentum"]
    for name in options:
        if name not in accepted:
            raise unknown_name(f"option of the architecture {architecture}", name, accepted)
    size = _check_size(input_size)
    for name, value in (("channels", channels), ("outputs", outputs)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")

    if norm_momentum is not None and not 0 <= norm_momentum < 1:
        raise InputError(f"norm_momentum is {norm_momentum}; it must be in 0..1, below 1")

    from tfprune.architectures.finishing import finish_model, set_norm_momentum

    draft = draft_net(input_size=size, channels=channels, outputs=outputs, **options)
    model = finish_model(draft, name=architecture, input_size=size, channels=channels, seed=seed)
    if norm_momentum is not None:
        set_norm_momentum(model, norm_momentum)
    return model


def _check_size(size: Any) -> tuple[int, int]:
    try:
        height, width = size
        if min(height, width) >= 1 and {int(height), int(width)} == {height, width}:
            return int(height), int(width)
    except (TypeError, ValueError):
        pass
    raise InputError(f"input_size must be (height, width) in whole pixels, not {size!r}")
