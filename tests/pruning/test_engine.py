"""The mask engine: every schedule x criterion x granularity ends exact, in every kind of loop."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from tests.tiny import tiny_net
from tfprune.criteria import CRITERIA, Evidence
from tfprune.errors import InputError
from tfprune.keras import keras, tf
from tfprune.pruning import SCHEDULES
from tfprune.pruning.controller import MaskController
from tfprune.pruning.granularity import Block, Pattern
from tfprune.pruning.groups import ChannelGroup, Member
from tfprune.pruning.schedules import build_schedule, sparsity_by_step
from tfprune.pruning.selection import select_layers

FILTERWISE = ("taylor_gate", "norm_scale", "geometric_median", "redundancy")
GRANULARITIES = {"weight": "weight", "block": Block(4, 2), "pattern": Pattern(2, 4), "filter": "filter"}


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def masked(
    model=None, *, final=0.5, steps=10, schedule="polynomial", prunes=5, min_weights=500, scope="layer", **settings
):
    model = model or tiny_net()
    ramp = build_schedule(schedule, final, begin_step=0, end_step=steps, prunes=prunes)
    return MaskController(model, ramp, selection=select_layers(model, min_weights=min_weights), scope=scope, **settings)


def train(controller, discs, *, steps=10, optimizer="adam", **settings):
    pictures, truth = discs[0][:40].astype(np.float32), discs[1][:40]
    controller.model.compile(optimizer, loss(), **settings)
    data = tf.data.Dataset.from_tensor_slices((pictures, truth)).batch(8, drop_remainder=True).repeat()
    return controller.model.fit(data, epochs=1, steps_per_epoch=steps, verbose=0, callbacks=[controller.callback()])


@pytest.fixture(scope="module")
def nets():
    """One wrapped net per (criterion, granularity), made when it is first asked for."""
    made = {}

    def net(criterion, granularity):
        key = criterion, granularity
        if key not in made:
            made[key] = masked(criterion=criterion, granularity=GRANULARITIES[granularity])
        return made[key]

    return net


COMBINATIONS = [
    (criterion, granularity)
    for criterion, granularity in itertools.product(CRITERIA, GRANULARITIES)
    if granularity == "filter" or criterion not in FILTERWISE
]


@pytest.mark.parametrize(("criterion", "granularity"), COMBINATIONS)
def test_every_schedule_ends_within_one_unit_in_every_layer(nets, criterion, granularity):
    controller = nets(criterion, granularity)
    units = {"weight": 1, "block": 8}
    for name in SCHEDULES:
        schedule = build_schedule(name, 0.5, begin_step=2, end_step=12, prunes=2)
        controller.sparsity_at = sparsity_by_step(schedule)
        for step in range(1, 13):
            for layer in controller.tapped:
                layer.evidence.assign(np.random.default_rng(step).normal(size=layer.evidence.shape))
            controller.update(step, keras.optimizers.SGD())
        for row, layer in zip(controller.sparsity(), controller.layers, strict=True):
            unit = units.get(granularity) or row.weights // layer.mask.shape[-1]
            assert abs(row.weights - row.nonzero - 0.5 * row.weights) <= unit, (name, row)
            if granularity == "pattern":
                inputs = layer.mask.shape[-2] // 4 * 4
                groups = layer.mask.numpy()[:, :, :inputs].reshape(3, 3, -1, 4, layer.mask.shape[-1])
                np.testing.assert_array_equal(groups.sum(axis=3), 2)
            if granularity == "filter":
                assert set(np.unique(layer.mask.numpy().mean(axis=(0, 1, 2)))) == {0.0, 1.0}


@pytest.mark.parametrize("criterion", FILTERWISE)
def test_filter_criteria_are_refused_for_single_weights(criterion):
    with pytest.raises(InputError, match=r"per filter with the granularities"):
        masked(criterion=criterion)


def test_a_filter_goes_with_its_bias_and_norm_so_that_its_channel_is_dead(discs):
    controller = masked(granularity="filter", criterion="taylor")
    train(controller, discs)
    norm = controller._owners["middle_norm"]
    dead = controller.layers[0].mask.numpy().sum(axis=(0, 1, 2)) == 0
    assert dead.sum() == 8
    assert not norm.variable("gamma").numpy()[dead].any() and norm.whole("gamma").numpy()[dead].all()
    assert not norm.variable("beta").numpy()[dead].any()
    plain = controller.strip()
    probe = keras.Model(plain.input, plain.get_layer("middle_relu").output)
    assert not probe.predict(discs[0][:4].astype(np.float32), verbose=0)[..., dead].any()


@pytest.mark.parametrize("criterion", ["taylor_gate", "norm_scale"])
def test_a_filter_with_a_depth_multiplier_scores_by_all_of_its_norm(criterion):
    layers = keras.layers
    image = keras.Input((4, 4, 4))
    x = layers.BatchNormalization(name="norm")(layers.DepthwiseConv2D(3, depth_multiplier=2)(image))
    model = keras.Model(image, layers.Conv2D(2, 1)(x))
    selection = select_layers(model, min_weights=1, exclude=("head",))
    schedule = build_schedule("one_shot", 0.5, begin_step=1, end_step=5, prunes=1)
    controller = MaskController(
        model, schedule, selection=selection, criterion=criterion, granularity="filter", scope="layer"
    )
    norm = controller._owners["norm"]
    strength = np.array([3.0, 3.0, 0.0, 5.0, 0.0, 0.0, 7.0, 0.0])  # of the filters: 6, 5, 0 and 7
    (norm.evidence if criterion == "taylor_gate" else norm.layer.gamma).assign(strength)
    controller.update(1, keras.optimizers.SGD())
    assert controller.layers[0].mask.numpy().any(axis=(0, 1, 3)).tolist() == [True, False, False, True]


def test_handed_groups_mask_producers_norms_and_the_inputs_of_what_follows():
    model = tiny_net()
    channels = tuple((i,) for i in range(16))
    group = ChannelGroup(
        "middle",
        (
            Member("middle_conv", "kernel", 3, channels),
            Member("middle_norm", "gamma", 0, channels),
            Member("middle_norm", "beta", 0, channels),
            Member("last_conv", "kernel", 2, channels),  # join = [up, skip]: the first 16 of 24 inputs
        ),
    )
    selection = select_layers(model, include=["middle_conv"])
    schedule = build_schedule("one_shot", 0.75, begin_step=1, end_step=5, prunes=1)
    controller = MaskController(model, schedule, selection=selection, granularity=[group])
    controller.update(1, keras.optimizers.SGD())
    kept = controller.layers[0].mask.numpy().any(axis=(0, 1, 2))
    follower = controller._owners["last_conv"].mask.numpy().any(axis=(0, 1, 3))
    strength = np.abs(model.get_layer("middle_conv").kernel.numpy()).sum(axis=(0, 1, 2))
    assert set(np.flatnonzero(kept)) == set(np.argsort(strength)[-4:])
    np.testing.assert_array_equal(follower, np.concatenate([kept, np.ones(8, bool)]))
    lost = ChannelGroup("lost", (Member("last_conv", "kernel", 2, channels),))
    with pytest.raises(InputError, match="'lost' holds no filters"):
        MaskController(model, schedule, selection=selection, granularity=[lost])


def test_one_global_ranking_meets_the_total_and_spares_every_layer(discs):
    for settings in ({}, {"normalize": True}, {"granularity": "filter"}, {"granularity": Block(4, 1)}):
        controller = masked(final=0.9, scope="global", **settings)
        controller.update(10, keras.optimizers.SGD())
        assert controller.total_sparsity() == pytest.approx(0.9, abs=0.05 if "granularity" in settings else 1e-3)
        rows = controller.sparsity()
        assert all(row.sparsity <= 0.99 and row.nonzero for row in rows)
    with pytest.raises(InputError, match="at most 99 % of a layer"):
        masked(final=0.995, scope="global")


def test_weights_and_blocks_are_ranked_over_all_layers_unless_asked_otherwise():
    scopes = {"weight": "global", "block": "global", "pattern": "layer", "filter": "layer"}
    assert {name: masked(granularity=name, scope=None).scope for name in scopes} == scopes
    assert masked(granularity=Block(2, 2), scope=None).scope == "global"
    controller = masked(final=0.8, scope=None)
    controller.update(10, keras.optimizers.SGD())
    shares = [row.sparsity for row in controller.sparsity()]
    assert controller.total_sparsity() == pytest.approx(0.8, abs=1e-3)
    assert max(shares) > 0.81


def test_layers_may_have_a_sparsity_of_their_own():
    for scope in ("layer", "global"):
        controller = masked(final=0.8, scope=scope, layer_sparsity={"^middle": 0.25})
        controller.update(10, keras.optimizers.SGD())
        assert controller.sparsity()[0].sparsity == pytest.approx(0.25, abs=1e-3)
        assert controller.sparsity()[1].sparsity == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(InputError, match="must be found in the name of a masked layer"):
        masked(layer_sparsity={"encoder": 0.5})
    with pytest.raises(InputError, match=r"layer_sparsity: '\[' is not a regular expression"):
        masked(layer_sparsity={"[": 0.5})
    with pytest.raises(InputError, match="which ends at 0"):
        masked(final=0.0, layer_sparsity={"^middle": 0.5})


@pytest.mark.parametrize("criterion", ["magnitude", "movement"])
def test_a_masked_weight_comes_back_with_its_value(discs, criterion):
    controller = masked(criterion=criterion, final=0.5, steps=40, schedule="constant", prunes=8)
    layer = controller.layers[0]
    train(controller, discs, steps=5, optimizer=keras.optimizers.Adam(0.02))
    before, values = layer.mask.numpy(), layer.whole("kernel").numpy()
    train(controller, discs, steps=35, optimizer=keras.optimizers.Adam(0.02))
    back = (before == 0) & (layer.mask.numpy() == 1)
    assert back.sum() > 3
    assert np.all(values[before == 0] != 0)


@pytest.mark.parametrize("criterion", ["taylor", "taylor_gate"])
def test_what_taylor_drops_stays_away(discs, criterion):
    granularity = "filter" if criterion == "taylor_gate" else "weight"
    controller = masked(criterion=criterion, granularity=granularity, final=0.5, steps=40, prunes=8)
    layer = controller.layers[0]
    train(controller, discs, steps=20, optimizer=keras.optimizers.Adam(0.02))
    before = layer.mask.numpy()
    train(controller, discs, steps=20, optimizer=keras.optimizers.Adam(0.02))
    after = layer.mask.numpy()
    assert after.sum() < before.sum() < before.size
    assert not np.any((before == 0) & (after == 1))


@dataclass(frozen=True)
class Smallest:
    """A criterion of one's own: the smallest weights stay."""

    power: float = 1.0

    def __call__(self, evidence: Evidence) -> np.ndarray:
        return -(np.abs(evidence.weights) ** self.power)


