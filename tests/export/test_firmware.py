"""Sources for TFLite Micro: they compile, hold the file's bytes, and name its operators as the library does."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.export.nets import exported, without_card
from tfprune.export.card import read_card
from tfprune.export.firmware import flatbuffer_of, resolver_call, write_firmware
from tfprune.verification.graph import read_operators

# operator -> method, as tflite-micro's micro_mutable_op_resolver.h spells it
METHODS = {
    "ADD": "AddAdd",
    "ARG_MAX": "AddArgMax",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "BATCH_TO_SPACE_ND": "AddBatchToSpaceNd",
    "BROADCAST_TO": "AddBroadcastTo",
    "CONCATENATION": "AddConcatenation",
    "CONV_2D": "AddConv2D",
    "CUMSUM": "AddCumSum",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "FULLY_CONNECTED": "AddFullyConnected",
    "GATHER_ND": "AddGatherNd",
    "L2_NORMALIZATION": "AddL2Normalization",
    "L2_POOL_2D": "AddL2Pool2D",
    "LEAKY_RELU": "AddLeakyRelu",
    "LOGISTIC": "AddLogistic",
    "MAX_POOL_2D": "AddMaxPool2D",
    "MUL": "AddMul",
    "PADV2": "AddPadV2",
    "PRELU": "AddPrelu",
    "QUANTIZE": "AddQuantize",
    "RELU6": "AddRelu6",
    "RESIZE_NEAREST_NEIGHBOR": "AddResizeNearestNeighbor",
    "SOFTMAX": "AddSoftmax",
    "SPLIT_V": "AddSplitV",
    "TRANSPOSE_CONV": "AddTransposeConv",
}
# the library's header as far as the sources use it
STUB = """#pragma once
enum TfLiteStatus {{ kTfLiteOk = 0, kTfLiteError = 1 }};
namespace tflite {{
template <unsigned int tOpCount>
struct MicroMutableOpResolver {{
  unsigned int count = 0;
  TfLiteStatus Add() {{ return count++ < tOpCount ? kTfLiteOk : kTfLiteError; }}
{methods}
}};
}}
""".format(methods="\n".join(f"  TfLiteStatus {name}() {{ return Add(); }}" for name in METHODS.values()))
MAIN = """#include <cstdio>
#include <cstdint>
#include "model_data.h"
#include "model_operators.h"
int main() {
  ModelOpResolver resolver;
  if (AddModelOperators(resolver) != kTfLiteOk) return 1;
  if (reinterpret_cast<uintptr_t>(kModelData) % 16) return 2;
  std::fwrite(kModelData, 1, kModelDataBytes, stdout);
  std::fprintf(stderr, "%d %d %d %d %d %s", kInputHeight, kInputWidth, kInputChannels, kArenaBytes, kClasses,
               kClassNames[1]);
  return 0;
}
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    path, folder = exported("plain", 3, "int8", "probabilities"), tmp_path_factory.mktemp("firmware")
    names = sorted({operator.name for operator in read_operators(path)})
    written = write_firmware(path, folder, card=read_card(path), operators=names, arena_bytes=40000)
    assert [file.name for file in written] == ["model_data.h", "model_data.cc", "model_operators.h", "README.md"]
    return path, folder


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_sources_compile_and_hold_the_file(sources, tmp_path):
    path, folder = sources
    header = tmp_path / "tensorflow" / "lite" / "micro" / "micro_mutable_op_resolver.h"
    header.parent.mkdir(parents=True)
    header.write_text(STUB)
    (tmp_path / "main.cc").write_text(MAIN)
    command = ["g++", "-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}", f"-I{folder}"]
    command += [tmp_path / "main.cc", folder / "model_data.cc", "-o", tmp_path / "main"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "main"], capture_output=True)
    assert done.returncode == 0
    assert done.stdout == without_card(path, tmp_path / "bare.tflite").read_bytes() == flatbuffer_of(path)
    assert done.stderr.decode() == "32 32 3 40000 3 rust"


def test_the_readme_says_what_the_board_needs(sources):
    text = (sources[1] / "README.md").read_text()
    for part in ("40,000 bytes (39 KiB)", "CONV_2D", "steel, rust, scratch", "(1, 32, 32, 3)", "kArenaBytes"):
        assert part in text


def test_without_micro_the_arena_is_said_to_be_unknown(tmp_path):
    path = exported("plain", 3, "int8", "probabilities")
    write_firmware(path, tmp_path, card=read_card(path), operators=["CONV_2D"], arena_bytes=None)
    assert "not measured" in (tmp_path / "README.md").read_text()
    assert "constexpr int kArenaBytes" not in (tmp_path / "model_data.h").read_text()


@pytest.mark.parametrize(("operator", "method"), METHODS.items())
def test_operators_are_added_by_the_librarys_own_names(operator, method):
    assert resolver_call(operator) == method
