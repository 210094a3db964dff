"""The data of a run: found, prepared and split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

from ..pipelines.cache import cache_root
from ..pipelines.datasets import find_dataset, prepare, resolve_split
from ..pipelines.datasets.dataset import Dataset, Sample
from ..pipelines.datasets.layouts import LAYOUTS, PLACES, absolute
from ..pipelines.datasets.manifest import Manifest, Record
from ..pipelines.datasets.pack import Pack, open_pack
from ..pipelines.datasets.splits import Split, absolute_spec
from ..pipelines.errors import UsageError, flag, refuse
from ..pipelines.watch import hash_of
from .checkpoint import checkpoint_file
from .events import Event, Listener, notes_to, progress_of, silent
from .recipe import Files, Recipe
from .run import Run, uses_of
from .serial import plain, typed

SIDE = 32
"""Pixels; crops are best multiples of it."""


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
    def trained_on(self) -> list[Record]:
        """The labelled records and behind them the unlabelled ones, whose masks no step reads and nobody keeps."""
        return [*self.labeled, *(replace(record, mask=None, mask_mark=None) for record in self.unlabeled)]

    def class_pct(self) -> dict[str, float]:
        """Each class's share of the labelled images' pixels that count, in per cent."""
        counts = self.manifest.counts(self.split.labeled)
        whole = max(sum(counts), 1)
        return {name: 100 * pixels / whole for name, pixels in zip(self.dataset.classes, counts, strict=True)}

    def contents(self) -> dict[str, str]:
        """Checksums of what the files hold that a run learns from and is judged by; not of unlabelled images' masks."""
        split, contents = self.split, self.manifest.contents
        return {
            "labeled": contents(split.labeled, masks=True),
            "unlabeled": contents(split.unlabeled, masks=False),
            "val": contents((record.id for record in self.val), masks=True),
        }

    def pictures(self) -> dict[str, list[str]]:
        """The hashes of the pictures that have masks, by what these are for; so a picture is known wherever it lies."""
        masked = {sample.id for sample in self.dataset.samples if sample.mask}
        labeled, val = set(self.split.labeled), {sample.id for sample in self.dataset.val}
        uses = {"labels": labeled, "validation": val, "unused": masked - labeled - val}
        return {use: self.manifest.pictures(ids) for use, ids in uses.items()}

    @property
    def val(self) -> list[Record]:
        return [self.manifest.records[sample.id] for sample in self.dataset.val]


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths to its data, so that it means the same in any working folder."""
    data = recipe.runtime.data and Path(recipe.runtime.data).expanduser().absolute()
    placed = absolute(recipe.layout, data, asdict(recipe.files)) if data else {}
    files = plain(recipe.files) | {name: str(path) for name, path in placed.items()}
    return recipe.replace(data=data, split=absolute_spec(recipe.split), files=typed(Files, files))


def portable(recipe: Recipe) -> Recipe:
    """An anchored recipe with paths that stay the same where its data is moved: those of files from the root, and list
    files by name; what is in them is compared by itself."""
    files = from_root(plain(recipe.files), recipe.runtime.data)
    split = ",".join(os.path.basename(part) if os.path.isabs(part) else part for part in recipe.split.split(","))
    return recipe.replace(split=split, files=typed(Files, files))


def from_root(files: Mapping[str, Any], root: Path | str | None) -> dict[str, Any]:
    """Options of `find_dataset`, in which what lies below a root is named from there."""
    return {
        name: os.path.relpath(value, root) if root and _below(value, root) else value for name, value in files.items()
    }


def moved(files: Mapping[str, Any], before: Path | str | None, now: Path | str | None) -> dict[str, Any]:
    """Options of `find_dataset` for data that lies elsewhere now, or for other data of the same kind: places below the
    root are below the new one. Raises UsageError for one that lay outside, of which nobody knows whether it still
    holds."""
    if not before or same_place(now, before):
        return dict(files)
    found = from_root(files, before)
    for name in PLACES:
        if (place := found.get(name)) and os.path.isabs(place):
            raise UsageError(f"{flag('files.' + name)}: was {place}, outside of {before}; say what it is for {now}")
    return found


def same_place(now: Path | str | None, before: Path | str | None) -> bool:
    """Whether data is where it was in the training: nothing else is said, or the same."""
    return not now or (before is not None and Path(now).resolve() == Path(before).resolve())


def _below(place: Any, root: Path | str) -> bool:
    return isinstance(place, (str, Path)) and os.path.isabs(place) and Path(place).is_relative_to(root)


def locate(recipe: Recipe) -> Dataset:
    """The recipe's data set, as it lies on disk. Raises UsageError where it does not say where, or nothing is there."""
    if LAYOUTS[recipe.layout].needs_root and recipe.runtime.data is None:
        raise UsageError(f"--data: the recipe {recipe.name} needs the root of the data set: pass --data FOLDER")
    return find_dataset(recipe.layout, recipe.runtime.data, **asdict(recipe.files))


