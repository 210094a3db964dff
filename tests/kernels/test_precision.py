"""How torch multiplies float32, whichever of its two interfaces a program has said it by."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from semiseg.kernels.precision import PLACES, allow_tf32, exact_fp32, precision_kept


def old(setting: str):
    return lambda: torch.set_float32_matmul_precision(setting)


def new(place, setting: str):
    return lambda: setattr(place, "fp32_precision", setting)


SAID = {
    "nothing": lambda: None,
    "high": old("high"),
    "medium": old("medium"),
    "no convolutions": lambda: setattr(cudnn, "allow_tf32", False),
    "all tf32": new(torch.backends, "tf32"),
    "all ieee": new(torch.backends, "ieee"),
    "products tf32": new(cuda.matmul, "tf32"),
    "cudnn ieee": new(cudnn, "ieee"),
    "convolutions ieee": new(cudnn.conv, "ieee"),
    "the CPU's products bf16": new(mkldnn.matmul, "bf16"),
    "the CPU's convolutions bf16": new(mkldnn.conv, "bf16"),
}
"""What a program around may have said."""


@pytest.fixture(params=SAID)
def said(request):
    with precision_kept():
        SAID[request.param]()
        yield request.param


def precisions() -> list[str]:
    return [place.fp32_precision for place in PLACES]


def readable() -> tuple[str | bool | None, ...]:
    """By the older interface, as far as it can say it."""
    found = []
    for read in (torch.get_float32_matmul_precision, lambda: cudnn.allow_tf32, lambda: cuda.matmul.allow_tf32):
        found.append(None)
        with suppress(RuntimeError):
            found[-1] = read()
    return tuple(found)


@pytest.mark.parametrize("allowed", [True, False])
def test_what_is_allowed_holds_whatever_was_said_before_and_is_put_back(said, allowed):
    before, told = precisions(), readable()
    with precision_kept():
        allow_tf32(allowed)
        wanted = "tf32" if allowed else "ieee"
        assert (cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision) == (wanted,) * 3
        assert readable() == ("high" if allowed else "highest", allowed, allowed)
        assert exact_fp32() is not allowed
        assert {mkldnn.conv.fp32_precision, mkldnn.rnn.fp32_precision} == {"ieee"}
        assert mkldnn.matmul.fp32_precision != "bf16"
    assert precisions() == before
    if None not in told:
        assert readable() == told


@pytest.mark.parametrize(
    ("say", "exact"),
    [(old("highest"), True), (old("high"), False), (new(cuda.matmul, "tf32"), False), (new(cuda.matmul, "ieee"), True)],
)
def test_products_of_float32_are_exact_unless_torch_allows_less(say, exact):
    with precision_kept():
        say()
        assert exact_fp32() is exact
