"""Which images of the training pool are labelled and which are not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from .dataset import Dataset
from .errors import UsageError
from .lists import Names, read_ids

FORMS = "all, draw:1/8@SEED (a share), draw:30@SEED (a count), LABELLED_FILE or LABELLED_FILE,UNLABELLED_FILE"


@dataclass(frozen=True, slots=True)
class Split:
    """Sample ids; `unlabeled` may be empty."""

    name: str
    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    checksum: str
    """The md5 of the sorted labelled ids, one a line, first 8 hex digits: what published lists are known by."""


def checksum(ids: Iterable[str]) -> str:
    """md5 of the sorted ids joined by newlines, first 8 hex digits."""
    return hashlib.md5("\n".join(sorted(ids)).encode(), usedforsecurity=False).hexdigest()[:8]


def draw(ids: Iterable[str], share: Fraction | int, seed: int) -> tuple[str, ...]:
    """A random choice of the ids, sorted: `share` of them, rounded down, or that many if it is an integer.

    The same ids in any order give the same choice, and a smaller choice of a seed is part of each larger one.
    """
    ids = sorted(ids)
    if isinstance(share, int):
        count, said = share, str(share)
    else:
        count, said = int(len(ids) * share), f"a share of {share}"
    if not 1 <= count <= len(ids):
        raise UsageError(f"cannot draw {said} of {len(ids)} images: that would be {count}, ask for 1 to {len(ids)}")
    # Raw words, since numpy promises their stability between versions, and of its shuffles it does not.
    order = np.argsort(np.random.Philox(seed).random_raw(len(ids)), kind="stable")
    return tuple(sorted(ids[i] for i in order[:count]))


def resolve_split(spec: str, dataset: Dataset) -> Split:
    """The split that a user names.

    - `all`: every image of the pool that has a mask is labelled.
    - `draw:1/8@SEED`, `draw:30@SEED`: drawn from the images with masks. Where the pool is listed and all that would be
      drawn from the whole of it have masks, that draw holds: so it is found again after the masks of all others were
      deleted, as published splits are.
    - `LABELLED_FILE`: the rest of the pool is unlabelled; if nothing is left, the images beside the pool are.
    - `LABELLED_FILE,UNLABELLED_FILE`: exactly these.

    Raises UsageError for anything else, for labelled images without a mask and for an image on two sides.
    """
    pool = {sample.id: sample for sample in dataset.train}
    masked = [id for id, sample in pool.items() if sample.mask]
    if spec == "all":
        return _split("all", masked, pool)
    if spec.startswith("draw:"):
        share, seed = _parse_draw(spec)
        labeled = draw(pool if dataset.pool_listed else masked, share, seed)
        if any(pool[id].mask is None for id in labeled):
            labeled = draw(masked, share, seed)
        return _split(spec, labeled, pool)
    labeled_file, _, unlabeled_file = (spec, "", "") if _is_file(spec) else map(str.strip, spec.partition(","))
    if not _is_file(labeled_file):
        raise UsageError(f"the split {spec!r} is neither a file nor a known form: use {FORMS}")
    names = Names(sample.id for part in (dataset.train, dataset.extra, dataset.val) for sample in part)
    where = f"the images of {dataset.root}"
    labeled = read_ids(Path(labeled_file), names, where)
    _check_labeled(labeled, labeled_file, dataset)
    if not unlabeled_file:
        beside = [sample.id for sample in dataset.extra]
        rest = pool if pool.keys() - set(labeled) else beside
        return _split(Path(labeled_file).stem, labeled, rest)
    unlabeled = read_ids(Path(unlabeled_file), names, where)
    if both := set(unlabeled).intersection(labeled):
        raise UsageError(f"{min(both)} is in {labeled_file} and in {unlabeled_file}{_more(both)}: keep it in one")
    if both := set(unlabeled).intersection(sample.id for sample in dataset.val):
        raise UsageError(f"{min(both)} is in {unlabeled_file} and in val{_more(both)}: keep it in one")
    return _split(Path(labeled_file).stem, labeled, unlabeled)


def _split(name: str, labeled: Iterable[str], rest: Iterable[str]) -> Split:
    chosen = set(labeled)
    return Split(name, tuple(sorted(chosen)), tuple(sorted(set(rest) - chosen)), checksum(chosen))


def _parse_draw(spec: str) -> tuple[Fraction | int, int]:
    form = re.fullmatch(r"draw:(?:(\d+)|(\d+/[1-9]\d*|0?\.\d+))@(\d+)", spec)
    share = form and (int(form[1]) if form[1] else Fraction(form[2]))
    if not share or (isinstance(share, Fraction) and share > 1):
        raise UsageError(f"cannot read the split {spec!r}: use {FORMS}")
    return share, int(form[3])


def _check_labeled(labeled: Iterable[str], file: str, dataset: Dataset) -> None:
    if both := set(labeled).intersection(sample.id for sample in dataset.val):
        if dataset.held_out:
            cure = "it is held out for lack of a list: write val.txt, one image a line"
        else:
            cure = "keep it in one"
        raise UsageError(f"{min(both)} is labelled in {file} and in val{_more(both)}: {cure}")
    unmasked = {s.id for s in (*dataset.train, *dataset.extra) if s.mask is None}.intersection(labeled)
    if unmasked:
        raise UsageError(f"{min(unmasked)} is labelled in {file} but has no mask{_more(unmasked)}: add it")


def _more(ids: set[str]) -> str:
    return f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:
        return False
