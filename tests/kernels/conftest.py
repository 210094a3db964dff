"""What the kernel tests share: the rule by which a result in low precision is judged."""

import pytest
import torch

UNIT = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


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
