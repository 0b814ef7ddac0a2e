"""Union-find, groups and the arrays of reshapes, on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.channels.groups import ChannelGroups
from tfprune.channels.labelling import label_channels
from tfprune.channels.labels import LabelSpace
from tfprune.channels.ops import reshape_marked
from tfprune.keras import keras

layers = keras.layers


def test_unite_agrees_with_a_slow_union_find():
    rng = np.random.default_rng(0)
    for _ in range(20):
        space, count = LabelSpace(), 60
        labels = space.fresh(count)
        classes = [{i} for i in range(count)]
        for _ in range(6):
            a, b = rng.integers(0, count, (2, 12))
            space.unite(labels[a], labels[b])
            for x, y in zip(a, b, strict=True):
                classes_x = next(c for c in classes if x in c)
                classes_y = next(c for c in classes if y in c)
                if classes_x is not classes_y:
                    classes.remove(classes_y)
                    classes_x |= classes_y
        roots = space.find(labels)
        assert {frozenset(np.flatnonzero(roots == root).tolist()) for root in set(roots.tolist())} == {
            frozenset(int(i) for i in c) for c in classes
        }


def test_the_first_reason_is_reported():
    space = LabelSpace()
    a, b = space.fresh(2), space.frozen(2, "later united")
    space.freeze(a[:1], "first of all")
    space.unite(a, b)
    assert space.frozen_reasons() == {0: "later united", 1: "later united"}
    assert space.is_frozen(a).all()


def test_reshape_and_back_is_the_identity():
    labels = np.arange(6).reshape(1, 1, 1, 6)
    flat = reshape_marked(labels, (None, 4, 5, 6), (None, 120))
    assert flat.shape == (1, 120)
    np.testing.assert_array_equal(reshape_marked(flat, (None, 120), (None, 4, 5, 6)), labels)


def test_unknown_sizes_are_left_alone():
    labels = np.arange(6).reshape(1, 1, 1, 6)
    assert reshape_marked(labels, (None, None, None, 6), (None, None, 6)).shape == (1, 1, 6)
    with pytest.raises(ValueError, match="only known when it runs"):
        reshape_marked(labels, (None, None, None, 6), (None, None))


def test_groups_of_a_residual_net():
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a")(image)
    y = layers.BatchNormalization(name="n")(layers.Conv2D(4, 3, padding="same", name="b")(x))
    model = keras.Model(image, layers.Conv2D(2, 1, name="logits")(layers.Add()([x, y])))
    groups = ChannelGroups(label_channels(model))
    assert len(groups) == 4
    slices = {(part.layer, part.role, part.variable.name, part.axis, part.indices) for part in groups[1]}
    assert slices == {
        ("a", "out", "a/kernel:0", 3, (1,)),
        ("a", "out", "a/bias:0", 0, (1,)),
        ("b", "in", "b/kernel:0", 2, (1,)),
        ("b", "out", "b/kernel:0", 3, (1,)),
        ("b", "out", "b/bias:0", 0, (1,)),
        ("n", "thru", "n/gamma:0", 0, (1,)),
        ("n", "thru", "n/beta:0", 0, (1,)),
        ("n", "thru", "n/moving_mean:0", 0, (1,)),
        ("n", "thru", "n/moving_variance:0", 0, (1,)),
        ("logits", "in", "logits/kernel:0", 2, (1,)),
    }
    (family,) = groups.families
    assert (family.layers, family.groups.tolist(), family.width, family.step) == (("a", "b"), [0, 1, 2, 3], 4, 1)
    assert groups.graph.space.frozen_reasons()
    with pytest.raises(IndexError):
        groups[4]
