"""Criteria by hand: numbers that a person can check."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.criteria import CRITERIA, Evidence, GeometricMedian, Magnitude, NormScale, Random, Redundancy


@pytest.fixture
def evidence():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)
    return Evidence("conv", weights, rng.random(weights.shape).astype(np.float32), np.arange(-3.0, 3.0))


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_have_one_value_per_weight_or_filter_and_leave_the_evidence_alone(name, evidence):
    before = evidence.weights.copy(), evidence.gathered.copy()
    criterion = CRITERIA[name]
    if getattr(criterion, "gathers", None) == "taylor_filters":
        evidence = Evidence("conv", evidence.weights, np.ones(6))
    scores = criterion(evidence)
    assert scores.shape in {(3, 3, 4, 6), (6,)} and np.isfinite(scores).all()
    np.testing.assert_array_equal(evidence.weights, before[0])
    np.testing.assert_array_equal(scores, criterion(evidence))


def test_magnitude_is_the_absolute_value_to_a_power(evidence):
    np.testing.assert_array_equal(Magnitude()(evidence), np.abs(evidence.weights))
    np.testing.assert_allclose(Magnitude(2.0)(evidence), evidence.weights**2, rtol=1e-6)


def test_random_scores_depend_on_seed_and_layer_only(evidence):
    other = Evidence("other", evidence.weights)
    assert not np.array_equal(Random(0)(evidence), Random(1)(evidence))
    assert not np.array_equal(Random(0)(evidence), Random(0)(other))


def test_norm_scale_ranks_by_size(evidence):
    np.testing.assert_array_equal(NormScale()(evidence), [3, 2, 1, 0, 1, 2])


def test_geometric_median_equals_the_sum_of_distances(evidence):
    rows = evidence.weights.reshape(-1, 6).T
    expected = [sum(np.linalg.norm(row - other) for other in rows) for row in rows]
    np.testing.assert_allclose(GeometricMedian()(evidence), expected, rtol=1e-5)


def test_the_most_redundant_filter_has_the_lowest_score():
    weights = np.eye(4, dtype=np.float32)
    weights[:, 3] = 2 * weights[:, 2] + 0.1
    scores = Redundancy()(Evidence("conv", weights))
    assert set(np.argsort(scores)[:2]) == {2, 3} and scores.argmin() == 3
    zero = Redundancy()(Evidence("conv", np.zeros((5, 3), np.float32)))
    np.testing.assert_array_equal(zero, 0)
