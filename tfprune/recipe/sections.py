"""What a recipe can say: its sections, their defaults, and what must fit together."""

import operator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from tfprune.architectures import ARCHITECTURES
from tfprune.channels import CONTROLS
from tfprune.data import GENERATORS
from tfprune.data.copies import COPIES
from tfprune.export import CLASS_MAPS, HEADS, SCHEMES
from tfprune.recipe.fields import Section, Seed, Share, Size, TargetName
from tfprune.recipe.fields import one_of as _one_of
from tfprune.recipe.search import Search
from tfprune.recipe.stages import Channels, DenseTraining, Distillation, Pruning, Quantization, Regularization, Training
from tfprune.targets import find_target
from tfprune.verification.engines import RUNTIMES


class About(Section):
    """What a reader wants to know before starting a recipe."""

    purpose: str = ""
    source: str = ""
    cost: str = ""
    result: str = ""
    command: str = ""


class Generate(Section):
    """A generated set, drawn into the run folder."""

    set: _one_of("set", GENERATORS) = Field(description="which generator")
    classes: Annotated[int, Field(ge=2, le=5)] = 3
    counts: dict[Literal["train", "val", "test"], Annotated[int, Field(ge=1)]] = Field(
        default={"train": 300, "val": 60, "test": 100}, description="pictures per split"
    )
    seed: Seed = 0


class Data(Section):
    """Where pictures come from and how they reach the net; folders are named on the command line."""

    generate: Generate | None = Field(None, description="draw a set instead of reading --data")
    class_names: list[str] | None = Field(None, description="names of class 0, 1, ...; default: dataset.json")
    ignore_index: int | None = Field(None, description="mask id that is neither trained on nor judged")
    colours: list[Annotated[list[int], Field(min_length=3, max_length=3)]] | None = Field(
        None, description="RGB colour of each class, for RGB masks"
    )
    merge_classes: dict[str, list[str] | str] | None = Field(
        None, description="new class -> names that become it, or rest: all that no other new class has"
    )
    stem_pattern: str | None = Field(
        None, description="regular expression; its first group is what a picture and its mask have in common"
    )
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 RGB; default: as dataset.json or the files say")
    split_file: str | None = Field(None, description="JSON with lists of file stems per split, inside the data folder")
    group_pattern: str | None = Field(None, description="regular expression; its first group in a stem names the group")
    val_share: Share = Field(0.15, description="share of train held out where a set has no val part")
    test_share: Share = Field(0.2, description="share of the pictures held out where a set has no test part")
    size: Size = Field(description="height and width that the net sees, pixels")
    load_size: Size | None = Field(None, description="height and width before a random crop to size; default: size")
    augment: list[str | dict[str, dict[str, Any]]] = Field(
        default=[], description="albumentations transforms, by name or as {name: {parameter: value}}"
    )
    drop_empty: bool = Field(False, description="train only on pictures that show another class than class 0")
    copies: list[_one_of("copy", COPIES)] = Field(
        default=[], description="turned copies of all train pictures, in addition to the pictures themselves"
    )
    batch_size: Annotated[int, Field(ge=1)] = 8

    @model_validator(mode="after")
    def _holds_a_crop(self) -> Self:
        if self.load_size is not None and any(map(operator.lt, self.load_size, self.size)):
            raise ValueError(
                f"load_size {self.load_size} cannot hold a crop of size {self.size}; give at least that size"
            )
        return self


class Architecture(BaseModel):
    """Which net; every other key is an option of that architecture."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: _one_of("architecture", ARCHITECTURES)
    head: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="softmax: one output per class; sigmoid: one output, for two classes"
    )
    width_ratio: Share | None = Field(
        None,
        description="share of its channels that every layer keeps: the same net, narrower, with new random weights",
    )

    @model_validator(mode="after")
    def _has_no_weights_to_lose(self) -> Self:
        if self.width_ratio is not None and self.options.get("encoder_weights") not in (None, "none"):
            raise ValueError(
                f"width_ratio draws all weights anew, and encoder_weights is {self.options['encoder_weights']}; "
                "drop one of them"
            )
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the architecture's builder."""
        return dict(self.model_extra or {})


class Export(Section):
    """Which files leave the run."""

    schemes: Annotated[list[_one_of("scheme", SCHEMES)], Field(min_length=1)] = Field(["float32", "int8"])
    head: _one_of("head", HEADS) = "probabilities"
    resize_v2: bool = Field(False, description="write resizes for older Coral compilers; bilinear ones shift a little")
    calibration_images: Annotated[int, Field(ge=8)] | None = Field(
        None, description="train pictures that set integer ranges; default: until more hardly widen them, at most 256"
    )
    clip: Annotated[float, Field(ge=0, le=0.01)] = Field(
        0.0, description="share of a tensor's values to leave out at each end of its range"
    )
    keep_float: Annotated[int, Field(ge=0)] = Field(
        0, description="operators of int8 files to compute in float32, those whose rounding costs most"
    )

    @model_validator(mode="after")
    def _has_what_it_changes(self) -> Self:
        if self.keep_float and not any(SCHEMES[name].activations == "int8" for name in self.schemes):
            raise ValueError(f"keep_float is for int8 files, and schemes is {self.schemes}; add int8, or leave it out")
        return self


