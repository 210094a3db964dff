"""Checkpoints: what travels inside, damage, and files that are something else."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from semiseg.engine.checkpoint import (
    checkpoint_file,
    checksum,
    header_of,
    initialise,
    load_network,
    match_classes,
    save_network,
)
from semiseg.engine.evaluation.inference import evaluate
from semiseg.engine.evaluation.prediction import predict
from semiseg.engine.evaluation.validation import normalised
from semiseg.engine.models import ENCODERS, build_network
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.errors import UsageError

CLASSES, PALETTE = ("ground", "car", "tree"), ((0, 0, 0), (255, 0, 0), (0, 255, 0))


@pytest.fixture
def saved(tiny, tmp_path):
    recipe = tiny("cac", data=tmp_path)
    network = build_network("cac", "resnet18", 3, head_width=16, projector=True)
    path = tmp_path / "best.safetensors"
    header = header_of(recipe, network, CLASSES, PALETTE, step=7, miou=0.25)
    save_network(path, network.state_dict(), header, recipe)
    return path, network, recipe


def contents(path):
    """Metadata, without the checksum, and tensors."""
    with safe_open(path, "pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["sha256"]
    return metadata, state


def rewrite(path, metadata, state):
    """A file that says something else, undamaged."""
    save_file(state, path, metadata | {"sha256": checksum(state, metadata)})


def test_a_checkpoint_holds_the_network_and_what_its_use_needs(saved):
    path, network, recipe = saved
    loaded = load_network(path)
    header = loaded.header
    assert (header.network, header.backbone, header.head_width) == ("cac", "resnet18", 16)
    assert (header.classes, header.palette, header.step, header.miou) == (CLASSES, PALETTE, 7, 0.25)
    assert (header.mean, header.std) == (network.mean, network.std)
    assert header.evaluation == recipe.protocol()
    assert (header.layout, header.data, header.precision) == ("voc", str(recipe.runtime.data), "fp32")
    assert Recipe.from_dict(loaded.recipe) == recipe
    assert not loaded.network.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("network", "backbone", "crop", "multiple"),
    [("unimatch", "efficientnet_lite0", 33, 8), ("dpt", "dinov2_small", 28, 14)],
)
def test_every_encoder_s_colours_and_sides_travel_without_its_weights(
    tiny, tmp_path, monkeypatch, network, backbone, crop, multiple
):
    recipe = tiny("cps", data=tmp_path, network=network, backbone=backbone, crop=crop, weights="imagenet")
    built = build_network(network, backbone, 3, head_width=16)
    header = header_of(recipe, built, CLASSES, PALETTE)
    save_network(tmp_path / "best.safetensors", built.state_dict(), header, recipe)

    def refuse(*args, **options):
        raise AssertionError("pretrained weights were asked for")

    monkeypatch.setitem(ENCODERS, backbone, replace(ENCODERS[backbone], weights=refuse))
    loaded = load_network(tmp_path / "best.safetensors")
    half = backbone.startswith("efficientnet")
    assert loaded.network.mean == loaded.header.mean == ((0.5,) * 3 if half else (0.485, 0.456, 0.406))
    assert loaded.network.std == ((0.5,) * 3 if half else (0.229, 0.224, 0.225))
    assert (loaded.header.evaluation.multiple, loaded.header.evaluation.window) == (multiple, crop)
    for name, tensor in built.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    white = normalised(loaded.network, np.full((1, 2, 2, 3), 255, np.uint8), torch.device("cpu"))
    assert white[0, 0, 0, 0].item() == pytest.approx(1 if half else (1 - 0.485) / 0.229, rel=1e-3)


def test_a_header_of_before_reflects_to_multiples_of_8(saved):
    path, _, recipe = saved
    metadata, state = contents(path)
    header = json.loads(metadata["header"])
    del header["evaluation"]["multiple"]
    rewrite(path, metadata | {"header": json.dumps(header)}, state)
    assert load_network(path).header.evaluation == recipe.protocol()
    assert recipe.protocol().multiple == 8


def test_a_backbone_that_is_made_otherwise_by_now_is_one_line(saved):
    path, *_ = saved
    metadata, state = contents(path)
    state["backbone.new.weight"] = torch.zeros(2)
    rewrite(path, metadata, state)
    with pytest.raises(UsageError, match="not those of cac with resnet18 as they are made here"):
        load_network(path)


def test_a_damaged_file_is_refused(saved):
    path, *_ = saved
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UsageError, match="damaged"):
        load_network(path)
    path.write_bytes(whole.replace(b'\\"step\\": 7', b'\\"step\\": 8'))
    assert path.read_bytes() != whole
    with pytest.raises(UsageError, match="damaged"):
        load_network(path)
    for place in torch.randint(len(whole) // 2, len(whole), (5,), generator=torch.Generator().manual_seed(0)).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(UsageError, match="damaged"):
            load_network(path)


def test_others_may_read_what_the_umask_lets_them(saved):
    path, *_ = saved
    path.with_name("plain").touch()
    assert path.stat().st_mode == path.with_name("plain").stat().st_mode


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"palette": [["<script>", 0, 0], [0, 0, 0], [0, 0, 0]]}, r"palette\[0\]\[0\]: must be a whole number"),
        ({"palette": [[0, 0, 999], [0, 0, 0], [0, 0, 0]]}, "palette: must be numbers from 0 to 255"),
        ({"palette": [[0, 0, 0]]}, "palette: must be 3 colours, is 1"),
        ({"values": [0, 1]}, "values: must be 3 numbers from 0 to 254, each once"),
        ({"values": [0, 1, 1]}, "values: must be 3 numbers from 0 to 254, each once"),
        ({"values": [0, 1, 255]}, "values: must be 3 numbers from 0 to 254, each once"),
        ({"levels": [0, 255]}, "levels: must be 3 numbers from 0 to 255"),
        ({"classes": "abc"}, "classes: must be a list"),
        ({"classes": []}, "classes: must be one at least"),
        ({"head_width": "x"}, "head_width: must be a whole number"),
        ({"head_width": 0}, "head_width: must be at least 1"),
        ({"std": [0, 1, 1]}, "std: must be more than 0"),
        ({"mean": [0.5, 0.5]}, "mean: must be a list of 3"),
        ({"evaluation": {"name": "x", "window": 32}}, "evaluation.name: must be one of whole, slide"),
        ({"evaluation": {"name": "slide", "window": 0}}, "evaluation.window: must be at least 1"),
        ({"evaluation": None}, "NoneType"),
        ({"precision": "fp8"}, "precision: must be"),
        ({"miou": "best"}, "miou: must be a number"),
        ({"step": 1.5}, "step: must be a whole number"),
        ({"backbone": 18}, "backbone: must be text"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(saved, changes, said):
    path, *_ = saved
    metadata, state = contents(path)
    header = json.loads(metadata["header"]) | changes
    rewrite(path, metadata | {"header": json.dumps(header)}, state)
    with pytest.raises(UsageError, match=rf"header cannot be read \(.*{said}"):
        load_network(path)


def test_a_network_of_a_layout_that_is_not_known_here_is_of_use_nevertheless(saved, tmp_path):
    """Only to find its data again takes the layout."""
    path, *_ = saved
    metadata, state = contents(path)
    rewrite(path, metadata | {"header": json.dumps(json.loads(metadata["header"]) | {"layout": "camvid"})}, state)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 32)).save(tmp_path / "images/a.png")
    assert predict(path, tmp_path / "images", out=tmp_path / "predicted", device="cpu").images == 1
    with pytest.raises(UsageError, match="unknown layout 'camvid'"):
        evaluate(path, device="cpu")


@pytest.mark.parametrize("width", [10**15, 2**63, 10**30])
def test_a_header_of_a_network_that_no_memory_holds_is_refused(saved, width):
    path, *_ = saved
    metadata, state = contents(path)
    header = json.loads(metadata["header"]) | {"head_width": width}
    rewrite(path, metadata | {"header": json.dumps(header)}, state)
    with pytest.raises(UsageError, match="its header asks for a network that cannot be built"):
        load_network(path)


@pytest.mark.parametrize("changes", [{"header": "[]"}, {"header": "{"}, {"recipe": "{"}, {"header": "[" * 100_000}])
def test_what_is_no_header_is_refused(saved, changes):
    path, *_ = saved
    metadata, state = contents(path)
    rewrite(path, metadata | changes, state)
    with pytest.raises(UsageError, match="header cannot be read"):
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
    assert checkpoint_file(tmp_path / "run").name == "last.safetensors"
    (folder / "last.safetensors").rename(folder / "best.safetensors")
    assert checkpoint_file(tmp_path / "run").name == "best.safetensors"
    with pytest.raises(UsageError, match="neither a checkpoint"):
        checkpoint_file(tmp_path / "nothing")


def test_a_renamed_field_makes_no_file_unreadable(saved):
    """The recipe is for the record: nothing of it is read; and the header is read as far as it is known."""
    path, network, _ = saved
    metadata, _ = contents(path)
    header, recipe = json.loads(metadata["header"]), json.loads(metadata["recipe"])
    recipe["windows"] = recipe.pop("crop")
    header["colour_space"] = header["evaluation"]["tiles"] = "new"
    rewrite(path, metadata | {"header": json.dumps(header), "recipe": json.dumps(recipe)}, network.state_dict())
    loaded = load_network(path)
    assert loaded.header.evaluation.window == 32
    assert loaded.recipe["windows"] == 32


@pytest.mark.parametrize(
    ("trained", "data", "places"),
    [
        ("car tree ground", "ground car tree", (1, 2, 0)),
        ("class 0 class 1 class 2", "car tree ground", (0, 1, 2)),
        ("car tree ground", "class 0 class 1 class 2", (0, 1, 2)),
        ("class 1 class 0 class 2", "class 0 class 1 class 2", (1, 0, 2)),
        ("class 0 class 1 class 2", "class 2 class 0 class 1", (1, 2, 0)),
    ],
)
def test_classes_are_matched_by_name_and_by_number_where_names_are_made_up(saved, trained, data, places):
    trained, data = (tuple(re.findall(r"class \d|\w+", names)) for names in (trained, data))
    header = replace(load_network(saved[0]).header, classes=trained)
    assert match_classes(header, data, "here") == places


@pytest.mark.parametrize(("shallow", "deep"), [("resnet18", "resnet34"), ("resnet50", "resnet101")])
def test_weights_of_a_deeper_network_are_not_those_of_a_shallower_one(tiny, tmp_path, shallow, deep):
    """Though all of the shallower one's have their names and shapes in it."""
    path = tmp_path / "deep.safetensors"
    networks = {name: build_network("cac", name, 3, head_width=16) for name in (shallow, deep)}
    for name, network in networks.items():
        header = header_of(tiny("cac", data=tmp_path, backbone=name), network, CLASSES, PALETTE)
        save_network(path, network.state_dict(), header, tiny("cac", data=tmp_path, backbone=name))
        other = networks[shallow if name == deep else deep]
        with pytest.raises(UsageError, match=f"another network .* --backbone {name} "):
            initialise(other, path, CLASSES)
        initialise(network, path, CLASSES)


