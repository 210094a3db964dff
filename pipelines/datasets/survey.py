"""What the files of a data set are together: masks beside their pictures and beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ..decode import UPRIGHT
from ..errors import some_of
from ..progress import Progress, show_nothing
from ..watch import Mark
from .dataset import IGNORE, NO_CLASS, NO_VALUE, ClassList, Colour, Dataset, Remap, Sample, colour_of
from .facts import IMAGES, MASKS, MERGED, RECOLOURED, Copy, Facts, Key
from .inspection import Fault, Task, inspect_files, remapping, tasks_of
from .masks import (
    BLACK,
    WHITE,
    Indexed,
    against_classes,
    by_colour,
    clash,
    inverted,
    meanings,
    merging,
    of_no_class,
)

GRAYS = {(level, level, level): level for level in range(256)}
"""The values of masks whose channels are all alike, by colour."""
Mapped = tuple[Sample, Path, Remap]
"""The mask of a sample, and what its values become."""


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
    levels: tuple[int, ...] = ()
    """The gray level of each class, where masks hold these."""
    notes: list[str] = field(default_factory=list)
    doubts: list[Fault] = field(default_factory=list)
    """Faults of no single file: every one can be looked at, but what they mean together somebody has to say."""

    def image(self, sample: Sample) -> Facts | None:
        """The facts of a sample's picture."""
        return self.facts.get((IMAGES, str(sample.image)))

    def mask(self, sample: Sample, *, label_values: bool = False) -> Facts | None:
        """The facts of a sample's mask as it is trained with; label_values: as it is before label values of the
        class list become classes."""
        roles = (RECOLOURED, MASKS) if label_values else (MERGED, RECOLOURED, MASKS)
        keys = ((role, str(sample.mask)) for role in roles)
        return next((self.facts[key] for key in keys if key in self.facts), None)

    def masks(self, samples: Iterable[Sample], *, label_values: bool = False) -> Iterator[tuple[Sample, Path, Facts]]:
        """Those of the samples whose masks there are facts of, the path of each mask, and its facts as of `mask`."""
        for sample in samples:
            if sample.mask and (facts := self.mask(sample, label_values=label_values)):
                yield sample, sample.mask, facts

    def copies_of_validation(self, dataset: Dataset) -> dict[str, str]:
        """The ids of samples for training whose picture file is, byte for byte, one for validation, and the id of that.
        Samples beside the training pool, which lists may label, are among them."""
        validation = {facts.hash: sample.id for sample in dataset.val if (facts := self.image(sample))}
        return {
            sample.id: validation[facts.hash]
            for sample in dataset.trainable
            if (facts := self.image(sample)) and facts.hash in validation
        }

    def used(self, path: Path, facts: Facts) -> tuple[Copy | None, Mark]:
        """What is read of a file: the converted one, None for itself; and its mark."""
        as_stored = str(path) in self.stored
        return facts.used(as_stored), facts.mark(as_stored)

    def size(self, path: Path, facts: Facts) -> tuple[int, int]:
        """Height and width, as the file is used."""
        return facts.size(str(path) in self.stored)

    def counts(self, samples: Iterable[Sample], *, label_values: bool = False) -> np.ndarray:
        """Pixels of each class index (or label value) and IGNORE, (256,) int64, over the masks of the samples."""
        counts: Counter[str] = Counter()
        for _, _, facts in self.masks(samples, label_values=label_values):
            for value, pixels in facts.counts.items():
                counts[value] += pixels
        return np.array([counts[str(value)] for value in range(256)], np.int64)


