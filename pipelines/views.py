"""What is asked of the pipeline: which views, how they are cut, how their colours may change, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import UsageError, fault_unless, flag

Filter = Literal["cubic", "antialiased", "linear"]
"""How images are resampled, as `Augmentation.filter` says."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What each unlabelled image of the batch costs."""

    streams: int
    """Images that are read for it."""
    windows: int
    """Windows that are cut from them."""


KINDS = {
    "none": Kind(0, 0),
    "plain": Kind(1, 1),  # one window
    "pair": Kind(1, 2),  # two overlapping windows of one image (CAC)
    "mixed": Kind(2, 2),  # windows of two images, and boxes that say which of them is seen where
    "weak_strong": Kind(1, 1),  # one window, as it is and in strong colours, and boxes that show a partner's
}
"""The kinds of unlabelled views. `plan.Planner` draws each, and `loader.collate` makes a batch of it."""
SCALES = 0.001, 1000
"""Least and largest of what scales an image: a plan counts source pixels in units of 1/1024."""


def _choices(settings: Any, prefix: str) -> Iterator[str]:
    """The faults of fields that are none of the words that their type lists."""
    for name, kind in get_type_hints(type(settings)).items():
        if get_origin(kind) is Literal:
            value, rule = getattr(settings, name), f"must be one of {', '.join(get_args(kind))}"
            yield from fault_unless(value in get_args(kind), flag(name, prefix), rule, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """The views that a method trains on, besides one window of each labelled image."""

    unlabeled: str = "none"
    """One of KINDS."""
    grid: int = 8
    """Pixels: offset and extent of a pair's overlap are multiples of it."""
    boxes: int = 3
    """Boxes a mixed image."""
    strong: int = 1
    """Strong colourings of a window, beside its weak view."""
    cutmix: Literal["never", "sometimes", "sometimes_half", "always"] = "sometimes"
    """Whether a strong view shows its partner's in a box. sometimes: half of them do, in one of 2 to 40 % of the window
    (UniMatch); sometimes_half: half of them do, in one of half the window (U2PL); always: in one of half the window
    (CutMix-Seg)."""

    @property
    def streams(self) -> int:
        return KINDS[self.unlabeled].streams

    @property
    def windows(self) -> int:
        """Windows of each unlabelled image of the batch; 0 where there are none."""
        return KINDS[self.unlabeled].windows

    @property
    def partners(self) -> bool:
        """Whether each unlabelled image is mixed with a partner."""
        return self.streams > 1 or (self.unlabeled == "weak_strong" and self.cutmix != "never")

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        rule = f"must be one of {', '.join(KINDS)}"
        yield from fault_unless(self.unlabeled in KINDS, "views.unlabeled", rule, self.unlabeled)
        for name in ("grid", "boxes", "strong"):
            yield from fault_unless(
                getattr(self, name) >= 1, f"views.{name}", "must be at least 1", getattr(self, name)
            )
        yield from _choices(self, "views.")


@dataclass(kw_only=True, slots=True)
class Augmentation:
    """How a window is cut from an image and how its colours change."""

    scale: Literal["long_side", "own", "factors"] = "long_side"
    """long_side: the long side is drawn from `range` times `base` (CAC); own: from `range` times the image's own long
    side (UniMatch); factors: one of `factors` scales (CPS)."""
    base: float = 1.25
    """The long side that counts as scale 1, in sides of the crop (CAC's VOC: 400 / 320)."""
    range: tuple[float, float] = (0.5, 2.0)
    """Bounds of the long side, in units of `base` or of the image's own."""
    factors: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)
    """The scale factors, drawn with equal probability."""
    even_odds: bool = False
    """Draw from `range` as often below 1 as above (U2PL)."""
    longest: float | None = None
    """What the own long side of an image counts as at most, in sides of the crop; none: any counts."""
    native_crop: int | None = None
    """The crop that the factors are meant for; with another one they change in proportion (none: never)."""
    filter: Filter = "cubic"
    """cubic, antialiased: bicubic and bilinear with antialiasing (Pillow's); linear: bilinear without (OpenCV's)."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.0
    """Probability that brightness, contrast, saturation and hue change."""
    jitter_order: Literal["fixed", "random"] = "fixed"
    """fixed: contrast changes last, about one grey level for all images; random: the four changes come in an order
    drawn for each window, and contrast changes about the window's own mean grey (torchvision's ColorJitter)."""
    brightness: float = 0.4
    """Factor drawn from [1 - x, 1 + x]."""
    contrast: float = 0.4
    """Factor drawn from [1 - x, 1 + x]."""
    saturation: float = 0.4
    """Factor drawn from [1 - x, 1 + x]."""
    hue: float = 0.1
    """Turn of the colour circle drawn from [-x, x]."""
    gray: float = 0.0
    """Probability of a grey image."""
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    sigma: tuple[float, float] = (1.1, 1.1)
    """Bounds of the blur's standard deviation, pixels."""
    blur_radius: int = 2
    """Pixels that the blur reaches to each side."""
    blur_last: bool = False
    """Blur after colours have changed, not before."""
    crop_off_by_one: bool = False
    """Draw the window's corner from one position too many (CPS): the last one shows the image without a row or column,
    which is padded. Not for pairs."""
    padding: Literal["corner", "centre"] = "corner"
    """Where padding lies around an image that is smaller than the crop: at the bottom and right (CAC), or all round,
    an odd pixel at the bottom or right (CPS). Pairs are padded at the corner."""
    fill: Literal["mean", "black"] = "mean"
    """Padding has the mean colour of the pretrained encoder's images, or is black before normalisation."""
    padding_label: Literal["ignored", "first_class"] = "ignored"
    """What padding of labels means. ignored: it does not count; first_class: it is taught as class 0 (U2PL's program).
    Unlabelled windows have none."""

    def faults(self, prefix: str, *, shared: bool = False) -> Iterator[str]:
        """What makes no sense, a line each, naming the field. shared: whether several windows share one region of the
        image, as a pair's do."""
        yield from _choices(self, prefix)
        low, high = SCALES
        rule = f"from {low} to {high}"
        rising = low <= self.range[0] <= self.range[1] <= high
        yield from fault_unless(rising, f"{prefix}range", f"must be two rising numbers {rule}", self.range)
        around = not self.even_odds or self.range[0] <= 1 <= self.range[1]
        yield from fault_unless(around or not rising, f"{prefix}range", "must have 1 in it for even odds", self.range)
        within = bool(self.factors) and all(low <= factor <= high for factor in self.factors)
        yield from fault_unless(within, f"{prefix}factors", f"must be numbers {rule}", self.factors)
        yield from fault_unless(low <= self.base <= high, f"{prefix}base", f"must be {rule}", self.base)
        most = self.longest
        yield from fault_unless(most is None or low <= most <= high, f"{prefix}longest", f"must be {rule}", most)
        for name in ("flip", "jitter", "gray", "blur"):
            value = getattr(self, name)
            yield from fault_unless(0 <= value <= 1, f"{prefix}{name}", "is a probability, in [0, 1]", value)
        for name, most in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0.5)):
            value = getattr(self, name)
            yield from fault_unless(0 <= value <= most, f"{prefix}{name}", f"must be in [0, {most}]", value)
        native = self.native_crop
        yield from fault_unless(native is None or native > 0, f"{prefix}native-crop", "must be more than 0", native)
        least, largest = self.sigma
        yield from fault_unless(
            0 < least <= largest, f"{prefix}sigma", "must be two rising numbers above 0", self.sigma
        )
        radius = self.blur_radius
        yield from fault_unless(1 <= radius <= 30, f"{prefix}blur-radius", "must be from 1 to 30 pixels", radius)
        if shared:
            for name, only in (("crop_off_by_one", False), ("padding", "corner")):
                value = getattr(self, name)
                yield from fault_unless(value == only, flag(name, prefix), f"is {only} for pairs", value)


