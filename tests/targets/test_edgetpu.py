"""Coral's compiler, played by a script that prints what the real one prints (version 16.0)."""

from __future__ import annotations

import sys

import pytest

from tests.cli.test_commands import tfprune
from tests.targets.test_lint import nearest_2x, softmax_inside
from tfprune.errors import InputError
from tfprune.targets.edgetpu import read_log
from tfprune.targets.lint import lint_file
from tfprune.verification.graph import read_operators

LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 96 ms.

Input model: {name}
Input size: 7.20KiB
Output model: {name}_edgetpu.tflite
Output size: 44.41KiB
On-chip memory used for caching model parameters: 1.50KiB
On-chip memory remaining for caching model parameters: 7.86MiB
Off-chip memory used for streaming uncached model parameters: {streamed}
Number of Edge TPU subgraphs: 1
Total number of operations: {total}
Operation log: {name}_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower.
Number of operations that will run on Edge TPU: 3
Number of operations that will run on CPU: 2

Operator                       Count      Status

{table}
Compilation child process completed within timeout period.
Compilation succeeded!
"""


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Put a compiler on PATH that prints a log and ends with a code."""

    def install(said: str, code: int = 0) -> None:
        script = tmp_path / "bin" / "edgetpu_compiler"
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f"#!{sys.executable}\nimport sys\n"
            "assert sys.argv[1:3] == ['-s', '-o'] and sys.argv[4].endswith('.tflite')\n"
            f"print({said!r})\nsys.exit({code})\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent), prepend=":")

    return install


def log(rows, *, streamed="0.00B"):
    table = "\n".join(f"{name:31}{count:<11}{status}" for name, count, status in rows)
    return LOG.format(name="net", table=table, total=sum(row[1] for row in rows), streamed=streamed)


def names(path):
    return [operator.name for operator in read_operators(path)]


def test_what_the_compiler_maps_maps_whatever_the_rules_say(tmp_path, compiler):
    path = nearest_2x(tmp_path)
    guess = lint_file(path, "coral")
    assert guess.guessed and guess.falls_back
    kinds = names(path)
    compiler(log([(name, kinds.count(name), "Mapped to Edge TPU") for name in dict.fromkeys(kinds)]))
    verdict = lint_file(path, "coral")
    assert not verdict.findings and not verdict.unmapped and not verdict.guessed


def test_what_it_leaves_to_the_cpu_is_found_in_its_place(tmp_path, compiler):
    path = softmax_inside(tmp_path)
    kinds = names(path)
    last = max(place for place, name in enumerate(kinds) if name == "CONV_2D")
    rows = [("CONV_2D", 1, "More than one subgraph is not supported"), ("SOFTMAX", 1, "Operation not supported")]
    rows += [
        (name, kinds.count(name) - (name == "CONV_2D"), "Mapped to Edge TPU")
        for name in dict.fromkeys(kinds)
        if name != "SOFTMAX"
    ]
    compiler(log(rows, streamed="41.75KiB"))
    verdict = lint_file(path, "coral")
    assert verdict.unmapped == {last, kinds.index("SOFTMAX")}
    by_place = {found.place: found for found in verdict.findings}
    assert "no softmax over one row" in by_place[kinds.index("SOFTMAX")].reason  # the rule says more than the log
    assert "more than one subgraph" in by_place[last].reason and "first operator" in by_place[last].way_out
    assert "41.75KiB of weights" in by_place[None].reason and not by_place[None].falls_back


def test_a_log_has_one_row_for_each_kind_and_status():
    rows = [("QUANTIZE", 1, "Mapped to Edge TPU"), ("QUANTIZE", 2, "Operation is working on an unsupported data type")]
    assert read_log(log(rows)) == rows


@pytest.mark.parametrize(("said", "code"), [("Invalid model: net.tflite\nModel not quantized", 1), ("Aborting!", 0)])
def test_a_file_that_it_refuses_gets_one_message(tmp_path, compiler, said, code):
    compiler(said, code)
    with pytest.raises(InputError, match=r"edgetpu_compiler cannot compile this file \((Model not|Aborting)"):
        lint_file(nearest_2x(tmp_path), "coral")


def test_without_it_the_command_says_that_the_check_is_static(tmp_path):
    result = tfprune("lint", nearest_2x(tmp_path), "--target", "coral")
    assert result.returncode == 1 and "as a whole it is unlikely to map" in result.stdout