def survey_files(
    dataset: Dataset,
    *,
    known: dict[Key, Facts] | None = None,
    folder: Path | None = None,
    threads: int = 0,
    on_progress: Progress = show_nothing,
) -> Survey:
    """Decode every file of a data set that `known` does not vouch for. Converted copies are written below `folder`;
    without one nothing is written."""
    survey = Survey({}, [], 0)

    def inspect(tasks: Iterable[Task]) -> None:
        facts, faults, fresh = inspect_files(tasks, dataset.reading, known or {}, folder, threads, on_progress)
        survey.facts |= facts
        survey.faults += faults
        survey.fresh += fresh

    inspect(task for sample in dataset.samples for task in tasks_of(sample))
    # All three before any is read again: each looks at the masks as they are stored.
    by_colours = [*_palettes(survey, dataset), *_coloured(survey, dataset), *_gray_levels(survey, dataset)]
    inspect(remapping(RECOLOURED, sample.id, path, remap) for sample, path, remap in by_colours)
    _turn(survey, dataset)
    survey.notes += _pages(survey)
    survey.faults += _check_pairs(dataset, survey)
    survey.notes += _void_objects(dataset, survey)
    survey.notes += _from_one(dataset, survey)
    inspect(remapping(MERGED, sample.id, path, remap) for sample, path, remap in _merged(survey, dataset, by_colours))
    return survey


def _merged(survey: Survey, dataset: Dataset, by_colours: Iterable[Mapped]) -> Iterator[Mapped]:
    """All masks, where label values are not class indices: several of one name are one class, or one is ignored."""
    table = dataset.values.table
    if (table == np.arange(256)).all():
        return
    coloured = {path: remap for _, path, remap in by_colours}
    masks = {path: (sample, facts) for sample, path, facts in survey.masks(dataset.samples)}  # of several images once
    for path, (sample, facts) in masks.items():
        if path in coloured or not facts.coloured:
            yield sample, path, merging(table, coloured.get(path))


def _palettes(survey: Survey, dataset: Dataset) -> list[Mapped]:
    """Indexed masks that have to be read by colour, because their palettes contradict each other, or the colours that
    the class list states. A doubt where a colour is no class's."""
    found = _with_colours(survey, dataset, coloured=False)
    masks = {path: _indexed(path, facts) for path, (_, facts) in found.items()}
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
    known = meanings(dataset.values, dataset.values.palette)
    remaps = {path: by_colour(mask, known) for path, mask in masks.items()}
    if strange := next((path for path, remap in remaps.items() if not isinstance(remap, Remap)), None):
        cure = "save all masks with one palette, or give each class its colour in classes.txt (tab, #rrggbb"
        survey.doubts.append(Fault("palette", mask.path, text, f"{cure}): {strange} shows one that no class has"))
        return []
    survey.notes.append(
        f"{mask.path} {text}: palettes disagree, so all {len(masks)} indexed masks are read by their colours"
    )
    return [(found[path][0], path, remap) for path, remap in remaps.items() if isinstance(remap, Remap)]


def _coloured(survey: Survey, dataset: Dataset) -> list[Mapped]:
    """Masks in colour, which the colours of the class list say how to read; one channel of them where all are gray and
    the class list has none of their levels. A fault where a colour is no class's."""
    found = [
        (sample, _indexed(path, facts))
        for path, (sample, facts) in _with_colours(survey, dataset, coloured=True).items()
    ]
    shown = {colour for _, mask in found for colour in mask.colours.values()}
    values = dataset.values
    stated = values.stated or values.palette  # the layout's own, where no class list is there
    gray = all(len(set(colour)) == 1 for colour in shown) and shown.isdisjoint({*stated, *values.void})
    gray = gray and shown != {BLACK}  # which may be the background of others in colour
    known = GRAYS if gray else meanings(values, stated)
    mapped: list[Mapped] = []
    for sample, mask in found:
        remap = by_colour(mask, known)
        if isinstance(remap, Remap):
            mapped.append((sample, mask.path, remap))
        else:
            survey.faults.append(Fault("colours", mask.path, *of_no_class(remap)))
    if mapped:
        how = "one channel of each, as all are alike" if gray else "the colours of the class list"
        survey.notes.append(f"{len(mapped)} masks are in colour, {mapped[0][1]} for one: read by {how}")
    return mapped


