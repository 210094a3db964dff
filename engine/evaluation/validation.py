"""Evaluation on a validation set, by one protocol or several from one pass, each image counted exactly once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels import photometric
from ...pipelines.cores import cores
from ...pipelines.datasets.manifest import Record, watch_of
from ...pipelines.decode import COLOUR, LABEL
from ...pipelines.progress import Progress, show_nothing
from ..device import Precision
from ..distributed import total
from ..models import Network, evaluating
from ..processes import gather_objects, is_distributed, rank, world_size
from ..protocol import Protocol
from .memory import MemoryNeed, group_size, groups_ahead, room_for
from .protocols import confusion
from .scores import ImageScores, Scores

TILES = "cut it and its mask into tiles"
"""What is left to do where memory does not do."""


def evaluate_each(
    network: Network,
    records: Sequence[Record],
    classes: tuple[str, ...],
    protocols: Sequence[Protocol],
    *,
    precision: Precision,
    places: Sequence[int] | None = None,
    by_image: bool = False,
    prefix: str = "--",
    otherwise: str = TILES,
    on_progress: Progress = show_nothing,
) -> list[Scores]:
    """Scores by each protocol from one pass over the images, with the network, which lies on the precision's device, in
    evaluation mode; its mode is restored.

    classes: the network's. places: of each among the classes of the masks (default: the same). by_image: also the
    scores of each image, `Scores.images`, for which the host waits for every batch.
    Counts are in pixels of the original images. Where a process group exists, every process must call this with the
    same records: each evaluates its share, and all get the scores of the whole set. Raises UsageError where memory does
    not do, as `room_for` does.
    """
    records = own_share(records)
    order = list(places or range(len(classes)))
    images_of: list[list[ImageScores]] = [[] for _ in protocols]
    counts = torch.zeros(len(protocols), len(classes), len(classes), dtype=torch.int64, device=precision.device)
    done = 0
    largest = max(protocol.batch for protocol in protocols)
    form: dict[str, Any] = {"classes": len(classes), "head_width": network.head_width, "precision": precision}
    with room_to_judge(records, protocols, **form, prefix=prefix, otherwise=otherwise):
        for group, images, targets in batches(network, records, largest, precision.device):
            with evaluating(network), precision.autocast():
                for count, protocol, scored in zip(counts, protocols, images_of, strict=True):
                    counted = confusion(network, images, targets, len(classes), protocol, by_image=by_image)
                    if by_image:
                        scored += _of_images(group, counted.cpu().numpy()[:, order], classes, protocol)
                        counted = counted.sum(0)
                    count += counted
            done += len(images)
            on_progress(done, len(records))
    everyones = gather_objects(images_of) if by_image else [images_of]
    return [
        Scores(
            count[order],
            classes,
            absent=protocol.absent_class,
            background=protocol.background,
            images=tuple(sorted(chain(*scored), key=attrgetter("rank"))),
        )
        for count, protocol, *scored in zip(total(counts).cpu().numpy(), protocols, *everyones, strict=True)
    ]


def _of_images(
    records: Sequence[Record], counts: np.ndarray, classes: tuple[str, ...], protocol: Protocol
) -> list[ImageScores]:
    """counts: (B, C, C), those of each record."""
    each = [Scores(count, classes, background=protocol.background) for count in counts]
    return [
        ImageScores(record.id, scores.miou, scores.pixel_accuracy, scores.pixels)
        for record, scores in zip(records, each, strict=True)
    ]


@contextmanager
def room_to_judge(
    records: Sequence[Record],
    protocols: Sequence[Protocol],
    *,
    classes: int,
    head_width: int,
    precision: Precision,
    prefix: str = "--",
    otherwise: str = TILES,
) -> Iterator[None]:
    """`room_for` the image and the protocol that need the most. records: those of this process."""
    one_of = {record.size: record for record in records}
    needs = [
        (
            MemoryNeed(
                height=size[0],
                width=size[1],
                images=images,
                classes=classes,
                head_width=head_width,
                precision=precision,
                counted=True,
            ),
            protocol,
        )
        for size, images in Counter(record.size for record in records).items()
        for protocol in protocols
    ]
    if not needs:
        yield
        return
    need, protocol = max(needs, key=lambda one: one[0].least(one[1]))
    source = one_of[need.height, need.width].image
    what = f"{source}: is {need.width}x{need.height}, for which"
    with room_for(need, protocol, what, otherwise, prefix):
        yield


def own_share(records: Sequence[Record]) -> Sequence[Record]:
    """The records that this process evaluates: all without a process group, else every one belongs to exactly one."""
    if not is_distributed():
        return records
    by_size = sorted(records, key=attrgetter("size"))  # so that the shares cost the same
    return by_size[rank() :: world_size()]


def normalised(network: Network, images: np.ndarray, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float on the device, as the network takes them."""
    identity = torch.eye(3, 4, device=device).expand(len(images), 3, 4).contiguous()
    unblurred = torch.zeros(len(images), dtype=torch.bool, device=device)
    tensor = torch.from_numpy(images).to(device)
    return photometric(tensor, identity, unblurred, network.mean, network.std, dtype=torch.float32)


def batches(
    network: Network, records: Sequence[Record], size: int, device: torch.device
) -> Iterator[tuple[list[Record], Tensor, Tensor]]:
    """Records, their images (B, 3, H, W) as the network takes them, and targets (B, H, W) uint8; images of equal size
    come together, at most `size`, and no more than `group_size` allows."""
    groups: list[list[Record]] = []
    for record in sorted(records, key=attrgetter("size")):
        last = groups[-1] if groups else []
        if not last or len(last) == group_size(size, math.prod(record.size)) or last[0].size != record.size:
            groups.append(last := [])
        last.append(record)

    watch = watch_of(records)

    def mask(record: Record) -> np.ndarray:
        assert record.mask is not None, f"{record.id} has no mask to be judged by"
        return watch.pixels(record.mask, LABEL, record.size)

    def load(group: list[Record]) -> tuple[list[Record], np.ndarray, np.ndarray]:
        images = np.stack([watch.pixels(record.image, COLOUR, record.size) for record in group])
        return group, images, np.stack([mask(record) for record in group])

    def ready(task: Future) -> tuple[list[Record], Tensor, Tensor]:
        group, images, targets = task.result()
        return group, normalised(network, images, device), torch.from_numpy(targets).to(device)

    with ThreadPoolExecutor(cores()) as pool:
        waiting: list[Future] = []
        for group in groups:
            waiting.append(pool.submit(load, group))
            while len(waiting) > groups_ahead(len(group) * math.prod(group[0].size)):
                yield ready(waiting.pop(0))
        yield from map(ready, waiting)
