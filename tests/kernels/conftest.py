"""What the kernel tests share: where they run, and the rule by which a result in low precision is judged.

The same tests judge every implementation. As they are they run on the CPU, and on a GPU where there is one; in a
process with TRITON_INTERPRET=1 the Triton kernels get the CPU's tensors.
"""

import pytest
import torch

from interpreter import INTERPRETED, hurry
from semiseg.kernels.cpu import bilinear

UNIT = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


if INTERPRETED:
    hurry()


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors here are small: a second thread would only be waited for, long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])


@pytest.fixture(params=["cpu", GPU])
def device(request):
    """Where the tensors of the test live; asking for it makes a test run on a GPU too."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def dtype(request):
    if INTERPRETED and request.param == torch.bfloat16:
        pytest.skip("Triton's interpreter truncates where bfloat16 rounds, and its products of bfloat16 are wrong")
    return request.param


@pytest.fixture
def cpu_implementation():
    """For tests of what only the CPU implementation promises."""
    if INTERPRETED:
        pytest.skip("about the CPU implementation, which the interpreter replaces")


@pytest.fixture
def no_worse():
    """Assert |ours - exact| <= |plain - exact| + tol, as norms, with tol some rounding errors of the result's dtype."""

    def check(ours, plain, exact):
        assert ours.shape == exact.shape
        assert torch.isfinite(ours).all()
        tolerance = UNIT[ours.dtype] * exact.norm() + 2e-7
        assert (ours.double() - exact).norm() <= (plain.double() - exact).norm() + tolerance

    return check


@pytest.fixture
def largest_allocation(cpu_implementation):
    """Bytes of the largest single allocation that `call` makes."""

    def measure(call):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            call()
        return max(event.self_cpu_memory_usage for event in profile.events())

    return measure


@pytest.fixture
def small_tiles(cpu_implementation, monkeypatch):
    """Upsampling in tiles so small that a small image has many."""
    monkeypatch.setattr(bilinear, "TILE_COLUMNS", 24)
    monkeypatch.setattr(bilinear, "TILE_VALUES", 3000)
