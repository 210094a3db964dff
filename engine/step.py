"""One optimizer step: precision, losses, gradients, schedule. Reads nothing on the host."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from ..pipelines.errors import UsageError
from ..pipelines.loader import Batch
from .hyperparameters import parameter_groups
from .methods import Method
from .recipe import Recipe

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """`step(batch, k)` makes optimizer step k of the recipe's schedule and returns the losses as device scalars."""

    def __init__(self, recipe: Recipe, method: Method, device: torch.device, precision: str):
        self.recipe, self.method, self.device = recipe, method, device
        self.low = LOW.get(precision)
        set_precision(precision, device)
        self.optimizer = _optimizer(recipe, parameter_groups(recipe, method), device)
        self.base_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def autocast(self):
        return torch.autocast(self.device.type, self.low) if self.low else nullcontext()

    def lr(self, step: int) -> float:
        """Of the heads at a step, without warm-up; 0 after the last one."""
        return self.recipe.lr * self.recipe.lr_factor(step)

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        for group, base in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = base * self.recipe.lr_factor(step)
        with self.autocast():
            losses = self.method.losses(batch, step / self.recipe.steps)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses["loss"]).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: loss.detach() for name, loss in losses.items()}

    def state_dict(self) -> dict:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


def _optimizer(recipe: Recipe, groups: list[dict], device: torch.device) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, fused=device.type == "cuda")
    source = "build NVIDIA's apex from source (github.com/NVIDIA/apex) or leave out --optimizer"
    if device.type != "cuda":
        raise UsageError("--optimizer apex_fused_sgd: runs on a GPU only; leave it out or pass --device cuda")
    try:
        from apex.optimizers import FusedSGD
    except ImportError:
        import importlib.util

        found = importlib.util.find_spec("apex") is not None
        what = "the package called apex is not NVIDIA's (PyPI's is an unrelated one)" if found else "apex is missing"
        raise UsageError(f"--optimizer apex_fused_sgd: {what}; {source}") from None
    return FusedSGD(groups, lr=recipe.lr, momentum=recipe.momentum)


def resolve_device(name: str) -> torch.device:
    """auto, cpu, cuda or cuda:N -> a device that is there. Raises UsageError otherwise."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device: {name!r} is no device; pass auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: no GPU is available here; pass --device cpu, or check the driver (nvidia-smi)")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device: {name!r} is not supported; pass cpu or cuda")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def set_precision(precision: str, device: torch.device) -> None:
    """Whether a GPU may use TF32 for what is left in float32."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "fp32"


def resolve_precision(name: str, device: torch.device) -> str:
    """auto -> bf16 on a GPU that has it, fp32 elsewhere."""
    if name != "auto":
        if name == "tf32" and device.type != "cuda":
            raise UsageError("--precision tf32: only GPUs have it; pass fp32 or bf16")
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
