"""Predictions for the pictures of a folder: which these are, what is written for each, and under which name."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ...pipelines.datasets.dataset import IMAGE_SUFFIXES
from ...pipelines.datasets.files import PREDICTED, check_name, find_pictures
from ...pipelines.datasets.pairs import masks_among
from ...pipelines.decode import COLOUR, READING_OPTIONS, Reading, read
from ...pipelines.errors import UsageError
from ...pipelines.watch import hash_of
from ..checkpoint import Header, checkpoint_file
from ..device import as_started
from ..disk import create_folder, whole
from ..events import Event, Listener, silent, tell
from ..pictures import coloured, overlay
from ..run import home_of, uses_of
from .confidence import FILE, HEADER, UNKNOWN, Confidence, clear, write_csv
from .inference import without_none
from .review import FILE as PAGE
from .review import HEAD, Review
from .segmenter import Segmenter

LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""


class Predictions(NamedTuple):
    """What `predict` has done."""

    out: Path
    """The folder of masks/, colours/, overlays/, confidence.csv and review.html."""
    images: int
    """Those that were predicted."""
    failed: dict[Path, str]
    """Files that could not be read, and why."""
    confidences: Sequence[Confidence] = ()
    """One of each other image, the least sure first, as in confidence.csv."""

    @property
    def table(self) -> Path:
        """confidence.csv."""
        return self.out / FILE

    @property
    def page(self) -> Path:
        """review.html."""
        return self.out / PAGE

    def to_dict(self) -> dict[str, Any]:
        """For JSON: where things are, and which files failed."""
        places = {"out": self.out, "confidence": self.table, "review": self.page}
        told = {name: str(place) for name, place in places.items()}
        return told | {"images": self.images, "failed": [str(path) for path in self.failed]}


@as_started()
def predict(
    checkpoint: Path | str,
    images: Path | str,
    out: Path | str | None = None,
    *,
    layout: str | None = None,
    protocol: str | None = None,
    files: Mapping[str, Any] | None = None,
    write: str | Collection[str] = PREDICTED,
    device: str = "auto",
    precision: str | None = None,
    on_event: Listener = silent,
    **settings: Any,
) -> Predictions:
    """Writes masks/ (label values, or gray levels, as in masks of the data set), colours/, with the class list, and
    overlays/ for every image below `images`, or for that one image, into `out` (default: predictions/ beside the
    checkpoint's run), and at last confidence.csv: a `Confidence` a row, the least sure image first; and review.html,
    which shows the first ones. Of several, a file that cannot be read does not stop the others. Pictures are found as
    for training; masks among them, and what was predicted into `out` before, are passed over. Pictures of an earlier
    prediction for other images stay, and a note says so.

    checkpoint, layout: as `load_network` takes them. protocol, precision, settings: as in `evaluate`. files:
    `orientation` and `max_megapixels` of `find_dataset` where they are not to be as in training. write: which of masks,
    colours and overlays are written, possibly none. The folders of the others are there, too, by which a prediction is
    known; what an earlier one wrote into them for the same images is taken away.
    """
    kinds = _kinds(write)
    segmenter = Segmenter(checkpoint, layout=layout, protocol=protocol, device=device, precision=precision, **settings)
    header = segmenter.header
    images, file = Path(images), checkpoint_file(checkpoint)
    out = home_of(file) / "predictions" if out is None else Path(out)
    reading = _reading(header, files)
    sources = _images(images, out, on_event)
    if images.is_file():
        read(images, COLOUR, reading=reading)  # what is no picture is refused, and nothing begun
    home = images if images.is_dir() else images.parent
    names = _names([source.relative_to(home) for source in sources])
    _check_out(out, names)
    _begin(out, header)
    tell("predictions", _of_earlier(out, names), on_event)
    failed: dict[Path, str] = {}
    rows, uses, review = [], uses_of(file), Review(header.classes, header.palette)
    for done, (source, name) in enumerate(zip(sources, names, strict=True), 1):
        try:
            image = read(source, COLOUR, reading=reading)
            mask, sure, _ = segmenter(image, name=str(source))
        except UsageError as error:
            failed[source] = str(error)
            for kind in PREDICTED:  # one of another picture that was called so
                (out / kind / name).unlink(missing_ok=True)
        else:
            _write(out, name, image, mask, header, kinds)
            use = uses.get(hash_of(source.read_bytes()), "") if uses else UNKNOWN
            rows.append(Confidence.of(source.relative_to(home).as_posix(), mask, sure, header.classes, use))
            review.look_at(rows[-1], image, mask, sure)
        on_event(Event("progress", "predicting", done, len(sources)))
    review.write(out / PAGE, f"{images}, seen by {file}")
    return Predictions(out, len(sources) - len(failed), failed, write_csv(out / FILE, rows))


def _kinds(write: str | Collection[str]) -> set[str]:
    """The pictures that are to be written. Raises UsageError for some that there are not."""
    if not isinstance(write, Collection):
        raise UsageError(f"--write: must be of {', '.join(PREDICTED)}, is {write}")
    kinds = {write} if isinstance(write, str) else set(write)
    if unknown := sorted(map(repr, kinds.difference(PREDICTED))):
        raise UsageError(f"--write: must be of {', '.join(PREDICTED)}, is {unknown[0]}")
    return kinds


def _reading(header: Header, files: Mapping[str, Any] | None) -> Reading:
    """How pictures are read: as in training, but for what is said. Raises UsageError for what is no such option."""
    if unknown := [name for name in files or {} if name not in READING_OPTIONS]:
        raise UsageError(f"files: {unknown[0]} is not how pictures are read; there are {', '.join(READING_OPTIONS)}")
    # Training turns no picture, whatever it is told, where masks fit the stored pixels alone.
    taught = {"orientation": "ignore"} if header.as_stored else {}
    return Reading.of(without_none(header.files) | taught | without_none(files))


def _begin(out: Path, header: Header) -> None:
    """The folders, without table and page of an earlier prediction, and the class list."""
    clear({out / FILE: HEADER, out / PAGE: HEAD})
    for kind in PREDICTED:
        create_folder(out / kind)
    listed = zip(_values(header), header.classes, header.palette, strict=True)
    with whole(out / "colours" / "classes.txt") as draft:
        # With their values: names that begin or end with numbers might be read as if those were.
        lines = (f"{value}\t{name}\t#{bytes(colour).hex()}\n" for value, name, colour in listed)
        draft.write_text("".join(lines), encoding="utf-8")


def _values(header: Header) -> tuple[int, ...]:
    """The label value of each class."""
    return header.values or tuple(range(len(header.classes)))


def _write(out: Path, name: Path, image: np.ndarray, mask: np.ndarray, header: Header, kinds: Collection[str]) -> None:
    """The pictures of these kinds of one image (H, W, 3) and its class indices (H, W); those of others, which would be
    of an earlier prediction, are taken away."""
    drawn: dict[str, Callable[[], np.ndarray]] = {
        "masks": lambda: np.array(header.levels or _values(header), np.uint8)[mask],
        "colours": lambda: coloured(mask, header.palette),
        "overlays": lambda: overlay(image, mask, header.palette),
    }
    for kind, draw in drawn.items():
        path = out / kind / name
        if kind not in kinds:
            path.unlink(missing_ok=True)
            continue
        create_folder(path.parent)
        with whole(path) as draft:
            # Level 1 takes a third of the time of the usual 6, and a tenth more bytes.
            Image.fromarray(draw()).save(draft, "PNG", compress_level=1)


def _names(images: Sequence[Path]) -> list[Path]:
    """A name for the pictures of each image, all different: its own as a PNG; with its extension too where it is
    shared, and everywhere where even that would give a name to two."""
    short = [image.with_name(f"{image.stem}.png") for image in images]
    long = [_shortened(image.with_name(f"{image.name}.png")) for image in images]
    shared = Counter(short)
    names = [one if shared[one] == 1 else other for one, other in zip(short, long, strict=True)]
    return names if len(set(names)) == len(names) else long


def _shortened(path: Path) -> Path:
    """A path whose name is too long for file systems, with a checksum for its end."""
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path
    checksum = hashlib.blake2b(name, digest_size=6).hexdigest()
    return path.with_name(f"{name[: LONGEST_NAME - 20].decode(errors='ignore')}-{checksum}.png")


def _check_out(out: Path, names: Sequence[Path]) -> None:
    """Raises UsageError where predictions would come between or over files that no prediction has written."""
    for kind in PREDICTED:
        folders = {out / kind, *(out / kind / parent for name in names for parent in name.parents)}
        for folder in sorted(folders):
            if folder.is_symlink():
                raise UsageError(f"--out: {folder} is a link to another folder: remove it, or choose another folder")
    there = {kind for kind in PREDICTED if (out / kind).exists()}
    strange = sorted(kind for kind in there if any((out / kind).iterdir()))
    if strange and there != set(PREDICTED):  # which a prediction makes before its first picture
        raise UsageError(f"--out: {out / strange[0]} holds what no prediction wrote: choose another folder")


def _of_earlier(out: Path, names: Collection[Path]) -> Iterator[str]:
    """A note where an earlier prediction left pictures of other images, which this one does not replace."""
    there = ((path, path.relative_to(out / kind)) for kind in PREDICTED for path in (out / kind).rglob("*.png"))
    if others := {name for path, name in there if path.is_file()}.difference(names):
        yield (
            f"an earlier one's pictures of other images ({len(others)}) stay, {min(others)} for one, and may "
            "be of another network: pass another --out, or remove the folder, to keep these apart"
        )


def _images(path: Path, out: Path, on_event: Listener) -> list[Path]:
    """The pictures to predict: all below a folder but masks and what is in `out`, or the one."""
    check_name(str(path))
    if path.is_file():
        return [path]
    if not path.is_dir():
        what = "is neither a folder nor a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}: pass a folder of images or one image")
    # A folder of results is one of pictures, too, for who names it; but not what is in `out`.
    found = find_pictures(path, apart=[out / kind for kind in PREDICTED], results=True)
    masks = masks_among(found.names)
    notes = list(found.notes())
    if masks:
        notes.append(f"{len(masks)} pictures in {path} are masks or drawings of some, and passed over: {min(masks)}, …")
    tell("images", notes, on_event)
    sources = [path / name for name in found.names if name not in masks]
    if not sources:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        more = f"; {notes[0]}" if notes else ""
        raise UsageError(f"{path}: no images there ({known}){more}; pass a folder of images or one image")
    return sources
