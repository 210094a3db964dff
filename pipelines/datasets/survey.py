"""What the files of a data set hold: each is decoded once, as a picture or as a mask, and what decoders read
differently is converted into the cache. Then masks are judged beside their pictures and beside each other."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from PIL import Image

from ..cache import write_atomically
from ..cores import cores
from ..decode import LARGE, UPRIGHT, Reading, Refusal, decode_picture, refusal
from ..documents import opened
from ..errors import UsageError
from ..watch import hash_of, stamp_of
from .dataset import IGNORE, Colour, Dataset, Remap, Sample
from .facts import IMAGES, MASKS, RECOLOURED, Copy, Facts, Key
from .masks import BLACK, WHITE, Indexed, against_classes, by_colour, clash, decode_mask, inverted, of_no_class

LONGEST_NAME = 200
"""Bytes of a file's name to which an end may be added: file systems take 255."""


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
    """Files with an orientation that are not turned."""
    as_stored: bool = False
    """Whether no picture is turned, so that others of this kind should not be."""
    notes: list[str] = field(default_factory=list)
    doubts: list[Fault] = field(default_factory=list)
    """Faults of no single file: every one can be looked at, but what they mean together somebody has to say."""

    def image(self, sample: Sample) -> Facts | None:
        """Of a sample's picture."""
        return self.facts.get((IMAGES, str(sample.image)))

    def mask(self, sample: Sample) -> Facts | None:
        """Of a sample's mask, read by colour where masks are."""
        path = str(sample.mask)
        return self.facts.get((RECOLOURED, path)) or self.facts.get((MASKS, path))

    def used(self, path: Path, facts: Facts) -> tuple[Copy | None, tuple[int, int]]:
        """What is used of a file: the converted one, None for itself, and its height and width."""
        as_stored = str(path) in self.stored
        return facts.used(as_stored), facts.size(as_stored)

    def counts(self, samples: Iterable[Sample]) -> np.ndarray:
        """Pixels of each label value, (256,) int64, over the masks of the samples."""
        counts: Counter[str] = Counter()
        for sample in samples:
            if sample.mask and (known := self.mask(sample)):
                for value, pixels in known.counts.items():
                    counts[value] += pixels
        return np.array([counts[str(value)] for value in range(256)], np.int64)


@dataclass(frozen=True, slots=True)
class _Task:
    role: str
    path: Path
    inspect: Callable[..., Facts]
    """Of the file's stamp and hash, its bytes, the cache folder and how files are read."""
    mapping: str | None = None

    @property
    def key(self) -> Key:
        return self.role, str(self.path)


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
    _decode(survey, _tasks(dataset), dataset.reading, known or {}, folder, workers, on_progress)
    again = _palettes(survey, dataset) + _coloured(survey, dataset)
    _decode(survey, again, dataset.reading, known or {}, folder, workers, on_progress)
    _turn(survey, dataset)
    survey.notes += _pages(survey)
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
    reading: Reading,
    known: dict[Key, Facts],
    folder: Path | None,
    workers: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    def vouched(task: _Task) -> Facts | None:
        """What is known of the file, if the cache has the copies that belong to it."""
        old = known.get(task.key)
        if old is None or old.mapping != task.mapping or reading.is_large(old.width, old.height):
            return None
        return old if folder is None or all(copy.lies_in(folder) for copy in old.copies) else None

    pending: list[_Task] = []
    for task in tasks:
        try:
            stat = os.stat(task.path)
        except OSError as error:
            text = f"cannot be read ({error.strerror})"
            survey.faults.append(Fault("unreadable", task.path, text, "restore the file"))
            continue
        old = vouched(task)
        if old and old.stamp == stamp_of(stat):
            survey.facts[task.key] = old
        else:
            pending.append(task)

    alone = Lock()

    def attempt(task: _Task) -> Facts | Fault:
        try:
            facts, data = _read(task.path)
            old = vouched(task)
            if old and old.hash == facts.hash:  # another date or owner changes no pixel
                return replace(old, stamp=facts.stamp)
            try:
                return task.inspect(facts, data, folder, reading=reading.at_most(LARGE))
            except Refusal as why:
                if why.kind != "large":
                    raise
            with alone:  # several of these at a time would not fit into the memory
                return task.inspect(facts, data, folder, reading=reading)
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
                survey.facts[task.key] = result
            if on_progress:
                on_progress(done, len(pending))
    survey.fresh += len(pending)


def _read(path: Path) -> tuple[Facts, bytes]:
    with opened(path) as file:
        stat = os.fstat(file.fileno())
        data = file.read()
    return Facts(stamp_of(stat), hash_of(data)), data


def _inspect_image(facts: Facts, data: bytes, folder: Path | None, *, id: str, reading: Reading) -> Facts:
    """Decode an image. What all decoders read alike stays: upright 8-bit RGB in JPEG or PNG. The rest becomes an RGB
    PNG."""
    picture = decode_picture(data, reading)
    facts.height, facts.width = picture.pixels.shape[:2]
    facts.orientation, facts.first = picture.orientation, picture.first
    _convert(facts, folder, f"{IMAGES}/{id}", picture.pixels, None if picture.plain else picture.stored)
    return facts


