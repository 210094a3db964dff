"""The data of a run: found, prepared and split."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..pipelines.cache import cache_root
from ..pipelines.datasets import find_dataset, prepare, resolve_split
from ..pipelines.datasets.dataset import Dataset
from ..pipelines.datasets.manifest import Manifest, Record
from ..pipelines.datasets.splits import Split
from .events import Event, Listener, silent
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Data:
    """A prepared data set and its split."""

    manifest: Manifest
    split: Split

    @property
    def dataset(self) -> Dataset:
        return self.manifest.dataset

    @property
    def labeled(self) -> list[Record]:
        return [self.manifest.records[id] for id in self.split.labeled]

    @property
    def unlabeled(self) -> list[Record]:
        return [self.manifest.records[id] for id in self.split.unlabeled]

    @property
    def val(self) -> list[Record]:
        return [self.manifest.records[sample.id] for sample in self.dataset.val]


def locate(recipe: Recipe) -> Dataset:
    """The recipe's data set, as it lies on disk."""
    return find_dataset(recipe.layout, recipe.runtime.data, **asdict(recipe.files))


def prepare_manifest(dataset: Dataset, on_event: Listener = silent) -> Manifest:
    """The checked and converted data set; says so where files have to be decoded for it."""
    announced = False

    def show(done: int, total: int) -> None:
        nonlocal announced
        if not announced:
            where = f"{total} new or changed files of {dataset.root}, into {cache_root()}"
            on_event(Event("note", f"preparing: {where}"))
            announced = True
        on_event(Event("progress", "preparing", done, total))

    manifest = prepare(dataset, on_progress=show)
    for note in manifest.notes:
        on_event(Event("note", f"data: {note}"))
    return manifest


def prepare_data(recipe: Recipe, on_event: Listener = silent) -> Data:
    """The recipe's data set, prepared, and its split."""
    dataset = locate(recipe)
    for note in dataset.notes:
        on_event(Event("note", f"data: {note}"))
    split = resolve_split(recipe.split, dataset, recipe.runtime.lists)
    for note in split.notes:
        on_event(Event("note", f"split: {note}"))
    return Data(prepare_manifest(dataset, on_event), split)