class Verification(Section):
    """How the exported files are judged."""

    runtime: _one_of("runtime", ("auto", *RUNTIMES)) = Field("auto", description="the runtime that judges and is timed")
    also: list[_one_of("runtime", tuple(RUNTIMES))] = Field(
        default=[], description="further runtimes whose classes are compared; with micro the arena is measured"
    )
    min_pixels: Annotated[int, Field(ge=0)] = Field(0, description="regions of fewer pixels are judged as class 0")
    random_walker: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = Field(
        None, description="two probabilities between which random walks decide"
    )
    blank_is_empty: bool = Field(False, description="pictures of one single value are judged as class 0")
    threads: Annotated[int, Field(ge=1)] = 1
    latency_runs: Annotated[int, Field(ge=3)] = 50
    target: TargetName | None = Field(
        None, description="device whose files are linted and measured, see `tfprune list targets`"
    )

    @model_validator(mode="after")
    def _can_judge(self) -> Self:
        if self.random_walker is not None and self.random_walker[0] >= self.random_walker[1]:
            raise ValueError(f"random_walker is {self.random_walker}; give [low, high] with low below high")
        if self.runtime == "micro" and self.threads > 1:
            raise ValueError(f"threads is {self.threads}, and TFLite Micro has one; leave threads out")
        return self


class Recipe(Section):
    """A whole experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
        description="names the run's folder: letters A-Z and a-z, digits, _ - and, not at the start, .",
    )
    about: About = About()
    seed: Seed = 0
    data: Data
    architecture: Architecture | None = Field(None, description="without it the run starts from --model FILE")
    loss: str | dict[str, dict[str, Any]] | list[str | dict[str, Any]] = Field(
        "cross_entropy", description="a loss, {loss: {parameter: value}}, or a list of those with weights"
    )
    class_weights: list[float] | None = None
    training: DenseTraining | None = Field(None, description="of the dense net; belongs to architecture")
    regularization: Regularization | None = None
    pruning: Pruning | None = None
    fine_tuning: Training | None = Field(None, description="after pruning, at fixed masks")
    channels: Channels | None = Field(None, description="comes after those stages; zeros of pruning are not kept")
    controls: list[_one_of("control", CONTROLS)] = Field(
        default=[], description="nets shown beside the smaller one in every table"
    )
    quantization: Quantization | None = Field(None, description="training of the last net for its int8 files")
    export: Export = Export()
    verification: Verification = Verification()
    search: Search | None = Field(None, description="what `tfprune search run` varies, and what it looks for")

    @model_validator(mode="after")
    def _stages_belong_together(self) -> Self:
        if self.fine_tuning and not self.pruning:
            raise ValueError("fine_tuning follows pruning, and this recipe has no pruning section")
        if self.regularization and not (self.training or self.pruning):
            raise ValueError(
                "regularization acts in training, pruning and fine_tuning, and this recipe has none of them"
            )
        if set(self.controls) - {"dense_longer"} and not self.channels:
            raise ValueError("controls stand beside a net with fewer channels, and this recipe has no channels section")
        if self.controls and not (self.channels or self.pruning):
            raise ValueError("controls: dense_longer stands beside a pruned net, and this recipe prunes nothing")
        if "one_shot" in self.controls and self.channels.way == "one_shot":
            raise ValueError("controls: one_shot is what channels.way says already; drop one of them")
        taught = self.channels and (self.channels.way != "from_scratch" or {"random", "one_shot"} & set(self.controls))
        if self.channels and not taught and self.channels.distillation not in (None, Distillation()):
            raise ValueError(
                "channels.distillation: a net trained from_scratch follows no other; drop it, or take another way"
            )
        rounded = [name for name, scheme in SCHEMES.items() if scheme.activations == "int8"]
        if self.quantization and not set(rounded) & set(self.export.schemes):
            raise ValueError(
                f"quantization trains for {' and '.join(rounded)}, and export.schemes is {self.export.schemes}; add one"
            )
        if self.verification.random_walker is not None and self.export.head in CLASS_MAPS:
            raise ValueError(
                f"verification.random_walker walks between probabilities, and export.head is {self.export.head}; "
                "take the head probabilities or logits, or leave it out"
            )
        if self.verification.target is not None:
            scheme = find_target(self.verification.target).scheme
            if scheme not in self.export.schemes:
                raise ValueError(
                    f"verification.target {self.verification.target} takes files of scheme {scheme}, and "
                    f"export.schemes has {', '.join(self.export.schemes)}; add {scheme}"
                )
        first = self.training or self.pruning
        if self.regularization and self.regularization.ramp_epochs > first.epochs:
            raise ValueError(
                f"regularization.ramp_epochs is {self.regularization.ramp_epochs}, and the first stage has "
                f"{first.epochs} epochs; give at most that many"
            )
        if bool(self.architecture) != bool(self.training):
            there, absent = ("architecture", "training") if self.architecture else ("training", "architecture")
            raise ValueError(
                f"there is {there} and no {absent}; give both, or neither to start from a trained model (--model FILE)"
            )
        return self
