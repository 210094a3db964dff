"""What a step is said to cost, against what it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from semiseg.engine.device import Precision
from semiseg.engine.evaluation.memory import GROUPS, group_size, groups_ahead
from semiseg.engine.evaluation.protocols import confusion
from semiseg.engine.methods import METHODS
from semiseg.engine.models import ENCODERS, evaluating
from semiseg.engine.protocol import Evaluation
from semiseg.engine.training.build import build_method
from semiseg.engine.training.forecast import SHAPES, Costs, example, fit_to_memory, forecast, share_of
from semiseg.engine.training.step import Step
from semiseg.kernels import depthwise_conv2d
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.lane import leaves, mapped
from semiseg.pipelines.loader import AHEAD

FP32, BF16 = (Precision(name, torch.device("cpu")) for name in ("fp32", "bf16"))

MEASURE = """
import ctypes, gc, json
from pathlib import Path
import torch
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.device import Precision
from semiseg.engine.training.build import build_method
from semiseg.engine.training.forecast import example, forecast
from semiseg.engine.training.step import Step

def status(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])

torch.set_num_threads(1)
changes = {"backbone": "resnet18", "crop": 128, "batch": 6, "weights": "none"}
recipe = load_recipe("supervised_voc").replace(**changes)
precision = Precision("fp32", torch.device("cpu"))
told = forecast(recipe, 21, precision)
batch = example(recipe)
small = load_recipe("supervised_voc").replace(**changes | {"crop": 32, "batch": 2})
Step(small, build_method(small, 21).train(), precision)(example(small), 0)  # what libraries keep
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
method = build_method(recipe, 21).train()
step = Step(recipe, method, precision)
for k in range(2):
    step(batch, k)
