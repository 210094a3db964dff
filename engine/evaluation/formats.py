"""The files that an exported program may be: what they need to be made, how they are written, and how they are run."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.export import ExportedProgram

Run = Callable[[np.ndarray], np.ndarray]
"""(1, H, W, 3) uint8 RGB -> (1, H, W) uint8 class indices."""
IMAGE, LABELS = "image", "labels"
"""Names of what a program takes and of what it gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A row of FORMATS."""

    packages: tuple[str, ...] = ()
    """Packages of the extra `onnx`, without which it is neither made nor run."""
    pack: Callable[[ExportedProgram, Mapping[str, str]], bytes]
    """The bytes of a file that holds the program, and texts by their names."""
    open: Callable[[Path], Run]
    """The program in a file, on the CPU."""


def pack_pt2(program: ExportedProgram, texts: Mapping[str, str]) -> bytes:
    """As torch.export.save; the texts are its `extra_files`."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files=dict(texts))
    return file.getvalue()


def open_pt2(path: Path) -> Run:
    """As torch.export.load."""
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda image: module(torch.from_numpy(image)).numpy()


def pack_onnx(program: ExportedProgram, texts: Mapping[str, str]) -> bytes:
    """A model of ONNX; the texts are its `metadata_props`."""
    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of every operation that it does not compute in advance
    try:
        translated = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[IMAGE], output_names=[LABELS])
    finally:
        log.setLevel(level)
    assert translated is not None  # no file was asked for
    translated.model.metadata_props.update(texts)
    return translated.model_proto.SerializeToString()


def open_onnx(path: Path) -> Run:
    """By onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run([LABELS], {IMAGE: image})[0]


FORMATS: dict[str, Format] = {
    "pt2": Format(pack=pack_pt2, open=open_pt2),
    "onnx": Format(packages=("onnx", "onnxscript", "onnxruntime"), pack=pack_onnx, open=open_onnx),
}
FormatName = Literal["pt2", "onnx"]
