"""Penalties and readings of H from the names and parameters of a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from tfprune.errors import InputError, look_up, unknown_name
from tfprune.regularization import GRADIENT_READINGS, REGULARIZERS

Parameters = Mapping[str, float | bool]


def build_penalty(name: str, parameters: Parameters, *, filter_axis: int = -1) -> Any:
    """Return a penalty of `REGULARIZERS`, for kernels whose filters are on that axis, counted from the end.

    Raises:
        InputError: for an unknown name or parameter, or a value out of its range.

    >>> build_penalty("l2", {"strength": 0.1}).get_config()
    {'strength': 0.1}
    """
    kind = resolve_name(look_up("regularizer", name, REGULARIZERS))
    return _build(kind, f"regularizer {name}", parameters, filter_axis=filter_axis)


def build_reading(gradients: Mapping[str, Parameters]) -> Any:
    """Return the one reading of H (`GRADIENT_READINGS`) that is named, from {name: {parameter: value}}.

    Raises:
        InputError: for an unknown name or parameter, more or less than one name, or a value out of its range.

    >>> build_reading({"threshold": {"sparsity": 0.5}})
    Threshold(sparsity=0.5)
    """
    if len(gradients) != 1:
        raise InputError(
            f"gradients names {', '.join(gradients) or 'nothing'}; give one of {', '.join(GRADIENT_READINGS)}"
        )
    ((name, parameters),) = gradients.items()
    return _build(resolve_name(look_up("reading of H", name, GRADIENT_READINGS)), f"reading {name}", parameters)


def _build(kind: Any, what: str, parameters: Parameters, **fixed: Any) -> Any:
    accepted = inspect.signature(kind).parameters
    own = [name for name in accepted if name not in fixed]
    for name in parameters:
        if name not in own:
            raise unknown_name(f"parameter of the {what}", name, own)
    needed = [name for name in own if accepted[name].default is inspect.Parameter.empty and name not in parameters]
    if needed:
        raise InputError(f"{what}: {', '.join(needed)} must be given")
    return kind(**parameters, **{name: value for name, value in fixed.items() if name in accepted})
