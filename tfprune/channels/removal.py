"""The door: plan, rebuild, check; freeze what the check finds fault with, and do it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tfprune.channels.budgeting import BudgetPlanner, Measure
from tfprune.channels.checking import TOLERANCE, Equality, compare_with_masked
from tfprune.channels.copying import drawn_anew, is_op_layer
from tfprune.channels.counting import ChannelCosts
from tfprune.channels.graph import ChannelGraph
from tfprune.channels.groups import ChannelGroups
from tfprune.channels.labelling import label_channels
from tfprune.channels.plan import Plan
from tfprune.channels.planning import Selection, choose, read_plan, write_plan
from tfprune.channels.rebuild import CannotRebuildError, rebuild
from tfprune.channels.scores import Reduction, gather_taylor, score_groups, weigh_by_rank
from tfprune.channels.sensitivity import measure_sensitivity, weigh_by_sensitivity
from tfprune.criteria import CRITERIA, Criterion
from tfprune.errors import InputError, TfpruneError

_MAX_ROUNDS = 20


@dataclass(frozen=True)
class Removal:
    """A smaller model, the plan that was followed, and how exactly it equals the masked original.

    `equality` is None when the check was turned off.
    """

    model: Any
    plan: Plan
    equality: Equality | None


def plan_channels(
    model: Any,
    selection: Selection | float | Mapping[str, float] = 0.5,
    *,
    criterion: str | Criterion = "magnitude",
    reduction: Reduction = "mean",
    batches: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    sensitivity: bool = False,
    opaque: Iterable[str] = (),
    measures: Mapping[str, Measure] | None = None,
    value_bytes: int = 1,
    input_size: tuple[int, int] | None = None,
) -> Plan:
    """Decide which channels of a model go, and change nothing. `print(plan)` is the dry run.

    Args:
        model: a functional or sequential tf_keras model.
        selection: how much goes, where, and in which multiples; a ratio, or ratios by layer, will do.
        criterion: a name of `tfprune.criteria.CRITERIA` or a criterion.
        reduction: how a group's score comes from its slices: `mean`, `max` or `l2`.
        batches, loss: (images, truth) batches and the task loss, for criteria that need gradients and
            for `sensitivity`.
        sensitivity: weigh scores by the rise of the loss when half of a family of coupled layers is
            masked; the batches are walked through once per family (a list or a dataset, no generator).
        opaque: paths of calls that are not to be looked through.
        measures: for a budget in more than can be counted: quantity -> `measure(model)`, such as
            `{"file_bytes": size_of_export}`. A handful of models is measured.
        value_bytes: bytes of one activation value, for bounds on memory: 1 for int8, 4 for float32.
        input_size: (H, W) in pixels, to count costs of a model that leaves its size open.

    Raises:
        InputError: for a model that is no graph of layers, or when nothing can go, with the reasons;
            when a budget cannot be met, with the numbers and what would help.
    """
    selection = selection if isinstance(selection, Selection) else Selection(ratio=selection)
    opaque = tuple(opaque)
    groups = ChannelGroups(label_channels(model, opaque=opaque))
    _check_any(groups)
    known = batches is not None and loss is not None
    judge = CRITERIA.get(criterion) if isinstance(criterion, str) else criterion
    gathered = gather_taylor(groups, batches, loss) if known and getattr(judge, "gathers", None) else None
    scores = score_groups(groups, criterion=criterion, reduction=reduction, gathered=gathered)
    if sensitivity:
        if not known:
            raise InputError("sensitivity is measured on data: hand over batches and a loss")
        scores = weigh_by_sensitivity(groups, scores, measure_sensitivity(groups, scores, batches, loss))
    if selection.scope == "global":
        scores = weigh_by_rank(groups, scores)
    if not selection.budget and selection.per_cost is None:
        return write_plan(groups, choose(groups, scores, selection), opaque=opaque, input_size=input_size)
    costs = ChannelCosts(groups.graph, input_size=input_size)
    if selection.per_cost is not None:
        scores = scores / costs.of_groups(groups, selection.per_cost)
    if not selection.budget:
        return write_plan(groups, choose(groups, scores, selection), opaque=opaque, input_size=input_size)
    planner = BudgetPlanner(groups, scores, selection, costs, value_bytes=value_bytes, measures=measures)
    removed, met = planner.choose()
    return write_plan(groups, removed, opaque=opaque, budget=met, input_size=input_size)


def apply_plan(model: Any, plan: Plan, *, check: bool = True) -> Removal:
    """Build the smaller model that a plan describes; `model` stays as it is.

    Args:
        model: a model of the architecture that the plan was made for.
        plan: the plan.
        check: compare the new model with the masked original.

    Raises:
        InputError: when the plan does not fit the model.
        TfpruneError: when the new model is not equal to the masked original.
    """
    opaque = list(plan.opaque)
    groups = ChannelGroups(label_channels(model, opaque=opaque))
    keep = groups.keep(read_plan(groups, plan))
    smaller = rebuild(groups.graph, keep)
    equality = compare_with_masked(groups.graph, keep, smaller) if check else None
    if equality is not None and not equality.holds:
        raise NotExactError(_suspects(groups.graph), equality)
    return Removal(smaller, plan, equality)


def remove_channels(
    model: Any,
    selection: Selection | float | Mapping[str, float] = 0.5,
    *,
    check: bool = True,
    **planning: Any,
) -> Removal:
    """Remove channels from a model: plan, rebuild, and check, as `plan_channels` and `apply_plan` do.

    When the check finds the new model unequal to the masked original, the ops whose behaviour was
    only probed are frozen, and all is done again.

    >>> from tfprune.keras import keras
    >>> image = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(image)
    >>> net = keras.Model(image, keras.layers.Conv2D(2, 1, name="logits")(x))
    >>> removal = remove_channels(net, 0.5)
    >>> removal.model.get_layer("first").filters
    8

    Args:
        model, selection: as for `plan_channels`.
        check: compare the new model with the masked original.
        planning: the other arguments of `plan_channels`.

    Raises:
        InputError: as `plan_channels`.
        TfpruneError: when the new model stays unequal, which is a fault of tfprune or of a rule.
    """
    opaque: list[str] = []
    for _ in range(_MAX_ROUNDS):
        try:
            return apply_plan(model, plan_channels(model, selection, opaque=opaque, **planning), check=check)
        except (NotExactError, CannotRebuildError) as error:
            suspects = [path for path in error.suspects if path not in opaque]
            if not suspects:
                raise
            opaque += suspects
    raise TfpruneError(f"model '{model.name}': no exact removal found after freezing {', '.join(opaque)}")


def narrowed(model: Any, ratio: float, *, seed: int) -> Any:
    """Return the same net with a share of the channels of every layer, its weights drawn anew.

    Args:
        model: a functional tf_keras model; its weights do not matter.
        ratio: the share that stays, above 0 and at most 1; a layer keeps one channel in twenty at least.
        seed: of the weights.

    Raises:
        InputError: for a model that is no graph of layers, or when nothing can go.
    """
    return drawn_anew(remove_channels(model, 1.0 - ratio, check=False).model, seed=seed)


class NotExactError(TfpruneError):
    """The smaller model is not the masked original; `suspects` are the calls that may be why."""

    def __init__(self, suspects: list[str], equality: Equality) -> None:
        super().__init__(
            f"the smaller model differs from the masked original by {equality.largest:.1e} of the logits' scale "
            f"(accepted: {TOLERANCE:.0e}). Calls whose behaviour was probed: {', '.join(suspects) or 'none'}. "
            "Name the call at fault in the plan's 'opaque', or write a rule for its layer."
        )
        self.suspects = list(suspects)
        self.equality = equality


def _suspects(graph: ChannelGraph) -> list[str]:
    """Return the probed calls to freeze next: code of the user's before ops of TensorFlow."""
    own_code = [path for path, layer in graph.probed.items() if not is_op_layer(layer)]
    return own_code or list(graph.probed)


def _check_any(groups: ChannelGroups) -> None:
    if len(groups):
        return
    reasons = list(dict.fromkeys(groups.graph.space.frozen_reasons().values()))
    shown = "; ".join(reasons[:8]) + (f"; and {len(reasons) - 8} more" if len(reasons) > 8 else "")
    raise InputError(f"model '{groups.graph.model.name}' has no channel that may go: {shown or 'it makes none'}")
