"""Steps from a graph are the eager ones, or are not used. Without a GPU a function of the test plays the capture."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode

from semiseg.engine.device import Precision
from semiseg.engine.methods import METHODS
from semiseg.engine.training import graph as graph_module
from semiseg.engine.training import step as step_module
from semiseg.engine.training.build import build_method
from semiseg.engine.training.graph import WARM_UP, Graph, Refused, cuda_capture, why_not
from semiseg.engine.training.step import Step
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.lane import mapped

STEPS = 20
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def faithful(call):
    """Does nothing yet, as a capture, and repeats the call on the tensors that it reads."""
    losses = {"loss": torch.zeros(())}

    def replay() -> None:
        for name, value in call().items():
            losses[name].copy_(value)

    return replay, losses


class Toy:
    """A step that adds its batch, times a rate, to a weight."""

    def __init__(self, capture=faithful):
        self.weight, self.rate, self.calls = torch.zeros(2), torch.ones(()), 0
        self.graph = Graph(lambda: {"weights": [self.weight]}, torch.device("cpu"), capture)

    def make(self, batch: tuple[torch.Tensor]) -> dict[str, torch.Tensor]:
        self.calls += 1
        self.weight += self.rate * batch[0]
        return {"loss": self.weight.sum()}

    def step(self, value: float, phase: int = 0) -> float:
        return float(self.graph(self.make, (torch.full((2,), value),), phase)["loss"])


def test_replayed_steps_read_their_own_batch_and_what_changes() -> None:
    toy, total = Toy(), 0.0
    for number in range(STEPS):
        toy.rate.fill_(0.5**number)
        total += 2 * 0.5**number * number
        assert toy.step(number) == pytest.approx(total)
    assert toy.calls == STEPS + 2  # one was made three times
    assert toy.graph.captured


def test_each_phase_is_captured_on_its_own() -> None:
    toy = Toy()
    losses = [toy.step(1, phase=number >= STEPS) for number in range(2 * STEPS)]
    assert losses == [2 * (number + 1) for number in range(2 * STEPS)]
    assert toy.calls == 2 * (STEPS + 2)


def test_losses_of_earlier_steps_stay() -> None:
    toy = Toy()
    kept = [toy.graph(toy.make, (torch.ones(2),), 0)["loss"] for _ in range(STEPS)]
    assert [float(loss) for loss in kept] == [2 * (number + 1) for number in range(STEPS)]


def forgetful(call):
    """The batch of the capture is trained on for ever, and nothing else changes."""
    return lambda: None, {"loss": torch.tensor(8.0)}


def failing(call):
    raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be …")


def eager(call):
    """The work is done while it should be captured, and never again."""
    losses = call()
    return lambda: None, losses


def wrong_loss(call):
    replay, losses = faithful(call)

    def replay_wrong() -> None:
        replay()
        losses["loss"] += 1

    return replay_wrong, losses


@pytest.mark.parametrize(
    ("capture", "says"),
    [
        (forgetful, "changes the weights otherwise, by 1 of the change"),
        (eager, "changes the weights otherwise, by 1 of the change"),
        (failing, "operation not permitted when stream is capturing$"),
        (wrong_loss, "the replayed loss loss is 9, the eager one 8"),
    ],
)
def test_a_replay_that_is_another_step_is_refused_and_nothing_has_changed(capture, says) -> None:
    toy = Toy(capture)
    for _ in range(WARM_UP):
        toy.step(1)
    before = toy.weight.clone()
    with pytest.raises(Refused, match=says):
        toy.step(1)
    assert torch.equal(toy.weight, before)


@pytest.mark.parametrize(("capture", "accepted"), [(faithful, True), (forgetful, False)])
def test_a_replay_may_differ_as_eager_steps_do(capture, accepted) -> None:
    """A step whose sums come out anew each time, by a tenth of its change."""
    toy, noise = Toy(capture), iter([0.0, 0.0, 0.0, 0.05, -0.05, 0.0, *[0.0] * STEPS])
    step = toy.make
    toy.make = lambda batch: step((batch[0] * (1 + next(noise)),)) | {"loss": torch.tensor(8.0)}
    for _ in range(WARM_UP):
        toy.step(1)
    if accepted:
        toy.step(1)
        assert toy.graph.captured
    else:
        with pytest.raises(Refused):
            toy.step(1)


@pytest.mark.parametrize(("share", "refused"), [(0.4, False), (0.6, True), (1.0, True)])
def test_what_is_picked_may_differ_by_less_than_half_of_the_change(share, refused) -> None:
    """As rounding picks other elements, of which two eager steps may show nothing."""

    def otherwise(call):
        replay, losses = faithful(call)

        def replay_otherwise() -> None:
            before = toy.weight.clone()
            replay()
            toy.weight -= share * (toy.weight - before)

        return replay_otherwise, losses

    toy = Toy(otherwise)
    toy.graph.picked = frozenset({"weights"})
    for _ in range(WARM_UP):
        toy.step(1)
    with pytest.raises(Refused) if refused else nullcontext():
        toy.step(1)
    assert (toy.graph.captured is None) == refused


def test_large_tensors_are_compared_in_parts(monkeypatch) -> None:
    """In float64 a whole bank would take four times its memory, several times over."""
    monkeypatch.setattr(graph_module, "AT_ONCE", 100)
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            found = function(*args, **(kwargs or {}))
            if torch.is_tensor(found) and found.dtype == torch.float64:
                largest = max(largest, found.numel())
            return found

    toy = Toy()
    toy.weight = torch.zeros(175, 2)
    for _ in range(WARM_UP):
        toy.step(1)
    with Sizes():
        toy.step(1)
    assert toy.graph.captured
    assert largest == 100


def test_eager_steps_that_differ_widely_do_not_let_everything_pass() -> None:
    toy, noise = Toy(forgetful), iter([0.0, 0.0, 0.0, 0.5, -0.5])
    step = toy.make
    toy.make = lambda batch: step((batch[0] * (1 + next(noise)),)) | {"loss": torch.tensor(8.0)}
    for _ in range(WARM_UP):
        toy.step(1)
    with pytest.raises(Refused, match="changes the weights otherwise"):
        toy.step(1)


def test_what_is_not_known_to_be_steady_is_not_captured(tiny, random_batch) -> None:
    """A method of a user's, whose losses may depend on progress."""
    recipe = tiny("supervised", steps=30)
    _, step = losses_of(recipe, random_batch)
    step.graph = graph_of(step, failing)
    step.method.steady = False
    for number in range(WARM_UP + 3):
        step(random_batch("none"), number)
    assert not step.graph.captured


