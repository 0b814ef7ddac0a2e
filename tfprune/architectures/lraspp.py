"""MobileNetV3 with the segmentation head made for it, lite R-ASPP."""

from __future__ import annotations

from tfprune.architectures.blocks import Style, convolve
from tfprune.architectures.finishing import Draft
from tfprune.architectures.mobile_nets import V3_BLOCKS, check_width, encoder_loaded, mobilenet_v3
from tfprune.architectures.options import check_flags, check_whole
from tfprune.architectures.strides import check_stride
from tfprune.errors import look_up
from tfprune.keras import keras

layers = keras.layers


def lraspp(
    *,
    input_size: tuple[int, int],
    channels: int,
    outputs: int,
    encoder: str = "small",
    encoder_weights: str | None = None,
    width: float = 1.0,
    minimalistic: bool = False,
    reduced_tail: bool = False,
    output_stride: int = 16,
    filters: int = 128,
    added_filters: int = 0,
) -> Draft:
    """Draft a MobileNetV3 with lite R-ASPP; its last layer `logits` is a bilinear upsampling of 1/8.

    Source: Howard et al. 2019, arXiv 1905.02244, section 6.4; pooled over the whole picture.

    Args:
        input_size: (H, W), multiples of the output stride.
        channels: channels of the pictures.
        outputs: number of logits per pixel.
        encoder: `small` or `large`.
        encoder_weights: `imagenet`, the path of a weights file of keras.applications (.h5, without top), or None.
        width: multiplies the filters of the encoder, .1 to 2.
        minimalistic: without gates, hard swish and 5x5 kernels.
        reduced_tail: half as many filters in the last stage of the encoder, as in the paper.
        output_stride: 16 or 32: how coarse the encoder's last feature is.
        filters: width of the head.
        added_filters: width of a 3x3 convolution between what the head joins and the logits; 0 has none.

    Raises:
        InputError: for an option that is not accepted, or weights that cannot be had.
    """
    net = "lraspp"
    look_up("encoder", encoder, V3_BLOCKS, net)
    look_up("output_stride", str(output_stride), dict.fromkeys(("16", "32")), net)
    check_flags(net, minimalistic=minimalistic, reduced_tail=reduced_tail)
    check_whole(net, 1, 4096, filters=filters)
    check_whole(net, 0, 4096, added_filters=added_filters)
    check_stride(input_size, output_stride, net=f"{net} of output_stride {output_stride}")
    image = keras.Input((*input_size, channels))
    features = mobilenet_v3(
        image,
        size=encoder,
        width=check_width(net, width),
        minimalistic=minimalistic,
        reduced_tail=reduced_tail,
        output_stride=output_stride,
        weights=encoder_weights,
    )
    deep = features[output_stride]
    x = convolve(deep, filters, kernel=1, style=Style(), name="decoder_deep")
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="decoder_gate_pool")(deep)
    gate = layers.Conv2D(filters, 1, use_bias=False, name="decoder_gate_conv")(gate)
    gate = layers.Activation("sigmoid", name="decoder_gate_sigmoid")(gate)
    x = layers.Multiply(name="decoder_gated")([x, gate])
    x = layers.UpSampling2D(output_stride // 8, interpolation="bilinear", name="decoder_up")(x)
    details = features[8]
    if added_filters:
        x = layers.Concatenate(name="decoder_concat")([x, details])
        x = convolve(x, added_filters, style=Style(), name="decoder_added")
        x = layers.Conv2D(outputs, 1, name="decoder_logits")(x)
    else:
        deep_logits = layers.Conv2D(outputs, 1, name="decoder_deep_logits")(x)
        fine_logits = layers.Conv2D(outputs, 1, name="decoder_fine_logits")(details)
        x = layers.Add(name="decoder_logits")([deep_logits, fine_logits])
    x = layers.UpSampling2D(8, interpolation="bilinear")(x)
    return Draft(keras.Model(image, x), scale=1 / 127.5, offset=-1.0, loaded=encoder_loaded(encoder_weights))
