"""CAC: Semi-supervised Semantic Segmentation with Directional Context-aware Consistency (Lai et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import directional_contrast
from ...pipelines.batch import Batch, Pair
from ...pipelines.views import ViewSpec
from ..distributed import gathered
from ..models import Network, evaluating
from .method import Method, MethodConfig, MethodContext, PseudoLabels
from .positions import rows
from .programs import CAC_EPOCH_STEPS, PROGRAMS

STRIDE = 8  # pixels of a window per position that is contrasted


@dataclass(kw_only=True, slots=True)
class CacConfig(MethodConfig):
    """Directional context-aware consistency."""

    weight: float = 0.1
    """Weight of the contrastive term."""
    start: float = 5 / 80
    """Share of the schedule after which the contrastive term counts (published: from epoch 5 of 80)."""
    temperature: float = 0.1
    """Divides the cosine similarities."""
    threshold: float = 0.75
    """A target position must be more confident than this."""
    bank_steps: int = 2
    """Steps whose features the negative bank holds, the current one included."""
    pseudo_labels: Literal["training", "evaluation"] = "training"
    """training: labels and confidences of the very pass that is contrasted, dropout and batch statistics included, as
    published; evaluation: of a second pass in evaluation mode, which costs two more forward passes."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from MethodConfig.faults(self)
        yield from self.bounded("start", 0, 1)
        yield from self.bounded("temperature", 0.001)
        yield from self.bounded("threshold", 0, 1)
        yield from self.bounded("bank_steps", 1)


