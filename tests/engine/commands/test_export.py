"""`semiseg export`: one document, one line where it does not go, and no file then."""

from __future__ import annotations

import json

import pytest
import torch

from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.evaluation import export
from semiseg.engine.models import build_network
from semiseg.engine.protocol import Evaluation


@pytest.fixture
def checkpoint(tiny, tmp_path):
    recipe = tiny("supervised", data=tmp_path, evaluation=Evaluation())
    network = build_network("cac", "resnet18", 2, head_width=16)
    path = tmp_path / "net.safetensors"
    save_network(path, network.state_dict(), header_of(recipe, network, ("a", "b"), ((0, 0, 0), (9, 9, 9))), recipe)
    return path


def test_a_file_and_one_document(semiseg, checkpoint, tmp_path):
    code, text, err = semiseg("export", checkpoint, "--size", 16, 24, "--json")
    assert code == 0, err
    made = json.loads(text)
    assert made.pop("seen") in (1, 2)
    assert made.pop("differing") <= 0.001
    assert made == {"out": str(tmp_path / "net.pt2"), "size": [16, 24], "classes": ["a", "b"], "protocol": "whole"}
    assert "(1, 16, 24, 3) uint8 RGB -> (1, 16, 24) uint8, whole" in err
    assert "% of the pixels differ from predict" in err
    program = torch.export.load(tmp_path / "net.pt2").module()
    assert program(torch.zeros(1, 16, 24, 3, dtype=torch.uint8)).shape == (1, 16, 24)


def test_a_network_that_differs_is_one_line_and_exit_code_1(semiseg, checkpoint, tmp_path, monkeypatch):
    class Inverted(export.Program):
        def forward(self, image):
            return 1 - super().forward(image)

    monkeypatch.setattr(export, "Program", Inverted)
    code, _, err = semiseg("export", checkpoint)
    assert (code, err.count("\n")) == (1, 1)
    assert "gives 100 % of the pixels of the check to another class" in err
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--size", "8", "40"), "use --size 16 40"),
        (("--out", "net.onnx"), "net.onnx does not end in .pt2; use net.pt2"),
        (("--scale", "-1"), "--scale: must be more than 0"),
        (
            ("--protocol", "slide", "--window", "1000000", "--size", "64", "64"),
            "pass a smaller --window, or use a smaller --size, and cut images into tiles",
        ),
    ],
)
def test_what_can_be_mended_is_one_line(refused, checkpoint, flags, said):
    assert said in refused("export", checkpoint, *flags)


def test_a_checkpoint_that_is_not_there(refused, tmp_path):
    assert "neither a checkpoint nor the folder of a run" in refused("export", tmp_path / "none")
