"""Which mask is of which picture, by their names."""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from .files import composed, stem_of

IMAGE_FOLDERS = ("images", "JPEGImages", "imgs", "image", "img", "img_dir")
MASK_FOLDERS = (
    "masks", "labels", "annotations", "mask", "label", "SegmentationClass", "SegmentationClassPNG", "ann_dir",
)  # fmt: skip
"""Names of folders, the likeliest first."""
_TAIL = re.compile(
    r"(?P<of>.*[^/])[-_. ](?:mask|label|seg|segmentation|gt|annotation)s?(?P<more>[-_. ][^/]+)?",
    re.IGNORECASE | re.DOTALL,
)
"""What stands behind the name of a picture in that of its mask; with more behind it, perhaps in that of a drawing."""
_FOLDER = re.compile(
    rf"(?P<masks>{'|'.join(MASK_FOLDERS)})|(?:{'|'.join(MASK_FOLDERS)})[-_. ].+|SegmentationObject", re.IGNORECASE
)
"""A folder of masks; any other that this matches is one of drawings, or of masks of single objects."""
_BESIDE = re.compile(
    r"(?P<of>.+?)(?P<join>[-_ ]?)(?:masks?|labels?|annotations?|annot|gt|segmentations?)", re.IGNORECASE
)
"""A folder of masks called after one of pictures: `train_masks` beside `train` or `train_images`."""
_END = re.compile(r"(?P<of>.*[^/])[-_. ](?P<end>[^-_. /]*[^\d\W][^-_. /]*)", re.DOTALL)
"""The last word in the name of a picture."""
LONGEST = 24
"""Shared beginnings and endings that are longer are cut off whole or not at all."""


def masks_among(names: Iterable[str]) -> dict[str, str | None]:
    """Of names of pictures, those that are masks, each with the one that it is the mask of, and drawings of masks with
    None.

    Masks are `p_mask.png` where there is `p.jpg`, and those in a folder for masks where one in it is called like a
    picture beside the folder, or in a folder for images beside it; others in such a folder are of None. Drawings are
    `p_mask_shown.png` beside a mask of `p`, `p_shown.png` where half of the pictures with a mask have one, and what is
    called like a picture in `masks_shown`.
    """
    by_stem = {stem_of(name): name for name in names}
    masks = _in_folders(by_stem)
    masks |= _beside({stem: name for stem, name in by_stem.items() if name not in masks})
    return masks | dict.fromkeys(_drawings(by_stem, masks, set(filter(None, masks.values()))))


def _in_folders(by_stem: Mapping[str, str]) -> dict[str, str | None]:
    """Masks and drawings in folders of their own."""
    folded = {stem.casefold(): name for stem, name in by_stem.items()}
    folders: dict[str, dict[str, str | None]] = defaultdict(dict)
    for stem, name in by_stem.items():
        *above, last = stem.split("/")
        place = next((n for n, part in enumerate(above) if _FOLDER.fullmatch(part) or _BESIDE.fullmatch(part)), None)
        if place is None:
            continue
        below = above[place + 1 :]
        tail = _TAIL.fullmatch(last)
        called = [[*below, last], *([[*below, tail["of"]]] if tail else [])]
        candidates = ("/".join((*above[:place], *home, *one)) for home in _homes(above[place]) for one in called)
        pictures = (folded.get(candidate.casefold()) for candidate in candidates)
        folders["/".join(above[: place + 1])][name] = next(filter(None, pictures), None)
    masks: dict[str, str | None] = {}
    for folder, found in folders.items():
        if any(found.values()):
            kind = _FOLDER.fullmatch(folder.rpartition("/")[2])
            masks |= dict.fromkeys(found) if kind and not kind["masks"] else found
    return masks


def _homes(folder: str) -> Iterator[tuple[str, ...]]:
    """Where, beside a folder of masks, the pictures may lie: there, or in a folder that these are called."""
    if _FOLDER.fullmatch(folder):
        yield ()
        yield from ((name,) for name in IMAGE_FOLDERS)
    elif found := _BESIDE.fullmatch(folder):
        yield (found["of"],)
        yield from ((f"{found['of']}{found['join']}{name}",) for name in IMAGE_FOLDERS)


