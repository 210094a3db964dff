"""Where and how exactly networks compute: the device, and the precision of its products."""

from __future__ import annotations

import torch

from ..pipelines.errors import UsageError

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
