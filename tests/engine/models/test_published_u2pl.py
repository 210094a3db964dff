"""Checkpoints of U2PL, against a network written here with the module names of the published program."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import get_model

from restated import conv, empty, filled, refusal, relative
from semiseg.engine import checkpoint as checkpoints
from semiseg.engine.checkpoint import initialise, load_network
from semiseg.engine.models import build_network, from_published, published_program
from semiseg.pipelines.datasets.layouts import LAYOUTS


def normed(*args, **options):
    convolution = conv(*args, **options)
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()


class Encoder(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        resnet = get_model(backbone, weights=None, replace_stride_with_dilation=[False, True, True])
        self.conv1 = nn.Sequential(*normed(3, 64, 3, 1, 2), *normed(64, 64, 3), conv(64, 128, 3))
        self.bn1, self.relu = nn.BatchNorm2d(128), nn.ReLU()
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        self.layer1[0].conv1, self.layer1[0].downsample[0] = conv(128, 64), conv(128, 256)
        for block, rate in zip(self.layer4, (4, 8, 16), strict=True):
            block.conv2.dilation = block.conv2.padding = (rate, rate)

    def forward(self, x):
        x = F.max_pool2d(self.relu(self.bn1(self.conv1(x))), 3, 2, 1, ceil_mode=True)
        low = self.layer1(x)
        return low, self.layer4(self.layer3(self.layer2(low)))


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.AdaptiveAvgPool2d(1), *normed(2048, 256))
        self.conv2 = nn.Sequential(*normed(2048, 256))
        self.conv3, self.conv4, self.conv5 = (nn.Sequential(*normed(2048, 256, 3, rate)) for rate in (12, 24, 36))

    def forward(self, x):
        pooled = self.conv1(x).expand(-1, -1, *x.shape[2:])
        return torch.cat([pooled, self.conv2(x), self.conv3(x), self.conv4(x), self.conv5(x)], 1)


def head(outputs):
    first, second = (normed(inputs, 256, 3, bias=True) for inputs in (512, 256))
    return nn.Sequential(*first, nn.Dropout2d(0.1), *second, nn.Dropout2d(0.1), nn.Conv2d(256, outputs, 1))


class Decoder(nn.Module):
    def __init__(self, classes, representation):
        super().__init__()
        self.low_conv = nn.Sequential(*normed(256, 256, bias=True))
        self.aspp, self.head = Pyramid(), nn.Sequential(*normed(1280, 256, 3), nn.Dropout2d(0.1))
        self.classifier = head(classes)
        if representation:
            self.representation = head(256)

    def forward(self, low, high):
        low, high = self.low_conv(low), self.head(self.aspp(high))
        high = F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=True)
        both = torch.cat([low, high], 1)
        return self.classifier(both), self.representation(both)


class U2pl(nn.Module):
    """DeepLabv3+ on a deep-stem ResNet of output stride 8, with a head for representations. Logits and representations
    are a quarter of the image."""

    def __init__(self, backbone="resnet50", classes=21, representation=True):
        super().__init__()
        self.encoder, self.decoder = Encoder(backbone), Decoder(classes, representation)

    def forward(self, x):
        return self.decoder(*self.encoder(x))


@pytest.fixture(scope="module")
def u2pl():
    return filled(U2pl)


@torch.no_grad()
@pytest.mark.parametrize(("size", "training"), [((65, 97), False), ((62, 96), False), ((65, 64), True)])
def test_logits_and_representations_are_those_of_the_published_network(u2pl, size, training):
    """In training too, where dropout draws as many numbers in the same order."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    published, network = copy.deepcopy(u2pl).train(training), from_published(u2pl.state_dict()).train(training)
    torch.manual_seed(0)
    logits, representations = published(x)
    torch.manual_seed(0)
    features = network.features(x)
    assert relative(network.classify(features), logits) < 1e-9
    assert relative(network.project(features), representations) < 1e-9
    ours = dict(network.named_buffers())
    for name, theirs in {
        "aspp.norm.running_mean": "head.1.running_mean",
        "decoder.refine.5.running_var": "classifier.5.running_var",
        "decoder.projector.5.running_mean": "representation.5.running_mean",
    }.items():
        assert relative(ours[name], published.decoder.get_buffer(theirs)) < 1e-9


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
@pytest.mark.parametrize("representation", [True, False])
def test_every_published_network_is_recognised(backbone, representation):
    state = empty(U2pl, backbone, 19, representation).state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    for form in (state, parallel, {"epoch": 3, "model_state": parallel, "optimizer_state": {}, "best_miou": 0.7}):
        network = from_published(form, 19)
        assert (network.decoder_name, network.backbone_name, network.num_classes) == ("u2pl", backbone, 19)
        assert (network.projector is not None) is (network.decoder.projector is not None) is representation
        assert published_program(form) == "u2pl"
        assert not network.training


