"""MA-Net: attention and gates against numpy, widths counted by hand, and that it exports."""

from __future__ import annotations

import numpy as np
import pytest

from tests.architectures.tiny_encoder import FILTERS, WIDTHS, build_tiny, export, logits_of_file, pictures
from tfprune.architectures import build_model
from tfprune.architectures.files import load_model
from tfprune.channels import remove_channels
from tfprune.keras import keras
from tfprune.verification.footprint import measure_footprint

GRID = (2, 3)


@pytest.fixture(scope="module")
def tiny():
    """The net on a tiny encoder, for 64x96 pixels: the attention sees a grid of 2x3."""
    with pytest.MonkeyPatch.context() as patch:
        return build_tiny("manet", patch)


@pytest.fixture(scope="module")
def attention(tiny):
    """The part from query, key and value (N, 2, 3, C) to the weights and to the mixed values."""
    parts = [tiny.get_layer(f"decoder_attention_{part}_conv").output for part in ("query", "key", "value")]
    ends = [tiny.get_layer(f"decoder_attention_{part}").output for part in ("weights", "grid")]
    return keras.Model(parts, ends)


@pytest.fixture(scope="module")
def positions():
    """Random query, key and value of two pictures."""
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.4, (2, *GRID, width)).astype(np.float32) for width in (64, 64, WIDTHS[0])]


def permuted(grid, order):
    """Reorder the positions of (N, H, W, C)."""
    return grid.reshape(len(grid), -1, grid.shape[-1])[:, order].reshape(grid.shape)


def test_attention_is_that_of_a_loop_in_numpy(attention, positions):
    weights, mixed = (output.numpy() for output in attention(positions))
    query, key, value = (part.astype(np.float64) for part in positions)
    for picture in range(2):
        for row, column in np.ndindex(GRID):
            scores = np.array([query[picture, row, column] @ key[picture, y, x] for y, x in np.ndindex(GRID)])
            shares = np.exp(scores) / np.exp(scores).sum()
            expected = sum(share * value[picture, y, x] for share, (y, x) in zip(shares, np.ndindex(GRID), strict=True))
            np.testing.assert_allclose(weights[picture, row * GRID[1] + column], shares, atol=1e-6)
            np.testing.assert_allclose(mixed[picture, row, column], expected, atol=1e-5)


def test_each_position_shares_out_one(attention, positions):
    weights = attention(positions)[0].numpy()
    assert weights.shape == (2, 6, 6)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    assert not np.allclose(weights.sum(axis=-2), 1, atol=1e-2)


def test_permuted_positions_give_a_permuted_result(attention, positions):
    query, key, value = positions
    mixed = attention(positions)[1].numpy()
    order = np.array([4, 0, 5, 2, 1, 3])
    asked = attention([permuted(query, order), key, value])[1].numpy()
    np.testing.assert_allclose(asked, permuted(mixed, order), atol=1e-6)
    answered = attention([query, permuted(key, order), permuted(value, order)])[1].numpy()
    np.testing.assert_allclose(answered, mixed, atol=1e-6)


def test_equal_keys_give_the_mean_value_everywhere(attention, positions):
    query, key, value = positions
    mixed = attention([query, np.ones_like(key), value])[1].numpy()
    np.testing.assert_allclose(mixed, np.broadcast_to(value.mean(axis=(1, 2), keepdims=True), mixed.shape), atol=1e-6)


def test_a_fusion_block_gates_by_both_scales(tiny):
    stage = "decoder_stage1"
    names = ("coarse_b_relu", "coarse_gate_sigmoid", "fine_gate_sigmoid", "gated", "concat")
    ends = [tiny.get_layer(f"{stage}_{name}").output for name in names]
    skip = tiny.get_layer("tiny2").output
    coarse, coarse_gate, fine_gate, gated, joined, skip = (
        output.numpy() for output in keras.Model(tiny.input, [*ends, skip])(pictures(2).astype(np.float32))
    )

    def gate(x, name):
        for part in ("squeeze", "excite"):
            kernel, bias = tiny.get_layer(f"{stage}_{name}_{part}").get_weights()
            x = x @ kernel[0, 0] + bias
            x = np.maximum(x, 0) if part == "squeeze" else 1 / (1 + np.exp(-x))
        return x[:, None, None]

    np.testing.assert_allclose(coarse_gate, gate(coarse.mean(axis=(1, 2)), "coarse_gate"), atol=1e-5)
    np.testing.assert_allclose(fine_gate, gate(skip.mean(axis=(1, 2)), "fine_gate"), atol=1e-5)
    np.testing.assert_allclose(gated, coarse * (coarse_gate + fine_gate), atol=1e-4)
    np.testing.assert_array_equal(joined, np.concatenate([gated.repeat(2, 1).repeat(2, 2), skip], axis=-1))


