"""A program: trains a recipe, alone or as one of the processes of torchrun, of which one may get into trouble.

python together.py FILE of {"recipe": …, "trouble": null or its name, "step": before which, "rank": of which process}
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from shares import ENCODER

from semiseg.engine.commands.main import main
from semiseg.engine.models import ENCODERS
from semiseg.engine.processes import rank
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.step import Step


def raises() -> None:
    raise ArithmeticError("seven is not a number")


TROUBLES = {
    "raises": raises,
    "exits": lambda: os._exit(3),
    "hangs": lambda: time.sleep(600),
    "is stopped": lambda: signal.raise_signal(signal.SIGTERM),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    ENCODERS["few"] = ENCODER
    task = json.loads(Path(sys.argv[1]).read_text())
    make = Step.__call__

    def step(self, batch, number):
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if task["trouble"] and (number, rank()) == (task["step"], task["rank"]) and first:
            print(f"trouble at {time.time()}", file=sys.stderr, flush=True)
            TROUBLES[task["trouble"]]()
        return make(self, batch, number)

    Step.__call__ = step
    sys.argv = ["together.py"]
    recipe = Recipe.from_dict(task["recipe"])
    main(lambda: recipe)
