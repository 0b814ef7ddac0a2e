"""Fifty random graphs: each rebuilt exactly, or refused with a reason."""

from __future__ import annotations

import pytest

from tests.channels.random_graphs import random_graph
from tfprune.channels import remove_channels
from tfprune.errors import InputError
from tfprune.keras import keras


@pytest.mark.parametrize("first", range(0, 50, 10))
def test_random_graphs(first):
    exact = 0
    for seed in range(first, first + 10):
        keras.backend.clear_session()
        model = random_graph(seed)
        try:
            removal = remove_channels(model, 0.5, criterion="random")
        except InputError as error:
            assert "no channel that may go" in str(error)
            continue
        assert removal.equality.difference <= 1e-5, f"seed {seed}"
        exact += 1
    assert exact >= 8
