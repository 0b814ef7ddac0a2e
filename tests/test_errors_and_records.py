"""Floor 0: messages with a guess, and writes that are whole or absent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tfprune.errors import InputError, look_up
from tfprune.records import atomic_path, read_json, write_json


@dataclass(frozen=True)
class Row:
    layer: str
    sparsity: float


def test_a_record_comes_back_in_plain_types(tmp_path):
    write_json(tmp_path / "a" / "r.json", {"rows": [Row("c", np.float32(0.5))], "iou": float("nan")})
    assert read_json(tmp_path / "a" / "r.json") == {"rows": [{"layer": "c", "sparsity": 0.5}], "iou": None}


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "model.json"
    write_json(target, 1)
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(target) == 1 and [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_a_wrong_name_is_answered_with_the_accepted_ones():
    with pytest.raises(InputError, match=r"recipe\.yaml:3: unknown head 'logit'; did you mean 'logits'\? Accepted: "):
        look_up("head", "logit", {"logits": 1, "class_map": 2}, "recipe.yaml:3")
