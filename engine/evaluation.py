"""mIoU of a network on a validation set: whole images or sliding windows, batched, counted on the device."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import photometric, upsample_confusion
from ..pipelines.dataset import IGNORE
from ..pipelines.host import COLOUR, LABEL, read
from ..pipelines.manifest import Record
from ..pipelines.views import IMAGENET_MEAN, IMAGENET_STD
from .models import Network
from .recipe import Evaluation

MULTIPLE = 8  # whole images are reflected at the bottom and right to a multiple of this, as CAC does


@dataclass(frozen=True, slots=True)
class Scores:
    """What a confusion matrix says. Classes that neither truth nor prediction holds have no IoU (NaN) and no vote."""

    confusion: np.ndarray
    """(C, C) int64 pixels, rows are the truth."""
    classes: tuple[str, ...]

    @property
    def iou(self) -> dict[str, float]:
        hit = np.diag(self.confusion).astype(float)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hit
        with np.errstate(invalid="ignore"):
            return dict(zip(self.classes, (hit / union).tolist(), strict=True))

    @property
    def miou(self) -> float:
        return float(np.nanmean(list(self.iou.values()))) if self.confusion.sum() else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        return float(np.diag(self.confusion).sum() / max(self.confusion.sum(), 1))


def finite(value: float) -> float | None:
    """The value for JSON, which knows no NaN."""
    return value if math.isfinite(value) else None


def evaluate(
    network: Network,
    records: Sequence[Record],
    classes: tuple[str, ...],
    evaluation: Evaluation,
    *,
    crop: int,
    device: torch.device,
    autocast: Callable = nullcontext,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores of the network in evaluation mode; its mode is restored. Counts are in pixels of the original images."""
    counts = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)
    done = 0
    for images, targets in batches(records, evaluation.batch if evaluation.protocol == "whole" else 1, device):
        images = rescaled(images, evaluation.scale_of(*images.shape[-2:], crop))
        with evaluating(network), autocast():
            if evaluation.protocol == "whole":
                counts += count_whole(network, images, targets, len(classes))
            else:
                logits = slide(network, images, evaluation.window or crop, evaluation.batch)
                counts += upsample_confusion(logits, targets, len(classes))
        done += len(images)
        if on_progress:
            on_progress(done, len(records))
    return Scores(counts.cpu().numpy(), classes)


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and without compiling for every image size; then the mode before."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        network.train(training)


def normalised(images: np.ndarray, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float on the device."""
    identity = torch.eye(3, 4, device=device).expand(len(images), 3, 4).contiguous()
    unblurred = torch.zeros(len(images), dtype=torch.bool, device=device)
    tensor = torch.from_numpy(images).to(device)
    return photometric(tensor, identity, unblurred, IMAGENET_MEAN, IMAGENET_STD, dtype=torch.float32)


def batches(records: Sequence[Record], size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, H, W) and targets (B, H, W) uint8; images of equal size come together, at most `size`."""
    records = sorted(records, key=lambda record: (record.height, record.width))
    groups: list[list[Record]] = []
    for record in records:
        last = groups[-1] if groups else []
        if not last or len(last) == size or (last[0].height, last[0].width) != (record.height, record.width):
            groups.append(last := [])
        last.append(record)

    def load(group: list[Record]) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.stack([read(record.image, COLOUR, (record.height, record.width)) for record in group]),
            np.stack([read(record.mask, LABEL, (record.height, record.width)) for record in group]),
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = []
        for group in groups:
            waiting.append(pool.submit(load, group))
            if len(waiting) > 4:
                images, targets = waiting.pop(0).result()
                yield normalised(images, device), torch.from_numpy(targets).to(device)
        for task in waiting:
            images, targets = task.result()
            yield normalised(images, device), torch.from_numpy(targets).to(device)


def rescaled(images: Tensor, scale: float) -> Tensor:
    """Images (B, 3, H, W) resized by about `scale`, to multiples of 8; as they are for 1."""
    if scale == 1:
        return images
    size = [max(round(side * scale / MULTIPLE), 1) * MULTIPLE for side in images.shape[-2:]]
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def pad_whole(images: Tensor) -> Tensor:
    """Reflected at the bottom and right to a multiple of 8."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="reflect")


def count_whole(network: Network, images: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Confusion counts (C, C) of whole images; the padding is ignored."""
    padded = pad_whole(images)
    bottom, right = padded.shape[-2] - images.shape[-2], padded.shape[-1] - images.shape[-1]
    return upsample_confusion(network(padded), F.pad(targets, (0, right, 0, bottom), value=IGNORE), classes)


def whole(network: Network, images: Tensor) -> Tensor:
    """Logits (B, C, H, W) of whole images."""
    return network.full_logits(pad_whole(images))[..., : images.shape[-2], : images.shape[-1]]


def slide(network: Network, images: Tensor, window: int, batch: int) -> Tensor:
    """Logits (B, C, H, W), summed over windows that lie two thirds of a window apart; small images are padded all round
    with the mean colour."""
    height, width = images.shape[-2:]
    below, right = max(window - height, 0), max(window - width, 0)
    top, left = below // 2, right // 2
    padded = F.pad(images, (left, right - left, top, below - top))
    places = [(y, x) for y in starts(padded.shape[-2], window) for x in starts(padded.shape[-1], window)]
    total = None
    for image in padded:
        crops = torch.stack([image[:, y : y + window, x : x + window] for y, x in places])
        logits = torch.cat([network.full_logits(part).float() for part in crops.split(batch)])
        summed = logits.new_zeros(logits.shape[1], *image.shape[-2:])
        for (y, x), part in zip(places, logits, strict=True):
            summed[:, y : y + window, x : x + window] += part
        summed = summed[None, :, top : top + height, left : left + width]
        total = summed if total is None else torch.cat([total, summed])
    return total


def starts(size: int, window: int) -> list[int]:
    """First pixels of windows that cover `size`: two thirds of a window apart, the last one flush with the end."""
    stride = -(-window * 2 // 3)
    count = -(-(size - window) // stride) + 1
    return [min(i * stride, size - window) for i in range(count)]
