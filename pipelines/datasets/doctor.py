"""A verdict on a data set before training: everything is decoded, nothing is written, every finding names its cure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UsageError
from ..progress import Progress, show_nothing
from .dataset import IGNORE, NO_CLASS, NO_VALUE, Dataset, Sample
from .facts import IMAGES, MASKS
from .inspection import Fault
from .layouts import find_dataset
from .splits import Split, resolve_split
from .survey import Survey, marked_by_ignore, survey_files
from .unlabeled import left_out

TINY = 64
"""Images with a side of fewer pixels are reported."""
SHOWN = 5
TITLES = {
    "palette": "indexed masks with palettes that disagree",
    "binary": "masks that mark the second class by 255",
    "size": "masks of another size than their image",
    "values": "masks with values outside the classes",
    "lossy": "masks saved with losses",
    "colours": "masks with several channels",
    "pages": "masks in files of several pages or frames",
    "depth": "images of more than 8 bits that do not use their range",
    "unreadable": "files that cannot be decoded",
    "large": "files of too many pixels",
}
"""What makes files useless, by kind, worst first: what would have been learnt wrong before what cannot be used."""

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    text: str
    cure: str = ""
    """What to do, where the text does not say so itself."""
    details: tuple[str, ...] = ()
    """The files or ids it is about, with what is wrong with each."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One class over the masks of the training pool: pixels, share of the pixels that count, images that show it."""

    name: str
    pixels: int
    share: float
    images: int
    val_images: int


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict. `counts` and `classes` are empty where no data set was found."""

    layout: str
    root: str
    findings: tuple[Finding, ...]
    counts: dict[str, int]
    classes: tuple[ClassCount, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether training can start: there is no error."""
        return all(finding.level != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> Iterator[str]:
        """The report as text; control characters of names are written as escapes."""
        for line in self._lines():
            yield "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)

    def _lines(self) -> Iterator[str]:
        yield f"{self.layout} data set in {self.root}"
        if self.counts:
            yield ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in self.counts.items())
        if self.classes:
            width = max(len(c.name) for c in self.classes)
            yield f"{'class':>{width + 4}}  share of pixels  training images  validation images"
            for value, c in enumerate(self.classes):
                yield f"{value:3d} {c.name:>{width}}  {c.share:15.3%}  {c.images:15d}  {c.val_images:17d}"
        for finding in self.findings:
            yield f"{finding.level:>7}: {finding.text}" + (f": {finding.cure}" if finding.cure else "")
            for detail in finding.details[:SHOWN]:
                yield f"{'':>9}{detail}"
            if len(finding.details) > SHOWN:
                yield f"{'':>9}and {len(finding.details) - SHOWN} more"
        yield "ready to train" if self.ok else "not ready: mend the errors above"


def diagnose(
    data: Dataset | Mapping[str, Any],
    *,
    split: str | None = None,
    lists: Path | None = None,
    threads: int = 0,
    on_progress: Progress = show_nothing,
) -> Report:
    """Examine a data set, given as found or as the arguments of `find_dataset`, and a split of it if one is named
    (`lists` as in `resolve_split`).

    Faults of the data become findings and are never raised.
    """
    if isinstance(data, Dataset):
        dataset = data
    else:
        try:
            dataset = find_dataset(**data)
        except (UsageError, OSError) as error:
            found = Finding("error", str(error))
            return Report(str(data.get("layout")), str(data.get("root")), (found,), {})
    survey = survey_files(dataset, threads=threads, on_progress=on_progress)
    train, val = (_Counts(part, survey) for part in (dataset.train, dataset.val))
    findings = [
        *_faults(survey),
        *_split_findings(dataset, split, lists, survey),
        *_pool(dataset, survey),
        *_labels(dataset, train, val),
        *_images(dataset, survey),
    ]
    order: tuple[Level, ...] = ("error", "warning", "ok")
    findings.sort(key=lambda finding: order.index(finding.level))
    masked = sum(sample.mask is not None for sample in dataset.train)
    labeled_pixels = int(train.pixels[: dataset.num_classes].sum())
    return Report(
        layout=dataset.layout,
        root=str(dataset.root),
        findings=tuple(findings),
        counts={
            "training_images": len(dataset.train),
            "with_masks": masked,
            "validation_images": len(dataset.val),
            "images_beside_the_pool": len(dataset.extra),
            "further_unlabeled_images": len(dataset.unlabeled),
            "classes": dataset.num_classes,
        },
        classes=tuple(
            ClassCount(
                name=name,
                pixels=int(train.pixels[value]),
                share=float(train.pixels[value] / max(1, labeled_pixels)),
                images=int(train.images[value]),
                val_images=int(val.images[value]),
            )
            for value, name in enumerate(dataset.classes)
        ),
    )


