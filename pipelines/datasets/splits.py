"""Which images of the training pool are labelled and which are not."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import UsageError
from .dataset import Dataset, Sample
from .lists import (
    Entry,
    Names,
    alike,
    of_another,
    parts_of,
    plain_id,
    plain_ids,
    read_entries,
    read_ids,
    read_list,
    shown,
)
from .registry import PREFIXES, SPLITS, PublishedSplit, checksum, find_lists, identify, names_of_share

FEW = (92, 183, 366, 732)
"""Labelled images of the few-label lists that CPS trained on."""
FORMS = (
    "all, draw:1/8@SEED (a share), draw:30@SEED (a count), LABELLED_FILE, LABELLED_FILE,UNLABELLED_FILE or the name of "
    "a published list (`semiseg splits list`)"
)


@dataclass(frozen=True, slots=True)
class Split:
    """Sample ids; `unlabeled` may be empty."""

    name: str
    """As the user named it; of list files the published names, or else the file's."""
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    checksum: str
    """The md5 of the sorted labelled ids, one a line, first 8 hex digits: what published lists are known by."""
    names: tuple[str, ...] = ()
    """The published splits that are the same: the same labelled ids and as many unlabelled ones."""
    notes: tuple[str, ...] = ()
    """What was decided about the lists, one line each, for the log."""


def draw(ids: Iterable[str], share: Fraction | int, seed: int) -> tuple[str, ...]:
    """A random choice of the ids, sorted: `share` of them, rounded down, or that many if it is an integer.

    The same ids in any order give the same choice, and a smaller choice of a seed is part of each larger one.
    """
    ordered = _shuffled(ids, seed)
    return tuple(sorted(ordered[: _count(len(ordered), share)]))


def _shuffled(ids: Iterable[str], seed: int) -> list[str]:
    ids = sorted(ids)
    # Raw words, since numpy promises their stability between versions, and of its shuffles it does not.
    return [ids[i] for i in np.argsort(np.random.Philox(seed).random_raw(len(ids)), kind="stable")]


def _count(known: int, share: Fraction | int) -> int:
    """How many of those that are known. Raises UsageError for none and for more."""
    if not known:
        raise UsageError(f"cannot draw {share} of no images: the data set has none to label")
    count = share if isinstance(share, int) else int(known * share)
    if not 1 <= count <= known:
        said = str(share) if isinstance(share, int) else f"a share of {share}, which is {count},"
        raise UsageError(f"cannot draw {said} of {known} images: ask for 1 to {known}")
    return count


def _draw_masked(pool: Mapping[str, Sample], share: Fraction | int, seed: int) -> list[str]:
    """A share of a listed pool: what is drawn from the whole of it where that has masks; otherwise the share of the
    images with masks, in the same order, and no less than what a smaller draw from the whole may hold. So smaller
    choices are part of larger ones."""
    ordered = _shuffled(pool, seed)
    masked = [id for id in ordered if pool[id].mask]
    whole = ordered[: _count(len(ordered), share)]
    if all(pool[id].mask for id in whole):
        return whole
    leading = next(place for place, id in enumerate(ordered) if not pool[id].mask)
    count = share if isinstance(share, int) else max(int(len(masked) * share), leading)
    return masked[: _count(len(masked), count or share)]  # of none, the share is what to name


