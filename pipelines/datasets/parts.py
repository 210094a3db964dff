"""Data sets whose training and validation images lie in folders of their own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from .dataset import Sample
from .files import Pictures, find_pictures
from .lists import Names, read_ids


class Part(NamedTuple):
    """What lies in the folder of a part."""

    folder: Path
    samples: dict[str, Sample]
    """By id."""
    notes: list[str]
    """About files that are not used."""


def pictures_of(folder: Path) -> Pictures:
    """The pictures at any depth of a folder; none where it is not there."""
    return find_pictures(folder) if folder.is_dir() else Pictures(folder)


def parted(
    train: Part,
    val: Part,
    cure: str,
    *,
    pictures: str = "images",
    train_list: Path | None = None,
    val_list: Path | None = None,
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """The training pool and the validation images, each sorted by id: those of the two folders, or those of the user's
    lists, which may name any. An image for validation is not trained on.

    Raises UsageError where both folders hold an image of one id, where a list names what is not there, where the two
    name one image, where none is left to train on, and, with the `cure`, where a part has no `pictures`.
    """
    if twice := train.samples.keys() & val.samples.keys():
        raise UsageError(f"{train.folder} and {val.folder} both hold {min(twice)}: keep it in one of them")
    every = {**train.samples, **val.samples}
    names, where = Names(every), f"the images in {train.folder.parent}"
    trained = {id: every[id] for id in read_ids(train_list, names, where)} if train_list else train.samples
    judged = {id: every[id] for id in read_ids(val_list, names, where)} if val_list else val.samples
    if train_list and (both := trained.keys() & judged.keys()):
        raise UsageError(f"{min(both)} is in {train_list} and in {val_list or 'val'}: take it out of one of them")
    pool = tuple(trained[id] for id in sorted(trained.keys() - judged.keys()))
    for part, samples in ((train, pool), (val, judged)):
        if not (samples or part.samples):
            raise UsageError(f"{part.folder} holds no {pictures}: {cure}")
    if not pool:
        raise UsageError(f"{val_list} names all training images for validation: name fewer there")
    return pool, tuple(judged[id] for id in sorted(judged))


def check_validation(val: tuple[Sample, ...], masks: str, cure: str) -> None:
    """Raises UsageError for an image without a mask. `masks`: what it lacks, in words."""
    if bare := next((sample for sample in val if sample.mask is None), None):
        raise UsageError(f"the validation image {bare.image} has no {masks}: {cure}")
