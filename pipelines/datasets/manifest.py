"""Preparing a data set: every file is decoded once, what cannot be trained with is refused, what decoders read
differently is converted into the cache, and sizes, hashes and label counts are kept. Later steps trust the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..cache import cache_root
from ..cores import cores
from ..errors import UsageError
from .dataset import IGNORE, Dataset, Remap, Sample

VERSION = 1
UPRIGHT = 1
_ORIENTATION_TAG = 0x0112
IMAGES, MASKS = "images", "masks"
"""Folders of converted files; masks whose values were mapped lie in one of their own, named by the `Remap`."""


@dataclass(frozen=True, slots=True)
class Record:
    """A verified sample, ready to be decoded: `image` is an 8-bit RGB JPEG or PNG to be read as stored (an orientation
    tag is not applied), `mask` an 8-bit gray PNG of class indices with 255 ignored, both of height x width."""

    id: str
    image: Path
    mask: Path | None
    height: int
    width: int


def sizes_of(records: Iterable[Record]) -> np.ndarray:
    """(N, 2) height and width of records."""
    return np.array([(record.height, record.width) for record in records])


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `prepare` knows of a data set."""

    dataset: Dataset
    folder: Path
    """The cache folder: `manifest.json` and the converted files."""
    records: dict[str, Record]
    """By sample id: train, val and extra."""
    histogram: tuple[int, ...]
    """Pixels of each class over all masks of the training pool."""
    ignored: int
    """Ignored pixels of the same masks."""


@dataclass(slots=True)
class Facts:
    """What decoding one file told."""

    size: int
    mtime_ns: int
    hash: str
    """blake2b of the file, 16 hex digits."""
    height: int
    width: int
    copy: str | None = None
    """The converted file, relative to the cache folder. Its name has the hash of what it was made from, so that it is
    never taken for the copy of another file."""
    orientation: int = UPRIGHT
    """The EXIF tag."""
    counts: dict[str, int] = field(default_factory=dict)
    """Of a mask: the pixels of each class index."""

    @property
    def mapping(self) -> str | None:
        """The name of the `Remap` that a mask's values went through."""
        folder = (self.copy or MASKS).partition("/")[0]
        return None if folder in (IMAGES, MASKS) else folder


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
    """The facts of all files of a data set by path, and every fault. `fresh` counts the files decoded for it."""

    facts: dict[str, Facts]
    faults: list[Fault]
    fresh: int