def test_every_small_buffer_is_compared(tiny, random_batch) -> None:
    _, step = losses_of(tiny("cac", steps=30), random_batch)
    groups = step.changed()
    assert groups["bank.position"] == [step.method.bank.position]
    held = [tensor for tensors in groups.values() for tensor in tensors]
    momenta = [state["momentum_buffer"] for state in step.optimizer.state.values()]
    for tensor in [*step.method.parameters(), *step.method.buffers(), *momenta]:
        assert sum(tensor is one for one in held) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_term_that_starts_late_is_captured_before_and_after(tiny, random_batch, optimizer) -> None:
    """Of the projector AdamW holds nothing before its first gradient."""
    steps = 2 * (WARM_UP + 1)
    recipe = tiny("cac", steps=steps, optimizer=optimizer, lr=1e-3)
    recipe.method.start = 0.5
    step = Step(recipe, build_method(recipe, 3).train(), Precision("fp32", torch.device("cpu")))
    step.graph, phases = graph_of(step, faithful_step), {}
    for number in range(steps):
        step(random_batch("pair", number), number)
        phases[step.graph.phase] = step.graph.captured is not None
    assert list(phases.values()) == [True, True]


@pytest.mark.parametrize("name", ["mean_teacher", "cutmix_seg", "unimatch_v2"])
def test_the_teacher_follows_within_the_graph(tiny, random_batch, name) -> None:
    """Once in each step, be it eager, proven or replayed."""
    recipe = tiny(name, steps=40)
    (plain, ours) = (losses_of(recipe, random_batch, capture) for capture in (None, faithful_step))
    assert ours[1].graph.captured
    assert ours[0] == plain[0]
    for own, other in zip(ours[1].method.teacher.parameters(), plain[1].method.teacher.parameters(), strict=True):
        assert torch.equal(own, other)