def _gray_levels(survey: Survey, dataset: Dataset) -> list[Mapped]:
    """Masks of gray levels that the class list states as the colours of its classes (#000000, #ffffff), and that are
    not the indices of these. A doubt where they may be either, and are not the same."""
    values = dataset.values
    known = [colour for colour in (*values.stated, *values.void) if colour and len(set(colour)) == 1]
    colours = {colour[0]: colour for colour in known}
    masks = [one for one in survey.masks(dataset.samples) if not one[0].remap and not one[2].palette]
    levels = {int(value) for _, _, facts in masks for value in facts.counts}
    if not levels or not values.stated or not all(values.stated[value] in known for value in values.given):
        return []
    by_level, by_index = levels <= {*colours, IGNORE}, levels <= {*values.given, IGNORE}
    path = masks[0][1]
    either = "and other gray masks hold what may be class indices, or the gray levels of classes in the class list"
    doubt = Fault("palette", path, either, "give the classes other colours there, or save all masks in these")
    if not by_level:
        survey.doubts += [doubt] if by_index and IGNORE in levels & colours.keys() else []
        return []
    shown = Indexed(path, {level: colours[level] for level in levels & colours.keys()}, "")
    remap = by_colour(shown, meanings(values, values.stated))
    if not isinstance(remap, Remap):
        text = f"holds gray levels, {some_of([colour[0] for colour in remap], 3)} among them that two classes have"
        survey.faults.append(Fault("colours", path, text, "give each class a colour of its own in the class list"))
        return []
    table = values.table
    if all(table[remap.table[level]] == table[level] for level in levels):
        return []
    marked = levels <= {0, IGNORE} and IGNORE in colours  # as indices they would show nothing
    if by_index and not marked:
        survey.doubts.append(doubt)
        return []
    stated = (values.stated[value] for value in values.of_classes)
    survey.levels = tuple(colour[0] for colour in stated if colour)
    survey.notes.append(f"{len(masks)} masks hold gray levels, {path} for one: read by the colours of the class list")
    return [(sample, path, remap) for sample, path, _ in masks]


def _with_colours(survey: Survey, dataset: Dataset, *, coloured: bool) -> dict[Path, tuple[Sample, Facts]]:
    """The indexed masks, or those in colour, by path."""
    masks = survey.masks(dataset.samples)
    return {path: (sample, facts) for sample, path, facts in masks if facts.palette and facts.coloured == coloured}


def _indexed(path: Path, facts: Facts) -> Indexed:
    colours: dict[int, Colour] = {int(value): colour_of(bytes.fromhex(text)) for value, text in facts.colours.items()}
    colours.pop(IGNORE, None)
    return Indexed(path, colours, facts.palette or "")


def _turn(survey: Survey, dataset: Dataset) -> None:
    """Which files with an orientation are used as they are stored: all if the user says so, else pictures whose masks
    fit nothing else, and where no mask says otherwise, all pictures: whatever drew the masks did not turn them. The
    others are turned upright, as viewers show them."""
    files = {key: facts for key, facts in survey.facts.items() if facts.orientation != UPRIGHT}
    tagged = [sample for sample in dataset.samples if (IMAGES, str(sample.image)) in files]
    if dataset.reading.orientation == "ignore":
        survey.stored = {path for _, path in files}
        survey.as_stored = True
        if tagged:
            note = "all are used as they are stored (--files.orientation ignore)"
            survey.notes.append(f"{_tags(tagged)}; {note}")
        return
    if not tagged:
        return
    fits = [
        (sample, _fit(files[IMAGES, str(sample.image)], survey.mask(sample) if sample.mask else None))
        for sample in tagged
    ]
    upright, stored, unsaid = ([sample for sample, fit in fits if fit == way] for way in ("upright", "stored", None))
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
    if upright == stored:
        return None
    return "stored" if stored else "upright"


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
    values = dataset.values
    given = {*values.given, IGNORE}
    for sample, path, mask in survey.masks(dataset.samples):
        image, own = survey.image(sample), survey.size(path, mask)
        size = image and survey.size(sample.image, image)
        if size and size != own:
            text = f"is {own[1]}x{own[0]} but its image {sample.image} is {size[1]}x{size[0]}"
            cure = "make them the same size, resizing masks by nearest neighbour"
            if size == own[::-1]:
                cure = "one of them lies on its side, so turn that one; resizing would put labels in wrong places"
            yield Fault("size", path, text, cure)
        if wrong := sorted(value for value in map(int, mask.counts) if value not in given):
            yield Fault("values", path, *_not_given(wrong, values))
    for part, name in ((dataset.train, "training"), (dataset.val, "validation")):
        if marked := marked_by_ignore(part, survey):
            binary, value = len(values.given) == 2, values.given[1]
            objects, more = (values.names[value], "") if binary else ("objects", " or more")
            text = f"and the other {name} masks mark {objects} by 255, which means ignore, and never by {value}{more}"
            cure = f"write {value} instead of 255 into the masks"
            if binary:
                first, second = values.classes
                cure += f", or the class list as '{first} #000000' and '{second} #ffffff'"
            yield Fault("binary", marked, text, cure)


