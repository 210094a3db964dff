"""One optimizer step: precision, losses, gradients, schedule. Reads nothing on the host."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.profiler import record_function

from ...pipelines.batch import Batch
from ...pipelines.errors import UsageError
from ...pipelines.progress import Say, say_nothing
from ..device import Precision
from ..distributed import average_gradients
from ..methods import Method
from ..processes import is_distributed
from ..recipe import Recipe
from .build import parameter_groups
from .graph import Graph, Refused, cuda_capture, is_tried, why_not


class Step:
    """`step(batch, k)` makes optimizer step k of the recipe's schedule and returns the losses as device scalars."""

    def __init__(self, recipe: Recipe, method: Method, precision: Precision, say: Say = say_nothing):
        self.recipe, self.method, self.precision, self.say = recipe, method, precision, say
        precision.allow_tf32()
        method.begin()
        groups = parameter_groups(recipe, method)
        # On the device and changed in place, so that a captured step reads the schedule and not a constant. A GPU's
        # fused step reads single precision.
        exactness = torch.float32 if precision.device.type == "cuda" else torch.float64
        self.base_lr = torch.tensor([group["lr"] for group in groups], dtype=exactness, device=precision.device)
        self.group_lr = self.base_lr.clone()
        self.rates = self.group_lr.unbind()
        self.optimizer = _optimizer(recipe, groups, precision)
        self.options = [
            {name: value for name, value in group.items() if name != "params"} | {"lr": lr}
            for group, lr in zip(self.optimizer.param_groups, self.rates, strict=True)
        ]
        self._own_options()
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.name == "fp16")
        self.skipped: Tensor | None = None
        """() bool: whether the last step changed nothing as its gradient overflowed; None but in fp16."""
        self.graph = self._graph()
        if is_distributed() and precision.device.type == "cuda" and recipe.runtime.graph != "off":
            self.say(f"graph: {why_not(recipe, precision)}")

    def lr(self, step: int) -> float:
        """The heads' learning rate at a step."""
        return self.recipe.lr * self.recipe.lr_factor(step)

    def overflows(self) -> bool:
        """Whether gradients overflow however little they are scaled: they are no numbers, and no step is made any more.
        The host waits."""
        return self.scaler.is_enabled() and self.scaler.get_scale() < 1

    def _scale(self) -> Tensor | None:
        """What the scaler multiplies by, on the device; None where it does not."""
        return self.scaler.scale(torch.ones((), device=self.precision.device)) if self.scaler.is_enabled() else None

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        torch.mul(self.base_lr, self.recipe.lr_factor(step), out=self.group_lr)
        if self.recipe.optimizer == "apex_fused_sgd":  # takes numbers only
            for group, lr in zip(self.optimizer.param_groups, self.group_lr.tolist(), strict=True):
                group["lr"] = lr
        progress = step / self.recipe.steps
        self.method.before_step(step, progress)
        return self._make(batch, progress)

    def _make(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """All that one graph can hold."""

        def make(batch: Batch) -> dict[str, Tensor]:
            self.optimizer.zero_grad(set_to_none=True)
            losses = self._accumulate(batch.micro_batches, progress)
            with record_function("gradients"):
                if self.method.processes > 1:  # before the scaler looks for gradients that overflowed, anywhere
                    average_gradients(self.method.parameters())
                if self.recipe.clip:
                    self.scaler.unscale_(self.optimizer)
                    clip_grad_norm_(self.method.parameters(), self.recipe.clip)
            with record_function("optimizer"):
                before = self._scale()
                self.scaler.step(self.optimizer)
                self.scaler.update()
                after = self._scale()
                self.skipped = None if before is None or after is None else after < before
            with record_function("after the step"):
                self.method.after_step()
            return losses

        if self.graph is None:
            return make(batch)
        try:
            return self.graph(make, batch, self.method.phase(progress))
        except Refused as refused:
            reason = str(refused)
        # Only here does the memory of what was tried come free.
        if self.recipe.runtime.graph == "on":
            raise UsageError(f"--graph on: {reason}; leave it out")
        self.graph = None
        self.say(f"graph: not used, steps are launched kernel by kernel ({reason})")
        return make(batch)

    def _accumulate(self, batches: Sequence[Batch], progress: float) -> dict[str, Tensor]:
        """Adds the mean of the gradients by each of the batches; returns the means of their losses."""
        found: list[dict[str, Tensor]] = []
        for batch in batches:
            with record_function("losses"), self.precision.autocast():
                losses = self.method.losses(batch, progress)
            with record_function("gradients"):
                loss = losses["loss"] if len(batches) == 1 else losses["loss"] / len(batches)
                self.scaler.scale(loss).backward()
            found.append({name: loss.detach() for name, loss in losses.items()})
        return mean_losses(found)

    def _graph(self) -> Graph | None:
        """Raises UsageError where one is asked for that cannot be."""
        if is_tried(self.recipe, self.precision):
            device, optimizer = self.precision.device, self.optimizer
            # Weakly, as a circle would hold on to the GPU's memory until Python looks for circles.
            changed = weakref.WeakMethod(self.changed)

            def capture(call: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], None], dict[str, Tensor]]:
                optimizer.zero_grad(set_to_none=True)  # a graph has gradients of its own, beside any that are there
                return cuda_capture(call, device)

            return Graph(lambda: changed()(), device, capture, self.method.picked)  # type: ignore[misc]
        if self.recipe.runtime.graph == "on":
            raise UsageError(f"--graph on: {why_not(self.recipe, self.precision)}; leave it out")
        return None

    def changed(self) -> dict[str, list[Tensor]]:
        """The tensors that a step changes: buffers one by one, the rest in the optimizer's groups, and a teacher's."""
        changed: dict[str, list[Tensor]] = {name: [buffer] for name, buffer in self.method.named_buffers()}
        trained = set()
        for group in self.optimizer.param_groups:
            changed[group["name"]] = group["params"]
            trained.update(group["params"])
            # A parameter that has had no gradient yet has no state.
            states = [self.optimizer.state.get(parameter, {}) for parameter in group["params"]]
            for key in {key: None for state in states for key in state}:
                tensors = [state[key] for state in states if torch.is_tensor(state.get(key))]
                changed[f"{key} of {group['name']}"] = tensors
        others: list[Tensor] = [parameter for parameter in self.method.parameters() if parameter not in trained]
        if others:
            changed["parameters that are not trained"] = others
        return changed

    def state_dict(self) -> dict:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Raises UsageError where the state is of other parameters."""
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise UsageError(f"--resume: the optimizer's state does not fit ({error}); start a new run") from None
        self._own_options()
        for parameter, values in self.optimizer.state.items():
            for key, value in values.items():
                # The fused step reads both in the order of memory, which need not be that of the run that saved them.
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.graph = self._graph()  # that of before reads the tensors of before
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def _own_options(self) -> None:
        """The groups have the recipe's options and read the learning rates of `group_lr`, also after loading, which
        brings those of the machine that saved them."""
        for group, options in zip(self.optimizer.param_groups, self.options, strict=True):
            group.update(options)


def mean_losses(found: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The means of scalars () over several micro-batches, by their names; of one, its own."""
    if len(found) == 1:
        return found[0]
    return {name: torch.stack([losses[name] for losses in found]).mean(0) for name in found[0]}


def _optimizer(recipe: Recipe, groups: list[dict], precision: Precision) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=recipe.momentum, fused=True)
        # The fused step allocates momenta and leaves them as they are where gradients overflow.
        if recipe.momentum:
            for parameter in (parameter for group in groups for parameter in group["params"]):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    if recipe.optimizer == "adamw":
        capturable = is_tried(recipe, precision)
        return torch.optim.AdamW(groups, betas=recipe.betas, eps=recipe.eps, fused=True, capturable=capturable)
    source = "build NVIDIA's apex from source (github.com/NVIDIA/apex) or leave out --optimizer"
    if precision.device.type != "cuda":
        raise UsageError("--optimizer apex_fused_sgd: runs on a GPU only; leave it out or pass --device cuda")
    try:
        from apex.optimizers import FusedSGD
    except ImportError:
        found = find_spec("apex") is not None
        what = "the package called apex is not NVIDIA's (PyPI's is an unrelated one)" if found else "apex is missing"
        raise UsageError(f"--optimizer apex_fused_sgd: {what}; {source}") from None
    return FusedSGD(groups, lr=recipe.lr, momentum=recipe.momentum)
