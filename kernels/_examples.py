"""Every operator on small inputs of ragged sizes, with the options that select other code: what `check` compares with
the definitions, and tests trace, compile and differentiate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = (37, 29)
BOXES = [[[1, 1, 17, 16], [9, 3, 30, 20]], [[0, 2, 35, 8], [0, 0, 0, 0]]]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Example:
    """A call of an operator, or of its definition."""

    name: str
    """The operator's name, followed by what is special."""
    call: Callable[..., Any]
    """Takes the operator, or its definition, and the float tensors."""
    tensors: Sequence[Tensor]
    """At least one; in float64, on the CPU."""
    differentiable: int = 0
    """So many of the tensors, the first ones, take a gradient."""

    @property
    def operator(self) -> str:
        return self.name.split()[0]

    def outputs(self, function: Callable[..., Any], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors that `function`, the operator or its definition, returns, without the None of one unasked for."""
        outputs = self.call(function, *tensors)
        return tuple(output for output in (outputs if isinstance(outputs, tuple) else (outputs,)) if output is not None)


class _Numbers:
    """The same on every device. `floats` depend on a seed, the rest does not."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self.fixed, self.varied = (torch.Generator().manual_seed(number) for number in (0, seed))

    def floats(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.varied, dtype=torch.float64)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(low, high, shape, generator=self.fixed).to(self.device, dtype)

    def shares(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.fixed).to(self.device)

    def given(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self.device)

    def logits(self, count: int = 1) -> list[Tensor]:
        return [3 * self.floats(2, 5, 9, 11) for _ in range(count)]

    def target(self) -> Tensor:
        target = self.integers(0, 5, 2, *SIZE, dtype=torch.uint8)
        target[:, :3] = 255
        return target


def _depthwise_conv2d(numbers: _Numbers) -> Iterator[Example]:
    for special, taps, form in (("5x5", 5, {"padding": 2}), ("dilated", 3, {"padding": 2, "dilation": 2})):
        tensors = [numbers.floats(2, 16, 19, 14), numbers.floats(16, 1, taps, taps) / taps]
        yield Example(f"depthwise_conv2d {special}", lambda f, x, w, form=form: f(x, w, **form), tensors, 2)


def _directional_contrast(numbers: _Numbers) -> Iterator[Example]:
    rows, bank = 150, 333
    rest = (*numbers.integers(0, 3, 2, rows), *numbers.shares(2, rows))
    bank_labels, valid = numbers.integers(-1, 3, bank), torch.arange(rows, device=numbers.device) < rows - 2
    features = [F.normalize(numbers.floats(count, 32), dim=1) for count in (rows, rows, bank)]
    yield Example("directional_contrast", lambda f, a, b, n: f(a, b, *rest, n, bank_labels, valid=valid), features, 2)
    yield Example(
        "directional_contrast with negatives",
        lambda f, a, b, n: f(a, b, *rest, n, bank_labels, grad_negatives=True),
        features,
        3,
    )


def _upsample_cross_entropy(numbers: _Numbers) -> Iterator[Example]:
    target, weight, logits = numbers.target(), numbers.shares(2, *SIZE), numbers.logits()
    for special, options in {
        "": {},
        " with a normalizer": {"normalizer": (target != 7).sum()},
        " deterministic": {"deterministic": True},
        " map": {"reduction": "none", "pixel_weight": weight, "align_corners": False},
    }.items():
        call = lambda f, x, options=options: f(x, target, **options)  # noqa: E731
        yield Example(f"upsample_cross_entropy{special}", call, logits, 1)
    yield Example("upsample_ohem_cross_entropy", lambda f, x: f(x, target, min_kept=600), logits, 1)


def _pseudo_label(numbers: _Numbers) -> Iterator[Example]:
    boxes, pair = numbers.given(BOXES), numbers.logits(2)
    yield Example("pseudo_label", lambda f, x: f(x, SIZE), pair[:1])
    yield Example("pseudo_label without confidence", lambda f, x: f(x, SIZE, confidence=False), pair[:1])
    yield Example("mixed_pseudo_label", lambda f, a, b: f(a, b, boxes, SIZE), pair)
    yield Example("mixed_pseudo_label without confidence", lambda f, a, b: f(a, b, boxes, SIZE, confidence=False), pair)


def _upsample(numbers: _Numbers) -> Iterator[Example]:
    logits = numbers.logits()
    yield Example("upsample", lambda f, x: f(x, SIZE), logits, 1)

    def channels_last(f: Callable[..., Tensor], x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return f(x, SIZE, align_corners=False).square()  # whose gradient is channels-last, too

    yield Example("upsample channels-last", channels_last, logits, 1)


def _upsample_confusion(numbers: _Numbers) -> Iterator[Example]:
    target = numbers.target()
    yield Example("upsample_confusion", lambda f, x: f(x, target, 5), numbers.logits())


def _upsample_conv2d(numbers: _Numbers) -> Iterator[Example]:
    tensors = [numbers.floats(2, 16, 9, 11), numbers.floats(8, 16, 3, 3) / 12]
    yield Example("upsample_conv2d", lambda f, x, w: f(x, w, SIZE), tensors, 2)


def _upsample_mse(numbers: _Numbers) -> Iterator[Example]:
    boxes, weight, logits = numbers.given(BOXES)[:, :1], numbers.shares(2, *SIZE), numbers.logits(3)
    sure = weight > 0.3
    yield Example("upsample_mse", lambda f, x, y: f(x, y, SIZE), logits[:2], 1)
    yield Example(
        "upsample_mse mixed",
        lambda f, x, y, other: f(x, y, SIZE, other=other, boxes=boxes, pixel_weight=weight),
        logits,
        1,
    )
    yield Example(
        "upsample_mse mixed, of sure pixels",
        lambda f, x, y, other: f(x, y, SIZE, other=other, boxes=boxes, pixel_weight=sure, normalizer=sure.sum()),
        logits,
        1,
    )


def _cut_windows(numbers: _Numbers) -> Iterator[Example]:
    images, target = numbers.integers(0, 256, 2, 19, 23, 3, dtype=torch.uint8), numbers.target()
    # Two windows of images of 19 x 23 pixels: one larger than its image and padded, one smaller and mirrored. The same
    # two of masks of 37 x 29.
    places = numbers.given(
        [
            [0, 23, 2, 3, 8, 9, 700, 1, 0, 10, 12, 2, 1, 0],
            [19 * 23 * 3, 23, 0, 1, 19, 22, 1600, 0, 1, 12, 12, 0, 2, 1],
        ]
    )
    mask_places = places.clone()
    mask_places[:, :2] = numbers.given([[0, 29], [37 * 29, 29]])
    unused = numbers.logits()
    for filter in ("cubic", "antialiased", "linear", "nearest"):
        yield Example(
            f"cut_windows {filter}",
            lambda f, _, filter=filter: f(images.flatten(), places, 14, filter=filter, fill=(124, 116, 104)),
            unused,
        )
    yield Example("cut_windows of masks", lambda f, _: f(target.flatten(), mask_places, 14, channels=1), unused)


def _cutmix(numbers: _Numbers) -> Iterator[Example]:
    boxes = numbers.given(BOXES)
    yield Example("cutmix", lambda f, a, b: f(a, b, boxes), [numbers.floats(2, 3, *SIZE) for _ in range(2)], 2)


def _photometric(numbers: _Numbers) -> Iterator[Example]:
    images, blur = numbers.integers(0, 256, 2, 19, 23, 3, dtype=torch.uint8), numbers.given([True, False])
    mean, std = numbers.given(MEAN), numbers.given(STD)
    matrix = torch.eye(3, 4, dtype=torch.float64) + 0.1 * numbers.floats(2, 3, 4)
    sigma = 0.5 + numbers.floats(2).abs()
    yield Example("photometric", lambda f, m: f(images, m, blur, mean, std, dtype=m.dtype), [matrix])
    yield Example("photometric to bfloat16", lambda f, m: f(images, m, blur, MEAN, STD, dtype=torch.bfloat16), [matrix])
    yield Example(
        "photometric blurred last",
        lambda f, m, s: f(images, m, blur, MEAN, STD, sigma=s, radius=6, blur_last=True, dtype=m.dtype),
        [matrix, sigma],
    )


MAKERS = (
    _depthwise_conv2d, _directional_contrast, _upsample_cross_entropy, _pseudo_label, _upsample, _upsample_confusion,
    _upsample_conv2d, _upsample_mse, _cut_windows, _cutmix, _photometric,
)  # fmt: skip


def examples(device: torch.device | str, seed: int = 0) -> dict[str, Example]:
    """By their names, at least one for each operator. Only the float tensors depend on the seed; what a call holds
    besides lies on `device`."""
    found = [example for make in MAKERS for example in make(_Numbers(torch.device(device), seed))]
    return {example.name: example for example in found}
