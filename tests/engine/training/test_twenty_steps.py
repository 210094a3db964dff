"""Faster ways through a step come to the same after twenty of them."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch.utils import _pytree as pytree

from semiseg.engine.device import Precision
from semiseg.engine.training.build import build_method
from semiseg.engine.training.step import Step
from semiseg.kernels import upsample_conv2d
from semiseg.kernels.check import refusing

GROUPING = ["cac", "cps", "cutmix_cps", "mean_teacher", "cutmix_seg", "fixmatch", "unimatch"]
"""Methods that ask for features of several batches together."""
STEPS = 20
SMALL = {"head_width": 8, "steps": STEPS, "optimizer": "sgd", "lr": 1e-5}
"""Small steps, so that twenty of them do not magnify what roundings differ by."""
AS_THEY_ARE = Precision("fp32", torch.device("cpu"))
"""Of the tensors, without autocast."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def trained(recipe, random_batch, backend=None, dtype=torch.float64):
    """Losses of every step, the method's state after the last, and how often backbones were called with gradients."""
    torch.manual_seed(0)
    method = build_method(recipe, 3).to(dtype).train()
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):  # draws other numbers for another order of calls
            module.p = 0.0
    if recipe.method_class.name == "cac":
        method.config.start, method.config.threshold = 0.2, 0.0

    def cast(value):
        return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value

    calls = []
    for network in method.networks().values():
        network.backbone.register_forward_pre_hook(lambda *_: calls.append(1) if torch.is_grad_enabled() else None)
        if backend:
            network.compile(backend=backend)
    step = Step(recipe, method, AS_THEY_ARE)
    losses = []
    for k in range(STEPS):
        torch.manual_seed(k)
        losses.append(step(pytree.tree_map(cast, random_batch(method.views.unlabeled, k)), k)["loss"])
    return torch.stack(losses), method.state_dict(), len(calls)


def agree(one, other) -> None:
    tolerance = TOLERANCE[next(value.dtype for value in one[1].values() if value.is_floating_point())]
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=0)
    for name, value in one[1].items():
        if value.is_floating_point():
            distance = (value - other[1][name]).norm() / value.norm().clamp(min=1e-12)
            assert distance < tolerance, name
        else:
            assert torch.equal(value, other[1][name]), name


@pytest.fixture
def recipe_of(tiny):
    return lambda name, **changes: tiny(name, **SMALL, **changes)


@pytest.fixture(scope="module")
def plain_steps():
    """One result for each method, which the tests share."""
    return {}


@pytest.fixture
def plain(plain_steps, recipe_of, random_batch):
    def of(name):
        if name not in plain_steps:
            plain_steps[name] = trained(recipe_of(name), random_batch)
        return plain_steps[name]

    return of


@pytest.mark.parametrize("name", GROUPING)
def test_batches_in_one_call_are_batches_in_calls_of_their_own(plain, recipe_of, random_batch, name):
    separate, together = plain(name), trained(recipe_of(name, grouped=True), random_batch)
    agree(separate, together)
    assert together[2] < separate[2]


@pytest.mark.parametrize("name", ["cac", "cps", "fixmatch"])
def test_compiled_networks_make_the_same_steps(plain, recipe_of, random_batch, name):
    graphs, generate = [], torch._dynamo.lookup_backend("aot_eager")

    def backend(graph, inputs):
        graphs.append(graph)
        return generate(graph, inputs)

    agree(plain(name), trained(recipe_of(name), random_batch, backend))
    assert len(graphs) >= 3  # backbone, pyramid, decoder


@pytest.mark.parametrize("name", ["cac", "cps"])
def test_a_decoder_that_convolves_before_it_upsamples_makes_the_same_steps(
    plain, recipe_of, random_batch, name, monkeypatch
):
    """In float64, which the definition serves unless the operator is told otherwise."""
    calls = []
    told = SimpleNamespace(provider_of=lambda *_: calls.append(1) or "torch")
    monkeypatch.setitem(inspect.unwrap(upsample_conv2d).__globals__, "_dispatch", told)
    agree(plain(name), trained(recipe_of(name), random_batch))
    assert len(calls) >= STEPS


@pytest.mark.parametrize("name", ["cac", "cps"])
def test_that_decoder_makes_them_in_single_precision(recipe_of, random_batch, name):
    """In float32, as the definition serves float64."""
    before = trained(recipe_of(name), random_batch, dtype=torch.float32)
    with refusing(["upsample_conv2d"]):
        after = trained(recipe_of(name), random_batch, dtype=torch.float32)
    agree(before, after)
    assert not torch.equal(before[0], after[0])  # so it is not the definition that is called
