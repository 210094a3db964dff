import copy
import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from semiseg.engine.models import DECODERS, ENCODERS, build_network, evaluating, of_projector
from semiseg.pipelines.errors import UsageError


def small(decoder, classes=5, width=16, backbone=None, **options):
    torch.manual_seed(0)
    return build_network(decoder, backbone or BACKBONE[decoder], classes, head_width=width, **options)


BACKBONE = {name: "dinov2_small" if design.maps == 4 else "resnet18" for name, design in DECODERS.items()}
"""The smallest that goes with each decoder."""
PAIRS = [(d, e) for d in DECODERS for e in ENCODERS if DECODERS[d].maps == len(ENCODERS[e].strides)]


def on_meta(*args, **options):
    with torch.device("meta"):
        return build_network(*args, **options)


def images(batch=2, height=42, width=56, seed=1, dtype=None):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def count(parameters):
    return sum(p.numel() for p in parameters)


@pytest.mark.parametrize(
    ("decoder", "backbone", "total", "in_backbone"),
    [
        ("cac", "resnet50", 40_450_869, 23_508_032),
        ("cac", "resnet101", 59_442_997, 42_500_160),
        ("cps", "resnet50", 40_475_957, 23_631_808),
        ("unimatch", "resnet50", 40_475_957, 23_631_808),
        ("u2pl", "resnet50", 45_467_861, 23_631_808),
        ("dpt", "dinov2_small", 24_795_637, 22_056_576),
        ("dpt", "dinov2_base", 97_528_789, 86_580_480),
        ("dpt", "dinov2_large", 335_579_157, 304_368_640),
    ],
)
def test_published_parameter_counts(decoder, backbone, total, in_backbone):
    network = on_meta(decoder, backbone, 21, projector=decoder in ("cac", "u2pl"))
    assert count(network.parameters()) == total
    assert count(network.backbone_parameters()) == in_backbone


def test_parameter_groups_are_a_partition():
    network = on_meta("cac", "resnet50", 21, projector=True)
    groups = [*network.backbone_parameters(), *network.head_parameters()]
    assert len(groups) == len({id(p) for p in groups}) == 192
    assert {id(p) for p in groups} == {id(p) for p in network.parameters()}
    assert count(network.head_parameters()) == 16_942_837


@pytest.mark.parametrize(("decoder", "backbone"), PAIRS)
def test_output_sizes(decoder, backbone):
    network, encoder = on_meta(decoder, backbone, 7, head_width=32, projector=True), ENCODERS[backbone]
    height, width = (65, 97) if encoder.multiple == 1 else (5 * encoder.multiple, 7 * encoder.multiple)
    x = torch.empty(2, 3, height, width, device="meta")
    maps = network.encode(x)
    features = network.decode(maps)
    assert [each.shape[1] for each in maps] == list(encoder.channels)
    assert network.features(x).shape == features.shape
    assert network.stride == (1.75 if decoder == "dpt" else 4)
    assert (network.mean, network.std, network.multiple) == (encoder.mean, encoder.std, encoder.multiple)
    size = math.ceil(height / network.stride), math.ceil(width / network.stride)
    assert size == ((40, 56) if decoder == "dpt" else (17, 25))
    channels = network.classifier.in_channels
    assert features.shape == (2, 2 * channels if decoder == "u2pl" else channels, *size)
    assert channels == (32 if decoder != "dpt" else {384: 8, 768: 16, 1024: 32}[encoder.channels[0]])
    assert network.projection == (256 if decoder == "u2pl" else 128)
    assert network.project(features).shape == (2, network.projection, *size)
    assert network.classify(features).shape == network(x).shape == (2, 7, *size)
    assert (network.decoder_name, network.backbone_name, network.num_classes) == (decoder, backbone, 7)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "efficientnet_lite0"])
