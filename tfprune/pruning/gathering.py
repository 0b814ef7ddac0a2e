"""Where evidence is gathered, and what happens to it in a training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfprune.keras import tf
from tfprune.pruning.groups import ChannelGroup
from tfprune.pruning.wrapper import MaskedLayer

_RATE, _BETA_1, _BETA_2, _EPSILON = 1e-2, 0.9, 0.999, 1e-7


def evidence_sources(
    masked: Sequence[str], groups: Sequence[ChannelGroup], norms: Mapping[str, str], gathers: str | None
) -> dict[str, str]:
    """Return for each masked layer the layer at which its evidence is gathered.

    The gate of a whole filter stands behind its batch norm, if one follows and goes with it: while
    training, the norm undoes any scaling of the filter, so that the sum of g * w over it is zero.
    """
    if gathers is None:
        return {}
    scaled = {member.layer for group in groups for member in group.members if member.weight in ("gamma", "beta")}
    behind = norms if gathers == "taylor_filters" else {}
    return {path: behind[path] if behind.get(path) in scaled else path for path in masked}


def gather_evidence(layers: Sequence[MaskedLayer], gradients: Sequence[Any], *, step: Any) -> None:
    """Take the gradients of the taps of one training step (counted from 1) into the layers' evidence.

    Under a distribution strategy they are summed over the replicas first, since a square of a
    replica's gradient is not a share of the square of the whole.
    """
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
    for layer, gradient in zip(layers, gradients, strict=True):
        if layer._dtype_policy.compute_dtype == "float16":
            # A step whose scaled gradient overflows is skipped by the optimizer, so it says nothing here.
            gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        if layer.gathers == "movement":
            _adam(layer.evidence, layer.moments, gradient, step)
        else:
            layer.evidence.assign_add(tf.square(gradient))


def _adam(scores: Any, moments: Sequence[Any], gradient: Any, step: Any) -> None:
    """Step the scores by Adam in one fused operation, on this replica's own copy of the variables."""
    step = tf.cast(step, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=scores.handle,
        m=moments[0].handle,
        v=moments[1].handle,
        beta1_power=tf.pow(_BETA_1, step),
        beta2_power=tf.pow(_BETA_2, step),
        lr=_RATE,
        beta1=_BETA_1,
        beta2=_BETA_2,
        epsilon=_EPSILON,
        grad=gradient,
    )
