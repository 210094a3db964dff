"""Check the ways to make a step on one device, compiled and captured, against eager steps from the same state:

    python -m semiseg.engine.training.check --network cac --backbone resnet18 --head-width 16
        [--json] [--device cuda] [--precision bf16] [--way compiled captured] [--freeze-backbone]

Supervised steps of a network on small images, without dropout, whose draws differ. Every parameter, its momentum (the
gradients that there were) and every buffer may be no further from the same steps in float64 than three times what eager
steps in the same precision are, or usually are, and a thousandth. In float32 that notices an error of a thousandth, in
the deepest networks of a hundredth; in half precision eager gradients are a tenth or a quarter from the truth, and what
is noticed is a multiple of that.

Exit code: 0; 1 if a way is wrong or fails (its row says how); 2 for a call that asks for what does not exist.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.check import Result, table
from ...pipelines.batch import Batch, Labeled
from ...pipelines.datasets.layouts import LAYOUTS
from ...pipelines.errors import UsageError
from ..device import Precision, resolve_device, resolve_precision
from ..methods import METHODS, Method
from ..models import drop_nothing, encoder_of
from ..recipe import Recipe
from ..runtime import Runtime
from .build import build_method
from .graph import WARM_UP
from .step import Step

WAYS = {"compiled": 1, "captured": WARM_UP + 2}
"""To make a step, and how many are made: the last one of the captured ones is a replay."""
SIDE, BATCH, CLASSES = 64, 8, 5
SLACK, UNIT, MOST = 3, 1e-3, 0.9
"""Times that sums in another order may be further from the truth, the share that is nothing to worry about, and the
share that is too much in any case: with 1 there may be no gradient at all."""
FLOOR = 0.3
"""A tensor's size counts as no less than this share of what is usual in its kind, among vectors or the others:
gradients that cancel out, as before a normalisation, are all rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The network of which steps are made: fields of a recipe."""

    network: str
    backbone: str
    head_width: int
    freeze_backbone: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Subject:
        """A recipe's."""
        return cls(**{name: getattr(recipe, name) for name in cls.__slots__})

    def recipe(self, captured: bool) -> Recipe:
        """Supervised steps of it."""
        encoder = encoder_of(self.backbone)
        return Recipe(
            name="check",
            layout=next(iter(LAYOUTS)),
            method=METHODS["supervised"].config_class(),
            crop=-(-max(SIDE, encoder.least) // encoder.multiple) * encoder.multiple,
            batch=BATCH,
            steps=100,
            weight_decay=0.0,
            runtime=Runtime(graph="on" if captured else "off"),
            **asdict(self),
        )


def check(subject: Subject, precision: Precision, ways: Sequence[str] = tuple(WAYS)) -> list[Result]:
    """Makes steps in each of the ways. Returns a result for each, with the error of the tensor that is closest to
    what it may be, or beyond; one that is wrong, or raises, has a `problem`, and the others go on."""
    return [_check(subject, precision, way) for way in ways]


def _check(subject: Subject, precision: Precision, way: str) -> Result:
    head: dict[str, Any] = {
        "operator": f"{way} {subject.network} {subject.backbone}",
        "device": str(precision.device),
        "dtype": precision.name,
        "implementation": way,
    }
    began = time.perf_counter()
    try:
        ours = _changed(subject, precision, WAYS[way], way)
        seconds = time.perf_counter() - began
        plain = _changed(subject, precision, WAYS[way])
    except Exception as error:
        raised = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
        return Result(**head, problem=f"{raised}{' '.join(str(error).split())[:300]}")
    exact = _changed(subject, Precision("fp64", precision.device), WAYS[way])
    compared = [row for kind in exact for row in _compared(ours[kind], plain[kind], exact[kind])]
    name, distance, allowed = max(compared, key=lambda row: row[1] / row[2])
    problem = None
    if not distance <= allowed:
        problem = f"{name} is {distance:.2g} from the same in float64, may be {allowed:.2g}"
    return Result(**head, error=distance, allowed=allowed, seconds=seconds, problem=problem)


Changed = dict[str, dict[str, Tensor]]
"""By kind, then by name."""


def _changed(subject: Subject, precision: Precision, count: int, way: str = "eager") -> Changed:
    """What so many steps make of parameters, momenta and buffers; on the CPU, in float64."""
    recipe = subject.recipe(way == "captured")
    dtype = torch.float64 if precision.name == "fp64" else torch.float32
    method = _method(recipe).to(precision.device, dtype).to(memory_format=torch.channels_last).train()
    if way == "compiled":
        for network in method.networks().values():
            network.compile()
    step = Step(recipe, method, precision)
    if step.scaler.is_enabled():  # no step is left out because gradients overflow
        step.scaler.load_state_dict(step.scaler.state_dict() | {"scale": 128.0})
    batch = _batch(recipe.crop, precision.device, dtype)
    for number in range(count):
        step(batch, number)
    parameters = dict(method.named_parameters())
    momenta = {name: step.optimizer.state[parameter] for name, parameter in parameters.items()}
    kinds = {
        "parameters": parameters,
        "momenta": {f"momentum of {name}": state["momentum_buffer"] for name, state in momenta.items() if state},
        "buffers": dict(method.named_buffers()),
    }
    return {
        kind: {name: tensor.detach().double().cpu() for name, tensor in tensors.items()}
        for kind, tensors in kinds.items()
    }


def _method(recipe: Recipe) -> Method:
    """The same weights every time, in a network in which roundings do not grow from layer to layer: rectifiers let
    through nearly all."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        method = build_method(recipe, CLASSES)
    drop_nothing(method)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.constant_(module.bias, 2.0)
    return method


def _batch(side: int, device: torch.device, dtype: torch.dtype) -> Batch:
    """Smooth images, each about a colour of its own, and regions."""
    generator = torch.Generator().manual_seed(1)

    def smooth(channels: int) -> Tensor:
        coarse = torch.randn(BATCH, channels, 5, 5, generator=generator)
        return F.interpolate(coarse, (side, side), mode="bicubic")

    image = smooth(3) + torch.randn(BATCH, 3, 1, 1, generator=generator)
    image = image.to(device, dtype, memory_format=torch.channels_last)
    return Batch(Labeled(image, smooth(CLASSES).argmax(1).to(device, torch.uint8)))


def _compared(
    ours: dict[str, Tensor], plain: dict[str, Tensor], exact: dict[str, Tensor]
) -> list[tuple[str, float, float]]:
    """Each tensor's name, error, and what it may be, both as shares of the tensor's size."""
    vectors, others = (_usual([one for one in exact.values() if (one.ndim == 1) == vector]) for vector in (True, False))
    errors = []
    for name, truth in exact.items():
        usual = vectors if truth.ndim == 1 else others
        size = max(float(truth.norm()), FLOOR * usual * truth.numel() ** 0.5, 1e-30)
        error, base = (float((one[name] - truth).norm()) / size for one in (ours, plain))
        errors.append((name, error if torch.isfinite(ours[name]).all() else float("inf"), base))
    typical = median(base for *_, base in errors) if errors else 0.0
    return [(name, error, min(SLACK * max(base, typical) + UNIT, MOST)) for name, error, base in errors]


def _usual(tensors: list[Tensor]) -> float:
    """The root of the mean square of all numbers in these."""
    elements = sum(tensor.numel() for tensor in tensors)
    return (sum(float(tensor.square().sum()) for tensor in tensors) / max(elements, 1)) ** 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m semiseg.engine.training.check", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1")
    parser.add_argument("--precision", default="auto", help="fp32, tf32, bf16, fp16")
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--network", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--head-width", type=int, required=True)
    parser.add_argument("--freeze-backbone", action="store_true")
    options = vars(parser.parse_args(arguments))
    subject = Subject(**{name: options[name] for name in Subject.__slots__})
    try:
        precision = resolve_precision(options["precision"], resolve_device(options["device"]))
    except UsageError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    results = check(subject, precision, options["way"])
    print(json.dumps({"results": [asdict(result) for result in results]}) if options["json"] else table(results))
    return int(any(result.problem for result in results))


if __name__ == "__main__":
    sys.exit(main())