@pytest.mark.parametrize("side", [15, 33, 62, 64])
def test_a_longer_side_of_u2pl_s_pooling_is_that_of_all_maps(side, backbone):
    network = on_meta("u2pl", backbone, 2, head_width=16, projector=True)
    x = torch.empty(2, 3, side, side + 1, device="meta")
    low, high = network.encode(x)
    resnet = backbone.startswith("resnet")
    size = [(length + 1) // 4 + 1 if resnet else math.ceil(length / 4) for length in x.shape[2:]]
    assert list(low.shape[2:]) == list(network(x).shape[2:]) == size
    assert list(high.shape[2:]) == [math.ceil(length / (2 if resnet else 4)) for length in size]


@pytest.mark.parametrize("side", [321, 513, 801])
@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_crops_of_four_times_n_and_one_lie_on_the_corners_of_the_map(side, backbone):
    logits = on_meta("unimatch", backbone, 2, head_width=16)(torch.empty(2, 3, side, side, device="meta"))
    assert logits.shape == (2, 2, (side + 3) // 4, (side + 3) // 4)
    assert 4 * (logits.shape[-1] - 1) + 1 == side


def test_dropout_is_only_in_cac_and_u2pl():
    def rates(network, kind=nn.Dropout):
        return sorted(m.p for m in network.modules() if isinstance(m, kind))

    assert rates(on_meta("cac", "resnet18", 2)) == [0.1, 0.5, 0.5]
    assert rates(on_meta("cps", "resnet18", 2)) == []
    for projector, heads in ((False, 1), (True, 2)):
        network = on_meta("u2pl", "resnet18", 2, projector=projector)
        assert rates(network, nn.Dropout2d) == [0.1] * (1 + 2 * heads)
        assert rates(network) == []


def test_classify_applies_dropout_in_training():
    features = torch.ones(1, 16, 4, 4)
    for decoder, varies in (("cac", True), ("cps", False)):
        network = small(decoder)
        assert torch.equal(network.classify(features), network.classify(features)) is not varies
        network.eval()
        assert torch.equal(network.classify(features), network.classify(features))


@pytest.mark.parametrize(("width", "reduced"), [(256, 48), (128, 24), (16, 8)])
def test_head_width_scales_the_head(width, reduced):
    network = on_meta("cac", "resnet50", 21, head_width=width, projector=True)
    assert network.decoder.reduce[0].out_channels == reduced
    assert network.classifier.in_channels == network.projector[0].out_channels == width
    assert network.projector[2].out_channels == 128


@pytest.mark.parametrize("decoder", DECODERS)
def test_initialisation(decoder):
    network = small(decoder, classes=200, width=64 if DECODERS[decoder].aspp else 256, projector=True)
    for name, module in network.named_modules():
        if name.startswith(("projector", "backbone.patch_embed")) or not isinstance(module, nn.Conv2d):
            continue
        if not DECODERS[decoder].kaiming and not name.startswith("backbone"):
            bound = 1 / math.sqrt(module.weight[0].numel())  # torch's own: uniform within 1/sqrt(fan in)
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name
            continue
        fan = module.out_channels if name.startswith("backbone") else module.in_channels
        std = math.sqrt(2 / (fan * module.kernel_size[0] ** 2))
        relative_error = 5 / math.sqrt(2 * module.weight.numel())
        assert module.weight.std().item() == pytest.approx(std, rel=relative_error), name
    # torch's own: uniform within 1/sqrt(fan in).
    for parameter in (network.classifier.bias, *network.projector.parameters()):
        assert parameter.abs().max() <= 1 / 8
        assert parameter.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.2)
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
    assert norms
    assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_map_is_channels_last(decoder):
    network = small(decoder, projector=True).to(memory_format=torch.channels_last)
    strayed = []

    def look(module, inputs, result):
        for tensor in result if isinstance(result, tuple) else (result,):
            if (
                tensor is not inputs[0]  # the classifier's part of the features is passed on as a view
                and tensor.ndim == 4
                and min(tensor.shape[2:]) > 1
                and not tensor.is_contiguous(memory_format=torch.channels_last)
            ):
                strayed.append(module)

    for module in network.modules():
        module.register_forward_hook(look)
    x = images(height=70, width=70).contiguous(memory_format=torch.channels_last)
    features = network.features(x)
    network.project(features)
    network.classify(features)
    assert not strayed


@pytest.mark.parametrize("decoder", DECODERS)
def test_bfloat16_autocast_stays_close_and_trains(decoder):
    network, x = small(decoder, projector=True), images()
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
    idle = {name for name, p in network.named_parameters() if p.grad is None}
    # Published as well: the deepest fusion adds to nothing, and no patches are hidden.
    published = {"backbone.mask_token"} | {
        name for name, _ in network.named_parameters() if name.startswith("decoder.fusions.3.side")
    }
    assert idle == (published if decoder == "dpt" else set())
    assert all(p.grad.isfinite().all() for name, p in network.named_parameters() if name not in idle)


@pytest.mark.parametrize("decoder", DECODERS)
def test_training_reads_no_value_on_the_host(decoder):
    with FakeTensorMode():
        network = build_network(decoder, BACKBONE[decoder], 5, head_width=16)
        network(torch.empty(2, 3, 42, 56)).sum().backward()


@pytest.mark.parametrize("decoder", DECODERS)
def test_compiles_to_one_graph(decoder):
    network, x = small(decoder).eval(), images()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("pspnet", "resnet50", 21), "network 'pspnet': choose one of cac, cps"),
        (("cac", "resnet152", 21), "backbone 'resnet152': choose one of resnet18"),
        (("cac", "resnet5", 21), "did you mean resnet50"),
        (("cac", "dinov2_tiny", 21), "did you mean dinov2_"),
        (("cac", "resnet50", 0), "num_classes must be at least 1"),
        (("cac", "dinov2_small", 21), "takes 2 maps, and the backbone dinov2_small gives 4: pass --network dpt"),
        (("dpt", "resnet50", 21), "takes 4 maps, and the backbone resnet50 gives 2: pass --network cac or"),
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
    network.backbone.eval()  # as one freezes the statistics of an encoder
    modes = [module.training for module in network.modules()]
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_only_a_projector_of_u2pl_adds_to_the_features():
    """They are the same with it, and its part of them follows."""
    with_it, without, x = small("u2pl", projector=True).eval(), small("u2pl").eval(), images()
    state = with_it.state_dict()
    assert {name for name in state.keys() - without.state_dict().keys() if not of_projector(name)} == set()
    without.load_state_dict({name: state[name] for name in without.state_dict()})
    features = with_it.features(x)
    assert torch.equal(features[:, :16], without.features(x))
    assert torch.equal(with_it(x), without(x))
    assert torch.equal(with_it.classify(features), with_it(x))
    assert torch.equal(with_it.project(features), with_it.projector(features[:, 16:]))


def test_projection_needs_a_projector():
    with pytest.raises(RuntimeError, match="projector=True"):
        small("cac").project(torch.zeros(1, 16, 2, 2))


def test_joined_batches_are_normalised_as_one():
    """Of logits and of running statistics; otherwise each batch has statistics of its own."""
    one, other = images(2, seed=1, dtype=torch.float64), 3 * images(3, seed=2, dtype=torch.float64)
    separate = small("cps").double().train()
    joined, plain = copy.deepcopy(separate), copy.deepcopy(separate)
    joined.join()
    wanted = plain(torch.cat([one, other])).split([2, 3])
    torch.testing.assert_close(joined.logits_of_each(one, other), wanted)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(joined.state_dict()[name], value)
    assert (separate.logits_of_each(one, other)[0] - wanted[0]).norm() > 0.1 * wanted[0].norm()


def test_which_decoders_start_kaiming_normal():
    """As their programs: UniMatch's and its successor's leave torch's own."""
    assert {name for name, decoder in DECODERS.items() if decoder.kaiming} == {"cac", "cps"}
