"""The channel stage of a run: channels go, accuracy comes back, and controls stand beside the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfprune.budget import Bound
from tfprune.channels import ChannelGroups, Cost, Plan, Removal, apply_plan, label_channels, measure_cost
from tfprune.channels.budgeting import PROXIES
from tfprune.channels.copying import drawn_anew
from tfprune.channels.planning import write_plan
from tfprune.criteria import Random
from tfprune.data.pipeline import evaluation_batches, steps_per_epoch
from tfprune.errors import located
from tfprune.pruning.channels import masked_groups
from tfprune.pruning.norms import reestimate_batch_norm
from tfprune.recipe.sections import Recipe
from tfprune.recipe.stages import Channels
from tfprune.run.inputs import Inputs, gradual_masks, selection_of, train_at_net_size
from tfprune.run.measures import activation_value_bytes
from tfprune.training.distillation import distill
from tfprune.training.stage import StageResult

Remove = Callable[..., Removal]
"""`remove(model, selection=None, criterion=None)`: what the recipe removes, or what is asked for instead."""


@dataclass(frozen=True)
class Shrinker:
    """Shrinks a trained net as a recipe says.

    Attributes:
        recipe: with a channels section.
        inputs: the data.
        dense: the trained net before masks and removal: the teacher.
        remove: plans and removes channels.
        run_stage: `run_stage(name, section, model)` trains in place.
        folder: the run folder.
    """

    recipe: Recipe
    inputs: Inputs
    dense: Any
    remove: Remove
    run_stage: Callable[..., StageResult]
    folder: Path

    def shrink(self, model: Any) -> tuple[Any, list[StageResult]]:
        """Return the smaller net and the stages that it took."""
        section = self.recipe.channels
        removal = self._removal("channels", model)
        if section.way == "gradual":
            return self._gradually(model, removal.plan)
        if section.way == "iterative" and (rounds := self._rounds(model, removal.model)) > 1:
            return self._in_rounds(model, removal, rounds)
        if section.way == "from_scratch":
            return self._from_scratch("channels", removal.model)
        return removal.model, [self._recover("channels", section, removal.model)]

    def controls(self, model: Any, shrunk: Any) -> dict[str, tuple[Any, StageResult]]:
        """Return the smaller controls of the recipe: name -> net and stage, at the MACs of the shrunk net."""
        section = self.recipe.channels
        budget = (Bound("macs", float(self._cost(shrunk).macs)),)
        equal = replace(selection_of(section), ratio=None, budget=budget, per_cost=None, scope="layer")
        made = {}
        for name in self.recipe.controls:
            if name == "dense_longer":  # not smaller: `train_longer` makes it
                continue
            if name == "one_shot":
                removal = self._removal(f"control_{name}", model)
            elif name == "random":
                removal = self._removal(f"control_{name}", model, equal, criterion=Random(self.recipe.seed))
            else:
                removal = self._removal(f"control_{name}", model, equal, criterion="magnitude")
            if name == "width_scaled":
                net, (stage,) = self._from_scratch(name, removal.model)
            else:
                net, stage = removal.model, self._recover(name, section, removal.model)
            made[name] = (net, stage)
        return made

    def _rounds(self, model: Any, target: Any) -> int:
        """Return the rounds of a recipe; when it names none, as many as the work is halved."""
        section = self.recipe.channels
        halvings = round(math.log2(self._cost(model).macs / self._cost(target).macs))
        return section.rounds or min(halvings, section.epochs // 2)

    def _in_rounds(self, model: Any, target: Removal, rounds: int) -> tuple[Any, list[StageResult]]:
        """Remove in rounds, by bounds that fall evenly by factors; the last gets half of the epochs, of many."""
        section = self.recipe.channels
        before, after = self._cost(model), self._cost(target.model)
        early = max(2, section.epochs // 2 // (rounds - 1))
        stages = []
        for number in range(1, rounds + 1):
            is_last = number == rounds
            budget = self._bounds(target.plan, before, after, number / rounds)
            selection = replace(selection_of(section), ratio=None, budget=budget)
            model = self._removal(f"channels_{number}", model, selection).model
            epochs = section.epochs - early * (rounds - 1) if is_last else early
            stages.append(self._recover(f"channels_{number}", section.model_copy(update={"epochs": epochs}), model))
        return model, stages

    def _gradually(self, model: Any, target: Plan) -> tuple[Any, list[StageResult]]:
        """Close masks to the shape of a plan, remove what they hold at zero, then recover.

        The rate stays up until the last channel is masked: a cosine would end when most is left to recover.
        """
        section = self.recipe.channels
        steps = steps_per_epoch(len(self.inputs.arrays["train"]), self.recipe.data.batch_size)
        controller = gradual_masks(section, steps, model, target)
        if controller is None:
            return model, [self._recover("channels", section, model)]
        rate = "constant" if section.learning_rate_schedule == "cosine" else section.learning_rate_schedule
        ramp = section.model_copy(update={"epochs": section.masked_epochs, "learning_rate_schedule": rate})
        stages = [self.run_stage("channels_masked", ramp, controller.model, best_from_epoch=ramp.epochs - 1)]
        masked = controller.strip()
        groups, size = ChannelGroups(label_channels(masked, opaque=target.opaque)), tuple(self.recipe.data.size)
        gone = masked_groups(groups, controller)
        plan = write_plan(groups, gone, opaque=target.opaque, budget=target.budget, input_size=size)
        plan.save(self._record("channels_masked"))
        smaller = apply_plan(masked, plan).model
        rest = section.model_copy(update={"epochs": section.epochs - ramp.epochs})
        return smaller, [*stages, self._recover("channels", rest, smaller)]

    def _bounds(self, plan: Plan, before: Cost, after: Cost, share: float) -> tuple[Bound, ...]:
        """Return the bounds of a round, `share` of the way (by factors) from the dense net to a plan.

        Only the last round asks for what has to be measured; until then its proxy will do.
        """
        if share == 1 and plan.budget:
            return tuple(Bound(met.quantity, met.limit) for met in plan.budget)
        value_bytes = activation_value_bytes(self.recipe.channels.scheme)
        bounds = []
        for quantity in dict.fromkeys(PROXIES.get(met.quantity, met.quantity) for met in plan.budget) or ("macs",):
            from_cost, to_cost = (
                value_bytes * cost.peak_activation_bytes_int8
                if quantity == "activation_bytes"
                else getattr(cost, quantity)
                for cost in (before, after)
            )
            bounds.append(Bound(quantity, from_cost ** (1 - share) * to_cost**share))
        return tuple(bounds)

    def _recover(self, name: str, section: Channels, model: Any) -> StageResult:
        """Train a smaller net in place, from statistics that fit it."""
        train = train_at_net_size(self.recipe, self.inputs)
        reestimate_batch_norm(model, evaluation_batches(train, batch_size=self.recipe.data.batch_size))
        return self.run_stage(name, section, self._with_teacher(model))

    def _from_scratch(self, name: str, model: Any) -> tuple[Any, list[StageResult]]:
        net = drawn_anew(model, seed=self.recipe.seed)
        section = self.recipe.training or self.recipe.channels
        section = section.model_copy(update={"epochs": total_epochs(self.recipe)})
        return net, [self.run_stage(name, section, net)]

    def _with_teacher(self, model: Any) -> Any:
        given = self.recipe.channels.distillation
        return model if given is None else distill(model, self.dense, **given.model_dump())

    def _cost(self, model: Any) -> Cost:
        return measure_cost(model, input_size=tuple(self.recipe.data.size))

    def _removal(self, name: str, model: Any, *asked: Any, **options: Any) -> Removal:
        """Remove what the record of an earlier start says, or else plan it and write the record.

        A clock gives another plan at every start, and what has been trained belongs to the first.
        """
        path = self._record(name)
        if path.is_file():
            with located(str(path)):
                return apply_plan(model, Plan.load(path))
        removal = self.remove(model, *asked, **options)
        removal.plan.save(path)
        return removal

    def _record(self, name: str) -> Path:
        return self.folder / "records" / f"{name}.json"


def total_epochs(recipe: Recipe) -> int:
    """Return the epochs of all stages of a recipe, up to and with channels."""
    sections = (recipe.training, recipe.pruning, recipe.fine_tuning, recipe.channels)
    return sum(section.epochs for section in sections if section is not None)