print(json.dumps([told.memory, status("VmHWM") - before]))
"""


def test_the_weights_and_momenta_of_a_method_are_counted(tiny):
    recipe = tiny("cps")
    parameters = sum(p.numel() for p in build_method(recipe, 3).parameters())
    buffers = sum(b.numel() * b.element_size() for b in build_method(recipe, 3).buffers())
    assert forecast(recipe, 3, FP32).state == pytest.approx(8 * parameters + buffers, rel=0.01)


def test_products_are_counted_forward_and_twice_backward(tiny):
    """By hand: the classifier of the supervised method, whose input needs a gradient, on 8x8 positions of 2 images."""
    recipe = tiny("supervised")
    one, two = (forecast(recipe, classes, FP32).flops for classes in (3, 4))
    assert two - one == 3 * 2 * recipe.head_width * 2 * 8 * 8


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_told(tiny, name):
    recipe = tiny(name)
    told = forecast(recipe, 3, FP32)
    assert told.memory > told.state > 0
    assert "TFLOP" in str(told)
    step, batch = Step(recipe, build_method(recipe, 3).train(), FP32), example(recipe)
    with FlopCounterMode(display=False) as counter:
        step(batch, recipe.steps - 1)
    assert told.flops == counter.get_total_flops()


@pytest.mark.parametrize(("stride", "dilation", "positions"), [(2, 1, 8 * 8), (1, 2, 16 * 16)])
def test_gradients_of_convolutions_in_groups_take_what_their_values_do(stride, dilation, positions):
    x, weight = (torch.randn(*shape, requires_grad=True) for shape in ((2, 6, 16, 16), (6, 1, 5, 5)))
    with Costs() as costs:
        depthwise_conv2d(x, weight, stride=stride, padding=2 * dilation, dilation=dilation).sum().backward()
    assert costs.flops == 3 * 2 * 2 * 6 * positions * 25


def test_an_optimizer_of_gpus_is_told_as_torchs_is(tiny):
    recipe, gpu = tiny("supervised"), Precision("bf16", torch.device("cuda"))
    assert forecast(recipe.replace(optimizer="apex_fused_sgd", graph="off"), 3, gpu) == forecast(
        recipe.replace(graph="off"), 3, gpu
    )


def test_a_run_that_asks_for_a_graph_is_told_too(tiny):
    """Which a GPU has, where the run is, and nothing has here, where the forecast is made."""
    assert forecast(tiny("supervised", graph="on"), 3, FP32) == forecast(tiny("supervised"), 3, FP32)


def test_a_graph_keeps_what_its_steps_take_while_images_are_evaluated(tiny):
    on_gpu = Precision("fp32", torch.device("cuda"))
    recipe = tiny("supervised")
    without, captured = (forecast(recipe.replace(graph=value), 3, on_gpu) for value in ("off", "auto"))
    decoded = 4 * recipe.protocol().batch * recipe.crop**2 * GROUPS  # beside those that are evaluated, on the host
    assert replace(without, evaluation=without.evaluation + decoded) == forecast(recipe, 3, FP32)
    batch = sum(tensor.nbytes for tensor in leaves(example(recipe), torch.Tensor))
    memory = without.memory + batch  # which the graph reads
    kept = memory - without.state
    evaluation = without.evaluation + kept - (AHEAD + 1) * batch  # of which it keeps as many as wait
    assert captured == replace(without, memory=memory, evaluation=evaluation)
    size = recipe.crop, recipe.crop
    budget = (max(without.memory, without.evaluation) + captured.evaluation) / 2 / 2**30
    assert fit_to_memory(recipe.replace(memory_budget=budget, graph="off"), 3, on_gpu, size, None)
    with pytest.raises(UsageError, match=r"--memory-budget .*; pass .*--graph off$"):
        fit_to_memory(recipe.replace(memory_budget=budget), 3, on_gpu, size, None)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "supervised"])
def test_the_look_at_pseudo_labels_is_counted_beside_the_graph(tiny, name):
    """It sees all windows of a step at once, as an evaluation of images of their size need not."""
    recipe, on_gpu = tiny(name), Precision("fp32", torch.device("cuda"))
    told = forecast(recipe, 3, on_gpu, (8, 8))
    batch = example(recipe)
    with torch.random.fork_rng([]), FakeTensorMode(allow_non_fake_inputs=True) as mode, Costs() as costs:
        method = build_method(recipe, 3).train()
        method.begin()
        before = costs.most = costs.now
        with torch.no_grad():
            method.pseudo_labels(mapped(batch, torch.Tensor, mode.from_tensor))
    looked = costs.most - before
    assert looked > 0
    assert told.evaluation >= told.memory + looked


def test_maps_in_half_precision_take_less(tiny):
    told, low = (forecast(tiny("cac", crop=128, batch=4), 3, precision) for precision in (FP32, BF16))
    assert low.memory < told.memory
    assert low.flops == told.flops


def test_an_evaluation_of_a_larger_image_takes_more(tiny):
    """At least by one map of the stem, 64 channels at stride 2."""
    recipe = tiny("supervised", backbone="resnet18", evaluation=Evaluation())
    small, large = (forecast(recipe, 3, FP32, size).evaluation for size in ((64, 64), (256, 512)))
    assert large - small > 64 * (128 * 256 - 32 * 32) * 4


def test_a_backbone_that_reads_values_as_it_is_made_is_told(tiny, monkeypatch):
    """As models of timm do that draw a rate for every block."""
    row, seen = ENCODERS["few"], []

    def build(**forms):
        seen.append(torch.linspace(0, 1, 3, device="cpu")[1].item())
        return row.build(**forms)

    expected = forecast(tiny("cps"), 3, FP32)
    recipe = tiny("cps")
    monkeypatch.setitem(ENCODERS, "few", replace(row, build=build))
    told = forecast(recipe, 3, FP32)
    assert seen == [0.5, 0.5]
    assert (told.flops, told.state) == (expected.flops, expected.state)


def test_nothing_is_drawn_from_the_generator_of_the_run(tiny):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    forecast(tiny("cac"), 3, FP32)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_of_a_step_is_what_it_then_takes():
    """What is freed goes back to the system at once, or the peak would count it."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    told, taken = json.loads(done.stdout)
    assert told == pytest.approx(taken, rel=0.3)


BIG = {"backbone": "resnet18", "crop": 256, "batch": 8, "data": Path("anywhere")}


def test_what_blocks_compute_twice_takes_less_memory_and_more_arithmetic(tiny):
    plain, twice = (forecast(tiny("supervised", **BIG, recompute=value), 3, FP32) for value in ("off", "on"))
    assert twice.memory < 0.85 * plain.memory
    assert plain.flops < twice.flops < 1.34 * plain.flops
    assert twice.state == plain.state


def room_between(recipe) -> int:
    plain, twice = (forecast(recipe.replace(recompute=value), 3, FP32).memory for value in ("off", "on"))
    return (plain + twice) // 2


