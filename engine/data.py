"""The data of a run: found, prepared and split."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ..pipelines.cache import cache_root
from ..pipelines.datasets.dataset import Dataset
from ..pipelines.datasets.layouts import find_dataset
from ..pipelines.datasets.manifest import Manifest, Record, prepare
from ..pipelines.datasets.splits import Split, resolve_split
from . import console
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Data:
    """A prepared data set and its split."""

    manifest: Manifest
    split: Split

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.dataset.classes

    @property
    def val(self) -> list[Record]:
        return [self.manifest.records[sample.id] for sample in self.manifest.dataset.val]


def locate(recipe: Recipe) -> Dataset:
    """The recipe's data set, as it lies on disk."""
    return find_dataset(recipe.layout, recipe.data, **asdict(recipe.files))


def prepare_manifest(dataset: Dataset) -> Manifest:
    """The checked and converted data set; says so where files have to be decoded for it."""
    announced = False

    def show(done: int, total: int) -> None:
        nonlocal announced
        if not announced:
            console.say(f"preparing: {total} new or changed files of {dataset.root}, into {cache_root()}")
            announced = True
        bar(done, total)

    with console.progress("preparing", 0) as bar:
        return prepare(dataset, on_progress=show)


def prepare_data(recipe: Recipe) -> Data:
    """The recipe's data set, prepared, and its split."""
    dataset = locate(recipe)
    for note in dataset.notes:
        console.say(f"data: {note}")
    split = resolve_split(recipe.split, dataset, recipe.lists)
    for note in split.notes:
        console.say(f"split: {note}")
    return Data(prepare_manifest(dataset), split)