def test_a_criterion_of_ones_own_is_a_dozen_lines():
    model = tiny_net()
    controller = masked(model, criterion=Smallest(2.0))
    controller.update(10, keras.optimizers.SGD())
    sizes, mask = np.abs(model.get_layer("middle_conv").kernel.numpy()), controller.layers[0].mask.numpy()
    assert sizes[mask == 1].max() < sizes[mask == 0].min()
    function = masked(criterion=lambda evidence: evidence.weights)
    assert function.update(10, keras.optimizers.SGD())
    with pytest.raises(InputError, match="frozen dataclass"):
        function.model.get_config()


def test_evidence_is_the_gradient_of_the_task_alone_times_the_weight(discs):
    pictures, truth = tf.constant(discs[0][:8].astype(np.float32)), discs[1][:8]
    plain = tiny_net(norm=False)
    with tf.GradientTape() as tape:
        value = loss()(truth, plain(pictures, training=True))
    kernel = plain.get_layer("middle_conv").kernel
    expected = (tape.gradient(value, kernel) * kernel).numpy()
    source = regularized_net(norm=False)
    shapes = {"taylor": expected**2, "taylor_gate": expected.sum(axis=(0, 1, 2)) ** 2}
    for criterion, wanted in shapes.items():
        granularity = "filter" if criterion == "taylor_gate" else "weight"
        controller = masked(source, criterion=criterion, granularity=granularity)
        assert len(controller.model.losses) == 2
        controller.model.compile(keras.optimizers.SGD(0.0, weight_decay=0.1, clipnorm=1e-3), loss())
        controller.model.train_on_batch(pictures, truth)
        np.testing.assert_allclose(controller.layers[0].evidence.numpy(), wanted, rtol=1e-3, atol=1e-9)


