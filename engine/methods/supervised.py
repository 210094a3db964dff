"""The baseline: labelled images alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...pipelines.batch import Batch
from ...pipelines.errors import fault_unless
from ..models import Network
from .method import Method, MethodConfig, MethodContext
from .programs import PROGRAMS


@dataclass(kw_only=True, slots=True)
class SupervisedConfig(MethodConfig):
    """The supervised baseline."""

    def faults(self) -> Iterator[str]:
        """What makes no sense, a line each, naming the field."""
        yield from MethodConfig.faults(self)
        rule = "must be 0, as the supervised baseline has no terms of unlabelled images"
        yield from fault_unless(not self.ramp, "--method.ramp", rule, self.ramp)


class Supervised(Method):
    """loss = CE(f(x), y)"""

    name = "supervised"
    config_class = SupervisedConfig
    config: SupervisedConfig
    steady = True

    def __init__(self, config: SupervisedConfig, context: MethodContext):
        super().__init__(config, context)
        self.network = context.network()

    @staticmethod
    def switches(layout: str) -> dict[str, Any]:
        """CAC's program in its supervised mode, which replays nothing."""
        program = PROGRAMS["cac"]
        return {
            "evaluation.protocol": program.protocol_on(layout),
            "sampling.shared_draws": program.processes_on(layout),
            "emulate_processes": program.processes_on(layout),
            "schedule": "sawtooth",
        }

    def losses(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return self.summed({"supervised": self.supervised(self.network(batch.labeled.image), batch.labeled.target)})

    def predictor(self) -> Network:
        return self.network
