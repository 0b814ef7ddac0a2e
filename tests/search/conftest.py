"""One tiny real search, shared by the tests of this folder."""

from __future__ import annotations

import copy

import pytest

from tests.conftest import TINY

SEARCH = {
    "oracle": "grid",
    "quality": "mean_iou",
    "costs": {"file_bytes": 0.0, "gzip_bytes": 0.0, "arena_bytes": 0.0},
    "constraints": "file_bytes<=64KiB",
    "ranges": {
        "architecture.width": {"choice": [8, 12]},
        "pruning": {"choice": [{"final_sparsity": 0.5}, {"final_sparsity": 0.9, "criterion": "movement"}]},
    },
}


def searched_content():
    """Return the tiny recipe with a search of 2 widths and 2 ways to prune; width 12 breaks the constraint."""
    content = {name: copy.deepcopy(TINY[name]) for name in ("data", "architecture", "loss", "training", "pruning")}
    content["training"] = {"epochs": 1}
    content["pruning"]["epochs"] = 1
    rest = {"export": {"schemes": ["int8"]}, "verification": {"latency_runs": 3}}
    return {"name": "tiny_search", **content, **rest, "search": copy.deepcopy(SEARCH)}


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    """The folder of a finished search."""
    from tfprune.recipe import check_recipe
    from tfprune.search.recipes import search_recipe

    return search_recipe(check_recipe(searched_content()), out=tmp_path_factory.mktemp("searches"))