def test_blocks_are_computed_twice_where_a_step_does_not_fit(tiny):
    recipe = tiny("supervised", **BIG)
    room = room_between(recipe)
    chosen, told = fit_to_memory(recipe, 3, FP32, (64, 64), room)
    assert chosen.runtime.recompute == "on"
    assert told.memory <= room
    assert fit_to_memory(recipe, 3, FP32, (64, 64), 2 * room)[0].runtime.recompute == "auto"
    assert fit_to_memory(recipe, 3, FP32, (64, 64), None)[0].runtime.recompute == "auto"
    assert fit_to_memory(recipe.replace(recompute="off"), 3, FP32, (64, 64), room)[0].runtime.recompute == "off"


def test_what_does_not_fit_where_no_budget_is_said_is_told_and_goes_on(tiny):
    _, told = fit_to_memory(tiny("supervised", **BIG), 3, FP32, (64, 64), 1000)
    assert told.memory > 1000


def test_decoded_images_count_against_a_budget(tiny):
    recipe = tiny("supervised", evaluation=Evaluation(batch=1))
    memory = forecast(recipe, 3, FP32, (64, 64)).memory
    budget, kept = 1.5 * memory / 2**30, memory
    assert fit_to_memory(recipe.replace(memory_budget=budget), 3, FP32, (64, 64), None)
    assert fit_to_memory(recipe, 3, FP32, (64, 64), 2 * memory, kept)
    with pytest.raises(UsageError, match=rf"images {kept / 2**30:.1f} GiB; pass --backend host, which keeps no images"):
        fit_to_memory(recipe.replace(memory_budget=budget), 3, FP32, (64, 64), 2 * memory, kept)
    with pytest.raises(UsageError, match=r"lower --crop, or pass a smaller --backbone, with --backend host$"):
        fit_to_memory(recipe.replace(memory_budget=1e-4), 3, FP32, (64, 64), None, kept)


def test_a_budget_that_is_too_small_is_one_line_with_what_fits(tiny):
    recipe = tiny("supervised", **BIG)
    with_half = forecast(recipe.replace(batch=4, recompute="on"), 3, FP32).memory
    budget = 1.05 * with_half / 2**30
    with pytest.raises(UsageError, match=rf"--memory-budget .*; --batch 4 takes about {with_half / 2**30:.1f} GiB$"):
        fit_to_memory(recipe.replace(memory_budget=budget), 3, FP32, (64, 64), None)
    with pytest.raises(UsageError, match="; --batch 12 takes about"):  # which counts the images of all processes
        fit_to_memory(recipe.replace(memory_budget=budget, batch=24), 3, FP32, (64, 64), None, processes=3)
    with pytest.raises(UsageError, match=r"leave out --recompute off$"):
        fit_to_memory(recipe.replace(memory_budget=budget, recompute="off"), 3, FP32, (64, 64), None)
    with pytest.raises(UsageError, match=r"lower --crop, or pass a smaller --backbone$"):
        fit_to_memory(recipe.replace(memory_budget=0.01), 3, FP32, (64, 64), None)


@pytest.mark.parametrize(
    ("evaluation", "size", "budget", "cure"),
    [
        (Evaluation(window=512), (2048, 2048), 1.0, "pass --evaluation.batch 1 or --evaluation.protocol slide"),
        (Evaluation(window=512), (2048, 2048), 0.8, "pass --evaluation.batch 1"),
        (Evaluation(window=512), (4096, 4096), 1.5, "pass --evaluation.protocol slide"),
        (Evaluation(window=512), (2048, 2048), 0.5, "cut large validation images and their masks into tiles"),
    ],
)
def test_what_is_proposed_for_evaluations_beyond_a_budget_fits(tiny, evaluation, size, budget, cure):
    recipe = tiny("supervised", backbone="resnet18", head_width=64, evaluation=evaluation, memory_budget=budget)
    with pytest.raises(UsageError) as error:
        fit_to_memory(recipe, 3, FP32, size, None)
    assert str(error.value).endswith(f"; {cure}")
    for change in {"batch": 1}, {"protocol": "slide"}:
        changed = recipe.replace(evaluation=replace(evaluation, **change))
        if f"--evaluation.{next(iter(change))}" in cure:
            fit_to_memory(changed, 3, FP32, size, None)
        else:
            with pytest.raises(UsageError):
                fit_to_memory(changed, 3, FP32, size, None)