def _inspect_mask(
    facts: Facts, data: bytes, folder: Path | None, *, id: str, remap: Remap | None, reading: Reading
) -> Facts:
    """Decode a mask to class indices. An 8-bit gray PNG stays; palettes, other depths and other values become one. Of
    one in colour without a `remap`, the size and the colours are all that is known."""
    mask = decode_mask(data, reading)
    values, stored = mask.values, None if mask.plain else mask.stored
    facts.height, facts.width = values.shape
    facts.orientation = mask.orientation
    if mask.palette and not remap:
        used = [value for value in np.unique(values).tolist() if value < len(mask.palette)]
        facts.colours = {str(value): bytes(mask.palette[value]).hex() for value in used}
        facts.palette = hash_of(bytes(sum(mask.palette, ())))
        facts.bits, facts.coloured = mask.bits, mask.coloured
        if mask.coloured:
            return facts
    if remap:
        largest = int(values[values != IGNORE].max(initial=0))
        if largest > remap.largest:
            text = f"has the value {largest} but {remap.values} end at {remap.largest}"
            raise Refusal("values", text, remap.cure)
        table = np.frombuffer(remap.table, np.uint8)
        values, stored = table[values], table[mask.stored]
    _convert(facts, folder, f"{remap.name if remap else MASKS}/{id}", values, stored)
    pixels = np.bincount(values.ravel(), minlength=256)
    facts.counts = {str(value): int(pixels[value]) for value in np.flatnonzero(pixels)}
    return facts


def _convert(facts: Facts, folder: Path | None, name: str, upright: np.ndarray, stored: np.ndarray | None) -> None:
    """Copies of a file that is turned, or that decoders read differently, as it is upright and as it is stored; no
    `stored` where the file itself will do for that."""
    turned = facts.orientation != UPRIGHT
    if turned or stored is not None:
        facts.copy = _write_png(folder, _copy_of(name, f"{facts.hash}.png"), upright)
    if turned and stored is not None:
        facts.stored = _write_png(folder, _copy_of(name, f"{facts.hash}-stored.png"), stored)


def _copy_of(path: str, end: str) -> str:
    """The name of a converted file; names too long for file systems with an end become their checksum."""
    place, _, name = path.rpartition("/")
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return f"{place}/{name}-{end}"


def _write_png(folder: Path | None, name: str, pixels: np.ndarray) -> Copy:
    encoded = BytesIO()
    if folder:
        Image.fromarray(pixels).save(encoded, "PNG", compress_level=1)
        write_atomically(folder / name, lambda file: file.write(encoded.getbuffer()))
    return Copy(name, encoded.tell(), hash_of(encoded.getbuffer()))


def _palettes(survey: Survey, dataset: Dataset) -> list[_Task]:
    """Indexed masks that have to be read by colour, because their palettes contradict each other, or the colours that
    the class list states. A doubt where a colour is no class's."""
    found = _with_colours(survey, dataset, coloured=False)
    masks = {path: _indexed(sample.mask, facts) for path, (sample, facts) in found.items()}
    chosen = {c for path, (_, facts) in found.items() if not facts.bits for c in masks[path].colours.values()}
    if not chosen <= {BLACK, WHITE}:  # the colours of single bits say something beside black and white alone
        masks = {path: mask for path, mask in masks.items() if not found[path][1].bits}
    against = clash(masks.values())
    if against:
        mask, other, how = against
        text = how.format(other.path)
    elif wrong := against_classes(masks.values(), dataset):
        mask, text = wrong
    else:
        survey.notes += inverted(masks.values(), dataset)
        return []
    remaps = {path: by_colour(mask, dataset.palette) for path, mask in masks.items()}
    if strange := next((path for path, remap in remaps.items() if not isinstance(remap, Remap)), None):
        cure = "save all masks with one palette, or give each class its colour in classes.txt (tab, #rrggbb"
        survey.doubts.append(Fault("palette", mask.path, text, f"{cure}): {strange} shows one that no class has"))
        return []
    survey.notes.append(
        f"{mask.path} {text}: palettes disagree, so all {len(masks)} indexed masks are read by their colours"
    )
    return [_recolouring(found[path][0], remap) for path, remap in remaps.items()]


def _coloured(survey: Survey, dataset: Dataset) -> list[_Task]:
    """Masks in colour, which the colours of the class list say how to read. A fault where one is no class's."""
    tasks = []
    for sample, facts in _with_colours(survey, dataset, coloured=True).values():
        mask = _indexed(sample.mask, facts)
        remap = by_colour(mask, dataset.stated)
        if isinstance(remap, Remap):
            tasks.append(_recolouring(sample, remap))
            continue
        survey.faults.append(Fault("colours", sample.mask, *of_no_class(mask, remap)))
    if tasks:
        survey.notes.append(
            f"{len(tasks)} masks are in colour, {tasks[0].path} for one: read by the colours of the class list"
        )
    return tasks


