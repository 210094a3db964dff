"""A program: trains a recipe, alone or as one of the processes of torchrun, of which one may get into trouble.

python together.py FILE of {"recipe": …, "trouble": null or its name, "step": before which, or before the first one
after it, "ranks": of which processes, for each try of torchrun}
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from few import ENCODER
from semiseg.engine.commands.main import main
from semiseg.engine.models import ENCODERS
from semiseg.engine.processes import rank
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.step import Step


def raises() -> None:
    raise ArithmeticError("seven is not a number")


TROUBLES = {
    "raises": raises,
    "is killed": lambda: threading.Timer(random.uniform(0, 0.1), os.kill, (os.getpid(), signal.SIGKILL)).start(),
    "hangs": lambda: time.sleep(600),
    "is stopped": lambda: signal.raise_signal(signal.SIGTERM),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    ENCODERS["few"] = ENCODER
    task = json.loads(Path(sys.argv[1]).read_text())
    tries = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    troubled = {rank for ranks in task["ranks"][tries : tries + 1] for rank in ranks}
    make = Step.__call__

    def step(self, batch, number):
        if task["trouble"] and number >= task["step"] and rank() in troubled:
            troubled.clear()
            print(f"trouble at {time.time()}", file=sys.stderr, flush=True)
            TROUBLES[task["trouble"]]()
        return make(self, batch, number)

    Step.__call__ = step
    sys.argv = ["together.py"]
    recipe = Recipe.from_dict(task["recipe"])
    main(lambda: recipe)
