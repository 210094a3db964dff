"""Check the backends on one device: the same plans over the same photographs, against `host`:

    python -m semiseg.pipelines.check [--json] [--device cuda] [--backend dali ...]

Labels bit for bit. Images within a grey level but at steep edges, or, where another decoder has another inverse DCT and
another interpolation of chroma, a few grey levels here and there.

Exit code: 0; 1 if a backend is wrong or fails (its row says how); 2 for a call that cannot be understood. A decoder
that crashes takes the process with it: who goes on afterwards runs this in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..kernels.check import Result, table
from .backends import BACKENDS, DECODING, PLAIN, available, open_backend
from .batch import Windows
from .datasets.dataset import IGNORE
from .datasets.manifest import Record, sizes_of
from .decode import UPRIGHT, turned_back
from .errors import UsageError
from .plan import Planner
from .views import KINDS, Augmentation, Drawing, Filter, ViewSpec
from .watch import Mark, hash_of, stamp_of

SIZES = ((375, 500), (500, 333), (101, 83), (257, 301), (64, 200), (211, 150), (199, 127))
"""Sizes of the photographs: larger and smaller than a window, odd sides."""
TURNED = {5: 6}
"""Orientations of photographs, and their masks, that are not stored as they are seen, by their number."""
FILTERS: tuple[Filter, ...] = get_args(Filter)
STEPS = 4


def photographs(folder: Path) -> list[Record]:
    """Writes pictures: smooth noise, edges and grain, six JPEGs with chroma at half the resolution, of which one is
    turned, and a PNG; and masks of nine regions and 255."""
    records = []
    for number, (height, width) in enumerate(SIZES):
        rng = np.random.default_rng(number)
        coarse = rng.uniform(0, 255, (height // 40 + 2, width // 40 + 2, 3)).astype(np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        regions = cv2.resize(coarse[..., 0], (width, height), interpolation=cv2.INTER_LINEAR) // 28
        grain = rng.normal(0, 3, (height, width, 1))
        photo = np.clip(0.5 * smooth + 12 * regions[..., None] + grain, 0, 255).astype(np.uint8)
        mask = regions.astype(np.uint8)
        mask[mask == 5] = IGNORE
        last = number == len(SIZES) - 1
        image, target = folder / f"{number}{'-image.png' if last else '.jpg'}", folder / f"{number}.png"
        form: dict[str, Any] = {} if last else {"quality": 92, "subsampling": "4:2:0"}
        orientation = TURNED.get(number, UPRIGHT)
        Image.fromarray(turned_back(photo, orientation)).save(image, **form)
        Image.fromarray(turned_back(mask, orientation)).save(target)
        files = (image, target) if number in TURNED else ()
        marks = (Mark(stamp_of(os.stat(path)), hash_of(path.read_bytes()), orientation) for path in files)
        records.append(Record(str(number), image, target, height, width, *marks))
    return records


def check(name: str, device: torch.device, threads: int = 2) -> list[Result]:
    """Executes the same plans with the backend `name` and with `host`, in all kinds of views.

    Returns a result for each filter, whose error is the mean difference of images in grey levels; one that is wrong, or
    raises, has a `problem`, and the others go on.
    """
    with tempfile.TemporaryDirectory() as folder:
        records = photographs(Path(folder))
        return [_check(name, device, threads, filter, records, Path(folder)) for filter in FILTERS]


def _check(
    name: str, device: torch.device, threads: int, filter: Filter, records: Sequence[Record], folder: Path
) -> Result:
    result = partial(Result, operator=f"{name} {filter}", device=str(device), dtype="uint8", implementation=name)
    began = time.perf_counter()
    differences, other_decoder = [], device.type == "cuda" and name in DECODING
    try:
        for kind in KINDS:
            ours, plain = (
                open_backend(one, records, device, threads, folder=folder)(
                    map(_planner(records, kind, filter), count())
                )
                for one in (name, PLAIN)
            )
            for _, (_, theirs), (_, expected) in zip(range(STEPS), ours, plain):
                if wrong := int((theirs.target.cpu() != expected.target).sum()):
                    raise ValueError(f"{wrong} of {expected.target.numel()} labels are others than those of {PLAIN}")
                pairs = zip(_images(theirs), _images(expected), strict=True)
                differences += [(one.cpu().int() - other.int()).abs().flatten() for one, other in pairs]
    except Exception as error:
        raised = "" if isinstance(error, (UsageError, ValueError)) else f"{type(error).__name__}: "
        return result(problem=f"{raised}{' '.join(str(error).split())[:300]}")
    difference = torch.cat(differences).float()
    allowed, problem = _judged(difference, filter, other_decoder)
    seconds = time.perf_counter() - began
    return result(error=difference.mean().item(), allowed=allowed, seconds=seconds, problem=problem)


def _judged(difference: Tensor, filter: str, other_decoder: bool) -> tuple[float, str | None]:
    """What the mean difference may be, and what is wrong with the differences, in grey levels."""
    mean, most = difference.mean().item(), int(difference.max())
    if other_decoder:
        allowed, near, share, largest = 1.0, 3, 0.99, 255
    elif filter == "linear":
        allowed, near, share, largest = 0.25, 1, 0.0, 1
    else:  # but for steep edges, where the weights of a wider filter differ, and resizers clip
        allowed, near, share, largest = 0.25, 1, 0.99, 20
    close = (difference <= near).float().mean().item()
    if mean > allowed:
        return allowed, f"its images are {mean:.2g} grey levels from those of {PLAIN} on average, may be {allowed:.2g}"
    if close < share or most > largest:
        return allowed, f"{1 - close:.2%} of its grey levels are more than {near} from those of {PLAIN}, one is {most}"
    return allowed, None


def _images(windows: Windows) -> Iterator[Tensor]:
    yield from (windows.labeled, *windows.unlabeled)


def _planner(records: Sequence[Record], kind: str, filter: Filter) -> Planner:
    """Two labelled and two unlabelled windows of 128 a step."""
    augmentation = Augmentation(filter=filter, range=(0.8, 2.0), jitter=0.8, gray=0.2, blur=0.5)
    drawing = Drawing(
        views=ViewSpec(unlabeled=kind),
        crop=128,
        batch=2,
        unlabeled_batch=2,
        labeled=augmentation,
        unlabeled=augmentation,
        seed=0,
        fill=(124, 116, 104),
    )
    everything = range(len(records))
    return Planner(sizes_of(records), everything, everything, drawing)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m semiseg.pipelines.check", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument(
        "--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1"
    )
    others = [name for name in available() if name != PLAIN]
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=others, help="default: all that are there")
    options = parser.parse_args(arguments)
    results = [result for name in options.backend for result in check(name, options.device)]
    print(json.dumps({"results": [asdict(result) for result in results]}) if options.json else table(results))
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    sys.exit(main())
