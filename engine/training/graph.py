"""A step as one CUDA graph: launched at once, and not kernel by kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from ...pipelines.batch import Batch
from ...pipelines.lane import leaves, mapped
from ..device import Precision, random_state, set_random_state
from ..processes import is_distributed
from ..recipe import Recipe

ENDS_CAPTURES = TorchVersion("2.13")
"""From this version on torch tells its allocator by itself that a capture has failed (pytorch#180395, #190348)."""
WARM_UP = 3
"""Eager steps before a capture, in which kernels are compiled and chosen."""
TOLERANCE = 0.02
"""By how much a replayed step may differ from an eager one, as a share of what the step changes: sums in another order.
"""
SPREAD, MOST = 4, 0.5
"""The same, in multiples of the difference between two eager steps, where that is more: gradients in bfloat16 of sums
in random order were seen to differ by 2 %. But never more than a share of what the step changes."""

AT_ONCE = 2**24
"""Elements of a tensor that are compared at a time, in float64: beside a step there may be little room."""

Make = Callable[[Batch], dict[str, Tensor]]
Capture = Callable[[Callable[[], dict[str, Tensor]]], tuple[Callable[[], None], dict[str, Tensor]]]
"""From a call to what repeats its work on the device, and to the tensors that then hold the results."""


class Refused(Exception):
    """A step cannot be captured, or its replay is another step. The message says what was found."""


class Graph:
    """Makes steps, those of a phase from one graph.

    In each phase the first steps are eager, and the graph of the phase before is given up, with its memory. The next
    step is made from the same state twice eagerly and once replayed, and only if all come to the same are those that
    follow replayed.

    state: the tensors that a step changes, in groups by name, each of which is compared on its own. capture:
    `cuda_capture`, or what stands in for it. picked: groups in which rounding may put another element in a place.
    """

    def __init__(
        self,
        state: Callable[[], dict[str, list[Tensor]]],
        device: torch.device,
        capture: Capture,
        picked: frozenset[str] = frozenset(),
    ):
        self.state, self.device, self.capture, self.picked = state, device, capture, picked
        self.phase: Hashable = None
        self.made = 0
        """Steps of this phase."""
        self.captured: tuple[Batch, Callable[[], None], dict[str, Tensor]] | None = None
        """What a replay reads, what starts it, and what it writes."""

    def __call__(self, make: Make, batch: Batch, phase: Hashable) -> dict[str, Tensor]:
        """The losses of `make(batch)`, which reads what differs between two steps of a phase from the batch and from
        tensors that stay. Raises Refused where a replay does not prove itself; the state is then that before the step.
        """
        if phase != self.phase:
            self.phase, self.made, self.captured = phase, 0, None
        self.made += 1
        if self.made <= WARM_UP:
            return make(batch)
        if self.captured is None:
            return self._proven(make, batch)
        slots, replay, losses = self.captured
        for slot, tensor in zip(leaves(slots, Tensor), leaves(batch, Tensor), strict=True):
            if slot.shape != tensor.shape:
                raise ValueError(f"a captured step takes {tuple(slot.shape)}, not {tuple(tensor.shape)}")
            slot.copy_(tensor)
        replay()
        return {name: loss.clone() for name, loss in losses.items()}

    def _proven(self, make: Make, batch: Batch) -> dict[str, Tensor]:
        before = None
        try:
            before = self._snapshot()
            expected = make(batch)
            after = self._snapshot()
            self._restore(before)
            make(batch)
            spread = {name: _distance(tensors, after.tensors[name]) for name, tensors in self.state().items()}
            self._restore(before)
            slots = mapped(batch, Tensor, Tensor.clone)
            replay, losses = self.capture(lambda: make(slots))
            self._restore(before)  # nothing should have run; what has, must not pass for the replay's work
            replay()
            self._compare(losses, expected, before, after, spread)
        except RuntimeError as error:
            if before:
                self._restore(before)
            first: BaseException = error
            while first.__context__:  # which makes the end of the capture fail too
                first = first.__context__
            raise Refused(str(first).strip().partition("\n")[0]) from first
        self.captured = slots, replay, losses
        return {name: loss.clone() for name, loss in losses.items()}

    def _compare(
        self,
        losses: dict[str, Tensor],
        expected: dict[str, Tensor],
        before: Snapshot,
        after: Snapshot,
        spread: dict[str, float],
    ) -> None:
        """Raises RuntimeError unless what was replayed is close to what was expected."""
        for name, loss in losses.items():
            if not torch.allclose(loss, expected[name], rtol=TOLERANCE, equal_nan=True):
                values = f"{float(loss):.6g}, the eager one {float(expected[name]):.6g}"
                raise RuntimeError(f"the replayed loss {name} is {values}")
        for name, tensors in self.state().items():
            wrong = _distance(tensors, after.tensors[name])
            change = _distance(after.tensors[name], before.tensors[name])
            usual = max(TOLERANCE * change, SPREAD * spread[name])
            if not wrong <= (MOST * change if name in self.picked else min(usual, MOST * change)):
                share = wrong / change if change else math.inf
                raise RuntimeError(f"the replayed step changes the {name} otherwise, by {share:.2g} of the change")

    def _snapshot(self) -> Snapshot:
        state = self.state()
        tensors = {name: [tensor.detach().to("cpu", copy=True) for tensor in state[name]] for name in state}
        return Snapshot(tensors, random_state(self.device))

    @torch.no_grad()
    def _restore(self, snapshot: Snapshot) -> None:
        for name, tensors in self.state().items():
            for tensor, old in zip(tensors, snapshot.tensors[name], strict=True):
                tensor.copy_(old)
        set_random_state(snapshot.random, self.device)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one time: its tensors, in the host's memory, as a GPU's may have room for no more than the step; and
    that of the generators."""

    tensors: dict[str, list[Tensor]]
    random: dict[str, Tensor]


def _distance(these: list[Tensor], those: list[Tensor]) -> float:
    """The norm of the difference of all, in float64."""
    squares = [
        (part.double() - of_other.to(part.device).double()).square().sum()
        for one, other in zip(these, those, strict=True)
        for part, of_other in zip(*(each.detach().flatten().split(AT_ONCE) for each in (one, other)), strict=True)
    ]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def why_not(recipe: Recipe, precision: Precision) -> str | None:
    """What of a run keeps its steps from being captured, in words."""
    if precision.device.type != "cuda":
        return "only a GPU has them"
    if is_distributed():
        return "not with several processes yet, whose graphs would have to hold their exchanges"
    if precision.name == "fp16":
        return "not with --precision fp16, whose gradients are scaled by what the host reads"
    if recipe.optimizer == "apex_fused_sgd":
        return "not with --optimizer apex_fused_sgd, which takes learning rates as numbers"
    return None


def is_tried(recipe: Recipe, precision: Precision) -> bool:
    """Whether a run tries to capture its steps."""
    return recipe.runtime.graph != "off" and not why_not(recipe, precision)


def cuda_capture(
    call: Callable[[], dict[str, Tensor]], device: torch.device
) -> tuple[Callable[[], None], dict[str, Tensor]]:
    """What the call launches on a GPU, as a graph. Other threads may work on the device meanwhile."""
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    generator, current = torch.cuda.default_generators[device.index or 0], torch.cuda.current_stream(device)
    spare = generator.clone_state()
    try:
        # torch's own stream for captures is on the device of the first of them.
        stream = torch.cuda.Stream(device)
        mode: dict[str, Any] = {"stream": stream, "pool": pool, "capture_error_mode": "thread_local"}
        with torch.cuda.device(device), torch.cuda.graph(graph, **mode):
            results = call()
    except RuntimeError:
        generator.graphsafe_set_state(spare)  # the one in use goes on to wait for a replay
        torch.cuda.set_stream(current)  # a capture whose end fails leaves its own
        if torch.__version__ < ENDS_CAPTURES:
            _end_allocations(pool, device)
        raise
    return graph.replay, results


def _end_allocations(pool: tuple[int, int], device: torch.device) -> None:
    """Tells torch's allocator that a capture is over whose end failed. Until then it gives no memory back that another
    stream has used, and takes all it needs anew."""
    with suppress(RuntimeError):  # it knows already
        torch._C._cuda_endAllocateToPool(device.index or 0, pool)
        torch._C._cuda_releasePool(device.index or 0, pool)
