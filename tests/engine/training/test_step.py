"""The step: schedule, groups, precision, compiling."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from semiseg.engine.device import Precision, repeatable
from semiseg.engine.hyperparameters import hyperparameters
from semiseg.engine.methods import METHODS
from semiseg.engine.models.grouping import batch_norms
from semiseg.engine.training.build import build_method, parameter_groups
from semiseg.engine.training.forecast import forecast
from semiseg.engine.training.step import Step
from semiseg.kernels import __all__ as OPERATORS
from semiseg.kernels.check import refusing
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.lane import mapped

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)


def three_losses(recipe, random_batch, precision: str = "fp32", compiled: bool = False) -> list[float]:
    torch.manual_seed(0)
    method = build_method(recipe, 3).to(memory_format=torch.channels_last).train()
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):  # random numbers differ between eager and compiled code
            module.p = 0.0
    if compiled:
        for network in method.networks().values():
            network.compile(backend="aot_eager")
    step = Step(recipe, method, Precision(precision, CPU))
    batches = [random_batch(method.views.unlabeled, seed) for seed in range(3)]
    return [float(step(batch, k)["loss"]) for k, batch in enumerate(batches)]


@pytest.mark.parametrize("name", METHODS)
def test_bf16_stays_close_to_fp32(tiny, random_batch, name):
    recipe = tiny(name, steps=30)
    if name == "mean_teacher":
        recipe.method.weight = 1.0  # not a hundred times the roundings
    plain, low = three_losses(recipe, random_batch), three_losses(recipe, random_batch, "bf16")
    assert low[0] == pytest.approx(plain[0], rel=0.01)
    assert low == pytest.approx(plain, rel=0.1)  # steps on noise carry roundings on


@pytest.mark.parametrize("name", METHODS)
def test_compiled_stays_close_to_plain(tiny, random_batch, name):
    """Traced forward and backward; test_trainer.py has a run with generated code."""
    recipe = tiny(name, steps=30)
    plain, fused = three_losses(recipe, random_batch), three_losses(recipe, random_batch, compiled=True)
    assert fused[0] == pytest.approx(plain[0], rel=1e-4)
    assert fused == pytest.approx(plain, rel=0.02)


KERNEL_STEPS = [(name, ohem) for name in METHODS for ohem in (0.0, 0.3) if ohem == 0 or name == "supervised"]


@pytest.mark.parametrize(("name", "ohem"), KERNEL_STEPS)
def test_a_step_on_the_kernels_is_the_step_on_their_definitions(tiny, random_batch, name, ohem):
    """On the CPU's implementations, or with TRITON_INTERPRET=1 on the Triton kernels themselves."""
    # The first step of Adam is the sign of the gradient, which roundings turn where it is 0.
    recipe = tiny(name, steps=10, optimizer="sgd", lr=0.01)
    recipe.method.ohem = ohem

    def losses_and_parameters():
        torch.manual_seed(0)
        method = build_method(recipe, 3).to(memory_format=torch.channels_last).train()
        if name == "cac":
            method.config.threshold, method.config.start = 0.0, 0.0
        before = [parameter.detach().clone() for parameter in method.parameters()]
        torch.manual_seed(1)  # the same dropout
        losses = Step(recipe, method, FP32)(random_batch(method.views.unlabeled), 0)
        changes = [parameter.detach() - start for parameter, start in zip(method.parameters(), before)]
        return {key: float(value) for key, value in losses.items()}, changes

    ours, our_changes = losses_and_parameters()
    with refusing(OPERATORS):
        plain, plain_changes = losses_and_parameters()
    assert any(not torch.equal(*pair) for pair in zip(our_changes, plain_changes))  # so kernels are what was called
    assert ours == pytest.approx(plain, rel=1e-5)
    for change, true in zip(our_changes, plain_changes):
        assert (change - true).norm() <= 1e-3 * true.norm() + 1e-7


