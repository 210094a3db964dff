"""A program: one of several processes trains recipes, each with its share of the batches, in float64. A test runs the
same as one process.

python shares.py FOLDER trains those of FOLDER/recipes.json and leaves FOLDER/trained-RANK.pt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from few import ENCODER
from semiseg.engine.data import prepare_data
from semiseg.engine.device import Precision
from semiseg.engine.distributed import average
from semiseg.engine.models import ENCODERS
from semiseg.engine.processes import joined, rank, world_size
from semiseg.engine.recipe import Recipe
from semiseg.engine.training.build import build_method, open_loader
from semiseg.engine.training.step import Step
from semiseg.pipelines.lane import mapped

CPU = torch.device("cpu")


def trained(recipe: Recipe) -> dict[str, Tensor]:
    """Losses (steps that have them,) by their names, then all parameters and buffers, of a run whose networks have no
    dropout."""
    data = prepare_data(recipe)
    torch.manual_seed(recipe.seed)
    method = build_method(recipe, len(data.dataset.classes), world_size()).double().train()
    if method.class_weight is not None:
        method.weigh_classes(torch.tensor([*data.class_pct().values()]) / 100)
    for module in method.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    step = Step(recipe, method, Precision("fp32", CPU))
    steps = [step(doubled(batch), number) for number, batch in enumerate(open_loader(recipe, data, CPU))]
    names = steps[-1]  # some terms begin to count later
    losses = {name: average(torch.stack([one[name] for one in steps if name in one])) for name in names}
    return losses | method.state_dict()


def doubled(batch):
    """The batch in float64."""
    return mapped(batch, Tensor, lambda one: one.double() if one.is_floating_point() else one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ENCODERS["few"] = ENCODER
    folder = Path(sys.argv[1])
    recipes = json.loads((folder / "recipes.json").read_text())
    with joined(5):
        results = {name: trained(Recipe.from_dict(values)) for name, values in recipes.items()}
        torch.save(results, folder / f"trained-{rank()}.pt")
