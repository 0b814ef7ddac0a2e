"""A file names classes, and never decides what is imported or called."""

from __future__ import annotations

import sys

import pytest

from tfprune.errors import InputError
from tfprune.pruning.named import find_class, name_class
from tfprune.pruning.schedules import build_schedule
from tfprune.regularization.composite import Ramp


def test_a_class_is_found_by_its_name():
    assert find_class(name_class(Ramp(1, 5))) is Ramp
    schedule = build_schedule("linear", 0.5, begin_step=0, end_step=4, prunes=2)
    assert find_class(name_class(schedule)) is type(schedule)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("antigravity:Fly", "import that module before"),
        ("os:system", "not a class with a config"),
        ("subprocess:Popen", "not a class with a config"),
        ("tfprune.pruning.nothing:Ramp", "is not there"),
        ("tfprune.pruning.named:Nothing", "is not there"),
    ],
)
def test_whatever_else_a_file_names_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        find_class(name)
    assert "antigravity" not in sys.modules
