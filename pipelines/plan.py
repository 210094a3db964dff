"""All randomness of the data: (seed, step) -> which images (order.py), which windows, which colours, which boxes.

A plan is a pure function of a counter-based generator (draws.py) keyed by the global sample index, so step k can be
asked for at any time, and processes take slices of one plan. Backends execute it and agree, because windows are stated
in numbers that float32 holds exactly: steps in 1/1024 source pixel per output pixel and integer source origins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .draws import BOXES, LABELED, PARTNER, UNLABELED, Draws, Samples, uniform_int
from .errors import UsageError
from .order import Order
from .views import Augmentation, Drawing

DENOMINATOR = 1024
TRIES = 50
IOU = (0.1, 1.0)
LUMA = np.array([0.299, 0.587, 0.114])
MEAN_LUMA = 117.0  # grey level of the mean colour of ImageNet: the centre about which contrast changes
WORKERS = 8  # loader processes of CPS's program
PER_VIEW = 8  # random numbers: flip, jitter or not, four strengths, grey, blur
PER_WINDOW = 3 + PER_VIEW  # scale, corner
PER_PAIR = 3 + 2 * TRIES + 2 * PER_VIEW


@dataclass(frozen=True, slots=True)
class View:
    """One S x S window of each region of a stream. B rows everywhere."""

    offset: np.ndarray
    """(B, 2) row and column of the window in its region, output pixels."""
    inside: np.ndarray
    """(B, 2) rows and columns of the window that the image covers; the rest is padding."""
    pad: np.ndarray
    """(B, 2) rows of padding above and columns of padding left of the image."""
    flip: np.ndarray
    """(B,) bool; a flip comes after padding."""
    matrix: np.ndarray
    """(B, 3, 4) float32 colour matrix for grey levels 0..255."""
    blur: np.ndarray
    """(B,) bool."""


@dataclass(frozen=True, slots=True)
class Stream:
    """B images; of each the smallest region that holds its views."""

    record: np.ndarray
    """(B,) int64 index of the image."""
    step: np.ndarray
    """(B,) int64: source pixels per output pixel, in units of 1/1024."""
    origin: np.ndarray
    """(B, 2) first source row and column of the region."""
    extent: np.ndarray
    """(B, 2) rows and columns of the region, output pixels."""
    views: tuple[View, ...]
    cubic: bool
    """The image filter: bicubic with antialiasing, else bilinear without."""

    @property
    def source(self) -> np.ndarray:
        """(B, 2) source rows and columns that the region touches; they lie inside the image."""
        return -(-self.extent * self.step[:, None] // DENOMINATOR)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Where two windows of one image show the same place, in pixels of the windows before their flips."""

    corner1: np.ndarray
    """(B, 2) row and column of the overlap in the first window."""
    corner2: np.ndarray
    """(B, 2) the same in the second."""
    extent: np.ndarray
    """(B, 2) rows and columns of the overlap, without padding."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One step's samples: all that a backend needs to know besides the files."""

    labeled: Stream
    crop: int
    """Side of all windows, pixels."""
    fill: tuple[int, int, int]
    """RGB in grey levels of what lies outside an image."""
    unlabeled: tuple[Stream, ...] = ()
    overlap: Overlap | None = None
    """For a pair."""
    boxes: np.ndarray | None = None
    """For mixed images, (B, boxes, 4) int32: y0, x0, y1, x1."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (self.labeled, *self.unlabeled)


class Planner:
    """Plans for one split.

    sizes: (N, 2) height and width of every image. labeled, unlabeled: indices into it. Raises UsageError where the
    split cannot feed the views, or `world` processes cannot share a batch.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        labeled: Sequence[int],
        unlabeled: Sequence[int],
        drawing: Drawing,
        *,
        rank: int = 0,
        world: int = 1,
    ):
        views, sampling = drawing.views, drawing.sampling
        if not len(labeled):
            raise UsageError("split: no labelled images; choose another --split")
        if views.windows and not len(unlabeled):
            raise UsageError(
                "split: no unlabelled images, which this method needs; give fewer labels (--split draw:1/8@0) "
                "or train with the supervised recipe"
            )
        if views.streams > 1 and len(unlabeled) < 2 and sampling.cutmix_partner == "other":
            raise UsageError("split: CutMix mixes two unlabelled images, and there is one; add images")
        for name, size in (("batch", drawing.batch), ("unlabelled batch", drawing.unlabeled_batch)):
            if size % world:
                raise UsageError(f"{name}: {size} cannot be shared by {world} processes; use a multiple of {world}")
        self.sizes, self.drawing = np.asarray(sizes, np.int64), drawing
        passes = [len(labeled) // drawing.batch if drawing.batch else 0]
        passes += [len(unlabeled) // drawing.unlabeled_batch] if views.windows else []
        self.epoch_steps = sampling.epoch_steps or max(*passes, 1)

        def order(images: Sequence[int], batch: int, stream: int, **switches: Any) -> Order:
            samples = Samples(
                seed=drawing.seed, batch=batch // world, rank=rank, world=world, shared=sampling.shared_draws
            )
            images = np.asarray(images, np.int64)
            return Order(images=images, samples=samples, stream=stream, epoch_steps=self.epoch_steps, **switches)

        self.labeled = order(
            labeled,
            drawing.batch,
            LABELED,
            replay=sampling.replay_labeled,
            filled=max(len(labeled), len(unlabeled)) if sampling.redraw_tail else None,
        )
        self.unlabeled = order(
            unlabeled,
            drawing.unlabeled_batch,
            UNLABELED,
            replay=sampling.replay_unlabeled,
            repeat=sampling.unlabeled_order == "repeated",
        )

    def __call__(self, step: int) -> Plan:
        """The plan of optimizer step `step` for this process."""
        shown = self.labeled.shown(step)
        draws = self.labeled.samples.draws(LABELED, shown, PER_WINDOW)
        labeled = self._window(self.labeled(shown), self.drawing.labeled, draws)
        unlabeled = self.BY_KIND[self.drawing.views.unlabeled](self, step, self.unlabeled.shown(step))
        return Plan(labeled, self.drawing.crop, self.drawing.fill, **unlabeled)

    def _none(self, step: int, shown: int) -> dict[str, Any]:
        return {}

    def _plain(self, step: int, shown: int) -> dict[str, Any]:
        draws = self.unlabeled.samples.draws(UNLABELED, shown, PER_WINDOW)
        return {"unlabeled": (self._window(self.unlabeled(shown), self.drawing.unlabeled, draws),)}

    def _mixed(self, step: int, shown: int) -> dict[str, Any]:
        """A second stream beside the plain one, and boxes."""
        sampling = self.drawing.sampling
        partner = self.unlabeled(shown, partner=sampling.cutmix_partner == "other")
        draws = self.unlabeled.samples.draws(PARTNER, shown, PER_WINDOW)
        (plain,) = self._plain(step, shown)["unlabeled"]
        drawn = step % self.epoch_steps // WORKERS if sampling.repeat_boxes else shown
        streams = (plain, self._window(partner, self.drawing.unlabeled, draws))
        return {"unlabeled": streams, "boxes": self._mixing_boxes(drawn)}

    def _pair(self, step: int, shown: int) -> dict[str, Any]:
        """CAC's two overlapping windows (methods: sampler of PairVOC/PairCity), in one region that is resized once."""
        record, augmentation = self.unlabeled(shown), self.drawing.unlabeled
        crop, grid = self.drawing.crop, self.drawing.views.grid
        draws = self.unlabeled.samples.draws(UNLABELED, shown, PER_PAIR)
        scale, virtual = self._scaled(record, augmentation, draws.take())
        highest = np.maximum(virtual - crop, 0)
        corner1 = uniform_int(draws.take(2), np.zeros_like(highest), highest)

        tried = draws.take(2 * TRIES).reshape(len(record), TRIES, 2)
        offset = uniform_int(tried, np.zeros_like(tried, np.int64), highest[:, None]) - corner1[:, None]
        offset = offset // grid * grid
        corner2 = corner1[:, None] + offset
        corner2 = np.where(corner2 < 0, corner2 + grid, corner2)
        shared = np.maximum(crop - np.abs(corner2 - corner1[:, None]), 0).prod(-1)
        iou = shared / (2 * crop * crop - shared)
        accepted = (shared > 0) & (iou >= IOU[0]) & (iou <= IOU[1])
        chosen = np.take_along_axis(corner2, accepted.argmax(1)[:, None, None], 1)[:, 0]
        corner2 = np.where(accepted.any(1)[:, None], chosen, corner1)

        inside1, inside2 = np.minimum(virtual - corner1, crop), np.minimum(virtual - corner2, crop)
        start = np.minimum(corner1, corner2)
        extent = np.maximum(corner1 + inside1, corner2 + inside2) - start
        views = (
            _view(draws, corner1 - start, inside1, augmentation),
            _view(draws, corner2 - start, inside2, augmentation),
        )
        origin = start * scale[:, None] // DENOMINATOR
        stream = Stream(record, scale, origin, extent, views, augmentation.filter == "cubic")

        apart = corner2 - corner1
        begin = np.maximum(apart, 0)
        end = np.minimum(np.minimum(crop, crop + apart), virtual // grid * grid)
        overlap = Overlap(begin, np.maximum(-apart, 0), np.maximum(end - begin, 0))
        return {"unlabeled": (stream,), "overlap": overlap}

    BY_KIND: ClassVar = {"none": _none, "plain": _plain, "pair": _pair, "mixed": _mixed}
    """By the kind of views, what draws the unlabelled part of a plan: fields of Plan, from the step and the step whose
    samples it shows."""

    def _window(self, record: np.ndarray, augmentation: Augmentation, draws: Draws) -> Stream:
        """One window of each image; PER_WINDOW numbers are drawn."""
        crop = self.drawing.crop
        scale, virtual = self._scaled(record, augmentation, draws.take())
        highest = np.maximum(virtual - crop, 0)
        if augmentation.crop_off_by_one:
            highest += highest > 0
        corner = uniform_int(draws.take(2), np.zeros_like(virtual), highest)
        extent = np.minimum(virtual - corner, crop)
        view = _view(draws, np.zeros_like(corner), extent, augmentation)
        centred = augmentation.padding == "centre"
        pad = (crop - extent) // 2 if centred else np.zeros_like(extent)
        if centred or augmentation.crop_off_by_one:
            # CPS flips an image before it is cut and padded: of the unflipped one, that is the mirrored window.
            corner[view.flip, 1] = (virtual - corner - extent)[view.flip, 1]
            pad[view.flip, 1] = (crop - extent - pad)[view.flip, 1]
        origin = corner * scale[:, None] // DENOMINATOR
        return Stream(record, scale, origin, extent, (replace(view, pad=pad),), augmentation.filter == "cubic")

    def _scaled(
        self, record: np.ndarray, augmentation: Augmentation, draw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step (B,) in 1/1024 source pixel, and the size (B, 2) of the scaled image in output pixels."""
        size, crop = self.sizes[record], self.drawing.crop
        if augmentation.scale == "long_side":
            base = round(augmentation.base * crop)
            low, high = (int(bound * base) for bound in augmentation.range)
            exact = size.max(1) / uniform_int(draw, np.full(len(record), low), np.full(len(record), high))
        else:
            factors = np.asarray(augmentation.factors) * (crop / (augmentation.native_crop or crop))
            exact = 1 / factors[uniform_int(draw, np.zeros(len(record), int), np.full(len(record), len(factors) - 1))]
        step = np.rint(exact * DENOMINATOR).astype(np.int64)
        step = np.clip(step, 1, size.min(1) * DENOMINATOR - 1)
        # The centre of an output pixel meets the border of two source pixels only at even whole steps.
        step += step % (2 * DENOMINATOR) == 0
        return step, size * DENOMINATOR // step[:, None]

    def _mixing_boxes(self, step: int) -> np.ndarray:
        """CutMix boxes of 25 to 50 % of the image in all (published generator: prop_range, n_boxes = 3)."""
        count, crop = self.drawing.views.boxes, self.drawing.crop
        draws = self.unlabeled.samples.draws(BOXES, step, 4 * count)
        area = 0.25 + 0.25 * draws.take(count)
        height = area ** draws.take(count)
        size = np.rint(np.stack([height, area / height], -1) * np.sqrt(1 / count) * crop)
        corner = np.rint((crop - size) * draws.take(2 * count).reshape(-1, count, 2))
        return np.concatenate([corner, corner + size], -1).astype(np.int32)


def _view(draws: Draws, offset: np.ndarray, inside: np.ndarray, augmentation: Augmentation) -> View:
    """A view without padding at its upper left; PER_VIEW numbers are drawn for flip, colours and blur."""
    flip = draws.take() < augmentation.flip
    jitter = draws.take() < augmentation.jitter
    strength = 2 * draws.take(4) - 1
    gray, blur = draws.take() < augmentation.gray, draws.take() < augmentation.blur
    bounds = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    brightness, contrast, saturation, hue = np.where(jitter[:, None], strength, 0).T * np.array(bounds)[:, None]
    matrix = colour_matrix(1 + brightness, 1 + contrast, 1 + saturation, hue, gray)
    return View(offset, inside, np.zeros_like(inside), flip, matrix, blur)


def colour_matrix(
    brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray, hue: np.ndarray, gray: np.ndarray
) -> np.ndarray:
    """(B, 3, 4) float32 matrices for grey levels 0..255; row vector (r, g, b, 1) on the right.

    Brightness scales, contrast scales about the mean luma, saturation blends with the luma, hue (in turns) rotates the
    IQ plane; gray (bool) then keeps the luma alone. torchvision's ColorJitter does the same in a drawn order and with
    the contrast centre of each image; one order and centre make it one matrix.
    """
    identity = np.eye(3)
    luma = np.tile(LUMA, (3, 1))
    linear = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * luma
    to_yiq = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    turn = np.tile(identity, (len(hue), 1, 1))
    angle = -2 * np.pi * hue
    turn[:, 1, 1], turn[:, 1, 2] = np.cos(angle), -np.sin(angle)
    turn[:, 2, 1], turn[:, 2, 2] = np.sin(angle), np.cos(angle)
    linear = np.linalg.inv(to_yiq) @ turn @ to_yiq @ linear
    linear = np.where(gray[:, None, None], luma @ linear, linear)
    shift = (linear @ np.full(3, MEAN_LUMA)) * (1 - contrast)[:, None]
    matrix = np.concatenate([linear * (brightness * contrast)[:, None, None], shift[..., None]], -1)
    unchanged = (brightness == 1) & (contrast == 1) & (saturation == 1) & (hue == 0) & ~gray
    matrix[unchanged] = np.eye(3, 4)
    return matrix.astype(np.float32)
