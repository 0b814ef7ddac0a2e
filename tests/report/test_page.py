"""The page: its numbers are those of the records, it needs nothing outside itself, and names cannot break it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.parsed_page import Page
from tfprune.records import read_json, write_json, write_text
from tfprune.report.figures import MARKERS, draw_front, draw_scores
from tfprune.report.folder import read_run
from tfprune.report.page import find_command, write_report


def read_page(folder: Path) -> Page:
    """Write the report of a folder and take it apart."""
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("epochs", "turned"), [((10, 10, 10), 0), ((1, 1, 10), 3)])
def test_names_of_short_stages_turn_instead_of_overlapping(epochs: tuple[int, ...], turned: int) -> None:
    histories = {
        name: {"epoch": np.arange(float(count)), "mean_iou": np.linspace(0, 1, count)}
        for name, count in zip(("train", "channels_masked", "channels"), epochs, strict=True)
    }
    drawn = base64.b64decode(draw_scores(histories, {}, ()).split(",")[1]).decode()
    assert drawn.count("rotate(-45") == turned


def test_a_front_of_many_files_tells_them_apart_and_writes_its_ticks_exactly(make_run: Callable[..., Path]) -> None:
    row = read_run(make_run()).rows[0]
    rows = [replace(row, variant=f"net {number}", file_bytes=1024 * 20 + 1457 * number) for number in range(14)]
    drawn = base64.b64decode(draw_front([("run", one) for one in rows]).split(",")[1]).decode()
    assert len(set(MARKERS)) >= len(rows)
    assert re.search(r"<text[^>]*>22\.5</text>", drawn) and not re.search(r"<text[^>]*>22</text>", drawn)


def test_figures_are_those_of_the_records(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    page = read_page(folder)
    values = set(page.values)
    for row in read_json(folder / "records" / "verification.json")["rows"]:
        expected = [row["scores"]["mean_iou"], *row["scores"]["iou"].values(), row["scores"]["dice"]["corrosion"]]
        expected += [row["footprint"][key] for key in ("file_bytes", "gzip_bytes", "nonzero_parameters", "macs")]
        expected += [row["latency"][key] for key in ("median_ms", "p95_ms", "ratio_to_first")]
        expected += list(row["agreement"].values())[1:]
        assert {str(number) for number in expected} <= values


def test_each_quantity_has_one_cell_per_file_with_its_difference(make_run: Callable[..., Path]) -> None:
    page = read_page(make_run())
    assert page.row("IoU corrosion") == ["0.613", "0.613±0.000", "0.562−0.050", "0.562−0.050"]
    assert page.row("sensitivity (recall), corrosion")[0] == "0.700"
    assert page.row("specificity, corrosion")[0] == "0.950"
    assert page.row("balanced accuracy")[0] == "0.825"
    assert page.row("file KiB") == ["8,000", "2,0004.0x smaller", "8,000same", "2,0004.0x smaller"]
    assert page.row("non-zero parameters")[2] == "400,0005.0x smaller"
    assert page.row("times as fast as dense float32")[1] == "2.001.95 to 2.05"
    assert page.row("fine-tune") == ["2", "30 s", "2", "0.700"]


def test_arena_and_the_agreement_of_runtimes_are_shown(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    path = folder / "records" / "verification.json"
    record = read_json(path)
    assert "arena" not in read_page(folder).text and "between Keras" not in read_page(folder).text
    record["rows"][1]["arena_bytes"], record["rows"][3]["arena_bytes"] = 512_000, 256_000
    record["rows"][1]["convolution_share_ratio"] = 0.4449
    names = ["keras", "int8, LiteRT", "int8, micro"]
    equal = [[1.0, 0.99875, 0.99871], [0.99875, 1.0, 0.9996], [0.99871, 0.9996, 1.0]]
    failed = {"float32, micro": "no such operator"}
    record["agreement"] = [{"variant": "dense", "names": names, "equal_ratio": equal, "failed": failed}]
    write_json(path, record)
    page = read_page(folder)
    assert page.row("arena of TFLite Micro KiB") == ["–", "500", "–", "250"]
    assert page.row("of this machine's convolution rate")[1].replace("\xa0", " ") == "44 %"
    assert [cell.replace("\xa0", " ") for cell in page.row("3 int8, micro")] == ["99.87 %", "99.96 %", "100 %"]
    assert "float32, micro: no such operator" in page.text


def test_page_needs_nothing_outside_itself(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    page = read_page(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    assert not {"script", "iframe", "object", "form"} & page.seen
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 3_000_000
    assert [path.name for path in folder.glob("*.html*")] == ["report.html"], "no temporary file is left"


def test_every_sample_has_image_truth_and_one_picture_per_file(make_run: Callable[..., Path]) -> None:
    page = read_page(make_run())
    names = ["image", "truth", "dense float32", "dense int8", "pruned float32", "pruned int8"]
    shown = [alt for alt, source in page.pictures if source.startswith("data:image/jpeg")]
    assert shown == [f"plate_{n}: {name}" for n in range(2) for name in names]
    assert "corrosion, missed" in page.text


def test_many_classes_are_shown_with_their_names(make_run: Callable[..., Path]) -> None:
    page = read_page(make_run(class_names=("good", "fair", "poor", "severe")))
    assert all(page.row(f"IoU {name}") for name in ("good", "fair", "poor", "severe"))
    assert "not coloured, and not in the mean IoU below: good" in page.text
    assert "false alarm" not in page.text
    assert "the mean over good, fair, poor and severe." in page.text


def test_how_it_was_measured_names_runtime_threads_and_images(make_run: Callable[..., Path]) -> None:
    text = read_page(make_run()).text
    assert "all 196 test images at 96 x 96 pixels" in text
    assert "50 runs of one image per file with ai-edge-litert 0.0, XNNPACK, 1 thread" in text
    assert "the dense network had 4 epochs" in text
    assert "3 in prune and 2 in fine-tune" in text
    assert "the mean over background and corrosion." in text


def test_recipe_command_environment_sparsity_and_dense_layers_are_there(make_run: Callable[..., Path]) -> None:
    page = read_page(make_run())
    assert "tfprune run made_up.yaml --data DIR" in page.text
    assert "purpose: tell rust from paint" in page.text
    assert page.row("python") == ["3.11.0"]
    assert page.row("splits train") == ["729"]
    assert page.row("conv_1")[:2] == ["9,216", "1,843"]
    assert "output head stays dense (1)" in page.text
    assert "Reached: 80.0 % there, which is 79.0 % of the whole network" in page.text


def test_curves_of_both_kinds_are_drawn(make_run: Callable[..., Path]) -> None:
    drawn = [alt for alt, source in read_page(make_run()).pictures if source.startswith("data:image/svg+xml")]
    assert [alt.split(" by ")[0] for alt in drawn] == ["Mean IoU", "Loss"]


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("records/verification.json", "No exported file has been verified."),
        ("records/sparsity.json", "No weights were set to zero in this run, or pruning has not ended."),
        ("records/samples.npz", "No sample images were kept."),
        ("records/run.json", "records/run.json: the times and best epochs of the stages"),
        ("environment.json", "environment.json: the versions and the processor"),
        ("data.json", "data.json: the description of the data"),
        ("recipe.yaml", "recipe.yaml: the recipe"),
    ],
)
def test_absent_parts_are_named(make_run: Callable[..., Path], absent: str, said: str) -> None:
    folder = make_run()
    (folder / absent).unlink()
    assert said in read_page(folder).text


def test_a_run_that_has_only_begun_gets_a_page(tmp_path: Path) -> None:
    write_text(tmp_path / "stages" / "train" / "history.csv", "epoch,loss\n0,1.0\n")
    page = read_page(tmp_path)
    assert "nothing to compare" in page.text
    assert len(page.pictures) == 1


def test_names_cannot_break_the_page(make_run: Callable[..., Path]) -> None:
    evil = "<script>alert('$x_1$ & y')</script>"
    folder = make_run(name="made_up", class_names=("background", evil))
    run = read_json(folder / "records" / "run.json")
    run["name"] = evil
    run["stages"][0]["name"] = evil
    write_json(folder / "records" / "run.json", run)
    (folder / "stages" / "train").rename(folder / "stages" / "$x_1$ & <y>")
    write_text(folder / "recipe.yaml", f"name: {evil}\nabout: [")
    page = read_page(folder)
    assert "script" not in page.seen
    assert page.text.count(evil) >= 4


def test_writing_twice_gives_the_same_bytes(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_ignored_pixels_are_explained(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    path = folder / "records" / "samples.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["truth"][:, :5] = 255
    np.savez_compressed(path, **arrays)
    assert "not judged (striped)" in read_page(folder).text


def test_the_command_has_a_default() -> None:
    assert find_command("architecture: {name: fcn}") == "tfprune run recipe.yaml --data DIR"
    assert find_command("data: {generate: {set: steel}}") == "tfprune run recipe.yaml --model FILE"
    assert find_command("about: {command: tfprune demo}") == "tfprune demo"
