"""Recipes: one experiment as YAML, checked before anything runs.

Only this module, `run`, `search` and `cli` know a recipe; the packages below take plain arguments.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tfprune.architectures import ARCHITECTURES
from tfprune.criteria import CRITERIA
from tfprune.data import GENERATORS
from tfprune.errors import InputError, nearest, unknown_name
from tfprune.export import HEADS, SCHEMES
from tfprune.pruning import GRANULARITIES, SCHEDULES, SCOPES
from tfprune.regularization import GRADIENT_READINGS, REGULARIZERS
from tfprune.training import LEARNING_RATE_SCHEDULES, OPTIMIZERS

RECIPES_FOLDER = Path(__file__).parent / "recipes"
"""The recipes that are shipped with tfprune; `tfprune list recipes` shows them."""

Size = Annotated[list[Annotated[int, Field(ge=8, le=8192)]], Field(min_length=2, max_length=2)]
Share = Annotated[float, Field(gt=0, lt=1)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
Epochs = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of a recipe: frozen, without conversions, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class About(Section):
    """What a reader wants to know before starting a recipe."""

    purpose: str = ""
    source: str = ""
    cost: str = ""
    result: str = ""
    command: str = ""


class Generate(Section):
    """A generated set, drawn into the run folder."""

    set: str = Field(description="which generator", json_schema_extra={"enum": list(GENERATORS)})
    classes: Annotated[int, Field(ge=2, le=4)] = 3
    counts: dict[Literal["train", "val", "test"], Annotated[int, Field(ge=1)]] = Field(
        default={"train": 300, "val": 60, "test": 100}, description="pictures per split"
    )
    seed: int = 0


class Data(Section):
    """Where pictures come from and how they reach the net; folders are named on the command line."""

    generate: Generate | None = Field(None, description="draw a set instead of reading --data")
    class_names: list[str] | None = Field(None, description="names of class 0, 1, ...; default: dataset.json")
    ignore_index: int | None = Field(None, description="mask id that is neither trained on nor judged")
    colours: list[Annotated[list[int], Field(min_length=3, max_length=3)]] | None = Field(
        None, description="RGB colour of each class, for RGB masks"
    )
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 RGB; default: as dataset.json or the files say")
    split_file: str | None = Field(None, description="JSON with lists of file stems per split, inside the data folder")
    group_pattern: str | None = Field(None, description="regular expression; its first group in a stem names the group")
    val_share: Share = Field(0.15, description="share of train held out where a set has no val part")
    test_share: Share = Field(0.2, description="share held out where a set has no test part")
    size: Size = Field(description="height and width that the net sees, pixels")
    load_size: Size | None = Field(None, description="height and width before a random crop to size; default: size")
    augment: list[str | dict[str, dict[str, Any]]] = Field(
        default=[], description="albumentations transforms, by name or as {name: {parameter: value}}"
    )
    batch_size: Annotated[int, Field(ge=1)] = 8


class Architecture(BaseModel):
    """Which net; every other key is an option of that architecture."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    name: str = Field(json_schema_extra={"enum": list(ARCHITECTURES)})
    head: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="softmax: one output per class; sigmoid: one output, for two classes"
    )

    @property
    def options(self) -> dict[str, Any]:
        """The keys that belong to the architecture's builder."""
        return dict(self.model_extra or {})


class Training(Section):
    """A stage of training."""

    epochs: Epochs
    optimizer: str = Field("adam", json_schema_extra={"enum": list(OPTIMIZERS)})
    optimizer_options: dict[str, float | bool | None] = Field(
        default={}, description="options of the Keras optimizer, such as momentum or weight_decay"
    )
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    learning_rate_schedule: str = Field("cosine", json_schema_extra={"enum": list(LEARNING_RATE_SCHEDULES)})
    low_learning_rate: Annotated[float, Field(ge=0)] | None = Field(
        None, description="where cosine ends (default 0) and cycles begin (default learning_rate / 100)"
    )
    half_cycle_steps: Annotated[int, Field(ge=1)] | None = Field(None, description="training steps of half a cycle")
    early_stop_epochs: Epochs | None = None
    plateau_epochs: Epochs | None = Field(None, description="patience of on_plateau (default 5)")


