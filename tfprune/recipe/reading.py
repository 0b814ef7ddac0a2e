"""YAML as people write it: 1e-3 is a number, 2:4 a text, and a key that is given twice is a fault."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tfprune.errors import InputError


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' is given twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 1e-3 for a text, as it has no point.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
# YAML 1.1 takes 2:4 for 124, minutes and seconds.
for _digit in "123456789":
    _Loader.yaml_implicit_resolvers[_digit].insert(0, ("tag:yaml.org,2002:str", re.compile(r"\d+(:\d+)+$")))


def read_value(text: str) -> Any:
    """Return what YAML holds, as plain values.

    Raises:
        yaml.YAMLError: when it is none, or a mapping has a key twice.

    >>> read_value("{learning_rate: 1e-3, granularity: 2:4}")
    {'learning_rate': 0.001, 'granularity': '2:4'}
    """
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def read_recipe_file(path: Path) -> tuple[dict[str, Any], yaml.Node]:
    """Return what a recipe file holds, and the nodes that know its lines.

    Raises:
        InputError: when it is no text, no YAML, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = read_value(text)
    except UnicodeDecodeError:
        raise InputError(f"recipe {path} is not a text file; give a YAML file") from None
    except yaml.YAMLError as error:
        raise InputError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"recipe {path} is not a mapping of sections (name, data, architecture, training, ...)")
    return content, yaml.compose(text, Loader=_Loader)
