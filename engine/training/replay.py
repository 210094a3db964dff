"""The step at which a run stopped being finite, made again: which one it was, on which images, where in it the first
value came up that is not finite, and whether a higher precision has it, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...pipelines.backends import keeps_decoded
from ...pipelines.batch import Batch
from ...pipelines.errors import UsageError
from ...pipelines.lane import mapped
from ...pipelines.loader import Loader
from ...pipelines.progress import Progress, Say
from ..data import Data, prepare_data
from ..device import Precision, random_state, repeatable, resolve_device, resolve_precision, set_random_state
from ..events import Listener, notes_to, progress_of, silent
from ..memory import out_of_memory
from ..methods import Method
from ..places import moved, with_absolute_paths
from ..recipe import Files, Recipe
from ..run import Run
from ..serial import plain, typed
from .build import open_loader, open_method
from .resume import require_same_data
from .state import load_method, load_save
from .step import Step, mean_losses
from .verdict import prove_fast_paths


@dataclass(frozen=True, slots=True)
class Repeat:
    """One step in one precision."""

    precision: str
    losses: dict[str, float]
    first: str | None
    """The operation, and the module that it is in, whose result is not finite though all that went into it is; None
    where losses and gradients are finite."""
    gradients: tuple[str, ...]
    """Parameters whose gradient is not finite, in the order in which gradients come, the loss's neighbours first."""
    problem: str | None = None
    """Why it could not be made."""

    @property
    def finite(self) -> bool:
        return self.first is None and self.problem is None


