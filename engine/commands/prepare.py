"""`semiseg prepare`."""

from __future__ import annotations

from .. import console
from ..data import pack_manifest, prepare_manifest
from ..events import tell
from .options import Flat, Source, emit


def prepare(*, source: Flat[Source] = Source(), verify: bool = False, pack: bool = False, json: bool = False) -> None:
    """Check a data set by decoding everything once, and convert its masks into the cache.

    Args:
        source: Which data set.
        verify: Read and decode every file again, whatever its date says, and make all that was converted anew.
        pack: Keep all pictures and masks decoded in the cache, for the backend `resident`.
        json: Print one JSON document.
    """
    dataset = source.find()
    with console.listening() as listener:
        tell("data", dataset.notes, listener)
        done = prepare_manifest(dataset, listener, verify=verify)
        packed = pack_manifest(done, listener).folder if pack else None
    histogram = dict(zip(dataset.classes, done.histogram, strict=True))
    labeled = sum(sample.mask is not None for sample in dataset.train)
    if json:
        emit(
            dict(
                folder=str(done.folder),
                pack=packed and str(packed),
                train=len(dataset.train),
                masks=labeled,
                val=len(dataset.val),
                classes=list(dataset.classes),
                histogram=histogram,
                notes=[*dataset.notes, *done.notes],
            )
        )
        return
    total = max(sum(done.histogram), 1)
    rows = [[name, f"{count}", f"{100 * count / total:.2f}"] for name, count in histogram.items()]
    console.table(f"{dataset.root}: pixels of the training masks", ["class", "pixels", "%"], rows)
    console.say(f"{len(dataset.train)} training images ({labeled} with masks), {len(dataset.val)} validation images")
    console.say(f"prepared in {done.folder}")
    if packed:
        console.say(f"packed in {packed}")
