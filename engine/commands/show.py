"""`semiseg show`."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...pipelines.datasets import prepare, seen
from ...pipelines.datasets.dataset import Dataset, Sample
from ...pipelines.datasets.lists import Names
from ...pipelines.datasets.manifest import Manifest
from ...pipelines.errors import UsageError
from ...pipelines.watch import Mark
from .. import console
from ..disk import whole
from ..events import progress_of
from ..sheet import Row, Share, draw, shares
from .options import Flat, Positional, Source, emit

MOST = 32
"""Images on one sheet."""


def show(
    ids: Positional[tuple[str, ...]],
    /,
    *,
    out: Path = Path("show.png"),
    source: Flat[Source] = Source(),
    json: bool = False,
) -> None:
    """Draw images as training sees them: picture, mask, overlay and the classes in it.

    Args:
        ids: Ids of images: their paths below the folder of the images, without extension.
        out: The PNG that is written, or written over.
        source: Which data set.
        json: Print one JSON document.
    """
    if not ids:
        raise UsageError("show: name the images, e.g. semiseg show --data ROOT --layout folder ID")
    if len(ids) > MOST:
        raise UsageError(f"show: {len(ids)} images do not fit on one sheet: name at most {MOST}")
    if out.suffix.lower() != ".png" or out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out: {out} cannot be a picture: name a .png file in a folder that is there")
    dataset = source.find()
    chosen = find_samples(dataset, ids)
    with console.listening() as listener:
        manifest = prepare(dataset, on_progress=progress_of("preparing", listener))
    for note in (*dataset.notes, *manifest.notes, *manifest.doubts):
        console.say(f"data: {note}")
    rows, documents = [], []
    for sample in chosen:
        picture, mask = seen(manifest, sample.id)
        held = shares(mask, dataset.classes) if mask is not None else []
        height, width = picture.shape[:2]
        rows.append(Row.of_sample(f"{sample.id}   {width} x {height}", picture, mask))
        documents.append(described(sample, manifest, held))
    sheet = draw(rows, dataset.classes, dataset.palette)
    with whole(out) as draft:
        sheet.save(draft, "PNG")
    if json:
        emit({"out": str(out), "images": documents})
    else:
        console.say(f"{', '.join(sample.id for sample in chosen)}: drawn into {out}")


def find_samples(dataset: Dataset, ids: tuple[str, ...]) -> list[Sample]:
    """The samples that are meant, as lists name them. Raises UsageError for one that is not there, naming near ones."""
    known = {sample.id: sample for sample in dataset.samples}
    names = Names.of(dataset.samples, dataset.root if dataset.lists_name_files else None)
    found = []
    for id in ids:
        match = names.match(id)
        if match is None:
            near = difflib.get_close_matches(id, known, n=3) or sorted(known)[:3]
            raise UsageError(f"{dataset.root} has no image {id!r}: the nearest of {len(known)} are {', '.join(near)}")
        found.append(known[match])
    return found


def described(sample: Sample, manifest: Manifest, held: list[Share]) -> dict[str, Any]:
    """What `--json` says of a sample: `source` paths are the user's, `read` ones what training decodes, and `turn` is
    the orientation, as EXIF counts, by which it then turns the pixels, 1 for not at all."""

    def file(source: Path | None, read: Path | None, mark: Mark) -> dict[str, Any]:
        return {"source": str(source), "read": str(read), "turn": mark.orientation}

    record, facts = manifest.records[sample.id], manifest.survey.image(sample)
    assert facts is not None  # what has a record was looked at
    assert record.image_mark is not None
    return {
        "id": sample.id,
        "height": record.height,
        "width": record.width,
        "orientation": facts.orientation,
        "image": file(sample.image, record.image, record.image_mark),
        "mask": file(sample.mask, record.mask, record.mask_mark) if record.mask_mark else None,
        "values": [asdict(share) for share in held],
    }