@pytest.mark.parametrize("batch", [2, 40])
def test_windows_that_are_not_seen_are_counted_as_those_that_are(tiny, batch):
    """Of which the network of a forecast sees one batch."""
    recipe = tiny("supervised", evaluation=Evaluation(protocol="cps-slide", window=64, batch=batch))
    told = forecast(recipe, 3, FP32, (320, 448)).evaluation
    method = build_method(recipe, 3).train()
    with Costs() as costs, torch.inference_mode():
        network = method.predictor()
        with evaluating(network):
            target = torch.zeros(1, 320, 448, dtype=torch.uint8)
            confusion(network, torch.zeros(1, 3, 320, 448), target, 3, recipe.protocol())
    group, pixels = group_size(batch, 320 * 448), 320 * 448
    waiting = (AHEAD + 2) * sum(tensor.nbytes for tensor in leaves(example(recipe), torch.Tensor))
    others = 13 * pixels * (group - 1) + 4 * pixels * group * groups_ahead(pixels * group)
    state = forecast(recipe, 3, FP32).state
    assert told == pytest.approx(costs.most + others + waiting + state, rel=0.02)


@pytest.mark.parametrize("method", ["supervised", "unimatch"])
def test_micro_batches_take_the_arithmetic_of_the_batch_and_less_memory(tiny, method):
    recipe = tiny(method, **BIG | {"batch": 8})
    whole, halves, quarters = (forecast(recipe.replace(accumulate=n), 3, FP32) for n in (1, 2, 4))
    assert whole.flops == halves.flops == quarters.flops
    assert whole.state == quarters.state
    kept = 1.5 * whole.state  # weights, momenta and gradients stay from one micro-batch to the next
    maps = [one.memory - kept for one in (whole, halves, quarters)]
    assert maps[2] < 0.65 * maps[1] < 0.65 * 0.65 * maps[0]


def test_micro_batches_are_proposed_where_a_budget_is_too_small(tiny):
    recipe = tiny("supervised", **BIG | {"batch": 8})
    recomputed = recipe.replace(recompute="on")
    smaller = forecast(recomputed.replace(batch=4), 3, FP32).memory
    split = forecast(recomputed.replace(accumulate=2), 3, FP32).memory
    said = rf"--batch 4 takes about {smaller / 2**30:.1f} GiB or --accumulate 2 takes about {split / 2**30:.1f} GiB$"
    with pytest.raises(UsageError, match=said):
        fit_to_memory(recipe.replace(memory_budget=1.02 * split / 2**30), 3, FP32, (64, 64), None)


def test_what_several_processes_cannot_share_is_neither_forecast_nor_proposed(tiny):
    recipe = tiny("supervised", **BIG | {"batch": 20, "accumulate": 4})
    said = "^--batch: 20 images cannot be shared by 4 micro-batches of 2 processes each; use 16 or 24$"
    with pytest.raises(UsageError, match=said):
        fit_to_memory(recipe, 3, FP32, (64, 64), None, processes=2)
    parts = recipe.replace(batch=16, accumulate=2, emulate_processes=4, recompute="on")
    budget = 0.95 * forecast(share_of(parts, 2), 3, FP32).memory / 2**30
    with pytest.raises(UsageError, match=r"; --batch 8 takes about \d\.\d GiB$"):  # and not --accumulate 4
        fit_to_memory(parts.replace(memory_budget=budget), 3, FP32, (64, 64), None, processes=2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("maps", "channels"), [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)])
def test_what_comes_of_a_normalisation_is_what_torch_makes_of_it(maps, channels, training):
    x = torch.randn(2, 3, 5, 7, dtype=maps)
    weight, bias, mean, variance = (torch.rand(3, dtype=channels) for _ in range(4))
    forward = torch.ops.aten.native_batch_norm.default
    arguments = x, weight, bias, mean, variance, training, 0.1, 1e-5
    backward = torch.ops.aten.native_batch_norm_backward.default
    upstream = x, x, weight, mean, variance, mean, variance, training, 1e-5, [True, True, True]
    for function, given in ((forward, arguments), (backward, upstream)):
        said, made = SHAPES[function](*given), function(*given)
        assert [(one.shape, one.dtype) for one in said] == [(one.shape, one.dtype) for one in made]
