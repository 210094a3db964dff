"""What a training step will cost, known before it is made: the step runs once on tensors that hold nothing."""

from __future__ import annotations

import math
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from ...pipelines.batch import Batch, Windows
from ...pipelines.errors import UsageError
from ...pipelines.lane import leaves, mapped
from ...pipelines.loader import AHEAD, collate
from ...pipelines.memory import GIB
from ...pipelines.plan import Planner
from ..device import Precision
from ..evaluation.memory import group_size, groups_ahead
from ..evaluation.protocols import confusion
from ..models import Network, evaluating
from ..recipe import Recipe
from .build import build_method
from .graph import is_tried
from .step import Step


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of one optimizer step, and of an evaluation. What libraries keep for themselves (a GPU's context,
    workspaces of convolutions, on a CPU the process itself) comes on top of the memory."""

    flops: int
    """Operations of products and convolutions, forward and backward; a multiplication and an addition are two."""
    memory: int
    """Bytes at the peak: weights, gradients, momenta, what the backward pass needs, the batch and those that the loader
    has ready."""
    state: int
    """Bytes of these that stay between steps: weights, momenta, banks."""
    evaluation: int
    """Bytes at the peak of an evaluation, with what stays, which is all that a step takes where it is captured: a graph
    keeps what it computes in."""

    def __str__(self) -> str:
        return (
            f"a step takes {self.flops / 1e12:.2f} TFLOP and about {self.memory / GIB:.1f} GiB, of which "
            f"{self.state / GIB:.1f} GiB stay between steps; an evaluation {self.evaluation / GIB:.1f} GiB"
        )


def _flops_of_gradients(upstream: Tensor, x: Tensor, weight: Tensor, *form: Any) -> int:
    """FLOPs of a convolution's gradients, arguments as of torch's operator: those that are asked for of input and
    weight take what the values take."""
    transposed, asked = form[4], form[-1]
    positions = (x if transposed else upstream).numel()
    return 2 * positions * (weight.numel() // len(weight)) * sum(asked[:2])


def _normalised(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *form: Any) -> tuple:
    """What a batch normalisation makes: maps, and the mean and deviation of each channel for the backward pass."""
    channels = x.shape[1] if training else 0
    return torch.empty_like(x), *(x.new_empty(channels, dtype=torch.float32) for _ in range(2))


def _gradients_of_normalised(upstream: Tensor, x: Tensor, weight: Tensor, *form: Any) -> tuple:
    """Gradients of a batch normalisation's input, weight and bias."""
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)


SHAPES = {
    torch.ops.aten.native_batch_norm.default: _normalised,
    torch.ops.aten.native_batch_norm_backward.default: _gradients_of_normalised,
}
"""What comes of operations that torch would take apart to know: most of a first forecast's time is theirs."""