@dataclass(kw_only=True, slots=True)
class Sampling:
    """Which images a step takes and which of its random numbers are its own. The defaults are the intended ones."""

    cutmix_partner: Literal["other", "reversed", "same"] = "other"
    """CutMix mixes an image with another one, or with another window of itself (the programs of CPS and UniMatch V1);
    reversed, for weak and strong views: the first image of the batch with the last one and so on (UniMatch V2)."""
    repeat_boxes: bool = False
    """CutMix boxes come again after every epoch and for eight steps in a row, one per loader process (CPS's program
    with PyTorch < 1.9)."""
    unlabeled_order: Literal["shuffled", "repeated"] = "shuffled"
    """repeated: every epoch has the unlabelled images of the first one, in its order (CPS's program)."""
    labeled_order: Literal["passes", "repeated", "cut", "redrawn"] = "passes"
    """passes: labelled images come once a pass, however long an epoch is. Else an epoch has whole repeats of their list
    and a rest, all shuffled together, as many as there are unlabelled images; the rest is the list's first images
    (repeated: UniMatch V2's program; cut: UniMatch's, which cuts a list longer than the unlabelled one) or drawn anew
    for each item (redrawn: CPS's program)."""
    replay_labeled: bool = False
    """Within an epoch, the labelled batches of its first pass come again with the same windows (CAC's program)."""
    replay_unlabeled: bool = False
    """The same of the unlabelled batches, where an epoch is longer than a pass over them (CAC's program)."""
    epoch_steps: int | None = None
    """Steps of an epoch, which only the switches above ask for; none: a pass over the larger of the two sets (CAC's
    program: 1157, whatever the data)."""
    shared_draws: int = 1
    """Parts of the batch, one per process of the published program, that draw the same windows, flips and colours for
    their own images (CAC's program seeds all processes alike)."""

    def faults(self, prefix: str) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from _choices(self, prefix)
        steps = self.epoch_steps
        yield from fault_unless(steps is None or steps >= 1, f"{prefix}epoch-steps", "must be at least 1", steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """All that decides what is drawn for a step, but the images themselves."""

    views: ViewSpec
    crop: int
    """Side of all windows, pixels."""
    batch: int
    """Labelled images a step over all processes; 0 for the unlabelled ones alone."""
    unlabeled_batch: int
    """Unlabelled images a step over all processes."""
    labeled: Augmentation
    unlabeled: Augmentation
    sampling: Sampling = field(default_factory=Sampling)
    seed: int
    fill: tuple[int, int, int]
    """RGB in grey levels: the colour of what lies outside an image, where it is the mean one."""
    parts: int = 1
    """Equal parts of the batch, one for each process that is emulated: partners come from the same part."""
    accumulate: int = 1
    """Micro-batches of a step: equal parts of the batch, too, which hold whole ones of the others."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from fault_unless(0 <= self.seed < 2**63, "--seed", "must be from 0 to 2^63 - 1", self.seed)
        yield from self.labeled.faults("--labeled.")
        yield from self.sampling.faults("--sampling.")
        label, rule = self.unlabeled.padding_label, "is ignored where windows have no labels"
        yield from fault_unless(label != "first_class", "--unlabeled.padding-label", rule, label)
        if wrong := list(self.views.faults()):
            yield from wrong
        else:
            yield from self.unlabeled.faults("--unlabeled.", shared=self.views.windows > self.views.streams)

    @property
    def mixing_parts(self) -> int:
        """Equal parts of the batch within which images are mixed."""
        return max(self.parts, self.accumulate)

    def check_images(self, labeled: int, unlabeled: int) -> None:
        """Raises UsageError where so many labelled and unlabelled images cannot feed the views."""
        views, sampling = self.views, self.sampling
        if not labeled:
            raise UsageError("split: no labelled images; choose another --split")
        if views.windows and not unlabeled:
            raise UsageError(
                "split: no unlabelled images, which this method needs; give fewer labels (--split draw:1/8@0), add "
                "images without masks (to train.txt, too, where there is one, or --files.unlabeled FOLDER) or train "
                "with the supervised recipe"
            )
        if views.partners and unlabeled < 2 and sampling.cutmix_partner != "same":
            raise UsageError("split: CutMix mixes two unlabelled images, and there is one; add images")

    def check_shares(self, world: int) -> None:
        """Raises UsageError where a step's batch, or its parts, cannot be shared by so many processes."""
        shares, micro = world * self.accumulate, self.accumulate
        who = f"{world} processes" if micro == 1 else f"{micro} micro-batches"
        who += f" of {world} processes each" if world > 1 and micro > 1 else ""
        for name, size in (("--batch", self.batch), ("unlabelled batch", self.unlabeled_batch)):
            if size % shares:
                below, above = size // shares * shares, -(-size // shares) * shares
                cure = f"{below} or {above}" if below else f"{above}"
                raise UsageError(f"{name}: {size} images cannot be shared by {who}; use {cure}")
        if self.parts > 1 and self.parts % shares:
            raise UsageError(
                f"--emulate-processes: {self.parts} parts of the batch cannot be shared by {who}; "
                f"use 1, or a multiple of {shares}"
            )

    def check_partners(self) -> None:
        """Raises UsageError where the batch cannot be mixed as told."""
        kind, rule, parts = self.views.unlabeled, self.sampling.cutmix_partner, self.mixing_parts
        batch = self.unlabeled_batch
        if kind == "mixed" and rule == "reversed":
            raise UsageError(
                "--sampling.cutmix-partner: reversed is for methods with weak and strong views; use other or same"
            )
        if kind != "weak_strong" or not self.views.partners:
            return
        if batch % parts:
            raise UsageError(
                f"--emulate-processes: {parts} parts cannot share the {batch} unlabelled images of a step; "
                "use a number that divides them"
            )
        if rule == "other" and batch == parts:
            raise UsageError(
                f"unlabelled batch: {batch}, one for each part of it, leaves an image no other one to be "
                "mixed with; use a larger --batch or --sampling.cutmix-partner same"
            )
