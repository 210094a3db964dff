"""The baseline: labelled images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...pipelines.batch import Batch
from ..models import Network
from .method import Method, MethodConfig, Setting
from .programs import PROGRAMS


@dataclass(kw_only=True, slots=True)
class SupervisedConfig(MethodConfig):
    """The supervised baseline."""


class Supervised(Method):
    """loss = CE(f(x), y)"""

    name = "supervised"
    config_class = SupervisedConfig
    steady = True

    def __init__(self, config: SupervisedConfig, setting: Setting):
        super().__init__(config, setting)
        self.network = setting.network()

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
