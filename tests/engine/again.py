"""A program: one of several processes trains recipes, one run after another.

python again.py FOLDER trains those of FOLDER/recipes.json and leaves FOLDER/ended-RANK.json: how each of them ended.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from few import ENCODER
from semiseg.engine import processes
from semiseg.engine.api import train
from semiseg.engine.models import ENCODERS
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.errors import UsageError


def ended(recipe: Recipe) -> str:
    try:
        return train(recipe).out.name
    except (UsageError, SystemExit) as error:
        return type(error).__name__


if __name__ == "__main__":
    torch.set_num_threads(1)
    ENCODERS["few"] = ENCODER
    processes.GRACE = 120.0  # a busy machine takes its time, and a process that is ended cannot train again
    folder = Path(sys.argv[1])
    recipes = json.loads((folder / "recipes.json").read_text())
    all_ended = [ended(Recipe.from_dict(values)) for values in recipes]
    (folder / f"ended-{os.environ['RANK']}.json").write_text(json.dumps(all_ended))
