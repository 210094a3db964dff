"""Encoder, decoder and classifier as one network."""

from collections.abc import Iterator
from typing import Literal, get_args

from torch import Tensor, nn

from ...pipelines.errors import UsageError
from .decoders.deeplab import (
    ConcatenatingASPP,
    Decoder,
    SummingASPP,
    _resize,
)
from .encoders.resnet import BackboneName, ResNet

Architecture = Literal["cac", "cps"]


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


def _projector(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, PROJECTION, 1))


def _initialise(module: nn.Module) -> None:
    """Kaiming-normal weights by fan-in; biases and normalisations keep torch's defaults."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