@pytest.mark.parametrize("name", METHODS)
def test_no_step_needs_an_operation_whose_order_is_open(tiny, random_batch, name):
    recipe = tiny(name, steps=30, backbone="resnet18")  # with pooling and dilated convolutions
    plain = three_losses(recipe, random_batch)
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert three_losses(recipe, random_batch) == pytest.approx(plain, rel=1e-5)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", METHODS)
def test_two_runs_on_a_gpu_are_the_same_bits_where_that_is_asked_for(tiny, random_batch, name):
    device, recipe = torch.device("cuda"), tiny(name, steps=30, device="cuda", backbone="resnet18")

    def trained() -> list[torch.Tensor]:
        torch.manual_seed(0)
        method = build_method(recipe, 3).to(device, memory_format=torch.channels_last).train()
        step = Step(recipe, method, Precision("bf16", device))
        for number in range(8):
            batch = random_batch(method.views.unlabeled, number)
            step(mapped(batch, torch.Tensor, lambda tensor: tensor.to(device)), number)
        assert step.graph.captured
        return [parameter.detach() for parameter in method.parameters()]

    with repeatable(True):
        assert all(torch.equal(one, other) for one, other in zip(trained(), trained(), strict=True))


def test_learning_rate_falls_poly_to_zero(tiny, random_batch):
    recipe = tiny("supervised", steps=10)
    step = Step(recipe, build_method(recipe, 3).train(), FP32)
    assert step.lr(0) == recipe.lr
    assert step.lr(5) == pytest.approx(recipe.lr * 0.5**0.9)
    assert step.lr(10) == 0
    step(random_batch("none"), 5)
    backbone, head = (float(group["lr"]) for group in step.optimizer.param_groups)
    assert head == pytest.approx(step.lr(5))
    assert backbone == pytest.approx(step.lr(5) / 10)


def test_cac_groups_backbone_at_a_tenth_and_decay_on_everything(tiny):
    recipe = tiny("cac")
    groups = parameter_groups(recipe, build_method(recipe, 3))
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("network.backbone", pytest.approx(0.001), 1e-4),
        ("network.head", 0.01, 1e-4),
    ]


def test_a_step_that_overflows_leaves_momenta_of_zero(tiny, random_batch):
    """The gradient scaler skips it; the fused step would go on with whatever its memory held."""
    recipe = tiny("cac", steps=10)
    step = Step(recipe, build_method(recipe, 3).train(), Precision("fp16", CPU))
    before = [parameter.detach().clone() for parameter in step.method.parameters()]
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    step(random_batch("pair"), 0)
    assert step.scaler.get_scale() == 2.0**99
    assert step.skipped
    assert not step.overflows()
    momenta = [state["momentum_buffer"] for state in step.optimizer.state.values()]
    assert len(momenta) == len(before)
    assert not any(momentum.any() for momentum in momenta)
    assert all(torch.equal(parameter, old) for parameter, old in zip(step.method.parameters(), before))


def test_a_step_that_is_made_is_not_skipped_when_the_scale_grows(tiny, random_batch):
    step = Step(tiny("supervised", steps=10), build_method(tiny("supervised"), 3).train(), Precision("fp16", CPU))
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=1)
    step(random_batch("none"), 0)
    assert step.scaler.get_scale() == 4.0
    assert not step.skipped
    exact = Step(tiny("supervised", steps=10), build_method(tiny("supervised"), 3).train(), FP32)
    exact(random_batch("none"), 0)
    assert exact.skipped is None
    assert not exact.overflows()


def test_the_projector_that_starts_later_begins_at_rest(tiny, random_batch):
    recipe = tiny("cac", steps=10)
    step = Step(recipe, build_method(recipe, 3).train(), FP32)
    step.method.config.threshold, step.method.config.start = 0.0, 0.15
    projector = step.method.network.projector[2].weight
    before = projector.detach().clone()
    step(random_batch("pair"), 1)
    assert torch.equal(projector, before)
    losses = step(random_batch("pair"), 2)
    assert "contrastive" in losses
    expected = before - step.lr(2) * (projector.grad + recipe.weight_decay * before)
    torch.testing.assert_close(projector.detach(), expected)


