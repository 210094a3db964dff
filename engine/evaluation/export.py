"""From a checkpoint a program that needs neither it nor this library: what `predict` says of images of one size, as one
graph in one file, which has been read again and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ...pipelines.errors import UsageError
from ..checkpoint import Checkpoint, checkpoint_file, load_network, require_finite
from ..device import Precision, as_started
from ..disk import create_folder, whole
from ..events import Listener, note, silent
from ..memory import out_of_memory
from ..models import Network, encoder_of, evaluating
from ..protocol import LARGEST, Protocol
from ..run import home_of
from ..serial import typed
from .formats import FORMATS, FormatName
from .inference import protocols_of, segment
from .memory import MemoryNeed, room_for
from .protocols import full_logits

TOLERATED = 0.001
"""Share of pixels that rounding may give to another class."""
PRECISION = Precision("fp32", torch.device("cpu"))
"""What a program computes in."""
BRIGHTNESS = (0.25, 0.5, 1.0)


class ExportError(Exception):
    """There is no program that says what the network says. The message is one line."""


class Export(NamedTuple):
    """What `export` has made."""

    path: Path
    size: tuple[int, int]
    """Height and width of the images that the program takes."""
    classes: tuple[str, ...]
    protocol: str
    """How the program puts them before the network."""
    differing: float
    """Share of the pixels of the check, in [0, 1], to which the file gives another class than `segment`."""
    seen: int
    """Classes that occurred among them."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the path as "out"."""
        values = self._asdict()
        return {"out": str(values.pop("path"))} | values


class Program(nn.Module):
    """What `segment` does with a network by a protocol, in functions of torch alone."""

    factor: Tensor
    offset: Tensor

    def __init__(self, network: Network, protocol: Protocol):
        super().__init__()
        self.network, self.protocol = network, protocol
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (network.mean, network.std))
        self.register_buffer("factor", (1 / (255 * std)).float())
        self.register_buffer("offset", (-mean / std).float())

    def forward(self, image: Tensor) -> Tensor:
        """(1, H, W, 3) uint8 RGB -> (1, H, W) uint8 class indices."""
        normalised = image.permute(0, 3, 1, 2).float() * self.factor + self.offset
        return full_logits(self.network, normalised, self.protocol).argmax(1).to(torch.uint8)


@as_started()
def export(
    checkpoint: Path | str,
    out: Path | str | None = None,
    *,
    size: tuple[int, int] | None = None,
    format: FormatName = "pt2",
    layout: str | None = None,
    protocol: str | None = None,
    on_event: Listener = silent,
    **settings: Any,
) -> Export:
    """Writes a program that takes an image (1, H, W, 3) uint8 RGB and gives its class indices (1, H, W) uint8, those
    of which `predict` writes the label values for an image of this size, in float32 on a CPU. The file holds the texts
    "classes" (names), "palette" (RGB colours), "values" (label values; empty: the indices), "size" (H, W), all JSON,
    and "protocol".

    checkpoint, layout: as `load_network` takes them. out: default: beside the checkpoint's run, with the checkpoint's
    name. size: H and W in pixels (default: the side of the protocol's windows, which is the crop unless the recipe
    says otherwise). format: of FORMATS. protocol, settings: as in `evaluate`.

    Before the file gets its name, it is read again, and run on noise and on gradients. Raises UsageError for what a
    user can mend; ExportError where the network cannot be exported, or more than TOLERATED of the pixels differ. Then
    there is no file, or the one before.
    """
    if (form := FORMATS.get(format)) is None:
        raise UsageError(f"--format: must be one of {', '.join(FORMATS)}, is {format}")
    if missing := [name for name in form.packages if find_spec(name) is None]:
        raise UsageError(f"--format {format}: needs {', '.join(missing)}; run pip install -e '.[onnx]' in the clone")
    file = checkpoint_file(checkpoint)
    out = home_of(file) / f"{file.stem}.{format}" if out is None else Path(out)
    _check_out(out, file, format)
    loaded = load_network(file, layout)
    require_finite(loaded, file)
    network, header = loaded.network.requires_grad_(False), loaded.header
    (chosen,) = protocols_of(loaded, [protocol], settings)
    size = (chosen.window, chosen.window) if size is None else _checked(size, loaded)
    with _room(size, network, chosen):
        images = probes(size)
        expected = [segment(network, image, chosen, PRECISION).labels for image in images]
        with _exporting(f"{checkpoint}: {header.backbone} cannot be exported as {format}"):
            said = {"classes": header.classes, "palette": header.palette, "values": header.values, "size": size}
            texts = {name: json.dumps(value) for name, value in said.items()} | {"protocol": str(chosen)}
            data = form.pack(traced(network, chosen, size), texts)
        create_folder(out.parent)
        with whole(out) as draft:
            draft.write_bytes(data)
            with _exporting(f"{checkpoint}: what was exported as {format} cannot be run"):
                run = form.open(draft)
                labels = [run(image[None])[0] for image in images]
            differing = float(np.mean([one != other for one, other in zip(labels, expected, strict=True)]))
            if differing > TOLERATED:
                raise ExportError(
                    f"{checkpoint}: exported as {format} it gives {100 * differing:.3g} % of the pixels of the check "
                    f"to another class, which is more than {100 * TOLERATED:g} %; nothing was written"
                )
    seen = len(np.unique(expected))
    if seen == 1 < len(header.classes):
        note("the check met one class alone: compare a few photographs with the masks of predict", on_event)
    return Export(out, size, header.classes, str(chosen), differing, seen)


