"""Checkpoints of UniMatch V1 and V2, against networks written here with the module names of the published programs."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import get_model

from restated import conv, empty, filled, refusal, relative
from semiseg.engine import checkpoint as checkpoints
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.checkpoint import load_network
from semiseg.engine.models import build_network, from_published, published_program
from semiseg.pipelines.datasets.layouts import LAYOUTS


def normed(*args):
    convolution = conv(*args)
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def resized(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.gap = nn.Sequential(nn.AdaptiveAvgPool2d(1), *normed(2048, 256))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.b0 = normed(2048, 256)
        self.b1, self.b2, self.b3 = (normed(2048, 256, 3, rate) for rate in (6, 12, 18))
        self.b4, self.project = Pooling(), normed(1280, 256)

    def forward(self, x):
        maps = [branch(x) for branch in (self.b0, self.b1, self.b2, self.b3)]
        return self.project(torch.cat([*maps, resized(self.b4.gap(x), x.shape[2:])], 1))


class UniMatch(nn.Module):
    """DeepLabv3+ on a deep-stem ResNet without multi-grid."""

    def __init__(self, backbone="resnet50", classes=21):
        super().__init__()
        resnet = get_model(backbone, weights=None)
        del resnet.fc
        resnet.conv1 = nn.Sequential(*normed(3, 64, 3, 1, 2), *normed(64, 64, 3), conv(64, 128, 3))
        resnet.bn1 = nn.BatchNorm2d(128)
        resnet.layer1[0].conv1, resnet.layer1[0].downsample[0] = conv(128, 64), conv(128, 256)
        resnet.layer4[0].conv2.stride = resnet.layer4[0].downsample[0].stride = (1, 1)
        for block in resnet.layer4[1:]:
            block.conv2.dilation = block.conv2.padding = (2, 2)
        self.backbone, self.head, self.reduce = resnet, Head(), normed(256, 48)
        self.fuse = nn.Sequential(*normed(304, 256, 3), *normed(256, 256, 3))
        self.classifier = nn.Conv2d(256, classes, 1)

    def forward(self, x, masks=None):
        """`masks` (B, 256) and (B, 2048): channels that are dropped in a second half of the decoder's batch."""
        b = self.backbone
        low = b.layer1(b.maxpool(b.relu(b.bn1(b.conv1(x)))))
        high = b.layer4(b.layer3(b.layer2(low)))
        if masks is not None:
            low, high = (torch.cat([m, 2 * m * mask[:, :, None, None]]) for m, mask in zip((low, high), masks))
        low, high = self.reduce(low), self.head(high)
        decoded = self.fuse(torch.cat([low, resized(high, low.shape[2:])], 1))
        return resized(self.classifier(decoded), x.shape[2:])


def attention(x, qkv, proj, heads):
    """softmax(q k^T / sqrt(64)) v, head by head."""
    q, k, v = qkv(x).chunk(3, 2)
    parts = []
    for head in range(heads):
        a, b, c = (each[..., 64 * head : 64 * (head + 1)] for each in (q, k, v))
        parts.append((a @ b.transpose(1, 2) / 8).softmax(2) @ c)
    return proj(torch.cat(parts, 2))


def bicubic(count, stored=37):
    """(count, stored) weights of cubic convolution with a = -0.75, which reads at (i + 0.5) 37 / (n + 0.1) - 0.5."""
    weights = np.zeros((count, stored))
    for i in range(count):
        place = (i + 0.5) * stored / (count + 0.1) - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            t, a = abs(place - tap), -0.75
            near = (a + 2) * t**3 - (a + 3) * t**2 + 1
            far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            weights[i, min(max(tap, 0), stored - 1)] += near if t <= 1 else far
    return torch.from_numpy(weights)


def named(**modules):
    module = nn.Module()
    for name, child in modules.items():
        setattr(module, name, child)
    return module