class _Counts:
    """Over the masks of some samples, and how many these are: by class index, (256,), pixels, and images that have
    any; and the ids of those that hold nothing but the label value 0."""

    def __init__(self, samples: tuple[Sample, ...], survey: Survey):
        self.pixels = survey.counts(samples)
        self.images = np.zeros(256, np.int64)
        self.masks = 0
        for _, _, facts in survey.masks(samples):
            if not facts.counts:  # it is in colour, and was refused
                continue
            values = [int(value) for value in facts.counts]
            self.masks += 1
            self.images[values] += 1
        self.empty = [
            sample.id for sample, _, facts in survey.masks(samples, label_values=True) if [*facts.counts] == ["0"]
        ]


def _faults(survey: Survey) -> Iterator[Finding]:
    groups: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in (*survey.faults, *survey.doubts):
        groups[fault.kind, fault.cure].append(fault)
    order = list(TITLES)
    for (kind, cure), faults in sorted(groups.items(), key=lambda group: order.index(group[0][0])):
        details = tuple(f"{fault.path} {fault.text}" for fault in faults)
        number = "" if kind in ("binary", "palette") else f"{len(faults)} "
        yield Finding("error", f"{number}{TITLES[kind]}", cure, details)


def _split_findings(dataset: Dataset, spec: str | None, lists: Path | None, survey: Survey) -> Iterator[Finding]:
    if spec is None:
        return
    try:
        split: Split = resolve_split(spec, dataset, lists)
    except UsageError as error:
        yield Finding("error", str(error))
        return
    counts = f"{len(split.labeled)} labelled, {len(split.unlabeled)} unlabelled images"
    yield Finding("ok", f"split {split.name}: {counts}, checksum {split.checksum}")
    if not split.unlabeled:
        cure = "label fewer of them or add images without masks"
        yield Finding("warning", f"split {split.name} leaves no unlabelled images", cure)
    chosen = set(split.labeled)
    labeled = [sample for sample in dataset.trainable if sample.id in chosen]
    if (marked := marked_by_ignore(labeled, survey)) and not marked_by_ignore(dataset.train, survey):
        text = f"the labelled masks of {split.name} hold nothing but 0 and 255, {marked} for one"
        yield Finding("error", text, "255 means ignore: write the index of the class where it marks objects")
    pixels = survey.counts(labeled)
    absent = tuple(name for name, count in zip(dataset.classes, pixels) if not count)
    if absent:
        text = f"{len(absent)} classes occur in none of the labelled images of {split.name}"
        yield Finding("warning", text, "draw with another seed, or label images that show them", absent)