def resolve_split(spec: str, dataset: Dataset, lists: Path | None = None) -> Split:
    """The split that a user names.

    - `all`: every image of the pool that has a mask is labelled.
    - `draw:1/8@SEED`, `draw:30@SEED`: drawn from the images with masks. Where the pool is listed and all that would be
      drawn from the whole of it have masks, that draw holds: so it is found again after the masks of all others were
      deleted, as published splits are. A smaller draw of a seed is part of each larger one.
    - a published name (`voc-cps-1/8`): the user's copy of its lists, found under the folder `lists` or `$SEMISEG_LISTS`
      by checksum; without an unlabelled one the rest of the pool, if that has the published size.
    - `LABELLED_FILE`: the rest of the pool is unlabelled; if nothing is left, the images beside the pool are.
    - `LABELLED_FILE,UNLABELLED_FILE`: exactly these.

    Images of a folder of unlabelled ones are unlabelled in all but the last.

    Raises UsageError for anything else, for labelled images without a mask and for an image on two sides.
    """
    check_spec(spec, dataset.layout)
    pool = {sample.id: sample for sample in dataset.train}
    masked = [id for id, sample in pool.items() if sample.mask]
    further = [sample.id for sample in dataset.unlabeled]
    if spec == "all":
        if not masked:
            left = f", or leave some of the {len(dataset.val)} for validation to training" if dataset.val else ""
            raise UsageError(f"the split all: none of the {len(pool)} images of the pool has a mask; add masks{left}")
        return _split("all", masked, (*pool, *further))
    if spec.startswith("draw:"):
        share, seed = _parse_draw(spec)
        labeled = _draw_masked(pool, share, seed) if dataset.pool_listed else draw(masked, share, seed)
        return _split(spec, labeled, (*pool, *further))
    names = _names(dataset)
    if spec in SPLITS:
        return _published_split(SPLITS[spec], dataset, names, lists)
    labeled_file, unlabeled_file = _files(spec)
    if labeled_file is None:
        raise UsageError(f"the split {shown(spec)!r} is neither a file nor a known form: use {FORMS}")
    labeled = _read_labeled(labeled_file, dataset, names)
    if unlabeled_file is None:
        beside = [sample.id for sample in dataset.extra]
        rest = pool if pool.keys() - set(labeled) else beside
        return _split(labeled_file, labeled, (*rest, *further))
    unlabeled = _read_unlabeled(unlabeled_file, dataset, _names(dataset, dataset.unlabeled))
    if both := set(unlabeled).intersection(labeled):
        known = identify(labeled, unlabeled)
        cure = f"keep it in one{f', or use --split {known[0].name}, which keeps it labelled' if known else ''}"
        raise UsageError(f"{min(both)} is in {labeled_file} and in {unlabeled_file}{_more(both)}: {cure}")
    return _split(labeled_file, labeled, unlabeled)


def check_spec(spec: str, layout: str) -> None:
    """Refuses what needs no data set to be refused: a bare share or count that several published lists go by, a draw of
    none or of more than all, a name of another data set's, and one that is no name but almost. Raises UsageError."""
    if spec.startswith("draw:"):
        _parse_draw(spec)
    if names := names_of_share(spec, layout):
        raise UsageError(
            f"the split {spec!r} is the name of {len(names)} published lists with different images: "
            f"choose one of {', '.join(names)}, or draw:{spec}@SEED"
        )
    if spec in SPLITS and SPLITS[spec].layout != layout:
        raise UsageError(f"the split {spec} is one of {SPLITS[spec].layout} and the data set is of layout {layout}")
    if spec not in SPLITS and spec.partition("-")[0] in PREFIXES and "-" in spec and _files(spec)[0] is None:
        near = difflib.get_close_matches(spec, SPLITS, n=3) or list(SPLITS)
        raise UsageError(f"no published split is called {spec!r}; there are {', '.join(near)} (`semiseg splits list`)")


def published_share(spec: str) -> str | None:
    """The nominal labelled share that a split has in the published results, such as `1/8`, or `few` for the few-label
    lists that CPS trained on; None for all others. Needs no data set: list files are read, names are not resolved."""
    if spec.startswith("draw:"):
        share, _ = _parse_draw(spec)
        return str(share) if isinstance(share, Fraction) else None
    known = _published(spec)
    if known and known.share:
        return str(known.share)
    return "few" if known and known.labeled in FEW else None


def unlabeled_count(spec: str, pool: int) -> int | None:
    """How many unlabelled images a split leaves of the pool that the published results are for; None where neither a
    published list nor a share, a count or a list of them says it. Needs no data set, as `published_share`."""
    if spec.startswith("draw:"):
        share, _ = _parse_draw(spec)
        return pool - (int(share * pool) if isinstance(share, Fraction) else share)
    if known := _published(spec):
        return known.unlabeled
    labeled, unlabeled = _files(spec)
    return len({*plain_ids(unlabeled)}.difference(plain_ids(labeled))) if labeled and unlabeled else None


def _published(spec: str) -> PublishedSplit | None:
    """The published list that a name or a list file is."""
    if spec in SPLITS:
        return SPLITS[spec]
    if spec == "all" or not (file := _files(spec)[0]):
        return None
    return next(iter(identify(plain_ids(file))), None)


