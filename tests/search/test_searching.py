"""Searches over a made-up function: what oracles propose, that kills change nothing, what workers share."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from tfprune.cli import commands
from tfprune.errors import InputError
from tfprune.recipe.search import Search
from tfprune.search.functions import search_function
from tfprune.search.searching import Task, run_trial, search
from tfprune.search.trials import RejectedTrial, TrialRecord, find_limits, load_trials, score_trial

RANGES = {
    "width": {"choice": [8, 12, 16]},
    "rate": {"low": 0.001, "high": 0.1, "log": True, "steps": 3},
    "pruner": {"choice": ["none", "taylor"]},
    "sparsity": {"choice": [0.5, 0.9], "when": {"pruner": "taylor"}},
}


def made_up(values, folder):
    """Return figures that anyone can check: wider is better and larger, and 0.01 is the best rate."""
    iou = 0.5 + 0.01 * values["width"] - (0.05 if values["rate"] != 0.01 else 0.0) - 0.1 * values.get("sparsity", 0.0)
    return {"iou": iou, "file_bytes": 1000.0 * values["width"]}


def settings(**changes):
    return Search.model_validate({"oracle": "grid", "quality": "iou", "ranges": RANGES, **changes})


def task(folder, run=made_up, **changes):
    chosen = settings(**changes)
    most_epochs = 9 if chosen.resource else None
    return Task(chosen, run, folder, find_limits(chosen), most_epochs=most_epochs)


def test_the_grid_is_the_whole_product_and_conditions_hold(tmp_path):
    records = search(task(tmp_path))
    tried = [tuple(record.values.get(path) for path in RANGES) for record in records]
    pruners = [("none", None), ("taylor", 0.5), ("taylor", 0.9)]
    assert sorted(map(str, tried)) == sorted(
        str((width, rate, *pruner)) for width, rate, pruner in product([8, 12, 16], [0.001, 0.01, 0.1], pruners)
    )
    assert all(record.status == "finished" and record.is_feasible for record in records)


def test_a_grid_of_architectures_pruners_and_sparsities(tmp_path):
    pruners = [{"schedule": "linear", "criterion": "taylor"}, {"schedule": "polynomial", "criterion": "taylor"}]
    pruners.append({"schedule": "linear", "criterion": "movement"})
    names = ["fpn", "unet", "unet_plus_plus", "linknet", "manet"]
    ranges = {
        "architecture.name": {"choice": names},
        "architecture.decoder_block_type": {"choice": ["transpose"], "when": {"architecture.name": "linknet"}},
        "pruning": {"choice": pruners},
        "pruning.final_sparsity": {"choice": [0.2, 0.5, 0.9]},
    }
    records = search(task(tmp_path, lambda values, folder: {"iou": 0.5, "file_bytes": 1.0}, ranges=ranges))
    assert len(records) == 45 == len({json.dumps(record.values, sort_keys=True) for record in records})
    transposed = {r.values["architecture.name"] for r in records if "architecture.decoder_block_type" in r.values}
    assert transposed == {"linknet"}


def test_an_oracle_is_seeded_and_stays_in_its_ranges(tmp_path):
    ranges = {**RANGES, "depth": {"low": 2, "high": 5}, "share": {"low": 0.1, "high": 0.9}}
    first, again = (
        search(task(tmp_path / name, oracle="random", trials=20, ranges=ranges)) for name in ("first", "again")
    )
    assert [record.values for record in first] == [record.values for record in again] and len(first) == 20
    for record in first:
        assert record.values["depth"] in (2, 3, 4, 5) and 0.1 <= record.values["share"] <= 0.9
        assert ("sparsity" in record.values) == (record.values["pruner"] == "taylor")


def test_the_bayesian_oracle_closes_in_on_the_best(tmp_path):
    def peak(values, folder):
        return {"iou": 1 - (values["x"] - 0.7) ** 2, "file_bytes": 1.0}

    records = search(task(tmp_path, peak, oracle="bayesian", trials=8, ranges={"x": {"low": 0.0, "high": 1.0}}))
    late = [abs(record.values["x"] - 0.7) for record in records[-4:]]
    assert min(late) < 0.05 < max(abs(record.values["x"] - 0.7) for record in records[:3])


def test_hyperband_gives_epochs_to_those_that_do_well(tmp_path):
    records = search(task(tmp_path, oracle="hyperband", resource="fine_tuning.epochs"))
    epochs = [record.values["fine_tuning.epochs"] for record in records]
    assert set(epochs) == {1, 3, 9}
    promoted = [record for record in records if record.values["fine_tuning.epochs"] == 9]
    assert max(record.figures["iou"] for record in promoted) == max(record.figures["iou"] for record in records)


def test_what_breaks_a_constraint_is_told_apart_and_scores_below_all(tmp_path):
    def shape_first(values, folder):
        if values["width"] == 16:
            raise RejectedTrial("file_bytes is 16,000", {"file_bytes": 16000.0})
        if values["width"] == 12:
            return {**made_up(values, folder), "file_bytes": 13000.0}
        return made_up(values, folder)

    chosen = task(tmp_path, shape_first, constraints="file_bytes<=12500")
    records = {record.values["width"]: record for record in search(chosen)}
    assert records[16].status == "rejected" and records[16].figures == {"file_bytes": 16000.0}
    assert records[12].status == "finished" and records[12].broken == ("file_bytes<=12.5kB",)
    assert [records[width].is_feasible for width in (8, 12, 16)] == [True, False, False]
    scores = [score_trial(chosen.settings, records[width]) for width in (8, 12, 16)]
    assert scores[0] > scores[1] == scores[2] == -1


def test_a_cost_is_worth_what_the_search_says():
    chosen = settings(costs={"file_bytes": 0.02, "macs": 0.0})
    big, small = (
        TrialRecord("t", "finished", {}, {"iou": 0.6, "file_bytes": size, "macs": 1e6}) for size in (2048.0, 1024.0)
    )
    assert score_trial(chosen, small) - score_trial(chosen, big) == pytest.approx(0.02)


def test_a_wrong_combination_fails_and_the_others_go_on(tmp_path):
    def picky(values, folder):
        if values["width"] == 12:
            raise InputError("12 does not fit")
        return made_up(values, folder)

    records = search(task(tmp_path, picky))
    assert {record.reason for record in records if record.status == "failed"} == {"12 does not fit"}
    assert sum(record.status == "finished" for record in records) == 18


def test_a_search_whose_first_trials_all_fail_stops(tmp_path):
    with pytest.raises(InputError, match=r"first 3 trials failed; trial_0002: the trial's figures lack file_bytes"):
        search(task(tmp_path, lambda values, folder: {"iou": 0.5}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"iou": float("nan"), "file_bytes": 1.0}, "iou is nan; accepted are finite numbers"),
        ({"iou": "high", "file_bytes": -1.0}, "iou is 'high', file_bytes is -1.0; accepted"),
        (0.5, "the trial gave 0.5; it has to give its figures by name"),
    ],
)
def test_figures_that_are_no_numbers_fail_the_trial_and_end(tmp_path, given, said):
    with pytest.raises(InputError, match=said):
        search(task(tmp_path, lambda values, folder: given))
    assert [record.status for record in load_trials(tmp_path)] == ["failed"] * 3


def test_a_function_may_change_the_values_it_is_given(tmp_path):
    def careless(values, folder):
        figures = made_up(values, folder)
        values.clear()
        return figures

    assert all(record.values for record in search(task(tmp_path, careless)))


FUNCTION = {"oracle": "random", "trials": 3, "quality": "iou", "costs": {"file_bytes": 0.0}, "ranges": RANGES}


def test_a_stopped_search_of_a_function_shows_what_it_found(tmp_path):
    def stops(values, folder):
        if folder.name == "trial_2":
            raise KeyboardInterrupt
        return made_up(values, folder)

    with pytest.raises(KeyboardInterrupt):
        search_function(stops, FUNCTION, tmp_path, say=lambda text: None)
    assert "2 trials have ended" in (tmp_path / "search.html").read_text()
    shown = CliRunner().invoke(commands, ["search", "show", str(tmp_path)])
    assert shown.exit_code == 0 and "2 trials have ended" in shown.output


def test_other_settings_in_the_folder_of_a_function_are_refused(tmp_path):
    def quiet(**changes):
        return search_function(made_up, {**FUNCTION, **changes}, tmp_path, say=lambda text: None)

    assert len(quiet()) == 3
    with pytest.raises(InputError, match=r"holds a search with other settings \(ranges\)"):
        quiet(ranges={**RANGES, "width": {"choice": [80, 120, 160]}})
    assert len(quiet(trials=4)) == 4


def test_hyperband_over_a_function_asks_for_its_epochs(tmp_path):
    with pytest.raises(InputError, match="hyperband needs most_epochs"):
        hyperband = {**FUNCTION, "oracle": "hyperband", "trials": None, "resource": "training.epochs"}
        search_function(made_up, hyperband, tmp_path)


def test_an_error_of_the_program_is_no_failed_trial(tmp_path):
    def broken(values, folder):
        raise ZeroDivisionError("a fault")

    with pytest.raises(ZeroDivisionError, match="a fault"):
        search(task(tmp_path, broken))
    assert load_trials(tmp_path) == []
    assert len(search(task(tmp_path))) == 27


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize(("oracle", "trials"), [("grid", None), ("random", 12), ("bayesian", 7), ("hyperband", None)])
def test_stopped_anywhere_it_ends_with_the_same_trials_and_repeats_none(tmp_path, oracle, trials):
    changes = {"oracle": oracle, "trials": trials}
    changes |= {"resource": "pruning.epochs"} if oracle == "hyperband" else {}
    changes |= {"ranges": {path: RANGES[path] for path in ("width", "rate")}} if oracle == "bayesian" else {}
    undisturbed = search(task(tmp_path / "whole", **changes))
    ran = []

    def dying(values, folder):
        ran.append(folder.name)
        if len(ran) in (1, 4, 9):
            raise Killed
        return made_up(values, folder)

    for _ in range(3):
        with pytest.raises(Killed):
            search(task(tmp_path / "killed", dying, **changes))
        with (tmp_path / "killed" / "journal.jsonl").open("ab") as stream:
            stream.write(b'{"event": "sta')  # a kill in the middle of a write
    ended = search(task(tmp_path / "killed", dying, **changes))
    assert [(r.trial, r.values, r.figures) for r in ended] == [(r.trial, r.values, r.figures) for r in undisturbed]
    assert len(ran) == len(undisturbed) + 3 and len(set(ran)) == len(undisturbed)


@pytest.mark.parametrize("oracle", ["grid", "random", "bayesian"])
def test_a_search_that_gets_more_trials_goes_on_as_if_it_had_had_them(oracle, tmp_path):
    ran = []

    def noted(values, folder):
        ran.append(folder.name)
        return made_up(values, folder)

    changes = {"oracle": oracle, "ranges": {path: RANGES[path] for path in ("width", "rate")}}
    whole = search(task(tmp_path / "whole", trials=7, **changes))
    for trials in (4, 7):
        grown = search(task(tmp_path / "grown", noted, trials=trials, **changes))
    assert [record.values for record in grown] == [record.values for record in whole] and len(ran) == 7


def test_a_trial_that_ended_just_before_the_kill_is_not_run_again(tmp_path):
    chosen = task(tmp_path)
    positions = dict.fromkeys(RANGES, 0) | {"sparsity": 0}
    run_trial(chosen, "trial_0000", positions, "tuner0")
    ran = []
    search(task(tmp_path, lambda values, folder: ran.append(folder.name) or made_up(values, folder)))
    assert len(ran) == 26 and "trial_0000" not in ran


def test_another_order_of_proposals_is_refused(tmp_path):
    search(task(tmp_path, oracle="random", trials=3))
    lines = (tmp_path / "journal.jsonl").read_text().replace('"width": ', '"width": 1')
    (tmp_path / "journal.jsonl").write_text(lines)
    with pytest.raises(InputError, match=r"trial 0 had the values .* proposes"):
        search(task(tmp_path, oracle="random", trials=3))


def test_keras_tuner_leaves_tf_keras_alone():
    code = (
        "from tfprune.keras import keras, tf; before = (keras.Model, keras.layers.Dense)\n"
        "import tfprune.search.searching\n"
        "from tfprune.architectures import build_model\n"
        "net = build_model('plain_unet', input_size=(32, 32), outputs=2, width=4, depth=1)\n"
        "assert before == (keras.Model, keras.layers.Dense) == (tf.keras.Model, tf.keras.layers.Dense)\n"
        "assert isinstance(net, keras.Model) and type(net).__module__.startswith('tf_keras')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keras_tuner_is_imported_by_search_only():
    root = Path(__file__).parents[2] / "tfprune"
    importing = {
        path.relative_to(root).parts[0] for path in root.rglob("*.py") if "import keras_tuner" in path.read_text()
    }
    assert importing == {"search"}