def _not_given(wrong: list[int], values: ClassList) -> tuple[str, str]:
    """What to say of a mask with values that the class list does not give, and the cure."""
    text, last = f"has label values {some_of(wrong, 8)} but", len(values.names) - 1
    if NO_VALUE in values.names:
        cure = f"correct the mask, or the class list: '{wrong[0]}: {NO_CLASS}' there has these pixels ignored"
        return f"{text} the class list gives {some_of(values.given, 8)} (255 ignored)", cure
    whose = "those of the class list are" if len(values.classes) <= last else f"the {last + 1} classes are"
    begins = ", whose values begin at 0" if wrong == [last + 1] else ""
    return f"{text} {whose} 0 to {last} (255 ignored)", f"correct the mask or the class list{begins}"


def marked_by_ignore(samples: Iterable[Sample], survey: Survey) -> Path | None:
    """The first mask of these samples that holds 255, where their masks hold 0, 255 and no other label value."""
    samples = _with_255(samples)
    pixels = survey.counts(samples, label_values=True)
    if not (pixels[0] and pixels[IGNORE]) or pixels[1:IGNORE].any():
        return None
    return next(path for _, path, facts in survey.masks(samples, label_values=True) if str(IGNORE) in facts.counts)


def _with_255(samples: Iterable[Sample]) -> list[Sample]:
    """Those with masks that may hold 255 on disk, and not only after they were mapped."""
    return [sample for sample in samples if sample.mask and (sample.remap is None or sample.remap.ignores)]


def _from_one(dataset: Dataset, survey: Survey) -> Iterator[str]:
    """Masks whose values may begin at 1, so that each stands for the class before it."""
    masks = survey.masks((*dataset.train, *dataset.val))
    pixels = survey.counts(sample for sample, _, facts in masks if facts.mapping is None)
    names = dataset.values.names
    if names[0] != NO_CLASS and NO_VALUE not in names and pixels[: len(names)].any() and not pixels[0]:
        yield (
            f"no mask holds 0, the value of {names[0]}: if values begin at 1 there, every class is taken for "
            "the next in the class list"
        )


def _void_objects(dataset: Dataset, survey: Survey) -> Iterator[str]:
    """Masks that may mark objects by 255 beside others that do not, or one class of several."""
    trained = survey.counts(_with_255(dataset.train))
    for samples, name in ((dataset.train, "training"), (dataset.val, "validation")):
        part = _with_255(samples)
        masked = [(path, facts) for _, path, facts in survey.masks(part)]
        if marked_by_ignore(part, survey):
            continue  # a fault already
        void = [path for path, facts in masked if str(IGNORE) in facts.counts]
        bare = [path for path, facts in masked if facts.counts.keys() == {"0", str(IGNORE)}]
        if bare:
            yield (
                f"{len(bare)} of {len(masked)} {name} masks hold nothing but 0 and 255, {bare[0]} for one: "
                "255 means ignore, so write the index of the class where it marks objects"
            )
            continue
        counts = survey.counts(part)
        present = {name for name, pixels in zip(dataset.values.names, counts) if pixels}
        absent = [name for name in dataset.classes if name not in present]
        # Validation masks are few, so a class may be missing there; 255 that training has not is another thing.
        if void and len(absent) == 1 and (samples is dataset.train or not trained[IGNORE]):
            yield (
                f"{absent[0]} occurs in no {name} mask while {len(void)} of {len(masked)} hold 255, {void[0]} for "
                f"one: 255 means ignore, so write {dataset.values.names.index(absent[0])} if it marks {absent[0]}"
            )