def test_the_teacher_is_taken_where_there_is_one(u2pl):
    teacher = u2pl.state_dict()
    both = {"model_state": {name: tensor + 1 for name, tensor in teacher.items()}, "teacher_state": teacher}
    assert torch.equal(from_published(both).classifier.bias, teacher["decoder.classifier.8.bias"])
    student = {"model_state": both["model_state"]}
    assert torch.equal(from_published(student).classifier.bias, teacher["decoder.classifier.8.bias"] + 1)


def test_the_auxiliary_head_of_cityscapes_is_left_out():
    state = empty(U2pl, "resnet101", 19).state_dict()
    head = {f"auxor.aux.{name}": torch.zeros(1) for name in ("0.weight", "1.running_mean", "4.bias")}
    assert from_published(state | head).state_dict().keys() == from_published(state).state_dict().keys()


def test_the_key_names_are_those_of_the_published_files():
    # Written out from the published files, so that the network above cannot drift from them.
    names = """
        encoder.conv1.6.weight encoder.bn1.running_var encoder.layer1.0.downsample.0.weight
        encoder.layer3.5.bn3.running_var decoder.low_conv.0.bias decoder.low_conv.1.weight decoder.aspp.conv1.1.weight
        decoder.aspp.conv1.2.bias decoder.aspp.conv2.0.weight decoder.aspp.conv5.1.running_mean decoder.head.0.weight
        decoder.head.1.bias decoder.classifier.0.bias decoder.classifier.1.weight decoder.classifier.4.weight
        decoder.classifier.5.running_var decoder.classifier.8.bias decoder.representation.0.weight
        decoder.representation.5.bias decoder.representation.8.weight
    """
    published = empty(U2pl)
    assert set(names.split()) < set(published.state_dict())
    assert sum(tensor.is_floating_point() for tensor in published.state_dict().values()) == 339
    assert sum(p.numel() for p in published.parameters()) == 45_467_861


@pytest.mark.parametrize("name", ["decoder.head.0.weight", "decoder.representation.4.bias"])
def test_keys_and_shapes_that_do_not_fit_are_named(name):
    state = empty(U2pl).state_dict()
    assert f"{name} missing" in refusal({key: value for key, value in state.items() if key != name})
    assert f"{name} of another shape" in refusal(state | {name: torch.zeros(1, device="meta")})
    assert "decoder.extra.weight unexpected" in refusal(state | {"decoder.extra.weight": torch.zeros(2)})
    assert "21 classes, not 7" in refusal(state, 7)
    assert "branch 2" in refusal(state, branch=2)


@pytest.mark.parametrize("layout", ["voc", "cityscapes"])
def test_a_published_file_is_evaluated_as_its_program_does(layout, tmp_path, monkeypatch):
    classes, path = LAYOUTS[layout].classes, tmp_path / "ckpt_best.pth"
    path.touch()
    state = empty(U2pl, "resnet101", len(classes)).state_dict()
    monkeypatch.setattr(checkpoints, "read_state_dict", lambda path: state)
    header = load_network(path).header
    assert (header.network, header.layout, header.classes) == ("u2pl", layout, classes)
    expected = {"voc": ("unimatch-whole", 513), "cityscapes": ("slide", 769)}
    assert (header.evaluation.name, header.evaluation.window) == expected[layout]


@pytest.mark.parametrize("projector", [True, False])
def test_networks_start_from_a_file_with_or_without_their_projector(u2pl, tmp_path, projector):
    """What the file lacks stays as it is, and what the network lacks is left out."""
    path = tmp_path / "ckpt.pth"
    whole = {name: tensor.half() for name, tensor in u2pl.state_dict().items()}
    for representation in (True, False):
        state = {name: tensor for name, tensor in whole.items() if representation or "representation" not in name}
        torch.save({"teacher_state": state}, path)
        network = build_network("u2pl", "resnet50", 21, projector=projector)
        before = copy.deepcopy(network.state_dict())
        initialise(network, path, LAYOUTS["voc"].classes)
        own = network.state_dict()
        assert torch.equal(own["decoder.refine.4.weight"], state["decoder.classifier.4.weight"].float())
        if projector:
            known = state["decoder.representation.4.weight"].float() if representation else None
            expected = before["decoder.projector.4.weight"] if known is None else known
            assert torch.equal(own["decoder.projector.4.weight"], expected)
    path.unlink()
