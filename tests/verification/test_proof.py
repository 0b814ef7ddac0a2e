"""Files side by side: the agreement of Keras, schemes and runtimes, and the record's figures."""

from __future__ import annotations

import numpy as np
import pytest

from tests.export.nets import NETS, class_names, classes_of_logits, exported, logits_of, pictures, without_card
from tfprune.errors import InputError
from tfprune.verification.benching import bench_files
from tfprune.verification.proof import ExportedFile, prove_files

IMAGES = pictures(4, seed=3)
MASKS = classes_of_logits(logits_of(NETS["plain"](3), IMAGES))


def prove(*schemes, **options):
    files = [ExportedFile("dense", scheme, exported("plain", 3, scheme, "logits")) for scheme in schemes]
    keras_classes = {"dense": MASKS}
    return prove_files(
        files, IMAGES, MASKS, class_names=class_names(3), keras_classes=keras_classes, latency_runs=3, **options
    )


def test_the_matrix_holds_keras_every_scheme_and_every_runtime():
    record, predicted = prove("float32", "int8", also=["litert-reference", "tensorflow"])
    (agreement,) = record["agreement"]
    assert agreement["variant"] == "dense" and agreement["failed"] == {}
    assert agreement["names"] == ["keras"] + [
        f"{scheme}, {runtime}"
        for scheme in ("float32", "int8")
        for runtime in (record["runtime"].split(",")[0], "litert-reference", "tensorflow")
    ]
    matrix = np.array(agreement["equal_ratio"])
    assert matrix.shape == (7, 7) and (matrix == matrix.T).all() and (np.diag(matrix) == 1).all()
    assert matrix[0, 4] == (predicted["dense_int8"] == MASKS).mean() < 1
    assert (matrix[0, 1:4] > 0.999).all()
    first, second = record["rows"]
    assert first["scores"]["mean_iou"] > 0.999 and first["agreement_with_first"]["equal_ratio"] == 1
    assert (
        second["agreement_with_first"]["equal_ratio"] == (predicted["dense_int8"] == predicted["dense_float32"]).mean()
    )
    assert 0 < second["convolution_share_ratio"] < 2 and set(record["convolution_macs_per_s"]) == {"float32", "int8"}
    assert "arena_bytes" not in second


def test_a_runtime_that_cannot_run_a_file_is_named_and_the_rest_goes_on():
    pytest.importorskip("tflite_micro")
    record, _ = prove("int8", "float16", also=["micro"])
    (agreement,) = record["agreement"]
    judge = record["runtime"].split(",")[0]
    assert agreement["names"] == ["keras", f"int8, {judge}", "int8, micro", f"float16, {judge}"]
    assert list(agreement["failed"]) == ["float16, micro"] and "cannot open" in agreement["failed"]["float16, micro"]
    assert record["rows"][0]["arena_bytes"] > record["rows"][0]["footprint"]["peak_activation_bytes"] > 32 * 32 * 20
    assert record["rows"][1]["arena_bytes"] is None


def test_files_are_timed_against_the_first():
    files = [exported("plain", 3, "float32", "logits"), exported("light", 3, "int8", "logits")]
    record = bench_files(files, runs=5, names=["dense", "small"])
    first, second = record["rows"]
    assert (first["file"], first["latency"]["ratio_to_first"], second["latency"]["runs"]) == ("dense", 1, 5)
    assert second["latency"]["ratio_low"] <= second["latency"]["ratio_to_first"] <= second["latency"]["ratio_high"]
    assert second["input_size"] == [32, 32] and second["runtime"].endswith("1 thread")
    with pytest.raises(InputError, match="given twice"):
        bench_files([files[0], files[0]])


def test_a_float_file_of_another_tool_is_timed(tmp_path):
    path = without_card(exported("plain", 3, "float32", "logits"), tmp_path / "foreign.tflite")
    assert bench_files([path], runs=3)["rows"][0]["latency"]["median_ms"] > 0
