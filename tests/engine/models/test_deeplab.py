import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from semiseg.engine.models import build_network
from semiseg.pipelines.errors import UsageError

ARCHITECTURES = ("cac", "cps")
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")


def small(architecture, classes=5, width=16, backbone="resnet18", **options):
    torch.manual_seed(0)
    return build_network(architecture, backbone, classes, head_width=width, **options)


def on_meta(*args, **options):
    with torch.device("meta"):
        return build_network(*args, **options)


def images(batch=2, height=33, width=49, seed=1, dtype=None):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def count(parameters):
    return sum(p.numel() for p in parameters)


@pytest.mark.parametrize(
    ("architecture", "backbone", "total", "in_backbone"),
    [
        ("cac", "resnet50", 40_450_869, 23_508_032),
        ("cac", "resnet101", 59_442_997, 42_500_160),
        ("cps", "resnet50", 40_475_957, 23_631_808),
    ],
)
def test_published_parameter_counts(architecture, backbone, total, in_backbone):
    network = on_meta(architecture, backbone, 21, projector=architecture == "cac")
    assert count(network.parameters()) == total
    assert count(network.backbone_parameters()) == in_backbone


def test_parameter_groups_are_a_partition():
    network = on_meta("cac", "resnet50", 21, projector=True)
    groups = [*network.backbone_parameters(), *network.head_parameters()]
    assert len(groups) == len({id(p) for p in groups}) == 192
    assert {id(p) for p in groups} == {id(p) for p in network.parameters()}
    assert count(network.head_parameters()) == 16_942_837


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_output_sizes(architecture, backbone):
    network = on_meta(architecture, backbone, 7, head_width=32, projector=True)
    x = torch.empty(2, 3, 65, 97, device="meta")
    low, high = network.backbone(x)
    features = network.features(x)
    assert low.shape == (2, 64 if backbone in ("resnet18", "resnet34") else 256, 17, 25)
    assert high.shape == (2, 512 if backbone in ("resnet18", "resnet34") else 2048, 5, 7)
    assert features.shape == (2, 32, 17, 25)
    assert network.project(features).shape == (2, 128, 17, 25)
    assert network.classify(features).shape == network(x).shape == (2, 7, 17, 25)
    assert network.full_logits(x).shape == (2, 7, 65, 97)
    assert (network.architecture, network.backbone_name, network.num_classes) == (architecture, backbone, 7)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_multi_grid_dilations(backbone):
    resnet = on_meta("cac", backbone, 2).backbone
    rates = {
        stage: [
            {m.dilation for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
            for block in getattr(resnet, stage)
        ]
        for stage in ("layer1", "layer2", "layer3", "layer4")
    }
    for stage in ("layer1", "layer2", "layer3"):
        assert all(block == {(1, 1)} for block in rates[stage])
    assert rates["layer4"] == [{(r, r)} for r in (2, 4, 8)][: len(resnet.layer4)]
    assert all(m.stride == (1, 1) for m in resnet.layer4.modules() if isinstance(m, nn.Conv2d))
    dilated = [m for m in resnet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(m.padding == m.dilation for m in dilated)


def test_atrous_rates_of_both_pyramids():
    for architecture in ARCHITECTURES:
        aspp = on_meta(architecture, "resnet18", 2).aspp
        convolutions = [m for m in aspp.branches.modules() if isinstance(m, nn.Conv2d)]
        assert [m.dilation[0] for m in convolutions] == [1, 6, 12, 18]
        assert [m.kernel_size[0] for m in convolutions] == [1, 3, 3, 3]


def test_dropout_is_only_in_cac():
    def rates(network):
        return sorted(m.p for m in network.modules() if isinstance(m, nn.Dropout))

    assert rates(on_meta("cac", "resnet18", 2)) == [0.1, 0.5, 0.5]
    assert rates(on_meta("cps", "resnet18", 2)) == []


def test_classify_applies_dropout_in_training():
    features = torch.ones(1, 16, 4, 4)
    for architecture, varies in (("cac", True), ("cps", False)):
        network = small(architecture)
        assert torch.equal(network.classify(features), network.classify(features)) is not varies
        network.eval()
        assert torch.equal(network.classify(features), network.classify(features))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_logits_are_upsampled_logits(architecture):
    network, x = small(architecture).eval(), images()
    expected = F.interpolate(network(x), size=(33, 49), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network.full_logits(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("width", "reduced"), [(256, 48), (128, 24), (16, 8)])
def test_head_width_scales_the_head(width, reduced):
    network = on_meta("cac", "resnet50", 21, head_width=width, projector=True)
    assert network.decoder.reduce[0].out_channels == reduced
    assert network.classifier.in_channels == network.projector[0].out_channels == width
    assert network.projector[2].out_channels == 128


def _randomise_norms(module):
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor, low in ((m.weight, 0.5), (m.bias, -0.5), (m.running_mean, -0.5), (m.running_var, 0.5)):
                nn.init.uniform_(tensor, low, low + 1)


def test_concatenating_pyramid_is_the_textbook_one():
    aspp = small("cac").aspp.double().eval()
    _randomise_norms(aspp)
    x = torch.randn(2, 512, 5, 7, dtype=torch.float64)
    pooled = aspp.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, 5, 7)
    merged = aspp.merge(torch.cat([*(branch(x) for branch in aspp.branches), pooled], 1))
    torch.testing.assert_close(aspp(x), F.relu(aspp.norm(merged)), rtol=1e-10, atol=1e-10)


def test_summing_pyramid_is_concatenation_with_leaky_relu():
    aspp = small("cps").aspp.double().eval()
    _randomise_norms(aspp)
    x = torch.randn(2, 512, 5, 7, dtype=torch.float64)
    spatial = aspp.branch_norm(torch.cat([branch(x) for branch in aspp.branches], 1))
    pooled = aspp.pooled_norm(aspp.pooled(F.adaptive_avg_pool2d(x, 1))).expand(-1, -1, 5, 7)
    weight = torch.cat([aspp.merge.weight, aspp.merge_pooled.weight], 1)
    merged = F.conv2d(F.leaky_relu(torch.cat([spatial, pooled], 1), 0.01), weight)
    torch.testing.assert_close(aspp(x), F.leaky_relu(aspp.norm(merged), 0.01), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initialisation(architecture):
    network = small(architecture, classes=200, width=64, projector=True)
    for name, module in network.named_modules():
        if name.startswith("projector") or not isinstance(module, nn.Conv2d):
            continue
        fan = module.out_channels if name.startswith("backbone") else module.in_channels
        std = math.sqrt(2 / (fan * module.kernel_size[0] ** 2))
        relative_error = 5 / math.sqrt(2 * module.weight.numel())
        assert module.weight.std().item() == pytest.approx(std, rel=relative_error), name
    # torch's own: uniform within 1/sqrt(fan in).
    for parameter in (network.classifier.bias, *network.projector.parameters()):
        assert parameter.abs().max() <= 1 / 8
        assert parameter.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.2)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_image_trains_with_a_clear_error(architecture):
    network, x = small(architecture), images(batch=1)
    with pytest.raises(UsageError, match="batch of at least 2"):
        network(x)
    assert network.eval()(x).shape == (1, 5, 9, 13)


class Layouts(TorchDispatchMode):
    """Collects the operators that give a map in another layout than channels-last."""

    def __init__(self):
        super().__init__()
        self.strayed = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            is_map = torch.is_tensor(tensor) and tensor.ndim == 4 and min(tensor.shape[2:]) > 1
            if is_map and not tensor.is_contiguous(memory_format=torch.channels_last):
                self.strayed.append(str(function))
        return result


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_map_is_channels_last(architecture):
    network = small(architecture, projector=True).to(memory_format=torch.channels_last)
    x = images(height=65, width=65).contiguous(memory_format=torch.channels_last)
    with Layouts() as layouts:
        features = network.features(x)
        network.project(features)
        network.classify(features)
    assert not layouts.strayed


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_autocast_stays_close_and_trains(architecture):
    network, x = small(architecture, projector=True), images()
    network.eval()
    exact = network.full_logits(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network.full_logits(x)
    assert (rounded - exact).abs().max() < 0.1 * exact.abs().max()
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        features = network.features(x)
        loss = network.classify(features).float().mean() + network.project(features).float().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_reads_no_value_on_the_host(architecture):
    with FakeTensorMode():
        network = build_network(architecture, "resnet18", 5, head_width=16)
        network.full_logits(torch.empty(2, 3, 33, 49)).sum().backward()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_to_one_graph(architecture):
    network, x = small(architecture).eval(), images()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("pspnet", "resnet50", 21), "architecture 'pspnet': choose one of cac, cps"),
        (("cac", "resnet152", 21), "backbone 'resnet152': choose one of resnet18"),
        (("cac", "resnet50", 0), "num_classes must be at least 1"),
    ],
)
def test_unknown_networks_are_refused(arguments, named):
    with pytest.raises(UsageError, match=named):
        build_network(*arguments)


def test_projection_needs_a_projector():
    with pytest.raises(RuntimeError, match="projector=True"):
        small("cac").project(torch.zeros(1, 16, 2, 2))