def prepare_manifest(
    dataset: Dataset, on_event: Listener = silent, *, threads: int = 0, verify: bool = False
) -> Manifest:
    """The checked and converted data set; says so where files have to be read for it. verify: all are. threads: 0 for
    one a core.

    Raises UsageError for faults, and for masks that contradict each other."""
    announced = False

    def show(done: int, total: int) -> None:
        nonlocal announced
        if not announced:
            where = f"{total} {'files' if verify else 'new or changed files'} of {dataset.root}, into {cache_root()}"
            on_event(Event("note", f"preparing: {where}"))
            announced = True
        on_event(Event("progress", "preparing", done, total))

    manifest = prepare(dataset, threads=threads, verify=verify, on_progress=show)
    refuse(manifest.doubts)
    tell("data", manifest.notes, on_event)
    return manifest


def tell(what: str, notes: Iterable[str], on_event: Listener) -> None:
    """Says each note, and what it is about."""
    for note in notes:
        on_event(Event("note", f"{what}: {note}"))


def pack_manifest(manifest: Manifest, on_event: Listener = silent) -> Pack:
    """The data set decoded, all of it; says so where files have to be decoded for it."""
    return open_pack(
        manifest.records.values(),
        manifest.folder,
        say=notes_to(on_event),
        on_progress=progress_of("packing", on_event),
    )


