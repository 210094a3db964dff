"""Pictures without labels that lie in a folder of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError, some_of
from .dataset import Dataset, Sample
from .files import check_name, entries_of, find_pictures, holds_pictures, is_folder, stem_of
from .pairs import masks_among

CALLED = re.compile(r"unlabell?ed|unsup|no[_-]?(label|mask)|extra")
"""What folders of unlabelled images are called, in lower case."""
NAMED = 3
"""Folders that a note names."""


def with_unlabeled(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with the pictures at any depth of a folder as unlabelled images, masks among them left out. Their
    ids are their paths from the root, or whole where they lie outside.

    Raises UsageError where there are none, where files of the data set lie in that folder, and where one has the id of
    another.
    """
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist: correct --files.unlabeled")
    home = folder.resolve()
    files = (file for sample in dataset.samples for file in (sample.image, sample.mask) if file)
    places = {file.parent: file for file in files}
    if inside := [file for place, file in places.items() if place.resolve().is_relative_to(home)]:
        raise UsageError(
            f"--files.unlabeled: {folder} holds images or masks of the data set, {inside[0].name} for one: pass a "
            "folder of others (images of the data set that have no mask are unlabelled by themselves)"
        )
    found = find_pictures(folder)
    masks = masks_among(found.names)
    pictures = [path for path in found.by_stem().values() if path.relative_to(folder).as_posix() not in masks]
    if not pictures:
        raise UsageError(f"--files.unlabeled: {folder} holds no pictures that are read: pass a folder of PNG or JPEG")
    known, samples = {sample.id: sample for sample in dataset.samples}, []
    for path in pictures:
        name = (path.relative_to(dataset.root if path.is_relative_to(dataset.root) else path.anchor)).as_posix()
        check_name(name)
        if other := known.get(id := stem_of(name)):
            raise UsageError(f"{path} has the id of {other.image} ({id}): rename one of them")
        samples.append(Sample(id, path, None))
    notes = [*dataset.notes, *found.notes()]
    if masks:
        notes.append(f"{len(masks)} pictures in {folder} are masks or drawings, not images")
    samples.sort(key=lambda sample: sample.id)
    return replace(dataset, unlabeled=tuple(samples), notes=tuple(notes))


def left_out(dataset: Dataset) -> Iterator[str]:
    """A note about folders right in the root whose names say that they hold unlabelled images, and of which no image
    is one of the data set."""
    root = dataset.root
    used = {sample.image.relative_to(root).parts[0] for sample in dataset.samples if sample.image.is_relative_to(root)}
    folders = []
    for entry in entries_of(root):
        with suppress(UsageError):  # one that cannot be read
            if CALLED.search(entry.name.lower()) and entry.name not in used and is_folder(entry):
                folders += [entry.path] if holds_pictures(root / entry.name) else []
    if folders:
        yield f"not used: the pictures in {some_of(folders, NAMED)}; --files.unlabeled FOLDER takes them"
