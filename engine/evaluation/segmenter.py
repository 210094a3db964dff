"""The class of each pixel of images in memory, by a network that is read and placed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

import numpy as np

from ...pipelines.errors import UsageError
from ..device import as_started
from .inference import Segmentation, load_for_inference, protocols_of, segment_within_memory


class Segmenter:
    """A checkpoint's network on its device, made once and called for each image, or frame, or list of such.

    It says what `predict` does of the same pixels, bit for bit: each image is looked at by itself, by the protocol
    `protocol` and in the precision `precision`. `header` names the classes, their colours and label values. What the
    program around has set in torch does not count, and stays as it is (`as_started`): one thread at a time.
    """

    @as_started()
    def __init__(
        self,
        checkpoint: Path | str,
        *,
        layout: str | None = None,
        protocol: str | None = None,
        device: str = "auto",
        precision: str | None = None,
        **settings: Any,
    ):
        """checkpoint, layout: as `load_network` takes them. protocol, precision, settings: as in `evaluate`. Raises
        UsageError where any of them is none, or does not fit the others."""
        loaded, self.precision = load_for_inference(checkpoint, layout, device, precision)
        self.network, self.header = loaded.network, loaded.header
        (self.protocol,) = protocols_of(loaded, [protocol], settings)

    @overload
    def __call__(self, image: np.ndarray, *, probabilities: bool = ..., name: str = ...) -> Segmentation: ...
    @overload
    def __call__(
        self, image: list[np.ndarray], *, probabilities: bool = ..., name: str = ...
    ) -> list[Segmentation]: ...
    @as_started()
    def __call__(
        self, image: np.ndarray | list[np.ndarray], *, probabilities: bool = False, name: str = "image"
    ) -> Segmentation | list[Segmentation]:
        """The segmentation of an image (H, W, 3) uint8 RGB, or of each of a list, of any sizes.

        probabilities: whether those of all classes are made, too, which take 4 C bytes a pixel. name: what a message
        calls the image. Raises UsageError for what is no such image, before any is looked at, and where memory does not
        do, as `predict` tells it.
        """
        if not isinstance(image, list):
            _check(image, name)
            return self._seen(image, name, probabilities)
        names = [f"{name}[{place}]" for place in range(len(image))]
        for called, one in zip(names, image, strict=True):
            _check(one, called)
        return [self._seen(one, called, probabilities) for called, one in zip(names, image, strict=True)]

    def _seen(self, image: np.ndarray, name: str, probabilities: bool) -> Segmentation:
        self.precision.allow_tf32()
        # Torch takes no array that has negative strides, or is for reading alone.
        pixels = np.require(image, requirements=("C", "W"))
        return segment_within_memory(
            name, self.network, pixels, self.protocol, self.precision, probabilities=probabilities
        )


def _check(image: Any, name: str) -> None:
    """Raises UsageError for what is no image."""
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__
        told = f"a {kind}; of a Pillow image pass np.asarray(ImageOps.exif_transpose(image).convert('RGB'))"
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        told = f"{image.dtype} of shape {image.shape}"
    else:
        return
    raise UsageError(f"{name}: must be RGB as a numpy array (H, W, 3) of uint8, or a list of such, is {told}")
