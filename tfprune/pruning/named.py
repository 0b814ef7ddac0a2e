"""Parts of a saved model that Keras does not know: written with the name of their class, and found by it again."""

from __future__ import annotations

import pkgutil
from typing import Any

from tfprune.errors import InputError


def name_class(part: Any) -> str:
    """Return `module:class` of an object."""
    return f"{type(part).__module__}:{type(part).__qualname__}"


def find_class(name: str) -> Any:
    """Return the class that `name_class` named.

    Raises:
        InputError: when it is not where it was.
    """
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the model was saved with '{name}' (module:class), which is not there to import: {error}"
        ) from error


def write_part(part: Any) -> dict[str, Any] | None:
    """Return an object with a `get_config` in plain values, and None as it is.

    Raises:
        InputError: when it has no config.
    """
    if part is None:
        return None
    if not hasattr(part, "get_config"):
        raise InputError(
            f"{part!r} cannot be saved with the model: make it an object of a class with get_config and from_config"
        )
    return {"class": name_class(part), "config": part.get_config()}


def read_part(written: dict[str, Any] | None) -> Any:
    """Return the object that `write_part` wrote.

    Raises:
        InputError: when its class is not where it was.
    """
    return None if written is None else find_class(written["class"]).from_config(written["config"])
