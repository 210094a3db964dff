"""Checkpoints: the evaluated network as safetensors, with a header that says all that its use needs, and the files of
the published programs, which stand in for them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..pipelines.datasets.dataset import IGNORE, Colour, voc_colours
from ..pipelines.datasets.files import composed
from ..pipelines.datasets.layouts import LAYOUTS, check_layout
from ..pipelines.datasets.registry import POOLS
from ..pipelines.errors import UsageError, fault_unless, raise_faults
from .device import PrecisionName, as_started
from .disk import whole
from .methods.programs import PROGRAMS
from .models import Network, build_network, from_published, of_projector, published_program, read_state_dict
from .protocol import Evaluation, Protocol
from .recipe import Recipe
from .serial import plain, typed

FORMAT = "semiseg 2"
# How published networks are shown images of data that was never published.
OWN_LAYOUT = next(name for name, layout in LAYOUTS.items() if layout.classes is None)
OWN_CROP, OWN_LONGEST = 320, 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the use of a network needs. A field may be added with a default, and none may change its meaning: then
    every version reads the files of every other, and passes over what it does not know."""

    network: str
    """The decoder, of DECODERS."""
    backbone: str
    """The encoder, as `encoder_of` knows it."""
    head_width: int
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    """One RGB colour a class."""
    values: tuple[int, ...] = ()
    """The label value of each class in masks of the data set; without them, its index."""
    levels: tuple[int, ...] = ()
    """Where its masks hold gray levels, the colours of the class list, instead of these: that of each class."""
    mean: tuple[float, float, float]
    """The mean of each channel by which its images are normalised, in [0, 1]."""
    std: tuple[float, float, float]
    evaluation: Protocol
    layout: str
    """Layout of the data set that it was trained on, below `data`."""
    data: str | None = None
    files: dict[str, Any] = field(default_factory=dict)
    """The options of `find_dataset` that it was found with."""
    as_stored: bool = False
    """Whether its pictures were used as they are stored, whatever their orientation tags say."""
    precision: PrecisionName = "auto"
    """The precision that the training asked for."""
    step: int = 0
    miou: float | None = None
    """On the validation set, in [0, 1]; None where it is not known."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from fault_unless(self.head_width >= 1, "head_width", "must be at least 1", self.head_width)
        count = len(self.classes)
        yield from fault_unless(count >= 1, "classes", "must be one at least", count)
        yield from fault_unless(len(self.palette) == count, "palette", f"must be {count} colours", len(self.palette))
        fits = all(0 <= part < 256 for colour in self.palette for part in colour)
        yield from fault_unless(fits, "palette", "must be numbers from 0 to 255", self.palette)
        fits = len({*self.values}) == len(self.values) in (0, count) and all(0 <= one < IGNORE for one in self.values)
        yield from fault_unless(
            fits, "values", f"must be {count} numbers from 0 to {IGNORE - 1}, each once", self.values
        )
        fits = len(self.levels) in (0, count) and all(0 <= one <= IGNORE for one in self.levels)
        yield from fault_unless(fits, "levels", f"must be {count} numbers from 0 to {IGNORE}", self.levels)
        yield from fault_unless(min(self.std) > 0, "std", "must be more than 0", self.std)
        yield from self.evaluation.faults("evaluation.")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network, on the CPU and in evaluation mode, and what its use needs."""

    network: Network
    header: Header
    recipe: dict[str, Any] = field(default_factory=dict)
    """What it was trained by, for the record; empty for a published file."""


