"""Choices: exact counts, and what blocks and patterns keep, against plain references."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.errors import InputError
from tfprune.pruning.choice import keep_by_size, keep_highest, keep_over_all
from tfprune.pruning.granularity import Block, Pattern


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_ties_and_signs_keep_exactly_as_many(size):
    scores = np.round(np.random.default_rng(0).normal(size=size), 1)
    for sparsity in (0.0, 0.3, 0.5, 0.99):
        mask = keep_highest(scores, sparsity)
        assert mask.sum() == max(1, size - round(size * sparsity))
        assert mask.all() or scores[mask].min() >= scores[~mask].max()


def test_one_ranking_over_layers_takes_the_lowest_of_all():
    scores = [np.array([5.0, 1, 2, 8]), np.array([0.1, 0.2, 9, 7])]
    masks = keep_over_all(scores, [np.ones(4), np.ones(4)], 0.5)
    np.testing.assert_array_equal(masks[0], [True, False, False, True])
    np.testing.assert_array_equal(masks[1], [False, False, True, True])


def test_a_layer_of_low_scores_is_never_emptied():
    masks = keep_over_all([np.full(200, 1e-6), np.ones(200)], [np.ones(200), np.ones(200)], 0.5)
    assert masks[0].sum() == 2 and masks[1].sum() == 198
    equal = np.random.default_rng(0).random(200)
    shares = keep_over_all([1e-6 * equal, equal], [np.ones(200)] * 2, 0.5, normalize=True)
    assert [share.sum() for share in shares] == pytest.approx([100, 100], abs=1)
    scores = [layer.astype(np.float32) for layer in (1e-24 * equal, equal)]
    shares = keep_over_all(scores, [np.ones(200)] * 2, 0.5, normalize=True)
    assert [share.sum() for share in shares] == pytest.approx([100, 100], abs=1)


@pytest.mark.parametrize("sparsity", [0.3, 0.8, 0.97])
@pytest.mark.parametrize("seed", range(5))
def test_one_ranking_with_a_hundredth_of_each_layer_held_back(sparsity, seed):
    generator = np.random.default_rng(seed)
    scores = [10.0 ** generator.integers(-6, 2) * generator.random(size) for size in (100, 300, 700, 2000)]
    masks = keep_over_all(scores, None, sparsity)
    free = []
    for layer in range(4):
        order = scores[layer].argsort()
        held = order[len(order) - len(order) // 100 :]
        assert masks[layer][held].all()
        free += [(scores[layer][unit], layer, unit) for unit in order[: len(order) - len(held)]]
    dropped = sorted(free)[: round(3100 * sparsity)]
    assert {(layer, unit) for _, layer, unit in dropped} == {
        (layer, unit) for layer in range(4) for unit in np.flatnonzero(~masks[layer])
    }


def test_sizes_count_as_weights():
    mask = keep_by_size(np.array([1.0, 2, 3, 4]), np.array([10, 20, 30, 40]), 0.3)
    np.testing.assert_array_equal(mask, [False, False, True, True])


def test_blocks_are_ranked_by_their_mean_in_the_rank_2_view():
    scores = np.random.default_rng(0).random((3, 3, 2, 5))
    mask = Block(4, 2).mask(scores, 0.5)
    view, kept = scores.reshape(18, 5), mask.reshape(18, 5)
    means, states = [], []
    for row in range(0, 18, 4):
        for column in range(0, 5, 2):
            means.append(view[row : row + 4, column : column + 2].mean())
            states.append(set(kept[row : row + 4, column : column + 2].ravel()))
    assert all(len(state) == 1 for state in states)
    kept_means = [mean for mean, state in zip(means, states, strict=True) if True in state]
    assert min(kept_means) >= max(mean for mean, state in zip(means, states, strict=True) if False in state)
    assert abs((~mask).sum() - 45) <= 8


@pytest.mark.parametrize(("sparsity", "zeros"), [(0.1, 0), (0.25, 1), (0.5, 2)])
def test_a_pattern_keeps_the_highest_of_every_group_and_grows(sparsity, zeros):
    scores = np.random.default_rng(0).random((1, 1, 10, 3))
    mask = Pattern(2, 4).mask(scores, sparsity)[0, 0]
    for start in (0, 4):
        group, kept = scores[0, 0, start : start + 4], mask[start : start + 4]
        np.testing.assert_array_equal(kept.sum(axis=0), 4 - zeros)
        for column in range(3):
            assert set(np.flatnonzero(~kept[:, column])) == set(group[:, column].argsort()[:zeros])
    assert mask[8:].all()


@pytest.mark.parametrize("make", [lambda: Block(0, 1), lambda: Pattern(4, 4), lambda: Pattern(0, 4)])
def test_empty_units_are_refused(make):
    with pytest.raises(InputError, match="must be"):
        make()
