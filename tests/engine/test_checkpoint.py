"""Checkpoints: what travels inside, damage, and files that are something else."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from semiseg.engine.checkpoint import find, load_network, save_network
from semiseg.engine.models import build_network
from semiseg.engine.training.state import load_state, save_state
from semiseg.pipelines.errors import UsageError

CLASSES, PALETTE = ("ground", "car", "tree"), ((0, 0, 0), (255, 0, 0), (0, 255, 0))


@pytest.fixture
def saved(tiny, tmp_path):
    recipe = tiny("cac", data=tmp_path)
    network = build_network("cac", "resnet18", 3, head_width=16, projector=True)
    path = tmp_path / "best.safetensors"
    save_network(path, network, recipe, CLASSES, PALETTE, step=7, miou=0.25)
    return path, network, recipe


def test_a_checkpoint_holds_network_recipe_classes_and_palette(saved):
    path, network, recipe = saved
    loaded = load_network(path)
    assert (loaded.recipe, loaded.classes, loaded.palette) == (recipe, CLASSES, PALETTE)
    assert (loaded.step, loaded.miou) == (7, 0.25)
    assert not loaded.network.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], tensor)


def test_a_damaged_file_is_refused(saved):
    path, *_ = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="damaged"):
        load_network(path)


def test_another_programs_file_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="not a checkpoint of semiseg"):
        load_network(tmp_path / "other.safetensors")


def test_a_run_means_its_best_checkpoint(saved, tmp_path):
    path, *_ = saved
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    path.rename(folder / "last.safetensors")
    assert find(tmp_path / "run").name == "last.safetensors"
    (folder / "last.safetensors").rename(folder / "best.safetensors")
    assert find(tmp_path / "run").name == "best.safetensors"
    with pytest.raises(UsageError, match="neither a checkpoint"):
        find(tmp_path / "nothing")


def test_state_survives_and_damage_is_named(tmp_path):
    save_state(tmp_path / "state.pt", {"steps_done": 3, "rng": torch.get_rng_state()})
    assert load_state(tmp_path / "state.pt")["steps_done"] == 3
    (tmp_path / "state.pt").write_bytes(b"PK nothing")
    with pytest.raises(UsageError, match="damaged"):
        load_state(tmp_path / "state.pt")
    with pytest.raises(UsageError, match="does not exist"):
        load_state(tmp_path / "none.pt")
