"""What tests of scores and of predictions share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.models import build_network
from semiseg.engine.places import with_absolute_paths
from semiseg.engine.recipe import Files

CLASSES, PALETTE = ("ground", "car"), ((0, 0, 0), (255, 0, 0))


@pytest.fixture
def checkpoint(tiny, tmp_path):
    recipe = tiny("supervised", data=tmp_path)
    network = build_network("cac", "resnet18", 2, head_width=16)
    path = tmp_path / "best.safetensors"
    save_network(path, network.state_dict(), header_of(recipe, network, CLASSES, PALETTE), recipe)
    return path


@pytest.fixture
def judged(tiny, tmp_path, own_cache):
    """`judged(**files)` is a checkpoint that was trained on tmp_path/a, found with these options, and calls all
    ground, which is all that masks of a show; b has the same names, and its masks show cars alone."""

    def make(bias=(1e6, 0.0), **files):
        for value, name in enumerate("ab"):
            for id in ("x", "y", "z"):
                for folder, picture in (
                    ("images", np.full((32, 40, 3), 40 * value, np.uint8)),
                    ("labels", np.full((32, 40), value, np.uint8)),
                ):
                    path = tmp_path / name / folder / f"{id}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture).save(path)
            (tmp_path / name / "classes.txt").write_text("ground\ncar\n")
            (tmp_path / name / "train.txt").write_text("x\n")
            (tmp_path / name / "one.txt").write_text("z\n")
            (tmp_path / name / "val.txt").write_text("y\nz\n")
        recipe = tiny("supervised", layout="folder", data=tmp_path / "a", files=Files(masks="labels", **files))
        network = build_network("cac", "resnet18", 2, head_width=16)
        with torch.no_grad():
            network.classifier.weight.zero_()
            network.classifier.bias.copy_(torch.tensor(bias))
        path = tmp_path / "best.safetensors"
        save_network(
            path, network.state_dict(), header_of(with_absolute_paths(recipe), network, CLASSES, PALETTE), recipe
        )
        return path

    return make
