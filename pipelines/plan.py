"""All randomness of the data: (seed, step) -> which images (order.py), which windows, which colours (colours.py),
which boxes (boxes.py), which partners.

A plan is a pure function of a counter-based generator (draws.py) keyed by the global sample index, so step k can be
asked for at any time, and processes take slices of one plan. Backends execute it and agree, because windows are stated
in numbers that float32 holds exactly: steps in 1/1024 source pixel per output pixel and integer source origins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .boxes import PER_MIXING_BOX, PER_STRONG_BOX, STRONG_BOXES, mixing_boxes
from .colours import PER_COLOURING, Colouring, colouring, unchanged
from .draws import BOXES, LABELED, PARTNER, UNLABELED, Draws, ProcessSamples, uniform_int
from .errors import fault_unless, raise_faults
from .order import Order
from .views import Augmentation, Drawing

DENOMINATOR = 1024
TRIES = 50
IOU = (0.1, 1.0)
BLACK = (0, 0, 0)
WORKERS = 8  # loader processes of CPS's program
PLACE = 3  # random numbers: scale, corner
PER_VIEW = 1 + PER_COLOURING  # flip
PER_WINDOW = PLACE + PER_VIEW
PER_PAIR = PLACE + 2 * TRIES + 2 * PER_VIEW


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
    colourings: tuple[Colouring, ...]
    """The ways in which the window is shown: one, or a weak and several strong ones."""

    def valid(self, crop: int) -> np.ndarray:
        """(B, 4) int32: y0, x0, y1, x1 of the part of the flipped window that the image covers."""
        low, high = self.pad, self.pad + self.inside
        left, right = (np.where(self.flip, crop - a, b) for a, b in ((high[:, 1], low[:, 1]), (low[:, 1], high[:, 1])))
        return np.stack([low[:, 0], left, high[:, 0], right], 1).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Stream:
    """B images; of each the smallest region that holds its views. Those that serve as other windows' partners alone
    come last."""

    record: np.ndarray
    """(B,) int64 index of the image."""
    step: np.ndarray
    """(B,) int64: source pixels per output pixel, in units of 1/1024."""
    origin: np.ndarray
    """(B, 2) first source row and column of the region."""
    extent: np.ndarray
    """(B, 2) rows and columns of the region, output pixels."""
    views: tuple[View, ...]
    filter: str
    """The image filter: `views.Augmentation` has them."""
    fill: tuple[int, int, int]
    """RGB in grey levels of what lies outside an image."""

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
    """The samples of one step, or of a micro-batch of it: all that a backend needs to know besides the files."""

    labeled: Stream
    crop: int
    """Side of all windows, pixels."""
    kind: str = "none"
    """One of `views.KINDS`: that of the unlabelled views."""
    unlabeled: tuple[Stream, ...] = ()
    overlap: Overlap | None = None
    """For a pair."""
    boxes: np.ndarray | None = None
    """(B, boxes, 4) int32: y0, x0, y1, x1 of the boxes of a mixed image, or of the one of each strong view."""
    partner: np.ndarray | None = None
    """(B,) int64: of strong views, the row of the stream that each is mixed with. The streams of several processes
    count as one, the first process's rows first, unless each keeps to parts of the batch."""
    valid: np.ndarray | None = None
    """(N, 4) int32: of strong views, `View.valid` of each window of the stream."""
    labeled_valid: np.ndarray | None = None
    """(B, 4) int32: the same of labelled windows, where their padding is taught as class 0."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (self.labeled, *self.unlabeled)


class Planner:
    """Plans for one split.

    sizes: (N, 2) height and width of every image. labeled, unlabeled: indices into it. rank, world: which process this
    is, and of how many that share each step's batch. micro: which of the step's micro-batches it plans, of whose images
    each process has a share. A step shows the same windows however many of either there are.

    Raises UsageError where the drawing makes no sense, the split cannot feed the views, the processes cannot share a
    batch or its parts, or an image of it has no partner.
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
        micro: int = 0,
    ):
        raise_faults(
            (*drawing.faults(), *fault_unless(0 <= rank < world, "rank", f"must be from 0 to {world - 1}", rank))
        )
        self.sizes, self.drawing, self.rank = np.asarray(sizes, np.int64), drawing, rank
        drawing.check_images(len(labeled), len(unlabeled))
        drawing.check_shares(world)
        drawing.check_partners()
        shares = world * drawing.accumulate
        views, sampling = drawing.views, drawing.sampling
        passes = [len(labeled) // drawing.batch if drawing.batch else 0]
        passes += [len(unlabeled) // drawing.unlabeled_batch] if views.windows else []
        self.epoch_steps = sampling.epoch_steps or max(*passes, 1)

        def order(images: Sequence[int], batch: int, stream: int, **switches: Any) -> Order:
            samples = ProcessSamples(
                seed=drawing.seed,
                batch=batch // shares,
                rank=micro * world + rank,
                world=shares,
                shared=sampling.shared_draws,
            )
            numbers = np.asarray(images, np.int64)
            return Order(images=numbers, samples=samples, stream=stream, epoch_steps=self.epoch_steps, **switches)

        longer = max(len(labeled), len(unlabeled))
        filled = {"repeated": longer, "redrawn": longer, "cut": len(unlabeled) or len(labeled)}
        self.labeled = order(
            labeled,
            drawing.batch,
            LABELED,
            replay=sampling.replay_labeled,
            filled=filled.get(sampling.labeled_order),
            redrawn=sampling.labeled_order == "redrawn",
        )
        self.unlabeled = order(
            unlabeled,
            drawing.unlabeled_batch,
            UNLABELED,
            replay=sampling.replay_unlabeled,
            repeat=sampling.unlabeled_order == "repeated",
        )

    def __call__(self, step: int) -> Plan:
        """The plan of optimizer step `step` for this process, or of its micro-batch."""
        shown = self.labeled.shown(step)
        draws = self.labeled.samples.draws(LABELED, shown, PER_WINDOW)
        labeled = self._window(self.labeled(shown), self.drawing.labeled, draws)
        taught = self.drawing.labeled.padding_label == "first_class"
        valid = labeled.views[0].valid(self.drawing.crop) if taught else None
        kind = self.drawing.views.unlabeled
        unlabeled = self.BY_KIND[kind](self, step, self.unlabeled.shown(step))
        return Plan(labeled, self.drawing.crop, kind, **unlabeled, labeled_valid=valid)

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
        count = self.drawing.views.boxes
        draws = self.unlabeled.samples.draws(BOXES, drawn, PER_MIXING_BOX * count)
        return {"unlabeled": streams, "boxes": mixing_boxes(draws, count, self.drawing.crop)}

    def _weak_strong(self, step: int, shown: int) -> dict[str, Any]:
        """One window of each image, as it is and in strong colours; a box a strong view; a partner. Partners that are
        other windows of the images follow them in the stream."""
        views, crop, samples = self.drawing.views, self.drawing.crop, self.unlabeled.samples
        record, width = self.unlabeled(shown), PLACE + 1 + PER_COLOURING * views.strong
        draws = samples.draws(UNLABELED, shown, width)
        if not views.partners:
            partner = np.arange(samples.batch) + self._before(samples.batch)
            boxes = np.zeros((samples.batch, views.strong, 4), np.int32)
        else:
            drawn = samples.draws(BOXES, shown, PER_STRONG_BOX * views.strong)
            boxes = np.stack([STRONG_BOXES[views.cutmix](drawn, crop) for _ in range(views.strong)], 1)
            partner = self._partner(shown)
            if self.drawing.sampling.cutmix_partner == "same":
                record = np.tile(record, 2)
                draws = draws.followed_by(samples.draws(PARTNER, shown, width))
        stream = self._window(record, self.drawing.unlabeled, draws, strong=views.strong)
        valid = stream.views[0].valid(self.drawing.crop)
        return {"unlabeled": (stream,), "boxes": boxes, "partner": partner, "valid": valid}

    def _partner(self, shown: int) -> np.ndarray:
        """(B,) rows as `Plan.partner` counts them: another window of the image, the part of the batch backwards, or an
        image some rows on in it, as many as are drawn for this part and step."""
        rule, own = self.drawing.sampling.cutmix_partner, self.unlabeled.samples
        if rule == "same":
            return np.arange(own.batch, 2 * own.batch) + self._before(2 * own.batch)
        everyone = replace(self.unlabeled, samples=own.of_all)
        record, row = everyone(shown), np.arange(own.whole)
        parts = row.reshape(self.drawing.mixing_parts, -1)
        if rule == "reversed":
            partner = parts[:, ::-1].flatten()
        else:
            draw = everyone.samples.draws(PARTNER, shown, 1).take().reshape(parts.shape)
            partners = [_shifted(part, record[part], drawn[0]) for part, drawn in zip(parts, draw) if len(part)]
            partner = np.concatenate([row[:0], *partners])
        return partner[own.first : own.first + own.batch] - own.first + self._before(own.batch)

    def _before(self, rows: int) -> int:
        """Where this process's rows begin in `Plan.partner`, if each process has so many."""
        return self.rank * rows if self.drawing.parts == 1 else 0

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
        stream = Stream(record, scale, origin, extent, views, augmentation.filter, self._fill(augmentation))

        apart = corner2 - corner1
        begin = np.maximum(apart, 0)
        end = np.minimum(np.minimum(crop, crop + apart), virtual // grid * grid)
        overlap = Overlap(begin, np.maximum(-apart, 0), np.maximum(end - begin, 0))
        return {"unlabeled": (stream,), "overlap": overlap}

    BY_KIND: ClassVar = {
        "none": _none,
        "plain": _plain,
        "pair": _pair,
        "mixed": _mixed,
        "weak_strong": _weak_strong,
    }
    """By the kind of views, what draws the unlabelled part of a plan: fields of Plan, from the step and the step whose
    samples it shows."""

    def _window(self, record: np.ndarray, augmentation: Augmentation, draws: Draws, *, strong: int = 0) -> Stream:
        """One window of each image, in changed colours or, with some strong ones, unchanged and in each of them;
        PER_WINDOW numbers are drawn, or PER_COLOURING more for each further colouring."""
        crop = self.drawing.crop
        scale, virtual = self._scaled(record, augmentation, draws.take())
        highest = np.maximum(virtual - crop, 0)
        if augmentation.crop_off_by_one:
            highest += highest > 0
        corner = uniform_int(draws.take(2), np.zeros_like(virtual), highest)
        extent = np.minimum(virtual - corner, crop)
        view = _view(draws, np.zeros_like(corner), extent, augmentation, strong=strong)
        centred = augmentation.padding == "centre"
        pad = (crop - extent) // 2 if centred else np.zeros_like(extent)
        if centred or augmentation.crop_off_by_one:
            # CPS flips an image before it is cut and padded: of the unflipped one, that is the mirrored window.
            corner[view.flip, 1] = (virtual - corner - extent)[view.flip, 1]
            pad[view.flip, 1] = (crop - extent - pad)[view.flip, 1]
        origin = corner * scale[:, None] // DENOMINATOR
        views = (replace(view, pad=pad),)
        return Stream(record, scale, origin, extent, views, augmentation.filter, self._fill(augmentation))

    def _fill(self, augmentation: Augmentation) -> tuple[int, int, int]:
        return self.drawing.fill if augmentation.fill == "mean" else BLACK

    def _scaled(
        self, record: np.ndarray, augmentation: Augmentation, draw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Step (B,) in 1/1024 source pixel, and the size (B, 2) of the scaled image in output pixels."""
        size, crop = self.sizes[record], self.drawing.crop
        if augmentation.scale != "factors":
            own = augmentation.scale == "own"
            base = size.max(1) if own else np.full(len(record), round(augmentation.base * crop))
            if own and augmentation.longest:
                base = np.minimum(base, round(augmentation.longest * crop))
            bounds = augmentation.range[0], 1, augmentation.range[1]
            low, middle, high = (np.maximum(bound * base, 1).astype(np.int64) for bound in bounds)
            if augmentation.even_odds:
                below = draw < 0.5
                draw, low, high = 2 * draw % 1, np.where(below, low, middle), np.where(below, middle, high)
            exact = size.max(1) / uniform_int(draw, low, high)
        else:
            factors = np.asarray(augmentation.factors) * (crop / (augmentation.native_crop or crop))
            exact = 1 / factors[uniform_int(draw, np.zeros(len(record), int), np.full(len(record), len(factors) - 1))]
        step = np.rint(exact * DENOMINATOR).astype(np.int64)
        step = np.clip(step, 1, size.min(1) * DENOMINATOR - 1)
        # The centre of an output pixel meets the border of two source pixels only at even whole steps.
        step += step % (2 * DENOMINATOR) == 0
        return step, size * DENOMINATOR // step[:, None]


def _shifted(row: np.ndarray, record: np.ndarray, draw: float) -> np.ndarray:
    """Rows some places on, the last ones followed by the first: as many as bring the fewest images, of which a small
    set has several in a batch, to themselves; of equally good ones the drawn one."""
    shifts = np.arange(1, max(len(row), 2))
    ahead = (np.arange(len(row)) + shifts[:, None]) % len(row)
    itself = (record[ahead] == record).sum(1)
    best = np.flatnonzero(itself == itself.min())
    return row[ahead[best[int(draw * len(best))]]]


def _view(draws: Draws, offset: np.ndarray, inside: np.ndarray, augmentation: Augmentation, *, strong: int = 0) -> View:
    """A view without padding at its upper left, as `_window` has it; a number is drawn for the flip, PER_COLOURING for
    each changed colouring."""
    flip = draws.take() < augmentation.flip
    changed = tuple(colouring(draws, augmentation) for _ in range(max(strong, 1)))
    colourings = (unchanged(len(offset)), *changed) if strong else changed
    return View(offset, inside, np.zeros_like(inside), flip, colourings)
