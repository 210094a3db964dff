"""DeepLabv3+ (Chen et al., 2018) in the two forms in which the semi-supervised methods were published.

`cac`: Lai et al., Semi-supervised Semantic Segmentation with Directional Context-aware Consistency (2021). 7x7 stem,
an ASPP that concatenates its five branches, dropout.
`cps`: Chen et al., Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision (2021). Deep stem, an ASPP with
one normalisation over four branches to which the pooled one is added, LeakyReLU there, no dropout.

Both give logits at a quarter of the input's resolution.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipelines.errors import UsageError
from .resnet import BackboneName, ResNet, conv

Architecture = Literal["cac", "cps"]
RATES = (6, 12, 18)
PROJECTION = 128


def build_network(
    architecture: Architecture,
    backbone: BackboneName,
    num_classes: int,
    *,
    head_width: int = 256,
    projector: bool = False,
) -> "Network":
    """A randomly initialised network; `load_backbone` brings pretrained weights.

    `head_width` is the channel count of ASPP, decoder and projector (published: 256; the 48 channels of the
    low-level features scale with it). `projector` adds the projection that CAC's contrastive loss reads.
    Raises UsageError for a name or a number that does not exist.
    """
    for name, value, known in (
        ("architecture", architecture, get_args(Architecture)),
        ("backbone", backbone, get_args(BackboneName)),
    ):
        if value not in known:
            raise UsageError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
    for name, value in (("num_classes", num_classes), ("head_width", head_width)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    return Network(architecture, backbone, num_classes, head_width=head_width, projector=projector)


class Network(nn.Module):
    """Backbone, ASPP, decoder, classifier and, on request, a projector. Build it with `build_network`.

    Called on normalised images (B, 3, H, W), it returns logits (B, num_classes, H/4, W/4), sides rounded up. In
    training mode the pooled branch of the ASPP normalises one value per image and channel, so it needs two images.
    """

    def __init__(
        self, architecture: Architecture, backbone: BackboneName, num_classes: int, *, head_width: int, projector: bool
    ):
        super().__init__()
        self.architecture, self.backbone_name = architecture, backbone
        self.num_classes, self.head_width = num_classes, head_width
        cac = architecture == "cac"
        self.backbone = ResNet(backbone, deep_stem=not cac)
        aspp = ConcatenatingASPP if cac else SummingASPP
        self.aspp = aspp(self.backbone.channels, head_width)
        self.decoder = Decoder(self.backbone.low_channels, head_width, dropout=0.5 if cac else 0.0)
        self.dropout = nn.Dropout(0.1) if cac else nn.Identity()
        self.classifier = nn.Conv2d(head_width, num_classes, 1)
        for module in (self.aspp, self.decoder, self.classifier):
            module.apply(_initialise)
        # The projector keeps torch's default initialisation.
        self.projector = _projector(head_width) if projector else None

    def features(self, x: Tensor) -> Tensor:
        """The decoder's output (B, head_width, H/4, W/4)."""
        low, high = self.backbone(x)
        return self.decoder(low, self.aspp(high))

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes, h, w) of features (B, head_width, h, w), with the dropout that precedes them."""
        return self.classifier(self.dropout(features))

    def project(self, features: Tensor) -> Tensor:
        """Projection (B, 128, h, w) of features (B, head_width, h, w), not normalised."""
        if self.projector is None:
            raise RuntimeError("this network has no projector: build it with projector=True")
        return self.projector(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))

    def full_logits(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, H, W), upsampled bilinearly to the size of the images."""
        return _resize(self(x), x)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters outside the backbone: ASPP, decoder, classifier and projector."""
        for child in self.children():
            if child is not self.backbone:
                yield from child.parameters()


class ConcatenatingASPP(nn.Module):
    """Atrous spatial pyramid pooling of `cac`: five normalised branches, concatenated and merged.

    Maps (B, C, h, w) to (B, W, h, w).
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(branch, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for branch in _atrous_convolutions(inputs, width)
        )
        self.pooled = nn.Sequential(conv(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.merge = conv(5 * width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        # The pooled branch is constant over the image, and so is its share of the merged map: it is added as one
        # vector per image rather than repeated, concatenated and multiplied at every position.
        pooled = self.pooled(_global_mean(x, self.pooled[1]))
        branches = torch.cat([branch(x) for branch in self.branches], 1)
        spatial, constant = self.merge.weight.split([branches.shape[1], pooled.shape[1]], dim=1)
        y = F.conv2d(branches, spatial) + F.conv2d(pooled, constant)
        return self.dropout(self.relu(self.norm(y)))


class SummingASPP(nn.Module):
    """Atrous spatial pyramid pooling of `cps`: four branches under one normalisation, plus the pooled branch.

    Maps (B, C, h, w) to (B, W, h, w).
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.branches = nn.ModuleList(_atrous_convolutions(inputs, width))
        self.branch_norm = nn.BatchNorm2d(4 * width)
        self.pooled = conv(inputs, width, 1)
        self.pooled_norm = nn.BatchNorm2d(width)
        self.merge = conv(4 * width, width, 1)
        self.merge_pooled = conv(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.activation(self.pooled_norm(self.pooled(_global_mean(x, self.pooled_norm))))
        branches = torch.cat([branch(x) for branch in self.branches], 1)
        branches = self.activation(self.branch_norm(branches))
        return self.activation(self.norm(self.merge(branches) + self.merge_pooled(pooled)))


class Decoder(nn.Module):
    """Joins the ASPP's output (B, W, h/4, w/4) with low-level features (B, C, h, w) to (B, W, h, w)."""

    def __init__(self, low_channels: int, width: int, *, dropout: float):
        super().__init__()
        reduced = max(8, width * 48 // 256)
        self.reduce = nn.Sequential(conv(low_channels, reduced, 1), nn.BatchNorm2d(reduced), nn.ReLU(inplace=True))
        self.refine = nn.Sequential(
            *(conv(width + reduced, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            *(conv(width, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        low = self.reduce(low)
        return self.refine(torch.cat([_resize(high, low), low], 1))


def _atrous_convolutions(inputs: int, width: int) -> list[nn.Conv2d]:
    return [conv(inputs, width, 1), *(conv(inputs, width, 3, dilation=rate) for rate in RATES)]


def _projector(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, PROJECTION, 1))


def _initialise(module: nn.Module) -> None:
    """Kaiming-normal weights by fan-in; biases and normalisations keep torch's defaults."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


def _global_mean(x: Tensor, norm: nn.Module) -> Tensor:
    """Mean over the image (B, C, 1, 1), refusing a batch whose statistics `norm` could not take."""
    if len(x) == 1 and norm.training and not isinstance(norm, nn.SyncBatchNorm):
        raise UsageError(
            "the network cannot train on one image at a time, since batch normalisation needs more than one value per "
            "channel in the pooled ASPP branch: use a batch of at least 2 images per process"
        )
    return x.mean((2, 3), keepdim=True)
