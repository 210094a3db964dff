"""Evaluation protocols: where a network looks at an image, and how its logits come together.

`whole` and `cac-whole` see the image in one piece, reflected at the bottom and right to a multiple of 8, as CAC does
(Lai et al., 2021), or of what the network's encoder asks for. `slide` and `cps-slide` see windows two thirds of a
window apart, as CPS does (Chen et al., 2021). `slide` divides the summed logits by the number of windows over each
pixel; `cps-slide`, like the published program, does not, which changes the argmax only where several scales come
together. The programs of UniMatch and UniMatch V2 (Yang et al., 2023 and 2025) see the image as it is
(`unimatch-whole`) or resized to multiples, and its logits resized back (`dino-whole`), or windows that are cut at its
border (`unimatch-slide`) or moved inside (`unimatch2-slide`), and add the probabilities of windows. Networks give
logits at a fraction of the resolution; those of each window are upsampled bilinearly with aligned corners, as in
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import pseudo_label, upsample, upsample_confusion
from ...pipelines.datasets.dataset import IGNORE
from ..protocol import Convention, Protocol


class NetworkLike(Interface):
    """A network, or what stands for one: normalised images (B, 3, H, W) -> logits (B, C, h, w)."""

    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    def __call__(self, images: Tensor) -> Tensor: ...


def confusion(
    network: NetworkLike,
    images: Tensor,
    targets: Tensor,
    num_classes: int,
    protocol: Protocol,
    *,
    by_image: bool = False,
) -> Tensor:
    """Confusion counts (num_classes, num_classes) int64 on the device, rows = truth; by_image: (B, num_classes,
    num_classes), those of each image, for which the same logits are counted one image at a time.

    images: (B, 3, H, W) normalised. targets: (B, H, W) uint8; 255 and values that are no class are not counted.
    Where one window shows the whole image and one scale is asked for, the full-size logits are never made.
    """
    size = images.shape[-2:]
    scales = protocol.scales_of(*size)
    scaled = rescaled(images, scales[0], protocol)
    tiles = tiling(protocol, *scaled.shape[-2:])
    direct = len(scales) == 1 and tiles.direct(scaled, size)
    counts = []
    # As many images as fill a batch with their windows, because full-size logits are large.
    together = max(protocol.batch // len(tiles.corners), 1)
    for start in range(0, len(images), together):
        part = slice(start, start + together)
        if direct:
            logits = coarse_logits(network, tiles.pad(scaled[part], network), protocol.flip)
            truth = F.pad(targets[part], tiles.padding, value=IGNORE)
        else:
            logits, truth = full_logits(network, images[part], protocol), targets[part]
        at_once = 1 if by_image else together
        counts += [
            upsample_confusion(some, theirs, num_classes)
            for some, theirs in zip(logits.split(at_once), truth.split(at_once), strict=True)
        ]
    each = torch.stack(counts)
    return each if by_image else each.sum(0)


def full_logits(network: NetworkLike, images: Tensor, protocol: Protocol) -> Tensor:
    """Logits, or probabilities, (B, C, H, W) of normalised images (B, 3, H, W), summed over scales and flips."""
    size = images.shape[-2:]
    total: Tensor | Any = None
    for scale in protocol.scales_of(*size):
        scaled = rescaled(images, scale, protocol)
        tiles = tiling(protocol, *scaled.shape[-2:])
        if tiles.direct(scaled, size):
            left, right, top, bottom = tiles.padding
            padded = size[0] + top + bottom, size[1] + left + right
            logits = upsample(coarse_logits(network, tiles.pad(scaled, network), protocol.flip), padded)
            logits = combined(logits[..., top : top + size[0], left : left + size[1]], protocol)
        else:
            logits = windowed_logits(network, scaled, tiles, protocol)
            if scaled.shape[-2:] != size:
                aligned = protocol.convention.sides == "resized"
                logits = upsample(logits, size, align_corners=aligned)
        total = logits if total is None else total + logits
    return total


def classified(
    network: NetworkLike, images: Tensor, protocol: Protocol, *, probabilities: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Normalised images (B, 3, H, W) -> the class of each pixel (B, H, W) uint8, its `confidence` (B, H, W) and, where
    they are asked for, the probabilities of all (B, C, H, W), of which that class has the largest.

    Where one window shows the whole image and one scale is asked for, full-size logits are made for these alone.
    """
    size = images.shape[-2:]
    scales = protocol.scales_of(*size)
    scaled = rescaled(images, scales[0], protocol)
    tiles = tiling(protocol, *scaled.shape[-2:])
    if len(scales) == 1 and tiles.direct(scaled, size):
        logits = coarse_logits(network, tiles.pad(scaled, network), protocol.flip)
        if protocol.flip and not protocol.convention.probabilities:
            logits /= 2  # of the mean, as in `confidence`
        if logits.isfinite().all():
            left, right, top, bottom = tiles.padding
            padded = size[0] + top + bottom, size[1] + left + right
            inside = ..., slice(top, top + size[0]), slice(left, left + size[1])
            label, sure = (one[inside] for one in pseudo_label(logits, padded))
            if not probabilities:
                return label, sure, None
            return label, sure, agreeing(upsample(logits, padded)[inside].softmax(1), label)
    logits = full_logits(network, images, protocol)
    label, sure = logits.argmax(1).to(torch.uint8), confidence(logits, images, protocol)
    if not probabilities:
        return label, sure, None
    logits /= logits.sum(1, keepdim=True)
    return label, sure, agreeing(logits.nan_to_num_(0), label)