Wrong = Literal["twice", "labelled and unlabelled", "in val", "unknown", "without mask", "with the label of another"]
"""What may be wrong with an id of a list."""


@dataclass(frozen=True, slots=True)
class ListFault:
    """What is wrong with the ids of a list, by its kind."""

    kind: Wrong
    file: Path
    ids: tuple[str, ...]
    """Sorted; of unknown ones, what the list says."""


def check_lists(
    labeled: Path, unlabeled: Path | None = None, *, val: Path | None = None, dataset: Dataset | None = None
) -> list[ListFault]:
    """Everything that is wrong with list files, without a data set or with one, whose ids then count.

    Without one, ids are file names, as in the published lists. Raises UsageError for a file that cannot be read and for
    lists in which the same file name stands in several folders, which only a data set can tell apart.
    """
    own = _names(dataset) if dataset else None
    faults: list[ListFault] = []

    def read(path: Path, names: Names | None = own) -> Counter[str]:
        ids: Counter[str] = Counter()
        said: dict[str, str] = {}
        unknown, wrong = set(), set()
        for entry in read_list(path, names.ids if names else ()):
            id = names.match(entry.image, path.parent) if names else plain_id(entry.image)
            if id is None:
                unknown.add(shown(entry.image))
                continue
            if names is None and _apart(said.setdefault(id, entry.image), entry.image):
                raise UsageError(
                    f"{path}, line {entry.line}: {entry.image} and {said[id]} have one file name: pass --layout and "
                    "--data, so that ids may hold folders"
                )
            ids[id] += 1
            wrong |= {id} if of_another(entry, id, names) else set()
        found("with the label of another", path, wrong)
        found("twice", path, (id for id, count in ids.items() if count > 1))
        found("unknown", path, unknown)
        return ids

    def found(kind: Wrong, file: Path, ids: Iterable[str]) -> None:
        if ids := tuple(sorted(ids)):
            faults.append(ListFault(kind, file, ids))

    chosen = read(labeled)
    lists = [(labeled, chosen)]
    if unlabeled:
        rest = read(unlabeled, _names(dataset, dataset.unlabeled) if dataset else None)
        found("labelled and unlabelled", unlabeled, chosen.keys() & rest.keys())
        lists.append((unlabeled, rest))
    judged = set(read(val)) if val else set()
    if dataset:
        judged |= {sample.id for sample in dataset.val}
        unmasked = {s.id for s in dataset.trainable if s.mask is None}
        found("without mask", labeled, chosen.keys() & unmasked)
    for file, ids in lists:
        found("in val", file, ids.keys() & judged)
    return faults


def _apart(one: str, other: str) -> bool:
    """Whether two paths of one file name lead to different folders, as far as they name any."""
    folders = parts_of(one)[:-1], parts_of(other)[:-1]
    return all(folders) and folders[0] != folders[1]


def _published_split(published: PublishedSplit, dataset: Dataset, names: Names, lists: Path | None) -> Split:
    labeled_file, unlabeled_file = find_lists(published, lists)
    labeled = _read_labeled(labeled_file, dataset, names)
    chosen = set(labeled)
    notes = [f"{published.name}: labelled ids of {labeled_file}"]
    if unlabeled_file is None:
        rest = [sample.id for sample in dataset.train if sample.id not in chosen]
        notes.append("no copy of its unlabelled list: the rest of the training images are unlabelled")
    else:
        unlabeled = _read_unlabeled(unlabeled_file, dataset, names)
        rest = [id for id in unlabeled if id not in chosen]
        notes.append(f"unlabelled ids of {unlabeled_file}")
        if both := len(unlabeled) - len(rest):
            notes.append(f"{both} of them labelled too, and kept as labelled")
    if len(rest) != published.unlabeled:
        others = [s.name for s in identify(labeled, rest)]
        raise UsageError(
            f"the split {published.name} has {published.unlabeled:,} unlabelled images, and beside its labelled ones "
            f"{dataset.root} has {len(rest):,} for training: put its unlabelled list beside {labeled_file}, "
            + (f"or take {' or '.join(others)}" if others else "or complete the data set")
        )
    if further := [sample.id for sample in dataset.unlabeled]:
        notes.append(f"beside them {len(further):,} unlabelled images that the published results did not have")
    return _split(published.name, labeled, (*rest, *further), notes=("; ".join(notes),))


