"""Published checkpoints, against networks written here with the module names of the published programs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from restated import conv, empty, filled, refusal, relative
from semiseg.engine import checkpoint as checkpoints
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.checkpoint import load_network
from semiseg.engine.evaluation.protocols import full_logits
from semiseg.engine.models import build_network, from_published, published_program
from semiseg.kernels import upsample
from semiseg.pipelines.errors import UsageError

BACKBONES = ("resnet50", "resnet101")


def atrous(inputs):
    return [conv(inputs, 256), *(conv(inputs, 256, 3, rate) for rate in (6, 12, 18))]


def resnet(name, deep_stem):
    """torchvision's network with the changes that methods of segmentation make to it."""
    network = get_model(name, weights=None)
    del network.fc
    if deep_stem:
        norms = nn.BatchNorm2d(64), nn.BatchNorm2d(64)
        stem = [conv(3, 64, 3, stride=2), norms[0], nn.ReLU(), conv(64, 64, 3), norms[1], nn.ReLU(), conv(64, 128, 3)]
        network.conv1, network.bn1 = nn.Sequential(*stem), nn.BatchNorm2d(128)
        network.layer1[0].conv1, network.layer1[0].downsample[0] = conv(128, 64), conv(128, 256)
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
    for block, rate in zip(network.layer4, (2, 4, 8), strict=True):
        block.conv2.dilation = block.conv2.padding = (rate, rate)
    return network


def features(backbone, x):
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(x))))
    low = backbone.layer1(x)
    return low, backbone.layer4(backbone.layer3(backbone.layer2(low)))


def resized(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class CacPyramid(nn.Module):
    def __init__(self):
        super().__init__()
        for number, convolution in enumerate(atrous(2048), 1):
            branch = nn.Module()
            branch.atrous_conv, branch.bn = convolution, nn.BatchNorm2d(256)
            self.add_module(f"aspp{number}", branch)
        pool = nn.AdaptiveAvgPool2d(1)
        self.global_avg_pool = nn.Sequential(pool, conv(2048, 256), nn.BatchNorm2d(256), nn.ReLU())
        self.conv1, self.bn1 = conv(1280, 256), nn.BatchNorm2d(256)

    def forward(self, x):
        branches = [getattr(self, f"aspp{number}") for number in (1, 2, 3, 4)]
        maps = [F.relu(branch.bn(branch.atrous_conv(x))) for branch in branches]
        pooled = resized(self.global_avg_pool(x), x.shape[2:])
        return F.relu(self.bn1(self.conv1(torch.cat([*maps, pooled], 1))))


class CacDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(256, 48), nn.BatchNorm2d(48)
        refine = [(conv(inputs, 256, 3), nn.BatchNorm2d(256), nn.ReLU()) for inputs in (304, 256)]
        self.last_conv = nn.Sequential(*refine[0], nn.Dropout(0.5), *refine[1])

    def forward(self, low, high):
        low = F.relu(self.bn1(self.conv1(low)))
        return self.last_conv(torch.cat([resized(high, low.shape[2:]), low], 1))


class Cac(nn.Module):
    def __init__(self, backbone="resnet50", classes=21, projector=True):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.backbone = resnet(backbone, deep_stem=False)
        self.encoder.aspp, self.encoder.decoder = CacPyramid(), CacDecoder()
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(256, classes, 1))
        if projector:
            self.project = nn.Sequential(nn.Conv2d(256, 256, 1), nn.ReLU(), nn.Conv2d(256, 128, 1))

    def forward(self, x):
        low, high = features(self.encoder.backbone, x)
        decoded = self.encoder.decoder(low, self.encoder.aspp(high))
        return resized(self.classifier(decoded), x.shape[2:]), decoded


class CpsPyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.map_convs, self.map_bn = nn.ModuleList(atrous(2048)), nn.BatchNorm2d(1024)
        self.global_pooling_conv, self.global_pooling_bn = conv(2048, 256), nn.BatchNorm2d(256)
        self.red_conv, self.pool_red_conv, self.red_bn = conv(1024, 256), conv(256, 256), nn.BatchNorm2d(256)

    def forward(self, x):
        maps = F.leaky_relu(self.map_bn(torch.cat([convolution(x) for convolution in self.map_convs], 1)), 0.01)
        pooled = F.leaky_relu(self.global_pooling_bn(self.global_pooling_conv(x.mean((2, 3), keepdim=True))), 0.01)
        return F.leaky_relu(self.red_bn(self.red_conv(maps) + self.pool_red_conv(pooled)), 0.01)


class CpsBranch(nn.Module):
    def __init__(self, backbone, classes):
        super().__init__()
        self.backbone = resnet(backbone, deep_stem=True)
        self.head = nn.Module()
        self.head.aspp = CpsPyramid()
        self.head.reduce = nn.Sequential(conv(256, 48), nn.BatchNorm2d(48), nn.ReLU())
        refine = [(conv(inputs, 256, 3), nn.BatchNorm2d(256), nn.ReLU()) for inputs in (304, 256)]
        self.head.last_conv = nn.Sequential(*refine[0], *refine[1])
        self.classifier = nn.Conv2d(256, classes, 1)

    def forward(self, x):
        low, high = features(self.backbone, x)
        low = self.head.reduce(low)
        decoded = self.head.last_conv(torch.cat([resized(self.head.aspp(high), low.shape[2:]), low], 1))
        return resized(self.classifier(decoded), x.shape[2:])


class Cps(nn.Module):
    def __init__(self, backbone="resnet50", classes=21):
        super().__init__()
        self.branch1, self.branch2 = CpsBranch(backbone, classes), CpsBranch(backbone, classes)


@pytest.fixture(scope="module")
def cac():
    return filled(Cac)


def assert_alike(network, state):
    """The tensors of `network` are those of `state`, which lists them in the same order."""
    own = floating(network.state_dict())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(own.values(), state.values(), strict=True))


def floating(state):
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


