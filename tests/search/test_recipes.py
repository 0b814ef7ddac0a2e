"""A real search of a tiny recipe: what is shared, what is rejected, and what its files say."""

from __future__ import annotations

import pytest

from tests.cli.test_commands import tfprune
from tests.search.conftest import searched_content
from tfprune.errors import InputError
from tfprune.recipe import check_recipe, load_recipe, recipe_difference, recipe_text
from tfprune.records import read_json
from tfprune.run import run_recipe
from tfprune.run.folder import dense_key
from tfprune.search.recipes import search_recipe, trial_recipe
from tfprune.search.trials import load_trials


@pytest.fixture(scope="module")
def records(searched):
    return load_trials(searched)


def test_what_is_too_large_by_shape_is_rejected_untrained(searched, records):
    by_width = {}
    for record in records:
        by_width.setdefault(record.values["architecture.width"], set()).add(record.status)
    assert by_width == {8: {"finished"}, 12: {"rejected"}} and len(records) == 4
    for record in records:
        folder = searched / "trials" / record.trial
        if record.status == "rejected":
            assert record.broken == ("file_bytes<=64KiB",) and "by shape alone: file_bytes is" in record.reason
            assert not (folder / "stages").exists() and record.figures["file_bytes"] > 0


def test_a_dense_net_is_trained_once_per_dense_configuration(searched, records):
    (dense,) = (searched / "dense").iterdir()
    history = (dense / "stages" / "train" / "history.csv").read_text()
    assert (dense / "stages" / "train" / "state.npz").exists()
    for record in records:
        if record.status == "finished":
            folder = searched / "trials" / record.trial
            assert (folder / "stages" / "train" / "history.csv").read_text() == history
            assert not list(folder.glob("stages/*/state.npz"))


def test_the_figures_are_those_of_the_exported_file(searched, records):
    for record in (record for record in records if record.status == "finished"):
        folder = searched / "trials" / record.trial
        (row,) = [r for r in read_json(folder / "records" / "verification.json")["rows"] if r["variant"] == "pruned"]
        figures = record.figures
        assert figures["file_bytes"] == (folder / "models" / "pruned_int8.tflite").stat().st_size
        assert figures["gzip_bytes"] == row["footprint"]["gzip_bytes"] < figures["file_bytes"]
        assert figures["test_mean_iou"] == row["scores"]["mean_iou"]
        assert figures["test_iou"] == row["scores"]["iou"]["corrosion"]
        assert 0 <= figures["mean_iou"] <= 1 and figures["arena_bytes"] > figures["activation_bytes"] > 0
        assert figures["macs"] == row["footprint"]["macs"] and figures["latency_ms"] > 0


@pytest.mark.slow
def test_a_trial_is_what_its_recipe_gives_alone(searched, records, tmp_path):
    record = next(record for record in records if record.status == "finished")
    recipe = trial_recipe(check_recipe(searched_content()), record.trial, record.values)
    folder = run_recipe(recipe, out=tmp_path)
    ours, theirs = (place / "models" / "pruned_int8.tflite" for place in (searched / "trials" / record.trial, folder))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_second_start_runs_nothing(searched, records):
    before = (searched / "journal.jsonl").read_bytes()
    said = []
    assert search_recipe(check_recipe(searched_content()), out=searched.parent, say=said.append) == searched
    assert said == ["reading data"] and (searched / "journal.jsonl").read_bytes() == before


def test_another_search_in_the_same_folder_is_refused(searched):
    content = searched_content()
    content["search"]["ranges"]["architecture.width"]["choice"] = [8]
    with pytest.raises(InputError, match=r"(?s)another recipe.*-      - 12"):
        search_recipe(check_recipe(content), out=searched.parent)


def test_a_recipe_with_a_search_is_not_run_by_mistake(tmp_path):
    with pytest.raises(InputError, match=r"tfprune search run.*search=null"):
        run_recipe(check_recipe(searched_content()), out=tmp_path)


def test_dense_work_is_the_same_where_later_stages_differ():
    recipe = check_recipe(searched_content())
    later = trial_recipe(recipe, "a", {"pruning.final_sparsity": 0.7, "pruning.epochs": 5})
    other = trial_recipe(recipe, "b", {"training.learning_rate": 0.01})
    assert dense_key(recipe) == dense_key(later) != dense_key(other)


def test_show_and_pick_on_the_command_line(searched, records, tmp_path):
    shown = tfprune("search", "show", searched).stdout
    assert "4 trials have ended, 2 of them within the constraints, 2 rejected by shape" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80 and (searched / "search.html").exists()
    picked = tfprune("search", "pick", searched, "best gzip_bytes", cwd=tmp_path)
    best = min((record for record in records if record.is_feasible), key=lambda record: record.figures["gzip_bytes"])
    (path,) = tmp_path.glob("tiny_search_trial_*.yaml")
    assert path.name in picked.stdout and path.stem.endswith(best.trial)
    ours = load_recipe(path)
    theirs = trial_recipe(check_recipe(searched_content()), ours.name, best.values)
    assert recipe_difference(recipe_text(ours), recipe_text(theirs)) == "" and "gzip_bytes" in ours.about.result
    none = tfprune("search", "pick", searched, "best iou with macs<=1")
    assert none.returncode == 2 and "no trial is within the bound on macs" in none.stderr
