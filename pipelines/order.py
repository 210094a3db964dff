"""Which images a step shows: passes over a set in random orders, epochs, replayed and repeated ones, partners."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .draws import ORDER, TAIL, ProcessSamples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """The order of the labelled or of the unlabelled images. As it stands every image comes once a pass, passes are
    endless and each has an order of its own; the switches are those of `views.Sampling`."""

    images: np.ndarray
    """(N,) int64 indices of the images."""
    samples: ProcessSamples
    stream: int
    epoch_steps: int
    """Steps of an epoch, which the switches go by."""
    replay: bool = False
    """Within an epoch, the batches of its first pass come again, draws included."""
    repeat: bool = False
    """Every epoch has the order of the first one."""
    filled: int | None = None
    """ProcessSamples of a pass that consists of whole repeats of the set and a rest, its first images."""
    redrawn: bool = False
    """The rest is drawn anew, sample by sample."""

    def shown(self, step: int) -> int:
        """The step whose samples this one shows: itself or, replayed, one of its epoch's first pass."""
        if not self.replay:
            return step
        within = step % self.epoch_steps
        return step - within + within % max(len(self.images) // max(self.samples.whole, 1), 1)

    def __call__(self, shown: int, *, partner: bool = False) -> np.ndarray:
        """(B,) int64: the images of a step, as `shown` gives it, or their partners, each another image of the set."""
        count = len(self.images)
        if self.filled is None:
            return self.images[self._entries(shown, count, self.replay or self.repeat, partner)]
        entries = self._entries(shown, self.filled, by_epoch=True)
        chosen = entries % count
        if self.redrawn:
            rest = np.floor(self.samples.draws(TAIL, shown, 1).take() * count).astype(np.int64)
            chosen = np.where(entries < self.filled // count * count, chosen, rest)
        return self.images[chosen]

    def _entries(self, step: int, count: int, by_epoch: bool, partner: bool = False) -> np.ndarray:
        """(B,) numbers below `count`, each once a pass. Passes are endless, or one begins with each epoch."""
        if by_epoch:
            epoch, within = divmod(step, self.epoch_steps)
            turn, place = np.full(self.samples.batch, epoch), self.samples.indices(within) % count
        else:
            turn, place = np.divmod(self.samples.indices(step), count)
        if self.repeat:
            turn = np.zeros_like(turn)
        entries = np.empty(len(turn), np.int64)
        for one in np.unique(turn):
            order, shift = _permutation(self.samples.seed, self.stream, int(one), count)
            here = turn == one
            entries[here] = order[(place[here] + (shift if partner else 0)) % count]
        return entries


@lru_cache(maxsize=16)
def _permutation(seed: int, stream: int, turn: int, count: int) -> tuple[np.ndarray, int]:
    """The order of one pass, and the distance to the partner within it."""
    bits = np.random.Philox(key=np.array([seed, ORDER + stream], np.uint64), counter=turn << 128)
    rng = np.random.Generator(bits)
    return rng.permutation(count), int(rng.integers(1, max(count, 2)))
