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
from PIL import Image

from semiseg.engine import export, load_network
from semiseg.engine.api import ExportError
from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.device import Precision
from semiseg.engine.evaluation import export as exporting
from semiseg.engine.evaluation import formats
from semiseg.engine.evaluation.export import Program, probes, traced
from semiseg.engine.evaluation.inference import segment
from semiseg.engine.evaluation.protocols import full_logits
from semiseg.engine.evaluation.validation import normalised
from semiseg.engine.models import build_network
from semiseg.engine.protocol import Evaluation
from semiseg.pipelines.errors import UsageError

CLASSES, PALETTE = ("ground", "car", "tree"), ((0, 0, 0), (255, 0, 0), (0, 255, 0))
CPU = Precision("fp32", torch.device("cpu"))
NETWORKS = [
    ("resnet18", "unimatch", (37, 50)),
    ("efficientnet_lite0", "cps", (40, 32)),
    ("dinov2_small", "dpt", (28, 45)),
]
ALONE = """
import json, sys
sys.modules["semiseg"] = None
import numpy, torch
said = []
for name in sys.argv[1:]:
    said.append(dict.fromkeys(["classes", "palette", "values", "size", "protocol"], ""))
    program = torch.export.load(f"{name}.pt2", extra_files=said[-1]).module()
    numpy.save(f"{name}-labels.npy", program(torch.from_numpy(numpy.load(f"{name}.npy"))).numpy())
assert not any(name.startswith("semiseg.") for name in sys.modules)
print(json.dumps(said))
"""


@pytest.fixture
def checkpoint(tiny, tmp_path):
    """`checkpoint("resnet18", "cac", longest=2)`: the folder of a run whose network tells classes apart."""

    def make(backbone="resnet18", decoder="cac", **evaluation):
        torch.manual_seed(0)
        crop = 28 if backbone.startswith("dino") else 32
        recipe = tiny("supervised", data=tmp_path, crop=crop, backbone=backbone, network=decoder)
        recipe = recipe.replace(evaluation=Evaluation(**evaluation))
        network = build_network(decoder, backbone, len(CLASSES), head_width=16).eval()
        # Another normalisation than the encoder's, which is what a network is used with.
        network.mean, network.std = (0.3, 0.4, 0.6), (0.2, 0.25, 0.3)
        header = header_of(recipe, network, CLASSES, PALETTE)
        with torch.no_grad():  # random logits hardly depend on the image
            normal = normalised(network, picture((36, 50))[None], CPU.device)
            summed = len(header.evaluation.scales) * (1 + header.evaluation.flip)
            network.classifier.bias -= full_logits(network, normal, header.evaluation).mean((0, 2, 3)) / summed
        (tmp_path / "run/checkpoints").mkdir(parents=True, exist_ok=True)
        save_network(tmp_path / "run/checkpoints/best.safetensors", network.state_dict(), header, recipe)
        return tmp_path / "run"

    return make


def picture(size):
    """(H, W, 3) uint8: coarse spots."""
    spots = np.random.default_rng(7).integers(0, 256, (4, 5, 3), np.uint8)
    return np.array(Image.fromarray(spots).resize(size[::-1], Image.Resampling.BICUBIC))


def segmented(run, image, **settings):
    loaded = load_network(run)
    return segment(loaded.network, image, replace(loaded.header.evaluation, **settings), CPU)[0]


def test_torch_alone_gives_the_labels_of_segment(checkpoint, tmp_path):
    wanted = {}
    for backbone, decoder, size in NETWORKS:
        run, out, image = checkpoint(backbone, decoder), tmp_path / f"{backbone}-{decoder}.pt2", picture(size)
        made = export(run, out, size=size)
        assert (made.path, made.size, made.classes, made.protocol) == (out, size, CLASSES, "whole")
        assert made.differing <= 0.001
        assert made.seen > 1
        np.save(out.with_suffix(".npy"), image[None])
        wanted[out.stem] = segmented(run, image)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE, *wanted]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for (name, own), texts in zip(wanted.items(), json.loads(done.stdout), strict=True):
        labels = np.load(tmp_path / f"{name}-labels.npy")
        assert (labels.shape, labels.dtype) == ((1, *own.shape), np.uint8)
        assert len(np.unique(own)) > 1
        assert np.mean(labels[0] != own) <= 0.001
        assert texts.pop("protocol") == "whole"
        assert {name: json.loads(text) for name, text in texts.items()} == {
            "classes": [*CLASSES],
            "palette": [list(colour) for colour in PALETTE],
            "values": [],
            "size": [*own.shape],
        }


