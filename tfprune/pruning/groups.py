"""Channel groups: index sets of weights that are masked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Member:
    """A part of a channel group: `indices[i]` along `axis` of a layer's weight belong to channel i."""

    layer: str
    weight: str
    axis: int
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of which each goes as a whole, in every member; all members have as many channels.

    Of each set of channels in `never_empty` one stays: what reads these alone would read nothing.
    """

    name: str
    members: tuple[Member, ...]
    never_empty: tuple[tuple[int, ...], ...] = ()

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.members[0].indices)


def drop_channels(mask: np.ndarray, member: Member, kept: np.ndarray) -> None:
    """Set the slices of the channels that are not kept to False, in place."""
    for index in np.flatnonzero(~kept):
        mask[(slice(None),) * (member.axis % mask.ndim) + (list(member.indices[index]),)] = False


def sum_channels(scores: np.ndarray, indices: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the sum of filter scores over each channel's indices, shape (channels,)."""
    return np.array([scores[list(positions)].sum() for positions in indices], np.float64)