class Costs(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, now and at the most, and FLOPs by torch's formulas, but for
    gradients of convolutions in groups, for which that is the one without groups. torch's FlopCounterMode tries to
    decompose each operation before, which takes a tenth to a third of a forecast."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = self.flops = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = SHAPES.get(function, function)(*args, **kwargs)
        if function is torch.ops.aten.convolution_backward.default:
            self.flops += _flops_of_gradients(*args)
        elif count := flop_registry.get(function.overloadpacket):
            self.flops += count(*args, **kwargs, out_val=result)
        for leaf in tree_iter(result):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size


def forecast(recipe: Recipe, classes: int, precision: Precision, largest: tuple[int, int] | None = None) -> Forecast:
    """The cost of a step late in the schedule, when all terms count, and of an evaluation of as many images of the
    `largest` size (height, width; default: the windows') as are evaluated together. Nothing is computed and no image is
    allocated."""
    captured, on_gpu = is_tried(recipe, precision), precision.device.type == "cuda"
    recipe = recipe.replace(graph="off")
    if recipe.optimizer == "apex_fused_sgd":  # which needs a GPU, and holds what torch's does
        recipe = recipe.replace(optimizer="sgd")
    precision = Precision(precision.name, torch.device("cpu"))
    whole, largest = example(recipe), largest or (recipe.crop, recipe.crop)
    batch = replace(whole, more=whole.more[:1])  # of several micro-batches two show what all take
    held = AHEAD + 2 + captured  # ready, being made, trained on, and what a graph reads
    waiting = held * _bytes(whole) - _bytes(batch)
    # Some backbones read values as they are made, which fake tensors do not have.
    with torch.device("meta"):
        method = build_method(recipe, classes).train()
    with torch.random.fork_rng([]), FakeTensorMode(allow_non_fake_inputs=True) as mode, Costs() as costs:
        method.to_empty(device="cpu")
        step = Step(recipe, method, precision)
        state = costs.now
        batch = mapped(batch, Tensor, mode.from_tensor)
        step(batch, recipe.steps - 1)
        flops = costs.flops * len(whole.micro_batches) // len(batch.micro_batches)
        training, costs.most = costs.most + waiting, costs.now
        network = method.predictor()
        protocol, pixels = recipe.protocol(), math.prod(largest)
        group = group_size(protocol.batch, pixels)
        with evaluating(network), precision.autocast():
            images, targets = torch.empty(group, 3, *largest), torch.empty(group, *largest, dtype=torch.uint8)
            seen = slice(1 if protocol.convention.windows else group)  # windows are those of one image at a time
            confusion(OnceForEachShape(network), images[seen], targets[seen], classes, protocol)
            del images, targets
        # As the look at them does, behind each evaluation. It is for people, and may depend on values.
        with suppress(DataDependentOutputException, DynamicOutputShapeException), torch.no_grad(), precision.autocast():
            method.pseudo_labels(batch)
    kept = training - state if captured else waiting
    decoded = 0 if on_gpu else 4 * pixels * group * groups_ahead(pixels * group)  # which lie in the host's memory
    return Forecast(flops, training, state, costs.most + kept + decoded)


class OnceForEachShape:
    """Stands for a network that is asked about many windows of tensors that hold nothing: it sees the first batch of
    each shape, and what comes of others has the shape of what came of that."""

    def __init__(self, network: Network):
        self.network, self.mean, self.std = network, network.mean, network.std
        self.known: dict[torch.Size, tuple[torch.Size, torch.dtype]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape not in self.known:
            logits = self.network(images)
            self.known[images.shape] = logits.shape, logits.dtype
            return logits
        shape, dtype = self.known[images.shape]
        return images.new_empty(shape, dtype=dtype)


def _bytes(batch: Batch) -> int:
    return sum(tensor.nbytes for tensor in leaves(batch, Tensor))


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run's memory depends on beside its recipe."""

    classes: int
    precision: Precision
    largest: tuple[int, int]
    """Height and width of the largest validation image."""
    processes: int

    def of_step(self, recipe: Recipe) -> Forecast:
        """For one of the processes, of its steps alone."""
        return forecast(share_of(recipe, self.processes), self.classes, self.precision)

    def of_run(self, recipe: Recipe) -> Forecast:
        """For one of the processes, evaluations included."""
        return forecast(share_of(recipe, self.processes), self.classes, self.precision, self.largest)


def fit_to_memory(
    recipe: Recipe,
    classes: int,
    precision: Precision,
    largest: tuple[int, int],
    room: int | None,
    kept: int = 0,
    processes: int = 1,
) -> tuple[Recipe, Forecast]:
    """The recipe and what a step costs one of the `processes` that share it: with `recompute` on where it is auto and
    that would be more than `room` bytes otherwise. kept: bytes of decoded images, for which there is room besides, but
    not besides a memory budget. Raises UsageError where the recipe has a budget and more than that is needed, or the
    processes cannot share a step."""
    recipe.drawing().check_shares(processes)
    setting = Setting(classes, precision, largest, processes)
    told = setting.of_run(recipe)
    if budget := recipe.runtime.memory_budget:
        room = int(budget * GIB) - kept
    if room is None or max(told.memory, told.evaluation) <= room:
        return recipe, told
    runtime = recipe.runtime
    if told.memory > room and runtime.recompute == "auto" and not (runtime.compile or runtime.grouped):
        twice = setting.of_run(recipe.replace(recompute="on"))
        if twice.memory < told.memory:
            recipe, told = recipe.replace(recompute="on"), twice
    if budget and max(told.memory, told.evaluation) > room:
        images = f", decoded images {kept / GIB:.1f} GiB" if kept else ""
        cure = "pass --backend host, which keeps no images in the GPU's memory"
        if not kept or max(told.memory, told.evaluation) > room + kept:
            cure_of = _cure_of_evaluation if told.memory <= room + kept else _cure_of_step
            cure = cure_of(recipe, setting, room + kept) + (", with --backend host" if kept else "")
        raise UsageError(f"--memory-budget {budget:g}: {told}{images}; {cure}")
    return recipe, told


def beyond_memory(recipe: Recipe, device: torch.device, processes: int) -> str:
    """What is said where memory does not do after all."""
    cures = ["lower one"]
    if trains(recipe.replace(accumulate=2 * recipe.accumulate), processes):
        cures.append(f"pass --accumulate {2 * recipe.accumulate}")
    if recipe.runtime.recompute != "on" and not recipe.runtime.compile:
        cures.append("pass --recompute on")
    if device.type == "cuda" and recipe.runtime.graph != "off":
        cures.append("--graph off")  # what a graph computes in is its own, beside what evaluations take
    return f"--batch {recipe.batch} of --crop {recipe.crop}: needs more memory than there is; {', or '.join(cures)}"


def _cure_of_step(recipe: Recipe, setting: Setting, room: int) -> str:
    """What to change for steps to fit."""
    if recipe.runtime.recompute == "off":
        return "leave out --recompute off"
    by = 2
    while (batch := recipe.batch // by) >= 2 * setting.processes:
        ways = {
            f"--batch {batch}": recipe.replace(batch=batch),
            f"--accumulate {recipe.accumulate * by}": recipe.replace(accumulate=recipe.accumulate * by),
        }
        takes = {
            way: memory
            for way, changed in ways.items()
            if trains(changed, setting.processes) and (memory := setting.of_step(changed).memory) <= room
        }
        if takes:
            return " or ".join(f"{way} takes about {memory / GIB:.1f} GiB" for way, memory in takes.items())
        by *= 2
    return "lower --crop, or pass a smaller --backbone"


def _cure_of_evaluation(recipe: Recipe, setting: Setting, room: int) -> str:
    """What to change for evaluations to fit, where steps do."""
    judged = recipe.evaluation
    ways = {
        "--evaluation.batch 1": recipe.replace(evaluation=replace(judged, batch=1)),
        "--evaluation.protocol slide": recipe.replace(evaluation=replace(judged, protocol="slide")),
    }
    if is_tried(recipe, setting.precision):
        ways["--graph off"] = recipe.replace(graph="off")
    takes = {way: setting.of_run(changed).evaluation for way, changed in ways.items() if changed != recipe}
    fitting = [way for way, memory in takes.items() if memory <= room]
    return f"pass {' or '.join(fitting)}" if fitting else "cut large validation images and their masks into tiles"


def share_of(recipe: Recipe, processes: int) -> Recipe:
    """What one of several processes does of a recipe's steps; to normalise a batch, one process needs two images."""
    batch = max(recipe.batch // processes, 2 * recipe.accumulate)
    return recipe.replace(batch=batch, emulate_processes=max(recipe.emulate_processes // processes, 1))


def trains(recipe: Recipe, processes: int) -> bool:
    """Whether nothing is wrong with a recipe, and so many processes can share its steps."""
    if any(recipe.faults()):
        return False
    try:
        recipe.drawing().check_shares(processes)
    except UsageError:
        return False
    return True


def example(recipe: Recipe) -> Batch:
    """A step's batch of the recipe's shapes, of black images, on the CPU."""
    crop = recipe.crop
    plan = Planner(np.full((4, 2), 2 * crop), range(2), range(2, 4), recipe.drawing())(0)
    labeled = len(plan.labeled.record)

    def images(count: int) -> Tensor:
        return torch.zeros(count, crop, crop, 3, dtype=torch.uint8)

    windows = Windows(
        images(labeled),
        torch.zeros(labeled, crop, crop, dtype=torch.uint8),
        tuple(images(len(stream.record)) for stream in plan.unlabeled for _ in stream.views),
    )
    encoder = recipe.encoder
    batch = collate(plan, windows, torch.device("cpu"), mean=encoder.mean, std=encoder.std)
    return replace(batch, more=tuple(mapped(batch, Tensor, Tensor.clone) for _ in range(1, recipe.accumulate)))
