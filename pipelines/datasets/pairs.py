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
_END = re.compile(r"(?P<of>.*[^/])[-_. ](?P<end>[^-_. /\d]+)", re.DOTALL)
"""The last word in the name of a picture."""
DRAWN = {
    "color", "colour", "colored", "coloured", "colors", "colours", "overlay", "overlays", "blend", "blended", "viz",
    "vis", "visual", "visualization", "preview", "palette",
}  # fmt: skip
"""Last words in the names of drawings."""
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".avif")
"""What photographs are called, and no mask of any use."""
LONGEST = 24
"""Shared beginnings and endings that are longer are cut off whole or not at all."""


def masks_among(names: Iterable[str]) -> dict[str, str | None]:
    """Those of names of pictures that are masks, each with the one that it is the mask of, and drawings of masks with
    None.

    Masks are `p_mask.png` where there is `p.jpg`, and those in a folder for masks where one in it is called like a
    picture beside the folder, or in a folder for images beside it; others in such a folder are of None. Drawings are
    `p_mask_shown.png` beside a mask of `p`, `p_overlay.png` and the like, and what is called like a picture in
    `masks_shown`.
    """
    by_stem = {stem_of(name): name for name in names}
    masks = _in_folders(by_stem)
    masks |= _beside({stem: name for stem, name in by_stem.items() if name not in masks})
    return masks | {
        name: None for stem, name in by_stem.items() if name not in masks and _is_drawing(stem, name, by_stem)
    }


def _is_drawing(stem: str, name: str, by_stem: Mapping[str, str]) -> bool:
    end = _END.fullmatch(stem)
    return bool(end and end["end"].casefold() in DRAWN and end["of"] in by_stem and not _is_photograph(name))


def _is_photograph(name: str) -> bool:
    return name.lower().endswith(LOSSY)


def _in_folders(by_stem: Mapping[str, str]) -> dict[str, str | None]:
    """Masks and drawings in folders of their own: the innermost beside which there is a picture that is called so."""
    folded = {stem.casefold(): name for stem, name in by_stem.items()}
    folders: dict[str, dict[str, str | None]] = defaultdict(dict)
    for stem, name in by_stem.items():
        *above, last = stem.split("/")
        tail = _TAIL.fullmatch(last)
        own = [last, *([tail["of"]] if tail else [])]
        places = [place for place, part in enumerate(above) if _is_for_masks(part, name)]
        for place in reversed(places):
            homes = ([*above[:place], *home, *above[place + 1 :]] for home in _homes(above[place]))
            pictures = (folded.get("/".join((*home, one)).casefold()) for home in homes for one in own)
            if (picture := next(filter(None, pictures), None)) or place == places[0]:
                folders["/".join(above[: place + 1])][name] = picture
                break
    masks: dict[str, str | None] = {}
    for folder, found in folders.items():
        found = found if any(found.values()) else _called_otherwise(folder, found, by_stem)
        if any(found.values()):
            kind = _FOLDER.fullmatch(folder.rpartition("/")[2])
            masks |= dict.fromkeys(found) if kind and not kind["masks"] else found
    return masks


def _called_otherwise(folder: str, names: Iterable[str], by_stem: Mapping[str, str]) -> dict[str, str | None]:
    """The masks of a folder, `a_L.png` for one, where all belong to the pictures beside it by what differs in names."""
    *above, last = folder.split("/")
    masks = {stem_of(name).removeprefix(f"{folder}/"): name for name in names if not _is_photograph(name)}
    for home in _homes(last):
        place = "".join(f"{part}/" for part in (*above, *home))
        inside = {stem: name for stem, name in by_stem.items() if stem.startswith(place)}
        images = {stem.removeprefix(place): name for stem, name in inside.items() if name not in masks.values()}
        if pairs := paired(masks, images):
            return {masks[mask]: images[image] for image, mask in pairs.items()}
    return {}


