import copy
import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from semiseg.engine.models import DECODERS, ENCODERS, build_network, evaluating
from semiseg.pipelines.errors import UsageError


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


@pytest.mark.parametrize("architecture", DECODERS)
@pytest.mark.parametrize("backbone", ENCODERS)
def test_output_sizes(architecture, backbone):
    network = on_meta(architecture, backbone, 7, head_width=32, projector=True)
    x = torch.empty(2, 3, 65, 97, device="meta")
    low, high = network.encode(x)
    features = network.decode((low, high))
    assert low.shape == (2, 64 if backbone in ("resnet18", "resnet34") else 256, 17, 25)
    assert high.shape == (2, 512 if backbone in ("resnet18", "resnet34") else 2048, 5, 7)
    assert network.features(x).shape == features.shape
    assert network.stride == 4
    assert (network.mean, network.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert features.shape == (2, 32, 17, 25)
    assert network.project(features).shape == (2, 128, 17, 25)
    assert network.classify(features).shape == network(x).shape == (2, 7, 17, 25)
    assert (network.architecture, network.backbone_name, network.num_classes) == (architecture, backbone, 7)


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


@pytest.mark.parametrize(("width", "reduced"), [(256, 48), (128, 24), (16, 8)])
def test_head_width_scales_the_head(width, reduced):
    network = on_meta("cac", "resnet50", 21, head_width=width, projector=True)
    assert network.decoder.reduce[0].out_channels == reduced
    assert network.classifier.in_channels == network.projector[0].out_channels == width
    assert network.projector[2].out_channels == 128


@pytest.mark.parametrize("architecture", DECODERS)
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


@pytest.mark.parametrize("architecture", DECODERS)
def test_every_map_is_channels_last(architecture):
    network = small(architecture, projector=True).to(memory_format=torch.channels_last)
    strayed = []

    def look(module, inputs, result):
        for tensor in result if isinstance(result, tuple) else (result,):
            if min(tensor.shape[2:]) > 1 and not tensor.is_contiguous(memory_format=torch.channels_last):
                strayed.append(module)

    for module in network.modules():
        module.register_forward_hook(look)
    x = images(height=65, width=65).contiguous(memory_format=torch.channels_last)
    features = network.features(x)
    network.project(features)
    network.classify(features)
    assert not strayed


@pytest.mark.parametrize("architecture", DECODERS)
def test_bfloat16_autocast_stays_close_and_trains(architecture):
    network, x = small(architecture, projector=True), images()
    network.eval()
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x)
    assert (rounded - exact).abs().max() < 0.1 * exact.abs().max()
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        features = network.features(x)
        loss = network.classify(features).float().mean() + network.project(features).float().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("architecture", DECODERS)
def test_training_reads_no_value_on_the_host(architecture):
    with FakeTensorMode():
        network = build_network(architecture, "resnet18", 5, head_width=16)
        network(torch.empty(2, 3, 33, 49)).sum().backward()


@pytest.mark.parametrize("architecture", DECODERS)
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


def test_a_copy_of_a_compiled_network_has_its_own_weights():
    network, x = small("cac").eval(), images()
    eager = network.features(x)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    network.compile(backend=backend, fullgraph=True)
    torch.testing.assert_close(network.features(x), eager)
    assert len(graphs) == 3  # backbone, ASPP, decoder

    teacher = copy.deepcopy(network)
    fresh = small("cac").eval()
    for own, other, plain in zip(teacher.parameters(), network.parameters(), fresh.parameters(), strict=True):
        own.data.mul_(0.9)
        plain.data.mul_(0.9)
        assert own is not other
    torch.testing.assert_close(teacher.features(x), fresh.features(x))
    assert not torch.allclose(teacher.features(x), eager)
    torch.testing.assert_close(network.features(x), eager)
    assert network.state_dict().keys() == fresh.state_dict().keys()


def test_evaluating_neither_learns_nor_compiles_and_restores_the_mode():
    network, x = small("cac"), images()

    def refuse(graph, inputs):
        raise AssertionError("compiled")

    network.compile(backend=refuse)
    before = copy.deepcopy(network.state_dict())
    for training in (True, False):
        network.train(training)
        with evaluating(network):
            assert not network.training
            assert not network(x).requires_grad
        assert all(module.training is training for module in network.modules())
    with pytest.raises(ValueError, match="within"), evaluating(network.train()):
        raise ValueError("within")
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_projection_needs_a_projector():
    with pytest.raises(RuntimeError, match="projector=True"):
        small("cac").project(torch.zeros(1, 16, 2, 2))