def test_a_teacher_that_a_replay_leaves_behind_is_noticed(tiny, random_batch) -> None:
    says: list[str] = []

    def without_teacher(call):
        replay, losses = faithful_step(call)

        def replay_without() -> None:
            kept = [parameter.clone() for parameter in step.method.teacher.parameters()]
            replay()
            torch._foreach_copy_(list(step.method.teacher.parameters()), kept)

        return replay_without, losses

    _, step = losses_of(tiny("mean_teacher", steps=40), random_batch, None, says)
    step.graph = graph_of(step, without_teacher)
    for number in range(WARM_UP + 1):
        step(random_batch("weak_strong", number), number)
    assert len(says) == 1
    assert "parameters that are not trained otherwise, by 1 of the change" in says[0]


def faithful_step(call):
    """As `faithful`, of a step, whose losses it knows once it has been made."""
    losses: dict[str, torch.Tensor] = {}
    return (lambda: losses.update(call())), losses


def test_a_batch_of_another_shape_is_no_batch_of_a_captured_step() -> None:
    toy = Toy()
    for _ in range(WARM_UP + 1):
        toy.step(1)
    with pytest.raises(ValueError, match="takes \\(2,\\), not \\(1,\\)"):
        toy.graph(toy.make, (torch.ones(1),), 0)


def test_a_step_that_is_done_with_holds_no_memory(tiny, random_batch, monkeypatch):
    """Without waiting for Python to look for circles, as a GPU's memory is wanted by the next run."""
    monkeypatch.setattr(step_module, "is_tried", lambda recipe, precision: True)
    method = build_method(tiny("supervised"), 3).train()
    step = Step(tiny("supervised"), method, Precision("fp32", torch.device("cpu")))
    for number in range(WARM_UP):
        step(random_batch("none", number), number)
    assert step.graph
    assert step.graph.state()
    parameter = weakref.ref(next(method.parameters()))
    gc.disable()
    try:
        del method, step
        assert parameter() is None
    finally:
        gc.enable()


def test_a_graph_is_captured_without_gradients_beside_its_own(tiny, random_batch, monkeypatch):
    held = []

    def capture(call, device):
        held.extend(parameter.grad for parameter in method.parameters())
        return faithful_step(call)

    monkeypatch.setattr(step_module, "is_tried", lambda recipe, precision: True)
    monkeypatch.setattr(step_module, "cuda_capture", capture)
    method = build_method(tiny("supervised"), 3).train()
    step = Step(tiny("supervised"), method, Precision("fp32", torch.device("cpu")))
    for number in range(WARM_UP + 2):
        step(random_batch("none", number), number)
    assert step.graph.captured
    assert held
    assert all(gradient is None for gradient in held)


def graph_of(step: Step, capture) -> Graph:
    return Graph(step.changed, torch.device("cpu"), capture)


def losses_of(recipe, random_batch, capture=None, says=None) -> tuple[list[float], Step]:
    torch.manual_seed(0)
    method = build_method(recipe, 3).train()
    step = Step(recipe, method, Precision("fp32", torch.device("cpu")), (says if says is not None else []).append)
    if capture:
        step.graph = graph_of(step, capture)
    batches = [random_batch(method.views.unlabeled, seed) for seed in range(WARM_UP + 3)]
    return [float(step(batch, number)["loss"]) for number, batch in enumerate(batches)], step


@pytest.mark.parametrize("name", ["cac", "unimatch_v2", "mean_teacher"])
def test_training_goes_on_as_without_a_graph_where_it_is_refused(tiny, random_batch, name) -> None:
    recipe, says = tiny(name, steps=30), []
    plain, _ = losses_of(recipe, random_batch)
    ours, step = losses_of(recipe, random_batch, failing, says)
    assert ours == plain
    assert step.graph is None
    assert says == [
        "graph: not used, steps are launched kernel by kernel (operation not permitted when stream is capturing)"
    ]


def test_who_asks_for_a_graph_is_told_why_there_is_none(tiny, random_batch) -> None:
    with pytest.raises(UsageError, match="--graph on: only a GPU has them"):
        losses_of(tiny("supervised", graph="on"), random_batch)
    recipe = tiny("supervised", steps=30)
    _, step = losses_of(recipe, random_batch)
    step.recipe, step.graph = recipe.replace(graph="on"), graph_of(step, failing)
    for number in range(WARM_UP):
        step(random_batch("none"), number)
    with pytest.raises(UsageError, match="--graph on: operation not permitted"):
        step(random_batch("none"), WARM_UP)


