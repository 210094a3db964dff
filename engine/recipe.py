"""The recipe: everything that decides a run, as one typed object. Recipes are functions that return one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..pipelines.datasets.layouts import LAYOUTS
from ..pipelines.errors import UsageError, fault_unless, flag, raise_faults
from ..pipelines.views import Augmentation, Drawing, Sampling, ViewSpec
from .flags import Told
from .methods import Method, MethodConfig, method_of
from .methods.programs import CAC_EPOCH_STEPS, CAC_EPOCHS
from .models import DECODERS, ENCODERS, Encoder, check_pair, encoder_of
from .protocol import Evaluation, Protocol, side_faults
from .runtime import RUNTIME, Runtime
from .serial import flattened, plain, require_types, typed

EVALUATIONS, APART = 20, 50
"""How many a run has, and how many steps they are apart at least, where nobody says it."""


@dataclass(kw_only=True, slots=True)
class ReadingOptions:
    """How pictures are read."""

    orientation: Told[Literal["upright", "ignore"] | None] = None
    """What an EXIF or TIFF orientation does: turns pictures as viewers show them, unless masks fit the stored pixels
    alone, or nothing (default: upright)."""
    max_megapixels: Told[float | None] = None
    """Larger pictures and masks are refused (default: 1074)."""


@dataclass(kw_only=True, slots=True)
class Files(ReadingOptions):
    """Where a data set's files are, when its layout does not say it, and how they are read."""

    images: Told[str | None] = None
    """Folder of the images, relative to --data (folder: images/)."""
    masks: Told[str | None] = None
    """Folder of the masks, relative to --data (folder: masks/; voc: SegmentationClassAug, else SegmentationClass)."""
    classes: Told[Path | None] = None
    """File with one class name a line (default: classes.txt in --data)."""
    train_list: Told[Path | None] = None
    """List file of the training pool (default: the layout's)."""
    val_list: Told[Path | None] = None
    """List file of the validation set (default: the layout's)."""
    test_list: Told[Path | None] = None
    """List file of images to leave alone (default: the layout's)."""
    unlabeled: Told[Path | None] = None
    """Folder of further images, all of them unlabelled (default: none)."""


