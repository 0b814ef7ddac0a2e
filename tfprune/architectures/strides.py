"""Which input sizes a net takes, and the message for one it does not."""

from __future__ import annotations

from tfprune.errors import InputError


def check_stride(input_size: tuple[int, int], stride: int, *, net: str, smallest: int = 1) -> None:
    """Refuse an input size (H, W) whose sides are not multiples of `stride` of at least `smallest` pixels.

    Raises:
        InputError: names the side, the divisor and the two nearest accepted sizes.

    >>> check_stride((96, 100), 32, net="unet")
    Traceback (most recent call last):
    tfprune.errors.InputError: input size 96x100 does not fit unet: height and width must be multiples of 32. \
The nearest sizes that fit are 96x96 and 96x128
    """
    least = -(-smallest // stride) * stride
    if all(side % stride == 0 and side >= least for side in input_size):
        return
    below, above = zip(*(_neighbours(side, stride, least) for side in input_size), strict=True)
    near = " and ".join(f"{height}x{width}" for height, width in dict.fromkeys([below, above]))
    bound = f" of at least {least}" if least > stride else ""
    raise InputError(
        f"input size {input_size[0]}x{input_size[1]} does not fit {net}: height and width must be multiples "
        f"of {stride}{bound}. The nearest sizes that fit are {near}"
    )


def _neighbours(side: int, stride: int, least: int) -> tuple[int, int]:
    below = max(side // stride * stride, least)
    return below, max(-(-side // stride) * stride, least)
