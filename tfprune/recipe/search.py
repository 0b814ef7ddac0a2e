"""The section `search`: what is varied, within which ranges, and what is looked for."""

from typing import Annotated, Any

from pydantic import Field, model_validator
from typing_extensions import Self

from tfprune.budget import QUANTITIES
from tfprune.export import SCHEMES
from tfprune.recipe.fields import Budget, Section, one_of

ORACLES = ("grid", "random", "bayesian", "hyperband")
QUALITIES = ("mean_iou", "iou", "mean_dice", "balanced_accuracy", "micro_imagewise_iou")
"""What a trial is judged by on the validation split; `iou` is the mean over the classes but the first."""

RESOURCES = tuple(f"{stage}.epochs" for stage in ("training", "pruning", "fine_tuning", "channels", "quantization"))
"""What hyperband can hand out."""

_POSITIONS = 1001
"""How many values a range without steps has at most."""
_DIGITS = 4
"""Significant digits of a drawn number: recipes stay readable, and equal numbers are equal on every machine."""


class Range(Section):
    """The values that one field of a recipe may take: a choice, or numbers between two ends."""

    choice: Annotated[list[Any], Field(min_length=1)] | None = Field(
        None, description="the values; a mapping is merged into the section that the path names"
    )
    low: int | float | None = Field(None, description="the lowest number; integers when both ends are")
    high: int | float | None = Field(None, description="the highest number")
    steps: Annotated[int, Field(ge=2)] | None = Field(None, description="how many numbers; the grid oracle needs it")
    log: bool = Field(False, description="evenly by factors, not by differences")
    when: dict[str, Any] = Field(
        default={}, description="only where an earlier range has this value, or one of these: {path: value}"
    )

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        numbers = (self.low is not None, self.high is not None)
        if any(numbers) != all(numbers) or all(numbers) == (self.choice is not None):
            raise ValueError("give either a choice, such as {choice: [8, 16]}, or both ends, such as {low: 1, high: 9}")
        if self.choice is not None:
            if self.steps or self.log:
                raise ValueError("steps and log belong to low and high; a choice lists its values")
            if len({repr(value) for value in self.choice}) < len(self.choice):
                raise ValueError("a value is listed twice")
        elif self.low >= self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; low must be below high")
        elif self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}; a range by factors (log) starts above 0")
        return self

    @property
    def options(self) -> list[Any]:
        """All values of the range, in order.

        >>> Range(low=0.001, high=0.1, steps=3, log=True).options, Range(low=2, high=5).options
        ([0.001, 0.01, 0.1], [2, 3, 4, 5])
        """
        if self.choice is not None:
            return list(self.choice)
        low, high, is_whole = self.low, self.high, isinstance(self.low, int) and isinstance(self.high, int)
        count = self.steps or (min(_POSITIONS, high - low + 1) if is_whole and not self.log else _POSITIONS)
        shares = [index / (count - 1) for index in range(count)]
        raw = [low * (high / low) ** share if self.log else low + (high - low) * share for share in shares]
        near = [round(value) if is_whole else float(f"{value:.{_DIGITS}g}") for value in raw]
        return list(dict.fromkeys([low, *(min(max(value, low), high) for value in near[1:-1]), high]))


class Search(Section):
    """Which trials a search makes of a recipe, and how it judges them."""

    oracle: one_of("oracle", ORACLES) = Field("random", description="who proposes the next trial")
    trials: Annotated[int, Field(ge=1)] | None = Field(
        None, description="at most; default: the whole grid, or what hyperband needs"
    )
    quality: one_of("quality", QUALITIES) = Field("mean_iou", description="of the exported file on validation")
    costs: Annotated[dict[one_of("cost", QUANTITIES), Annotated[float, Field(ge=0)]], Field(min_length=1)] = Field(
        default={"file_bytes": 0.0},
        description="costs of the exported file -> the quality that halving them is worth to the oracle",
    )
    constraints: Budget | None = Field(None, description='what a trial may cost, such as "file_bytes<=500KiB"')
    scheme: one_of("scheme", SCHEMES) = Field("int8", description="the exported file that is judged")
    resource: one_of("resource", RESOURCES) | None = Field(
        None, description="hyperband: the epochs that it hands out, up to the recipe's; who gets more trains anew"
    )
    factor: Annotated[int, Field(ge=2)] | None = Field(
        None, description="hyperband: one trial in so many (default 3) gets more epochs"
    )
    ranges: Annotated[dict[str, Range], Field(min_length=1)] = Field(
        description="dotted path of a field of the recipe -> its values"
    )

    @model_validator(mode="after")
    def _suits_the_oracle(self) -> Self:
        if self.oracle in ("random", "bayesian") and self.trials is None:
            raise ValueError(f"the {self.oracle} oracle does not end by itself; give trials")
        if (self.oracle == "hyperband") != (self.resource is not None):
            raise ValueError("the oracle hyperband and a resource, such as fine_tuning.epochs, go together")
        if self.oracle != "hyperband" and self.factor is not None:
            raise ValueError(f"factor belongs to the oracle hyperband, and this is {self.oracle}")
        if self.oracle == "hyperband" and self.trials is not None:
            raise ValueError("hyperband counts its trials itself, from the epochs of the resource; drop trials")
        if self.resource in self.ranges:
            raise ValueError(f"{self.resource} is the resource of hyperband; drop its range")
        return self
