"""Plans: which channels go, decided and written down, before anything is done. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfprune.budget import write_amount
from tfprune.errors import InputError
from tfprune.records import plain, read_json, write_json

FORMAT = 1


@dataclass(frozen=True)
class LayerPlan:
    """What a plan does to one layer that makes channels.

    Attributes:
        layer: path of the layer.
        channels, channels_after: how many it makes.
        macs, macs_after: its multiplications for one image; 0 where the size is unknown.
        coupled: other layers whose channels go with these.
        frozen: channels of it that may not go.
        reason: why, empty when all may.
    """

    layer: str
    channels: int
    channels_after: int
    macs: int
    macs_after: int
    coupled: tuple[str, ...] = ()
    frozen: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Met:
    """A bound of a budget: at most `limit` of a quantity, which is `before` and becomes `after`."""

    quantity: str
    limit: float
    before: float
    after: float

    def __str__(self) -> str:
        """Return before, after and limit for people."""
        before, after, limit = (write_amount(self.quantity, value) for value in (self.before, self.after, self.limit))
        return f"{self.quantity} {before} -> {after}, at most {limit}"


@dataclass(frozen=True)
class Plan:
    """Which channels of a model go. Frozen, printable, JSON, replayable on another checkpoint.

    Attributes:
        model: name of the model.
        fingerprint: of its architecture; another one refuses the plan.
        remove: layer -> output channels to remove. What is coupled to them goes too. This, and only
            this, may be edited by hand in the file.
        layers: the dry run.
        opaque: calls that the plan must not look through, found by the check.
        budget: how the bounds are met that the plan was made for.
    """

    model: str
    fingerprint: str
    remove: Mapping[str, tuple[int, ...]]
    layers: tuple[LayerPlan, ...] = ()
    opaque: tuple[str, ...] = field(default=())
    budget: tuple[Met, ...] = ()

    @property
    def macs(self) -> int:
        """Multiplications of all layers with kernels before, for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def macs_after(self) -> int:
        """Multiplications of all layers with kernels after."""
        return sum(layer.macs_after for layer in self.layers)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        write_json(path, {"format": FORMAT, **plain(self)})

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Read a plan that `save` wrote, perhaps edited since.

        Raises:
            InputError: when the file is missing or not a plan, with what is wrong.
        """
        if not Path(path).is_file():
            raise InputError(f"plan file {path} does not exist")
        try:
            return _from_json(read_json(path))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path} is not a plan of channels: {error!r}") from error

    def __str__(self) -> str:
        """Return the dry run as a table for people."""
        head = ("layer", "channels", "MACs", "coupled with", "frozen")
        rows = [_row(layer) for layer in self.layers]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        share = f", {1 - self.macs_after / self.macs:.1%} removed" if self.macs else ""
        bounds = [str(met) for met in self.budget]
        macs = f"MACs {self.macs:,} -> {self.macs_after:,}{share}"
        return "\n".join([*lines, macs if self.macs else "MACs not counted: it takes pictures of any size", *bounds])


def _row(layer: LayerPlan) -> tuple[str, ...]:
    more = f" +{len(layer.coupled) - 1}" if len(layer.coupled) > 1 else ""
    frozen = f"{layer.frozen} ({layer.reason})" if layer.frozen else ""
    return (
        layer.layer,
        f"{layer.channels} -> {layer.channels_after}",
        f"{layer.macs:,} -> {layer.macs_after:,}" if layer.macs else "",
        layer.coupled[0] + more if layer.coupled else "",
        frozen,
    )


def _from_json(record: dict[str, Any]) -> Plan:
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']}, and this tfprune reads format {FORMAT}")
    return Plan(
        model=str(record["model"]),
        fingerprint=str(record["fingerprint"]),
        remove={
            str(layer): tuple(int(channel) for channel in channels) for layer, channels in record["remove"].items()
        },
        layers=tuple(LayerPlan(**{**layer, "coupled": tuple(layer["coupled"])}) for layer in record["layers"]),
        opaque=tuple(record["opaque"]),
        budget=tuple(Met(**met) for met in record.get("budget", ())),
    )
