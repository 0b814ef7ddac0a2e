"""The recipes of a search: one set of values put into a recipe, and what is wrong with the ranges of one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from pydantic import ValidationError

from tfprune.errors import InputError
from tfprune.recipe.faults import distinct_faults, explain_fault
from tfprune.recipe.search import Search
from tfprune.recipe.sections import Recipe


def put_values(content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of a recipe with values at dotted paths; mappings are merged into the section there.

    Raises:
        InputError: when a path leads through something that is no section.

    >>> put_values({"pruning": {"epochs": 3}}, {"pruning": {"criterion": "taylor"}, "pruning.epochs": 5})
    {'pruning': {'epochs': 5, 'criterion': 'taylor'}}
    """
    changed = copy.deepcopy(dict(content))
    for path, value in values.items():
        place, last = find_section(changed, path)
        if isinstance(value, Mapping) and isinstance(place.get(last), dict):
            place[last] = {**place[last], **copy.deepcopy(dict(value))}
        else:
            place[last] = copy.deepcopy(value)
    return changed


def find_section(content: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the mapping that a dotted path ends in, made where it is absent, and the last key of the path.

    Raises:
        InputError: when the path leads through something that is no section.
    """
    *sections, last = path.split(".")
    for section in sections:
        if content.get(section) is None:
            content[section] = {}
        content = content[section]
        if not isinstance(content, dict):
            raise InputError(f"'{section}' is not a section of the recipe")
    return content, last


def searched_content(recipe: Recipe) -> dict[str, Any]:
    """Return the mapping of a recipe without its search section: what the values of a trial are put into."""
    return recipe.model_dump(mode="json", exclude={"search"})


def range_faults(recipe: Recipe) -> Iterator[tuple[list[str], str]]:
    """Yield what is wrong with the search of a recipe: (keys of the place, one line of text)."""
    if recipe.search is None:
        return
    search, content = recipe.search, searched_content(recipe)
    if search.scheme not in recipe.export.schemes:
        yield (
            ["search", "scheme"],
            f"search.scheme is {search.scheme}, and export.schemes has {', '.join(recipe.export.schemes)}; "
            "add it there, or choose one of those",
        )
    if search.resource is not None and getattr(recipe, search.resource.split(".")[0]) is None:
        yield ["search", "resource"], f"search.resource is {search.resource}, and this recipe has no such section"
    if recipe.training is not None and recipe.training.distribution == "multi_worker":
        yield (
            ["training", "distribution"],
            "training.distribution is multi_worker; a search gives each machine trials of its own instead "
            "(KERASTUNER_ORACLE_IP: see `tfprune search run --help`)",
        )
    for path in search.ranges:
        for text in dict.fromkeys(_faults_of(search, path, content)):
            yield ["search", "ranges", path], f"search.ranges.{path}: {text}"


def search_faults(search: Search, path: str) -> Iterator[str]:
    """Yield what is wrong with a range, whatever it is a range of."""
    given = search.ranges[path]
    if search.oracle == "grid" and given.choice is None and given.steps is None:
        yield "the grid oracle needs to know how many numbers to try; add steps, or give a choice"
    yield from _condition_faults(search, path)


def _faults_of(search: Search, path: str, content: dict[str, Any]) -> Iterator[str]:
    given = search.ranges[path]
    if path.split(".")[0] in ("name", "about", "search"):
        yield "a search varies what a run does; name, about and search do not belong to that"
        return
    yield from search_faults(search, path)
    others = {} if any(_condition_faults(search, path)) else _first_values(search, path)
    options = given.options if given.choice is not None else [given.low, given.high]
    for around, option in product(_sections(search, path, others), options):
        try:
            Recipe.model_validate(put_values(content, {**around, **others, path: option}))
        except InputError as error:
            yield str(error)
        except ValidationError as error:
            shown = put_values(content, {path: option})
            yield from (explain_fault(item, shown, lambda keys: "") for item in distinct_faults(error))


def _condition_faults(search: Search, path: str) -> Iterator[str]:
    earlier = list(search.ranges)[: list(search.ranges).index(path)]
    for parent, accepted in search.ranges[path].when.items():
        if parent not in earlier:
            yield (
                f"when: {parent} is not a range above this one; a condition names an earlier one: "
                f"{', '.join(earlier) or 'there is none'}"
            )
            continue
        options = search.ranges[parent].options
        for value in accepted_values(accepted):
            if value not in options:
                yield f"when: {parent} is never {value!r}; its values are {', '.join(map(str, options[:12]))}"


def _first_values(search: Search, path: str) -> dict[str, Any]:
    """Return the values of other ranges under which this one counts, the first that are accepted."""
    values: dict[str, Any] = {}
    for parent, accepted in search.ranges[path].when.items():
        values |= _first_values(search, parent) | {parent: accepted_values(accepted)[0]}
    return values


def _sections(search: Search, path: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all values of the ranges of sections that a path lies in, but for those that are given."""
    around = [name for name in search.ranges if path.startswith(f"{name}.") and name not in given]
    return [
        dict(zip(around, values, strict=True)) for values in product(*(search.ranges[name].options for name in around))
    ]


def accepted_values(given: Any) -> list[Any]:
    """Return the values of a condition: those of a list, or the one that is given."""
    return given if isinstance(given, list) else [given]
