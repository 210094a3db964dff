"""The data of a run: found, prepared and split."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from ..pipelines.cache import cache_root
from ..pipelines.datasets import find_dataset, prepare, resolve_split
from ..pipelines.datasets.dataset import Dataset
from ..pipelines.datasets.layouts import LAYOUTS
from ..pipelines.datasets.manifest import Manifest, Record
from ..pipelines.datasets.pack import Pack, open_pack
from ..pipelines.datasets.splits import Split
from ..pipelines.datasets.survey import marked_by_ignore
from ..pipelines.datasets.unlabeled import left_out
from ..pipelines.errors import UsageError, raise_faults
from ..pipelines.views import Augmentation
from .checkpoint import checkpoint_file
from .events import Event, Listener, note, notes_to, progress_of, silent, tell
from .held_out import held_out_unseen, with_validation_of_run
from .recipe import Recipe
from .run import Run, uses_of

SIDE = 32
"""Pixels; crops are best multiples of it."""
FEW = 10
"""Validation images from which on nothing is said of their number."""
SHRUNK = 2
"""So many times smaller images are seen from which on it is told."""


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
            note(f"preparing: {where}", on_event)
            announced = True
        on_event(Event("progress", "preparing", done, total))

    manifest = prepare(dataset, threads=threads, verify=verify, on_progress=show)
    raise_faults(manifest.doubts)
    tell("data", manifest.notes, on_event)
    return manifest


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
    tell("data", (*dataset.notes, *left_out(dataset)), on_event)
    if recipe.init is not None and run is not None:
        dataset = with_validation_of_run(dataset, run.split, on_event)
    elif recipe.init is not None:
        uses = uses_of(checkpoint_file(recipe.init))
        tell("--init", unknown_uses(checkpoint_file(recipe.init), dataset), on_event)
        dataset = held_out_unseen(dataset, uses, on_event)
    if recipe.runtime.out and not recipe.runtime.resume:
        raise_faults(out_faults(Path(recipe.runtime.out), dataset))
    split = resolve_split(recipe.split, dataset, recipe.runtime.lists)
    tell("split", split.notes, on_event)
    data = Data(prepare_manifest(dataset, on_event, threads=recipe.runtime.threads), split)
    tell("--init", taught_before(data.manifest, uses), on_event)
    tell("split", taught_copies(data), on_event)
    tell("data", few_judged(data), on_event)
    raise_faults(count_faults(data))
    tell("classes", unseen_classes(data), on_event)
    tell("--crop", sizes_seen(data, recipe), on_event)
    return data


def taught_before(manifest: Manifest, uses: Mapping[str, str]) -> Iterator[str]:
    """A warning where validation images had labels in a training, by what their pictures were used for there."""
    val = manifest.dataset.val
    taught = [sample.id for sample in val if uses.get(manifest.picture(sample)) == "labels"]
    if taught:
        yield f"warning: {len(taught)} of {len(val)} images, {taught[0]} for one, were labelled in the training"


def unknown_uses(checkpoint: Path, dataset: Dataset) -> Iterator[str]:
    """A warning where validation images are chosen here and nobody knows which ones taught a checkpoint."""
    if dataset.held_out and not uses_of(checkpoint):
        yield (
            f"warning: which images taught {checkpoint} is not known, as it lies outside of its run, or split.json "
            "there is damaged: validation images may be among them; pass the run, a list by --files.val-list, or, to "
            "judge all that have masks, --part all"
        )


def few_judged(data: Data) -> Iterator[str]:
    """A warning where few images, which nobody chose, are for validation."""
    if data.dataset.held_out and len(data.val) < FEW:
        yield (
            f"warning: scores are of {len(data.val)} images alone, and move by points with any of them: add masks, or "
            "list more for validation in val.txt"
        )


def taught_copies(data: Data) -> Iterator[str]:
    """Warnings where a labelled picture is, byte for byte, one for validation under another name, or an unlabelled one
    is."""
    copies = data.manifest.survey.copies_of_validation(data.dataset)
    for kind, ids, so in (
        ("labelled", data.split.labeled, "scores count what is taught; keep each in one of the two"),
        ("unlabelled", data.split.unlabeled, "methods that learn from unlabelled images see them, without masks"),
    ):
        if taught := [id for id in ids if id in copies]:
            which = f"{taught[0]} is {copies[taught[0]]}"
            yield f"warning: {len(taught)} {kind} images are, byte for byte, validation images, {which}: {so}"


def out_faults(out: Path, dataset: Dataset) -> Iterator[str]:
    """The fault of a run's folder that is one of the data's, where its pictures would be images or masks."""
    folder = out.expanduser().absolute()
    homes = {file.parent.absolute() for sample in dataset.samples for file in (sample.image, sample.mask) if file}
    if folder in homes:
        yield f"--out: {out} holds images or masks of the data; choose another folder"


def count_faults(data: Data) -> Iterator[str]:
    """Faults if no labelled (or no validation) pixel has a class, or if the labelled masks hold only 0 and 255."""
    yield from _uncounted(data.manifest, data.split.labeled, "--split", "labelled")
    chosen = set(data.split.labeled)
    labeled = [sample for sample in data.dataset.trainable if sample.id in chosen]
    if marked := marked_by_ignore(labeled, data.manifest.survey):
        yield (
            f"--split: the labelled masks hold nothing but 0 and 255, {marked} for one, and 255 means ignore: write "
            "the index of the class where it marks objects, or choose another --split where it does not"
        )
    yield from judged_faults(data.manifest)


def judged_faults(manifest: Manifest) -> Iterator[str]:
    """What is wrong with validation masks of which no pixel counts."""
    yield from _uncounted(manifest, [sample.id for sample in manifest.dataset.val], "--files.val-list", "validation")


def _uncounted(manifest: Manifest, ids: Sequence[str], flag: str, kind: str) -> Iterator[str]:
    if ids and not sum(manifest.counts(ids)):
        where = f"the {len(ids)} {kind} images"
        yield f"{flag}: no pixel of {where} has a class, all are ignored (255); see `semiseg doctor`"


def sizes_seen(data: Data, recipe: Recipe) -> Iterator[str]:
    """A warning where most labelled images, seen at their own size, are smaller than the windows, or so large that they
    are seen much smaller than they are; and one where others are seen much smaller than these."""
    if recipe.labeled.scale != "own":
        return
    long_side = median(max(record.height, record.width) for record in data.labeled)
    most = round(recipe.labeled.longest * recipe.crop) if recipe.labeled.longest else math.inf
    if long_side >= SHRUNK * most:
        yield (
            f"warning: most labelled images have a long side of {long_side:.0f} pixels and are seen with one of "
            f"{most}, {long_side / most:.0f} times smaller; cut images and masks into tiles, or pass --crop "
            f"{2 * recipe.crop}, or larger --labeled.longest, --unlabeled.longest and --evaluation.longest"
        )
    elif long_side < recipe.crop:
        side = recipe.encoder.multiple if recipe.encoder.multiple > 1 else SIDE
        fits = max(int(long_side) // side, 1) * side
        small = f"most labelled images are smaller than windows of {recipe.crop}, which are padded"
        yield f"warning: {small}; use --crop {fits}"
    shrunk = _times_smaller(data.labeled, recipe.labeled, recipe.crop)
    usual = median(shrunk.values())
    if recipe.views.windows:
        shrunk |= _times_smaller(data.unlabeled, recipe.unlabeled, recipe.crop)
    shrunk |= {record.id: 1 / max(recipe.protocol().scales_of(*record.size)) for record in data.val}
    if odd := [id for id, times in shrunk.items() if times >= SHRUNK * usual]:
        worst = max(odd, key=lambda id: shrunk[id])
        yield (
            f"warning: {len(odd)} of {len(shrunk)} images are seen much smaller than they are, {worst} "
            f"{shrunk[worst]:.0f} times, where it is {usual:.0f} of most labelled ones: what they show looks "
            "otherwise; cut them into tiles"
        )


def _times_smaller(records: Iterable[Record], augmentation: Augmentation, crop: int) -> dict[str, float]:
    """How many times smaller than they are images are seen on average, by id; nothing where their size does not tell
    it."""
    if augmentation.scale != "own":
        return {}
    longest = augmentation.longest * crop if augmentation.longest else math.inf
    return {record.id: max(max(record.size) / longest, 1) for record in records}


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
