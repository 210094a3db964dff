"""All randomness of the data: (seed, step) -> which samples, which windows, which colours, which boxes.

A plan is a pure function of a counter-based generator (Philox) keyed by the global sample index, so step k can be asked
for at any time, and processes take slices of one plan. Backends execute it and agree, because windows are stated in
numbers that float32 holds exactly: steps in 1/1024 source pixel per output pixel and integer source origins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .errors import UsageError
from .views import Augmentation, Sampling, ViewSpec

DENOMINATOR = 1024
TRIES = 50
IOU = (0.1, 1.0)
LUMA = np.array([0.299, 0.587, 0.114])
MEAN_LUMA = 117.0  # grey level of the mean colour of ImageNet: the centre about which contrast changes
WORKERS = 8  # loader processes of CPS's program

_LABELED, _UNLABELED, _PARTNER, _BOXES, _ORDER = range(5)
_TAIL = 8  # beyond the orders' keys


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
    """One step's samples."""

    labeled: Stream
    unlabeled: tuple[Stream, ...]
    overlap: Overlap | None
    """For a pair."""
    boxes: np.ndarray | None
    """For mixed images, (B, boxes, 4) int32: y0, x0, y1, x1."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (self.labeled, *self.unlabeled)


class Planner:
    """Plans for one split.

    sizes: (N, 2) height and width of every image. labeled, unlabeled: indices into it. batch: labelled images a step
    over all processes, 0 for the unlabelled ones alone; unlabeled_batch likewise. Raises UsageError where the split
    cannot feed the views. sampling: the switches for what the published programs do otherwise (default: none).
    """

    def __init__(
        self,
        sizes: np.ndarray,
        labeled: Sequence[int],
        unlabeled: Sequence[int],
        views: ViewSpec,
        *,
        crop: int,
        batch: int,
        unlabeled_batch: int,
        labeled_augmentation: Augmentation,
        unlabeled_augmentation: Augmentation,
        seed: int,
        sampling: Sampling | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        sampling = sampling or Sampling()
        if not len(labeled):
            raise UsageError("split: no labelled images; choose another --split")
        if views.unlabeled != "none" and not len(unlabeled):
            raise UsageError(
                "split: no unlabelled images, which this method needs; give fewer labels (--split draw:1/8@0) "
                "or train with the supervised recipe"
            )
        if views.unlabeled == "mixed" and len(unlabeled) < 2 and sampling.cutmix_partner == "other":
            raise UsageError("split: CutMix mixes two unlabelled images, and there is one; add images")
        for name, size in (("batch", batch), ("unlabelled batch", unlabeled_batch)):
            if size % world:
                raise UsageError(f"{name}: {size} cannot be shared by {world} processes; use a multiple of {world}")
        self.sizes = np.asarray(sizes, np.int64)
        self.labeled, self.unlabeled = np.asarray(labeled, np.int64), np.asarray(unlabeled, np.int64)
        self.views, self.crop, self.seed = views, crop, seed
        self.batch, self.unlabeled_batch = batch // world, unlabeled_batch // world
        self.labeled_augmentation, self.unlabeled_augmentation = labeled_augmentation, unlabeled_augmentation
        self.sampling, self.rank, self.world = sampling, rank, world
        passes = [len(labeled) // batch if batch else 0]
        passes += [len(unlabeled) // unlabeled_batch] if views.unlabeled != "none" else []
        self.epoch_steps = sampling.epoch_steps or max(*passes, 1)

    def __call__(self, step: int) -> Plan:
        """The plan of optimizer step `step` for this process."""
        switches, batch, count = self.sampling, self.batch, len(self.labeled)
        shown = self._shown(step, count, batch, switches.replay_labeled)
        if switches.redraw_tail:
            order = self._filled_order(shown)
        else:
            order = self._order(*self._position(shown, count, batch, switches.replay_labeled), count, _LABELED)
        labeled = self._single(self.labeled[order], _LABELED, shown)
        if self.views.unlabeled == "none":
            return Plan(labeled, (), None, None)

        batch, count, repeated = self.unlabeled_batch, len(self.unlabeled), switches.unlabeled_order == "repeated"
        shown = self._shown(step, count, batch, switches.replay_unlabeled)
        epoch, position = self._position(shown, count, batch, switches.replay_unlabeled or repeated)
        epoch = np.zeros_like(epoch) if repeated else epoch
        first = self.unlabeled[self._order(epoch, position, count, _UNLABELED)]
        if self.views.unlabeled == "plain":
            return Plan(labeled, (self._single(first, _UNLABELED, shown),), None, None)
        if self.views.unlabeled == "pair":
            stream, overlap = self._pair(first, shown)
            return Plan(labeled, (stream,), overlap, None)
        partner = first
        if switches.cutmix_partner == "other":
            partner = self.unlabeled[self._order(epoch, position, count, _UNLABELED, partner=True)]
        streams = (self._single(first, _UNLABELED, shown), self._single(partner, _PARTNER, shown))
        drawn = step % self.epoch_steps // WORKERS if switches.repeat_boxes else shown
        return Plan(labeled, streams, None, self._mixing_boxes(drawn))

    def _indices(self, step: int, batch: int) -> np.ndarray:
        return (step * self.world + self.rank) * batch + np.arange(batch, dtype=np.int64)

    def _shown(self, step: int, count: int, batch: int, replayed: bool) -> int:
        """The step whose samples this one shows: itself or, replayed, one of its epoch's first pass."""
        if not replayed:
            return step
        within = step % self.epoch_steps
        return step - within + within % max(count // max(batch * self.world, 1), 1)

    def _position(self, step: int, count: int, batch: int, by_epoch: bool) -> tuple[np.ndarray, np.ndarray]:
        """Pass over the images (B,) and place in its order (B,). Passes are endless, or one begins with each epoch."""
        if not by_epoch:
            return np.divmod(self._indices(step, batch), count)
        epoch, within = divmod(step, self.epoch_steps)
        return np.full(batch, epoch), self._indices(within, batch) % count

    def _order(
        self, epoch: np.ndarray, position: np.ndarray, count: int, stream: int, partner: bool = False
    ) -> np.ndarray:
        """Every image once a pass, in an order of its own. A partner is never the image itself."""
        out = np.empty(len(epoch), np.int64)
        for one in np.unique(epoch):
            order, shift = _permutation(self.seed, stream, int(one), count)
            here = epoch == one
            out[here] = order[(position[here] + (shift if partner else 0)) % count]
        return out

    def _filled_order(self, step: int) -> np.ndarray:
        """Labelled images, as many an epoch as unlabelled ones: whole repeats, and a rest drawn item by item."""
        count, length = len(self.labeled), max(len(self.labeled), len(self.unlabeled))
        entry = self._order(*self._position(step, length, self.batch, True), length, _LABELED)
        rest = np.floor(self._draws(_TAIL, step, self.batch, 1).take() * count).astype(np.int64)
        return np.where(entry < length // count * count, entry % count, rest)

    def _draws(self, stream: int, step: int, batch: int, width: int) -> _Draws:
        """The random numbers of a step's samples; parts of the whole batch may share them."""
        whole = batch * self.world
        part = max(-(-whole // self.sampling.shared_draws), 1)
        return _Draws(self.seed, stream, step * whole, self._indices(0, batch) % part, width)

    def _single(self, record: np.ndarray, stream: int, step: int) -> Stream:
        augmentation = self.labeled_augmentation if stream == _LABELED else self.unlabeled_augmentation
        draws = self._draws(stream, step, len(record), 3 + _Draws.PER_VIEW)
        scale, virtual = self._scaled(record, augmentation, draws.take())
        highest = np.maximum(virtual - self.crop, 0)
        if augmentation.crop_off_by_one:
            highest += highest > 0
        corner = _uniform_int(draws.take(2), np.zeros_like(virtual), highest)
        extent = np.minimum(virtual - corner, self.crop)
        view = draws.view(np.zeros_like(corner), extent, augmentation)
        centred = augmentation.padding == "centre"
        pad = (self.crop - extent) // 2 if centred else np.zeros_like(extent)
        if centred or augmentation.crop_off_by_one:
            # CPS flips an image before it is cut and padded: of the unflipped one, that is the mirrored window.
            corner[view.flip, 1] = (virtual - corner - extent)[view.flip, 1]
            pad[view.flip, 1] = (self.crop - extent - pad)[view.flip, 1]
        origin = corner * scale[:, None] // DENOMINATOR
        return Stream(record, scale, origin, extent, (replace(view, pad=pad),), augmentation.filter == "cubic")

    def _scaled(
        self, record: np.ndarray, augmentation: Augmentation, draw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step (B,) in 1/1024 source pixel, and the size (B, 2) of the scaled image in output pixels."""
        size = self.sizes[record]
        if augmentation.scale == "long_side":
            base = round(augmentation.base * self.crop)
            low, high = (int(bound * base) for bound in augmentation.range)
            exact = size.max(1) / _uniform_int(draw, np.full(len(record), low), np.full(len(record), high))
        else:
            factors = np.asarray(augmentation.factors) * (self.crop / (augmentation.native_crop or self.crop))
            exact = 1 / factors[_uniform_int(draw, np.zeros(len(record), int), np.full(len(record), len(factors) - 1))]
        step = np.rint(exact * DENOMINATOR).astype(np.int64)
        step = np.clip(step, 1, size.min(1) * DENOMINATOR - 1)
        # The centre of an output pixel meets the border of two source pixels only at even whole steps.
        step += step % (2 * DENOMINATOR) == 0
        return step, size * DENOMINATOR // step[:, None]

    def _pair(self, record: np.ndarray, step: int) -> tuple[Stream, Overlap]:
        """CAC's two overlapping windows (methods: sampler of PairVOC/PairCity), in one region that is resized once."""
        augmentation, crop, grid = self.unlabeled_augmentation, self.crop, self.views.grid
        draws = self._draws(_UNLABELED, step, len(record), 3 + 2 * TRIES + 2 * _Draws.PER_VIEW)
        scale, virtual = self._scaled(record, augmentation, draws.take())
        highest = np.maximum(virtual - crop, 0)
        corner1 = _uniform_int(draws.take(2), np.zeros_like(highest), highest)

        tried = draws.take(2 * TRIES).reshape(len(record), TRIES, 2)
        offset = _uniform_int(tried, np.zeros_like(tried, np.int64), highest[:, None]) - corner1[:, None]
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
            draws.view(corner1 - start, inside1, augmentation),
            draws.view(corner2 - start, inside2, augmentation),
        )
        origin = start * scale[:, None] // DENOMINATOR
        stream = Stream(record, scale, origin, extent, views, augmentation.filter == "cubic")

        apart = corner2 - corner1
        begin = np.maximum(apart, 0)
        end = np.minimum(np.minimum(crop, crop + apart), virtual // grid * grid)
        return stream, Overlap(begin, np.maximum(-apart, 0), np.maximum(end - begin, 0))

    def _mixing_boxes(self, step: int) -> np.ndarray:
        """CutMix boxes of 25 to 50 % of the image in all (published generator: prop_range, n_boxes = 3)."""
        count = self.views.boxes
        draws = self._draws(_BOXES, step, self.unlabeled_batch, 4 * count)
        area = 0.25 + 0.25 * draws.take(count)
        height = area ** draws.take(count)
        size = np.rint(np.stack([height, area / height], -1) * np.sqrt(1 / count) * self.crop)
        corner = np.rint((self.crop - size) * draws.take(2 * count).reshape(-1, count, 2))
        return np.concatenate([corner, corner + size], -1).astype(np.int32)


class _Draws:
    """Uniform numbers in [0, 1) of the samples first + rows: the same whoever asks for them."""

    PER_VIEW = 8  # flip, jitter or not, four strengths, grey, blur

    def __init__(self, seed: int, stream: int, first: int, rows: np.ndarray, width: int):
        blocks = -(-width // 4)  # Philox yields four numbers a count
        low, high = (int(rows.min()), int(rows.max()) + 1) if len(rows) else (0, 0)
        bits = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=(first + low) * blocks)
        self._numbers = np.random.Generator(bits).random((high - low, 4 * blocks))[rows - low]
        self._used = 0

    def take(self, count: int = 1) -> np.ndarray:
        """(B,) or, for several, (B, count) fresh numbers."""
        taken = self._numbers[:, self._used : self._used + count]
        self._used += count
        return taken[:, 0] if count == 1 else taken

    def view(self, offset: np.ndarray, inside: np.ndarray, augmentation: Augmentation) -> View:
        flip = self.take() < augmentation.flip
        jitter = self.take() < augmentation.jitter
        strength = 2 * self.take(4) - 1
        gray, blur = self.take() < augmentation.gray, self.take() < augmentation.blur
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


def _uniform_int(draw: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Integers in [low, high], both ends included, from numbers in [0, 1)."""
    return low + np.floor(draw * (high - low + 1)).astype(np.int64)


@lru_cache(maxsize=16)
def _permutation(seed: int, stream: int, epoch: int, count: int) -> tuple[np.ndarray, int]:
    """The order of one epoch, and the distance to the partner within it."""
    bits = np.random.Philox(key=np.array([seed, _ORDER + stream], np.uint64), counter=epoch << 128)
    rng = np.random.Generator(bits)
    return rng.permutation(count), int(rng.integers(1, max(count, 2)))
