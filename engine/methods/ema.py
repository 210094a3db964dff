"""The EMA teacher: a copy of a network that follows it by an exponential moving average and is never trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ...pipelines.errors import UsageError, fault_unless
from ..models import Network, evaluating
from ..models.grouping import batch_norms
from .method import Method, MethodConfig, MethodContext


@dataclass(kw_only=True, slots=True)
class TeacherConfig(MethodConfig):
    """The settings of a teacher."""

    ema: float = 0.99
    """How much of itself the teacher keeps at each step; the rest is the network's."""
    ema_rule: Literal["ramp", "constant"] = "ramp"
    """ramp: min(1 - 1 / (k + 1), ema) at step k = 0, 1, …, so that the teacher is the network after the first step;
    constant: ema from the first step on."""
    ema_buffers: Literal["averaged", "copied", "own"] = "averaged"
    """How batch statistics follow. averaged: as the parameters, and integers copied; copied: the network's; own: those
    of the teacher's own passes, whose batches are normalised by their own statistics then."""
    best: Literal["teacher", "student"] = "teacher"
    """Which of the two, both evaluated, is the one that is saved as the best and whose score decides it."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from MethodConfig.faults(self)
        yield from fault_unless(0 <= self.ema < 1, "--method.ema", "must be in [0, 1)", self.ema)


class Teacher(nn.Module):
    """Images (B, 3, S, S) to logits (B, C, h, w) without gradient, in evaluation mode but for batch normalisations
    whose buffers are its own.

    `network` is one like the student, and becomes a part of the method's state, but none of its `networks()`: no
    optimizer sees it. Raises UsageError for parameters of half precision, in which a small step is no step.
    """

    keep: Tensor

    def __init__(self, network: Network, config: TeacherConfig):
        super().__init__()
        halves = {parameter.dtype for parameter in network.parameters()} & {torch.float16, torch.bfloat16}
        if halves:
            raise UsageError(f"teacher: an average of {halves.pop()} stands still; keep the network in float32")
        self.config = config
        self.network = network.requires_grad_(False)
        self.register_buffer("keep", torch.zeros(()), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)
        if self.config.ema_buffers == "own":
            for norm in batch_norms(self):
                norm.train(mode)
        return self

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    @torch.no_grad()
    def become(self, student: Network) -> None:
        """Takes all of the student's state."""
        for own, its in zip(self.network.state_dict().values(), student.state_dict().values(), strict=True):
            own.copy_(its)

    def expect(self, step: int) -> None:
        """Sets how far `follow` goes after optimizer step `step`, counted from 0."""
        self.keep.fill_(self.kept(step))

    @torch.no_grad()
    def follow(self, student: Network) -> None:
        """One step towards the student. What a graph of it repeats reads `keep` anew."""
        averaged: list[tuple[Tensor, Tensor]] = list(zip(self.network.parameters(), student.parameters(), strict=True))
        copied: list[tuple[Tensor, Tensor]] = []
        for own, its in zip(self.network.buffers(), student.buffers(), strict=True):
            if self.config.ema_buffers == "averaged" and own.is_floating_point():
                averaged.append((own, its))
            elif self.config.ema_buffers != "own":
                copied.append((own, its))
        owns, theirs = (list(tensors) for tensors in zip(*averaged))
        # Measured from the student, which the teacher is exactly where it keeps nothing of itself.
        behind = torch._foreach_sub(owns, theirs)
        torch._foreach_mul_(behind, self.keep)
        torch._foreach_copy_(owns, torch._foreach_add(theirs, behind))
        if copied:
            owns, theirs = (list(tensors) for tensors in zip(*copied))
            torch._foreach_copy_(owns, theirs)

    def kept(self, step: int) -> float:
        """How much of itself is left after step `step`."""
        return min(1 - 1 / (step + 1), self.config.ema) if self.config.ema_rule == "ramp" else self.config.ema


class TeacherMethod(Method):
    """A method whose student has a teacher if it is `taught`; both have a projector where one is asked for."""

    config: TeacherConfig
    student: Network
    teacher: Teacher | None

    def __init__(self, config: TeacherConfig, context: MethodContext, *, taught: bool = True, projector: bool = False):
        super().__init__(config, context)
        self.student = context.network(projector=projector)
        self.teacher = Teacher(context.network(projector=projector), config) if taught else None

    def begin(self) -> None:
        if self.teacher:
            self.teacher.become(self.student)

    def before_step(self, step: int, progress: float) -> None:
        super().before_step(step, progress)
        if self.teacher:
            self.teacher.expect(step)

    def after_step(self) -> None:
        if self.teacher:
            self.teacher.follow(self.student)

    def students_labels(self, windows: Tensor) -> Tensor | None:
        """(N, S, S) uint8: the student's own, in evaluation mode, on windows (N, 3, S, S); None without a teacher."""
        if not self.teacher:
            return None
        with evaluating(self.student):
            return self.label(self.student(windows))

    def predictor(self) -> Network:
        return next(iter(self.predictors().values()))

    def predictors(self) -> dict[str, Network]:
        if not self.teacher:
            return {"student": self.student}
        both = {"teacher": self.teacher.network, "student": self.student}
        first = self.config.best
        return {first: both.pop(first)} | both