def test_parameters_of_every_block_counted_by_hand(tiny):
    def parameters(prefix):
        return sum(layer.count_params() for layer in tiny.layers if layer.name.startswith(prefix))

    coarsest = WIDTHS[0]
    maps, values = coarsest * 64 + 64, 9 * coarsest * coarsest + coarsest
    assert parameters("decoder_attention") == 2 * maps + 2 * values

    def convolution(before, after, kernel=3):
        return kernel * kernel * before * after + 4 * after  # no bias, and four numbers of a batch norm

    before = coarsest
    for stage, skip in enumerate(WIDTHS[1:]):
        after, inside = FILTERS[stage], max(1, skip // 16)
        gates = 2 * (skip * inside + inside + inside * skip + skip)
        coarse = convolution(before, before) + convolution(before, skip, kernel=1)
        joined = convolution(2 * skip, after) + convolution(after, after)
        assert parameters(f"decoder_stage{stage}") == gates + coarse + joined, stage
        before = after
    assert parameters("decoder_stage4") == convolution(10, 6) + convolution(6, 6)
    assert parameters("logits") == 9 * 6 * 3 + 3


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [("resnet18", 21_691_213), pytest.param("resnet101", 166_533_493, marks=pytest.mark.slow)],
)
def test_parameters_on_encoders(encoder, parameters):
    model = build_model("manet", encoder=encoder, input_size=(64, 64), outputs=4)
    assert model.count_params() == parameters


@pytest.mark.parametrize(
    "encoder",
    [
        "vgg16",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenetv2", "efficientnetb0", "densenet121")),
    ],
)
def test_it_builds_on_other_families(encoder):
    model = build_model("manet", encoder=encoder, input_size=(64, 64), outputs=2, seed=0)
    logits = model(np.full((1, 64, 64, 3), 128, np.float32), training=False).numpy()
    assert logits.shape == (1, 64, 64, 2) and np.isfinite(logits).all()


def test_a_saved_net_needs_keras_alone(tiny, tmp_path):
    assert {type(layer).__module__.split(".")[0] for layer in tiny.layers} == {"tf_keras"}
    tiny.save(tmp_path / "manet.keras")
    images = pictures(2).astype(np.float32)
    loaded = load_model(tmp_path / "manet.keras")
    np.testing.assert_array_equal(loaded(images, training=False), tiny(images, training=False))


def test_channels_of_query_and_key_go_together(tiny):
    smaller = remove_channels(tiny).model
    widths = {
        part: smaller.get_layer(f"decoder_attention_{part}_conv").filters for part in ("query", "key", "value", "out")
    }
    assert widths["query"] == widths["key"] < 64
    assert widths["value"] < WIDTHS[0] and widths["out"] < WIDTHS[0]


def test_float32_file_equals_keras(tiny, tmp_path):
    wanted = tiny(pictures().astype(np.float32), training=False).numpy()
    np.testing.assert_allclose(logits_of_file(export(tiny, tmp_path, "float32")), wanted, atol=1e-4)


def test_int8_file_is_near_keras_and_all_integer(tiny, tmp_path):
    path = export(tiny, tmp_path, "int8")
    footprint = measure_footprint(path)
    assert footprint.float_ops == ()
    assert footprint.ops["BATCH_MATMUL"] == 2 and footprint.ops["SOFTMAX"] == 1
    wanted = tiny(pictures().astype(np.float32), training=False).numpy()
    noise = logits_of_file(path) - wanted
    assert 10 * np.log10((wanted**2).mean() / (noise**2).mean()) >= 15
