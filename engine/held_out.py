"""Which images a run held out for validation: they are judged again, and none that taught it, whatever masks have come
or gone since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from ..pipelines.datasets.dataset import Dataset, Sample
from ..pipelines.datasets.manifest import Manifest
from ..pipelines.errors import UsageError
from ..pipelines.watch import hash_of
from .events import Listener, silent, tell


def with_validation_of_run(dataset: Dataset, split: Mapping[str, Any], on_event: Listener = silent) -> Dataset:
    """The data set with the validation images of a run, whose split.json is given, where no list says which they are:
    masks that came since move the choice, to images that the run was taught by. Says so; and says which validation
    images have the names of such. Raises UsageError where none of the run's is left."""
    if dataset.held_out and split["val"]:
        dataset = _with_held_out(dataset, split["val"], split["val"], on_event)
    known = sorted({sample.id for sample in dataset.val} & set(split["labeled"]))
    if known:
        note = f"warning: {len(known)} of {len(dataset.val)} images, {known[0]} for one, were labelled in the training"
        tell("data", [note], on_event)
    return dataset


def with_pictures_of_run(manifest: Manifest, split: Mapping[str, Any], on_event: Listener = silent) -> Dataset:
    """As `with_validation_of_run`, of prepared data that may lie elsewhere now: the pictures that the run held out,
    under any name. Where most of them are not there, it is other data, and all is judged that has a mask and did not
    teach the run. Raises UsageError where nothing is left."""
    dataset, wanted = manifest.dataset, set(split["pictures"].get("validation", ()))
    masked = [sample for sample in (*dataset.train, *dataset.val, *dataset.extra) if sample.mask]
    pictures = {sample: manifest.picture(sample) for sample in masked}
    found = {sample: picture for sample, picture in pictures.items() if picture in wanted}
    if not found or 2 * len({*found.values()}) < len(wanted):
        return _with_all_untaught(dataset, pictures, split, on_event)
    named = {picture for sample, picture in found.items() if sample.id in split["val"]}
    ids = [s.id for s, picture in found.items() if s.id in split["val"] or picture not in named]
    return _with_held_out(dataset, ids, split["val"], on_event)


def _with_all_untaught(
    dataset: Dataset, pictures: Mapping[Sample, str], split: Mapping[str, Any], on_event: Listener
) -> Dataset:
    """The data set with all masked samples for validation whose `pictures` were not labelled in a run."""
    taught = set(split["pictures"].get("labels", ()))
    val = [sample for sample, picture in pictures.items() if picture not in taught]
    if not val:
        raise UsageError(
            f"{dataset.root}: all {len(pictures)} images with masks were labelled in the training; judge them by "
            "--part all, or name others by --files.val-list"
        )
    but = f", but for {len(pictures) - len(val)} that were labelled there" if len(val) < len(pictures) else ""
    but += "; those for testing are left alone (--part test)" if dataset.test else ""
    told = f"these are not the training's images: all {len(pictures)} with masks are judged instead{but}"
    tell("data", [told], on_event)
    return replace(_divided(dataset, (), val), extra=())


def _with_held_out(dataset: Dataset, ids: Sequence[str], before: Sequence[str], on_event: Listener) -> Dataset:
    """The data set with those of some ids for validation that are there and have masks, and a word where these are not
    all, or not those that a draw would give. before: those of the run. Raises UsageError where none is left."""
    pool = {sample.id: sample for sample in (*dataset.train, *dataset.val)}
    held_out = tuple(pool.pop(id) for id in sorted(ids) if id in pool and pool[id].mask)
    if not held_out:
        raise UsageError(f"{dataset.root}: none of the {len(before)} images that the run held out is there")
    if len(held_out) < len(before):
        gone = sorted({*before} - {sample.id for sample in held_out})
        which = f": {gone[0]}, for one, or its mask, is gone" if len(gone) == len(before) - len(held_out) else ""
        note = f"warning: only {len(held_out)} of the {len(before)} images are judged that the run held out{which}"
        tell("data", [note], on_event)
    elif held_out != dataset.val:
        note = f"{len(held_out)} images are judged, those that the run held out: masks have come or gone since"
        tell("data", [note], on_event)
    return _divided(dataset, pool.values(), held_out)


def held_out_unseen(dataset: Dataset, uses: Mapping[str, str], on_event: Listener = silent) -> Dataset:
    """The data set without validation images that had labels in an earlier training, which used pictures as `uses_of`
    says. This matters where no list names the validation images: masks that came since then move the choice, to images
    that taught the network. Those that the earlier training held out come in their place, and a note says so. All stays
    as it is where a list names them, nothing is known, or no other image is left."""
    if not uses or not dataset.held_out:
        return dataset
    masked = {sample.id: sample for sample in (*dataset.val, *dataset.train) if sample.mask}
    was = {id: uses.get(hash_of(sample.image.read_bytes())) for id, sample in masked.items()}
    chosen = {sample.id for sample in dataset.val}
    held_out = [id for id in masked if was[id] == "validation" or (id in chosen and was[id] != "labels")]
    if not held_out or chosen == set(held_out):
        return dataset
    note = f"{len(held_out)} images are held out for validation: those that it held out, and none that it was taught by"
    tell("--init", [note], on_event)
    pool = {sample.id: sample for sample in (*dataset.train, *dataset.val)}
    val = [pool.pop(id) for id in held_out]
    return _divided(dataset, pool.values(), val)


def _divided(dataset: Dataset, train: Iterable[Sample], val: Iterable[Sample]) -> Dataset:
    """The data set with other samples for training and validation, sorted by id as those of every data set are."""
    train, val = (tuple(sorted(samples, key=attrgetter("id"))) for samples in (train, val))
    return replace(dataset, train=train, val=val)
