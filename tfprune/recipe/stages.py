"""The sections of a recipe that are stages of training, and what acts in them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from tfprune.channels import WAYS
from tfprune.criteria import CRITERIA
from tfprune.export import SCHEMES
from tfprune.pruning import GRANULARITIES, SCHEDULES, SCOPES
from tfprune.recipe.fields import Budget, Epochs, Section, Share, Sparsity
from tfprune.recipe.fields import one_of as _one_of
from tfprune.regularization import GRADIENT_READINGS, REGULARIZERS
from tfprune.training import DISTRIBUTIONS, LEARNING_RATE_SCHEDULES, OPTIMIZERS

_RATES_OF = {
    "low_learning_rate": ("cosine", "triangular", "triangular2"),
    "half_cycle_steps": ("triangular", "triangular2"),
    "plateau_epochs": ("on_plateau",),
}
"""Setting -> the learning-rate schedules that use it."""


class Training(Section):
    """A stage of training."""

    epochs: Epochs
    optimizer: _one_of("optimizer", OPTIMIZERS) = "adam"
    optimizer_options: dict[str, float | bool | None] = Field(
        default={}, description="options of the Keras optimizer, such as momentum or weight_decay"
    )
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_schedule: _one_of("learning_rate_schedule", LEARNING_RATE_SCHEDULES) = "cosine"
    low_learning_rate: Annotated[float, Field(ge=0)] | None = Field(
        None, description="where cosine ends (default 0) and cycles begin (default learning_rate / 100)"
    )
    half_cycle_steps: Annotated[int, Field(ge=1)] | None = Field(None, description="training steps of half a cycle")
    early_stop_epochs: Epochs | None = None
    plateau_epochs: Epochs | None = Field(None, description="patience of on_plateau (default 5)")

    @model_validator(mode="after")
    def _rate_is_used(self) -> Self:
        for name, schedules in _RATES_OF.items():
            if getattr(self, name) is not None and self.learning_rate_schedule not in schedules:
                raise ValueError(
                    f"{name} belongs to learning_rate_schedule {' or '.join(schedules)}, and this is "
                    f"{self.learning_rate_schedule}; drop one of them"
                )
        if self.low_learning_rate is not None and self.low_learning_rate > self.learning_rate:
            raise ValueError(
                f"low_learning_rate is {self.low_learning_rate:g}, above learning_rate {self.learning_rate:g}; "
                "give at most that"
            )
        return self


class DenseTraining(Training):
    """The training of the dense net."""

    unfreeze_every_epochs: Epochs | None = Field(
        None, description="train the decoder alone first; every so many epochs, a group of the encoder joins"
    )
    unfreeze_groups: Annotated[int, Field(ge=1)] = Field(
        4, description="groups of the encoder; the deepest joins first"
    )
    distribution: _one_of("distribution", DISTRIBUTIONS) | None = Field(
        None, description="training, pruning and fine_tuning on all GPUs, or on the workers of TF_CONFIG"
    )

    @model_validator(mode="after")
    def _time_is_left(self) -> Self:
        frozen = (self.unfreeze_every_epochs or 0) * self.unfreeze_groups
        if frozen >= self.epochs:
            raise ValueError(
                f"the encoder is wholly trained after {self.unfreeze_groups} groups of {self.unfreeze_every_epochs} "
                f"epochs, and there are {self.epochs}; give more epochs, or fewer groups"
            )
        return self


class Pruning(Training):
    """Masks on a schedule while training goes on."""

    schedule: _one_of("schedule", SCHEDULES) = "polynomial"
    criterion: _one_of("criterion", CRITERIA) = "magnitude"
    final_sparsity: Sparsity = Field(description="fraction of zeros in the masked layers, 0-1")
    initial_sparsity: Sparsity = 0.0
    granularity: _one_of("granularity", GRANULARITIES) = "weight"
    scope: _one_of("scope", SCOPES) | None = Field(
        None,
        description="per layer or one ranking; default: global for the granularities weight and block, else layer",
    )
    normalize: bool = Field(True, description="global scope: divide a layer's scores by their norm first")
    layer_sparsity: dict[str, Sparsity] = Field(
        default={}, description="regular expression of layer names -> final sparsity of their own"
    )
    include: list[str] = Field(default=[], description="kinds or regular expressions; default: every layer")
    exclude: list[str] = Field(
        default=["head", "depthwise", "frozen"], description="kinds or regular expressions of layers left dense"
    )
    prunes: Annotated[int, Field(ge=1)] = Field(16, description="mask updates from begin_epoch to end_epoch")
    begin_epoch: Annotated[int, Field(ge=0)] = 0
    end_epoch: Epochs | None = Field(None, description="the last prune comes at the end of this many epochs")
    min_weights: Annotated[int, Field(ge=1)] = Field(1024, description="smaller kernels stay dense")

    @model_validator(mode="after")
    def _ramp_fits(self) -> Self:
        end = self.end_epoch or self.epochs
        if end > self.epochs or self.begin_epoch >= end:
            raise ValueError(
                f"the schedule cannot reach final_sparsity {self.final_sparsity}: it ramps from epoch "
                f"{self.begin_epoch} to epoch {end}, and the stage has {self.epochs} epochs; "
                "accepted is 0 <= begin_epoch < end_epoch <= epochs"
            )
        if self.initial_sparsity > self.final_sparsity:
            raise ValueError(f"initial_sparsity {self.initial_sparsity} is above final_sparsity {self.final_sparsity}")
        return self


class Regularization(Section):
    """Penalties on weights beside the loss, and sparse gradients, in training, pruning and fine-tuning."""

    weights: dict[_one_of("regularizer", REGULARIZERS), dict[str, float | bool]] = Field(
        default={},
        description="regularizer -> its parameters, such as {orthogonality: {strength: 0.1}}",
    )
    gradients: dict[_one_of("reading of the gradients", GRADIENT_READINGS), dict[str, float]] | None = Field(
        None,
        description="one reading of H with its parameters, such as {threshold: {sparsity: 0.5}}",
    )
    ramp_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="all strengths rise from 0 over so many epochs at the start of the first stage"
    )
    include: list[str] = Field(default=[], description="kinds or regular expressions; default: every layer")
    exclude: list[str] = Field(
        default=["head", "depthwise", "frozen"], description="kinds or regular expressions of layers left alone"
    )
    min_weights: Annotated[int, Field(ge=1)] = Field(1024, description="smaller kernels are left alone")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.weights and not self.gradients:
            raise ValueError(
                f"it does nothing: give weights ({', '.join(REGULARIZERS)}) "
                f"or gradients ({', '.join(GRADIENT_READINGS)})"
            )
        return self


class Distillation(Section):
    """How much the smaller net follows the dense one while it trains."""

    strength: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the dense net's answers")
    temperature: Annotated[float, Field(gt=0)] = 2.0
    features: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of its attention maps, one per size")


class Channels(Training):
    """Channels removed from the trained net, and epochs that win the accuracy back."""

    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    way: _one_of("way", WAYS) = Field("iterative", description="how channels go and accuracy comes back")
    rounds: Annotated[int, Field(ge=2)] | None = Field(
        None, description="for iterative (default: as many as the MACs are halved, each with two epochs or more)"
    )
    distillation: Distillation | None = Field(Distillation(), description="follow the dense net; null: do not")

    ratio: Share | None = Field(None, description="fraction of the channels to remove; or give a budget")
    budget: Budget | None = Field(
        None, description='what the smaller net may cost, such as "file_bytes<=200KiB, macs<=0.5x"'
    )
    scheme: _one_of("scheme", SCHEMES) = Field("int8", description="number format whose bytes and ms a budget bounds")
    per_cost: Literal["macs", "parameters"] | None = Field(
        None, description="divide the importance of channels by what they cost"
    )
    criterion: _one_of("criterion", CRITERIA) = Field(
        "taylor", description="how the channels of the trained net are judged"
    )
    schedule: _one_of("schedule", SCHEDULES) | None = Field(
        None, description="for gradual: the curve on which masks close (default polynomial)"
    )
    ramp_epochs: Epochs | None = Field(
        None, description="for gradual: epochs in which masks close (default half); the others train the smaller net"
    )
    masked_by: _one_of("criterion", CRITERIA) | None = Field(
        None, description="for gradual: chooses channels while masks close; criterion says how many each layer keeps"
    )
    scope: _one_of("scope", SCOPES) = "global"
    sensitivity: bool = Field(False, description="weigh scores by the measured loss of masking half of coupled layers")
    multiple_of: Annotated[int, Field(ge=1)] = Field(
        8, description="round channel counts to a multiple of this where possible"
    )
    min_channels: Annotated[int, Field(ge=1)] = 1
    include: list[str] = Field(default=["*"], description="patterns of layer names (* and ?)")
    exclude: list[str] = Field(default=[], description="patterns of layer names (* and ?) that stay whole")

    @model_validator(mode="after")
    def _says_how_much(self) -> Self:
        if self.rounds is not None and self.way != "iterative":
            raise ValueError(f"rounds belong to the way iterative, and this is {self.way}")
        given = [name for name in ("schedule", "ramp_epochs", "masked_by") if getattr(self, name) is not None]
        if given and self.way != "gradual":
            raise ValueError(f"{' and '.join(given)} belong to the way gradual, and this is {self.way}")
        if self.way == "gradual" and self.epochs < 2:
            raise ValueError("the way gradual needs at least 2 epochs: half of them with masks, half without")
        if self.ramp_epochs is not None and self.ramp_epochs >= self.epochs:
            raise ValueError(
                f"ramp_epochs is {self.ramp_epochs} of {self.epochs} epochs, and the smaller net needs some; give fewer"
            )
        if self.rounds is not None and self.epochs < 2 * self.rounds:
            raise ValueError(
                f"{self.rounds} rounds need at least two epochs each, and there are {self.epochs} epochs; give more "
                "epochs or fewer rounds"
            )
        memory = any(name in (self.budget or "") for name in ("activation_bytes", "arena_bytes"))
        if self.per_cost and self.scope == "layer" and not memory:
            raise ValueError(
                "per_cost weighs layers against each other, which the scope layer does only for a bound on "
                "activation_bytes or arena_bytes; take scope global, or drop per_cost"
            )
        if (self.ratio is None) == (self.budget is None):
            raise ValueError('give either a ratio, such as 0.5, or a budget, such as "macs<=0.5x"')
        return self

    @property
    def masked_epochs(self) -> int:
        """Epochs in which the masks of the way gradual close."""
        return self.ramp_epochs or self.epochs // 2


class Quantization(Training):
    """Epochs with the rounding of the int8 file, after every other stage."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    keep_zeros: bool = Field(True, description="weights that are zero, because they were pruned, stay zero")
