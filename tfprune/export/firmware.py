"""A .tflite file as sources for firmware with TensorFlow Lite Micro."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfprune.export import HEADS
from tfprune.records import write_text

_BYTES_PER_LINE = 16
# MicroMutableOpResolver's own spellings; all other names follow from the operator's
_SPELLINGS = {"BATCH_MATMUL": "BatchMatMul", "CUMSUM": "CumSum", "PADV2": "PadV2"}


def write_firmware(
    path: str | Path, folder: str | Path, *, card: dict[str, Any], operators: Sequence[str], arena_bytes: int | None
) -> list[Path]:
    """Write model_data.h, model_data.cc, model_operators.h and README.md, and return their paths.

    Args:
        path: the .tflite file; its card stays out of the array.
        folder: where the sources go; made when needed.
        card: what the file says about itself.
        operators: the names of its operators, each once.
        arena_bytes: what TFLite Micro needs on this machine, None when it was not measured.
    """
    content = flatbuffer_of(path)
    texts = {
        "model_data.h": _header(card, arena_bytes),
        "model_data.cc": _source(content, card),
        "model_operators.h": _operators(operators),
        "README.md": _readme(Path(path).name, content, card, operators, arena_bytes),
    }
    for name, text in texts.items():
        write_text(Path(folder) / name, text)
    return [Path(folder) / name for name in texts]


def flatbuffer_of(path: str | Path) -> bytes:
    """Return a .tflite file without the zip behind it."""
    content = Path(path).read_bytes()
    if not zipfile.is_zipfile(path):
        return content
    with zipfile.ZipFile(path) as archive:
        return content[: min(entry.header_offset for entry in archive.infolist())]


def resolver_call(operator: str) -> str:
    """Return the method of MicroMutableOpResolver that adds an operator.

    >>> [resolver_call(name) for name in ("CONV_2D", "BATCH_TO_SPACE_ND", "RELU6", "PADV2")]
    ['AddConv2D', 'AddBatchToSpaceNd', 'AddRelu6', 'AddPadV2']
    """
    words = [word if re.fullmatch(r"\dD", word) else word.capitalize() for word in operator.split("_")]
    return f"Add{_SPELLINGS.get(operator, ''.join(words))}"


def _header(card: dict[str, Any], arena_bytes: int | None) -> str:
    height, width = card["input_size"]
    arena = f"constexpr int kArenaBytes = {arena_bytes};" if arena_bytes else "// kArenaBytes was not measured."
    return f"""#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_

constexpr int kInputHeight = {height};
constexpr int kInputWidth = {width};
constexpr int kInputChannels = {card["channels"]};
constexpr int kClasses = {len(card["classes"])};
{arena}

extern const unsigned char kModelData[];
extern const unsigned int kModelDataBytes;
extern const char* const kClassNames[kClasses];

#endif  // MODEL_DATA_H_
"""


def _source(content: bytes, card: dict[str, Any]) -> str:
    rows = [content[start : start + _BYTES_PER_LINE] for start in range(0, len(content), _BYTES_PER_LINE)]
    array = "\n".join("    " + " ".join(f"0x{value:02x}," for value in row) for row in rows)
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in card["classes"])
    return f"""#include "model_data.h"

alignas(16) const unsigned char kModelData[] = {{
{array}
}};
const unsigned int kModelDataBytes = {len(content)};
const char* const kClassNames[kClasses] = {{{names}}};
"""


def _operators(operators: Sequence[str]) -> str:
    calls = "\n".join(
        f"  if (resolver.{resolver_call(name)}() != kTfLiteOk) return kTfLiteError;" for name in operators
    )
    return f"""#ifndef MODEL_OPERATORS_H_
#define MODEL_OPERATORS_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using ModelOpResolver = tflite::MicroMutableOpResolver<{len(operators)}>;

inline TfLiteStatus AddModelOperators(ModelOpResolver& resolver) {{
{calls}
  return kTfLiteOk;
}}

#endif  // MODEL_OPERATORS_H_
"""


def _readme(name: str, content: bytes, card: dict[str, Any], operators: Sequence[str], arena_bytes: int | None) -> str:
    height, width = card["input_size"]
    if arena_bytes:
        memory = (
            f"{arena_bytes:,} bytes ({arena_bytes / 1024:.0f} KiB), measured with TFLite Micro's reference kernels on "
            "a 64-bit machine. Optimised kernels (CMSIS-NN) may ask for scratch memory of their own: add some, and "
            "look at `interpreter.arena_used_bytes()`."
        )
    else:
        memory = "not measured: `pip install --pre tflite-micro`, then export again."
    return f"""# {name} for TensorFlow Lite Micro

| | |
|---|---|
| flash | {len(content):,} bytes, `kModelData` |
| arena | {memory} |
| input | (1, {height}, {width}, {card["channels"]}), pixels 0..255, scheme {card["scheme"]} |
| output | {HEADS[card["head"]]} |
| classes | {", ".join(card["classes"])} |
| operators | {", ".join(operators)} |

```cpp
#include "model_data.h"
#include "model_operators.h"
#include "tensorflow/lite/micro/micro_interpreter.h"

alignas(16) static uint8_t arena[{"kArenaBytes" if arena_bytes else "512 * 1024"}];

ModelOpResolver resolver;
AddModelOperators(resolver);
tflite::MicroInterpreter interpreter(tflite::GetModel(kModelData), resolver, arena, sizeof(arena));
interpreter.AllocateTensors();

// before every picture: the arena has overwritten the one before
memcpy(interpreter.input(0)->data.raw, pixels, interpreter.input(0)->bytes);
interpreter.Invoke();
const TfLiteTensor* output = interpreter.output(0);
```

Pixels are bytes with the scheme int8, and floats 0..255 with the others.
"""