IMAGE = torch.randn(1, 3, 33, 49, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_cac_gives_the_logits_and_the_projection_of_the_published_network(cac):
    network = from_published(cac.state_dict(), 21)
    with torch.no_grad():
        logits, decoded = cac(IMAGE)
        assert relative(upsample(network(IMAGE), IMAGE.shape[-2:]), logits) < 1e-9
        assert relative(network.project(network.features(IMAGE)), cac.project(decoded)) < 1e-9


def test_cps_gives_the_logits_of_the_branch_that_is_asked_for():
    published = filled(Cps)
    with torch.no_grad():
        for number, branch in enumerate((published.branch1, published.branch2), 1):
            network = from_published(published.state_dict(), 21, branch=number)
            assert relative(upsample(network(IMAGE), IMAGE.shape[-2:]), branch(IMAGE)) < 1e-9
    assert_alike(from_published(published.state_dict()), floating(published.branch1.state_dict()))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_published_network_is_recognised(backbone):
    for published, decoder, projector in (
        (empty(Cac, backbone, 19), "cac", True),
        (empty(Cac, backbone, 19, projector=False), "cac", False),
        (empty(Cps, backbone, 19), "cps", False),
    ):
        network = from_published(published.state_dict(), 19)
        assert published_program({"model": published.state_dict()}) == decoder
        assert (network.decoder_name, network.backbone_name, network.num_classes) == (decoder, backbone, 19)
        assert (network.projector is not None) is projector
        assert not network.training
        assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_key_names_are_those_of_the_published_files():
    # Written out from the published files, so that the networks above cannot drift from them.
    cac = """
        backbone.conv1.weight backbone.layer3.5.bn3.running_var backbone.layer4.0.downsample.1.bias
        aspp.aspp1.atrous_conv.weight aspp.aspp4.bn.running_mean aspp.global_avg_pool.2.weight aspp.conv1.weight
        decoder.bn1.bias decoder.last_conv.5.running_var
    """
    outside = {"classifier.1.bias", "project.2.weight"}
    assert {f"encoder.{name}" for name in cac.split()} | outside < set(empty(Cac).state_dict())
    cps = """
        backbone.conv1.6.weight backbone.bn1.running_var backbone.layer1.0.downsample.0.weight
        head.aspp.map_convs.3.weight head.aspp.map_bn.running_mean head.aspp.global_pooling_conv.weight
        head.aspp.global_pooling_bn.bias head.aspp.red_conv.weight head.aspp.pool_red_conv.weight head.aspp.red_bn.bias
        head.reduce.1.weight head.last_conv.4.running_mean classifier.bias
    """
    assert {f"branch{n}.{name}" for n in (1, 2) for name in cps.split()} < set(empty(Cps).state_dict())
    assert len(floating(empty(Cac).state_dict())) == 316
    assert len(floating(empty(Cps).state_dict())) == 622


def test_prefixes_wrappers_counters_and_order_do_not_matter(cac):
    state = cac.state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    for form in (
        floating(state),
        parallel,
        {"arch": "DistributedDataParallel", "epoch": 3, "state_dict": parallel, "monitor_best": 0.7},
        {"model": state, "optimizer": {"state": {}}},
        dict(reversed(state.items())),
    ):
        assert_alike(from_published(form, 21), floating(state))


def test_the_network_does_not_share_memory_with_the_state_dict(cac):
    network = from_published(cac.state_dict(), 21)
    network.classifier.bias.data.add_(1)
    assert not torch.equal(network.classifier.bias, cac.classifier[1].bias)


def test_keys_and_shapes_that_do_not_fit_are_named():
    state = empty(Cac).state_dict()
    del state["encoder.aspp.conv1.weight"]
    state["encoder.aspp.extra.weight"] = torch.zeros(1)
    state["encoder.decoder.conv1.weight"] = torch.zeros(48, 256, 3, 3)
    message = refusal(state, 21)
    assert "encoder.aspp.conv1.weight missing" in message
    assert "encoder.aspp.extra.weight unexpected" in message
    assert "encoder.decoder.conv1.weight of another shape" in message

    state = empty(Cps).state_dict()
    del state["branch2.head.reduce.0.weight"]
    assert "branch2.head.reduce.0.weight missing" in refusal(state, 21)
    state = {name: tensor for name, tensor in empty(Cac).state_dict().items() if ".layer4." not in name}
    assert "and 44 more missing" in refusal(state, 21)
    assert "epoch unexpected" in refusal(empty(Cac).state_dict() | {"epoch": 3}, 21)


def test_shuffled_tensors_are_refused():
    names, tensors = zip(*empty(Cac).state_dict().items(), strict=True)
    assert "of another shape" in refusal(dict(zip(names, reversed(tensors), strict=True)))


def test_another_number_of_classes_is_refused():
    for kind in (Cac, Cps):
        assert "19 classes, not 21" in refusal(empty(kind, classes=19).state_dict(), 21)


def test_a_branch_that_is_not_there_is_refused():
    assert "branch 2" in refusal(empty(Cac).state_dict(), 21, branch=2)
    assert "branch 3" in refusal(empty(Cps).state_dict(), 21, branch=3)


def test_foreign_state_dicts_are_refused():
    with torch.device("meta"):
        ours = build_network("cac", "resnet50", 21).state_dict()
        classification = get_model("resnet50", weights=None).state_dict()
    assert "not a published checkpoint" in refusal(ours, 21)
    assert "not a published checkpoint" in refusal(classification, 21)
    # A program whose networks have an encoder too.
    foreign = {f"encoder.{name}": tensor for name, tensor in classification.items()}
    message = refusal(foreign, 21)
    assert "encoder.backbone.conv1.weight" in message
    assert "encoder.conv1.weight" in message
    for nothing in ({}, {"epoch": 3}, {"state_dict": {}}, [torch.zeros(2)]):
        assert "no tensors in it" in refusal(nothing, 21)


@pytest.fixture(scope="module")
def cac_file(tmp_path_factory):
    """A supervised CAC checkpoint for VOC as its program saves it, but in half precision to be small."""
    state = filled(Cac, projector=False, dtype=torch.float16).state_dict()
    path = tmp_path_factory.mktemp("published") / "best_model.pth"
    torch.save({"epoch": 80, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    yield path
    path.unlink()


def test_evaluate_takes_a_published_file(semiseg, cac_file, voc_root):
    root = voc_root()
    code, text, err = semiseg("evaluate", cac_file, "--data", root, "--json", "--device", "cpu")
    assert code == 0, err
    scores = json.loads(text)
    assert scores["images"] == 3
    assert len(scores["iou"]) == 21
    assert "aeroplane" in scores["iou"]
    again = semiseg("evaluate", "--data", root, cac_file, "--layout", "voc", "--json", "--device", "cpu")
    assert json.loads(again[1]) == scores
    (root / "classes.txt").write_text("".join(f"class{number}\n" for number in range(5)))
    code, _, err = semiseg("evaluate", cac_file, "--data", root, "--device", "cpu")
    assert (code, "21 classes" in err) == (2, True)


def test_predict_takes_a_published_file(semiseg, cac_file, voc_root, tmp_path):
    image = voc_root() / "JPEGImages/2007_000001.jpg"
    code, text, err = semiseg("predict", cac_file, image, "--out", tmp_path / "seen", "--json")
    assert code == 0, err
    seen = tmp_path / "seen"
    places = {"out": seen, "confidence": seen / "confidence.csv", "review": seen / "review.html"}
    told = {name: str(place) for name, place in places.items()}
    assert json.loads(text) == told | {"images": 1, "failed": []}
    mask = np.asarray(Image.open(tmp_path / "seen/masks/2007_000001.png"))
    assert mask.shape == (40, 56)
    checkpoint = load_network(cac_file)
    assert str(checkpoint.header.evaluation) == "cac-whole"
    x = (np.asarray(Image.open(image), np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        logits = full_logits(
            checkpoint.network, torch.from_numpy(x).float().permute(2, 0, 1)[None], checkpoint.header.evaluation
        )
    assert (mask == logits[0].argmax(0).numpy()).mean() > 0.99
    colours = np.asarray(Image.open(tmp_path / "seen/colours/2007_000001.png").convert("RGB"))
    assert (colours == np.array(checkpoint.header.palette)[mask]).all()


def test_train_starts_from_a_published_file(semiseg, cac_file, voc_root, tmp_path):
    out = tmp_path / "run"
    small = ["--crop", 32, "--batch", 2, "--steps", 1, "--threads", 1, "--device", "cpu", "--backend", "host"]
    settings = ["supervised_voc", "--data", voc_root(), "--split", "draw:1/2@0", *small, "--init", cac_file]
    # No backbone weights are looked for, and with a learning rate of 0 the parameters stay what they were.
    code, _, err = semiseg("train", *settings, "--lr", 0, "--out", out)
    assert code == 0, err
    trained, published = load_network(out).network, load_network(cac_file).network
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, published.get_parameter(name)), name
    for file in out.glob("checkpoints/*"):
        file.unlink()
    code, _, err = semiseg("train", *settings, "--backbone", "resnet18", "--out", tmp_path / "other")
    assert code == 2
    assert "--backbone resnet50" in err
    assert not (tmp_path / "other").exists()


def test_the_layout_says_how_a_published_file_is_evaluated(tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="not a checkpoint of semiseg and not a published"):
        load_network(path)
    for kind, classes, layout, recipe in (
        (Cac, 21, None, "cac_voc"),
        (Cps, 19, None, "cps_cityscapes"),
        (Cps, 21, "folder", "cps_folder"),
        (Cac, 4, None, "cac_folder"),
    ):
        state = empty(kind, "resnet101", classes).state_dict()
        monkeypatch.setattr(checkpoints, "read_state_dict", lambda path, state=state: state)
        header = load_network(path, layout).header
        assert header.evaluation == load_recipe(recipe).as_published().protocol()
        assert (header.backbone, header.head_width) == ("resnet101", 256)
        assert len(header.classes) == len(header.palette) == classes