def _with_colours(survey: Survey, dataset: Dataset, *, coloured: bool) -> dict[str, tuple[Sample, Facts]]:
    """The indexed masks, or those in colour, by path."""
    masked = ((sample, survey.mask(sample)) for sample in _samples(dataset) if sample.mask)
    return {str(s.mask): (s, facts) for s, facts in masked if facts and facts.palette and facts.coloured == coloured}


def _recolouring(sample: Sample, remap: Remap) -> _Task:
    return _Task(RECOLOURED, sample.mask, partial(_inspect_mask, id=sample.id, remap=remap), remap.name)


def _indexed(path: Path, facts: Facts) -> Indexed:
    colours: dict[int, Colour] = {int(value): tuple(bytes.fromhex(text)) for value, text in facts.colours.items()}
    colours.pop(IGNORE, None)
    return Indexed(path, colours, facts.palette or "")


def _turn(survey: Survey, dataset: Dataset) -> None:
    """Which files with an orientation are used as they are stored: all if the user says so, else pictures whose masks
    fit nothing else, and where no mask says otherwise, all pictures: whatever drew the masks did not turn them. The
    others are turned upright, as viewers show them."""
    files = {key: facts for key, facts in survey.facts.items() if facts.orientation != UPRIGHT}
    tagged = [sample for sample in _samples(dataset) if (IMAGES, str(sample.image)) in files]
    if dataset.reading.orientation == "ignore":
        survey.stored = {path for _, path in files}
        survey.as_stored = True
        if tagged:
            note = "all are used as they are stored (--files.orientation ignore)"
            survey.notes.append(f"{_tags(tagged)}; {note}")
        return
    if not tagged:
        return
    upright, stored, unsaid = [], [], []
    for sample in tagged:
        fit = _fit(survey.image(sample), survey.mask(sample) if sample.mask else None)
        {"upright": upright, "stored": stored, None: unsaid}[fit].append(sample)
    survey.as_stored = bool(stored) and not upright
    survey.stored = {str(sample.image) for sample in (*stored, *(unsaid if survey.as_stored else ()))}
    survey.notes.append(f"{_tags(tagged)}; {_turns(upright, stored, unsaid)}")


def _fit(image: Facts, mask: Facts | None) -> Literal["upright", "stored"] | None:
    """How a mask fits its picture; None where it does in both ways, or in neither."""
    if mask is None:
        return None
    upright, stored = (mask.size(False) == image.size(as_stored) for as_stored in (False, True))
    if upright and mask.orientation != UPRIGHT:  # with a tag of its own, by which it is turned as its picture is
        return "upright"
    return None if upright == stored else "stored" if stored else "upright"


def _turns(upright: list[Sample], stored: list[Sample], unsaid: list[Sample]) -> str:
    """What is done with pictures that carry an orientation, in words: those that masks fit upright, those that masks
    fit as they are stored, and those that no mask says it of."""
    masked = [sample.mask for sample in unsaid if sample.mask]
    either = f"{len(masked)} masks would fit either way, {masked[0]} for one" if masked else ""
    cure = "--files.orientation ignore: no picture is turned, in prediction neither"
    if not stored:
        turned = f"{len(upright) + len(unsaid)} are turned upright, as viewers show them"
        return f"{turned}{either and f', though {either}'} ({cure})"
    because = f"{len(stored)} are used as they are stored, because masks fit them so, {stored[0].mask} for one"
    if not upright:
        rest = f", and {len(unsaid)} more, because no mask says otherwise" if unsaid else ""
        return f"{because}{rest}, and prediction uses others so (--files.orientation upright there turns them)"
    turned = f"{len(upright) + len(unsaid)} are turned upright, because masks fit them so, {upright[0].mask} for one"
    doubt = f"; masks disagree and {either}: look at these with `semiseg show`" if masked else ""
    return f"{because}; {turned}{doubt} ({cure})"


def _tags(tagged: list[Sample]) -> str:
    return f"{len(tagged)} images carry an EXIF orientation, {tagged[0].image} for one"


def _pages(survey: Survey) -> Iterator[str]:
    several = [path for (_, path), facts in survey.facts.items() if facts.first]
    if several:
        yield f"{len(several)} images hold several pages or frames, {several[0]} for one: the first of each is used"


def _check_pairs(dataset: Dataset, survey: Survey) -> Iterator[Fault]:
    """Faults seen only beside another file: sizes, values outside the class list, objects marked by 255."""
    classes = dataset.num_classes
    for sample in _samples(dataset):
        mask = survey.mask(sample) if sample.mask else None
        if mask is None:
            continue
        image, (_, own) = survey.image(sample), survey.used(sample.mask, mask)
        size = image and survey.used(sample.image, image)[1]
        if size and size != own:
            text = f"is {own[1]}x{own[0]} but its image {sample.image} is {size[1]}x{size[0]}"
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
