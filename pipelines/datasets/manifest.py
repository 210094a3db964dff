"""Preparing a data set: every file is decoded once, what cannot be trained with is refused, what decoders read
differently is converted into the cache, and sizes, hashes and label counts are kept. Later steps trust the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..cache import cache_root
from ..decode import COLOUR, LABEL
from ..errors import UsageError
from ..progress import Progress, show_nothing
from ..watch import Mark, Watch
from .dataset import Dataset, Sample
from .facts import IMAGES, MERGED, Copy, Facts, Key, load_facts, save_facts
from .survey import Survey, survey_files


@dataclass(frozen=True, slots=True)
class Record:
    """A verified sample, ready to be decoded: `image` is an 8-bit RGB JPEG or PNG, `mask` an 8-bit gray PNG of class
    indices with 255 ignored, both of height x width as their marks say that they are turned."""

    id: str
    image: Path
    mask: Path | None
    height: int
    width: int
    image_mark: Mark | None = None
    mask_mark: Mark | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def watch_of(records: Iterable[Record]) -> Watch:
    """What notices that a file of these records is not the one that was prepared."""
    return Watch(
        {
            path: mark
            for record in records
            for path, mark in ((record.image, record.image_mark), (record.mask, record.mask_mark))
            if path and mark
        }
    )


def sizes_of(records: Iterable[Record]) -> np.ndarray:
    """(N, 2) height and width of records."""
    return np.array([record.size for record in records])


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
    survey: Survey = field(repr=False, compare=False)
    """The facts of all files."""
    notes: tuple[str, ...] = ()
    """What was decided about the files, one line each, for the log."""
    doubts: tuple[str, ...] = ()
    """What training and evaluation refuse although every file can be read and looked at, one line each: masks that
    contradict each other, so that no index is sure to mean its class."""

    def contents(self, ids: Iterable[str], *, masks: bool) -> str:
        """A checksum of what the files of these samples hold: of their pictures and, if `masks`, of their masks as they
        are read. Places and dates do not count."""
        digest, survey = hashlib.blake2b(digest_size=8), self.survey
        ids = set(ids)
        for sample in sorted((s for s in self.dataset.samples if s.id in ids), key=lambda sample: sample.id):
            told = [sample.id, self.picture(sample), str(str(sample.image) in survey.stored)]
            if masks and sample.mask and (mask := survey.mask(sample)):
                told += [mask.hash, json.dumps(mask.counts, sort_keys=True)]  # the counts are of what it is read as
                merged = survey.facts.get((MERGED, str(sample.mask)))
                told += [merged.mapping] if merged and merged.mapping else []
            digest.update("\n".join(told).encode() + b"\0")
        return digest.hexdigest()

    def picture(self, sample: Sample) -> str:
        """The hash of a sample's picture file."""
        return self.survey.facts[IMAGES, str(sample.image)].hash

    def pictures(self, ids: Iterable[str]) -> list[str]:
        """The hashes of the picture files of these samples, sorted."""
        ids = set(ids)
        return sorted(self.picture(sample) for sample in self.dataset.samples if sample.id in ids)

    def counts(self, ids: Iterable[str]) -> tuple[int, ...]:
        """Pixels of each class over the masks of these samples."""
        dataset, ids = self.dataset, set(ids)
        samples = (s for s in dataset.samples if s.id in ids)
        return tuple(int(pixels) for pixels in self.survey.counts(samples)[: dataset.num_classes])


def prepare(
    dataset: Dataset,
    *,
    cache: Path | None = None,
    threads: int = 0,
    verify: bool = False,
    on_progress: Progress = show_nothing,
) -> Manifest:
    """Verify a data set and make it ready: the user's folder is only read, copies and the manifest go to the cache.

    Files whose size and times of change are those of the last manifest are not read again, and those that hold the same
    bytes are not decoded again; verify: all are, every copy is made anew, and a note says what was another. threads: 0
    for one a core.
    `on_progress(done, total)` counts the files that are read. Raises UsageError, in one line, for the first fault and
    the number of further ones.
    """
    folder = _folder(dataset, Path(cache) if cache else cache_root())
    known = load_facts(folder / "manifest.json")
    damaged = [copy for facts in known.values() for copy in facts.copies if not copy.is_whole(folder)] if verify else []
    survey = survey_files(
        dataset, known={} if verify else known, folder=folder, threads=threads, on_progress=on_progress
    )
    if verify:
        survey.notes.append(_verified(survey, known, damaged))
    if survey.fresh:
        # Facts of files that are not wanted now stay: another mask folder or list may want them again.
        save_facts(folder / "manifest.json", known | survey.facts)
    if survey.faults:
        more = len(survey.faults) - 1
        tail = f" ({more} more fault{'s' if more > 1 else ''}: run `semiseg doctor` to see all)" if more else ""
        raise UsageError(f"{survey.faults[0]}{tail}")
    counts = survey.counts(dataset.train)
    return Manifest(
        dataset=dataset,
        folder=folder,
        records={s.id: _record(s, survey, folder) for s in dataset.samples},
        histogram=tuple(int(n) for n in counts[: dataset.num_classes]),
        survey=survey,
        notes=tuple(survey.notes),
        doubts=tuple(map(str, survey.doubts)),
    )


def seen(manifest: Manifest, id: str) -> tuple[np.ndarray, np.ndarray | None]:
    """What training, evaluation and prediction see of a sample: its picture (H, W, 3) RGB uint8, and its mask (H, W)
    of class indices uint8, None without one."""
    record = manifest.records[id]
    watch = watch_of([record])
    picture = watch.pixels(record.image, COLOUR, record.size)
    return picture, watch.pixels(record.mask, LABEL, record.size) if record.mask else None


def _verified(survey: Survey, known: dict[Key, Facts], damaged: list[Copy]) -> str:
    """What reading everything again has shown."""
    differing = (path for (role, path), facts in survey.facts.items() if _differs(known.get((role, path)), facts))
    changed = list(dict.fromkeys(differing))
    parts = (
        (changed, "{} of them hold{s} other bytes than when prepared last, {} for one"),
        ([copy.name for copy in damaged], "{} converted copies were damaged or missing and are made anew, {} for one"),
    )
    told = [text.format(len(names), names[0], s="s" if len(names) == 1 else "") for names, text in parts if names]
    count = len({path for _, path in survey.facts})
    return f"{count} files were read again: {'; '.join(told) or 'all are as they were'}"


def _differs(before: Facts | None, now: Facts) -> bool:
    return before is not None and before.hash != now.hash


def _record(sample: Sample, survey: Survey, folder: Path) -> Record:
    def used(path: Path, facts: Facts) -> tuple[Path, Mark]:
        copy, mark = survey.used(path, facts)
        return folder / copy.name if copy else path, mark

    of_image = survey.facts[IMAGES, str(sample.image)]
    image, image_mark = used(sample.image, of_image)
    mask, mask_mark = sample.mask, None
    if sample.mask and (of_mask := survey.mask(sample)):
        mask, mask_mark = used(sample.mask, of_mask)
    return Record(sample.id, image, mask, *survey.size(sample.image, of_image), image_mark, mask_mark)


def _folder(dataset: Dataset, cache: Path) -> Path:
    key = f"{dataset.root.resolve()}\n{dataset.num_classes}"
    return cache / f"{dataset.layout}-{hashlib.blake2b(key.encode(), digest_size=6).hexdigest()}"