def _is_for_masks(folder: str, name: str) -> bool:
    """Whether a folder of this name may be one of masks, as far as a file in it may be one."""
    return bool(_FOLDER.fullmatch(folder) or (_BESIDE.fullmatch(folder) and not _is_photograph(name)))


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
    alone: dict[str, str] = {}
    for stem, name in by_stem.items():
        if not (tail := _TAIL.fullmatch(stem)) or (tail["more"] and _is_photograph(name)):
            continue
        if image := by_stem.get(tail["of"]):
            (longer if tail["more"] else plain)[image].append(name)
        elif not tail["more"] and not _is_photograph(name):
            alone[tail["of"]] = name
    masks: dict[str, str | None] = {}
    for image in {*plain, *longer}:
        masks |= dict.fromkeys(longer[image], None if image in plain else image)
    masks |= {mask: image for image, of in plain.items() for mask in of}
    return masks | _of_other_ends(alone, [name for name in by_stem.values() if name not in masks])


def _of_other_ends(masks: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """`p_mask.png` of `p_sat.jpg` where each of two masks or more has a picture of that end. masks: by what stands
    before their tail."""
    ends: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        if (end := _END.fullmatch(stem_of(name))) and name not in masks.values():
            ends[end["end"]][end["of"]] = name
    found = [of for of in ends.values() if len(masks) >= 2 and masks.keys() <= of.keys()]
    return {mask: found[0][stem] for stem, mask in masks.items()} if len(found) == 1 else {}


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
    share, and one that all masks do, without other numbers in them; the least that will do. Letter case does not count,
    nor do the folders of images where masks have none. Empty where that does not give each of two masks or more an
    image of its own."""
    if not 2 <= len(masks) <= len(images):
        return {}
    flat = not any("/" in id for id in masks)
    for name in (str, os.path.basename) if flat else (str,):
        of_mask, of_image = ({name(id).casefold(): id for id in ids} for ids in (masks, images))
        if len(of_mask) == len(masks) and len(of_image) == len(images) and (pairs := _by_cuts(of_mask, of_image)):
            return pairs
    return {}


def _by_cuts(of_mask: Mapping[str, str], of_image: Mapping[str, str]) -> dict[str, str]:
    """The same for names that are unique, in lower case; ids by name."""
    ends = [end for names in (of_mask, of_image) for end in _shared([os.path.basename(name) for name in names])]
    before, behind = ends[2:]
    lengths = (range(len(end) + 1) if len(end) <= LONGEST else (0, len(end)) for end in ends)
    first = next(iter(of_mask))
    for head, tail, start, stop in sorted(itertools.product(*lengths), key=sum):
        lead, trail = before[:start], behind[len(behind) - stop :]
        if not _is_fair(ends[0][:head], lead) or not _is_fair(ends[1][len(ends[1]) - tail :][::-1], trail[::-1]):
            continue
        if _renamed(first, head, tail, lead, trail) not in of_image:
            continue
        named = {
            of_image[new]: id
            for name, id in of_mask.items()
            if (new := _renamed(name, head, tail, lead, trail)) and new in of_image
        }
        if len(named) == len(of_mask):
            return named
    return {}


def _is_fair(one: str, other: str) -> bool:
    """Whether a beginning that is cut off and the one that takes its place hold the same numbers, and end in none: it
    may go on behind the cut. Digits within words do not count (`Img8bit`)."""
    numbers, others = (re.findall(r"(?<![a-z])\d+|\d+(?![a-z])", part) for part in (one, other))
    return numbers == others and not any(part[-1:].isdigit() for part in (one, other))


def _renamed(name: str, head: int, tail: int, lead: str, trail: str) -> str | None:
    """A mask's name with other ends; None where nothing of its own is left."""
    folder, slash, last = name.rpartition("/")
    core = last[head : len(last) - tail]
    return f"{folder}{slash}{lead}{core}{trail}" if core else None


def _shared(names: Iterable[str]) -> tuple[str, str]:
    """The beginning and the ending that all names share."""
    least, most = min(names), max(names)  # what these share, all do
    last, latest = (edge(name[::-1] for name in names) for edge in (min, max))
    return _common(least, most), _common(last, latest)[::-1]


def _common(one: str, other: str) -> str:
    return "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))
