"""Recipes: one experiment as YAML, checked before anything runs.

Only this module, `run`, `search` and `cli` know a recipe; the packages below take plain arguments.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tfprune.errors import InputError, located, unknown_name
from tfprune.recipe.faults import distinct_faults, explain_fault, find_place
from tfprune.recipe.ranges import find_section, range_faults, search_faults
from tfprune.recipe.reading import read_recipe_file, read_value
from tfprune.recipe.search import Search
from tfprune.recipe.sections import Recipe

RECIPES_FOLDER = Path(__file__).parents[1] / "recipes"
"""The recipes that are shipped with tfprune; `tfprune list recipes` shows them."""


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
    content, node = read_recipe_file(path)
    for setting in overrides:
        override(content, setting)
    return check_recipe(content, where=str(path), node=node, overrides=overrides)


def check_recipe(
    content: dict[str, Any], *, where: str = "recipe", node: Any = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Return the checked recipe of a mapping; see `load_recipe`."""
    place_of = partial(find_place, where=where, node=node, overrides=overrides)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        faults = [explain_fault(item, content, place_of) for item in distinct_faults(error)]
        raise InputError("\n".join(faults)) from None
    faults = [f"{place_of(keys)}{text}" for keys, text in range_faults(recipe)]
    if faults:
        raise InputError("\n".join(faults))
    return recipe


def check_search(content: dict[str, Any], *, where: str = "search") -> Search:
    """Return the checked section `search` of a mapping, for ranges of a function's arguments instead of a recipe's.

    Raises:
        InputError: with all that is wrong.
    """
    try:
        search = Search.model_validate(content)
    except ValidationError as error:
        items = ({**item, "loc": ("search", *item["loc"])} for item in distinct_faults(error))
        place_of = partial(find_place, where=where)
        raise InputError("\n".join(explain_fault(item, {"search": content}, place_of) for item in items)) from None
    faults = [
        f"{where}: search.ranges.{path}: {text}" for path in search.ranges for text in search_faults(search, path)
    ]
    if faults:
        raise InputError("\n".join(faults))
    return search


def recipe_text(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def recipe_schema() -> str:
    """Return the JSON schema of a recipe, for editors."""
    return json.dumps(Recipe.model_json_schema(), indent=1)


def recipe_difference(old: str, new: str) -> str:
    """Return the lines in which two resolved recipes differ; empty when they do the same.

    The `about` section is left out: words do not change results. So are fields that say nothing (null), so that a run
    goes on when a later version knows more fields, and a greater number of trials: an oracle proposes the same first
    ones, and the search goes on.
    """
    contents = [yaml.safe_load(text) for text in (old, new)]
    searches = [content.get("search") or {} for content in contents]
    most = [math.inf if given.get("trials") is None else given["trials"] for given in searches]
    for content, given in zip(contents, searches, strict=True):
        content.pop("about", None)
        if most[0] <= most[1]:
            given.pop("trials", None)
    texts = [yaml.safe_dump(_said(content), sort_keys=False).splitlines() for content in contents]
    lines = difflib.unified_diff(*texts, lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def _said(value: Any) -> Any:
    """Return what a mapping of a recipe says: without the fields that are null."""
    return {key: _said(item) for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def override(content: dict[str, Any], setting: str) -> None:
    """Apply one `section.key=value` setting, the value as YAML, to the mapping of a recipe.

    Raises:
        InputError: when the setting is not of that form.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting}: write it as section.key=value, such as training.epochs=5")
    with located(f"--set {setting}"):
        section, last = find_section(content, key)
    try:
        section[last] = read_value(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {setting}: the value is not valid YAML ({error})") from error
