"""Several processes on the CPU: batch statistics, gradients and losses are those of the whole batch in one process."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from semiseg.engine.training.build import build_method

WORLD = 2
COMMON = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from semiseg.engine.distributed import synchronised

torch.set_num_threads(1)
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world)


def average_gradients(network):
    for parameter in network.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world


model, shares = torch.load(folder / "inputs.pt", weights_only=False)
"""
NORMALISE = """
network = synchronised(model)
for share in shares:
    network(share[rank]).pow(3).mean().backward()
average_gradients(network)
network.eval()
result = [p.grad for p in network.parameters()], list(network.buffers()), network(torch.cat(shares[0]))
"""
TRAIN = """
import semiseg.engine.methods
method = synchronised(model)
losses = []
for share in shares:
    loss = method.losses(share[rank], 0.5)["loss"]
    method.zero_grad()
    loss.backward()
    average_gradients(method)
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad
    losses.append(loss.detach())
result = torch.stack(losses), list(method.parameters()), [m.running_var for m in method.modules() if hasattr(m, "eps")]
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


@pytest.mark.parametrize(("name", "ohem"), [("supervised", 0.2), ("cac", 0.0), ("cutmix_cps", 0.0)])
def test_emulated_processes_are_the_real_ones(name, ohem, tiny, random_batch, tmp_path):
    """Two steps in float64 without dropout, parts of the batch with unequal numbers of pixels that count."""
    recipe = replace(tiny(name), batch=2 * WORLD)
    recipe.method.ohem = ohem

    def method(parts: int) -> nn.Module:
        torch.manual_seed(0)
        built = build_method(replace(recipe, emulate_processes=parts), 3).double().train()
        for module in built.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if name == "cac":
            built.config.threshold = 0.3
        return built

    def batch(seed: int):
        parts = [random_batch(method(1).views.unlabeled, seed + part) for part in range(WORLD)]
        parts[1].labeled.target[:, 10:] = 255
        whole = pytree.tree_map(lambda *parts: None if parts[0] is None else torch.cat(parts), *parts)
        return pytree.tree_map_only(
            torch.Tensor, lambda part: part.double() if part.is_floating_point() else part, whole
        )

    batches = [batch(0), batch(10)]
    results = {}
    for parts in (1, WORLD):
        one, losses = method(parts), []
        for whole in batches:
            one.zero_grad()
            loss = one.losses(whole, 0.5)["loss"]
            loss.backward()
            with torch.no_grad():
                for parameter in one.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.05 * parameter.grad
            losses.append(loss.detach())
        variances = [module.running_var for module in one.modules() if hasattr(module, "eps")]
        results[parts] = torch.stack(losses), list(one.parameters()), variances
    real = run(TRAIN, method(1), batches, tmp_path)
    mean = torch.stack([losses for losses, *_ in real]).mean(0)
    torch.testing.assert_close(mean, results[WORLD][0], rtol=1e-9, atol=1e-11)
    assert not torch.allclose(mean, results[1][0], rtol=1e-4)
    for _, parameters, variances in real:
        torch.testing.assert_close(parameters, results[WORLD][1], rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(variances, results[WORLD][2], rtol=1e-8, atol=1e-10)