def _beside(by_stem: Mapping[str, str]) -> dict[str, str | None]:
    """Masks and drawings beside the pictures that they are called after."""
    plain: dict[str, list[str]] = defaultdict(list)
    longer: dict[str, list[str]] = defaultdict(list)
    alone = []
    for stem, name in by_stem.items():
        if not (tail := _TAIL.fullmatch(stem)):
            continue
        if image := by_stem.get(tail["of"]):
            (longer if tail["more"] else plain)[image].append(name)
        elif not tail["more"]:
            alone.append(name)
    masks: dict[str, str | None] = {}
    for image in {*plain, *longer}:
        masks |= dict.fromkeys(longer[image], None if image in plain else image)
    masks |= {mask: image for image, of in plain.items() for mask in of}
    rest = [name for name in by_stem.values() if name not in masks and name not in alone]
    return masks | {mask: image for image, mask in _paired_files(alone, rest).items()}


def _paired_files(masks: Collection[str], images: Collection[str]) -> dict[str, str]:
    of = {stem_of(name): name for name in (*masks, *images)}
    pairs = paired([stem_of(name) for name in masks], [stem_of(name) for name in images])
    return {of[image]: of[mask] for image, mask in pairs.items()}


def _drawings(by_stem: Mapping[str, str], masks: Collection[str], masked: Collection[str]) -> list[str]:
    """Pictures called after others by a word that half of those that are `masked` have one with."""
    found: dict[str, list[str]] = defaultdict(list)
    for stem, name in by_stem.items():
        end = _END.fullmatch(stem)
        if end and name not in masks and name not in masked and by_stem.get(end["of"]) in masked:
            found[end["end"].casefold()].append(name)
    least = max(2, len(masked) / 2)
    return [name for names in found.values() if len(names) >= least for name in names]


def called_after(masks: Iterable[str], images: Mapping[str, Path]) -> dict[str, list[str]]:
    """Masks in a folder of their own that are not called as images are but after them: for each such image the ids of
    those that are, `p_mask` and `p.jpg` (of `p.jpg.png`) for `p` of `p.jpg`."""
    whole = {composed(f"{id}{path.suffix}"): id for id, path in images.items()}
    known = {id: id for id in images} | {name: id for name, id in whole.items() if name not in images}
    after: dict[str, list[str]] = defaultdict(list)
    for mask in sorted(set(masks) - images.keys()):
        tail = _TAIL.fullmatch(mask)
        image = known.get(mask) or (tail and not tail["more"] and known.get(tail["of"]))
        if image:
            after[image].append(mask)
    return after


def paired(masks: Collection[str], images: Collection[str]) -> dict[str, str]:
    """By image the mask whose name differs from its own by no more than a beginning and an ending that all images
    share, and one that all masks do; the least that will do. Letter case does not count, nor do folders where names
    are unique without. Empty where that does not give each of two masks or more an image of its own."""
    if not 2 <= len(masks) <= len(images):
        return {}
    for name in (str, os.path.basename):
        of_mask, of_image = ({name(id).casefold(): id for id in ids} for ids in (masks, images))
        if len(of_mask) == len(masks) and len(of_image) == len(images) and (pairs := _by_cuts(of_mask, of_image)):
            return pairs
    return {}


def _by_cuts(of_mask: Mapping[str, str], of_image: Mapping[str, str]) -> dict[str, str]:
    """The same for names that are unique, in lower case; ids by name."""
    ends = [*_shared(of_mask), *_shared(of_image)]
    before, behind = ends[2:]
    lengths = (range(len(end) + 1) if len(end) <= LONGEST else (0, len(end)) for end in ends)
    first = next(iter(of_mask))
    for head, tail, start, stop in sorted(itertools.product(*lengths), key=sum):
        lead, trail = before[:start], behind[len(behind) - stop :]
        if f"{lead}{first[head : len(first) - tail]}{trail}" not in of_image:
            continue
        cores = {name[head : len(name) - tail]: id for name, id in of_mask.items()}
        named = {of_image.get(f"{lead}{core}{trail}"): id for core, id in cores.items() if core}
        if None not in named and len(named) == len(of_mask):
            return named
    return {}


def _shared(names: Iterable[str]) -> tuple[str, str]:
    """The beginning and the ending that all names share."""
    least, most = min(names), max(names)  # what these share, all do
    last, latest = (edge(name[::-1] for name in names) for edge in (min, max))
    return _common(least, most), _common(last, latest)[::-1]


def _common(one: str, other: str) -> str:
    return "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))
