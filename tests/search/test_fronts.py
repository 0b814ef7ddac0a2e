"""Fronts, hypervolume and picking, on trials whose figures anyone can check."""

from __future__ import annotations

import numpy as np
import pytest

from tfprune.errors import InputError
from tfprune.recipe import check_search
from tfprune.search.fronts import find_front, follow_hypervolume, measure_hypervolume
from tfprune.search.picking import pick_trial
from tfprune.search.trials import TrialRecord, find_broken, find_limits


def trial(name, iou, kib, *, macs=1e6, **changes):
    figures = {"iou": iou, "file_bytes": kib * 1024.0, "macs": macs}
    fields = {"status": "finished", "ended": f"2026-01-01 00:00:{int(name):02d}", **changes}
    return TrialRecord(f"trial_{name}", values={"width": 8}, figures=figures, **fields)


TRIALS = [
    trial("01", 0.50, 100),
    trial("02", 0.60, 400),
    trial("03", 0.55, 400),
    trial("04", 0.58, 200, macs=3e6),
    trial("05", 0.90, 50, status="failed"),
    trial("06", 0.90, 50, broken=("macs<=1M",)),
    trial("07", 0.58, 250),
    trial("08", None, 10),
]


def test_the_front_is_what_no_feasible_trial_beats():
    assert [record.trial for record in find_front(TRIALS, "iou", "file_bytes")] == ["trial_01", "trial_04", "trial_02"]


def test_the_front_of_random_trials_agrees_with_comparing_all_pairs():
    rng = np.random.default_rng(0)
    drawn = [trial(f"{index:02d}", float(iou), float(kib)) for index, (iou, kib) in enumerate(rng.random((40, 2)))]
    beaten = {
        one.trial
        for one in drawn
        for other in drawn
        if other.figures["iou"] >= one.figures["iou"] and other.figures["file_bytes"] < one.figures["file_bytes"]
    }
    front = find_front(drawn, "iou", "file_bytes")
    assert {record.trial for record in front} == {record.trial for record in drawn} - beaten


def test_the_hypervolume_is_the_mean_quality_over_bounds():
    bounds = np.linspace(0, 400, 100_001)
    best = np.where(bounds >= 400, 0.6, np.where(bounds >= 200, 0.58, np.where(bounds >= 100, 0.5, 0.0)))
    found = measure_hypervolume(TRIALS, "iou", "file_bytes", most=400 * 1024.0)
    assert found == pytest.approx(best.mean(), abs=1e-4)


def test_the_hypervolume_never_falls_and_follows_the_order_of_the_ends():
    values = follow_hypervolume(TRIALS, "iou", "file_bytes")
    assert len(values) == 8 and values == sorted(values)
    assert values[0] == pytest.approx(0.5 * 300 / 400) and values[3] > values[1] == values[2]
    assert follow_hypervolume([TRIALS[4]], "iou", "file_bytes") == [0.0]


@pytest.mark.parametrize(
    ("asked", "picked"),
    [
        ("best iou", "trial_02"),
        ("best iou with file_bytes<=300KiB", "trial_07"),
        ("best iou with file_bytes<=300KiB, macs<=2M", "trial_07"),
        ("best iou with file_bytes<=240KiB", "trial_04"),
        ("best file_bytes with iou>=0.55", "trial_04"),
        (" best  file_bytes with iou>=.55, macs<=1M", "trial_07"),
    ],
)
def test_the_trial_that_is_asked_for(asked, picked):
    assert pick_trial(TRIALS, asked).trial == picked


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("the smallest", r"not understood; ask like \"best iou with file_bytes<=500KiB"),
        ("best iuo", "unknown figure 'iuo'; did you mean 'iou'"),
        ("best iou with file_byte<=1k", "did you mean 'file_bytes'"),
        ("best iou with file_bytes<=5KiB", r"no trial is within the bound on file_bytes; it is 100.0 KiB to 400.0 KiB"),
        ("best iou with iou>=0.7", r"no trial is within the bound on iou; it is 0.500 to 0.600"),
        ("best iou with arena_bytes<=5KiB", "no trial is within the bound on arena_bytes; it is not known"),
        ("best iou with macs<=0.5x", "x is a share of a dense model"),
        ("best iou with macs>=5", r"'macs>=5' is not QUALITY>=NUMBER"),
    ],
)
def test_what_cannot_be_picked(asked, said):
    with pytest.raises(InputError, match=said):
        pick_trial(TRIALS, asked)


def test_constraints_are_limits_in_units_or_shares_of_a_reference():
    settings = check_search(
        {"oracle": "grid", "constraints": "macs<=0.5x, file_bytes<=2KiB", "ranges": {"width": {"choice": [1]}}}
    )
    limits = find_limits(settings, {"macs": 10e6, "file_bytes": 1e9})
    assert limits == {"macs": ("macs<=0.5x", 5e6), "file_bytes": ("file_bytes<=2KiB", 2048.0)}
    assert find_broken(limits, {"macs": 5e6, "file_bytes": 2049.0}) == ("file_bytes<=2KiB",)
    with pytest.raises(InputError, match="its macs is not known before the search; give a number"):
        find_limits(settings)


def test_the_settings_of_a_search_of_ones_own_are_checked():
    with pytest.raises(InputError) as caught:
        check_search({"oracle": "grd", "costs": {"bytes": 0.0}, "ranges": {"width": {"low": 1}}}, where="mine")
    text = str(caught.value)
    assert "mine: search.oracle: unknown oracle 'grd'; did you mean 'grid'" in text and len(text.splitlines()) == 3
    with pytest.raises(InputError, match=r"search\.ranges\.width: the grid oracle needs to know"):
        check_search({"oracle": "grid", "ranges": {"width": {"low": 0.0, "high": 1.0}}})
