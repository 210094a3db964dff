"""Several processes on the CPU: batch statistics and gradients are those of the whole batch in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

WORLD = 2
PROGRAM = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from semiseg.engine.distributed import average_gradients, synchronised

torch.set_num_threads(1)
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world)
network, batches = torch.load(folder / "inputs.pt", weights_only=False)
network = synchronised(network)
for batch in batches:
    network(batch.chunk(world)[rank]).pow(3).mean().backward()
average_gradients(network)
network.eval()
result = [p.grad for p in network.parameters()], list(network.buffers()), network(batches[0])
torch.save(result, folder / f"result{rank}.pt")
dist.destroy_process_group()
"""


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    return nn.Sequential(*layers).double().train()


def run(folder: Path) -> list:
    """The results of WORLD processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(WORLD), str(folder)], env=environment)
        for rank in range(WORLD)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * WORLD
    return [torch.load(folder / f"result{rank}.pt") for rank in range(WORLD)]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_equal_one(tmp_path):
    """Two forward passes before the gradients are averaged, as methods with several networks make them."""
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(6, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    torch.save((small_network(), batches), tmp_path / "inputs.pt")
    one = small_network()
    for batch in batches:
        one(batch).pow(3).mean().backward()
    expected = [p.grad for p in one.parameters()], list(one.buffers()), one.eval()(batches[0])
    for result in run(tmp_path):
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)
