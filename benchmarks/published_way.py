"""A training step as the published programs make it, written in plain PyTorch: what is compared with.

float32 (on a GPU with TensorFloat32 in convolutions, torch's default), contiguous, eager; whole images resized with
Pillow in the worker processes of a DataLoader; logits upsampled to full resolution for every loss and label; overlaps
cut out in a loop over the images, with coordinates read on the host; the contrast against 8000 negatives at a time,
scored again in the backward pass; every loss read on the host in every step. What costs a published program time but
decides nothing (training scores, progress text, an edge map of Cityscapes) is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import ColorJitter, Compose, Normalize, RandomApply, RandomGrayscale, ToTensor

from semiseg.engine.models import Network, build_network
from semiseg.engine.models.decoders.deeplab import ConcatenatingASPP, DeepLabDecoder
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import parameter_groups
from semiseg.kernels import box_mask
from semiseg.pipelines.batch import Batch, Mixed, Pair, Plain
from semiseg.pipelines.datasets.dataset import IGNORE
from semiseg.pipelines.datasets.manifest import Record
from semiseg.pipelines.views import Augmentation

MEAN, STD, FILL = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (124, 116, 104)
STRIDE, CHUNK, TRIES = 8, 8000, 50
METHODS = ("supervised", "cac", "cps", "cutmix_cps")


class Images(Dataset):
    """Scale, pad, crop and flip: whole images, Pillow's bicubic and nearest."""

    def __init__(self, records: Sequence[Record], augmentation: Augmentation, crop: int):
        self.records, self.augmentation, self.crop = records, augmentation, crop
        self.normalise = Compose([ToTensor(), Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.records)

    def size(self, image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        if self.augmentation.scale == "factors":
            factor = random.choice(self.augmentation.factors)
        else:
            low, high = (int(bound * self.augmentation.base * self.crop) for bound in self.augmentation.range)
            factor = random.randint(low, high) / max(width, height)
        return max(int(width * factor + 0.5), 1), max(int(height * factor + 0.5), 1)

    def pad(self, image: Image.Image, fill) -> np.ndarray:
        bottom, right = max(self.crop - image.height, 0), max(self.crop - image.width, 0)
        return cv2.copyMakeBorder(np.asarray(image), 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=fill)

    def resized(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The padded image, and the size that it was resized to (width, height)."""
        image = Image.open(self.records[index].image).convert("RGB")
        size = self.size(image)
        return self.pad(image.resize(size, Image.Resampling.BICUBIC), FILL), size

    def corner(self, image: np.ndarray) -> tuple[int, int]:
        return random.randint(0, image.shape[0] - self.crop), random.randint(0, image.shape[1] - self.crop)

    def cut(self, image: np.ndarray, corner: tuple[int, int], flip: bool) -> np.ndarray:
        y, x = corner
        window = image[y : y + self.crop, x : x + self.crop]
        return np.ascontiguousarray(window[:, ::-1] if flip else window)

    def __getitem__(self, index: int) -> Tensor:
        image, _ = self.resized(index)
        return self.normalise(self.cut(image, self.corner(image), random.random() < self.augmentation.flip))


class LabeledImages(Images):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, size = self.resized(index)
        label = self.pad(Image.open(self.records[index].mask).resize(size, Image.Resampling.NEAREST), IGNORE)
        corner, flip = self.corner(image), random.random() < self.augmentation.flip
        label = torch.from_numpy(self.cut(label, corner, flip).astype(np.int64))
        return self.normalise(self.cut(image, corner, flip)), label


class Pairs(Images):
    """Two windows that overlap, with colours of their own: images (2, 3, S, S), upper left and lower right corner of
    the overlap in each, (2, 2) rows and columns, and flips (2,)."""

    def __init__(self, records: Sequence[Record], augmentation: Augmentation, crop: int):
        super().__init__(records, augmentation, crop)
        strengths = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
        jitter = RandomApply([ColorJitter(*strengths)], augmentation.jitter)
        self.colours = Compose([jitter, RandomGrayscale(augmentation.gray), self.normalise])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image, (width, height) = self.resized(index)
        first, second = self.corners(image)
        offset = np.subtract(second, first)
        inside = [height // STRIDE * STRIDE, width // STRIDE * STRIDE]
        low = np.stack([np.maximum(0, offset), np.maximum(0, -offset)])
        high = np.minimum(np.stack([self.crop + np.minimum(0, offset), self.crop + np.minimum(0, -offset)]), inside)
        flips = [random.random() < self.augmentation.flip for _ in range(2)]
        views = [self.view(self.cut(image, corner, flip)) for corner, flip in zip((first, second), flips)]
        return torch.stack(views), torch.from_numpy(low), torch.from_numpy(high), torch.tensor(flips)

    def corners(self, image: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
        first = self.corner(image)
        for _ in range(TRIES):
            offset = [b - a for a, b in zip(first, self.corner(image))]
            second = tuple(a + d // STRIDE * STRIDE for a, d in zip(first, offset))
            second = tuple(place + STRIDE if place < 0 else place for place in second)
            shared = [self.crop - abs(b - a) for a, b in zip(first, second)]
            area = shared[0] * shared[1] if min(shared) > 0 else 0
            if area / (2 * self.crop**2 - area) >= 0.1:
                return first, second
        return first, first

    def view(self, window: np.ndarray) -> Tensor:
        if random.random() < self.augmentation.blur:
            window = cv2.GaussianBlur(window, (5, 5), 0)
        return self.colours(Image.fromarray(window))


def loader(dataset: Images, batch: int, workers: int) -> Iterator:
    """Endless batches in random order."""
    endless = RandomSampler(dataset, replacement=True, num_samples=1 << 40)
    return iter(DataLoader(dataset, batch, sampler=endless, num_workers=workers))


class PublishedASPP(ConcatenatingASPP):
    """The pooled branch is repeated at every position, and all five are concatenated and merged."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x.mean((2, 3), keepdim=True))
        pooled = F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=True)
        branches = torch.cat([*(branch(x) for branch in self.branches), pooled], 1)
        return self.dropout(self.relu(self.norm(self.merge(branches))))


class PublishedDecoder(DeepLabDecoder):
    """The upsampled map and the low-level features are concatenated and convolved."""

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.reduce(low)
        high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=True)
        return self.refine(torch.cat([high, low], 1))


def published(network: Network) -> Network:
    """The network, computing as the published programs do; its weights and their names stay."""
    for module in network.modules():
        if type(module) is ConcatenatingASPP:
            module.__class__ = PublishedASPP
        elif type(module) is DeepLabDecoder:
            module.__class__ = PublishedDecoder
    return network


class PublishedWay(nn.Module):
    """Networks, optimizer and losses of a recipe's method: `losses(*batch)`, batches as `loaders` gives them."""

    def __init__(self, recipe: Recipe, classes: int):
        super().__init__()
        self.recipe, self.classes = recipe, classes
        names = ["network"] if recipe.method_class.name in ("supervised", "cac") else ["branch1", "branch2"]
        self.names = names
        for name in names:
            network = build_network(
                recipe.network,
                recipe.backbone,
                classes,
                head_width=recipe.head_width,
                projector=recipe.method_class.name == "cac",
            )
            self.add_module(name, published(network))
        self.bank: list[tuple[Tensor, Tensor]] = []
        self.losses: Callable[..., dict[str, Tensor]] = getattr(self, recipe.method_class.name)
        groups = [group for group in parameter_groups(recipe, self)]
        self.optimizer = torch.optim.SGD(groups, momentum=recipe.momentum)
        self.train()

    def networks(self) -> dict[str, Network]:
        return {name: getattr(self, name) for name in self.names}

    def loaders(self, labeled: Sequence[Record], unlabeled: Sequence[Record], workers: int) -> list[Iterator]:
        recipe, method = self.recipe, self.recipe.method_class.name
        first = LabeledImages(labeled, recipe.labeled, recipe.crop)
        kind, streams = {
            "supervised": (Images, 0),
            "cac": (Pairs, 1),
            "cps": (Images, 1),
            "cutmix_cps": (Images, 2),
        }[method]
        others = [kind(unlabeled, recipe.unlabeled, recipe.crop) for _ in range(streams)]
        return [
            loader(first, recipe.batch, workers),
            *(loader(other, recipe.unlabeled_batch, workers) for other in others),
        ]

    def step(self, *batches: Tensor | Sequence[Tensor]) -> dict[str, float]:
        device = next(self.parameters()).device
        (x, target), *others = [
            batch.to(device) if isinstance(batch, Tensor) else [part.to(device) for part in batch] for batch in batches
        ]
        losses = self.losses(x, target, *others)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    def full(self, network: Network, x: Tensor) -> Tensor:
        return upsampled(network(x), x.shape[-2:])

    def supervised(self, x: Tensor, target: Tensor) -> dict[str, Tensor]:
        loss = cross_entropy(self.full(self.network, x), target)
        return {"loss": loss, "supervised": loss}

    def cac(self, x: Tensor, target: Tensor, pair: Sequence[Tensor]) -> dict[str, Tensor]:
        config = self.recipe.method
        supervised = cross_entropy(self.full(self.network, x), target)
        views, low, high, flips = pair
        maps = [self.described(views[:, view]) for view in range(2)]
        self.bank.append(
            (
                torch.cat([rows(feature) for feature, _, _ in maps]).detach(),
                torch.cat([label.flatten() for _, label, _ in maps]),
            )
        )
        self.bank = self.bank[-config.bank_steps :]
        aligned = [
            [
                torch.cat(parts)
                for parts in zip(*(self.overlap(*maps[v], low, high, flips, v, b) for b in range(len(low))))
            ]
            for v in range(2)
        ]
        (feature1, label1, sure1), (feature2, label2, sure2) = aligned
        contrastive = self.direction(feature1, feature2, label1, sure1, sure2)
        contrastive = contrastive + self.direction(feature2, feature1, label2, sure2, sure1)
        return {
            "loss": supervised + config.weight * contrastive,
            "supervised": supervised,
            "contrastive": contrastive,
        }

    def described(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit features (B, 128, g, g), labels and confidences (B, g, g)."""
        pooled = F.avg_pool2d(self.network.features(view), 2)
        feature = F.normalize(self.network.project(pooled), dim=1)
        confidence, label = self.network.classify(pooled).softmax(1).max(1)
        return feature, label, confidence.detach()

    @staticmethod
    def overlap(feature, label, confidence, low, high, flips, view: int, image: int) -> tuple[Tensor, Tensor, Tensor]:
        """The overlap of one image in one view, row by row: features (n, 128), labels and confidences (n,)."""
        maps = feature[image], label[image], confidence[image]
        if flips[image, view]:
            maps = tuple(one.flip(-1) for one in maps)
        (top, left), (bottom, right) = low[image, view] // STRIDE, high[image, view] // STRIDE
        feature, label, confidence = (one[..., top:bottom, left:right] for one in maps)
        return feature.flatten(1).T, label.flatten(), confidence.flatten()

    def direction(self, anchor: Tensor, target: Tensor, label: Tensor, own: Tensor, other: Tensor) -> Tensor:
        config = self.recipe.method
        negatives, negative_labels = (torch.cat(parts) for parts in zip(*self.bank))
        positive = (anchor * target.detach()).sum(1, keepdim=True) / config.temperature
        maximum, total = None, 0.0
        for chunk, chunk_labels in zip(negatives.split(CHUNK), negative_labels.split(CHUNK)):
            arguments = (anchor, label, positive, maximum, chunk, chunk_labels, config.temperature)
            more, maximum = checkpoint(foreign_sum, *arguments, use_reentrant=False)
            total = total + more
        own_score = torch.exp(positive - maximum)[:, 0]
        losses = -torch.log(own_score / (own_score + total + 1e-8) + 1e-8)
        active = ((other > config.threshold) & (own < other)).float()
        return (losses * active).sum() / (active.sum() + 1e-12)

    def cps(self, x: Tensor, target: Tensor, u: Tensor) -> dict[str, Tensor]:
        both = [(self.full(network, x), self.full(network, u)) for network in (self.branch1, self.branch2)]
        first, second = (torch.cat(parts) for parts in both)
        label1, label2 = (logits.max(1).indices for logits in (first, second))
        cps = cross_entropy(first, label2) + cross_entropy(second, label1)
        supervised = cross_entropy(both[0][0], target) + cross_entropy(both[1][0], target)
        return {"loss": supervised + self.recipe.method.weight * cps, "supervised": supervised, "cps": cps}

    def cutmix_cps(
        self, x: Tensor, target: Tensor, u: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        if mask is None:
            mask = torch.from_numpy(box_masks(len(u), u.shape[-2:])).to(u)
        mixed = u * (1 - mask) + v * mask
        with torch.no_grad():
            label1, label2 = (
                (self.full(network, u) * (1 - mask) + self.full(network, v) * mask).max(1).indices
                for network in (self.branch1, self.branch2)
            )
        cps = cross_entropy(self.full(self.branch1, mixed), label2)
        cps = cps + cross_entropy(self.full(self.branch2, mixed), label1)
        supervised = cross_entropy(self.full(self.branch1, x), target) + cross_entropy(
            self.full(self.branch2, x), target
        )
        return {"loss": supervised + self.recipe.method.weight * cps, "supervised": supervised, "cps": cps}


def as_published(batch: Batch) -> list[Tensor | list[Tensor]]:
    """A batch of ours as `PublishedWay.loaders` gives it; of images to be mixed the mask (B, 1, S, S) comes with it."""
    labeled = [batch.labeled.image, batch.labeled.target.long()]
    match batch.unlabeled:
        case None:
            return [labeled]
        case Plain(image):
            return [labeled, image]
        case Mixed(u, v, boxes):
            return [labeled, u, v, box_mask(boxes, u.shape[-2:])[:, None].to(u.dtype)]
        case Pair(u, v, corner1, corner2, extent, flip1, flip2):
            low, flips = torch.stack([corner1, corner2], 1).long(), torch.stack([flip1, flip2], 1)
            return [labeled, [torch.stack([u, v], 1), low, low + extent[:, None], flips]]


def upsampled(logits: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target, ignore_index=IGNORE)


def rows(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def foreign_sum(anchor, label, positive, maximum, chunk, chunk_labels, temperature: float) -> tuple[Tensor, Tensor]:
    """The sum over one chunk. What the scores of the first one reach at most is subtracted from then on."""
    scores = anchor @ chunk.T / temperature
    if maximum is None:
        maximum = torch.maximum(positive, scores.amax(1, keepdim=True)).detach()
    foreign = (label[:, None] != chunk_labels).float()
    return (torch.exp(scores - maximum) * foreign).sum(1), maximum


def box_masks(count: int, size: tuple[int, int], boxes: int = 3) -> np.ndarray:
    """(count, 1, H, W): 1 where an odd number of boxes lies, which share a quarter to a half of the area each."""
    draw = np.random.default_rng()
    masks = np.zeros((count, 1, *size), np.float32)
    for mask in masks:
        for share in draw.uniform(0.25, 0.5, boxes):
            height = np.exp(draw.uniform() * np.log(share))
            sides = np.round(np.array([height, share / height]) * np.sqrt(1 / boxes) * size).astype(int)
            top, left = np.round((np.array(size) - sides) * draw.uniform(size=2)).astype(int)
            window = mask[0, top : top + sides[0], left : left + sides[1]]
            np.subtract(1, window, out=window)
    return masks