def _split(name: str | Path, labeled: Iterable[str], rest: Iterable[str], notes: tuple[str, ...] = ()) -> Split:
    """A file's name gives way to the published names of what it holds."""
    chosen, others = set(labeled), set(rest)
    others -= chosen
    names = tuple(published.name for published in identify(chosen, others))
    if isinstance(name, Path):
        name = " = ".join(names) or name.stem
    return Split(name, tuple(sorted(chosen)), tuple(sorted(others)), checksum(chosen), names, notes)


def _parse_draw(spec: str) -> tuple[Fraction | int, int]:
    # Python does not read numbers of thousands of digits.
    form = re.fullmatch(r"draw:(?:(\d{1,99})|(\d{1,99}/[1-9]\d{0,99}|0?\.\d{1,99}))@(\d{1,99})", spec)
    share = form and (int(form[1]) if form[1] else Fraction(form[2]))
    if not form or not share or (isinstance(share, Fraction) and share > 1):
        raise UsageError(f"cannot read the split {shown(spec)!r}: use {FORMS}")
    return share, int(form[3])


def _read_labeled(file: Path, dataset: Dataset, names: Names) -> tuple[str, ...]:
    entries = read_entries(file, names, f"the images of {dataset.root}")
    labeled = tuple(dict.fromkeys(id for id, _ in entries))
    if both := set(labeled).intersection(sample.id for sample in dataset.val):
        if dataset.held_out:
            cure = "it is held out for lack of a list: write val.txt, one image a line"
        else:
            cure = "keep it in one"
        raise UsageError(f"{min(both)} is labelled in {file} and in val{_more(both)}: {cure}")
    samples = {sample.id: sample for sample in dataset.trainable}
    if unmasked := {id for id in labeled if samples[id].mask is None}:
        cure = "add it"
        if any(entry.label for id, entry in entries if id in unmasked):
            cure = "add it, or pass the list as --files.train-list too if it says where the mask is"
        raise UsageError(f"{min(unmasked)} is labelled in {file} but has no mask{_more(unmasked)}: {cure}")
    for id, entry in entries:
        if entry.label is not None and not _names_mask(entry, samples[id], names, file.parent):
            raise UsageError(
                f"{file}, line {entry.line}: gives {id} the mask {shown(entry.label)}, but it has {samples[id].mask}: "
                "correct the list, or pass it as --files.train-list too"
            )
    return labeled


def _names_mask(entry: Entry, sample: Sample, names: Names, folder: Path) -> bool:
    """Whether the label of a line, in a list in `folder`, is the mask of its sample."""
    if entry.label is None or sample.mask is None:
        return False
    if names.root is None:
        # Lists name masks of other copies of a data set, but always after their image.
        return plain_id(entry.label) in (plain_id(sample.id), plain_id(str(sample.mask)))
    file = names.file(entry.label, folder)
    return alike(file, sample.mask) if file else names.is_own_mask(entry, sample)


def _names(dataset: Dataset, further: Iterable[Sample] = ()) -> Names:
    """Those that a list may use. further: images without labels, which a list of labelled ones does not mean."""
    samples = (*dataset.train, *dataset.extra, *dataset.val, *further)
    return Names.of(samples, dataset.root if dataset.lists_name_files else None)


def _read_unlabeled(file: Path, dataset: Dataset, names: Names) -> tuple[str, ...]:
    unlabeled = read_ids(file, names, f"the images of {dataset.root}")
    if both := set(unlabeled).intersection(sample.id for sample in dataset.val):
        raise UsageError(f"{min(both)} is in {file} and in val{_more(both)}: keep it in one")
    return unlabeled


def absolute_spec(spec: str) -> str:
    """What a user names the split by, with the absolute paths of list files."""
    files = () if spec == "all" or spec.startswith("draw:") or spec in SPLITS else _files(spec)
    return ",".join(str(file.absolute()) for file in files if file) or spec


def _files(spec: str) -> tuple[Path, Path | None] | tuple[None, None]:
    """The list files that a spec names. One file's name may hold a comma."""
    if _is_file(spec):
        return Path(spec), None
    labeled, comma, unlabeled = map(str.strip, spec.partition(","))
    return (Path(labeled), Path(unlabeled)) if comma and _is_file(labeled) else (None, None)


def _more(ids: set[str]) -> str:
    return f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:
        return False
