"""Every protocol by numpy in float64, one image at a time, networks whose logits it can compute, and images for them.

Written from the descriptions of the published evaluations (CAC: Lai et al., 2021, whole images; CPS: Chen et al., 2021,
windows; UniMatch: Yang et al., 2023 and 2025, both), with arithmetic of its own throughout. Images are (3, H, W) and
logits (C, h, w), all float64; `network` maps the one to the other.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semiseg.engine.device import Precision
from semiseg.engine.protocol import Evaluation, Protocol
from semiseg.pipelines.datasets.manifest import Record

CPU = torch.device("cpu")
CLASSES = ("ground", "car", "tree", "sky", "sea")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZES = [(33, 47), (64, 64), (100, 37), (33, 47), (9, 90), (64, 64), (48, 48)]
WINDOW = 48
FP32 = Precision("fp32", CPU)


def protocol_of(name: str = "whole", crop: int = WINDOW, **settings) -> Protocol:
    return Evaluation(protocol=name, **settings).resolve(crop)


def interpolation(target: int, source: int, aligned: bool, antialias: bool = False) -> np.ndarray:
    """(target, source) weights of linear interpolation along one axis."""
    ratio = source / target
    if aligned:
        centres = np.arange(target) * ((source - 1) / (target - 1) if target > 1 else 0)
    else:
        centres = (np.arange(target) + 0.5) * ratio - 0.5
    width = max(ratio, 1.0) if antialias else 1.0
    if not antialias:
        centres = centres.clip(0, source - 1)
    weights = (1 - np.abs(np.arange(source) - centres[:, None]) / width).clip(0)
    return weights / weights.sum(1, keepdims=True)


def resized(maps: np.ndarray, size: tuple[int, int], aligned: bool, antialias: bool = False) -> np.ndarray:
    rows = interpolation(size[0], maps.shape[1], aligned, antialias)
    columns = interpolation(size[1], maps.shape[2], aligned, antialias)
    return rows @ maps @ columns.T


def seen(network, window: np.ndarray, flip: bool) -> np.ndarray:
    """Logits of a window at its own size."""
    logits = resized(network(window), window.shape[1:], aligned=True)
    return logits + resized(network(window[:, :, ::-1]), window.shape[1:], aligned=True)[:, :, ::-1] if flip else logits


def whole_by_hand(network, image: np.ndarray, size: tuple[int, int], flip: bool) -> np.ndarray:
    height, width = image.shape[1:]
    if (height, width) == size:
        padded = np.pad(image, ((0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
        return seen(network, padded, flip)[:, :height, :width]
    assert height % 8 == width % 8 == 0
    logits = network(image) + (network(image[:, :, ::-1])[:, :, ::-1] if flip else 0)
    return resized(logits, size, aligned=True)


def slide_by_hand(network, image: np.ndarray, size: tuple[int, int], window: int, flip: bool, published: bool):
    _, height, width = image.shape
    below, beside = max(window - height, 0), max(window - width, 0)
    margins = ((below // 2, below - below // 2), (beside // 2, beside - beside // 2))
    # Small images are padded after normalisation, so with the mean colour; those with one long side before it.
    black = published and max(height, width) > window
    padded = np.stack([np.pad(image[c], margins, constant_values=-MEAN[c] / STD[c] if black else 0) for c in range(3)])
    _, rows, columns = padded.shape
    stride = math.ceil(window * 2 / 3)
    total, count = 0, np.zeros((rows, columns))
    for i in range(math.ceil((rows - window) / stride) + 1):
        for j in range(math.ceil((columns - window) / stride) + 1):
            y, x = min(i * stride, rows - window), min(j * stride, columns - window)
            logits = seen(network, padded[:, y : y + window, x : x + window], flip)
            placed = np.zeros((len(logits), rows, columns))
            placed[:, y : y + window, x : x + window] = logits
            total = total + placed
            count[y : y + window, x : x + window] += 1
    total = total if published else total / count
    total = total[:, margins[0][0] : margins[0][0] + height, margins[1][0] : margins[1][0] + width]
    return total if (height, width) == size else resized(total, size, aligned=False)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def as_it_is_by_hand(network, image: np.ndarray, size: tuple[int, int], flip: bool) -> np.ndarray:
    logits = network(image) + (network(image[:, :, ::-1])[:, :, ::-1] if flip else 0)
    return resized(logits, size, aligned=True)


def resized_by_hand(network, image: np.ndarray, size: tuple[int, int], flip: bool) -> np.ndarray:
    nearest = tuple(8 * max(int(side / 8 + 0.5), 1) for side in image.shape[1:])
    return resized(seen(network, resized(image, nearest, aligned=True), flip), size, aligned=True)


def ragged_by_hand(network, image: np.ndarray, size: tuple[int, int], window: int, flip: bool) -> np.ndarray:
    _, height, width = image.shape
    total = 0
    y = 0
    while y < height:
        x = 0
        while x < width:
            inside = np.s_[y : min(y + window, height), x : min(x + window, width)]
            said = softmax(seen(network, image[:, *inside], flip))
            placed = np.zeros((len(said), height, width))
            placed[:, *inside] = said
            total = total + placed
            x += int(2 * window / 3)
        y += int(2 * window / 3)
    return total if (height, width) == size else resized(total, size, aligned=False)


def shifted_by_hand(network, image: np.ndarray, size: tuple[int, int], window: int, flip: bool) -> np.ndarray:
    _, height, width = image.shape
    below, beside = max(window - height, 0), max(window - width, 0)
    padded = np.pad(image, ((0, 0), (below // 2, below - below // 2), (beside // 2, beside - beside // 2)))
    _, rows, columns = padded.shape
    total, y = 0, 0
    while True:
        x = 0
        while True:
            said = softmax(seen(network, padded[:, y : y + window, x : x + window], flip))
            placed = np.zeros((len(said), rows, columns))
            placed[:, y : y + window, x : x + window] = said
            total = total + placed
            if x + window >= columns:
                break
            x = min(x + int(2 * window / 3), columns - window)
        if y + window >= rows:
            break
        y = min(y + int(2 * window / 3), rows - window)
    total = total[:, below // 2 : below // 2 + height, beside // 2 : beside // 2 + width]
    return total if (height, width) == size else resized(total, size, aligned=False)


BY_HAND = {
    "unimatch-whole": as_it_is_by_hand,
    "dino-whole": resized_by_hand,
    "unimatch-slide": ragged_by_hand,
    "unimatch2-slide": shifted_by_hand,
}


def said_by_hand(network, record: Record, protocol: Protocol) -> np.ndarray:
    """Logits or probabilities of one image, added, from its file on."""
    image = ((np.asarray(Image.open(record.image)) / 255 - MEAN) / STD).transpose(2, 0, 1)
    size = image.shape[1:]
    logits = 0
    for scale in protocol.scales:
        scaled = image
        if scale != 1:
            smaller = tuple(8 * max(round(side * scale / 8), 1) for side in size)
            scaled = resized(image, smaller, aligned=False, antialias=True)
        if protocol.name in BY_HAND:
            window = (protocol.window,) if protocol.convention.windows else ()
            logits = logits + BY_HAND[protocol.name](network, scaled, size, *window, protocol.flip)
        elif "whole" in protocol.name:
            logits = logits + whole_by_hand(network, scaled, size, protocol.flip)
        else:
            published = protocol.name == "cps-slide"
            logits = logits + slide_by_hand(network, scaled, size, protocol.window, protocol.flip, published)
    return logits


def predicted_by_hand(network, record: Record, protocol: Protocol) -> np.ndarray:
    """Class indices of one image, from its file on."""
    return said_by_hand(network, record, protocol).argmax(0)


def sure_by_hand(network, record: Record, protocol: Protocol) -> np.ndarray:
    """The largest probability of each pixel: of the mean of logits, or of probabilities."""
    said = said_by_hand(network, record, protocol)
    if "unimatch" in protocol.name and "slide" in protocol.name:
        return (said / said.sum(0)).max(0)
    return softmax(said / said_by_hand(lambda image: np.ones((1, 1, 1)), record, protocol)).max(0)


def counted_by_hand(predicted: np.ndarray, record: Record, classes: int) -> np.ndarray:
    truth = np.asarray(Image.open(record.mask))
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth[truth != 255], predicted[truth != 255]), 1)
    return counts


def by_hand(network, records: list[Record], protocol: Protocol) -> np.ndarray:
    """The confusion matrix."""
    return sum(counted_by_hand(predicted_by_hand(network, one, protocol), one, len(CLASSES)) for one in records)


class Given(torch.nn.Module):
    """Logits looked up in a table by the image's own values: every fourth pixel's red and green."""

    mean, std, head_width = tuple(MEAN), tuple(STD), 16

    def __init__(self):
        super().__init__()
        self.table = np.random.default_rng(1).normal(size=(2, 256, len(CLASSES)))

    def reference(self, image: np.ndarray) -> np.ndarray:
        value = (image[:2, ::4, ::4] * STD[:2, None, None] + MEAN[:2, None, None]) * 255
        red, green = np.rint(value).astype(int)
        return (self.table[0][red] + self.table[1][green]).transpose(2, 0, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.reference(image.double().numpy()) for image in images]))


class Convolution(torch.nn.Module):
    """A fixed 7x7 convolution of stride 4 with zeros around the image: logits depend on the position in the window."""

    mean, std, head_width = tuple(MEAN), tuple(STD), 16

    def __init__(self, dtype: torch.dtype, size: float = 1.0):
        super().__init__()
        self.weight = size * np.random.default_rng(2).normal(size=(len(CLASSES), 3, 7, 7))
        self.dtype = dtype

    def reference(self, image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), (1, 2))[:, ::4, ::4]
        return np.einsum("dhwkl,cdkl->chw", patches, self.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = torch.from_numpy(self.weight).to(self.dtype)
        return torch.nn.functional.conv2d(images.to(self.dtype), weight, stride=4, padding=3)


def make_records(folder: Path, sizes) -> list[Record]:
    """Noise with void pixels, and a class (the last) that no truth holds."""
    rng = np.random.default_rng(0)
    made = []
    for number, (height, width) in enumerate(sizes):
        image, mask = folder / f"{number}.png", folder / f"{number}-mask.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.choice([0, 1, 2, 3, 255], (height, width)).astype(np.uint8)).save(mask)
        made.append(Record(f"{number}", image, mask, height, width))
    return made
