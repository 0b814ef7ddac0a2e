"""How numbers are written for people: the same on the page and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNKNOWN = "–"
MINUS = "−"
NO_BREAK = "\N{NO-BREAK SPACE}"
UNCHANGED = 0.01
"""A size or count that moves by less than this share counts as unchanged."""


def as_score(value: float | None) -> str:
    """Write a score in 0-1.

    >>> as_score(0.6084)
    '0.608'
    """
    return UNKNOWN if value is None else f"{value:.3f}"


def as_kib(size_bytes: float | None) -> str:
    """Write bytes in KiB (1024 bytes), one decimal below 100.

    >>> as_kib(2048), as_kib(2_000_000)
    ('2.0', '1,953')
    """
    if size_bytes is None:
        return UNKNOWN
    kib = size_bytes / 1024
    return f"{kib:,.1f}" if kib < 100 else f"{kib:,.0f}"


def as_count(value: float | None) -> str:
    """Write a whole number with thousands separated.

    >>> as_count(1964530)
    '1,964,530'
    """
    return UNKNOWN if value is None else f"{value:,.0f}"


def as_millions(value: float | None) -> str:
    """Write a count in millions with three figures.

    >>> as_millions(431_200_000), as_millions(8_250_000), as_millions(90_000)
    ('431', '8.25', '0.090')
    """
    if value is None:
        return UNKNOWN
    millions = value / 1e6
    return f"{millions:.3f}" if 0 < millions < 1 else as_three_figures(millions)


def as_three_figures(value: float | None) -> str:
    """Write a positive number with three figures, or whole above 1000.

    >>> as_three_figures(5.554), as_three_figures(18.06), as_three_figures(0.0421), as_three_figures(1234.5)
    ('5.55', '18.1', '0.042', '1,234')
    """
    if value is None:
        return UNKNOWN
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def as_ratio(value: float | None) -> str:
    """Write a speed ratio.

    >>> as_ratio(1.0), as_ratio(0.953), as_ratio(18.23)
    ('1.00', '0.95', '18.2')
    """
    return UNKNOWN if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def as_percent(ratio: float | None, decimals: int = 1) -> str:
    """Write a fraction as a percentage that is 100 only when it is all.

    Number and sign stay together on one line (no-break space).

    >>> [as_percent(ratio).replace("\\xa0", " ") for ratio in (0.8, 0.99999, 1.0)]
    ['80.0 %', '99.9 %', '100 %']
    """
    if ratio is None:
        return UNKNOWN
    if ratio == 1:
        return f"100{NO_BREAK}%"
    step = 10**-decimals
    return f"{min(ratio * 100, 100 - step) if ratio < 1 else ratio * 100:.{decimals}f}{NO_BREAK}%"


def as_signed(difference: float | None, decimals: int = 3) -> str:
    """Write a difference with its sign, and a real minus.

    >>> as_signed(-0.0531), as_signed(0.0004), as_signed(0.012)
    ('−0.053', '±0.000', '+0.012')
    """
    if difference is None:
        return UNKNOWN
    text = f"{abs(difference):.{decimals}f}"
    if float(text) == 0:
        return f"±{text}"
    return ("+" if difference > 0 else MINUS) + text


def as_change(value: float | None, reference: float | None) -> str:
    """Write how a size or count compares with its reference.

    >>> as_change(500, 2000), as_change(2000, 2000), as_change(3000, 2000), as_change(1900, 2000)
    ('4.0x smaller', 'same', '1.5x larger', '−5 %')
    """
    if value is None or not reference:
        return UNKNOWN
    share = value / reference
    if abs(share - 1) < UNCHANGED:
        return "same"
    if 0.8 < share < 1.25:
        return f"{'+' if share > 1 else MINUS}{abs(share - 1) * 100:.0f} %"
    if value == 0:
        return "none left"
    return f"{1 / share:.1f}x smaller" if share < 1 else f"{share:.1f}x larger"


def as_duration(seconds: float | None) -> str:
    """Write a duration.

    >>> as_duration(42.3), as_duration(431), as_duration(7500)
    ('42 s', '7 min 11 s', '2 h 5 min')
    """
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def as_stage(name: str) -> str:
    """Write a stage's name as words.

    >>> as_stage("fine_tune")
    'fine-tune'
    """
    return name.replace("_", "-")


MOST_NAMES = 16
"""Class names that are listed; of more, the rest is counted."""


def join_words(words: list[str], *, most: int | None = None) -> str:
    """Join names as a sentence does; of more than `most` the last ones are counted.

    >>> join_words(["a", "b", "c"]), join_words(["a", "b", "c", "d"], most=3)
    ('a, b and c', 'a, b and 2 more')
    """
    if most is not None and len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


@dataclass(frozen=True)
class CostWords:
    """How a cost of the budget language is called, and the unit it is written in, for pages and for 80 columns."""

    label: str
    short: str
    unit: str
    per_unit: float


COSTS = {
    "macs": CostWords("MACs", "MACs", "million", 1e6),
    "parameters": CostWords("parameters", "param.", "thousand", 1e3),
    "file_bytes": CostWords("file", "file", "KiB", 1024.0),
    "gzip_bytes": CostWords("gzip", "gzip", "KiB", 1024.0),
    "activation_bytes": CostWords("peak activations", "peak", "KiB", 1024.0),
    "arena_bytes": CostWords("arena", "arena", "KiB", 1024.0),
    "latency_ms": CostWords("time, median", "time", "ms", 1.0),
}


def as_cost(name: str, value: float | None, *, unit: bool = False) -> str:
    """Write a cost in the unit of `COSTS`.

    >>> as_cost("file_bytes", 512_000.0, unit=True), as_cost("macs", 45.2e6), as_cost("latency_ms", None)
    ('500 KiB', '45.2', '–')
    """
    if value is None:
        return UNKNOWN
    words = COSTS[name]
    text = as_kib(value) if words.unit == "KiB" else as_three_figures(value / words.per_unit)
    return f"{text} {words.unit}" if unit else text


def describe_values(values: Mapping[str, Any]) -> str:
    """Write the values of a trial in one line.

    >>> describe_values({"architecture.width": 8, "pruning": {"schedule": "linear", "criterion": "taylor"}})
    'width 8, pruning linear taylor'
    >>> describe_values({"training.epochs": 8, "pruning.epochs": 4})
    'training.epochs 8, pruning.epochs 4'
    """
    last = [path.split(".")[-1] for path in values]
    names = [name if last.count(name) == 1 else path for name, path in zip(last, values, strict=True)]
    return ", ".join(f"{name} {write_value(value)}" for name, value in zip(names, values.values(), strict=True))


def write_value(value: Any) -> str:
    """Write one value of a range in a few characters; in a mapping, what is no word has its name.

    >>> write_value([96, 96]), write_value(0.00031), write_value(None)
    ('96x96', '0.00031', 'none')
    >>> write_value({"schedule": "linear", "final_sparsity": 0.8, "epochs": 2})
    'linear final_sparsity 0.8 epochs 2'
    """
    if isinstance(value, Mapping):
        items = {name: write_value(item) for name, item in value.items()}
        return " ".join(text if isinstance(value[name], str) else f"{name} {text}" for name, text in items.items())
    if isinstance(value, list):
        return "x".join(write_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def as_command(verb: str, file: str, content: Mapping[str, Any]) -> str:
    """Return the command for a recipe, given its content, that names what is not in it.

    >>> as_command("run", "steel.yaml", {"architecture": None, "data": {"size": [64, 64]}})
    'tfprune run steel.yaml --model FILE --data DIR'
    """
    model = "" if content.get("architecture") else " --model FILE"
    data = "" if (content.get("data") or {}).get("generate") else " --data DIR"
    return f"tfprune {verb} {file}{model}{data}"
