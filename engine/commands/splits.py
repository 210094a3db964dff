"""The commands of `semiseg splits`: draw, identify, check and list."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ...pipelines.datasets.files import composed
from ...pipelines.datasets.lists import plain_ids, read_list
from ...pipelines.datasets.registry import SPLITS, PublishedSplit, checksum, closest
from ...pipelines.datasets.registry import identify as identify_ids
from ...pipelines.datasets.splits import check_lists, resolve_split
from ...pipelines.errors import UsageError, some_of
from .. import console
from ..disk import create_folder, write_text
from .options import Flat, Positional, Source, called, emit, summaries

SHOWN = 5  # ids of a fault that are printed; --json has all
UNKNOWN = 3  # exit code of `identify`


def run(arguments: list[str]) -> None:
    """`semiseg splits ARGUMENTS`. Raises UsageError."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help"):
        print("\n".join(["usage: semiseg splits COMMAND [--help] …", "", *summaries(COMMANDS)]))
    elif command in COMMANDS:
        called(COMMANDS[command], rest, f"semiseg splits {command}")
    else:
        raise UsageError(f"splits: there is no {command!r}; the commands are {', '.join(COMMANDS)}")


def draw(
    *,
    source: Flat[Source] = Source(),
    share: str = "1/8",
    seed: int = 0,
    out: Path,
    json: bool = False,
) -> None:
    """Draw a labelled and an unlabelled list from the training images that have masks.

    Args:
        source: Which data set.
        share: Labelled share (1/8) or count (30).
        seed: Of the draw; a smaller share of the same seed is part of a larger one.
        out: Folder for labeled.txt and, unless all are labelled, unlabeled.txt.
        json: Print one JSON document.
    """
    split = resolve_split(f"draw:{share}@{seed}", source.find())
    paths = [out / "labeled.txt", out / "unlabeled.txt"]
    for path in paths:
        if path.exists():
            raise UsageError(f"--out: {path} exists; choose another folder")
    create_folder(out)
    written = {path: ids for path, ids in zip(paths, (split.labeled, split.unlabeled), strict=True) if ids}
    for path, ids in written.items():
        write_text(path, "".join(f"{name}\n" for name in ids))
    console.say(
        f"{split.name} [{split.checksum}]: {', '.join(f'{len(ids)} in {path}' for path, ids in written.items())}"
    )
    if json:
        labeled, unlabeled = (str(path) if path in written else None for path in paths)
        emit({"name": split.name, "checksum": split.checksum, "labeled": labeled, "unlabeled": unlabeled})


def identify(labeled: Positional[Path], unlabeled: Positional[Path | None] = None, /, *, json: bool = False) -> None:
    """Say which published split list files are, in any published format. Exits with 3 if they are none.

    Args:
        labeled: The list of labelled images.
        unlabeled: The list of unlabelled images: its length tells splits with the same labelled images apart.
        json: Print one JSON document: names, dataset, labeled, unlabeled (counts).
    """
    chosen = set(plain_ids(labeled))
    rest = set(plain_ids(unlabeled)) if unlabeled else None
    found = identify_ids(chosen, rest)
    counts = {len(rest)} if rest is not None else {split.unlabeled for split in found}
    if json:
        emit(
            {
                "names": [split.name for split in found],
                "dataset": found[0].layout if found else None,
                "labeled": len(chosen),
                "unlabeled": counts.pop() if len(counts) == 1 else None,
            }
        )
    if not found:
        print(f"semiseg: {_unknown(labeled, chosen, rest)}", file=sys.stderr)
        sys.exit(UNKNOWN)
    for split in found:
        console.say(f"{split.name}: {_described(split)}")


def check(
    labeled: Positional[Path],
    unlabeled: Positional[Path | None] = None,
    /,
    *,
    source: Flat[Source] = Source(),
    val: Path | None = None,
    json: bool = False,
) -> None:
    """Look for leaks in list files: ids that occur twice, on both sides, in val, or nowhere. Exits with 2 if any.

    Args:
        labeled: The list of labelled images.
        unlabeled: The list of unlabelled images.
        source: The data set, to look for the images in it and for its validation images.
        val: A list of validation images.
        json: Print one JSON document.
    """
    dataset = source.find() if source.data or source.layout else None
    faults = check_lists(labeled, unlabeled, val=val, dataset=dataset)
    names = [s.name for s in identify_ids(plain_ids(labeled), plain_ids(unlabeled) if unlabeled else None)]
    known = {composed(sample.id) for sample in dataset.samples} if dataset else set()
    chosen, rest = (path and len({entry.image for entry in read_list(path, known)}) for path in (labeled, unlabeled))
    if json:
        shown = [asdict(fault) | {"file": str(fault.file)} for fault in faults]
        emit({"ok": not faults, "names": names, "labeled": chosen, "unlabeled": rest, "faults": shown})
    for fault in faults:
        console.say(f"{fault.file}: {len(fault.ids)} {fault.kind}: {some_of(fault.ids, SHOWN)}")
    if faults:
        sys.exit(2)
    said = f"{chosen:,} labelled" + ("" if rest is None else f" and {rest:,} unlabelled")
    console.say(f"{said} images, {' = '.join(names) or 'not a published split'}: no fault found")


def list_published(*, json: bool = False) -> None:
    """List the published splits that have names.

    Args:
        json: Print one JSON document.
    """
    if json:
        emit([asdict(split) | {"share": split.share and str(split.share)} for split in SPLITS.values()])
        return
    rows = [
        [s.name, s.checksum, f"{s.labeled:,}", f"{s.unlabeled:,}", clean_text(s), ", ".join(s.shipped_by)]
        for s in SPLITS.values()
    ]
    console.table("", ["split", "checksum", "labelled", "unlabelled", "clean", "shipped by"], rows)


COMMANDS: dict[str, Callable[..., None]] = {
    "draw": draw,
    "identify": identify,
    "check": check,
    "list": list_published,
}


def clean_text(split: PublishedSplit) -> str:
    """The share of clean labels in %, as a range where only that of several lists is known."""
    if split.clean_share is None:
        return ""
    low, high = (f"{100 * share:.0f}" for share in split.clean_share)
    return f"{low} %" if low == high else f"{low}-{high} %"


def _described(split: PublishedSplit) -> str:
    clean = f", {clean_text(split)} of the labelled ones clean" if split.clean else ""
    counts = f"{split.labeled:,} labelled and {split.unlabeled:,} unlabelled images"
    return f"{counts}{clean}, checksum {split.checksum}; shipped by {', '.join(split.shipped_by)}"


def _unknown(file: Path, labeled: set[str], unlabeled: set[str] | None) -> str:
    what = f"{file} has {len(labeled):,} ids with checksum {checksum(labeled)}"
    if same := identify_ids(labeled):
        named = ", ".join(f"{split.name} ({split.unlabeled:,})" for split in same)
        rest = len((unlabeled or set()) - labeled)
        return (
            f"{what}, the labelled ones of {named}, but the other list leaves {rest:,} unlabelled: no published split"
        )
    near = ", ".join(f"{split.name} ({split.labeled:,}, {split.checksum})" for split in closest(len(labeled)))
    return f"{what}: no published split; closest by their number: {near}"
