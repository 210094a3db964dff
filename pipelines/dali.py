"""The `dali` backend: executes plans with NVIDIA DALI, on a GPU (mixed decoding, GPU operators) or on CPU operators.

It agrees with `host`: labels bit for bit, because plans are stated in numbers that float32 holds exactly and no centre
of an output pixel falls on a border of source pixels; images up to the rounding of the two resizers.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from .batch import Windows
from .datasets.dataset import IGNORE
from .decode import COLOUR, LABEL, read
from .errors import UsageError
from .plan import DENOMINATOR, Plan, Planner, Stream
from .views import FILL

SAMPLES = 32  # operators wait for their slowest sample: below this many a batch, threads idle
AHEAD = 2  # batches of DALI's


class DaliBackend:
    """Runs a planner's plans. images and masks: one path a record (masks of unlabelled records are None).

    device_id: the CUDA device, None for CPU operators. threads: for each stream of images, 0 for one a core. Raises
    UsageError where DALI is not installed.
    """

    def __init__(
        self,
        images: Sequence[Path],
        masks: Sequence[Path | None],
        planner: Planner,
        *,
        device_id: int | None,
        threads: int = 0,
    ):
        if not find_spec("nvidia") or not find_spec("nvidia.dali"):
            cuda = (torch.version.cuda or "13").partition(".")[0]
            raise UsageError(
                f"backend dali: NVIDIA DALI is not installed; run `pip install nvidia-dali-cuda{cuda}0` "
                "or take --backend host"
            )
        self.images, self.masks, self.planner, self.device_id = images, masks, planner, device_id
        self.threads = threads or os.cpu_count() or 1
        largest = max(planner.batch, planner.unlabeled_batch if planner.views.unlabeled != "none" else 0)
        self.steps = 1 << max(SAMPLES // largest, 1).bit_length() - 1
        """Steps in one batch of DALI's."""

    def __call__(self, start: int) -> Iterator[tuple[Plan, Windows]]:
        """Plans and windows of steps start, start + 1, ... without end; the next steps are already worked on."""

        @lru_cache(maxsize=8)  # the pipelines and this loop ask for the same few iterations
        def plans(iteration: int) -> list[Plan]:
            first = start + iteration * self.steps
            return [self.planner(step) for step in range(first, first + self.steps)]

        streams = plans(0)[0].streams
        pipelines = [self._pipeline(plans, n) if len(stream.record) else None for n, stream in enumerate(streams)]
        for iteration in itertools.count():
            try:
                outputs = [self._run(pipeline) if pipeline else self._nothing() for pipeline in pipelines]
            except RuntimeError:
                # DALI does not name the file, which may be of an iteration that it works on ahead.
                self._blame(plan for ahead in range(AHEAD + 2) for plan in plans(iteration + ahead))
                raise
            for number, plan in enumerate(plans(iteration)):
                (labeled, target), *unlabeled = ([tensor[number] for tensor in tensors] for tensors in outputs)
                yield plan, Windows(labeled, target, tuple(view for views in unlabeled for view in views))

    def _run(self, pipeline) -> list[torch.Tensor]:
        """The outputs of the next iteration, steps first. Nothing is copied: tensors own the buffers as they live."""
        outputs = pipeline.run(None if self.device_id is None else torch.cuda.current_stream(self.device_id))
        return [torch.from_dlpack(output.as_tensor()).unflatten(0, (self.steps, -1)) for output in outputs]

    def _nothing(self) -> list[torch.Tensor]:
        """The outputs of a labelled stream without samples."""
        shape = self.steps, 0, self.planner.crop, self.planner.crop
        device = "cpu" if self.device_id is None else f"cuda:{self.device_id}"
        return [torch.empty(size, dtype=torch.uint8, device=device) for size in ((*shape, 3), shape)]

    def _blame(self, plans: Iterable[Plan]) -> None:
        """Decodes files one by one. Raises UsageError naming the first that has a fault."""
        for plan in plans:
            for record in plan.labeled.record:
                read(self.masks[record], LABEL, self.planner.sizes[record])
            for record in np.concatenate([stream.record for stream in plan.streams]):
                read(self.images[record], COLOUR, self.planner.sizes[record])

    def _pipeline(self, plans: Callable[[int], list[Plan]], number: int):
        """The pipeline of stream `number`, which makes its views and, of the labelled stream, the target."""
        from nvidia.dali import Pipeline, fn, types

        pattern, labeled, crop = plans(0)[0].streams[number], number == 0, [self.planner.crop] * 2
        decoder = "cpu" if self.device_id is None else "mixed"

        def source(iteration: int) -> list:
            return self._arguments([plan.streams[number] for plan in plans(iteration)], labeled)

        def window(region, offset, flip, fill):
            padded = fn.slice(
                region, start=offset, shape=crop, axes=[0, 1], out_of_bounds_policy="pad", fill_values=fill
            )
            return fn.flip(padded, horizontal=flip)

        pipeline = Pipeline(
            self.steps * len(pattern.record),
            self.threads,
            self.device_id,
            exec_dynamic=True,
            prefetch_queue_depth=AHEAD,
        )
        with pipeline:
            count = len(pattern.views)
            file, origin, size, end, extent, *rest = fn.external_source(source, 5 + 2 * count + labeled)
            views = list(zip(rest[:count], rest[count:], strict=False))
            # The region starts at the cut's corner and spans a whole number of output pixels, `step` / 1024 wide.
            region = {"size": extent, "roi_start": [0, 0], "roi_end": end}

            decode = partial(fn.decoders.image_slice, start=origin, shape=size, axes=[0, 1], device=decoder)
            image = decode(fn.io.file.read(file), adjust_orientation=False, jpeg_fancy_upsampling=True)
            kind = types.INTERP_CUBIC if pattern.cubic else types.INTERP_LINEAR
            image = fn.resize(image, **region, interp_type=kind, antialias=pattern.cubic)
            outputs = [window(image, offset, flip, FILL) for offset, flip in views]
            if labeled:
                target = decode(fn.io.file.read(rest[-1]), adjust_orientation=False, output_type=types.GRAY)
                target = fn.resize(target, **region, interp_type=types.INTERP_NN)
                outputs.append(fn.squeeze(window(target, *views[0], IGNORE), axes=[2]))
            pipeline.set_outputs(*outputs)
        return pipeline

    def _arguments(self, streams: list[Stream], labeled: bool) -> list:
        """What one batch of DALI's is told: files, the cut in source pixels, its extent and end, and each view."""

        def joined(parts, dtype):
            return np.ascontiguousarray(np.concatenate(list(parts)), dtype)

        views = list(zip(*(stream.views for stream in streams), strict=True))
        records = joined((stream.record for stream in streams), np.int64)
        return [
            [_text(self.images[record]) for record in records],
            joined((stream.origin for stream in streams), np.int32),
            joined((stream.source for stream in streams), np.int32),
            joined((stream.extent * stream.step[:, None] / DENOMINATOR for stream in streams), np.float32),
            joined((stream.extent for stream in streams), np.float32),
            *(joined((view.offset - view.pad for view in steps), np.int32) for steps in views),
            *(joined((view.flip for view in steps), np.int32) for steps in views),
            *([[_text(self.masks[record]) for record in records]] if labeled else []),
        ]


def _text(path: Path) -> np.ndarray:
    """A file's name as DALI takes it. Raises UsageError where it is gone: several such files at once crash DALI."""
    try:
        size = os.stat(path).st_size
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); restore it or run `semiseg prepare`") from None
    if not size:
        raise UsageError(f"{path}: is empty; run `semiseg doctor` and mend or remove it")
    return np.frombuffer(os.fsencode(path), np.uint8)