class Cac(Method):
    """Two windows of one image overlap; there, the less confident features follow the more confident ones.

    loss = CE(f(x), y) + weight (contrast(view 1 -> view 2) + contrast(view 2 -> view 1)),
    each contrast against features of other classes
    """

    name = "cac"
    config_class = CacConfig
    config: CacConfig
    views = ViewSpec(unlabeled="pair", grid=STRIDE)
    terms: ClassVar = {"contrastive": "weight"}

    def __init__(self, config: CacConfig, context: MethodContext):
        super().__init__(config, context)
        self.network = context.network(projector=True)
        self.pool = round(STRIDE / self.network.stride)
        batches = config.bank_steps * context.accumulate
        positions = 2 * context.unlabeled_batch * (context.crop // STRIDE) ** 2
        self.bank = NegativeBank(batches, positions, self.network.projection)

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        program = PROGRAMS["cac"]
        return {
            "evaluation.protocol": program.protocol_on(layout),
            "sampling.replay_labeled": True,
            "sampling.replay_unlabeled": True,
            "sampling.epoch_steps": CAC_EPOCH_STEPS,
            "sampling.shared_draws": program.processes_on(layout),
            "emulate_processes": program.processes_on(layout),
        }

    @property
    def start(self) -> float:
        return self.config.start

    def phase(self, progress: float) -> bool:
        """Whether the contrastive term counts."""
        return progress >= self.start

    def losses(self, batch: Batch[Pair], progress: float) -> dict[str, Tensor]:
        x, target, u = batch.labeled.image, batch.labeled.target, batch.unlabeled
        if not self.phase(progress):
            supervised = self.supervised(self.network(x), target)
            return self.summed({"supervised": supervised})
        of_x, of_view1, of_view2 = self.network.features_of_each(x, u.image1, u.image2)
        supervised = self.supervised(self.network.classify(of_x), target)
        feature1, label1, confidence1 = self.describe(u.image1, of_view1)
        feature2, label2, confidence2 = self.describe(u.image2, of_view2)
        seen = torch.cat([feature1, feature2]).detach(), torch.cat([label1, label2])
        self.bank.push(*(map(gathered, seen) if self.processes > 1 else seen))
        place1, place2, valid = overlap_positions(u, u.image1.shape[-1] // STRIDE)
        contrastive = self.mean_of_processes(
            self.contrast,
            feature1[place1],
            feature2[place2],
            label1[place1],
            label2[place2],
            confidence1[place1],
            confidence2[place2],
            valid,
        )
        return self.summed({"supervised": supervised, "contrastive": contrastive})

    def contrast(
        self,
        feature1: Tensor,
        feature2: Tensor,
        label1: Tensor,
        label2: Tensor,
        confidence1: Tensor,
        confidence2: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """Aligned lists (N, …) of both views against the bank: the sum of both directions."""
        towards2, towards1 = directional_contrast(
            feature1,
            feature2,
            label1,
            label2,
            confidence1,
            confidence2,
            self.bank.features.flatten(0, 1),
            self.bank.labels.flatten(),
            valid=valid,
            temperature=self.config.temperature,
            threshold=self.config.threshold,
            # Unit vectors lose least in float16, but their gradients are too small for it.
            product_dtype=torch.float16 if torch.is_autocast_enabled(feature1.device.type) else None,
        )
        if not self.shares_mean:
            return towards2 + towards1
        count2, count1 = (
            (valid & self.followed(anchor, target)).sum()
            for anchor, target in ((confidence1, confidence2), (confidence2, confidence1))
        )
        return self.weighed(towards2, count2) + self.weighed(towards1, count1)

    def followed(self, anchor: Tensor, target: Tensor) -> Tensor:
        """(N,) bool: where the features of a view whose confidences are `anchor` follow the other's."""
        return (target > self.config.threshold) & (anchor < target)

    def describe(self, view: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A view (B, 3, S, S) and its features (B, F, h, w), of a stride that divides 8 -> unit features (N, P),
        pseudo-labels (N,) and confidences (N,), N = B (S / 8)^2."""
        pooled = F.avg_pool2d(features, self.pool)
        feature = F.normalize(rows(self.network.project(pooled)), dim=1)
        with torch.no_grad():
            label, confidence = self.labels(view, pooled)
        return feature, label, confidence

    def labels(self, view: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pseudo-labels (N,) and confidences (N,) of a view (B, 3, S, S) of pooled features (B, F, S / 8, S / 8)."""
        confidence, label = rows(self.label_logits(view, pooled)).softmax(1).max(1)
        return label, confidence

    def label_logits(self, view: Tensor, pooled: Tensor) -> Tensor:
        """Logits (B, C, S / 8, S / 8) that label a view (B, 3, S, S) of pooled features (B, F, S / 8, S / 8)."""
        return self.network.classify(pooled) if self.config.pseudo_labels == "training" else self.judge(view)

    def judge(self, view: Tensor) -> Tensor:
        """Logits (B, C, S / 8, S / 8) of the network in evaluation mode, whose running statistics stay as they are."""
        with evaluating(self.network):
            return self.network.classify(F.avg_pool2d(self.network.features(view), self.pool))

    def pseudo_labels(self, batch: Batch[Pair]) -> PseudoLabels:
        """The labels of the positions, of which those count that the other view's follow, enlarged to pixels."""
        u = batch.unlabeled
        windows = {"window 1": u.image1, "window 2": u.image2}
        _, *of_views = self.network.features_of_each(batch.labeled.image, *windows.values())
        pooled = [F.avg_pool2d(features, self.pool) for features in of_views]
        (label1, confidence1), (label2, confidence2) = map(self.labels, windows.values(), pooled)
        grid = pooled[0].shape[-1]
        place1, place2, valid = overlap_positions(u, grid)
        kept1 = _named(place1, valid & self.followed(confidence2[place2], confidence1[place1]))
        kept2 = _named(place2, valid & self.followed(confidence1[place1], confidence2[place2]))
        label, kept = (torch.cat(both).view(-1, grid, grid).byte() for both in ((label1, label2), (kept1, kept2)))
        return PseudoLabels(windows, self.enlarged(label), kept=self.enlarged(kept).bool())

    def enlarged(self, positions: Tensor) -> Tensor:
        """Positions (N, S / 8, S / 8) as pixels (N, S, S)."""
        return F.interpolate(positions[:, None], size=(self.crop, self.crop), mode="nearest")[:, 0]

    def predictor(self) -> Network:
        return self.network


class NegativeBank(nn.Module):
    """A ring of the features of the last batches; slots that were never filled have label -1."""

    features: Tensor
    labels: Tensor
    position: Tensor

    def __init__(self, batches: int, rows: int, channels: int):
        super().__init__()
        self.register_buffer("features", torch.zeros(batches, rows, channels))
        self.register_buffer("labels", torch.full((batches, rows), -1))
        self.register_buffer("position", torch.zeros(1, dtype=torch.long))

    def push(self, features: Tensor, labels: Tensor) -> None:
        """features (rows, channels), labels (rows,) of all processes replace the oldest batch's."""
        self.features.index_copy_(0, self.position, features[None])
        self.labels.index_copy_(0, self.position, labels[None])
        self.position.copy_((self.position + 1) % len(self.features))


def overlap_positions(pair: Pair, grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (N,) into both views' flattened positions such that row i of both is the same place of the image, and
    which rows are inside the overlap, N = B grid^2. The overlap fills the upper left rows; the others are void."""
    row, column = torch.meshgrid(*[torch.arange(grid, device=pair.corner1.device)] * 2, indexing="ij")
    height, width = (pair.extent // STRIDE)[..., None, None].unbind(1)
    valid = (row < height) & (column < width)
    sample = torch.arange(len(valid), device=valid.device)[:, None, None] * grid**2

    def place(corner: Tensor, flip: Tensor) -> Tensor:
        top, left = (corner // STRIDE)[..., None, None].unbind(1)
        there = (left + column).clamp(max=grid - 1)
        there = torch.where(flip[:, None, None], grid - 1 - there, there)
        return (sample + (top + row).clamp(max=grid - 1) * grid + there).flatten()

    return place(pair.corner1, pair.flip1), place(pair.corner2, pair.flip2), valid.flatten()


def _named(places: Tensor, rows: Tensor) -> Tensor:
    """(N,) bool: which of N places the rows (N,) bool name that count."""
    return torch.zeros(len(places), device=places.device).index_add_(0, places, rows.float()) > 0