@dataclass(kw_only=True, slots=True)
class Recipe:
    """A training run."""

    name: tyro.conf.Suppress[str]
    """The recipe's name, which the run's folder has, too."""
    layout: Literal[tuple(LAYOUTS)]  # type: ignore[valid-type]
    """How the data set is laid out on disk."""
    method: Annotated[MethodConfig, tyro.conf.AvoidSubcommands]
    """The method and its settings."""
    published: tyro.conf.Suppress[str] = ""
    """The program whose numbers these are; empty for a recipe of our own."""

    split: str = "draw:1/8@0"
    """Which images are labelled: a published name (voc-cps-1/8), draw:1/8@SEED, all, LABELLED_FILE or
    LABELLED_FILE,UNLABELLED_FILE."""
    files: Files = field(default_factory=Files)
    """Where the files are, when the layout does not say it, and how they are read."""

    network: Literal[tuple(DECODERS)] = "cac"  # type: ignore[valid-type]
    """DeepLabv3+ as published with CAC (7x7 stem, dropout), CPS (deep stem, no dropout), UniMatch (deep stem, no
    multi-grid, no dropout) or U2PL (deep stem, output stride 8, dropout); dpt: the decoder of UniMatch V2, for the maps
    of vision transformers."""
    backbone: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(ENCODERS)}}}|timm:NAME")] = "resnet50"
    """The backbone; timm:NAME is any model of timm that gives maps at several strides, or a vision transformer
    (pip install -e '.[timm]')."""
    head_width: int = 256
    """Channels of the head; of dpt's, which has other widths, 256 is the published size and less is a share of it."""
    weights: str = "imagenet"
    """Backbone weights: imagenet (those that were published with it: torchvision's IMAGENET1K_V1, a package's, timm's,
    DINOv2's), none, or a file."""
    init: Path | None = None
    """A whole network to start the evaluated one from: a run, a checkpoint, or a published file of CAC, CPS, UniMatch,
    UniMatch V2 or U2PL."""

    crop: int = 320
    """Pixels, side of the square windows."""
    batch: int = 8
    """Labelled images a step, over all processes; the unlabelled ones follow in the method's ratio."""
    unlabeled_ratio: int = 1
    """Unlabelled images (pairs, mixed images) per labelled image."""
    emulate_processes: int = 1
    """Parts of the batch over which losses are means, each part's by itself as on a process of its own, and then over
    the parts. Batch statistics are those of the whole batch, as synchronised batch normalisation has them."""
    accumulate: int = 1
    """Micro-batches, equal parts of the batch, that a step makes one after the other, so that the memory has to hold
    what one needs. The step is that of the mean of their gradients; batch statistics and mixed images are of one."""
    steps: int = CAC_EPOCHS * CAC_EPOCH_STEPS
    """Optimizer steps."""
    seed: int = 42
    """The seed of everything that is random."""
    labeled: Augmentation = field(default_factory=Augmentation)
    """How labelled windows are drawn."""
    unlabeled: Augmentation = field(default_factory=Augmentation)
    """How unlabelled windows are drawn."""
    sampling: Sampling = field(default_factory=Sampling)
    """Which images a step takes; the defects of the published programs as switches."""

    optimizer: Literal["sgd", "adamw", "apex_fused_sgd"] = "sgd"
    """apex_fused_sgd needs NVIDIA's apex, built from source."""
    lr: float = 0.01
    """Learning rate of the heads at the start."""
    backbone_lr: float = 0.1
    """Learning rate of the backbones, as a share of lr."""
    momentum: float = 0.9
    """SGD's momentum."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW: how much of the means of gradients and of their squares is kept at each step."""
    eps: float = 1e-8
    """AdamW: added to the root of the mean square."""
    freeze_backbone: bool = False
    """Leave the backbones' parameters as they are. Running statistics of their batch normalisations, if they have any,
    go on following the data."""
    bn_momentum: Told[float | None] = None
    """How far the running statistics of batch normalisations, by which networks are evaluated, follow each batch
    (default: as the network has it, 0.1). Of small batches, and where several calls a step move them, they are
    unsteady; less is steadier, and needs more steps."""
    batch_statistics: Literal["separate", "joint"] = "separate"
    """By which the batches that a network learns from in a step are normalised. separate: each batch by its own, as in
    the published programs; joint: all of them by those of their images together, which running statistics, by which
    networks are evaluated, then follow. What a program shows as one batch, as FixMatch with a teacher does, is one."""
    weight_decay: float = 1e-4
    """L2 penalty (SGD), or the share of lr by which parameters shrink at each step (AdamW)."""
    decay: Literal["all", "weights"] = "all"
    """all: every parameter decays (CAC); weights: convolution weights alone (CPS)."""
    power: float = 0.9
    """Exponent of the schedule."""
    schedule: Literal["poly", "cosine", "poly_late", "constant", "sawtooth"] = "poly"
    """poly: lr falls with (1 - step / steps) ^ power; cosine: with (1 + cos(pi step / steps)) / 2; poly_late: poly a
    step late, so that the first two steps have the first lr (UniMatch's programs); constant: lr stays; sawtooth: that
    of CAC's supervised mode, which counts 80 epochs of 1157 steps whatever they are, so that lr jumps up again whenever
    1157 steps are done."""
    warm_up: int = 0
    """Steps over which lr rises, linearly, to what the schedule says."""
    clip: float = 0.0
    """The largest norm of a step's gradient, of all parameters together, to which a longer one is shortened; 0: any."""
    scale_lr: Literal["linear", "none"] = "linear"
    """linear: --batch without --lr changes lr in proportion to the batch; none: it does not. Steps and weight decay
    stay."""

    evaluation: Evaluation = field(default_factory=Evaluation)
    """How the network is judged."""

    fidelity: Literal["fixed", "published"] = "fixed"
    """fixed: defects of the published programs are mended; published: reproduced, network included, but for what the
    command line says otherwise (docs/fidelity.md)."""
    runtime: Annotated[Runtime, tyro.conf.arg(name="")] = field(default_factory=Runtime)
    """Where things are, how the run is executed and what it shows."""

    @property
    def method_class(self) -> type[Method]:
        return method_of(self.method)

    @property
    def views(self) -> ViewSpec:
        return self.method_class.views

    @property
    def encoder(self) -> Encoder:
        return encoder_of(self.backbone)

    @property
    def unlabeled_batch(self) -> int:
        """Unlabelled images a step, over all processes."""
        return self.batch * self.unlabeled_ratio

    @property
    def images_a_step(self) -> int:
        """Windows that an optimizer step sees, labelled and unlabelled, over all processes."""
        return self.batch + self.views.windows * self.unlabeled_batch

    def check(self) -> None:
        """Raises UsageError for a value that is not of its field's type, or else with every fault: values that make no
        sense or do not go together, naming field and fix."""
        self.check_types()
        raise_faults(self.faults())

    def check_types(self) -> None:
        """Raises UsageError for a value that is not of its field's type."""
        try:
            require_types(self, "recipe")
        except ValueError as error:
            raise UsageError(str(error)) from None

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field and the fix."""
        for name in ("crop", "unlabeled_ratio", "steps", "head_width"):
            yield from fault_unless(getattr(self, name) >= 1, flag(name), "must be at least 1", getattr(self, name))
        yield from fault_unless(self.batch >= 2, "--batch", "batch normalisation needs at least 2 images", self.batch)
        for name in ("lr", "backbone_lr", "weight_decay", "power", "warm_up", "clip"):
            yield from fault_unless(getattr(self, name) >= 0, flag(name), "must not be negative", getattr(self, name))
        rule = f"must be at most the {self.steps} steps"
        yield from fault_unless(self.warm_up <= self.steps, "--warm-up", rule, self.warm_up)
        yield from fault_unless(0 <= self.momentum < 1, "--momentum", "must be in [0, 1)", self.momentum)
        momentum = self.bn_momentum
        yield from fault_unless(momentum is None or 0 < momentum <= 1, "--bn-momentum", "must be in (0, 1]", momentum)
        betas = self.betas
        yield from fault_unless(all(0 <= beta < 1 for beta in betas), "--betas", "must be two numbers in [0, 1)", betas)
        yield from fault_unless(self.eps > 0, "--eps", "must be more than 0", self.eps)
        for name, parts in (
            ("--emulate-processes", self.emulate_processes),
            ("--accumulate", self.accumulate),
            ("--sampling.shared-draws", self.sampling.shared_draws),
        ):
            fits = parts >= 1 and self.batch % parts == 0 and self.unlabeled_batch % parts == 0
            rule = f"must be at least 1 and divide the batch of {self.batch}; pass one that does"
            yield from fault_unless(fits, name, rule, parts)
        yield from self.accumulation_faults()
        yield from self.method.faults()
        for term, weight in self.method_class.terms.items():
            if not hasattr(self.method, weight):
                yield f"{self.method_class.name}: the settings have no {weight!r}, which shall weigh the term {term!r}"
                return
            yield from self.method.bounded(weight, 0)
        if wrong := [*self.views.faults()]:
            yield from wrong
            return
        yield from self.network_faults()
        switches = self.switches()
        if switches and self.fidelity == "published" and all(self.get(path) != v for path, v in switches.items()):
            yield "--fidelity published: no switch is set; build the recipe with Recipe.as_published()"
        yield from self.runtime.faults()

    def accumulation_faults(self) -> Iterator[str]:
        """What does not go together with several micro-batches a step."""
        if self.accumulate <= 1:
            return
        if self.batch // self.accumulate < 2:
            yield (
                f"--accumulate: {self.accumulate} micro-batches of {self.batch} images; batch normalisation needs at "
                f"least 2 in each: pass at most {self.batch // 2}, or a larger --batch"
            )
        if self.emulate_processes > 1 and self.emulate_processes % self.accumulate:
            yield (
                f"--accumulate: {self.accumulate} micro-batches cannot hold whole ones of the {self.emulate_processes} "
                "parts of --emulate-processes; pass a number that divides them"
            )

    def network_faults(self) -> Iterator[str]:
        """What is wrong with the network, with its images, or does not go together."""
        try:
            check_pair(self.network, self.backbone)
        except UsageError as error:
            yield f"--backbone: {error}"
            return
        encoder = self.encoder
        yield from self.drawing().faults()
        yield from self.evaluation.faults(least=encoder.least, multiple=encoder.multiple)
        if self.crop < encoder.least:
            yield f"--crop: must be at least {encoder.least} for {self.backbone}, is {self.crop}"
            return
        multiple, why = encoder.multiple, f", as {self.backbone} asks for"
        if self.views.windows > self.views.streams:
            stride = encoder.strides[0] / DECODERS[self.network].finer
            if self.views.grid % stride:
                fitting = [name for name, decoder in DECODERS.items() if decoder.finer == 1]
                yield (
                    f"--network: {self.method_class.name} compares positions {self.views.grid} pixels apart, which the "
                    f"stride {stride:g} of {self.network} does not divide; use one of {', '.join(fitting)}"
                )
            multiple = math.lcm(multiple, self.views.grid)
            why = f", as the pairs of {self.method_class.name} ask for"
        yield from side_faults("--crop", self.crop, multiple, why)

    def lr_factor(self, step: int) -> float:
        """The share of lr in force at a step, counted from 0, in [0, 1]."""
        risen = min((step + 1) / self.warm_up, 1.0) if self.warm_up else 1.0
        return risen * self._scheduled(step)

    def _scheduled(self, step: int) -> float:
        if self.schedule == "constant":
            return 1.0
        done = (max(step - 1, 0) if self.schedule == "poly_late" else step) / self.steps
        if self.schedule == "sawtooth" and step:
            # Set behind the step before, by its epoch and how many steps had been made then.
            epoch = CAC_EPOCHS * (step - 1) // self.steps
            done = (epoch + ((step - 1) % CAC_EPOCH_STEPS + 1) / CAC_EPOCH_STEPS) / CAC_EPOCHS
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        return max(1 - done, 0) ** self.power

    def steps_between_evaluations(self) -> int:
        """After the last step the network is evaluated anyway."""
        return self.runtime.eval_every or max(self.steps // EVALUATIONS, APART)

    def drawing(self) -> Drawing:
        """What decides the draws of the input pipeline."""
        return Drawing(
            views=self.views,
            crop=self.crop,
            batch=self.batch,
            unlabeled_batch=self.unlabeled_batch,
            labeled=self.labeled,
            unlabeled=self.unlabeled,
            sampling=self.sampling,
            seed=self.seed,
            fill=self.encoder.fill,
            parts=self.emulate_processes,
            accumulate=self.accumulate,
        )

    def protocol(self) -> Protocol:
        """How the network is judged, in pixels."""
        return self.evaluation.resolve(self.crop, self.encoder.multiple)

    def switches(self) -> dict[str, Any]:
        """What the published program does otherwise by its defects: fields, `sampling.cutmix_partner`, and values."""
        return self.method_class.switches(self.layout)

    def as_published(self) -> Recipe:
        """The recipe with every switch as in the published program, and batches normalised as there."""
        recipe = dataclasses.replace(self, fidelity="published", batch_statistics="separate")
        for path, value in self.switches().items():
            recipe = _replaced(recipe, path, value)
        return recipe

    def replace(self, **changes: Any) -> Recipe:
        """A copy with other values; like flags, those of the runtime are named without it."""
        own = {name: changes.pop(name) for name in changes.keys() & RUNTIME}
        runtime = dataclasses.replace(changes.pop("runtime", self.runtime), **own)
        return dataclasses.replace(self, runtime=runtime, **changes)

    def changed(self, settings: Mapping[str, Any]) -> Recipe:
        """The same for values of any name, `method.threshold` for those of a part. Raises UsageError for a name that
        there is not, and for values of another type."""
        recipe = self
        for path, value in settings.items():
            try:
                recipe = _replaced(recipe, path, value)
            except (TypeError, AttributeError):
                known = {**flattened(self.to_dict()), **self.to_dict()}
                near = get_close_matches(path, known, 3)
                which = f"; did you mean {' or '.join(near)}?" if near else ""
                raise UsageError(f"{path}: no setting of {self.name}{which}") from None
        recipe.check_types()
        return recipe

    def decisive(self, *, fresh: bool = False) -> dict[str, Any]:
        """What must not change when a run goes on. Labels decide nothing, and weights only for a run that has none of
        its own yet: fresh."""
        passed = {"runtime", "published"} if fresh else {"runtime", "published", "weights", "init"}
        return {name: value for name, value in plain(self).items() if name not in passed}

    def get(self, path: str) -> Any:
        """The value of a field, nested ones by dots: `sampling.cutmix_partner`."""
        return attrgetter(path)(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the runtime's beside the others; `from_dict` is the inverse."""
        values = plain(self)
        return values | values.pop("runtime")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Raises UsageError where the values are not a recipe's, naming the field."""
        try:
            values = typed(dict, values, "recipe")
            runtime = {name: value for name, value in values.items() if name in RUNTIME}
            own = {name: value for name, value in values.items() if name not in RUNTIME}
            return dataclasses.replace(typed(cls, own), runtime=typed(Runtime, runtime))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"recipe: not one of this version of semiseg ({error}); import the additions to it, or train again"
            ) from error


def _replaced(value: Any, path: str, new: Any) -> Any:
    name, _, rest = path.partition(".")
    if isinstance(value, Recipe) and name in RUNTIME and not rest:
        return value.replace(**{name: new})
    return dataclasses.replace(value, **{name: _replaced(getattr(value, name), rest, new) if rest else new})