def agreeing(probabilities: Tensor, label: Tensor) -> Tensor:
    """Probabilities (B, C, H, W), which this overwrites, that of the label (B, H, W) uint8 being the largest: where an
    earlier one is as large, or another larger by the rounding of another way to the same logits, it becomes the next
    larger number."""
    index = label[:, None].long()
    beaten = probabilities.argmax(1, keepdim=True) != index
    above = probabilities.amax(1, keepdim=True).nextafter(probabilities.new_ones(()))
    return probabilities.scatter_(1, index, torch.where(beaten, above, probabilities.gather(1, index)))


def confidence(logits: Tensor, images: Tensor, protocol: Protocol) -> Tensor:
    """`full_logits` of images, (B, C, H, W) -> (B, H, W): the largest probability of each pixel, in [0, 1], and 0 where
    the network says what is no number. The logits are overwritten with what these probabilities are shares of.

    Of logits it is that of their mean over all that came together, which no number of scales, mirror images or windows
    makes surer; of probabilities, of theirs. (Where these are mirrored, their softmax is of the sum of two logits, as
    it is for the labels.)
    """
    if not protocol.convention.probabilities:
        logits -= logits.amax(1, keepdim=True)
        logits /= full_logits(Ones(), images[:, :1], protocol)
        logits.exp_()
    sure = logits.amax(1)
    sure /= logits.sum(1)
    return sure.nan_to_num_(0)


class Ones:
    """Stands for a network that says 1 of each pixel: its sums are how many logits come together there."""

    mean, std = (0.0,), (1.0,)

    def __call__(self, images: Tensor) -> Tensor:
        return images.new_ones(len(images), 1, 1, 1)


def windowed_logits(network: NetworkLike, images: Tensor, tiles: Tiling, protocol: Protocol) -> Tensor:
    """Logits, or probabilities, (B, C, H, W) of images (B, 3, H, W), from windows that go through the network in
    batches."""
    padded = tiles.pad(images, network)
    total: Tensor | Any = None
    for size, windows in tiles.windows(*padded.shape[-2:]).items():
        places = [(image, *window) for image in range(len(images)) for window in windows]
        for start in range(0, len(places), protocol.batch):
            some = places[start : start + protocol.batch]
            crops = torch.stack([padded[image, :, rows, columns] for image, rows, columns in some])
            logits = combined(upsample(coarse_logits(network, crops, protocol.flip), size), protocol)
            if total is None:
                total = logits.new_zeros(len(images), logits.shape[1], *padded.shape[-2:])
            for (image, rows, columns), part in zip(some, logits, strict=True):
                total[image, :, rows, columns] += part
    if not protocol.convention.summed:
        count = total.new_zeros(padded.shape[-2:])
        for windows in tiles.windows(*padded.shape[-2:]).values():
            for window in windows:
                count[window] += 1
        total /= count
    left, _, top, _ = tiles.padding
    return total[..., top : top + images.shape[-2], left : left + images.shape[-1]]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Images padded, and windows over them."""

    convention: Convention
    padding: tuple[int, int, int, int]
    """Pixels left, right, at the top and at the bottom, as `F.pad` takes them."""
    size: tuple[int, int]
    """Height and width of the windows; those that reach beyond the padded image end with it."""
    corners: tuple[tuple[int, int], ...]
    """First row and column of each window in the padded image."""

    def windows(self, height: int, width: int) -> dict[tuple[int, int], list[tuple[slice, slice]]]:
        """Rows and columns of the windows of a padded image of so many pixels, by their height and width."""
        cut: dict[tuple[int, int], list[tuple[slice, slice]]] = {}
        for y, x in self.corners:
            bottom, right = min(y + self.size[0], height), min(x + self.size[1], width)
            cut.setdefault((bottom - y, right - x), []).append((slice(y, bottom), slice(x, right)))
        return cut

    def direct(self, images: Tensor, size: torch.Size) -> bool:
        """Whether the network's logits can be upsampled to `size`, the one before rescaling, in one go."""
        same = images.shape[-2:] == size
        return len(self.corners) == 1 and (same or not (self.convention.windows or self.convention.sides == "resized"))

    def pad(self, images: Tensor, network: NetworkLike) -> Tensor:
        """Whole images are reflected, others padded with the mean colour, or with black, as by programs that normalise
        after padding."""
        if not any(self.padding):
            return images
        if not self.convention.windows:
            _, right, _, bottom = self.padding
            return reflected(reflected(images, 2, bottom), 3, right)
        padded = F.pad(images, self.padding)
        if not self.convention.black or len(self.corners) == 1:
            return padded
        inside = F.pad(torch.ones_like(images[:1, :1], dtype=torch.bool), self.padding)
        black = -images.new_tensor(network.mean) / images.new_tensor(network.std)
        return torch.where(inside, padded, black[:, None, None])


