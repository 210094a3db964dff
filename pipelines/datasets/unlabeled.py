"""Pictures without labels that lie in a folder of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError, some_of
from .dataset import Dataset, Sample
from .files import check_name, entries_of, find_pictures, holds_pictures, is_folder, stem_of
from .lists import Names, left_alone, read_ids_present
from .pairs import masks_among

CALLED = re.compile(r"unlabell?ed|unsup|no[_-]?(label|mask)|extra")
"""What folders of unlabelled images are called, in lower case."""
NAMED = 3
"""Folders that a note names."""


def with_unlabeled(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with the pictures at any depth of a folder as unlabelled images, but for masks among them and those
    that the data set's list for testing names. Their ids are their paths from the root or, where the folder lies
    outside, from its own name on.

    Raises UsageError where there are none, where files of the data set lie in that folder, and where one has the id of
    another.
    """
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist: correct --files.unlabeled")
    files = (file for sample in dataset.samples for file in (sample.image, sample.mask) if file)
    if inside := _inside(files, folder):
        raise UsageError(
            f"--files.unlabeled: {folder} holds images or masks of the data set, {inside.name} for one: pass a folder "
            "of others; its own images are unlabelled where they have no mask, and a list for training, if there is "
            "one, names them"
        )
    found = find_pictures(folder)
    masks = masks_among(found.names)
    pictures = [path for path in found.by_stem().values() if path.relative_to(folder).as_posix() not in masks]
    if not pictures:
        raise UsageError(f"--files.unlabeled: {folder} holds no pictures that are read: pass a folder of PNG or JPEG")
    home, root = folder.resolve(), dataset.root.resolve()
    before = home.relative_to(root) if home.is_relative_to(root) else Path(home.name)
    known, samples = {sample.id: sample for sample in dataset.samples}, {}
    for path in pictures:
        name = (before / path.relative_to(folder)).as_posix()
        check_name(name)
        if other := known.get(id := stem_of(name)):
            raise UsageError(f"{path} has the id of {other.image} ({id}): rename one of them")
        samples[id] = Sample(id, path, None)
    notes = [*dataset.notes, *found.notes()]
    if masks:
        notes.append(f"{len(masks)} pictures in {folder} are masks or drawings, not images")
    if dataset.test_list:
        tested, _ = read_ids_present(dataset.test_list, Names.of(samples.values(), dataset.root))
        notes += left_alone(tested, dataset.test_list)
        samples = {id: sample for id, sample in samples.items() if id not in tested}
    return replace(dataset, unlabeled=tuple(samples[id] for id in sorted(samples)), notes=tuple(notes))


def left_out(dataset: Dataset) -> Iterator[str]:
    """A note about folders right in the root whose names say that they hold unlabelled images, and of which no image
    is one of the data set."""
    folders = []
    for entry in entries_of(dataset.root):
        with suppress(UsageError):  # one that cannot be read
            if CALLED.search(entry.name.lower()) and is_folder(entry) and holds_pictures(path := Path(entry.path)):
                folders += [] if _inside((sample.image for sample in dataset.samples), path) else [entry.path]
    if folders:
        yield f"not used: the pictures in {some_of(folders, NAMED)}; --files.unlabeled FOLDER takes them"


def _inside(files: Iterable[Path], folder: Path) -> Path | None:
    """One of the files that lies below a folder, by whatever links."""
    home, places = folder.resolve(), {file.parent: file for file in files}
    return next((file for place, file in places.items() if place.resolve().is_relative_to(home)), None)
