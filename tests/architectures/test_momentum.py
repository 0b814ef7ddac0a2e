"""The momentum of batch norms can be chosen for short trainings."""

from __future__ import annotations

import pytest

from tfprune.architectures import build_model
from tfprune.errors import InputError
from tfprune.keras import keras


def momenta(**options):
    model = build_model("plain_unet", input_size=(16, 16), outputs=2, width=4, depth=1, **options)
    return {layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}


def test_every_norm_takes_the_momentum_and_keeps_its_own_without_one():
    assert momenta(norm_momentum=0.9) == {0.9} and momenta() == {0.99}


def test_a_momentum_of_one_is_refused():
    with pytest.raises(InputError, match="norm_momentum is 1"):
        momenta(norm_momentum=1)
