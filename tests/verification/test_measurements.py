from __future__ import annotations

import gc
import itertools
from functools import partial

import numpy as np
import pytest

from tfprune.errors import InputError
from tfprune.verification.agreement import compare_classes
from tfprune.verification.latency import measure_latency
from tfprune.verification.quality import measure_quality


def threshold(image):
    return (image[..., 0] > 100).astype(np.uint8)


def test_quality_counts_every_picture_and_ignores_255():
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[0, 0] = 200
    masks = np.array([[[1, 0], [0, 255]], [[1, 1], [0, 0]]], np.uint8)
    found = measure_quality(threshold, images, masks, classes=2)
    np.testing.assert_array_equal(found.predicted, [[[1, 1], [0, 0]], [[0, 0], [0, 0]]])
    np.testing.assert_array_equal(found.confusions, [[[1, 1], [0, 1]], [[2, 0], [2, 0]]])
    assert found.confusions.dtype == np.int64


def test_quality_refuses_what_does_not_fit():
    images, masks = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(InputError, match="one mask per image"):
        measure_quality(threshold, images, masks[:1], classes=2)
    with pytest.raises(InputError, match="at least one"):
        measure_quality(threshold, images[:0], masks[:0], classes=2)
    with pytest.raises(InputError, match=r"image 0: the class map is \(2, 4\)"):
        measure_quality(lambda image: threshold(image)[:2], images, masks, classes=2)
    with pytest.raises(InputError, match="3 classes allow"):
        measure_quality(lambda image: threshold(image) + np.uint8(3), images, masks, classes=3)


def test_agreement_refuses_other_shapes():
    with pytest.raises(InputError, match="two equal"):
        compare_classes(np.zeros((2, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(InputError, match="not empty"):
        compare_classes(np.zeros((0, 4, 4), np.uint8), np.zeros((0, 4, 4), np.uint8))


def test_latency_is_interleaved_and_warm():
    order = []
    found = measure_latency({name: (lambda name=name: order.append(name) or 1e-3) for name in "abc"}, runs=4, warmup=2)
    assert len(order) == 3 * (4 + 2)
    rounds = ["".join(order[start : start + 3]) for start in range(0, 18, 3)]
    assert rounds == ["abc", "cba"] * 3
    assert list(found) == ["a", "b", "c"]
    assert all(item.runs == 4 for item in found.values())
    assert gc.isenabled()


def test_latency_ratio_is_paired_with_the_first():
    seconds = {"dense": itertools.cycle([0.008, 0.016]), "pruned": itertools.cycle([0.002, 0.008])}
    found = measure_latency({name: partial(next, times) for name, times in seconds.items()}, runs=9, warmup=1)
    dense, pruned = found["dense"], found["pruned"]
    assert dense.ratio_to_first == dense.ratio_low == dense.ratio_high == 1
    assert (dense.median_ms, dense.p95_ms) == (16, 16)  # five of nine rounds
    assert pruned.median_ms == 8
    assert (pruned.ratio_low, pruned.ratio_to_first, pruned.ratio_high) == (2, 2, 4)


def test_latency_refuses_nothing():
    with pytest.raises(InputError, match="at least one candidate"):
        measure_latency({})
    with pytest.raises(InputError, match="0 runs"):
        measure_latency({"a": int}, runs=0)
