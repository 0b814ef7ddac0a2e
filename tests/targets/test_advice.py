"""Advice: variants are really made and measured, and zeros and channels buy what the targets say they buy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.topologies import randomize
from tests.cli.test_commands import tfprune
from tfprune.architectures import build_model
from tfprune.budget import parse_budget
from tfprune.channels import measure_cost
from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.targets import TARGETS
from tfprune.targets.advice import (
    VARIANTS,
    advise,
    conclude,
    export_untrained,
    gains,
    halved,
    masked,
    meeting,
    narrowed,
    sized,
)
from tfprune.targets.lint import lint_file
from tfprune.targets.vela import choose_system, estimate_with_vela, has_vela
from tfprune.verification.runtimes import open_runtime

SIZE = 32
needs_vela = pytest.mark.skipif(not has_vela(), reason="needs ethos-u-vela: pip install 'tfprune[ethos]'")


@pytest.fixture(scope="module")
def net():
    return build_model("plain_unet", input_size=(SIZE, SIZE), outputs=2, seed=0, width=8, depth=2)


@pytest.fixture(scope="module", params=["tflm", pytest.param("ethos-u55", marks=needs_vela)])
def advice(request, net, tmp_path_factory):
    return advise(net, request.param, tmp_path_factory.mktemp(request.param))


def by_name(advice):
    return {row.variant: row for row in advice.rows}


def test_zeros_buy_a_download_everywhere_and_flash_on_ethos_only(advice):
    rows = by_name(advice)
    won = gains(rows["90 % zeros"], rows["dense"])
    # a small net on Ethos-U waits for its flash, so that fewer bytes are less time as well
    assert set(won) - {"time"} == ({"flash"} if advice.target == "ethos-u55" else set())
    assert rows["90 % zeros"].file_bytes == rows["dense"].file_bytes
    assert rows["90 % zeros"].gzip_bytes < rows["dense"].gzip_bytes / 2
    assert rows["90 % zeros"].macs == rows["dense"].macs


def test_removed_channels_buy_file_or_flash_and_arithmetic(advice):
    rows = by_name(advice)
    assert rows["-50 % channels"].macs < 0.6 * rows["dense"].macs
    assert ("flash" if advice.target == "ethos-u55" else "file") in gains(rows["-50 % channels"], rows["dense"])
    assert rows["half picture"].macs * 4 == rows["dense"].macs
    assert not advice.left_out


def test_each_target_tells_what_it_can_and_says_how(advice):
    dense = advice.rows[0]
    assert (dense.time_ms is None) == (advice.target == "tflm")
    assert ("estimates" in advice.said) == (advice.target == "ethos-u55")
    lines = conclude(advice)
    assert len(lines) == 4 and lines[0].startswith("90 % zeros: ") and "download" in lines[0]


def test_a_budget_names_the_variants_that_meet_it(advice):
    rows = by_name(advice)
    limit = rows["-50 % channels"].file_bytes
    names = [row.variant for row in meeting(advice, parse_budget(f"file_bytes<={limit}"))]
    assert names == ["-50 % channels", "-75 % channels"]
    assert meeting(advice, parse_budget("macs<=0.0001x")) == []
    with pytest.raises(InputError, match=f"advice for {advice.target} tells file_bytes"):
        meeting(advice, parse_budget("parameters<=5"))


def test_variants_are_what_their_names_say(net):
    kernels = [weight.numpy() for weight in masked(net, 0.8).weights if "kernel" in weight.name]
    sizes = [kernel.size for kernel in kernels if kernel.size >= 1024 and kernel.shape[-1] > 2]
    zeros = [np.count_nonzero(kernel == 0) for kernel in kernels if kernel.size >= 1024 and kernel.shape[-1] > 2]
    assert sum(zeros) / sum(sizes) == pytest.approx(0.8, abs=0.01)
    assert measure_cost(narrowed(net, 0.5)).parameters < 0.4 * measure_cost(net).parameters
    assert halved(net).input_shape == (None, SIZE // 2, SIZE // 2, 3)


def test_the_file_of_an_untrained_net_is_as_large_as_that_of_a_trained_one(tmp_path):
    """Biases that are all zero are stored once, until training tells them apart."""
    untrained, trained = (
        build_model("plain_unet", input_size=(SIZE, SIZE), outputs=2, seed=seed, width=4, depth=1) for seed in (0, 1)
    )
    before = untrained.get_weights()
    randomize(trained)
    for name, model in (("untrained", untrained), ("trained", trained)):
        export_untrained(model, tmp_path / name, scheme="int8", head="logits")
    sizes = [(tmp_path / name).stat().st_size for name in ("untrained", "trained")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)
    for one, two in zip(before, untrained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_net_for_one_picture_size_is_advised_without_a_smaller_picture(tmp_path):
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(16, 3, padding="same")(image)
    x = keras.layers.Reshape((SIZE, SIZE, 16))(x)
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(x))
    advice = advise(model, "coral", tmp_path)
    assert "half picture" in advice.left_out and "for pictures of 16 x 16" in advice.left_out["half picture"]


def test_a_net_for_pictures_of_any_size_is_advised_for_one(net, tmp_path):
    open_net = sized(net, (None, None))
    assert open_net.input_shape == (None, None, None, 3)
    with pytest.raises(InputError, match="pictures of any size"):
        advise(open_net, "coral", tmp_path)
    closed = sized(open_net, (SIZE, SIZE))
    picture = np.random.default_rng(0).uniform(0, 255, (1, SIZE, SIZE, 3))
    np.testing.assert_array_equal(closed(picture), net(picture))


@needs_vela
def test_vela_agrees_with_the_static_rules(net, tmp_path):
    from tfprune.export.conversion import export_tflite

    pictures = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    for head in ("logits", "class_map", "coarse_class_map"):
        path = export_tflite(
            net, tmp_path / f"{head}.tflite", scheme="int8", head=head, class_names=["a", "b"], calibration=pictures
        )
        found = estimate_with_vela(path, choose_system("ethos-u55"))
        by_rules = [one.operator for one in lint_file(path, "ethos-u55").findings]
        assert by_rules == (["BROADCAST_TO"] if head == "coarse_class_map" else [])
        assert len(found.faults) == len(by_rules)
        assert found.sram_bytes > 2 * SIZE * SIZE and 0 < found.flash_bytes < path.stat().st_size
        assert open_runtime(path).input_size == (SIZE, SIZE)


@needs_vela
def test_a_file_that_vela_cannot_read_gets_one_message(tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"\0\0\0\0TFL3broken")
    with pytest.raises(InputError, match="Vela cannot compile this file"):
        estimate_with_vela(tmp_path / "broken.tflite", choose_system("ethos-u55"))


def test_the_command_prints_a_table_within_80_columns(net, tmp_path, monkeypatch):
    few = ("dense", "90 % zeros", "-50 % channels", "coarse classes")
    monkeypatch.setattr("tfprune.targets.advice.VARIANTS", {name: VARIANTS[name] for name in few})
    sized(net, (None, None)).save(tmp_path / "net.keras")
    options = ("--target", "x86-cpu", "--budget", "latency_ms<=1000", "--size", SIZE, SIZE)
    result = tfprune("advise", tmp_path / "net.keras", *options)
    assert result.returncode == 0, result.stderr
    assert "measured on this machine" in " ".join(result.stdout.split())
    assert "Meets latency_ms<=1000: dense" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert set(TARGETS) >= {"android-cpu", "coral", "ethos-u55", "ethos-u65", "ethos-u85", "tflm", "x86-cpu"}
