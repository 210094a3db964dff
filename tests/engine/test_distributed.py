"""Several processes on the CPU: batch statistics and gradients are those of the whole batch in one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from semiseg.engine.distributed import synchronised
from semiseg.pipelines.errors import UsageError

WORLD = 2
COMMON = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from semiseg.engine.distributed import average_gradients, synchronised

torch.set_num_threads(1)
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world)

model, shares = torch.load(folder / "inputs.pt", weights_only=False)
"""
NORMALISE = """
network = synchronised(model)
for share in shares:
    network(share[rank]).pow(3).mean().backward()
average_gradients(network.parameters())
network.eval()
result = [p.grad for p in network.parameters()], list(network.buffers()), network(torch.cat(shares[0]))
"""
END = """
torch.save(result, folder / f"result{rank}.pt")
dist.destroy_process_group()
"""

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


def run(program: str, model: nn.Module, batches: list, folder: Path) -> list:
    """The results of WORLD processes, each with its share of every batch."""
    shares = [
        [
            pytree.tree_map_only(torch.Tensor, lambda tensor, rank=rank: tensor.chunk(WORLD)[rank], batch)
            for rank in range(WORLD)
        ]
        for batch in batches
    ]
    torch.save((model, shares), folder / "inputs.pt")
    command = [sys.executable, "-c", COMMON + program + END]
    processes = [
        subprocess.Popen([*command, str(rank), str(WORLD), str(folder)], env=os.environ | {"OMP_NUM_THREADS": "1"})
        for rank in range(WORLD)
    ]
    assert [process.wait(timeout=600) for process in processes] == [0] * WORLD
    return [torch.load(folder / f"result{rank}.pt", weights_only=False) for rank in range(WORLD)]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    return nn.Sequential(*layers).double().train()


def test_batch_statistics_are_those_of_all_processes(tmp_path):
    """Two forward passes before the gradients are averaged, as methods with several networks make them."""
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    one = small_network()
    for batch in batches:
        one(batch).pow(3).mean().backward()
    expected = [p.grad for p in one.parameters()], list(one.buffers()), one.eval()(batches[0])
    for result in run(NORMALISE, small_network(), batches, tmp_path):
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)


def test_batch_normalisations_of_another_kind_are_refused():
    """Left alone, each process would have statistics of its own."""
    with pytest.raises(UsageError, match="0 is a BatchNorm1d"):
        synchronised(nn.Sequential(nn.BatchNorm1d(2)))