def test_a_state_that_is_loaded_leaves_the_learning_rates_where_a_captured_step_reads_them(tiny, random_batch):
    recipe = tiny("supervised", steps=10)
    step, other = (Step(recipe, build_method(recipe, 3).train(), FP32) for _ in range(2))
    other(random_batch("none"), 3)
    rates = [group["lr"] for group in step.optimizer.param_groups]
    step.load_state_dict(other.state_dict())
    step(random_batch("none"), 4)
    assert all(group["lr"] is rate for group, rate in zip(step.optimizer.param_groups, rates))
    assert [float(rate) for rate in rates] == pytest.approx([0.1 * step.lr(4), step.lr(4)])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_goes_on_in_another_memory_format(tiny, random_batch, optimizer):
    """The fused step would add momenta to parameters in the order of memory, whichever that is."""
    recipe = tiny("supervised", steps=10, optimizer=optimizer, lr=0.01)

    def step_in(memory_format) -> Step:
        torch.manual_seed(0)
        method = build_method(recipe, 3).to(memory_format=memory_format).train()
        return Step(recipe, method, FP32)

    first, same, other = (step_in(f) for f in (torch.channels_last, torch.channels_last, torch.contiguous_format))
    for number in range(2):
        first(random_batch("none", number), number)
    for step in (same, other):
        step.load_state_dict(copy.deepcopy(first.state_dict()))
        step.method.load_state_dict(first.method.state_dict())
        before = [parameter.detach().clone() for parameter in step.method.parameters()]
        for parameter in step.method.parameters():
            parameter.grad = torch.zeros_like(parameter)
        step.optimizer.step()
        step.moved = [parameter.detach() - old for parameter, old in zip(step.method.parameters(), before)]
    for one, another in zip(same.moved, other.moved, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-7)


def test_a_state_of_other_parameters_is_refused_in_one_line(tiny):
    steps = [Step(tiny(name), build_method(tiny(name), 3), FP32) for name in ("cps", "supervised")]
    with pytest.raises(UsageError, match="--resume: the optimizer's state does not fit"):
        steps[0].load_state_dict(steps[1].state_dict())


def test_cps_groups_one_lr_and_decay_on_convolution_weights_alone(tiny):
    recipe = tiny("cps")
    method = build_method(recipe, 3)
    groups = parameter_groups(recipe, method)
    assert {g["lr"] for g in groups} == {0.0025}
    for group in groups:
        assert group["weight_decay"] == (4e-4 if group["name"].endswith("weights") else 0)
        assert all((p.ndim == 4) == group["name"].endswith("weights") for p in group["params"])
    grouped = [id(p) for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())


def test_hyperparameters_count_every_parameter(tiny):
    recipe = tiny("cutmix_cps")
    counted = sum(group["parameters"] for group in hyperparameters(recipe, 3)["groups"])
    assert counted == sum(p.numel() for p in build_method(recipe, 3).parameters())


def test_a_step_lowers_the_loss_on_its_own_batch(tiny, random_batch):
    torch.manual_seed(0)
    recipe = tiny("supervised", steps=100, network="cps", backbone="resnet18")
    step = Step(recipe, build_method(recipe, 3).train(), FP32)
    batch = random_batch("none")
    losses = [float(step(batch, k)["loss"]) for k in range(12)]
    assert losses[-1] < 0.9 * losses[0]