def header_of(
    recipe: Recipe,
    network: Network,
    classes: tuple[str, ...],
    palette: tuple[Colour, ...],
    *,
    values: tuple[int, ...] = (),
    levels: tuple[int, ...] = (),
    as_stored: bool = False,
    step: int = 0,
    miou: float | None = None,
) -> Header:
    """The header of a network that a recipe trains."""
    return Header(
        network=network.decoder_name,
        backbone=network.backbone_name,
        head_width=network.head_width,
        classes=classes,
        palette=palette,
        values=values,
        levels=levels,
        mean=network.mean,
        std=network.std,
        evaluation=recipe.protocol(),
        layout=recipe.layout,
        data=plain(recipe.runtime.data),
        files=plain(recipe.files),
        as_stored=as_stored,
        precision=recipe.runtime.precision,
        step=step,
        miou=None if miou is None or math.isnan(miou) else miou,
    )


def save_network(path: Path, weights: Mapping[str, Tensor], header: Header, recipe: Recipe) -> None:
    """Writes a network's state dict, with a checksum, whole or not at all."""
    metadata = {"format": FORMAT, "header": json.dumps(plain(header)), "recipe": json.dumps(recipe.to_dict())}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with whole(path) as draft:
        save_file(weights, draft, metadata | {"sha256": checksum(weights, metadata)})


def checksum(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of what a file says and holds."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@as_started()
def load_network(path: Path | str, layout: str | None = None) -> Checkpoint:
    """The network of a checkpoint file or of a run's folder (its best one), on the CPU, in evaluation mode.

    A published file (see `from_published`) is taken for one of its program on `layout`; without one, on VOC where it
    holds VOC's number of classes, on Cityscapes where it holds theirs, else on a folder.
    Raises UsageError for a file that is neither, and for a layout that there is not.
    """
    if layout is not None:
        check_layout(layout)
    path = checkpoint_file(path)
    if path.suffix != ".safetensors":
        return _load_published(path, layout)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if not metadata.get("format", "").startswith("semiseg "):
                return _load_published(path, layout)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path}: damaged or no safetensors file ({error}); pass another checkpoint") from None
    if metadata.pop("sha256", None) != checksum(state, metadata):
        raise UsageError(f"{path}: damaged (not the bytes that were saved); pass another checkpoint")
    try:
        header, recipe = read_header(metadata), json.loads(metadata["recipe"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: its header cannot be read ({error}); it is of a newer semiseg, or of additions to it"
        ) from error
    projector = any(map(of_projector, state))
    try:
        network = build_network(
            header.network, header.backbone, len(header.classes), head_width=header.head_width, projector=projector
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (RuntimeError, OverflowError, TypeError) as error:  # of a size that no memory holds, or no number of torch
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"{path}: its header asks for a network that cannot be built ({reason})") from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # A package that makes backbones may have changed since.
        raise UsageError(
            f"{path}: its weights are not those of {header.network} with {header.backbone} as they are made here; "
            "install the versions in environment.json of its run"
        ) from error
    network.mean, network.std = header.mean, header.std
    return Checkpoint(network.eval(), header, recipe)


def read_header(metadata: dict[str, str]) -> Header:
    """The header in a file's metadata. Raises AttributeError, KeyError, TypeError or ValueError where it is none, or
    makes no sense."""
    values = json.loads(metadata["header"])
    values |= {"evaluation": _known(Protocol, plain(values["evaluation"]))}
    header = typed(Header, _known(Header, values))
    raise_faults(header.faults())
    return header


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}


