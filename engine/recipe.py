"""The recipe: everything that decides a run, as one typed object. Recipes are functions that return one."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..pipelines.errors import UsageError
from ..pipelines.views import Augmentation, Sampling
from .methods import METHODS, MethodConfig
from .serial import plain, typed

Protocol = Literal["whole", "slide", "cac-whole", "cps-slide"]
Absent = Literal["zero", "skip"]
OUTPUT_STRIDE = 16  # of the backbone: a crop must be a multiple of it


@dataclass(kw_only=True, slots=True)
class Files:
    """Where a data set's files are, when its layout does not say it."""

    images: str | None = None
    """Folder of the images, relative to --data (folder: images/)."""
    masks: str | None = None
    """Folder of the masks, relative to --data (folder: masks/; voc: SegmentationClassAug, else SegmentationClass)."""
    classes: Path | None = None
    """File with one class name a line (default: classes.txt in --data)."""
    train_list: Path | None = None
    """List file of the training pool (default: the layout's)."""
    val_list: Path | None = None
    """List file of the validation set (default: the layout's)."""


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """How a network is judged."""

    protocol: Protocol = "whole"
    """whole: images in one piece, reflected to a multiple of 8; slide: windows of `window` pixels, logits averaged;
    cac-whole and cps-slide: the same with all conventions of the published programs."""
    window: int | None = None
    """Pixels (default: the crop). Windows lie two thirds of it apart."""
    scale: float | None = None
    """Resizes images before they are evaluated (default: so that they look as in training, see the two below)."""
    native_crop: int | None = None
    """The crop with which training sees images at about their own size: they are resized by crop / native_crop."""
    long_side: float | None = None
    """Images are resized to this long side, in sides of the crop."""
    scales: tuple[float, ...] = (1.0,)
    """Scales, on top of the above, whose logits are added."""
    flip: bool = False
    """Whether the logits of mirrored images are added."""
    absent: Absent | None = None
    """What a class counts that neither truth nor prediction holds: zero: an IoU of 0; skip: nothing (default: zero for
    cac-whole, skip for the others)."""
    background: bool = True
    """Whether class 0 counts in the mean."""
    batch: int = 8
    """Images (whole) or windows (slide) evaluated together."""

    def check(self, prefix: str = "--evaluation.") -> None:
        """Raises UsageError for values that make no sense."""
        _require(self.batch >= 1, f"{prefix}batch", "must be at least 1", self.batch)
        _require(
            self.window is None or self.window >= OUTPUT_STRIDE, f"{prefix}window", "must be at least 16", self.window
        )
        for name in ("scale", "native_crop", "long_side"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{prefix}{name.replace('_', '-')}", "must be more than 0", value)
        positive = bool(self.scales) and min(self.scales) > 0
        _require(positive, f"{prefix}scales", "must be numbers above 0", self.scales)

    @property
    def absent_class(self) -> Absent:
        """The convention in force for absent classes."""
        return self.absent or ("zero" if self.protocol == "cac-whole" else "skip")

    def prefers(self, miou: float, best: float) -> bool:
        """Whether a score replaces the best before it. cac-whole compares them rounded to 3 decimals, as CAC does: of
        scores that agree so far the earliest stays."""
        return round(miou, 3) > round(best, 3) if self.protocol == "cac-whole" else miou > best

    def scales_of(self, height: int, width: int, crop: int) -> tuple[float, ...]:
        """`scale_of` times each of `scales`."""
        return tuple(self.scale_of(height, width, crop) * scale for scale in self.scales)

    def scale_of(self, height: int, width: int, crop: int) -> float:
        """The factor for an image of this size and a network that was trained on windows of `crop` pixels."""
        if self.scale is not None:
            return self.scale
        if self.long_side is not None:
            return self.long_side * crop / max(height, width)
        return crop / self.native_crop if self.native_crop else 1.0

    def describe(self, crop: int) -> str:
        """The protocol in a few words: with its window, and with whatever is not its default."""
        slides = self.protocol in ("slide", "cps-slide")
        words = [f"{self.protocol} {self.window or crop}" if slides else self.protocol]
        if self.scale is None and self.long_side is not None:
            words.append(f"long side {round(self.long_side * crop)}")
        elif (scale := self.scale_of(1, 1, crop)) != 1:
            words.append(f"scale {scale:g}")
        if self.scales != (1.0,):
            words.append(f"scales {' '.join(f'{scale:g}' for scale in self.scales)}")
        words += ["flip"] * self.flip
        if self.absent:
            words.append(f"absent classes {self.absent}")
        words += ["without background"] * (not self.background)
        return ", ".join(words)


@dataclass(kw_only=True, slots=True)
class Recipe:
    """A training run."""

    name: tyro.conf.Suppress[str]
    """Of the recipe; names the run's folder."""
    layout: Literal["voc", "cityscapes", "folder", "shapes"]
    """How the data set is laid out on disk."""
    method: Annotated[MethodConfig, tyro.conf.AvoidSubcommands]
    """The method and its settings."""
    published: tyro.conf.Suppress[str] = ""
    """The program whose numbers these are; empty for a recipe of our own."""

    data: Path | None = None
    """Root of the data set. shapes is drawn into the cache by itself."""
    split: str = "draw:1/8@0"
    """Which images are labelled: a published name (voc-cps-1/8), draw:1/8@SEED, all, LABELLED_FILE or
    LABELLED_FILE,UNLABELLED_FILE."""
    lists: Path | None = None
    """Folder with your copies of the published lists, searched for the named split (default: $SEMISEG_LISTS)."""
    files: Files = field(default_factory=Files)
    """Where the files are, when the layout does not say it."""

    network: Literal["cac", "cps"] = "cac"
    """DeepLabv3+ as published with CAC (7x7 stem, dropout) or with CPS (deep stem, no dropout)."""
    backbone: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    """The backbone."""
    head_width: int = 256
    """Channels of the head."""
    weights: str = "imagenet"
    """Backbone weights: imagenet (torchvision's IMAGENET1K_V1), none, or a file."""
    init: Path | None = None
    """A whole network to start the evaluated one from: a run, a checkpoint, or a published file of CAC or CPS."""

    crop: int = 320
    """Pixels, side of the square windows."""
    batch: int = 8
    """Labelled images a step, over all processes; the unlabelled ones follow in the method's ratio."""
    unlabeled_ratio: int = 1
    """Unlabelled images (pairs, mixed images) per labelled image."""
    emulate_processes: int = 1
    """Losses are means over so many parts of the batch, each normalised by itself as on a process of its own, and then
    over the parts. Batch statistics are those of the whole batch, as synchronised batch normalisation has them."""
    steps: int = 92_560
    """Optimizer steps."""
    eval_every: int | None = None
    """Steps between evaluations (default: a twentieth of the run)."""
    seed: int = 42
    """Of everything that is random."""
    labeled: Augmentation = field(default_factory=Augmentation)
    """How labelled windows are drawn."""
    unlabeled: Augmentation = field(default_factory=Augmentation)
    """How unlabelled windows are drawn."""
    sampling: Sampling = field(default_factory=Sampling)
    """Which images a step takes; the defects of the published programs as switches."""

    optimizer: Literal["sgd", "apex_fused_sgd"] = "sgd"
    """apex_fused_sgd needs NVIDIA's apex, built from source."""
    lr: float = 0.01
    """Learning rate of the heads; falls with (1 - step / steps) ^ power."""
    backbone_lr: float = 0.1
    """Learning rate of the backbones, as a share of lr."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    """L2 penalty."""
    decay: Literal["all", "weights"] = "all"
    """all: every parameter decays (CAC); weights: convolution weights alone (CPS)."""
    power: float = 0.9
    """Exponent of the schedule."""
    schedule: Literal["poly", "sawtooth"] = "poly"
    """poly: lr falls with (1 - step / steps) ^ power; sawtooth: that of CAC's supervised mode, which counts 80 epochs
    of 1157 steps whatever they are, so that lr jumps up again whenever 1157 steps are done."""
    scale_lr: Literal["linear", "none"] = "linear"
    """linear: --batch without --lr changes lr in proportion to the batch; none: it does not. Steps and weight decay
    stay."""

    evaluation: Evaluation = field(default_factory=Evaluation)
    """How the network is judged."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    backend: Literal["auto", "dali", "host"] = "auto"
    """Input pipeline; auto: dali with a GPU, host without."""
    threads: int = 0
    """Threads of the input pipeline (0: one a core)."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Of matrix products and convolutions; auto: bf16 on a GPU that has it, else fp32."""
    channels_last: bool = True
    """Memory format of networks and images."""
    compile: bool = False
    """Compile the networks (minutes at the start, faster steps)."""

    out: Path | None = None
    """The run's folder (default: runs/<recipe>-<time>)."""
    resume: bool = False
    """Go on with the run in --out."""
    log_every: int = 10
    """Steps between log lines."""
    fidelity: Literal["fixed", "published"] = "fixed"
    """fixed: defects of the published programs are mended; published: reproduced, network included, but for what the
    command line says otherwise (docs/fidelity.md)."""
    dry_run: bool = False
    """Print what would be trained, and stop."""
    json: bool = False
    """Print one JSON document on standard output; everything else goes to standard error."""

    @property
    def unlabeled_batch(self) -> int:
        """Unlabelled images a step, over all processes."""
        return self.batch * self.unlabeled_ratio

    def check(self) -> None:
        """Raises UsageError, naming the field and the fix, for values that do not go together."""
        for name in ("crop", "unlabeled_ratio", "steps", "log_every", "head_width"):
            _require(getattr(self, name) >= 1, f"--{name.replace('_', '-')}", "must be at least 1", getattr(self, name))
        _require(self.batch >= 2, "--batch", "batch normalisation needs at least 2 images", self.batch)
        _require(0 <= self.seed < 2**63, "--seed", "must be from 0 to 2^63 - 1", self.seed)
        _require(self.threads >= 0, "--threads", "must not be negative", self.threads)
        for name in ("lr", "backbone_lr", "weight_decay", "power"):
            _require(
                getattr(self, name) >= 0, f"--{name.replace('_', '-')}", "must not be negative", getattr(self, name)
            )
        _require(0 <= self.momentum < 1, "--momentum", "must be in [0, 1)", self.momentum)
        for name in ("labeled", "unlabeled"):
            _check_augmentation(getattr(self, name), f"--{name}.")
        if METHODS[type(self.method)].views.unlabeled == "pair":
            for name, only in (("crop_off_by_one", False), ("padding", "corner")):
                value = getattr(self.unlabeled, name)
                _require(value == only, f"--unlabeled.{name.replace('_', '-')}", f"is {only} for pairs", value)
        epoch_steps = self.sampling.epoch_steps
        _require(epoch_steps is None or epoch_steps >= 1, "--sampling.epoch-steps", "must be at least 1", epoch_steps)
        for name, parts in (
            ("--emulate-processes", self.emulate_processes),
            ("--sampling.shared-draws", self.sampling.shared_draws),
        ):
            fits = parts >= 1 and self.batch % parts == 0 and self.unlabeled_batch % parts == 0
            _require(fits, name, f"must be at least 1 and divide the batch of {self.batch}; pass one that does", parts)
        self.evaluation.check()
        self.method.check()
        if self.crop % OUTPUT_STRIDE:
            lower, upper = self.crop // OUTPUT_STRIDE * OUTPUT_STRIDE, -(-self.crop // OUTPUT_STRIDE) * OUTPUT_STRIDE
            near = f"{lower} or {upper}" if lower else f"{upper}"
            raise UsageError(
                f"--crop: {self.crop} is not a multiple of the network's stride {OUTPUT_STRIDE}; use {near}"
            )
        if self.eval_every is not None and self.eval_every < 1:
            raise UsageError(f"--eval-every: must be at least 1, is {self.eval_every}")
        if self.fidelity == "published" and all(self.get(path) != value for path, value in self.switches().items()):
            raise UsageError("--fidelity published: no switch is set; build the recipe with Recipe.as_published()")
        if self.layout != "shapes" and self.data is None and not self.dry_run:
            raise UsageError(
                f"--data: the recipe {self.name} needs the root of the data set, e.g. --data /data/VOCdevkit"
            )
        if self.resume and self.out is None:
            raise UsageError("--resume: say which run with --out FOLDER")

    def lr_factor(self, step: int) -> float:
        """The share of lr in force at a step, in [0, 1]; 0 after the last one."""
        done = step / self.steps
        if self.schedule == "sawtooth":
            epochs, epoch_steps = 80, 1157
            done = (epochs * step // self.steps + step % epoch_steps / epoch_steps) / epochs
        return max(1 - done, 0) ** self.power

    def switches(self) -> dict[str, Any]:
        """What the published program does otherwise by its defects: fields, `sampling.cutmix_partner`, and values."""
        return METHODS[type(self.method)].switches(self.layout)

    def as_published(self) -> Recipe:
        """The recipe with every switch as in the published program."""
        recipe = dataclasses.replace(self, fidelity="published")
        for path, value in self.switches().items():
            recipe = _replaced(recipe, path, value)
        return recipe

    def get(self, path: str) -> Any:
        """The value of a field, nested ones by dots: `sampling.cutmix_partner`."""
        return functools.reduce(getattr, path.split("."), self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` is the inverse."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Raises UsageError where the values are not a recipe's, naming the field."""
        try:
            return typed(cls, values)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"recipe: not one of this version of semiseg ({error}); train again") from error


def _replaced(value: Any, path: str, new: Any) -> Any:
    name, _, rest = path.partition(".")
    return dataclasses.replace(value, **{name: _replaced(getattr(value, name), rest, new) if rest else new})


def _require(holds: bool, field: str, rule: str, value: Any) -> None:
    if not holds:
        raise UsageError(f"{field}: {rule}, is {value}")


def _check_augmentation(augmentation: Augmentation, prefix: str) -> None:
    low, high = augmentation.range
    _require(0 < low <= high, f"{prefix}range", "must be two rising numbers above 0", augmentation.range)
    factors = augmentation.factors
    _require(bool(factors) and min(factors) > 0, f"{prefix}factors", "must be numbers above 0", factors)
    _require(augmentation.base > 0, f"{prefix}base", "must be more than 0", augmentation.base)
    for name in ("flip", "jitter", "gray", "blur"):
        value = getattr(augmentation, name)
        _require(0 <= value <= 1, f"{prefix}{name}", "is a probability, in [0, 1]", value)
