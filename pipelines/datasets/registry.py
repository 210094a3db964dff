"""The published labelled lists of Pascal VOC and Cityscapes, by name. The lists themselves are not part of semiseg.

A list is known by its checksum: the md5 of its sorted labelled ids, joined by newlines without a final one, first 8 hex
digits; an id is a file name without folder, extension and `_leftImg8bit`. Counts and checksums were computed from the
lists in the repositories named here. Some programs ship the same labelled ids under names of their own, and some use
the same labelled ids in pools of two sizes: then the number of unlabelled images tells them apart.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..documents import opened
from ..errors import UsageError
from .files import walked
from .lists import plain_ids

POOLS = {"voc": 10_582, "cityscapes": 2_975, "ade20k": 20_210, "coco": 118_287}
"""Training images of the published results: for VOC with those of SBD."""
OFFICIAL_VOC = 1_464
"""VOC's own training images, whose masks are clean; those of SBD are coarser."""
PREFIXES = {"voc": "voc", "city": "cityscapes"}
"""The layout by how a published name begins, up to its first hyphen."""
VARIABLE = "SEMISEG_LISTS"
LARGEST_LIST = 16 * 2**20
"""Bytes: larger text files are not taken for lists."""


@dataclass(frozen=True, slots=True)
class PublishedSplit:
    """One published list of labelled images, and the pool whose other images are unlabelled."""

    name: str
    layout: str
    """`voc` or `cityscapes`."""
    labeled: int
    pool: int
    """Labelled and unlabelled images together."""
    checksum: str
    share: Fraction | None
    """The nominal labelled share of the pool; None for the few-label lists, which are named by their count."""
    clean: tuple[int, int] | None
    """How many labelled ids are among VOC's official 1,464: the least and the most of the lists that share this size,
    the same number twice where it is known of this very list. None for Cityscapes, where all masks are fine."""
    shipped_by: tuple[str, ...]
    """Repositories that ship lists of this family."""

    @property
    def unlabeled(self) -> int:
        return self.pool - self.labeled

    @property
    def clean_share(self) -> tuple[float, float] | None:
        """`clean` as shares of the labelled ids, in [0, 1]."""
        return self.clean and (self.clean[0] / self.labeled, self.clean[1] / self.labeled)


def checksum(ids: Iterable[str]) -> str:
    """md5 of the sorted ids joined by newlines, first 8 hex digits."""
    return hashlib.md5("\n".join(sorted(ids)).encode(), usedforsecurity=False).hexdigest()[:8]


def _family(
    prefix: str, shipped_by: str, lists: dict[str, tuple], pool: int | None = None
) -> Iterator[tuple[str, PublishedSplit]]:
    """`lists`: share or count -> labelled, checksum and, for VOC, the clean ones (a number, or the least and most)."""
    layout = PREFIXES[prefix.partition("-")[0]]
    for suffix, (labeled, md5, *clean) in lists.items():
        yield (
            f"{prefix}-{suffix}",
            PublishedSplit(
                name=f"{prefix}-{suffix}",
                layout=layout,
                labeled=labeled,
                pool=pool or POOLS[layout],
                checksum=md5,
                share=Fraction(suffix) if "/" in suffix else None,
                clean=(clean[0], clean[-1]) if clean else None,
                shipped_by=tuple(shipped_by.split(", ")),
            ),
        )


_UNIMATCH = "UniMatch, UniMatch-V2"
_FEW = {
    "92": (92, "a263bde1", 92),
    "183": (183, "35d7cfa7", 183),
    "366": (366, "0345f520", 366),
}

SPLITS: dict[str, PublishedSplit] = dict(
    (
        *_family(
            "voc-original",
            f"{_UNIMATCH}, U2PL, ST++, iMAS, CorrMatch, PrevMatch, AllSpark, SemiVL",
            {**_FEW, "732": (732, "38ff2feb", 732), "1464": (1464, "68b6e0f9", 1464)},
        ),
        *_family(
            "voc-cps",
            "CPS, UniMatch, CorrMatch, PrevMatch, AllSpark, iMAS",
            {
                "1/16": (662, "be6f83c5", 93),
                "1/8": (1323, "ae121d03", 193),
                "1/4": (2646, "22873233", 388),
                "1/2": (5291, "fca1a3b4", 742),
            },
        ),
        # The few-label lists of CPS. Its repository pairs them with the official images alone; its paper's results come
        # from the whole pool (its author in issue 22), where 92, 183 and 366 are those of voc-original.
        *_family("voc-cps-pseudoseg", "CPS", {**_FEW, "732": (732, "caba96a8", 732)}, pool=OFFICIAL_VOC),
        *_family("voc-cps", "CPS", {"732": (732, "caba96a8", 732)}),
        *_family(
            "voc-u2pl",
            "U2PL, UniMatch, PrevMatch, AllSpark",
            {
                "1/16": (662, "76366136", 662),
                "1/8": (1323, "03dafb12", 1323),
                "1/4": (2646, "78ee3fd3", 1464),
                "1/2": (5291, "e888f0f1", 1464),
            },
        ),
        *_family(
            "voc-cac-0",
            "CAC, ST++",
            {
                "1/16": (662, "d0b94e8a", 85, 105),
                "1/8": (1323, "9cec728d", 177, 205),
                "1/4": (2645, "133ac88a", 335, 375),
                "1464": (1464, "68b6e0f9", 1464),
            },
        ),
        *_family(
            "voc-cac-1",
            "CAC, ST++",
            {
                "1/16": (662, "dddde548", 85, 105),
                "1/8": (1323, "b4fe6069", 177, 205),
                "1/4": (2645, "2ae0c615", 335, 375),
            },
        ),
        *_family(
            "voc-cac-2",
            "CAC, ST++",
            {
                "1/16": (662, "fb6a2104", 85, 105),
                "1/8": (1323, "14075724", 177, 205),
                "1/4": (2645, "08b120d9", 335, 375),
            },
        ),
        *_family(
            "city-cps",
            f"CPS, {_UNIMATCH}, CorrMatch, PrevMatch, AllSpark, SemiVL",
            {
                "1/16": (186, "11c432d4"),
                "1/8": (372, "6c66d883"),
                "1/4": (744, "6eccbc90"),
                "1/2": (1488, "5f14f489"),
            },
        ),
        *_family(
            "city-u2pl",
            "U2PL, iMAS",
            {
                "1/16": (186, "fb856f76"),
                "1/8": (372, "7b81e30e"),
                "1/4": (744, "5a287df1"),
                "1/2": (1488, "f36fd319"),
            },
        ),
        *_family("city-cac-0", "CAC, ST++", {"1/8": (372, "7b81e30e"), "1/4": (744, "945a7b13")}),
        *_family("city-cac-1", "CAC, ST++", {"1/8": (372, "b0704645"), "1/4": (744, "47f3ece4")}),
        *_family("city-cac-2", "CAC, ST++", {"1/8": (372, "36fcc24c"), "1/4": (744, "8e8f596f")}),
    )
)
"""Every published list by its name: data set, program, list number where there are several, share or count."""