def _load_published(path: Path, layout: str | None) -> Checkpoint:
    state = read_state_dict(path)
    try:
        network, program = from_published(state).float(), PROGRAMS[published_program(state)]
    except UsageError as error:
        raise UsageError(f"{path}: not a checkpoint of semiseg and {error}") from None
    count = network.num_classes
    if layout is None:
        layout = next((name for name in POOLS if len(LAYOUTS[name].classes or ()) == count), OWN_LAYOUT)
    crop = program.crops.get(layout)
    if crop is None:
        crop = -(-OWN_CROP // network.multiple) * network.multiple
        evaluation = Evaluation(protocol=program.protocol_on(layout), longest=OWN_LONGEST)
    else:
        evaluation = Evaluation(protocol=program.protocol_on(layout), native_crop=crop)
    classes, palette = LAYOUTS[layout].classes, LAYOUTS[layout].palette
    if classes is None or len(classes) != count:
        classes, palette = made_up(count), None
    header = Header(
        network=network.decoder_name,
        backbone=network.backbone_name,
        head_width=network.head_width,
        classes=classes,
        palette=palette or voc_colours(count),
        mean=network.mean,
        std=network.std,
        evaluation=evaluation.resolve(crop, network.multiple),
        layout=layout,
    )
    return Checkpoint(network, header)


def match_classes(header: Header, classes: Sequence[str], where: str) -> tuple[int, ...]:
    """For each class of the network its place in a data set's classes: by name, or by number where the names of either
    are made up, as a published file's are. Raises UsageError, which begins with `where`, for other classes."""
    if len(header.classes) != len(classes):
        raise UsageError(
            f"{where}: trained on {len(header.classes)} classes, the data set has {len(classes)}; pass the data or the "
            "class list it was trained with"
        )
    known = {composed(name): place for place, name in enumerate(classes)}
    if strangers := [name for name in header.classes if composed(name) not in known]:
        if made_up(len(classes)) in (header.classes, tuple(classes)):
            return tuple(range(len(classes)))
        new = next(name for name in classes if name not in header.classes)
        raise UsageError(
            f"{where}: the class {strangers[0]!r} it was trained on is not one of the data set, which has {new!r}; "
            "pass the data or the class list it was trained with"
        )
    return tuple(known[composed(name)] for name in header.classes)


def require_finite(checkpoint: Checkpoint, path: Path | str) -> None:
    """Raises UsageError for weights that are no numbers, which a run that goes on regardless may have saved: such a
    network says class 0 everywhere."""
    if not all(bool(value.isfinite().all()) for value in checkpoint.network.state_dict().values()):
        raise UsageError(f"{path}: holds weights that are no numbers; take an earlier checkpoint, or train again")


def initialise(network: Network, file: Path | str, classes: Sequence[str], layout: str | None = None) -> None:
    """Gives a network all of a checkpoint's, which `load_network` reads; a projector that it lacks stays as it is.
    Raises UsageError where it is of other classes, or of another network, or no numbers."""
    checkpoint = load_network(file, layout)
    require_finite(checkpoint, f"--init: {file}")
    header = checkpoint.header
    places = match_classes(header, classes, f"--init: {file}")
    if list(places) != sorted(places):
        raise UsageError(
            f"--init: {file} has the same classes in another order ({', '.join(header.classes)}); "
            "write the class list in that order"
        )
    state, wanted = checkpoint.network.state_dict(), network.state_dict()
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    # Those of a shallower network may be among those of a deeper one.
    others = [name for name in wanted.keys() ^ state.keys() if not of_projector(name)]
    # With some encoders cac and unimatch have the same names and shapes, whose channels are in another order.
    names = (header.network, header.backbone) != (network.decoder_name, network.backbone_name)
    if wrong or others or names:
        raise UsageError(
            f"--init: {file} holds another network (--network {header.network} --backbone {header.backbone} "
            f"--head-width {header.head_width}); ask for the same"
        )
    if (header.mean, header.std) != (network.mean, network.std):
        raise UsageError(
            f"--init: {file} was shown images normalised by {header.mean} and {header.std}, and here they are by "
            f"{network.mean} and {network.std}; start from another checkpoint"
        )
    network.load_state_dict(state, strict=False)  # a projector may be there alone


def made_up(count: int) -> tuple[str, ...]:
    """The names of classes that a published file does not name."""
    return tuple(f"class {index}" for index in range(count))


def checkpoint_file(path: Path | str) -> Path:
    """The checkpoint that a path means: a file, or a run's best. Raises UsageError where there is none."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    for name in ("best", "last"):
        candidate = path / "checkpoints" / f"{name}.safetensors"
        if candidate.is_file():
            return candidate
    raise UsageError(f"{path}: neither a checkpoint nor the folder of a run that has saved one; pass either")
