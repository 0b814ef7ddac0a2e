"""How schedules, criteria and granularities are written into a saved model, and found again."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Any

from tfprune import criteria
from tfprune.errors import InputError
from tfprune.keras import keras
from tfprune.pruning import granularity, groups, schedules
from tfprune.pruning.masked_model import MaskedModel
from tfprune.pruning.wrapper import MaskedLayer

from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule, pruning_wrapper

_CLASSES = (
    MaskedLayer,
    MaskedModel,
    pruning_wrapper.PruneLowMagnitude,
    pruning_schedule.ConstantSparsity,
    pruning_schedule.PolynomialDecay,
    schedules.IterativeRounds,
    granularity.Weight,
    granularity.Block,
    granularity.Pattern,
    groups.ChannelGroup,
    *(type(criterion) for criterion in criteria.CRITERIA.values()),
)
_OURS = {item.__name__: item for item in _CLASSES}


def custom_objects(*classes: type) -> AbstractContextManager[Any]:
    """Return the Keras scope with our classes, tfmot's, and those given."""
    return keras.utils.custom_object_scope({**_OURS, **{item.__name__: item for item in classes}})


def to_config(item: Any) -> Any:
    """Return a schedule, criterion or granularity in tfmot's form {class_name, config}.

    Raises:
        InputError: when it has no config.
    """
    if item is None or isinstance(item, str):
        return item
    if isinstance(item, list | tuple):
        return [to_config(part) for part in item]
    if isinstance(item, pruning_schedule.PruningSchedule):
        return item.get_config()
    if dataclasses.is_dataclass(item):
        return {"class_name": type(item).__name__, "config": dataclasses.asdict(item)}
    if hasattr(item, "get_config"):
        return {"class_name": type(item).__name__, "config": item.get_config()}
    name = getattr(item, "__name__", type(item).__name__)
    raise InputError(
        f"'{name}' cannot be saved with the model: make it a frozen dataclass with __call__ (tfprune.criteria shows "
        "one), or give it get_config and from_config"
    )


def from_config(config: Any) -> Any:
    """Return what `to_config` wrote; classes of one's own are looked up in the scope (`tfprune.pruning.scope`).

    Raises:
        InputError: when a class is not known here.
    """
    if config is None or isinstance(config, str):
        return config
    if isinstance(config, list):
        return tuple(from_config(part) for part in config)
    name = config["class_name"]
    found = keras.utils.get_custom_objects().get(name) or keras.utils.get_registered_object(name) or _OURS.get(name)
    if found is None:
        raise InputError(
            f"the model was saved with '{name}', which is not known here: load it within "
            f"tfprune.pruning.scope({name}), with the class that defines it"
        )
    if found is groups.ChannelGroup:
        return _group(config["config"])
    return found.from_config(config["config"]) if hasattr(found, "from_config") else found(**config["config"])


def _group(config: dict[str, Any]) -> groups.ChannelGroup:
    members = tuple(
        groups.Member(**{**member, "indices": tuple(map(tuple, member["indices"]))}) for member in config["members"]
    )
    return groups.ChannelGroup(config["name"], members, tuple(map(tuple, config.get("never_empty", ()))))