def identify(labeled: Iterable[str], unlabeled: Iterable[str] | None = None) -> tuple[PublishedSplit, ...]:
    """All published splits with these labelled ids; with unlabelled ids, those whose pool has as many.

    Ids that are on both sides count as labelled: each pair of CPS's `pseudoseg` lists has one.
    """
    labeled = set(labeled)
    rest = None if unlabeled is None else len(set(unlabeled) - labeled)
    key = (len(labeled), checksum(labeled))
    fitting = (split for split in SPLITS.values() if (split.labeled, split.checksum) == key)
    return tuple(split for split in fitting if rest in (None, split.unlabeled))


def names_of_share(text: str, layout: str) -> tuple[str, ...]:
    """The published splits of a data set that a bare share or count, such as `1/8` or `92`, may mean."""
    listed = (split for split in SPLITS.values() if split.layout == layout)
    return tuple(s.name for s in listed if text in (str(s.share or s.labeled), str(s.labeled)))


def closest(labeled: int) -> tuple[PublishedSplit, ...]:
    """The published splits whose number of labelled ids is nearest."""
    distance = min(abs(split.labeled - labeled) for split in SPLITS.values())
    return tuple(split for split in SPLITS.values() if abs(split.labeled - labeled) == distance)


def lists_folder(given: Path | None) -> Path | None:
    """Where the user keeps published lists: the folder given, else `$SEMISEG_LISTS`."""
    folder = given or os.environ.get(VARIABLE)
    return Path(folder).expanduser() if folder else None


def find_lists(split: PublishedSplit, folder: Path | None) -> tuple[Path, Path | None]:
    """The user's copy of a published split at any depth of a folder: its labelled list, whose checksum is right, and
    the unlabelled one, or None if there is none.

    `folder` as in `lists_folder`. Raises UsageError, saying what is missing, where there is no labelled list.
    """
    what = f"{split.labeled:,} labelled ids with checksum {split.checksum}, shipped by {', '.join(split.shipped_by)}"
    folder = lists_folder(folder)
    if folder is None:
        raise UsageError(
            f"the split {split.name} is a published list ({what}) that is not part of semiseg: "
            f"say where a copy is with --lists FOLDER or ${VARIABLE}"
        )
    if not folder.is_dir():
        raise UsageError(f"--lists: {folder} is not a folder; pass the one that holds a copy of {split.name}")
    files = list(_text_files(folder))
    of_its_size = {path: checksum(ids) for path, ids in _lists(files, split.labeled, split.labeled)}
    copies = [path for path, md5 in of_its_size.items() if md5 == split.checksum]
    if not copies:
        others = "; ".join(f"{path} has {md5}" for path, md5 in list(of_its_size.items())[:3])
        raise UsageError(
            f"no list under {folder} is {split.name} ({what}); "
            f"of {len(files)} text files {len(of_its_size)} have as many ids{f' ({others})' if others else ''}: "
            "copy the list there"
        )
    labeled = set(plain_ids(copies[0]))
    # A list may repeat labelled ids; what it leaves beside them must be the rest of the pool.
    found = [
        (len(labeled.intersection(ids)), path)
        for path, ids in _lists(files, split.unlabeled, split.pool)
        if len(set(ids) - labeled) == split.unlabeled
    ]
    pairs = [(repeated, copy.parent != path.parent, copy, path) for repeated, path in found for copy in copies]
    return min(pairs)[2:] if pairs else (min(copies), None)


def _text_files(folder: Path) -> Iterator[Path]:
    for home, names in walked(folder):
        yield from (Path(home, name) for name in names if name.lower().endswith(".txt"))


def _lists(files: Iterable[Path], least: int, most: int) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The lists of `least` to `most` ids; lines are counted first, which is much faster than reading ids."""
    for path in files:
        try:
            with opened(path) as file:
                data = file.read(LARGEST_LIST + 1)
            if len(data) > LARGEST_LIST or not least <= data.count(b"\n") + 1 <= 2 * most + 1:
                continue
            ids = plain_ids(path)
        except (UsageError, OSError):  # some other text
            continue
        if least <= len(set(ids)) <= most:
            yield path, ids