class Dino(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.cls_token, self.mask_token = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1370, width))
        self.patch_embed = named(proj=nn.Conv2d(3, width, 14, 14))
        self.blocks = nn.ModuleList(
            named(
                norm1=nn.LayerNorm(width, eps=1e-6),
                attn=named(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width)),
                ls1=named(gamma=nn.Parameter(torch.ones(width))),
                norm2=nn.LayerNorm(width, eps=1e-6),
                mlp=named(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width)),
                ls2=named(gamma=nn.Parameter(torch.ones(width))),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, taken):
        h, w, width = x.shape[2] // 14, x.shape[3] // 14, self.cls_token.shape[-1]
        grid = self.pos_embed[0, 1:].view(37, 37, width)
        grid = torch.einsum("yi,xj,ijc->yxc", bicubic(h), bicubic(w), grid).reshape(1, h * w, width)
        patches = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens, layers = torch.cat([first, patches + grid], 1), []
        for number, block in enumerate(self.blocks):
            seen = attention(block.norm1(tokens), block.attn.qkv, block.attn.proj, width // 64)
            tokens = tokens + block.ls1.gamma * seen
            inner = block.mlp.fc1(block.norm2(tokens))
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            tokens = tokens + block.ls2.gamma * block.mlp.fc2(inner)
            if number in taken:
                layers.append(self.norm(tokens)[:, 1:].transpose(1, 2).reshape(len(x), width, h, w))
        return layers


class UniMatchV2(nn.Module):
    """DINOv2 and DPT."""

    SIZES = {  # noqa: RUF012
        384: (12, (2, 5, 8, 11), 64, (48, 96, 192, 384)),
        768: (12, (2, 5, 8, 11), 128, (96, 192, 384, 768)),
        1024: (24, (4, 11, 17, 23), 256, (256, 512, 1024, 1024)),
    }

    def __init__(self, width=384, classes=5):
        super().__init__()
        depth, self.taken, features, outs = self.SIZES[width]
        self.backbone = Dino(width, depth)
        scratch = nn.Module()
        for k, out in enumerate(outs, 1):
            setattr(scratch, f"layer{k}_rn", nn.Conv2d(out, features, 3, padding=1, bias=False))
            units = [named(**{f"conv{i}": nn.Conv2d(features, features, 3, padding=1) for i in (1, 2)}) for _ in "12"]
            fusion = named(out_conv=nn.Conv2d(features, features, 1), resConfUnit1=units[0], resConfUnit2=units[1])
            setattr(scratch, f"refinenet{k}", fusion)
        output = [nn.Conv2d(features, features, 3, padding=1), nn.ReLU(), nn.Conv2d(features, classes, 1)]
        scratch.output_conv = nn.Sequential(*output)
        a, b, _, d = outs
        resizes = [nn.ConvTranspose2d(a, a, 4, 4), nn.ConvTranspose2d(b, b, 2, 2), nn.Identity()]
        self.head = named(
            projects=nn.ModuleList(nn.Conv2d(width, out, 1) for out in outs),
            resize_layers=nn.ModuleList([*resizes, nn.Conv2d(d, d, 3, 2, 1)]),
            scratch=scratch,
        )

    def forward(self, x, mask=None):
        """`mask` (B, D) multiplies the tokens of all layers."""
        layers = self.backbone(x, self.taken)
        if mask is not None:
            layers = [layer * mask[:, :, None, None] for layer in layers]
        head, scratch = self.head, self.head.scratch
        levels = [
            getattr(scratch, f"layer{k + 1}_rn")(head.resize_layers[k](head.projects[k](layer)))
            for k, layer in enumerate(layers)
        ]

        def unit(module, y):
            return y + module.conv2(F.relu(module.conv1(F.relu(y))))

        y = None
        for k in (4, 3, 2, 1):
            fusion, level = getattr(scratch, f"refinenet{k}"), levels[k - 1]
            y = level if y is None else y + unit(fusion.resConfUnit1, level)
            size = levels[k - 2].shape[2:] if k > 1 else [2 * side for side in level.shape[2:]]
            y = fusion.out_conv(resized(unit(fusion.resConfUnit2, y), size))
        return resized(scratch.output_conv(y), x.shape[2:])


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def unimatch():
    return filled(UniMatch)


@pytest.fixture(scope="module")
def unimatch_v2():
    return filled(UniMatchV2)


@torch.no_grad()
def test_unimatch_with_and_without_perturbed_features_in_both_modes(unimatch):
    x, masks = noise(2, 3, 33, 41), [(noise(2, c, seed=c) > 0).double() for c in (256, 2048)]

    def logits(network, perturbed):
        maps = network.encode(x)
        if perturbed:
            maps = tuple(torch.cat([m, 2 * m * mask[:, :, None, None]]) for m, mask in zip(maps, masks))
        return resized(network.classify(network.decode(maps)), x.shape[2:])

    for training in (False, True):
        for perturbed in (False, True):
            published = copy.deepcopy(unimatch).train(training)
            network = from_published(unimatch.state_dict()).train(training)
            expected = published(x, masks if perturbed else None)
            given = logits(network, perturbed)
            assert relative(given, expected) < 1e-9
            assert relative(network.decoder.refine[5].running_mean, published.fuse[4].running_mean) < 1e-9
            assert relative(network.backbone.bn1.running_var, published.backbone.bn1.running_var) < 1e-9


@torch.no_grad()
@pytest.mark.parametrize("size", [(28, 56), (70, 42)])
def test_unimatch_v2_gives_the_logits_of_the_published_network(unimatch_v2, size):
    x = noise(2, 3, *size)
    network = from_published(unimatch_v2.state_dict())
    assert relative(resized(network(x), size), unimatch_v2(x)) < 1e-9
    mask = 2 * (noise(2, 384) > 0).double()  # complementary dropout: the same for every position and layer
    maps = tuple(each * mask[:, :, None, None] for each in network.encode(x))
    assert relative(resized(network.classify(network.decode(maps)), size), unimatch_v2(x, mask)) < 1e-9


@pytest.mark.parametrize(
    ("kind", "size", "decoder", "backbone"),
    [
        (UniMatch, "resnet50", "unimatch", "resnet50"),
        (UniMatch, "resnet101", "unimatch", "resnet101"),
        (UniMatchV2, 384, "dpt", "dinov2_small"),
        (UniMatchV2, 768, "dpt", "dinov2_base"),
        (UniMatchV2, 1024, "dpt", "dinov2_large"),
    ],
)
def test_every_published_network_is_recognised(kind, size, decoder, backbone):
    state = empty(kind, size, 19).state_dict()
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    for form in (state, parallel, {"model": parallel, "optimizer": {}, "epoch": 3, "previous_best": 70.1}):
        network = from_published(form, 19)
        assert (network.decoder_name, network.backbone_name, network.num_classes) == (decoder, backbone, 19)
    assert published_program(state) == ("unimatch" if kind is UniMatch else "unimatch_v2")
    assert not network.training


def test_the_teacher_is_taken_where_there_is_one(unimatch_v2):
    teacher = unimatch_v2.state_dict()
    student = {name: tensor + 1 for name, tensor in teacher.items()}
    both = {"model": student, "model_ema": teacher, "epoch": 2}
    assert torch.equal(from_published(both).classifier.bias, teacher["head.scratch.output_conv.2.bias"])
    assert torch.equal(from_published(both["model"]).classifier.bias, student["head.scratch.output_conv.2.bias"])


def test_the_key_names_are_those_of_the_published_files():
    # Written out from the published files, so that the networks above cannot drift from them.
    first = """
        backbone.conv1.6.weight backbone.bn1.running_var backbone.layer3.5.bn3.running_var head.b0.0.weight
        head.b3.1.running_mean head.b4.gap.1.weight head.b4.gap.2.bias head.project.0.weight head.project.1.weight
        reduce.0.weight reduce.1.bias fuse.0.weight fuse.1.weight fuse.3.weight fuse.4.running_var classifier.bias
    """
    assert set(first.split()) < set(empty(UniMatch).state_dict())
    second = """
        backbone.cls_token backbone.pos_embed backbone.mask_token backbone.patch_embed.proj.weight
        backbone.blocks.11.norm1.bias backbone.blocks.0.attn.qkv.weight backbone.blocks.0.ls2.gamma
        backbone.blocks.3.mlp.fc2.bias backbone.norm.weight head.projects.3.bias head.resize_layers.3.weight
        head.resize_layers.1.bias head.scratch.layer4_rn.weight head.scratch.refinenet4.resConfUnit1.conv2.weight
        head.scratch.refinenet1.out_conv.bias head.scratch.output_conv.0.weight head.scratch.output_conv.2.bias
    """
    assert set(second.split()) < set(empty(UniMatchV2).state_dict())
    for kind, classes, parameters in ((UniMatch, ("resnet50", 21), 40_475_957), (UniMatchV2, (384, 21), 24_795_637)):
        assert sum(p.numel() for p in empty(kind, *classes).parameters()) == parameters


@pytest.mark.parametrize(
    ("kind", "name"),
    [(UniMatch, "head.project.0.weight"), (UniMatchV2, "head.scratch.layer2_rn.weight")],
)
def test_keys_and_shapes_that_do_not_fit_are_named(kind, name):
    state = empty(kind).state_dict()
    wrong = {key: value for key, value in state.items() if key != name}
    assert f"{name} missing" in refusal(wrong)
    assert f"{name} of another shape" in refusal(state | {name: torch.zeros(1, device="meta")})
    assert "proj_head.weight unexpected" in refusal(state | {"proj_head.weight": torch.zeros(2)})
    assert "classes, not 7" in refusal(state, 7)
    assert "branch 2" in refusal(state, branch=2)


def test_networks_that_nobody_published_are_refused():
    giant = empty(UniMatchV2).state_dict() | {"backbone.cls_token": torch.zeros(1, 1, 1536)}
    assert "backbone.cls_token of another shape" in refusal(giant)
    xception = {name: value for name, value in empty(UniMatch).state_dict().items() if ".layer" not in name}
    assert "not the published unimatch network with resnet50" in refusal(xception)
    ours = build_network("unimatch", "resnet18", 3, head_width=16).state_dict()
    assert "not a published checkpoint" in refusal(ours)


@pytest.mark.parametrize("layout", ["voc", "cityscapes", "ade20k", "coco"])
def test_the_number_of_classes_says_what_a_published_file_was_trained_on(layout, tmp_path, monkeypatch):
    classes, path = LAYOUTS[layout].classes, tmp_path / "best.pth"
    path.touch()
    state = empty(UniMatchV2, 384, len(classes)).state_dict()
    monkeypatch.setattr(checkpoints, "read_state_dict", lambda path: state)
    header = load_network(path).header
    assert (header.layout, header.classes) == (layout, classes)
    assert header.evaluation == load_recipe(f"unimatch_v2_{layout}").as_published().protocol()


def test_a_published_file_is_shown_images_of_sides_that_it_takes(tmp_path):
    path = tmp_path / "best.pth"
    half = {
        name: tensor.half() for name, tensor in filled(UniMatchV2, 384, 3, dtype=torch.float32).state_dict().items()
    }
    torch.save({"model": half, "model_ema": half, "previous_best": np.float64(70.0)}, path)
    header = load_network(path).header
    assert (header.network, header.backbone, header.layout) == ("dpt", "dinov2_small", "folder")
    assert header.evaluation.multiple == 14
    assert header.evaluation.window % 14 == 0
    path.unlink()