def test_movement_scores_follow_adam(discs):
    pictures, truth = tf.constant(discs[0][:8].astype(np.float32)), discs[1][:8]
    controller = masked(tiny_net(norm=False), criterion="movement", prunes=1)
    controller.model.compile(keras.optimizers.SGD(0.0), loss())
    for _ in range(2):
        controller.model.train_on_batch(pictures, truth)
    kernel = controller.layers[0].kernel
    with tf.GradientTape() as tape:
        value = loss()(truth, controller.model(pictures, training=True))
    score = tf.Variable(tf.zeros(kernel.shape))
    adam = keras.optimizers.Adam(1e-2)
    gradient = tape.gradient(value, kernel) * kernel
    for _ in range(2):
        adam.apply_gradients([(gradient, score)])
    np.testing.assert_allclose(controller.layers[0].evidence.numpy(), score.numpy(), rtol=0.02, atol=2e-4)


@keras.utils.register_keras_serializable("tests")
class Coupling(keras.regularizers.Regularizer):
    """Couples all weights of a kernel, so that its gradient at a zero is not zero."""

    def __call__(self, kernel):
        return 0.1 * tf.square(tf.reduce_sum(kernel) - 1.0)

    def get_config(self):
        return {}


def regularized_net(**settings):
    source = tiny_net(**settings)
    for name in ("middle_conv", "last_conv"):
        source.get_layer(name).kernel_regularizer = Coupling()
    clone = keras.models.clone_model(source)
    clone.set_weights(source.get_weights())
    return clone


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, clipnorm=0.1),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=1.0),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipvalue=0.5),
        lambda: keras.optimizers.RMSprop(0.01, momentum=0.9),
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
        lambda: keras.optimizers.Ftrl(0.05),
        lambda: keras.optimizers.legacy.Adam(0.01),
    ],
)
def test_zeros_stay_zero_under_every_optimizer(discs, optimizer):
    controller = masked(regularized_net(), steps=6, prunes=3)
    train(controller, discs, steps=12, optimizer=optimizer())
    for layer in controller.layers:
        assert not layer.kernel.numpy()[layer.mask.numpy() == 0].any()
        assert np.count_nonzero(layer.kernel.numpy()) <= layer.mask.numpy().sum()


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, keras.mixed_precision.LossScaleOptimizer])
def test_an_optimizer_of_another_model_is_refused(discs, wrap):
    optimizer = wrap(keras.optimizers.Adam(0.01))
    net = tiny_net()
    net.compile(optimizer, loss())
    net.train_on_batch(discs[0][:8].astype(np.float32), discs[1][:8])
    with pytest.raises(InputError, match="does not know all variables"):
        train(masked(net), discs, optimizer=optimizer)
    controller = masked(net)
    train(controller, discs, optimizer=type(optimizer).from_config(optimizer.get_config()))
    assert controller.layers[0].mask.numpy().mean() < 1


def test_a_legacy_optimizer_cannot_gather(discs):
    with pytest.raises(InputError, match="legacy one"):
        train(masked(criterion="taylor"), discs, optimizer=keras.optimizers.legacy.SGD(0.01))
