"""The `dali` backend: executes plans with NVIDIA DALI, on a GPU (mixed decoding, GPU operators) or on CPU operators.

It agrees with `host`: targets bit for bit, because plans are stated in numbers that float32 holds exactly and no centre
of an output pixel falls on a border of source pixels; images up to a grey level, but for one in some hundred at the
steep edges of photographs, where `cubic` and `antialiased` differ by up to a dozen: DALI's weights are not exact.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import torch

from .batch import Windows
from .cores import cores
from .datasets.dataset import IGNORE
from .datasets.manifest import Record, watch_of
from .decode import COLOUR, LABEL, UPRIGHT
from .errors import UsageError
from .plan import DENOMINATOR, Plan, Stream

SAMPLES = 32  # operators wait for their slowest sample: below this many a batch, threads idle
AHEAD = 2  # batches of DALI's
BUSY = 3  # cores that something else is done on
READERS = 16  # threads that wait for files, which take milliseconds each where they lie on another machine


def installed() -> bool:
    """Whether NVIDIA DALI is there."""
    return bool(find_spec("nvidia") and find_spec("nvidia.dali"))


class DaliBackend:
    """Executes plans over prepared records.

    device_id: the CUDA device, None for CPU operators. threads: as in `threads_each`. whole: decode whole images and
    cut them then, which is more work, for decoders that cannot be trusted with a part of an image. Raises UsageError
    where DALI is not installed.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        device_id: int | None,
        threads: int = 0,
        whole: bool = False,
    ):
        if not installed():
            cuda = (torch.version.cuda or "13").partition(".")[0]
            raise UsageError(
                f"backend dali: NVIDIA DALI is not installed; run `pip install nvidia-dali-cuda{cuda}0` "
                "or take --backend host"
            )
        self.records, self.device_id, self.threads, self.whole = records, device_id, threads, whole
        self.decoders = BoundedSemaphore(threads or cores())  # of the readers, those that decode
        # DALI crashes on smaller files than were prepared, and cuts wrong windows from larger ones.
        self.watch = watch_of(records)

    def __call__(self, plans: Iterator[Plan]) -> Generator[tuple[Plan, Windows], None, None]:
        """Plans and their windows; the next ones are already worked on. Raises UsageError for a changed file."""
        first = next(plans)
        steps = steps_together(first)
        plans = itertools.chain((first,), plans)
        # Each pipeline, at its own pace, and this loop go through the same batches of plans.
        batches, *copies = itertools.tee(
            iter(lambda: tuple(itertools.islice(plans, steps)), ()),
            1 + sum(len(stream.record) > 0 for stream in first.streams),
        )
        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as readers:
            pipelines = [
                self._pipeline(copies.pop(), first, number, steps, readers) if len(stream.record) else None
                for number, stream in enumerate(first.streams)
            ]
            for batch in batches:
                try:
                    outputs = [
                        self._run(pipeline, steps) if pipeline else self._nothing(first, steps)
                        for pipeline in pipelines
                    ]
                except RuntimeError:
                    # DALI does not name the file, which may be of a batch that it works on ahead.
                    self._blame(itertools.chain(batch, *itertools.islice(batches, AHEAD + 1)))
                    raise
                for number, plan in enumerate(batch):
                    (labeled, target), *unlabeled = ([tensor[number] for tensor in tensors] for tensors in outputs)
                    yield plan, Windows(labeled, target, tuple(view for views in unlabeled for view in views))

    def _blame(self, plans: Iterable[Plan]) -> None:
        """Decodes files one by one. Raises UsageError naming the first that has a fault."""
        for plan in plans:
            for record in (self.records[number] for number in plan.labeled.record):
                if record.mask:
                    self.watch.pixels(record.mask, LABEL, record.size)
            for record in (self.records[number] for stream in plan.streams for number in stream.record):
                self.watch.pixels(record.image, COLOUR, record.size)

    def _run(self, pipeline, steps: int) -> list[torch.Tensor]:
        """The next outputs, steps first."""
        if self.device_id is None:  # nothing is copied: tensors own the buffers as long as they live
            return [torch.from_dlpack(output.as_tensor()).unflatten(0, (steps, -1)) for output in pipeline.run()]
        stream = torch.cuda.current_stream(self.device_id)
        device = torch.device("cuda", self.device_id)
        return [copied(output.as_tensor(), device, stream).unflatten(0, (steps, -1)) for output in pipeline.run(stream)]

    def _nothing(self, plan: Plan, steps: int) -> list[torch.Tensor]:
        """The outputs of a labelled stream without samples."""
        shape = steps, 0, plan.crop, plan.crop
        device = "cpu" if self.device_id is None else f"cuda:{self.device_id}"
        return [torch.empty(size, dtype=torch.uint8, device=device) for size in ((*shape, 3), shape)]

    def _pipeline(
        self,
        batches: Iterator[tuple[Plan, ...]],
        first: Plan,
        number: int,
        steps: int,
        readers: ThreadPoolExecutor,
    ):
        """The pipeline of stream `number`, which makes its views and, of the labelled stream, the target."""
        from nvidia.dali import Pipeline, fn, types

        pattern, labeled, crop = first.streams[number], number == 0, [first.crop] * 2
        options = {
            "device": "cpu" if self.device_id is None else "mixed",
            "affine": False,
            "adjust_orientation": False,
        }

        def source() -> list:
            return self._arguments([plan.streams[number] for plan in next(batches)], labeled, readers)

        def decode(file, origin, **more):
            cut = {"start": origin, "shape": size, "axes": [0, 1]}
            if self.whole:
                return fn.slice(fn.decoders.image(file, **options, **more), **cut)
            return fn.decoders.image_slice(file, **cut, **options, **more)

        def window(region, offset, flip, fill):
            padded = fn.slice(
                region, start=offset, shape=crop, axes=[0, 1], out_of_bounds_policy="pad", fill_values=fill
            )
            return fn.flip(padded, horizontal=flip)

        pipeline = Pipeline(
            steps * len(pattern.record),
            threads_each(self.threads, sum(len(stream.record) > 0 for stream in first.streams), self.device_id),
            self.device_id,
            exec_dynamic=True,
            prefetch_queue_depth=AHEAD,
        )
        with pipeline:
            count = len(pattern.views)
            file, origin, size, end, extent, *rest = fn.external_source(source, 5 + 2 * count + 2 * labeled)
            views = list(zip(rest[:count], rest[count : 2 * count], strict=True))
            # The region starts at the cut's corner and spans a whole number of output pixels, `step` / 1024 wide.
            region: dict[str, Any] = {"size": extent, "roi_start": [0, 0], "roi_end": end}

            image = decode(file, origin, jpeg_fancy_upsampling=True)
            kinds = types.DALIInterpType
            kind = kinds.INTERP_CUBIC if pattern.filter == "cubic" else kinds.INTERP_LINEAR
            image = fn.resize(image, **region, interp_type=kind, antialias=pattern.filter != "linear")
            outputs = [window(image, offset, flip, pattern.fill) for offset, flip in views]
            if labeled:
                target = decode(*rest[-2:], output_type=types.DALIImageType.GRAY)
                target = fn.resize(target, **region, interp_type=kinds.INTERP_NN)
                outputs.append(fn.squeeze(window(target, *views[0], IGNORE), axes=[2]))
            pipeline.set_outputs(*outputs)
        return pipeline

    def _arguments(self, streams: list[Stream], labeled: bool, readers: ThreadPoolExecutor) -> list:
        """What one batch of DALI's is told: encoded files, cuts in source pixels, extents and ends, each view, and of
        the labelled stream the masks, with corners of their own."""

        def joined(parts, dtype):
            return np.ascontiguousarray(np.concatenate(list(parts)), dtype)

        views = list(zip(*(stream.views for stream in streams), strict=True))
        records = [self.records[number] for stream in streams for number in stream.record]
        origins = joined((stream.origin for stream in streams), np.int32)
        sources = joined((stream.source for stream in streams), np.int32)
        sizes = [record.size for record in records]

        def files(paths: list[Any], flags: int) -> tuple[list[np.ndarray], np.ndarray]:
            """Encoded files, and where their cuts begin."""
            encoded = list(readers.map(self._encoded, paths, itertools.repeat(flags), sizes, origins, sources))
            turned = np.array([self.watch.orientation(path) != UPRIGHT for path in paths])
            return encoded, np.where(turned[:, None], np.int32(0), origins)

        images, image_origins = files([record.image for record in records], COLOUR)
        return [
            images,
            image_origins,
            sources,
            joined((stream.extent * stream.step[:, None] / DENOMINATOR for stream in streams), np.float32),
            joined((stream.extent for stream in streams), np.float32),
            *(joined((view.offset - view.pad for view in steps), np.int32) for steps in views),
            *(joined((view.flip for view in steps), np.int32) for steps in views),
            *(files([record.mask for record in records], LABEL) if labeled else ()),
        ]

    def _encoded(
        self, path: Path, flags: int, size: tuple[int, int], origin: np.ndarray, source: np.ndarray
    ) -> np.ndarray:
        """A file's bytes; of one that is turned, which DALI would do for whole images alone, the cut as PPM or PGM.

        They are read here and not by DALI, which would decode whatever the file holds by then: it crashes on smaller
        images. Raises UsageError where the file is gone or another one.
        """
        if self.watch.orientation(path) != UPRIGHT:
            (y, x), (height, width) = origin, source
            with self.decoders:
                return pnm(self.watch.pixels(path, flags, size)[y : y + height, x : x + width])
        data = self.watch.read(path)
        if not data:
            raise UsageError(f"{path}: is empty; run `semiseg doctor` and mend or remove it")
        return np.frombuffer(data, np.uint8)