def prepare(
    dataset: Dataset,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Verify a data set and make it ready: the user's folder is only read, copies and the manifest go to the cache.

    Files whose size and time of change are those of the last manifest are not decoded again. `on_progress(done, total)`
    counts the files that are. Raises UsageError, in one line, for the first fault and the number of further ones.
    """
    folder = _folder(dataset, Path(cache) if cache else cache_root())
    known = _load(folder / "manifest.json")
    survey = survey_files(dataset, known=known, folder=folder, workers=workers, on_progress=on_progress)
    if survey.fresh:
        # Facts of files that are not wanted now stay: another mask folder or list may want them again.
        _save(folder / "manifest.json", known | survey.facts)
    if survey.faults:
        more = len(survey.faults) - 1
        tail = f" ({more} more fault{'s' if more > 1 else ''}: run `semiseg doctor` to see all)" if more else ""
        raise UsageError(f"{survey.faults[0]}{tail}")
    counts = label_counts(dataset.train, survey.facts)
    return Manifest(
        dataset=dataset,
        folder=folder,
        records={s.id: _record(s, survey.facts, folder) for s in (*dataset.train, *dataset.val, *dataset.extra)},
        histogram=tuple(int(n) for n in counts[: dataset.num_classes]),
        ignored=int(counts[IGNORE]),
    )


def survey_files(
    dataset: Dataset,
    *,
    known: dict[str, Facts] | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Decode every file of a data set that `known` does not vouch for. Converted copies are written below `folder`;
    without one nothing is written."""
    known = known or {}
    facts: dict[str, Facts] = {}
    faults: list[Fault] = []
    pending: list[tuple[Path, Callable[..., Facts | Fault], str]] = []
    for path, inspect, id, remap in _files(dataset):
        try:
            stat = os.stat(path)
        except OSError as error:
            faults.append(Fault("unreadable", path, f"cannot be read ({error.strerror})", "restore the file"))
            continue
        old = known.get(str(path))
        if (
            old
            and (old.size, old.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
            and (old.copy is None or folder is None or os.path.exists(folder / old.copy))
            and old.mapping == (remap and remap.name)
        ):
            facts[str(path)] = old
        else:
            pending.append((path, inspect, id))

    with ThreadPoolExecutor(workers or cores()) as threads:
        results = threads.map(lambda task: task[1](task[0], task[2], folder), pending)
        for done, ((path, *_), result) in enumerate(zip(pending, results), 1):
            if isinstance(result, Fault):
                faults.append(result)
            else:
                facts[str(path)] = result
            if on_progress:
                on_progress(done, len(pending))
    faults += _check_pairs(dataset, facts)
    return Survey(facts, faults, len(pending))


def label_counts(samples: Iterable[Sample], facts: dict[str, Facts]) -> np.ndarray:
    """Pixels of each label value, (256,) int64, over the masks of the samples."""
    counts = np.zeros(256, np.int64)
    for sample in samples:
        if sample.mask and (known := facts.get(str(sample.mask))):
            for value, pixels in known.counts.items():
                counts[int(value)] += pixels
    return counts


def _files(dataset: Dataset) -> Iterator[tuple[Path, Callable[..., Facts | Fault], str, Remap | None]]:
    for sample in (*dataset.train, *dataset.val, *dataset.extra):
        yield sample.image, _inspect_image, sample.id, None
        if sample.mask:
            yield sample.mask, partial(_inspect_mask, remap=sample.remap), sample.id, sample.remap


def _check_pairs(dataset: Dataset, facts: dict[str, Facts]) -> Iterator[Fault]:
    """Faults seen only beside another file: sizes, values outside the class list, two classes as 0 and 255."""
    classes = dataset.num_classes
    for sample in (*dataset.train, *dataset.val, *dataset.extra):
        mask = facts.get(str(sample.mask))
        if mask is None:
            continue
        image = facts.get(str(sample.image))
        if image and (image.height, image.width) != (mask.height, mask.width):
            text = f"is {mask.width}x{mask.height} but its image {sample.image} is {image.width}x{image.height}"
            yield Fault("size", sample.mask, text, "make them the same size, resizing masks by nearest neighbour")
        wrong = sorted(value for value in map(int, mask.counts) if classes <= value != IGNORE)
        if wrong:
            listed = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
            text = f"has label values {listed} but the {classes} classes are 0 to {classes - 1} (255 ignored)"
            yield Fault("values", sample.mask, text, "correct the mask or the class list")
    pixels = label_counts(dataset.train, facts)
    if classes == 2 and pixels[0] and pixels[IGNORE] and not pixels[1]:
        masks = (sample.mask for sample in dataset.train if str(sample.mask) in facts)
        mask = next(mask for mask in masks if str(IGNORE) in facts[str(mask)].counts)
        text = f"and the other training masks mark {dataset.classes[1]} by 255, which means ignore, and never by 1"
        yield Fault("binary", mask, text, "write 1 instead of 255 into the masks")


def _inspect_image(path: Path, id: str, folder: Path | None) -> Facts | Fault:
    """Decode an image. What all decoders read alike stays: 8-bit RGB in JPEG or PNG. The rest becomes an RGB PNG."""
    try:
        facts, data = _read(path)
        with Image.open(BytesIO(data)) as image:
            image.load()
            facts.height, facts.width = image.height, image.width
            facts.orientation = _orientation(image)
            depth = _png_header(data)[0] if image.format == "PNG" else 8
            plain = image.mode == "RGB" and image.format in ("JPEG", "MPO", "PNG")
            if not plain or depth != 8 or "transparency" in image.info:
                facts.copy = f"{IMAGES}/{id}-{facts.hash}.png"
                if folder:
                    _write_png(folder / facts.copy, _as_rgb(image))
        return facts
    except UsageError:
        raise
    except Exception as error:  # Pillow raises what it likes for broken files
        return _unreadable(path, error)


def _inspect_mask(path: Path, id: str, folder: Path | None, *, remap: Remap | None) -> Facts | Fault:
    """Decode a mask to class indices. An 8-bit gray PNG stays; palettes, other depths and other values become one."""
    try:
        facts, data = _read(path)
        with Image.open(BytesIO(data)) as image:
            image.load()
            facts.height, facts.width = image.height, image.width
            if image.format in ("JPEG", "MPO"):
                return Fault("lossy", path, "is a JPEG file, which changes label values", "save masks as PNG")
            if len(image.getbands()) > 1:
                text = f"has {len(image.getbands())} channels ({image.mode}) where a mask has one"
                return Fault("colours", path, text, _channel_cure(image))
            values, plain = _indices(image, data)
        if values.min() < 0 or values.max() > IGNORE:
            wrong = sorted(set(np.unique(values).tolist()) - set(range(IGNORE + 1)))
            text = f"has label values {', '.join(map(str, wrong[:8]))}, which no class has"
            return Fault("values", path, text, "masks hold class indices from 0 and 255 for ignore")
        values = values.astype(np.uint8)
        if remap:
            largest = int(values[values != IGNORE].max(initial=0))
            if largest > remap.largest:
                text = f"has the value {largest} but {remap.values} end at {remap.largest}"
                return Fault("values", path, text, remap.cure)
            values, plain = np.frombuffer(remap.table, np.uint8)[values], False
        if not plain:
            facts.copy = f"{remap.name if remap else MASKS}/{id}-{facts.hash}.png"
            if folder:
                _write_png(folder / facts.copy, Image.fromarray(values))
        pixels = np.bincount(values.ravel(), minlength=256)
        facts.counts = {str(value): int(pixels[value]) for value in np.flatnonzero(pixels)}
        return facts
    except UsageError:
        raise
    except Exception as error:
        return _unreadable(path, error)


def _read(path: Path) -> tuple[Facts, bytes]:
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        data = file.read()
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return Facts(stat.st_size, stat.st_mtime_ns, digest, 0, 0), data


def _unreadable(path: Path, error: Exception) -> Fault:
    reason = " ".join(str(error).split()) or type(error).__name__
    if "cannot identify image file" in reason:
        reason = "not an image"
    return Fault("unreadable", path, f"cannot be decoded ({reason})", "replace the file or take it out of the data set")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, UPRIGHT)
    except Exception:  # a broken tag spoils no pixel
        return UPRIGHT


def _png_header(data: bytes) -> tuple[int, int]:
    """Bit depth and colour type (0 gray, 2 RGB, 3 palette, 4 and 6 with alpha) from the IHDR chunk."""
    return data[24], data[25]


def _indices(image: Image.Image, data: bytes) -> tuple[np.ndarray, bool]:
    """The stored values of a one-channel image, and whether the file is a plain 8-bit gray PNG already."""
    values = np.asarray(image)
    if image.format == "PNG":
        depth, colour_type = _png_header(data)
        if colour_type == 0 and depth in (2, 4):  # Pillow stretches these to 0..255
            values = values // (255 // (2**depth - 1))
        return values.astype(np.int64), (depth, colour_type) == (8, 0) and "transparency" not in image.info
    return values.astype(np.int64), False


def _channel_cure(image: Image.Image) -> str:
    first, *others = (np.asarray(band) for band in image.convert("RGB").split())
    if all(np.array_equal(first, other) for other in others):
        return "its colours are gray, so save one channel as 8-bit gray PNG"
    return "convert colours to class indices (8-bit gray or palette PNG)"


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: keep the upper eight, as PNG decoders do
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    return image.convert("RGB")


def _record(sample: Sample, facts: dict[str, Facts], folder: Path) -> Record:
    image = facts[str(sample.image)]
    mask = facts[str(sample.mask)] if sample.mask else None
    return Record(
        id=sample.id,
        image=folder / image.copy if image.copy else sample.image,
        mask=folder / mask.copy if mask and mask.copy else sample.mask,
        height=image.height,
        width=image.width,
    )


def _folder(dataset: Dataset, cache: Path) -> Path:
    key = f"{dataset.root.resolve()}\n{dataset.num_classes}"
    return cache / f"{dataset.layout}-{hashlib.blake2b(key.encode(), digest_size=6).hexdigest()}"


def _load(path: Path) -> dict[str, Facts]:
    """The facts of the last manifest; none where it is missing, broken or of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return {}
        return {name: Facts(**facts) for name, facts in content["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _save(path: Path, facts: dict[str, Facts]) -> None:
    content = {"version": VERSION, "files": {name: asdict(fact) for name, fact in facts.items()}}
    _write_atomically(path, lambda file: file.write(json.dumps(content, separators=(",", ":")).encode()))


def _write_png(path: Path, image: Image.Image) -> None:
    _write_atomically(path, lambda file: image.save(file, "PNG", compress_level=1))


def _write_atomically(path: Path, write: Callable) -> None:
    """Write beside the target and rename, so that no reader and no other process ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{threading.get_ident()}-")
        try:
            with open(handle, "wb") as file:
                write(file)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot write to the cache {path.parent} ({reason}): set SEMISEG_CACHE elsewhere") from None
