"""Labels: the identity of a channel, and the union-find that says which channels are one.

Every channel of every tensor of a network carries an integer label. Labels that the network ties
together (the two sides of an Add, the filters of a convolution and the norm that follows it)
are united. What is left in one class at the end goes, or stays, together.
"""

from __future__ import annotations

import numpy as np

Labels = np.ndarray
"""Labels of a tensor: int64, of the tensor's rank (batch included).

An axis has its full size where channels are told apart along it, and size 1 where they are not:
(1, 1, 1, C) for an image of C channels, (1, H*W*C) after Flatten.
"""


class LabelSpace:
    """Hands out labels, unites them, and remembers why some are frozen.

    >>> space = LabelSpace()
    >>> a, b = space.fresh(3), space.fresh(3)
    >>> space.unite(a, b)
    >>> space.freeze(b[:1], "model output")
    >>> space.find(b).tolist()
    [0, 1, 2]
    >>> space.is_frozen(a).tolist()
    [True, False, False]
    """

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._used = 0
        self._frozen: list[tuple[np.ndarray, str]] = []

    def __len__(self) -> int:
        return self._used

    def fresh(self, count: int) -> np.ndarray:
        """Return `count` labels that nothing else carries, shape (count,)."""
        labels = np.arange(self._used, self._used + count)
        self._used += count
        if self._used > len(self._parent):
            grown = np.arange(max(2 * len(self._parent), self._used, 1024))
            grown[: len(self._parent)] = self._parent
            self._parent = grown
        return labels

    def find(self, labels: np.ndarray) -> np.ndarray:
        """Return the root of each label: equal roots mean one channel."""
        roots = self._parent[labels]
        while not np.array_equal(up := self._parent[roots], roots):
            roots = up
        self._parent[labels] = roots
        return roots

    def unite(self, a: np.ndarray, b: np.ndarray) -> None:
        """Unite `a` and `b` position by position; shapes broadcast.

        All pairs are hooked at once, the larger root under the smaller. Where several pairs want to
        hook the same root only the smallest wins in a round; the others come right in the next.
        """
        a, b = (side.reshape(-1) for side in np.broadcast_arrays(a, b))
        while True:
            roots_a, roots_b = self.find(a), self.find(b)
            apart = roots_a != roots_b
            if not apart.any():
                return
            a, b = roots_a[apart], roots_b[apart]
            np.minimum.at(self._parent, np.maximum(a, b), np.minimum(a, b))

    def freeze(self, labels: np.ndarray, reason: str) -> None:
        """Forbid the removal of these channels; the first reason given is the one reported."""
        if labels.size:
            self._frozen.append((np.unique(labels), reason))

    def frozen(self, count: int, reason: str) -> np.ndarray:
        """Return `count` fresh labels that are frozen from the start."""
        labels = self.fresh(count)
        self.freeze(labels, reason)
        return labels

    def is_frozen(self, labels: np.ndarray) -> np.ndarray:
        """Return for each label whether its class is frozen by now."""
        if not self._frozen:
            return np.zeros(labels.shape, bool)
        roots = self.find(np.concatenate([frozen for frozen, _ in self._frozen]))
        return np.isin(self.find(labels), roots)

    def frozen_reasons(self) -> dict[int, str]:
        """Return root -> the first reason for which its class is frozen."""
        reasons: dict[int, str] = {}
        for labels, reason in self._frozen:
            for root in np.unique(self.find(labels)).tolist():
                reasons.setdefault(root, reason)
        return reasons