def _pool(dataset: Dataset, survey: Survey) -> Iterator[Finding]:
    for note in (*dataset.notes, *left_out(dataset), *survey.notes):
        yield Finding("warning", note.removeprefix("warning: "))
    bare = [sample.id for sample in dataset.train if sample.mask is None]
    if len(bare) == len(dataset.train):
        cure = "training needs some: look at the folder of the masks and at their names"
        yield Finding("error", "no training image has a mask", cure)
    elif bare:
        yield Finding("ok", f"{len(bare)} training images have no mask: they can only be unlabelled")
    else:
        yield Finding("ok", "every training image has a mask: a split says which are used as labelled")
    if dataset.unlabeled:
        yield Finding("ok", f"{len(dataset.unlabeled)} images of --files.unlabeled, all unlabelled")
    remaps = Counter(sample.remap for sample in (*dataset.train, *dataset.val) if sample.remap)
    for remap, count in remaps.items():
        yield Finding("ok", f"{count} masks hold {remap.values}, {remap.reason}: they are mapped")


def _labels(dataset: Dataset, train: _Counts, val: _Counts) -> Iterator[Finding]:
    classes, ignoring = dataset.num_classes, "255" if NO_CLASS not in dataset.values.names else f"255 and {NO_CLASS}"
    never = [name for value, name in enumerate(dataset.classes) if not train.pixels[value]]
    if never and train.masks:
        cure = "check the class list and the masks; their IoU means nothing"
        yield Finding("warning", f"{len(never)} classes occur in no training mask", cure, tuple(never))
    unseen = [n for v, n in enumerate(dataset.classes) if train.pixels[v] and not val.pixels[v]]
    if unseen and val.masks:
        cure = "add validation images that show them; once predicted they count as 0 in the mIoU"
        yield Finding("warning", f"{len(unseen)} classes occur in no validation mask", cure, tuple(unseen))
    labeled, ignored = int(train.pixels[:classes].sum()), int(train.pixels[IGNORE])
    for part, seen in (("training", train), ("validation", val)):
        if (masks := seen.masks) and not seen.pixels[:classes].sum():
            text = f"no pixel of the {masks} {part} masks has a class, all are ignored ({ignoring})"
            yield Finding("error", text, f"check what {ignoring} means in them")
    if 0 < len(train.empty) < train.masks and (first := dataset.values.names[0]) != NO_VALUE:
        text = f"{len(train.empty)} of {train.masks} training masks hold nothing but {first}"
        cure = "delete those of images that nobody labelled: without a mask they are unlabelled"
        yield Finding("ok", text, cure, tuple(train.empty))
    if ignored > labeled > 0:
        share = ignored / max(1, labeled + ignored)
        text = f"{share:.0%} of the training pixels are ignored ({ignoring})"
        yield Finding("warning", text, "check that this is meant")


def _images(dataset: Dataset, survey: Survey) -> Iterator[Finding]:
    images = {s.id: facts for s in dataset.samples if (facts := survey.image(s))}
    if images:
        heights, widths = ([getattr(facts, side) for facts in images.values()] for side in ("height", "width"))
        wide, high = (" to ".join(map(str, sorted({min(sides), max(sides)}))) for sides in (widths, heights))
        yield Finding("ok", f"images are {wide} wide and {high} high")
    tiny = tuple(id for id, facts in images.items() if min(facts.height, facts.width) < TINY)
    if tiny:
        text = f"{len(tiny)} images have a side below {TINY} pixels"
        yield Finding("warning", text, "crops of them are mostly padding, leave them out", tiny)
    for what in (IMAGES, MASKS):
        copied = (path for (role, path), facts in survey.facts.items() if role == what and facts.copy)
        converted = [Path(path).suffix.lower() for path in copied]
        if converted:
            form = "8-bit RGB" if what == IMAGES else "8-bit gray class indices"
            kinds = ", ".join(sorted(set(converted)))
            text = f"{len(converted)} {what} will be converted to {form} in the cache when they are prepared ({kinds})"
            yield Finding("ok", text)
    leaks = tuple(f"{one} is {other}" for one, other in survey.copies_of_validation(dataset).items())
    if leaks:
        text = f"{len(leaks)} images are, byte for byte, also validation images under another name"
        yield Finding("warning", text, "keep each in one of the two", leaks)