def test_apex_names_the_cure(tiny):
    recipe = tiny("supervised", optimizer="apex_fused_sgd")
    with pytest.raises(UsageError, match="apex_fused_sgd"):
        Step(recipe, build_method(recipe, 3), FP32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", [{}, {"batch": 4, "accumulate": 2, "clip": 1.0}])
@pytest.mark.parametrize("name", METHODS)
def test_no_host_sync_on_a_gpu(tiny, random_batch, name, changes):
    recipe = tiny(name, device="cuda", backbone="resnet18").replace(**changes)
    device = torch.device("cuda")
    method = build_method(recipe, 3).to(device, memory_format=torch.channels_last).train()
    step = Step(recipe, method, Precision("bf16", device))
    batch = mapped(random_batch(method.views.unlabeled), torch.Tensor, lambda tensor: tensor.to(device))
    batch = replace(batch, more=(batch,) * (recipe.accumulate - 1))
    step(batch, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(batch, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_adamw_decays_all_and_leaves_parameters_without_gradient_alone(tiny, random_batch):
    recipe = tiny("supervised", optimizer="adamw", lr=0.1, weight_decay=0.5, steps=10)
    method = build_method(recipe, 3).train()
    unused = torch.nn.Parameter(torch.ones(3))
    method.network.register_parameter("unused", unused)
    method.network.head_parameters = lambda: [*type(method.network).head_parameters(method.network), unused]
    bias = method.network.classifier.bias
    before = bias.detach().clone()
    step = Step(recipe, method, FP32)
    assert step.optimizer.defaults["fused"]
    step(random_batch("none"), 0)
    assert torch.equal(unused, torch.ones(3))
    # The first step of Adam goes lr against the sign of the gradient.
    torch.testing.assert_close(bias.detach(), before * (1 - 0.1 * 0.5) - 0.1 * bias.grad.sign(), rtol=1e-4, atol=1e-5)


def test_late_cosine_and_constant_schedules(tiny):
    recipe = tiny("supervised", steps=10)
    late = recipe.replace(schedule="poly_late")
    assert [late.lr_factor(k) for k in range(4)] == [1, *(recipe.lr_factor(k) for k in range(3))]
    assert {recipe.replace(schedule="constant").lr_factor(k) for k in range(10)} == {1.0}
    cosine = recipe.replace(schedule="cosine")
    assert [cosine.lr_factor(k) for k in (0, 5)] == pytest.approx([1, 0.5])
    assert cosine.lr_factor(2) + cosine.lr_factor(8) == pytest.approx(1)


def test_a_rate_that_warms_up_meets_the_schedule(tiny):
    recipe = tiny("supervised", steps=10)
    warm = recipe.replace(warm_up=4)
    assert [warm.lr_factor(k) for k in range(4)] == pytest.approx([(k + 1) / 4 * (1 - k / 10) ** 0.9 for k in range(4)])
    assert [warm.lr_factor(k) for k in range(4, 10)] == [recipe.lr_factor(k) for k in range(4, 10)]
    with pytest.raises(UsageError, match="--warm-up: must be at most the 10 steps, is 11"):
        recipe.replace(warm_up=11).check()
    for name in ("warm_up", "clip"):
        with pytest.raises(UsageError, match="must not be negative"):
            recipe.replace(**{name: -1}).check()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["supervised", "cps"])
def test_a_gradient_that_is_too_long_is_shortened_and_no_other(tiny, random_batch, name, precision):
    """Of all parameters together, and in half precision of what the gradient is and not of what it was scaled to."""
    recipe = tiny(name, steps=10, optimizer="sgd", lr=0.1).replace(momentum=0.0, weight_decay=0.0, backbone_lr=1.0)

    def moved(clip: float) -> torch.Tensor:
        torch.manual_seed(0)
        method = build_method(recipe.replace(clip=clip), 3).train()
        step = Step(recipe.replace(clip=clip), method, Precision(precision, CPU))
        step.scaler = torch.amp.GradScaler("cpu", init_scale=16.0, enabled=precision == "fp16")
        before = torch.nn.utils.parameters_to_vector(method.parameters()).detach()
        torch.manual_seed(1)
        step(random_batch(method.views.unlabeled), 0)
        return (torch.nn.utils.parameters_to_vector(method.parameters()).detach() - before) / -0.1

    gradient = moved(0.0)
    norm = float(gradient.norm())
    torch.testing.assert_close(moved(2 * norm), gradient)
    torch.testing.assert_close(moved(norm / 5), gradient / 5, rtol=1e-3, atol=1e-6)
    assert forecast(recipe.replace(clip=1.0), 3, FP32).memory > 0  # on tensors without values, which nothing may read


@pytest.mark.parametrize("name", ["supervised", "unimatch_v2"])
def test_a_frozen_backbone_stays_and_the_head_learns(tiny, random_batch, name):
    recipe = tiny(name, freeze_backbone=True, steps=10)
    torch.manual_seed(0)
    method = build_method(recipe, 3).train()
    groups = parameter_groups(recipe, method)
    assert [group["name"].split(".")[1] for group in groups] == ["head"]
    (network,) = method.networks().values()
    backbone, head = (
        [p.detach().clone() for p in part()] for part in (network.backbone_parameters, network.head_parameters)
    )
    Step(recipe, method, FP32)(random_batch(method.views.unlabeled), 0)
    assert all(torch.equal(p, was) for p, was in zip(network.backbone_parameters(), backbone, strict=True))
    assert any(not torch.equal(p, was) for p, was in zip(network.head_parameters(), head, strict=True))


@pytest.mark.parametrize("name", ["supervised", "cutmix_cps", "mean_teacher"])
def test_running_statistics_follow_each_batch_so_far(tiny, random_batch, name):
    """Those of all networks, a fifth as far from where they were, in the first call of the first layer."""
    moved = []
    for momentum in (None, 0.02):
        torch.manual_seed(0)
        method = build_method(tiny(name, bn_momentum=momentum), 3).train()
        norms = [next(batch_norms(network)) for network in method.networks().values()]
        assert {norm.momentum for norm in batch_norms(method)} == {momentum or 0.1}
        for network in method.networks().values():
            torch.manual_seed(1)
            network(random_batch(method.views.unlabeled).labeled.image)
        moved.append([norm.running_mean.clone() for norm in norms])
    for usual, slow in zip(*moved, strict=True):
        assert usual.abs().max() > 0
        torch.testing.assert_close(slow, usual / 5)


CALLS = {"cac": (3, 1), "cps": (2, 1), "cutmix_cps": (4, 2), "mean_teacher": (2, 1), "cutmix_seg": (2, 1)}
CALLS |= {"fixmatch": (2, 1), "unimatch": (2, 1), "unimatch_v2": (2, 1)}
"""Of a network in training mode a step, by methods: with batch statistics of each batch's own, and with joint ones."""


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_joint_statistics_are_those_of_all_that_a_network_learns_from(tiny, random_batch, name, grouped):
    seen = []
    for statistics in ("separate", "joint"):
        recipe = tiny(name, batch_statistics=statistics, grouped=grouped and statistics == "joint")
        if name == "unimatch_v2":  # whose own networks have no batch normalisation
            recipe = recipe.replace(network="cac", backbone="resnet18")
        method = build_method(recipe, 3).train()
        Step(recipe, method, FP32)(random_batch(method.views.unlabeled), recipe.steps - 1)  # all terms count
        networks = (network for part, network in method.networks().items() if part != "teacher")
        tracked = {int(norm.num_batches_tracked) for network in networks for norm in batch_norms(network)}
        assert statistics == "separate" or len(tracked) == 1
        seen.append(min(tracked))
    assert tuple(seen) == CALLS[name]


@pytest.mark.parametrize("momentum", [0.0, -0.1, 1.5])
def test_statistics_that_follow_nothing_are_refused(tiny, momentum):
    with pytest.raises(UsageError, match="--bn-momentum"):
        tiny("supervised", bn_momentum=momentum).check()


@pytest.mark.parametrize("changes", [{"betas": (0.9, 1.0)}, {"eps": 0.0}])
def test_settings_of_adamw_that_make_no_sense_are_refused(tiny, changes):
    with pytest.raises(UsageError, match=f"--{next(iter(changes))}"):
        tiny("supervised", optimizer="adamw", **changes).check()


def test_steps_of_adamw_are_those_of_its_betas_and_eps(tiny, random_batch):
    recipe = tiny("supervised", optimizer="adamw", lr=0.01, backbone_lr=1.0, steps=10, schedule="constant")
    recipe = recipe.replace(betas=(0.5, 0.6), eps=0.1, weight_decay=0.0)
    torch.manual_seed(0)
    method = build_method(recipe, 3).train()
    step, bias = Step(recipe, method, FP32), method.network.classifier.bias
    mean = square = torch.zeros_like(bias)
    for number in range(3):
        before = bias.detach().clone()
        step(random_batch("none", number), number)
        mean = 0.5 * mean + 0.5 * bias.grad
        square = 0.6 * square + 0.4 * bias.grad**2
        rise = mean / (1 - 0.5 ** (number + 1)) / ((square / (1 - 0.6 ** (number + 1))).sqrt() + 0.1)
        torch.testing.assert_close(bias.detach(), before - 0.01 * rise)


def test_the_scale_of_gradients_goes_on_where_it_was(tiny, random_batch):
    recipe = tiny("supervised", steps=10)
    first, other = (Step(recipe, build_method(recipe, 3).train(), Precision("fp16", CPU)) for _ in range(2))
    first(random_batch("none"), 0)
    first.scaler.update(64.0)
    other.load_state_dict(first.state_dict())
    assert other.scaler.get_scale() == 64.0
