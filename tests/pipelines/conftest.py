"""Planners, photograph-like files, and backends that execute plans over them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from semiseg.pipelines.batch import Backend, Windows
from semiseg.pipelines.check import photographs
from semiseg.pipelines.dali import DaliBackend
from semiseg.pipelines.datasets.manifest import Record, sizes_of
from semiseg.pipelines.host import HostBackend
from semiseg.pipelines.lane import leaves
from semiseg.pipelines.plan import Plan, Planner
from semiseg.pipelines.views import Augmentation, Drawing, ViewSpec

FILL = (124, 116, 104)
CAC = Augmentation(base=400 / 320, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5)


def make_planner(
    sizes: Sequence[tuple[int, int]] | np.ndarray = ((375, 500),),
    kind: str = "pair",
    *,
    images: tuple[Sequence[int], Sequence[int]] | None = None,
    rank: int = 0,
    world: int = 1,
    micro: int = 0,
    **changes: Any,
) -> Planner:
    """A planner over images of these sizes, all of them labelled and unlabelled unless `images` says which are.

    CAC's augmentations, one labelled and four unlabelled windows of 320 a step: `changes` are those of `Drawing`.
    """
    drawing = dict(crop=320, batch=1, unlabeled_batch=4, labeled=Augmentation(), unlabeled=CAC, seed=0, fill=FILL)
    everything = range(len(sizes))
    drawing = Drawing(**{"views": ViewSpec(unlabeled=kind), **drawing} | changes)
    chosen = images or (everything, everything)
    return Planner(np.array(sizes), *chosen, drawing, rank=rank, world=world, micro=micro)


@pytest.fixture(name="make_planner", scope="session")
def _make_planner() -> Callable[..., Planner]:
    return make_planner


def run(backend: Backend, planner: Planner, start: int = 0) -> Iterator[tuple[Plan, Windows]]:
    """What a backend makes of a planner's steps from `start` on."""
    return backend(map(planner, itertools.count(start)))


@pytest.fixture(name="run", scope="session")
def _run() -> Callable[..., Iterator[tuple[Plan, Windows]]]:
    return run


@dataclass(frozen=True)
class Photos:
    records: list[Record]

    def planner(self, kind: str = "pair", filter: str = "cubic", **changes: Any) -> Planner:
        """Two labelled and two unlabelled windows of 128 a step."""
        unlabeled = Augmentation(filter=filter, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5)
        small = dict(crop=128, batch=2, unlabeled_batch=2, labeled=Augmentation(filter=filter), unlabeled=unlabeled)
        return make_planner(sizes_of(self.records), kind, **small | changes)

    def host(self, **changes: Any) -> HostBackend:
        return HostBackend(**dict(records=self.records, threads=2) | changes)

    def dali(self, **changes: Any) -> DaliBackend:
        return DaliBackend(**dict(records=self.records, device_id=None, threads=2) | changes)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """Those of the check."""
    return Photos(photographs(tmp_path_factory.mktemp("photos")))


@pytest.fixture(name="arrays", scope="session")
def _arrays() -> Callable[[Any], Iterator[np.ndarray]]:
    """All arrays of a plan or a part of it, in order."""
    return partial(leaves, kind=np.ndarray)
