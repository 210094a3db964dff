import pytest
import torch

from semiseg.kernels._ranking import kth_smallest


def samples():
    """Name -> numbers in [0, 1] that a wrong digit, a wrong tie or a wrong edge would show in."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(4000, generator=generator)
    return {
        "one": torch.tensor([0.3]),
        "spread": spread,
        "ties": (spread * 5).floor() / 5,
        "all equal": torch.full((300,), 0.7),
        "nearly equal": 0.7 + 1e-6 * spread[:300],
        "tiny": torch.cat([spread[:50] ** 40, torch.zeros(20), torch.full((20,), 1e-45), torch.ones(20)]),
    }


@pytest.mark.parametrize("name", samples())
def test_every_rank_is_the_one_of_sorting(name, device):
    values = samples()[name].to(device)
    size = values.numel()
    ordered = values.sort().values
    for rank in sorted({1, 2, size // 3, size // 2, size - 1, size} & set(range(1, size + 1))):
        assert torch.equal(kth_smallest(values, rank), ordered[rank - 1])


def test_strided_values(device):
    values = torch.rand(300, 2, generator=torch.Generator().manual_seed(1)).to(device)[:, 0]
    assert torch.equal(kth_smallest(values, 100), values.sort().values[99])


def test_nan_is_the_largest(device):
    values = torch.tensor([0.5, float("nan"), 1.0, -float("nan"), 0.25], device=device)
    assert kth_smallest(values, 3) == 1
    assert not kth_smallest(values, 4) <= 1


def test_doubles_keep_their_precision(device):
    values = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(device)
    assert torch.equal(kth_smallest(values, 40), values.sort().values[39])


def test_the_operator_passes_torchs_own_checks(device):
    torch.library.opcheck(torch.ops.semiseg.kth_smallest, (torch.rand(300, device=device), 7))