@pytest.mark.parametrize(("version", "ended"), [("2.12.1", True), ("2.13.0", False)])
def test_a_capture_that_fails_leaves_stream_generator_and_allocator_as_they_were(monkeypatch, version, ended) -> None:
    """torch before 2.13 leaves its allocator at the capture, where memory that two streams used never comes free."""
    device, done = torch.device("cuda", 1), []

    @contextmanager
    def capturing(graph, *, stream, pool, capture_error_mode):
        yield
        raise RuntimeError("operation failed due to a previous error during capture")

    generator = SimpleNamespace(clone_state=lambda: "spare", graphsafe_set_state=lambda state: done.append(state))
    for name, value in {
        "CUDAGraph": object,
        "graph_pool_handle": lambda: (0, 5),
        "default_generators": [None, generator],
        "current_stream": lambda device: "the run's",
        "Stream": lambda device: "the capture's",
        "device": lambda device: nullcontext(),
        "graph": capturing,
        "set_stream": done.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda *asked, name=name: done.append((name, *asked)), raising=False)
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with pytest.raises(RuntimeError, match="previous error"):
        cuda_capture(lambda: {}, device)
    freed = [("_cuda_endAllocateToPool", 1, (0, 5)), ("_cuda_releasePool", 1, (0, 5))]
    assert done == ["spare", "the run's", *(freed if ended else [])]


def test_half_precision_numbers_as_rates_and_several_processes_are_not_captured(monkeypatch) -> None:
    gpu = torch.device("cuda")
    settings = SimpleNamespace(optimizer="sgd")
    assert why_not(settings, Precision("bf16", gpu)) is None
    assert "fp16" in why_not(settings, Precision("fp16", gpu))
    assert "numbers" in why_not(SimpleNamespace(optimizer="apex_fused_sgd"), Precision("bf16", gpu))
    monkeypatch.setattr(graph_module, "is_distributed", lambda: True)
    assert "several processes" in why_not(settings, Precision("bf16", gpu))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_captured_is_eager_over_many_steps(tiny, random_batch, name, micro_batches) -> None:
    """float32; CAC enters its second phase on the way. Differences are sums in another order, carried on."""
    device = torch.device("cuda")

    def trained(graph: str) -> tuple[list[float], list[torch.Tensor], Step]:
        recipe = tiny(name, backbone="resnet18", steps=40, device="cuda", graph=graph, optimizer="sgd", lr=1e-3)
        recipe = recipe.replace(batch=2 * micro_batches, accumulate=micro_batches, clip=1.0 if micro_batches > 1 else 0)
        torch.manual_seed(0)
        torch.cuda.manual_seed(0)
        method = build_method(recipe, 3).to(device, memory_format=torch.channels_last).train()
        if name == "cac":
            method.config.start, method.config.threshold = 0.25, 0.0
        step = Step(recipe, method, Precision("fp32", device))
        losses = []
        for number in range(STEPS):
            seeds = range(number, number + STEPS * micro_batches, STEPS)
            first, *more = [random_batch(method.views.unlabeled, seed) for seed in seeds]
            batch = mapped(replace(first, more=tuple(more)), torch.Tensor, lambda tensor: tensor.to(device))
            losses.append(float(step(batch, number)["loss"]))
        return losses, [parameter.detach() for parameter in method.parameters()], step

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        (plain, start, _), (ours, end, step) = trained("off"), trained("on")
    finally:
        torch.use_deterministic_algorithms(False)
    assert step.graph.captured
    assert ours == pytest.approx(plain, rel=1e-3)
    for one, other in zip(start, end, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)


@pytest.mark.gpu
@needs_gpu
def test_a_step_that_waits_for_the_device_is_not_captured_and_goes_on(tiny, random_batch) -> None:
    device, says = torch.device("cuda"), []
    recipe = tiny("unimatch", steps=40, device="cuda")
    method = build_method(recipe, 3).to(device).train()
    losses = method.losses
    method.losses = lambda batch, progress: {k: v + 0 * v.item() for k, v in losses(batch, progress).items()}
    step = Step(recipe, method, Precision("bf16", device), says.append)
    for number in range(STEPS):
        batch = random_batch(method.views.unlabeled, number)
        batch = mapped(batch, torch.Tensor, lambda tensor: tensor.to(device))
        assert torch.isfinite(step(batch, number)["loss"])
    assert len(says) == 1
    assert says[0].startswith("graph: not used")