def pnm(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) or a mask (H, W) as a file that costs next to nothing: PPM or PGM."""
    height, width = pixels.shape[:2]
    header = f"P{6 if pixels.ndim == 3 else 5} {width} {height} 255\n".encode()
    return np.concatenate([np.frombuffer(header, np.uint8), pixels.ravel()])


def steps_together(plan: Plan) -> int:
    """Steps in one batch of DALI's: a power of two."""
    largest = max(len(stream.record) for stream in plan.streams)
    return 1 << max(SAMPLES // largest, 1).bit_length() - 1


def threads_each(threads: int, streams: int, device_id: int | None) -> int:
    """Threads for each stream of images. On a GPU the streams share `threads`, or with 0 the cores that three busy ones
    leave: this process's launching and loading thread, and the decoder's own. On the CPU, where they are the work, each
    stream takes `threads`, or as many as there are cores, and the system shares them out."""
    if device_id is None:
        return threads or cores()
    return max((threads or cores() - BUSY) // streams, 1)


def copied(output: Any, device: torch.device, stream: Any) -> torch.Tensor:
    """A tensor of DALI's copied into one of torch's, in the order of the stream.

    DALI cannot know when others are done with a buffer that they were lent: it would wait for the whole device, which
    breaks a capture, and keep its own stream waiting for training.
    """
    tensor = torch.empty(output.shape(), dtype=torch.uint8, device=device)
    pointer, stream = ctypes.c_void_p(tensor.data_ptr()), ctypes.c_void_p(stream.cuda_stream)
    output.copy_to_external(pointer, stream, non_blocking=True)
    return tensor