def reflected(images: Tensor, dim: int, more: int) -> Tensor:
    """`more` pixels behind the last one, mirrored about it, back and forth where the image is smaller than that."""
    length = images.shape[dim]
    period = max(2 * length - 2, 1)
    place = torch.arange(length + more, device=images.device) % period
    return images.index_select(dim, torch.minimum(place, period - place) if length > 1 else place)


def tiling(protocol: Protocol, height: int, width: int) -> Tiling:
    """The protocol's padding and windows for images of this size."""
    convention = protocol.convention
    if not convention.windows:
        free = convention.sides == "free"
        bottom, right = (0, 0) if free else (-height % protocol.multiple, -width % protocol.multiple)
        return Tiling(convention, (0, right, 0, bottom), (height + bottom, width + right), ((0, 0),))
    window = protocol.window
    stride = -(-window * 2 // 3) if convention.stride == "up" else max(window * 2 // 3, 1)
    if convention.ragged:
        rows, columns = ([*range(0, side, stride)] for side in (height, width))
        return Tiling(convention, (0, 0, 0, 0), (window, window), tuple((y, x) for y in rows for x in columns))
    below, beside = max(window - height, 0), max(window - width, 0)
    rows, columns = (starts(side, window, stride) for side in (height + below, width + beside))
    return Tiling(
        convention,
        (beside // 2, beside - beside // 2, below // 2, below - below // 2),
        (window, window),
        tuple((y, x) for y in rows for x in columns),
    )


def starts(size: int, window: int, stride: int) -> list[int]:
    """First pixels of windows that cover `size`, `stride` apart, the last one flush with the end."""
    count = -(-(size - window) // stride) + 1
    return [min(i * stride, size - window) for i in range(count)]


def rescaled(images: Tensor, scale: float, protocol: Protocol) -> Tensor:
    """Images (B, 3, H, W) resized by about `scale`, to multiples of the protocol's; for 1 as they are, or to the
    nearest multiples, corners on corners, where its convention is to resize them."""
    multiple, sides = protocol.multiple, images.shape[-2:]
    if scale != 1:
        size = [max(round(side * scale / multiple), 1) * multiple for side in sides]
        return F.interpolate(images, size, mode="bilinear", antialias=True)
    if protocol.convention.sides != "resized":
        return images
    size = [max(int(side / multiple + 0.5), 1) * multiple for side in sides]
    return images if size == [*sides] else upsample(images, size)


def coarse_logits(network: NetworkLike, images: Tensor, flip: bool) -> Tensor:
    """The network's logits (B, C, h, w), to which those of the mirrored images are added, mirrored back, on request.

    Upsampling with aligned corners is linear and symmetric: it may follow the sum.
    """
    logits = at_least_float32(network(images))
    return logits + at_least_float32(network(images.flip(-1))).flip(-1) if flip else logits


def combined(logits: Tensor, protocol: Protocol) -> Tensor:
    """What of logits (B, C, H, W) comes together: these, or their probabilities."""
    return logits.softmax(1) if protocol.convention.probabilities else logits


def at_least_float32(logits: Tensor) -> Tensor:
    """The same numbers, in float32 if they are in less."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