def traced(network: Network, protocol: Protocol, size: tuple[int, int]) -> ExportedProgram:
    """The graph of `Program` for images of this height and width, with all weights."""
    with evaluating(network):
        image = torch.zeros(1, *size, 3, dtype=torch.uint8)
        program = torch.export.export(Program(network, protocol).eval(), (image,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    return program


def probes(size: tuple[int, int]) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 for a check: noise, and smooth gradients, each of several brightness."""
    height, width = size
    noise = np.random.default_rng(0).random((height, width, 3))
    down, right = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    smooth = np.stack(np.broadcast_arrays(down, right, (2 - down - right) / 2), -1)
    return [(255 * share * image).astype(np.uint8) for image in (noise, smooth) for share in BRIGHTNESS]


def _check_out(out: Path, checkpoint: Path, format: str) -> None:
    """Raises UsageError where the name is not that of an export, or that of something else."""
    if out.suffix != f".{format}":
        raise UsageError(f"--out: {out} does not end in .{format}; use {out.with_suffix(f'.{format}')}")
    if out.is_dir():
        raise UsageError(f"--out: {out} is a folder; name a file")
    if out.exists() and out.samefile(checkpoint):
        raise UsageError(f"--out: {out} is the checkpoint; name another file")


def _checked(size: Any, checkpoint: Checkpoint) -> tuple[int, int]:
    """The size of images. Raises UsageError for what is none, is smaller than what the network takes, or beyond any
    memory."""
    try:
        size = height, width = typed(tuple[int, int], size, "--size")
    except ValueError as error:
        raise UsageError(str(error)) from None
    least = encoder_of(checkpoint.header.backbone).least
    if min(size) < least:
        raise UsageError(
            f"--size: the network takes sides of at least {least} pixels, not {height} {width}; use "
            f"--size {max(height, least)} {max(width, least)}"
        )
    if max(size) > LARGEST:
        raise UsageError(f"--size: must be at most {LARGEST}, is {height} {width}")
    return size


def _room(size: tuple[int, int], network: Network, protocol: Protocol) -> AbstractContextManager[None]:
    """`room_for` images of this size."""
    (height, width), side = size, protocol.window
    need = MemoryNeed(
        height=height,
        width=width,
        classes=network.num_classes,
        head_width=network.head_width,
        precision=PRECISION,
        full=True,
    )
    smaller = f"--size {side} {side}" if side**2 < height * width else "a smaller --size"
    return room_for(need, protocol, f"--size: for {height} {width}", f"use {smaller}, and cut images into tiles")


@contextmanager
def _exporting(fault: str) -> Iterator[None]:
    """What fails inside, whatever torch or another package raises, becomes an ExportError that begins so; but for what
    runs out of memory."""
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ExportError(f"{fault} ({type(error).__name__}: {' '.join(str(error).split())[:120]})") from error
