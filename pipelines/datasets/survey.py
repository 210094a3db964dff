"""What the files of a data set hold: each is decoded once, as a picture or as a mask, and what decoders read
differently is converted into the cache. Then masks are judged beside their pictures and beside each other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..cache import write_atomically
from ..cores import cores
from ..decode import UPRIGHT, Refusal, decode_picture, refusal
from ..errors import UsageError
from .dataset import IGNORE, Colour, Dataset, Remap, Sample
from .files import voc_colours
from .masks import BLACK, WHITE, Indexed, against_classes, by_colour, clash, decode_mask, inverted

IMAGES, MASKS, RECOLOURED = "images", "masks", "recoloured"
"""What a file was decoded as. Converted files lie in folders of these names, but for masks whose values were mapped:
theirs is named by the `Remap`."""
LONGEST_NAME = 200
"""Bytes of a file's name to which an end may be added: file systems take 255."""
Key = tuple[str, str]
"""What a file was decoded as, and its path: the same file may be a picture and a mask."""


@dataclass(slots=True)
class Facts:
    """What decoding one file told."""

    size: int
    mtime_ns: int
    ctime_ns: int
    """Tells a file that was changed and given its old time again."""
    hash: str
    """blake2b of the file, 16 hex digits."""
    height: int = 0
    width: int = 0
    """Upright."""
    copy: str | None = None
    """The converted file, relative to the cache folder. Its name has the hash of what it was made from, so that it is
    never taken for the copy of another file."""
    stored: str | None = None
    """Of a turned picture that is not plain: the copy of it as it is stored."""
    orientation: int = UPRIGHT
    """The tag of a picture."""
    counts: dict[str, int] = field(default_factory=dict)
    """Of a mask: the pixels of each class index."""
    colours: dict[str, str] = field(default_factory=dict)
    """Of an indexed mask: the colour of each index that it uses, as hex digits."""
    palette: str | None = None
    """A name for the palette of an indexed mask."""
    bits: bool = False
    """Whether the mask has a single bit, whose colours nobody chose."""

    @property
    def mapping(self) -> str | None:
        """The name of the `Remap` that a mask's values went through."""
        folder = (self.copy or MASKS).partition("/")[0]
        return None if folder in (IMAGES, MASKS) else folder

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of a picture before it is turned."""
        size = self.height, self.width
        return size[::-1] if self.orientation > 4 else size


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that makes a file useless for training. `kind` groups like faults."""

    kind: str
    path: Path
    text: str
    cure: str

    def __str__(self) -> str:
        return f"{self.path} {self.text}: {self.cure}"


@dataclass(slots=True)
class Survey:
    """The facts of all files of a data set, every fault, and what was decided. `fresh` counts the files decoded."""

    facts: dict[Key, Facts]
    faults: list[Fault]
    fresh: int
    stored: set[str] = field(default_factory=set)
    """Pictures with an orientation that are not turned."""
    notes: list[str] = field(default_factory=list)

    def image(self, sample: Sample) -> Facts | None:
        """Of a sample's picture."""
        return self.facts.get((IMAGES, str(sample.image)))

    def mask(self, sample: Sample) -> Facts | None:
        """Of a sample's mask, read by colour where masks are."""
        path = str(sample.mask)
        return self.facts.get((RECOLOURED, path)) or self.facts.get((MASKS, path))

    def size(self, sample: Sample) -> tuple[int, int] | None:
        """Height and width of a sample's picture, as it is used."""
        facts = self.image(sample)
        if facts is None:
            return None
        return facts.stored_size if str(sample.image) in self.stored else (facts.height, facts.width)

    def counts(self, samples: Iterable[Sample]) -> np.ndarray:
        """Pixels of each label value, (256,) int64, over the masks of the samples."""
        counts = np.zeros(256, np.int64)
        for sample in samples:
            if sample.mask and (known := self.mask(sample)):
                for value, pixels in known.counts.items():
                    counts[int(value)] += pixels
        return counts


@dataclass(frozen=True, slots=True)
class _Task:
    role: str
    path: Path
    inspect: Callable[[Path, Path | None], Facts]
    mapping: str | None = None


