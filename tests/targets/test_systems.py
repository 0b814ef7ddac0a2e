"""The systems of an Ethos-U: parts are chosen by name, validated, and change what Vela says."""

from __future__ import annotations

import pytest

from tests.targets.test_advice import needs_vela
from tests.targets.test_lint import nearest_2x
from tfprune.errors import InputError
from tfprune.targets import TARGETS, find_target
from tfprune.targets.advice import measure_on
from tfprune.targets.vela import System, choose_system


def test_parts_come_in_any_order_and_the_others_are_the_usual_ones():
    usual = System("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")
    assert find_target("ethos-u55").system == TARGETS["ethos-u55"].system == choose_system("ethos-u55") == usual
    chosen = find_target("ethos-u55:Sram_Only:ethos-u55-32").system
    assert chosen == System("ethos-u55-32", "Ethos_U55_High_End_Embedded", "Sram_Only")
    assert find_target("ethos-u65:Ethos_U65_Embedded").system.memory == "Shared_Sram"
    assert choose_system("ethos-u85").memory == "Dedicated_Sram"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "ethos-u55:ethos-u55-512",
            r"part of ethos-u55 'ethos-u55-512'; did you mean 'ethos-u55-.*: .*Sram",
        ),
        ("ethos-u55:Ethos_U65_High_End", "unknown part of ethos-u55 'Ethos_U65_High_End'"),
        ("ethos-u65:ethos-u65-256:ethos-u65-512", "say the accelerator twice"),
        ("ethos-u55:Dedicated_Sram:Ethos_U55_Deep_Embedded", "has no Dedicated_Sram; its memory modes are Shared_Sram"),
        ("coral:fast", "only an Ethos-U has a system behind a colon; give coral"),
        ("ethos-u56:Sram_Only", "unknown target 'ethos-u56'; did you mean 'ethos-u"),
    ],
)
def test_wrong_parts_are_answered(name, text):
    with pytest.raises(InputError, match=text):
        find_target(name)


@needs_vela
def test_vela_is_asked_about_the_chosen_system(tmp_path):
    path = nearest_2x(tmp_path)
    (large,), said = measure_on("ethos-u55:ethos-u55-256:Ethos_U55_Deep_Embedded", {"net": path})
    (small,), _ = measure_on("ethos-u55:ethos-u55-32:Ethos_U55_Deep_Embedded", {"net": path})
    assert "ethos-u55-256, Ethos_U55_Deep_Embedded, Shared_Sram" in said
    assert small.time_ms > 1.5 * large.time_ms
