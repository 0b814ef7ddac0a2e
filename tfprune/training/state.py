"""What a stage needs to go on after it was killed: variables and counters, in one atomic file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import InputError
from tfprune.records import atomic_path


def save_variables(path: Path, groups: dict[str, list[Any]], **counters: Any) -> None:
    """Write groups of variables by their order, and JSON counters, to one `.npz` file."""
    arrays = {
        f"{group}/{index:05d}": variable.numpy()
        for group, variables in groups.items()
        for index, variable in enumerate(variables)
    }
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays, counters=np.asarray(json.dumps(counters)))


def load_variables(path: Path, groups: dict[str, list[Any]]) -> dict[str, Any]:
    """Assign what `save_variables` wrote to the same variables, and return the counters.

    Raises:
        InputError: when the file belongs to another model or optimizer.
    """
    with np.load(path, allow_pickle=False) as stored:
        for group, variables in groups.items():
            names = sorted(name for name in stored.files if name.startswith(f"{group}/"))
            shapes = [tuple(variable.shape) for variable in variables]
            if [stored[name].shape for name in names] != shapes:
                raise InputError(
                    f"{path} holds the state of another {group} ({len(names)} variables; this one has "
                    f"{len(shapes)}, or their shapes differ). Give the stage a folder of its own, or delete this one."
                )
            for name, variable in zip(names, variables, strict=True):
                variable.assign(stored[name])
        return json.loads(str(stored["counters"]))