@pytest.mark.parametrize(("one", "another"), [("cac", "unimatch"), ("unimatch", "cac"), ("cps", "cac")])
def test_weights_of_one_decoder_are_not_another_s(tiny, tmp_path, one, another):
    """Though with this encoder those of cac and unimatch have the same names and shapes; one puts the maps of the
    stem behind the others, one before them."""
    path, encoder = tmp_path / "one.safetensors", {"backbone": "efficientnet_lite0", "data": tmp_path}
    network, other = (build_network(name, "efficientnet_lite0", 3, head_width=16) for name in (one, another))
    recipe = tiny("supervised", network=one, **encoder)
    save_network(path, network.state_dict(), header_of(recipe, network, CLASSES, PALETTE), recipe)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(UsageError, match=f"another network .--network {one} --backbone efficientnet_lite0"):
        initialise(other, path, CLASSES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_network_does_not_start_from_one_that_was_shown_images_otherwise(saved):
    path, network, recipe = saved
    header = replace(header_of(recipe, network, CLASSES, PALETTE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    save_network(path, network.state_dict(), header, recipe)
    with pytest.raises(UsageError, match=r"--init: .* was shown images normalised by \(0.5, 0.5, 0.5\)"):
        initialise(network, path, CLASSES)


def test_a_network_is_given_images_as_in_its_training(saved):
    """Whatever the encoder's row says by now."""
    path, network, recipe = saved
    header = replace(header_of(recipe, network, CLASSES, PALETTE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    save_network(path, network.state_dict(), header, recipe)
    loaded = load_network(path).network
    white = normalised(loaded, np.full((1, 2, 2, 3), 255, np.uint8), torch.device("cpu"))
    torch.testing.assert_close(white, torch.full((1, 3, 2, 2), 2.0))
