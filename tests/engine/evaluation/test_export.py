"""An exported program says what the network says, by itself; one that does not is never left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from semiseg.engine import export, load_network
from semiseg.engine.api import ExportError
from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.device import Precision
from semiseg.engine.evaluation import formats
from semiseg.engine.evaluation.export import Program, probes, traced
from semiseg.engine.evaluation.inference import segment
from semiseg.engine.models import build_network
from semiseg.engine.protocol import Evaluation
from semiseg.pipelines.errors import UsageError

CLASSES, PALETTE = ("ground", "car", "tree"), ((0, 0, 0), (255, 0, 0), (0, 255, 0))
CPU = Precision("fp32", torch.device("cpu"))
NETWORKS = [
    ("resnet18", "cac", (37, 50)),
    ("resnet18", "cps", (32, 32)),
    ("efficientnet_lite0", "unimatch", (40, 33)),
    ("dinov2_small", "dpt", (28, 45)),
]
ALONE = """
import sys
sys.modules["semiseg"] = None
import numpy, torch
texts = dict.fromkeys(["classes", "palette", "size", "protocol"], "")
program = torch.export.load("run/best.pt2", extra_files=texts).module()
numpy.save("labels.npy", program(torch.from_numpy(numpy.load("image.npy"))).numpy())
assert not any(name.startswith("semiseg.") for name in sys.modules)
import json
print(json.dumps(texts))
"""


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """`checkpoint("resnet18", "cac", longest=2)`: the folder of a run whose network tells classes apart."""

    def make(backbone="resnet18", architecture="cac", **evaluation):
        torch.manual_seed(0)
        crop = 28 if backbone.startswith("dino") else 32
        recipe = tiny("supervised", data=tmp_path, crop=crop, backbone=backbone, network=architecture)
        recipe = recipe.replace(evaluation=Evaluation(**evaluation))
        network = build_network(architecture, backbone, len(CLASSES), head_width=16).eval()
        with torch.no_grad():  # random logits hardly depend on the image
            logits = torch.cat([network(image) for image in torch.randn(4, 1, 3, 56, 56)])
            network.classifier.bias -= logits.mean((0, 2, 3))
        header = header_of(recipe, network, CLASSES, PALETTE)
        # Another normalisation than the encoder's, which is what a network is used with.
        header = replace(header, mean=(0.3, 0.4, 0.6), std=(0.2, 0.25, 0.3))
        (tmp_path / "run/checkpoints").mkdir(parents=True)
        save_network(tmp_path / "run/checkpoints/best.safetensors", network.state_dict(), header, recipe)
        return tmp_path / "run"

    return make


def picture(size):
    return np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)


def segmented(run, image, **settings):
    loaded = load_network(run)
    return segment(loaded.network, image, replace(loaded.header.evaluation, **settings), CPU)


@pytest.mark.parametrize(("backbone", "architecture", "size"), NETWORKS)
def test_torch_alone_gives_the_labels_of_segment(checkpoint, tmp_path, backbone, architecture, size):
    run = checkpoint(backbone, architecture)
    made = export(run, size=size)
    assert (made.path, made.size, made.classes, made.protocol) == (run / "best.pt2", size, CLASSES, "whole")
    assert made.differing <= 0.001
    assert made.seen > 1
    image = picture(size)
    np.save(tmp_path / "image.npy", image[None])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    labels, wanted = np.load(tmp_path / "labels.npy"), segmented(run, image)
    assert (labels.shape, labels.dtype) == ((1, *size), np.uint8)
    assert len(np.unique(wanted)) > 1
    assert np.mean(labels[0] != wanted) <= 0.001
    texts = json.loads(done.stdout)
    assert texts.pop("protocol") == "whole"
    assert {name: json.loads(text) for name, text in texts.items()} == {
        "classes": [*CLASSES],
        "palette": [list(colour) for colour in PALETTE],
        "size": [*size],
    }


def test_only_functions_of_torch_are_in_the_graph(checkpoint):
    loaded = load_network(checkpoint())
    graph = traced(loaded.network, loaded.header.evaluation, (32, 32)).graph
    named = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert all(name.startswith("aten.") or "getitem" in name for name in named), named


@pytest.mark.parametrize(
    "evaluation",
    [
        {"longest": 1.0},
        {"protocol": "slide", "window": 24},
        {"protocol": "unimatch2-slide", "window": 24},
        {"protocol": "dino-whole"},
        {"scale": 1.5, "flip": True, "scales": (0.5, 1.0)},
    ],
    ids=lambda evaluation: "-".join(map(str, evaluation.values())),
)
def test_images_are_put_before_the_network_as_predict_does(checkpoint, evaluation):
    run, image = checkpoint(**evaluation), picture((36, 50))
    run_file = formats.FORMATS["pt2"].open(export(run, size=(36, 50)).path)
    assert np.mean(run_file(image[None])[0] != segmented(run, image)) <= 0.001


def test_settings_change_what_is_seen(checkpoint):
    run = checkpoint(longest=1.0)
    assert export(run, size=(36, 50)).protocol == "whole, long side at most 32"
    assert export(run, size=(36, 50), scale=1.0).protocol == "whole"
    with pytest.raises(UsageError, match="--scale: must be more than 0"):
        export(run, scale=0)


def test_the_size_is_the_crop_unless_one_is_said(checkpoint):
    assert export(checkpoint()).size == (32, 32)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((15, 40), r"at least 16 pixels, not 15 40; use --size 16 40"),
        ((0, -3), r"use --size 16 16"),
        ((10**6, 10**6), r"more than .* GiB of memory.*use --size 32 32"),
    ],
)
def test_sizes_that_do_not_do_are_refused(checkpoint, size, said):
    run = checkpoint()
    with pytest.raises(UsageError, match=said):
        export(run, size=size)
    assert not list(run.glob("*.*"))


class Darker(Program):
    """Loses the brightness."""

    def forward(self, image):
        return super().forward(image // 4)


class Broken(Program):
    """Asks for a value in mid-graph."""

    def forward(self, image):
        return super().forward(image if image.sum() > 0 else image + 1)


@pytest.mark.parametrize(("program", "said"), [(Darker, "% of the pixels"), (Broken, "cannot be exported as pt2")])
def test_a_program_that_differs_is_not_left_behind(checkpoint, monkeypatch, program, said):
    run = checkpoint()
    before = export(run).path.read_bytes()
    monkeypatch.setattr(sys.modules[Program.__module__], "Program", program)
    with pytest.raises(ExportError, match=said) as raised:
        export(run)
    assert "\n" not in str(raised.value)
    assert [path.name for path in run.glob("*.*")] == ["best.pt2"]
    assert (run / "best.pt2").read_bytes() == before


def test_a_file_that_cannot_be_read_again_is_not_left_behind(checkpoint, monkeypatch):
    run = checkpoint()
    whole = formats.FORMATS["pt2"]
    cut = replace(whole, pack=lambda *arguments: whole.pack(*arguments)[:-100])
    monkeypatch.setitem(formats.FORMATS, "pt2", cut)
    with pytest.raises(ExportError, match="what was exported as pt2 cannot be run"):
        export(run, run / "new.pt2")
    assert not list(run.glob("*.*"))


def test_a_new_export_takes_the_place_of_the_old_and_of_nothing_else(checkpoint, tmp_path):
    run, out = checkpoint(), tmp_path / "deep/er/net.pt2"
    for size in ((32, 32), (16, 24)):
        assert export(run, out, size=size).path == out
        assert formats.FORMATS["pt2"].open(out)(np.zeros((1, *size, 3), np.uint8)).shape == (1, *size)
    file = run / "checkpoints/best.safetensors"
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"best.safetensors does not end in .pt2; use .*best.pt2"):
        export(run, file)
    (tmp_path / "x.pt2").symlink_to(file)
    with pytest.raises(UsageError, match=r"x.pt2 is the checkpoint"):
        export(run, tmp_path / "x.pt2")
    (tmp_path / "y.pt2").mkdir()
    with pytest.raises(UsageError, match=r"y.pt2 is a folder"):
        export(run, tmp_path / "y.pt2")
    assert file.read_bytes() == before


def test_a_check_that_met_one_class_says_so(checkpoint, monkeypatch):
    run, notes = checkpoint(), []
    loaded = load_network(run)
    with torch.no_grad():
        loaded.network.classifier.bias[0] += 1e6
    monkeypatch.setattr(sys.modules[Program.__module__], "load_network", lambda *arguments: loaded)
    assert export(run, on_event=notes.append).seen == 1
    assert "one class alone" in notes[0].text


def test_probes_are_noise_and_gradients_of_several_brightness():
    images = probes((16, 24))
    assert {(image.shape, image.dtype) for image in images} == {((16, 24, 3), np.dtype(np.uint8))}
    assert len({round(image.mean(), 1) for image in images}) == len(images)
    assert max(image.max() for image in images) >= 254


@pytest.mark.parametrize(("backbone", "architecture", "size"), NETWORKS)
def test_onnxruntime_gives_the_labels_of_segment(checkpoint, backbone, architecture, size):
    for package in formats.FORMATS["onnx"].packages:
        pytest.importorskip(package, reason="needs pip install -e '.[onnx]'")
    import onnxruntime

    run, image = checkpoint(backbone, architecture), picture(size)
    path = export(run, size=size, format="onnx").path
    assert path == run / "best.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (labels,) = session.run(None, {"image": image[None]})
    assert (labels.shape, labels.dtype) == ((1, *size), np.uint8)
    assert np.mean(labels[0] != segmented(run, image)) <= 0.001
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["classes"]) == [*CLASSES]
    assert json.loads(texts["size"]) == [*size]


def test_onnx_without_its_packages_says_how_to_get_them(checkpoint, monkeypatch):
    monkeypatch.setattr(sys.modules[Program.__module__], "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--format onnx: needs onnx, onnxscript, onnxruntime; run pip install -e"):
        export(checkpoint(), format="onnx")
