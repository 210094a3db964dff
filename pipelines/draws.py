"""Random numbers by sample: a pure function of seed, stream and global sample index, from a counter-based generator."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np

LABELED, UNLABELED, PARTNER, BOXES, ORDER = range(5)
"""The generator's streams. Each of the first four has an order of its own, whose key is ORDER more."""
TAIL = 2 * ORDER


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSamples:
    """This process's samples among those that `world` processes show in a step, `batch` each."""

    seed: int
    batch: int
    rank: int
    world: int
    shared: int
    """Parts of the whole batch that draw the same numbers for their own images."""

    @property
    def whole(self) -> int:
        """ProcessSamples a step over all processes."""
        return self.batch * self.world

    @property
    def first(self) -> int:
        """The first of this process's among them."""
        return self.rank * self.batch

    @property
    def of_all(self) -> ProcessSamples:
        """The samples of all processes, as one of them."""
        return replace(self, batch=self.whole, rank=0, world=1)

    def indices(self, step: int) -> np.ndarray:
        """(B,) int64 global indices: samples are counted through steps and processes."""
        return (step * self.world + self.rank) * self.batch + np.arange(self.batch, dtype=np.int64)

    def draws(self, stream: int, step: int, width: int) -> Draws:
        """`width` random numbers of each of a step's samples."""
        part = max(-(-self.whole // self.shared), 1)
        return Draws(self.seed, stream, step * self.whole, self.indices(0) % part, width)


class Draws:
    """Uniform numbers in [0, 1) of the samples first + rows: the same whoever asks for them."""

    def __init__(self, seed: int, stream: int, first: int, rows: np.ndarray, width: int):
        blocks = -(-width // 4)  # Philox yields four numbers a count
        low, high = (int(rows.min()), int(rows.max()) + 1) if len(rows) else (0, 0)
        bits = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=(first + low) * blocks)
        self.numbers = np.random.Generator(bits).random((high - low, 4 * blocks))[rows - low]
        self._used = 0

    def followed_by(self, other: Draws) -> Draws:
        """The same numbers, and then those of other samples as further rows."""
        joined = copy(self)
        joined.numbers = np.concatenate([self.numbers, other.numbers])
        return joined

    def take(self, count: int = 1) -> np.ndarray:
        """(B,) or, for several, (B, count) fresh numbers."""
        taken = self.numbers[:, self._used : self._used + count]
        self._used += count
        return taken[:, 0] if count == 1 else taken


def uniform_int(draw: np.ndarray, low: np.ndarray | int, high: np.ndarray | int) -> np.ndarray:
    """Integers in [low, high], both ends included, from numbers in [0, 1)."""
    return low + np.floor(draw * (high - low + 1)).astype(np.int64)
