"""Costs against numbers by hand and against TensorFlow's profiler."""

from __future__ import annotations

import numpy as np
import pytest

from tests.channels.topologies import TOPOLOGIES
from tests.tiny import tiny_net
from tfprune.channels import ChannelGroups, Selection, label_channels, measure_cost, remove_channels, score_groups
from tfprune.channels.counting import ChannelCosts
from tfprune.channels.planning import choose
from tfprune.channels.rebuild import rebuild
from tfprune.errors import InputError
from tfprune.keras import keras, quiet_stderr, tf

layers = keras.layers


def profiled_macs(model):
    """Multiplications of convolutions and matrix products, by TensorFlow's own profiler."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
    function = tf.function(lambda *values: model(list(values) if len(values) > 1 else values[0], training=False))
    graph = convert_variables_to_constants_v2(function.get_concrete_function(*signature)).graph
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation()).with_empty_output()
    with quiet_stderr():
        found = profiler.profile(graph, options=options.build())
    kinds = {op.name: op.type for op in graph.get_operations()}
    products = ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Conv2DBackpropInput")
    total, waiting = 0, [found]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if kinds.get(node.name) in products:
            total += node.float_ops
    return total // 2


@pytest.mark.parametrize("name", ["residual", "nested", "attention_ops", "aspp_resize", "grouped", "flatten_dense"])
def test_macs_agree_with_the_profiler(name):
    model = TOPOLOGIES[name]()
    if name == "grouped":  # the profiler counts a grouped convolution as a full one
        model = keras.Model(model.input, layers.SeparableConv2D(4, 3)(layers.DepthwiseConv2D(3)(model.input)))
    assert measure_cost(model).macs == profiled_macs(model)


def test_by_hand():
    cost = measure_cost(tiny_net())
    by_layer = {layer.layer: layer for layer in cost.layers}
    assert by_layer["down_conv"].macs == 32 * 32 * 27 * 8
    assert by_layer["middle_conv"].macs == 16 * 16 * 9 * 8 * 16
    assert by_layer["last_conv"].macs == 32 * 32 * 9 * 24 * 8
    assert by_layer["logits"].macs == 32 * 32 * 8 * 2
    assert cost.macs == sum(layer.macs for layer in cost.layers)
    assert cost.parameters == tiny_net().count_params() == sum(layer.parameters for layer in cost.layers)
    assert (cost.weight_bytes_float32, cost.weight_bytes_int8) == (4 * cost.parameters, cost.parameters)


def test_peak_of_activations_by_hand():
    # when `join` runs, up (32*32*16), skip (32*32*8) and join (32*32*24) are alive
    cost = measure_cost(tiny_net())
    assert cost.peak_activation_bytes_int8 == 32 * 32 * 48
    assert cost.peak_activation_bytes_float32 == 4 * 32 * 32 * 48


def test_a_tensor_read_twice_is_not_written_over():
    image = layers.Input((4, 4, 1))
    x = layers.Conv2D(10, 1)(image)
    once = keras.Model(image, layers.Conv2D(1, 1)(layers.ReLU()(x)))
    twice = keras.Model(image, layers.Conv2D(1, 1)(layers.Add()([x, layers.ReLU()(x)])))
    assert measure_cost(once).peak_activation_bytes_int8 == 16 * 11
    assert measure_cost(twice).peak_activation_bytes_int8 == 16 * 30


def test_shared_and_nested_layers():
    model = TOPOLOGIES["siamese"]()
    cost = measure_cost(model)
    assert cost.parameters == model.count_params() == sum(layer.parameters for layer in cost.layers)
    assert sum(layer.layer.startswith("encoder/") and layer.macs > 0 for layer in cost.layers) == 4


def test_a_head_that_is_called_on_maps_of_several_sizes():
    head = keras.Sequential([layers.Conv2D(6, 3, padding="same"), layers.Conv2D(2, 1)])
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 1)(image)
    model = keras.Model(image, [head(x), head(layers.MaxPooling2D()(x)), head(layers.MaxPooling2D(4)(x))])
    each = 9 * 8 * 6 + 6 * 2
    assert measure_cost(model).macs == 256 * 3 * 8 + (256 + 64 + 16) * each
    removal = remove_channels(model, Selection(budget="macs<=0.5x"))
    assert removal.plan.budget[0].after == removal.plan.macs_after == measure_cost(removal.model).macs


def test_unknown_sizes():
    model = TOPOLOGIES["dynamic_size"]()
    with pytest.raises(InputError, match="give input_size"):
        measure_cost(model)
    small, large = measure_cost(model, input_size=(32, 32)), measure_cost(model, input_size=(64, 64))
    assert large.macs == 4 * small.macs


@pytest.mark.parametrize("name", [name for name in TOPOLOGIES if name != "dynamic_size"])
def test_costs_of_a_plan_are_those_of_the_model_it_builds(name):
    model = TOPOLOGIES[name]()
    groups = ChannelGroups(label_channels(model))
    removed = choose(groups, score_groups(groups), Selection(ratio=0.4))
    keep, costs = groups.keep(removed), ChannelCosts(groups.graph)
    before, after = measure_cost(model), measure_cost(rebuild(groups.graph, keep))
    whole = np.ones_like(keep)
    assert (costs.macs(whole), costs.parameters(whole)) == (before.macs, before.parameters)
    assert costs.peak(whole)[0] == before.peak_activation_bytes_int8
    assert costs.macs(keep) == after.macs
    assert costs.parameters(keep) == after.parameters
    assert costs.peak(keep)[0] == after.peak_activation_bytes_int8
