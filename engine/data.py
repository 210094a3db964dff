"""The data of a run: found, prepared and split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ..pipelines.cache import cache_root
from ..pipelines.datasets import find_dataset, prepare, resolve_split
from ..pipelines.datasets.dataset import Dataset
from ..pipelines.datasets.manifest import Manifest, Record
from ..pipelines.datasets.pack import Pack, open_pack
from ..pipelines.datasets.splits import Split
from .events import Event, Listener, progress_of, silent
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


def pack_manifest(manifest: Manifest, on_event: Listener = silent) -> Pack:
    """The data set decoded, all of it; says so where files have to be decoded for it."""
    return open_pack(
        manifest.records.values(),
        manifest.folder,
        say=lambda line: on_event(Event("note", line)),
        on_progress=progress_of("packing", on_event),
    )


def prepare_data(recipe: Recipe, on_event: Listener = silent) -> Data:
    """The recipe's data set, prepared, and its split."""
    dataset = locate(recipe)
    for note in dataset.notes:
        on_event(Event("note", f"data: {note}"))
    split = resolve_split(recipe.split, dataset, recipe.runtime.lists)
    for note in split.notes:
        on_event(Event("note", f"split: {note}"))
    data = Data(prepare_manifest(dataset, on_event), split)
    for note in unseen_classes(data):
        on_event(Event("note", f"classes: {note}"))
    return data


def unseen_classes(data: Data) -> Iterator[str]:
    """Of the classes that cannot be learnt from the split, or cannot be judged by the validation set: a line each."""
    for ids, where, so in (
        (data.split.labeled, "labelled image of the split", "nothing teaches them"),
        ([record.id for record in data.val], "validation mask", "their IoU says nothing"),
    ):
        counts = data.manifest.counts(ids)
        unseen = [name for name, pixels in zip(data.dataset.classes, counts, strict=True) if not pixels]
        if unseen:
            yield f"in no {where}, {so}: {', '.join(unseen)}"
