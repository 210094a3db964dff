"""Preparing a data set: every file is decoded once, what cannot be trained with is refused, what decoders read
differently is converted into the cache, and sizes, hashes and label counts are kept. Later steps trust the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..cache import cache_root, write_atomically
from ..decode import COLOUR, LABEL, read
from ..errors import UsageError
from .dataset import IGNORE, Dataset, Sample
from .survey import Facts, Key, Survey, survey_files

VERSION = 2


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
    survey: Survey = field(repr=False, compare=False)
    """The facts of all files."""
    notes: tuple[str, ...] = ()
    """What was decided about the files, one line each, for the log."""

    def counts(self, ids: Iterable[str]) -> tuple[int, ...]:
        """Pixels of each class over the masks of these samples."""
        dataset, ids = self.dataset, set(ids)
        samples = (s for s in (*dataset.train, *dataset.val, *dataset.extra) if s.id in ids)
        return tuple(int(pixels) for pixels in self.survey.counts(samples)[: dataset.num_classes])


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
    counts = survey.counts(dataset.train)
    return Manifest(
        dataset=dataset,
        folder=folder,
        records={s.id: _record(s, survey, folder) for s in (*dataset.train, *dataset.val, *dataset.extra)},
        histogram=tuple(int(n) for n in counts[: dataset.num_classes]),
        ignored=int(counts[IGNORE]),
        survey=survey,
        notes=tuple(survey.notes),
    )


def seen(manifest: Manifest, id: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What training, evaluation and prediction see of a sample: its picture (H, W, 3) RGB uint8, and its mask (H, W)
    of class indices uint8, None without one."""
    record = manifest.records[id]
    size = record.height, record.width
    return read(record.image, COLOUR, size), read(record.mask, LABEL, size) if record.mask else None


def _record(sample: Sample, survey: Survey, folder: Path) -> Record:
    image, mask = survey.image(sample), survey.mask(sample) if sample.mask else None
    copy = image.stored if str(sample.image) in survey.stored else image.copy
    height, width = survey.size(sample)
    return Record(
        id=sample.id,
        image=folder / copy if copy else sample.image,
        mask=folder / mask.copy if mask and mask.copy else sample.mask,
        height=height,
        width=width,
    )


def _folder(dataset: Dataset, cache: Path) -> Path:
    key = f"{dataset.root.resolve()}\n{dataset.num_classes}"
    return cache / f"{dataset.layout}-{hashlib.blake2b(key.encode(), digest_size=6).hexdigest()}"


def _load(path: Path) -> dict[Key, Facts]:
    """The facts of the last manifest; none where it is missing, broken or of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            return {}
        return {(role, name): Facts(**one) for role, files in content["files"].items() for name, one in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _save(path: Path, facts: dict[Key, Facts]) -> None:
    files: dict[str, dict[str, dict]] = {}
    for (role, name), fact in facts.items():
        files.setdefault(role, {})[name] = asdict(fact)
    content = json.dumps({"version": VERSION, "files": files}, separators=(",", ":"))
    write_atomically(path, lambda file: file.write(content.encode()))