class Pruning(Training):
    """Masks on a schedule while training goes on."""

    schedule: str = Field("polynomial", json_schema_extra={"enum": list(SCHEDULES)})
    criterion: str = Field("magnitude", json_schema_extra={"enum": list(CRITERIA)})
    final_sparsity: Sparsity = Field(description="fraction of zeros in the masked layers, 0-1")
    initial_sparsity: Sparsity = 0.0
    granularity: str = Field("weight", json_schema_extra={"enum": list(GRANULARITIES)})
    scope: str | None = Field(
        None,
        json_schema_extra={"enum": [*SCOPES, None]},
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
    def _ramp_fits(self) -> Pruning:
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

    weights: dict[str, dict[str, float | bool]] = Field(
        default={},
        json_schema_extra={"propertyNames": {"enum": list(REGULARIZERS)}},
        description="regularizer -> its parameters, such as {orthogonality: {strength: 0.1}}",
    )
    gradients: dict[str, dict[str, float]] | None = Field(
        None,
        json_schema_extra={"propertyNames": {"enum": list(GRADIENT_READINGS)}},
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
    def _does_something(self) -> Regularization:
        if not self.weights and not self.gradients:
            raise ValueError(
                f"it does nothing: give weights ({', '.join(REGULARIZERS)}) "
                f"or gradients ({', '.join(GRADIENT_READINGS)})"
            )
        return self


class Channels(Training):
    """Channels removed from the trained net, and epochs that win the accuracy back."""

    ratio: Share = Field(description="fraction of the channels to remove")
    criterion: str = Field("magnitude", json_schema_extra={"enum": list(CRITERIA)})
    scope: str = Field("layer", json_schema_extra={"enum": list(SCOPES)})
    multiple_of: Annotated[int, Field(ge=1)] = Field(8, description="widths that layers are to have")
    min_channels: Annotated[int, Field(ge=1)] = 1
    include: list[str] = Field(default=["*"], description="patterns of layer names (* and ?)")
    exclude: list[str] = Field(default=[], description="patterns of layer names (* and ?) that stay whole")


class Export(Section):
    """Which files leave the run."""

    schemes: Annotated[list[str], Field(min_length=1)] = Field(
        default=["float32", "int8"], json_schema_extra={"items": {"enum": list(SCHEMES)}}
    )
    head: str = Field("probabilities", json_schema_extra={"enum": list(HEADS)})
    calibration_images: Annotated[int, Field(ge=8)] = Field(100, description="train pictures for int8 ranges")


class Verification(Section):
    """How the exported files are judged."""

    runtime: Literal["auto", "litert", "tflite-runtime"] = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    latency_runs: Annotated[int, Field(ge=3)] = 50


class Recipe(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    about: About = About()
    seed: int = 0
    data: Data
    architecture: Architecture | None = Field(None, description="without it the run starts from --model FILE")
    loss: str | dict[str, dict[str, Any]] | list[dict[str, Any]] = Field(
        "cross_entropy", description="a loss, {loss: {parameter: value}}, or a list of those with weights"
    )
    class_weights: list[float] | None = None
    training: Training | None = Field(None, description="of the dense net; belongs to architecture")
    regularization: Regularization | None = None
    pruning: Pruning | None = None
    fine_tuning: Training | None = Field(None, description="after pruning, at fixed masks")
    channels: Channels | None = Field(None, description="after the stages before it; zeros are not kept then")
    export: Export = Export()
    verification: Verification = Verification()

    @model_validator(mode="after")
    def _stages_belong_together(self) -> Recipe:
        if self.fine_tuning and not self.pruning:
            raise ValueError("fine_tuning follows pruning, and this recipe has no pruning section")
        if self.regularization and not (self.training or self.pruning):
            raise ValueError(
                "regularization acts in training, pruning and fine_tuning, and this recipe has none of them"
            )
        first = self.training or self.pruning
        if self.regularization and self.regularization.ramp_epochs > first.epochs:
            raise ValueError(
                f"regularization.ramp_epochs is {self.regularization.ramp_epochs}, and the first stage has "
                f"{first.epochs} epochs; give at most those"
            )
        if bool(self.architecture) != bool(self.training):
            there, absent = ("architecture", "training") if self.architecture else ("training", "architecture")
            raise ValueError(
                f"there is {there} and no {absent}; give both, or neither to start from a trained model (--model FILE)"
            )
        return self


_TABLES: dict[str, Sequence[str]] = {
    "data.generate.set": tuple(GENERATORS),
    "architecture.name": tuple(ARCHITECTURES),
    "training.optimizer": OPTIMIZERS,
    "training.learning_rate_schedule": LEARNING_RATE_SCHEDULES,
    "regularization.weights": tuple(REGULARIZERS),
    "regularization.gradients": tuple(GRADIENT_READINGS),
    "pruning.optimizer": OPTIMIZERS,
    "pruning.learning_rate_schedule": LEARNING_RATE_SCHEDULES,
    "pruning.schedule": SCHEDULES,
    "pruning.criterion": tuple(CRITERIA),
    "pruning.granularity": GRANULARITIES,
    "pruning.scope": SCOPES,
    "fine_tuning.optimizer": OPTIMIZERS,
    "fine_tuning.learning_rate_schedule": LEARNING_RATE_SCHEDULES,
    "channels.optimizer": OPTIMIZERS,
    "channels.learning_rate_schedule": LEARNING_RATE_SCHEDULES,
    "channels.criterion": tuple(CRITERIA),
    "channels.scope": SCOPES,
    "export.schemes": SCHEMES,
    "export.head": HEADS,
}
_KINDS = {"regularization.weights": "regularizer", "regularization.gradients": "reading of the gradients"}


def find_recipe(given: str | Path) -> Path:
    """Return the file of a recipe given as a path, or by the name of a shipped one.

    Raises:
        InputError: when there is neither.
    """
    path = Path(given)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(RECIPES_FOLDER.glob("*.yaml"))}
    if str(given) in shipped:
        return shipped[str(given)]
    if path.suffix in (".yaml", ".yml") or path.parent != Path("."):
        raise InputError(f"recipe {path} does not exist. Give a YAML file, or a shipped one: {', '.join(shipped)}")
    raise unknown_name("recipe", str(given), shipped)


def load_recipe(given: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        given: a YAML file, or the name of a shipped recipe.
        overrides: `section.key=value` settings, the value as YAML.

    Raises:
        InputError: with the file, the line, the key, what was given and what is accepted.
    """
    path = find_recipe(given)
    text = path.read_text(encoding="utf-8")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"recipe {path} is not a mapping of sections (name, data, architecture, training, ...)")
    for setting in overrides:
        override(content, setting)
    return check_recipe(content, where=str(path), node=node)


def check_recipe(content: dict[str, Any], *, where: str = "recipe", node: Any = None) -> Recipe:
    """Return the checked recipe of a mapping; see `load_recipe`."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_explain(item, content, where, node) for item in _distinct(error))) from None
    for key, accepted in _TABLES.items():
        given = _follow(recipe.model_dump(), key.split("."))
        for name in given if isinstance(given, list | dict) else [given]:
            if name is not None and name not in accepted:
                section, last = key.rsplit(".", 1)
                kind = section if last == "name" else _KINDS.get(key, last.rstrip("s"))
                raise unknown_name(kind, name, accepted, f"{_place(where, node, key.split('.'))}{key}")
    return recipe


def recipe_text(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def recipe_schema() -> str:
    """Return the JSON schema of a recipe, for editors."""
    return json.dumps(Recipe.model_json_schema(), indent=1)


def recipe_difference(old: str, new: str) -> str:
    """Return the lines in which two resolved recipes differ; empty when they do the same.

    The `about` section is left out: words do not change results.
    """
    texts = []
    for text in (old, new):
        content = yaml.safe_load(text)
        content.pop("about", None)
        texts.append(yaml.safe_dump(content, sort_keys=False).splitlines())
    lines = difflib.unified_diff(*texts, lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def override(content: dict[str, Any], setting: str) -> None:
    """Apply one `section.key=value` setting, the value as YAML, to the mapping of a recipe.

    Raises:
        InputError: when the setting is not of that form.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting}: write it as section.key=value, such as training.epochs=5")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise InputError(f"--set {setting}: '{section}' is not a section of the recipe")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting}: the value is not valid YAML ({error})") from error


def _follow(content: Any, keys: Sequence[Any]) -> Any:
    for key in keys:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _distinct(error: ValidationError) -> list[Any]:
    """Return one error per place: a union reports each of its branches."""
    items = {}
    for item in error.errors():
        place = tuple(part for part in item["loc"] if isinstance(part, int) or not _is_branch(part))
        items.setdefault(place, {**item, "loc": place})
    return list(items.values())


def _is_branch(part: str) -> bool:
    return part in ("str", "bool", "float", "int", "none") or "[" in part


def _explain(item: Any, content: dict[str, Any], where: str, node: Any) -> str:
    keys = list(item["loc"])
    dotted = ".".join(map(str, keys)) or "recipe"
    place = _place(where, node, keys)
    if item["type"] == "extra_forbidden":
        section = _section(keys[:-1])
        accepted = list(section.model_fields) if section else []
        guess = nearest(str(keys[-1]), accepted)
        hint = f"; did you mean '{guess}'?" if guess else "."
        return f"{place}{dotted}: unknown key{hint} Accepted: {', '.join(accepted)}"
    if item["type"] == "missing":
        return f"{place}{dotted}: missing; it must be given"
    message = item["msg"].removeprefix("Value error, ")
    given = _follow(content, keys)
    shown = f" is {json.dumps(given, default=str)}" if keys and not isinstance(given, dict) else ""
    if keys and "sparsity" in str(keys[-1]) and item["type"] in ("less_than", "less_than_equal"):
        message += " (a fraction of zeros: .9 means 90 %)"
    return f"{place}{dotted}{shown}: {message[:1].lower()}{message[1:]}"


def _section(keys: Sequence[Any]) -> type[BaseModel] | None:
    section: Any = Recipe
    for key in keys:
        annotation = section.model_fields[key].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next((option for option in options if isinstance(option, type) and issubclass(option, Section)), None)
        if section is None:
            return None
    return section


def _place(where: str, node: Any, keys: Sequence[Any]) -> str:
    """Return `FILE:LINE: ` of a key, or of the nearest section around it."""
    line = 0
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return f"{where}:{line}: " if line else f"{where}: "
