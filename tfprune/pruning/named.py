"""Parts of a saved model that Keras does not know: written with the name of their class, and found by it again."""

from __future__ import annotations

import pkgutil
import sys
from typing import Any

from tfprune.errors import InputError


def name_class(part: Any) -> str:
    """Return `module:class` of an object."""
    return f"{type(part).__module__}:{type(part).__qualname__}"


def find_class(name: str) -> Any:
    """Return the class that `name_class` named, without importing anything but our own modules for it.

    Raises:
        InputError: when it is not there, or its module is neither ours nor imported already: a
            file does not decide what is imported.
    """
    module = name.partition(":")[0]
    if module.partition(".")[0] != "tfprune" and module not in sys.modules:
        raise InputError(
            f"the model was saved with '{name}' (module:class); import that module before the model is loaded"
        )
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"the model was saved with '{name}' (module:class), which is not there: {error}") from error
    if not isinstance(found, type) or not hasattr(found, "get_config"):
        raise InputError(f"the model file names '{name}', which is not a class with a config: the file is damaged")
    return found


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
