"""Encoder, decoder and classifier as one network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...pipelines.errors import UsageError
from .decoders import DECODERS, Decoder
from .encoders import ENCODERS, encoder_of
from .fill import fill
from .grouping import Groups, grouped


def build_network(
    decoder: str, backbone: str, num_classes: int, *, head_width: int = 256, projector: bool = False
) -> "Network":
    """A randomly initialised network; `load_backbone` brings pretrained weights.

    `decoder` is a key of `DECODERS`, `backbone` a name that `encoder_of` knows. `head_width` is the channel count
    of ASPP, decoder and projector (published: 256; what has other widths inside scales with it). `projector` adds the
    projection that contrastive losses read.
    Raises UsageError for a name or a number that does not exist, and for two that do not go together.
    """
    check_pair(decoder, backbone)
    for name, value in (("num_classes", num_classes), ("head_width", head_width)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    return Network(decoder, backbone, num_classes, head_width=head_width, projector=projector)


def check_pair(decoder: str, backbone: str) -> None:
    """Raises UsageError, with the way out, unless there is such a decoder and an encoder that gives what it takes."""
    if decoder not in DECODERS:
        raise UsageError(f"unknown network {decoder!r}: choose one of {', '.join(DECODERS)}")
    given, taken = len(encoder_of(backbone).strides), DECODERS[decoder].maps
    if given == taken:
        return
    networks = [f"--network {name}" for name, design in DECODERS.items() if design.maps == given]
    backbones = [name for name, encoder in ENCODERS.items() if len(encoder.strides) == taken]
    raise UsageError(
        f"the network {decoder} takes {taken} maps, and the backbone {backbone} gives {given}: pass "
        f"{' or '.join(networks)}, or one of the backbones {', '.join(backbones)}"
    )


class Network(nn.Module):
    """Backbone, ASPP, decoder, classifier and, on request, a projector. Build it with `build_network`.

    Called on normalised images (B, 3, H, W), it returns logits (B, num_classes, H/S, W/S), sides rounded up, S being
    its `stride`: `encode`, `decode` and `classify` in turn. (Encoders of the form `ceil_pool` make some a position
    larger.) The sides of images must be multiples of `multiple`. In training mode the pooled branch of an ASPP
    normalises one value per image and channel, so it needs two images. A projection has `projection` channels.
    """

    def __init__(self, decoder: str, backbone: str, num_classes: int, *, head_width: int, projector: bool):
        super().__init__()
        self.decoder_name, self.backbone_name = decoder, backbone
        self.num_classes, self.head_width = num_classes, head_width
        encoder, design = encoder_of(backbone), DECODERS[decoder]
        self.multiple, self.stride = encoder.multiple, encoder.strides[0] / design.finer
        # Of images in [0, 1]: the encoder's, or what a checkpoint says that they were in training.
        self.mean, self.std = encoder.mean, encoder.std
        self.groups: Groups | None = None
        self.backbone = encoder.build(**(design.forms if encoder.forms else {}))
        self.aspp = design.aspp(encoder.channels[-1], head_width) if design.aspp else nn.Identity()
        self.decoder = design.build(
            encoder.channels, head_width, **({"projector": projector} if design.projector_head else {})
        )
        self.dropout = nn.Dropout(design.classifier_dropout) if design.classifier_dropout else nn.Identity()
        self.classifier = nn.Conv2d(self.decoder.width, num_classes, 1)
        if design.kaiming:
            for module in (self.aspp, self.decoder, self.classifier):
                module.apply(_initialise)
        self.projection = design.projection
        # The projector keeps torch's default initialisation.
        self.projector = _projector(self.decoder.width, design) if projector else None

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """The encoder's maps of normalised images (B, 3, H, W): channels and strides as its row says."""
        return self.backbone(x)

    def decode(self, maps: tuple[Tensor, ...], *, projected: bool = True) -> Tensor:
        """Features (B, F, H/S, W/S) of the encoder's maps, as many as there are in the batch of the maps: methods may
        change them in between. F is the classifier's `in_channels`, and twice that where the projector has a head and
        is to be asked."""
        *finer, coarsest = maps
        head = {"projected": projected} if DECODERS[self.decoder_name].projector_head else {}
        return self.decoder(*finer, self.aspp(coarsest), **head)

    def features(self, x: Tensor) -> Tensor:
        """Features (B, F, H/S, W/S) of normalised images (B, 3, H, W)."""
        return self.decode(self.encode(x))

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes, h, w) of features (B, F, h, w), with the dropout that precedes them."""
        width = self.classifier.in_channels
        return self.classifier(self.dropout(features if features.shape[1] == width else features[:, :width]))

    def project(self, features: Tensor) -> Tensor:
        """Projection (B, P, h, w) of features (B, F, h, w), not normalised; P is `projection`."""
        if self.projector is None:
            raise RuntimeError("this network has no projector: build it with projector=True")
        width = self.classifier.in_channels
        if not DECODERS[self.decoder_name].projector_head:
            return self.projector(features)
        if features.shape[1] == width:
            raise RuntimeError("these features are the classifier's alone: decode them with projected=True")
        return self.projector(features[:, width:])

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.decode(self.encode(x), projected=False))

    def encode_of_each(self, *batches: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        """`encode` of each batch of images of one size, as by a call for each, whose batch statistics never mix; in
        one call after `group`, in one with joint statistics after `join`."""
        if self.groups is None:
            return tuple(self.encode(batch) for batch in batches)
        sizes = [len(batch) for batch in batches]
        with self.groups.of(sizes):
            maps = self.encode(torch.cat(batches))
        return tuple(zip(*(one.split(sizes) for one in maps), strict=True))

    def decode_of_each(self, *maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`decode` of the maps of each batch, likewise."""
        if self.groups is None:
            return tuple(self.decode(one) for one in maps)
        sizes = [len(finest) for finest, *_ in maps]
        with self.groups.of(sizes):
            return self.decode(tuple(map(torch.cat, zip(*maps, strict=True)))).split(sizes)

    def features_of_each(self, *batches: Tensor) -> tuple[Tensor, ...]:
        """`features` of each batch, likewise."""
        return self.decode_of_each(*self.encode_of_each(*batches))

    def logits_of_each(self, *batches: Tensor) -> tuple[Tensor, ...]:
        """Logits of each batch, likewise."""
        return tuple(self.classify(features) for features in self.features_of_each(*batches))

    def group(self) -> None:
        """Batches whose features are asked for together go through the network in one call from now on."""
        self.groups = grouped(self)

    def join(self) -> None:
        """They do, and are one batch to it: normalised by the statistics of all of their images."""
        self.groups = Groups()

    def compile(self, *, dynamic: bool | None = False, **options) -> None:
        """Compiles in place what `encode` and `decode` call, by `nn.Module.compile`; `options` are `torch.compile`'s.

        Methods call these two apart, so that `forward` is not what to compile. A copy of the network is not compiled,
        and has its own weights.
        """
        for part in (self.backbone, self.aspp, self.decoder):
            part.compile(dynamic=dynamic, **options)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All parameters outside the backbone: ASPP, decoder, classifier and projector."""
        for child in self.children():
            if child is not self.backbone:
                yield from child.parameters()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and without compiling for every image size; then each module's mode before."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, training in modes:
            module.training = training


def drop_nothing(module: nn.Module) -> None:
    """Switches all dropout in a module off, also in training mode: of two steps that draw other masks nothing can be
    compared."""
    for inner in module.modules():
        if isinstance(inner, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
            inner.p = 0.0


def of_projector(name: str) -> bool:
    """Whether a network's entry of that name is there for a projector alone."""
    return name.startswith(("projector.", "decoder.projector."))


def _projector(width: int, design: Decoder) -> nn.Module:
    if design.projector_head:
        return nn.Conv2d(width, design.projection, 1)
    return nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, design.projection, 1))


def _initialise(module: nn.Module) -> None:
    """Kaiming-normal weights by fan-in; biases and normalisations keep torch's defaults."""
    if isinstance(module, nn.Conv2d):
        fill(nn.init.kaiming_normal_, module.weight, nonlinearity="relu")