def prepare_data(recipe: Recipe, on_event: Listener = silent, run: Run | None = None) -> Data:
    """The recipe's data set, prepared, and its split. run: the one that goes on, or is looked at again."""
    dataset, uses = locate(recipe), {}
    tell("data", dataset.notes, on_event)
    if recipe.init is not None and run is not None:
        dataset = with_validation_of_run(dataset, run.split, on_event)
    elif recipe.init is not None:
        uses = uses_of(checkpoint_file(recipe.init))
        dataset = held_out_unseen(dataset, uses, on_event)
    if recipe.runtime.out and not recipe.runtime.resume:
        refuse(out_faults(Path(recipe.runtime.out), dataset))
    split = resolve_split(recipe.split, dataset, recipe.runtime.lists)
    tell("split", split.notes, on_event)
    data = Data(prepare_manifest(dataset, on_event, threads=recipe.runtime.threads), split)
    tell("--init", taught_before(data.manifest, uses), on_event)
    tell("split", taught_copies(data), on_event)
    refuse(count_faults(data))
    tell("classes", unseen_classes(data), on_event)
    if note := padded_windows(data, recipe):
        on_event(Event("note", f"warning: --crop: {note}"))
    return data


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
    under any name. All stays where most of them are not there: it is other data."""
    dataset, wanted = manifest.dataset, set(split["pictures"].get("validation", ()))
    pictures = {sample: manifest.picture(sample) for sample in (*dataset.train, *dataset.val) if sample.mask}
    found = {sample: picture for sample, picture in pictures.items() if picture in wanted}
    if not found or 2 * len({*found.values()}) < len(wanted):
        return dataset
    named = {picture for sample, picture in found.items() if sample.id in split["val"]}
    ids = [s.id for s, picture in found.items() if s.id in split["val"] or picture not in named]
    return _with_held_out(dataset, ids, split["val"], on_event)


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
    """The data set, of whose validation images, where no list says which they are, none had labels in an earlier
    training, which used pictures as `uses_of` says: masks that came since move the choice, to images that its network
    was taught by. Those that it held out come in their place. Says so; all stays where nothing else is left."""
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


def taught_before(manifest: Manifest, uses: Mapping[str, str]) -> Iterator[str]:
    """A warning where validation images had labels in a training, by what their pictures were used for there."""
    val = manifest.dataset.val
    taught = [sample.id for sample in val if uses.get(manifest.picture(sample)) == "labels"]
    if taught:
        yield f"warning: {len(taught)} of {len(val)} images, {taught[0]} for one, were labelled in the training"


def taught_copies(data: Data) -> Iterator[str]:
    """A warning where a labelled picture is, byte for byte, one for validation under another name."""
    copies = data.manifest.survey.copies_of_validation(data.dataset)
    taught = [id for id in data.split.labeled if id in copies]
    if taught:
        which = f"{taught[0]} is {copies[taught[0]]}"
        yield (
            f"warning: {len(taught)} labelled images are, byte for byte, validation images, {which}: scores count what "
            "is taught; keep each in one of the two"
        )


def out_faults(out: Path, dataset: Dataset) -> Iterator[str]:
    """The fault of a run's folder that is one of the data's, where its pictures would be images or masks."""
    folder = out.expanduser().absolute()
    homes = {file.parent.absolute() for sample in dataset.samples for file in (sample.image, sample.mask) if file}
    if folder in homes:
        yield f"--out: {out} holds images or masks of the data; choose another folder"


def count_faults(data: Data) -> Iterator[str]:
    """What is wrong with masks of which no pixel counts: nothing is taught, or nothing judged."""
    yield from _uncounted(data.manifest, data.split.labeled, "--split", "labelled")
    yield from judged_faults(data.manifest)


def judged_faults(manifest: Manifest) -> Iterator[str]:
    """What is wrong with validation masks of which no pixel counts."""
    yield from _uncounted(manifest, [sample.id for sample in manifest.dataset.val], "--files.val-list", "validation")


def _uncounted(manifest: Manifest, ids: Sequence[str], flag: str, kind: str) -> Iterator[str]:
    if ids and not sum(manifest.counts(ids)):
        where = f"the {len(ids)} {kind} images"
        yield f"{flag}: no pixel of {where} has a class, all are ignored (255); see `semiseg doctor`"


def padded_windows(data: Data, recipe: Recipe) -> str:
    """What is to be said where most labelled images, seen at their own size, are smaller than the windows."""
    long_side = median(max(record.height, record.width) for record in data.labeled)
    if recipe.labeled.scale != "own" or long_side >= recipe.crop:
        return ""
    side = recipe.encoder.multiple if recipe.encoder.multiple > 1 else SIDE
    fits = max(int(long_side) // side, 1) * side
    return f"most labelled images are smaller than windows of {recipe.crop}, which are padded; use --crop {fits}"


def unseen_classes(data: Data) -> Iterator[str]:
    """A line for each class that cannot be learnt from the split, or cannot be judged by the validation set."""
    for ids, where, so in (
        (data.split.labeled, "labelled image of the split", "nothing teaches them"),
        (
            [record.id for record in data.val],
            "validation mask",
            "predicted anywhere they count as 0 in the mIoU",
        ),
    ):
        counts = data.manifest.counts(ids)
        unseen = [name for name, pixels in zip(data.dataset.classes, counts, strict=True) if not pixels]
        if unseen:
            yield f"in no {where}, {so}: {', '.join(unseen)}"
