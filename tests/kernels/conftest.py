"""What the kernel tests share: the rule by which a result in low precision is judged."""

import sys

import pytest
import torch

UNIT = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors here are small: a second thread would only be waited for, long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_worse():
    """Assert |ours - exact| <= |plain - exact| + tol, as norms, with tol some rounding errors of the result's dtype."""

    def check(ours, plain, exact):
        assert ours.shape == exact.shape
        assert torch.isfinite(ours).all()
        tolerance = UNIT[ours.dtype] * exact.norm() + 1e-7
        assert (ours.double() - exact).norm() <= (plain.double() - exact).norm() + tolerance

    return check


@pytest.fixture
def largest_allocation():
    """Bytes of the largest single allocation that `call` makes."""

    def measure(call):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            call()
        return max(event.self_cpu_memory_usage for event in profile.events())

    return measure


@pytest.fixture
def small_tiles(monkeypatch):
    """Upsampling in tiles so small that a small image has many."""
    tiles = sys.modules["semiseg.kernels._bilinear"]
    monkeypatch.setattr(tiles, "TILE_COLUMNS", 24)
    monkeypatch.setattr(tiles, "TILE_VALUES", 3000)