@dataclass(frozen=True, slots=True)
class Replay:
    """What the steps after a run's newest save come to."""

    save: int
    """Steps done in the save that was gone on from; 0 where there is none."""
    last: int
    """Steps done when the replay ended."""
    what: str | None = None
    """What is not finite after the last step: a loss, a gradient, a weight; None where all is."""
    images: tuple[tuple[str, ...], ...] = ()
    """Ids of the images of that step: labelled, then stream by stream unlabelled ones."""
    repeats: tuple[Repeat, ...] = ()
    """The step repeated, in the run's precision and in higher ones."""

    @property
    def cure(self) -> str | None:
        """The lowest precision in which the step is finite, where it is not in the run's own."""
        own, *higher = self.repeats or (None,)
        if own is None or own.finite:
            return None
        return next((repeat.precision for repeat in higher if repeat.finite), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, whose numbers are finite: of the losses the others are text."""
        document = asdict(self) | {"finite": self.what is None, "cure": self.cure}
        for repeat in document["repeats"]:
            repeat["losses"] = {name: v if abs(v) < float("inf") else str(v) for name, v in repeat["losses"].items()}
        return document


def replay(folder: Path, on_event: Listener = silent, *, data: Path | None = None, device: str | None = None) -> Replay:
    """Makes the steps after a run's newest save again, until a loss, a gradient or a weight is not finite, and that
    step once more in each precision. Nothing is written into the run's folder.

    data, device: other ones than the run's. Of a run of several processes, dropout is the first one's.
    Raises UsageError where there is no run, or its data is not what it was.
    """
    note = notes_to(on_event)
    run = Run.open(folder)
    recipe = run.recipe
    files = typed(Files, moved(plain(recipe.files), recipe.runtime.data, data))
    recipe = recipe.replace(data=data or recipe.runtime.data, files=files, device=device or recipe.runtime.device)
    recipe = with_absolute_paths(recipe.replace(graph="off", compile=False))
    recipe.check()
    precision = resolve_precision(recipe.runtime.precision, resolve_device(recipe.runtime.device))
    _, state = load_save(run.checkpoints, note, mend=False)
    found = prepare_data(recipe, on_event, run)
    require_same_data(run, recipe, found)
    recipe = prove_fast_paths(recipe, precision, note, keeps_decoded(found.trained_on, found.manifest.folder))
    torch.manual_seed(recipe.seed)
    method = open_method(recipe, found, precision.device, fresh=state is None, on_event=on_event)
    step = Step(recipe, method, precision, note)
    first = _go_on(step, state) if state is not None else 0
    if lost := not_finite(method.state_dict()):
        raise UsageError(f"replay: {lost[0]} is not finite in the save of step {first} already (--on-nan ignore)")
    loader = open_loader(recipe, found, precision.device, first, on_event)
    with closing(loader), repeatable(recipe.runtime.deterministic):
        return _replayed(step, loader, found, _end(run, recipe), progress_of("replaying", on_event))


def _replayed(step: Step, loader: Loader, data: Data, end: int, progress: Progress) -> Replay:
    """Makes steps until one is not finite, or so many are done."""
    first, precision = loader.start, step.precision
    for number, batch in zip(range(first, end), loader):
        before = Moment(step.method, precision.device)
        what = _fault(step, step(batch, number))
        progress(number + 1, end)
        if what:
            ids = [record.id for record in (*data.labeled, *data.unlabeled)]
            plans = [planner(number) for planner in loader.planners]
            streams = zip(*(plan.streams for plan in plans), strict=True)
            images = tuple(tuple(ids[row] for one in stream for row in one.record) for stream in streams)
            share = number / step.recipe.steps
            repeats = tuple(repeat(before, batch, share, *exactness) for exactness in _exactnesses(precision))
            return Replay(first, number + 1, what, images, repeats)
    return Replay(first, max(first, end))


def _go_on(step: Step, state: dict[str, Any]) -> int:
    """From a save; returns how many steps are done."""
    load_method(step.method, state["method"])
    step.load_state_dict(state["step"])
    set_random_state({name: states[0] for name, states in state["random"].items()}, step.precision.device)
    return state["steps_done"]


def _end(run: Run, recipe: Recipe) -> int:
    """Up to where the run can have come: what is not finite is found with a log line, or before the next one."""
    trained = [line for line in run.log if "loss" in line]
    lost = next((line["step"] for line in trained if line["loss"] is None), None)
    return lost or min((trained[-1]["step"] if trained else 0) + recipe.runtime.log_every, recipe.steps)


def not_finite(tensors: dict[str, Tensor]) -> list[str]:
    """The names of those that hold a value that is not finite."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def _fault(step: Step, losses: dict[str, Tensor]) -> str | None:
    """What of a step is not finite, in words."""
    if lost := not_finite(losses):
        terms = [name for name in lost if name != "loss"]
        return f"the loss ({', '.join(terms)})" if terms else "the loss"
    # A scaler passes over steps whose gradients overflow, and scales less: that is no fault until it is below 1.
    gradients = {name: p.grad for name, p in step.method.named_parameters() if p.grad is not None}
    if (step.overflows() or not step.scaler.is_enabled()) and (lost := not_finite(gradients)):
        return f"the gradient of {lost[-1]}" + (f" and of {len(lost) - 1} others" if len(lost) > 1 else "")
    if lost := not_finite(step.method.state_dict()):
        return f"{lost[0]}, after a step of finite gradients"
    return None


class Moment:
    """What a method and the random numbers were before a step."""

    def __init__(self, method: Method, device: torch.device):
        self.method, self.device = method, device
        self.state = {name: value.clone() for name, value in method.state_dict().items()}
        self.random = random_state(device)

    def again(self, dtype: torch.dtype) -> Method:
        """The method as it was, in another precision."""
        self.method.to(dtype).load_state_dict(self.state)
        set_random_state(self.random, self.device)
        return self.method


def _exactnesses(precision: Precision) -> Iterator[tuple[str, Precision, torch.dtype]]:
    """The run's precision and those above it: name, of products, of all else."""
    plain = Precision("fp32", precision.device)
    if precision != plain:
        yield precision.name, precision, torch.float32
    yield "fp32", plain, torch.float32
    yield "fp64", plain, torch.float64


def repeat(
    before: Moment, batch: Batch, progress: float, name: str, precision: Precision, dtype: torch.dtype
) -> Repeat:
    """One forward and backward pass, every operation of it looked at."""
    method = before.again(dtype)
    precision.allow_tf32()
    batch = mapped(batch, Tensor, lambda one: one.to(dtype) if one.is_floating_point() else one)
    arrived: list[str] = []
    try:
        with FirstNonFinite(method) as watch, _gradients_of(method, arrived.append):
            found = [_forward_and_backward(method, one, progress, precision, watch) for one in batch.micro_batches]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return Repeat(name, {}, None, (), "not enough memory")
    losses = mean_losses(found)
    values = {name: float(loss) for name, loss in losses.items()}
    lost = not_finite({name: grad for name in arrived if (grad := method.get_parameter(name).grad) is not None})
    whole = not lost and not not_finite(losses)
    return Repeat(name, values, None if whole else watch.first or "none that was seen", tuple(lost))


def _forward_and_backward(
    method: Method, batch: Batch, progress: float, precision: Precision, watch: FirstNonFinite
) -> dict:
    """The losses of a forward and a backward pass, which adds to the gradients."""
    watch.backward = False
    with precision.autocast():
        losses = method.losses(batch, progress)
    watch.backward = True
    losses["loss"].backward()
    return {name: loss.detach() for name, loss in losses.items()}


@contextmanager
def _gradients_of(method: Method, told: Say) -> Iterator[None]:
    """Inside, the names of parameters are told when their gradients are there; without those of before."""
    method.zero_grad(set_to_none=True)
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: told(name))
        for name, parameter in method.named_parameters()
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class FirstNonFinite(TorchDispatchMode):
    """Finds the first operation that makes of finite values one that is not.

    Constants that are not finite, as of masks, are meant; memory that nobody has written to yet may hold anything.
    """

    def __init__(self, method: nn.Module):
        super().__init__()
        self.first: str | None = None
        self.backward = False
        self.inside: list[str] = []
        """The modules that are being called, the outermost first."""
        self.method = method

    def __enter__(self) -> FirstNonFinite:
        self.hooks = []
        for name, module in self.method.named_modules():
            self.hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self.inside.append(name)))
            self.hooks.append(module.register_forward_hook(self._left, always_call=True))
        return super().__enter__()

    def _left(self, *_: Any) -> None:
        self.inside.pop()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.first or "empty" in func.name():
            return func(*args, **kwargs)
        finite = all(map(_finite, tree_leaves((args, kwargs))))  # before it writes into them
        result = func(*args, **kwargs)
        if finite and not all(map(_finite, tree_leaves(result))):
            forward = self.inside[-1] if self.inside else "the loss"
            self.first = f"{func.name()} in {'the backward pass' if self.backward else forward}"
        return result


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return abs(value) < float("inf")
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all())
