"""What is wrong with a recipe, in words a person can act on, with the line where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from tfprune.errors import nearest
from tfprune.recipe.fields import Section
from tfprune.recipe.sections import Recipe


def follow(content: Any, keys: Sequence[Any]) -> Any:
    for key in keys:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def distinct_faults(error: ValidationError) -> list[Any]:
    """Return one error per place: a union reports each of its branches."""
    items = {}
    for item in error.errors():
        place = tuple(part for part in item["loc"] if isinstance(part, int) or not _is_branch(part))
        items.setdefault(place, {**item, "loc": place})
    return list(items.values())


def _is_branch(part: str) -> bool:
    return part in ("str", "bool", "float", "int", "none") or "[" in part


def explain_fault(item: Any, content: dict[str, Any], place_of: Callable[[Sequence[Any]], str]) -> str:
    """Return one fault in one line; `place_of(keys)` is what stands in front of it."""
    keys = list(item["loc"])
    dotted = ".".join(map(str, keys)) or "recipe"
    place = place_of(keys)
    if item["type"] == "extra_forbidden":
        section = _section_of(keys[:-1])
        accepted = list(section.model_fields) if section else []
        guess = nearest(str(keys[-1]), accepted)
        hint = f"; did you mean '{guess}'?" if guess else "."
        return f"{place}{dotted}: unknown key{hint} Accepted: {', '.join(accepted)}"
    if item["type"] == "missing":
        return f"{place}{dotted}: missing; it must be given"
    if item["type"] == "unknown_name":
        return f"{place}{dotted}: {item['msg']}"
    message = item["msg"].removeprefix("Value error, ")
    given = follow(content, keys)
    shown = f" is {json.dumps(given, default=str, ensure_ascii=False)}" if keys and not isinstance(given, dict) else ""
    if item["type"] == "string_pattern_mismatch" and (section := _section_of(keys[:-1])):
        message = section.model_fields[keys[-1]].description or message
    if keys and "sparsity" in str(keys[-1]) and item["type"] in ("less_than", "less_than_equal"):
        message += " (a fraction of zeros: .9 means 90 %)"
    return f"{place}{dotted}{shown}: {message[:1].lower()}{message[1:]}"


def _section_of(keys: Sequence[Any]) -> type[BaseModel] | None:
    section: Any = Recipe
    names = iter(keys)
    for key in names:
        annotation = section.model_fields[key].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next((option for option in options if isinstance(option, type) and issubclass(option, Section)), None)
        if section is None:
            return None
        if get_origin(annotation) is dict:
            next(names, None)  # a name of the user's, such as the path of a range
    return section


def find_place(keys: Sequence[Any], *, where: str, node: Any = None, overrides: Sequence[str] = ()) -> str:
    """Return the `--set KEY=VALUE: ` that gave a key, or `FILE:LINE: ` of it or of the nearest section around it."""
    dotted = ".".join(map(str, keys)) + "."
    for setting in overrides[::-1]:
        if dotted.startswith(setting.partition("=")[0] + "."):
            return f"--set {setting}: "
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