def survey_files(
    dataset: Dataset,
    *,
    known: dict[Key, Facts] | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Decode every file of a data set that `known` does not vouch for. Converted copies are written below `folder`;
    without one nothing is written."""
    survey = Survey({}, [], 0)
    _decode(survey, _tasks(dataset), known or {}, folder, workers, on_progress)
    again = _palettes(survey, dataset)
    _decode(survey, again, known or {}, folder, workers, on_progress)
    _turn(survey, dataset)
    survey.faults += _check_pairs(dataset, survey)
    survey.notes += _void_objects(dataset, survey)
    return survey


def _samples(dataset: Dataset) -> tuple[Sample, ...]:
    return (*dataset.train, *dataset.val, *dataset.extra)


def _tasks(dataset: Dataset) -> Iterator[_Task]:
    for sample in _samples(dataset):
        yield _Task(IMAGES, sample.image, partial(_inspect_image, id=sample.id))
        if sample.mask:
            inspect = partial(_inspect_mask, id=sample.id, remap=sample.remap)
            yield _Task(MASKS, sample.mask, inspect, sample.remap and sample.remap.name)


def _decode(
    survey: Survey,
    tasks: Iterable[_Task],
    known: dict[Key, Facts],
    folder: Path | None,
    workers: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    pending: list[_Task] = []
    for task in tasks:
        try:
            stat = os.stat(task.path)
        except OSError as error:
            text = f"cannot be read ({error.strerror})"
            survey.faults.append(Fault("unreadable", task.path, text, "restore the file"))
            continue
        old = known.get((task.role, str(task.path)))
        if (
            old
            and (old.size, old.mtime_ns, old.ctime_ns) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            and all(folder is None or os.path.exists(folder / copy) for copy in (old.copy, old.stored) if copy)
            and old.mapping == task.mapping
        ):
            survey.facts[task.role, str(task.path)] = old
        else:
            pending.append(task)

    def attempt(task: _Task) -> Facts | Fault:
        try:
            return task.inspect(task.path, folder)
        except UsageError:  # of the cache
            raise
        except Exception as error:
            why = refusal(error)
            return Fault(why.kind, task.path, why.text, why.cure)

    with ThreadPoolExecutor(workers or cores()) as threads:
        for done, (task, result) in enumerate(zip(pending, threads.map(attempt, pending)), 1):
            if isinstance(result, Fault):
                survey.faults.append(result)
            else:
                survey.facts[task.role, str(task.path)] = result
            if on_progress:
                on_progress(done, len(pending))
    survey.fresh += len(pending)


def _read(path: Path) -> tuple[Facts, bytes]:
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        data = file.read()
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return Facts(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, digest), data


def _inspect_image(path: Path, folder: Path | None, *, id: str) -> Facts:
    """Decode an image. What all decoders read alike stays: upright 8-bit RGB in JPEG or PNG. The rest becomes an RGB
    PNG."""
    facts, data = _read(path)
    picture = decode_picture(data)
    facts.height, facts.width = picture.pixels.shape[:2]
    facts.orientation = picture.orientation
    if picture.orientation != UPRIGHT or not picture.plain:
        facts.copy = _copy_of(id, IMAGES, f"{facts.hash}.png")
        _write_png(folder, facts.copy, picture.pixels)
    if picture.orientation != UPRIGHT and not picture.plain:
        facts.stored = _copy_of(id, IMAGES, f"{facts.hash}-stored.png")
        _write_png(folder, facts.stored, picture.stored)
    return facts


def _inspect_mask(path: Path, folder: Path | None, *, id: str, remap: Remap | None) -> Facts:
    """Decode a mask to class indices. An 8-bit gray PNG stays; palettes, other depths and other values become one."""
    facts, data = _read(path)
    mask = decode_mask(data)
    values, plain = mask.values, mask.plain
    facts.height, facts.width = values.shape
    if mask.palette and not remap:
        used = [value for value in np.unique(values).tolist() if value < len(mask.palette)]
        facts.colours = {str(value): bytes(mask.palette[value]).hex() for value in used}
        facts.palette = hashlib.blake2b(bytes(sum(mask.palette, ())), digest_size=8).hexdigest()
        facts.bits = mask.bits
    if remap:
        largest = int(values[values != IGNORE].max(initial=0))
        if largest > remap.largest:
            text = f"has the value {largest} but {remap.values} end at {remap.largest}"
            raise Refusal("values", text, remap.cure)
        values, plain = np.frombuffer(remap.table, np.uint8)[values], False
    if not plain:
        facts.copy = _copy_of(id, remap.name if remap else MASKS, f"{facts.hash}.png")
        _write_png(folder, facts.copy, values)
    pixels = np.bincount(values.ravel(), minlength=256)
    facts.counts = {str(value): int(pixels[value]) for value in np.flatnonzero(pixels)}
    return facts


def _copy_of(id: str, folder: str, end: str) -> str:
    """The name of a converted file; names too long for file systems with an end become their checksum."""
    place, _, name = f"{folder}/{id}".rpartition("/")
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return f"{place}/{name}-{end}"


def _write_png(folder: Path | None, name: str, pixels: np.ndarray) -> None:
    if folder:
        image = Image.fromarray(pixels)
        write_atomically(folder / name, lambda file: image.save(file, "PNG", compress_level=1))


def _palettes(survey: Survey, dataset: Dataset) -> list[_Task]:
    """What has to be read by colour: indexed masks whose palettes contradict each other, or the colours that the class
    list states. A fault where a colour is no class's."""
    found = {str(s.mask): (s, facts) for s in _samples(dataset) if s.mask and (facts := survey.mask(s))}
    found = {path: (sample, facts) for path, (sample, facts) in found.items() if facts.palette}
    masks = {path: _indexed(sample.mask, facts) for path, (sample, facts) in found.items()}
    chosen = {c for path, (_, facts) in found.items() if not facts.bits for c in masks[path].colours.values()}
    if not chosen <= {BLACK, WHITE}:  # the colours of single bits say something beside black and white alone
        masks = {path: mask for path, mask in masks.items() if not found[path][1].bits}
    against = clash(masks.values())
    stated = dataset.palette != voc_colours(dataset.num_classes)
    if against:
        mask, other, how = against
        text = how.format(other.path)
    elif stated and (wrong := against_classes(masks.values(), dataset)):
        mask, text = wrong
    else:
        survey.notes += inverted(masks.values(), dataset)
        return []
    remaps = {path: by_colour(mask, dataset.palette) for path, mask in masks.items()}
    if strange := next((path for path, remap in remaps.items() if remap is None), None):
        cure = f"save all masks with one palette, or give each class its colour in classes.txt (tab, #rrggbb: {strange}"
        survey.faults.append(Fault("palette", mask.path, text, f"{cure} shows one that no class has)"))
        return []
    survey.notes.append(
        f"{mask.path} {text}: palettes disagree, so all {len(masks)} indexed masks are read by their colours"
    )
    return [
        _Task(RECOLOURED, mask.path, partial(_inspect_mask, id=found[path][0].id, remap=remap), remap.name)
        for path, mask in masks.items()
        if (remap := remaps[path])
    ]


def _indexed(path: Path, facts: Facts) -> Indexed:
    colours: dict[int, Colour] = {int(value): tuple(bytes.fromhex(text)) for value, text in facts.colours.items()}
    return Indexed(path, colours, facts.palette or "")


def _turn(survey: Survey, dataset: Dataset) -> None:
    """Whether pictures with an orientation are turned upright, as viewers show them, or used as they are stored: what
    their masks fit. Where these fit both, the other masks of the data set say it, and else they are turned."""
    tagged = [(s, facts) for s in _samples(dataset) if (facts := survey.image(s)) and facts.orientation != UPRIGHT]
    if not tagged:
        return
    upright, stored, both = [], [], []
    for sample, facts in tagged:
        mask = survey.mask(sample) if sample.mask else None
        size = mask and (mask.height, mask.width)
        fits = [size == one for one in ((facts.height, facts.width), facts.stored_size)]
        if mask and any(fits):
            (both if all(fits) else upright if fits[0] else stored).append(sample)
    as_stored = [*stored, *(both if stored and not upright else ())]
    survey.stored = {str(sample.image) for sample in as_stored}
    note = f"{len(tagged)} images carry an EXIF orientation, {tagged[0][0].image} for one"
    if turns := len(tagged) - len(as_stored):
        note += f"; {turns} are turned upright, as viewers show them"
    if as_stored:
        note += f"; {len(as_stored)} are used as they are stored, because masks fit them so"
    if both:
        note += f"; {len(both)} masks would fit either way: check that they are {'stored' if as_stored else 'upright'}"
    survey.notes.append(note)


def _check_pairs(dataset: Dataset, survey: Survey) -> Iterator[Fault]:
    """Faults seen only beside another file: sizes, values outside the class list, objects marked by 255."""
    classes = dataset.num_classes
    for sample in _samples(dataset):
        mask = survey.mask(sample) if sample.mask else None
        if mask is None:
            continue
        size, own = survey.size(sample), (mask.height, mask.width)
        if size and size != own:
            text = f"is {mask.width}x{mask.height} but its image {sample.image} is {size[1]}x{size[0]}"
            cure = "make them the same size, resizing masks by nearest neighbour"
            if size == own[::-1]:
                cure = "one of them lies on its side, so turn that one; resizing would put labels in wrong places"
            yield Fault("size", sample.mask, text, cure)
        wrong = sorted(value for value in map(int, mask.counts) if classes <= value != IGNORE)
        if wrong:
            listed = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
            text = f"has label values {listed} but the {classes} classes are 0 to {classes - 1} (255 ignored)"
            yield Fault("values", sample.mask, text, "correct the mask or the class list")
    for part, name in ((dataset.train, "training"), (dataset.val, "validation")):
        if sample := marked_by_ignore(part, survey):
            objects = dataset.classes[1] if classes == 2 else "objects"
            text = f"and the other {name} masks mark {objects} by 255, which means ignore, and never by 1"
            text += "" if classes == 2 else " or more"
            yield Fault("binary", sample.mask, text, "write 1 instead of 255 into the masks")


def marked_by_ignore(samples: Iterable[Sample], survey: Survey) -> Sample | None:
    """The first of these samples whose mask holds 255, where the masks show the class 0, 255 and nothing else."""
    samples = [sample for sample in samples if sample.mask]
    pixels = survey.counts(samples)
    if not (pixels[0] and pixels[IGNORE]) or pixels[1:IGNORE].any():
        return None
    return next(s for s in samples if (facts := survey.mask(s)) and str(IGNORE) in facts.counts)


def _void_objects(dataset: Dataset, survey: Survey) -> Iterator[str]:
    """Masks that may mark objects by 255 beside others that do not, or one class of several."""
    trained = survey.counts(dataset.train)
    for part, name in ((dataset.train, "training"), (dataset.val, "validation")):
        masked = [(s, facts) for s in part if s.mask and (facts := survey.mask(s))]
        if marked_by_ignore(part, survey):
            continue  # a fault already
        void = [sample for sample, facts in masked if str(IGNORE) in facts.counts]
        bare = [sample for sample, facts in masked if facts.counts.keys() == {"0", str(IGNORE)}]
        if bare:
            yield (
                f"{len(bare)} of {len(masked)} {name} masks hold nothing but 0 and 255, {bare[0].mask} for one: "
                "255 means ignore, so write the index of the class where it marks objects"
            )
            continue
        counts = survey.counts(part)
        absent = [of for value, of in enumerate(dataset.classes) if not counts[value]]
        # Validation masks are few, so a class may be missing there; 255 that training has not is another thing.
        if void and len(absent) == 1 and (part is dataset.train or not trained[IGNORE]):
            yield (
                f"{absent[0]} occurs in no {name} mask while {len(void)} of {len(masked)} hold 255, {void[0].mask} for "
                f"one: 255 means ignore, so write the index of {absent[0]} if it marks that"
            )