def test_a_graph_holds_functions_of_torch_and_no_folder_of_its_maker(checkpoint):
    loaded = load_network(checkpoint())
    program = traced(loaded.network, loaded.header.evaluation, (32, 32))
    named = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert all(name.startswith("aten.") or "getitem" in name for name in named), named
    assert b"evaluation/export.py" not in formats.FORMATS["pt2"].pack(program, {})


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
def test_a_program_puts_images_before_the_network_as_predict_does(checkpoint, evaluation):
    run, image = checkpoint(**evaluation), picture((36, 50))
    loaded = load_network(run)
    with torch.no_grad():
        (labels,) = Program(loaded.network, loaded.header.evaluation)(torch.from_numpy(image[None])).numpy()
    wanted = segmented(run, image)
    assert len(np.unique(wanted)) > 1
    assert np.mean(labels != wanted) <= 0.001


def test_windows_are_in_the_file_and_a_new_one_takes_its_place(checkpoint):
    run = checkpoint(protocol="slide", window=24)
    made = export(run, size=(36, 50))
    assert made.protocol == "slide 24"
    image = picture((36, 50))
    labels = formats.FORMATS["pt2"].open(made.path)(image[None])[0]
    assert np.mean(labels != segmented(run, image)) <= 0.001
    again = export(run, protocol="whole", size=(32, 32))
    assert (again.path, again.size, again.protocol) == (made.path, (32, 32), "whole")
    image = picture((32, 32))
    labels = formats.FORMATS["pt2"].open(made.path)(image[None])[0]
    assert np.mean(labels != segmented(run, image, name="whole")) <= 0.001


def test_settings_without_sense_are_refused(checkpoint):
    run = checkpoint()
    with pytest.raises(UsageError, match="--scale: must be more than 0"):
        export(run, scale=0)
    with pytest.raises(UsageError, match="--format: must be one of pt2, onnx, is h5"):
        export(run, format="h5")


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
    (run / "best.pt2").write_text("before")
    monkeypatch.setattr(exporting, "Program", program)
    with pytest.raises(ExportError, match=said) as raised:
        export(run)
    assert "\n" not in str(raised.value)
    assert [path.name for path in run.glob("*.*")] == ["best.pt2"]
    assert (run / "best.pt2").read_text() == "before"


def test_a_file_that_cannot_be_read_again_is_not_left_behind(checkpoint, monkeypatch):
    run = checkpoint()
    whole = formats.FORMATS["pt2"]
    cut = replace(whole, pack=lambda *arguments: whole.pack(*arguments)[:-100])
    monkeypatch.setitem(formats.FORMATS, "pt2", cut)
    with pytest.raises(ExportError, match="what was exported as pt2 cannot be run"):
        export(run, run / "new.pt2")
    assert not list(run.glob("*.*"))


def test_an_export_takes_the_place_of_no_other_file(checkpoint, tmp_path):
    run = checkpoint()
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
    monkeypatch.setattr(exporting, "load_network", lambda *arguments: loaded)
    assert export(run, on_event=notes.append).seen == 1
    assert "one class alone" in notes[0].text


def test_probes_are_noise_and_gradients_of_several_brightness():
    images = probes((16, 24))
    assert {(image.shape, image.dtype) for image in images} == {((16, 24, 3), np.dtype(np.uint8))}
    assert len({round(image.mean(), 1) for image in images}) == len(images)
    assert max(image.max() for image in images) >= 254


@pytest.mark.parametrize(("backbone", "decoder", "size"), NETWORKS)
def test_onnxruntime_gives_the_labels_of_segment(checkpoint, backbone, decoder, size):
    for package in formats.FORMATS["onnx"].packages:
        pytest.importorskip(package, reason="needs pip install -e '.[onnx]'")
    import onnxruntime

    run, image = checkpoint(backbone, decoder), picture(size)
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
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--format onnx: needs onnx, onnxscript, onnxruntime; run pip install -e"):
        export(checkpoint(), format="onnx")
