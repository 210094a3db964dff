"""What is peculiar to DINOv2; `test_published_unimatch.py` holds the whole of it to a network written plainly."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semiseg.engine.models import ENCODERS
from semiseg.engine.models.encoders.dinov2 import DinoV2
from semiseg.pipelines.errors import UsageError


def tiny():
    torch.manual_seed(0)
    return DinoV2(128, 4, (0, 1, 2, 3)).double()


def test_positions_of_the_stored_grid_are_the_stored_ones():
    network = tiny()
    assert network.positions(37, 37) is network.pos_embed
    assert network.positions(37, 36).shape == (1, 1 + 37 * 36, 128)
    assert torch.equal(network.positions(3, 5)[:, :1], network.pos_embed[:, :1])


def test_positions_are_interpolated_by_the_factor_with_a_tenth():
    """On a plane the interpolation is right to a twentieth of a position, which shows where it reads."""
    network = tiny()
    rows, columns = torch.meshgrid(*[torch.arange(37.0, dtype=torch.float64)] * 2, indexing="ij")
    with torch.no_grad():
        network.pos_embed[0, 1:, 0], network.pos_embed[0, 1:, 1] = rows.flatten(), columns.flatten()
    for h, w in ((24, 10), (10, 24)):
        there = network.positions(h, w)[0, 1:, :2].unflatten(0, (h, w)).detach()
        for n, read in ((h, there[:, 5, 0]), (w, there[5, :, 1])):
            with_tenth, without = ((torch.arange(n) + 0.5) * 37 / (n + offset) - 0.5 for offset in (0.1, 0))
            inner = slice(1, n - 2)
            torch.testing.assert_close(read[inner], with_tenth[inner].double(), atol=0.05, rtol=0)
            assert (read[n - 3] - without[n - 3]).abs() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (3, 5), (23, 23), (37, 36), (57, 57)])
def test_positions_and_their_gradient_are_those_of_the_interpolation_of_the_whole_grid(dtype, h, w):
    """The published rule in one call, which has no deterministic gradient on a GPU."""
    network = tiny().to(dtype)
    nn.init.normal_(network.pos_embed)
    leaf = network.pos_embed.detach().clone().requires_grad_()
    grid = leaf[:, 1:].reshape(1, 37, 37, 128).permute(0, 3, 1, 2)
    factors = (h + 0.1) / 37, (w + 0.1) / 37
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
    expected = torch.cat([leaf[:, :1], grid.flatten(2).mT], 1)
    upstream = torch.randn_like(expected)
    (of_ours,) = torch.autograd.grad(network.positions(h, w), network.pos_embed, upstream)
    (of_theirs,) = torch.autograd.grad(expected, leaf, upstream)
    error = 1e-6 if dtype == torch.float32 else 1e-14
    assert (network.positions(h, w) - expected).abs().max() <= error * expected.abs().max()
    assert (of_ours - of_theirs).abs().max() <= 10 * error * of_theirs.abs().max()  # theirs adds up in float32


def test_positions_keep_their_precision_under_autocast():
    network = tiny().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = network.positions(3, 5)
    assert torch.equal(reduced, network.positions(3, 5))


def test_no_interpolation_is_differentiated():
    """On a GPU its gradient is another one in every run, which `--deterministic` refuses."""
    nodes, seen = [tiny().positions(3, 5).grad_fn], set()
    while nodes:
        node = nodes.pop()
        seen.add(node.name())
        nodes += [following for following, _ in node.next_functions if following is not None]
    assert any("Bmm" in name or "Mm" in name for name in seen)
    assert not any("Upsample" in name for name in seen)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gradient_of_positions_has_the_same_bits_in_every_run():
    network = tiny().float().cuda()
    upstream = torch.randn(1, 1 + 23 * 23, 128, device="cuda")
    torch.use_deterministic_algorithms(True)  # raises where there is no such gradient
    try:
        first, again = (torch.autograd.grad(network.positions(23, 23), network.pos_embed, upstream)[0] for _ in "ab")
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, again)


def test_sides_must_be_multiples_of_a_patch():
    with pytest.raises(UsageError, match="multiples of 14, are 28 and 30"):
        tiny()(torch.zeros(1, 3, 28, 30, dtype=torch.float64))


def test_maps_are_normalised_tokens_in_reading_order():
    network, x = tiny().eval(), torch.randn(2, 3, 28, 42, dtype=torch.float64)
    maps = network(x)
    with torch.no_grad():
        for each in maps:
            flat = F.layer_norm(each.permute(0, 2, 3, 1), (128,))
            torch.testing.assert_close(flat, each.permute(0, 2, 3, 1), atol=1e-4, rtol=0)
        shifted = x.clone()
        shifted[:, :, 14:, :14] += 1  # the patch of row 1, column 0
        change = (network.patch_embed(shifted) - network.patch_embed(x)).abs().sum((0, 2))
    assert change.nonzero().flatten().tolist() == [3]
    assert all(each.shape == (2, 128, 2, 3) for each in maps)


def test_random_weights_start_small_and_all_of_them_are_loaded_from_published_files():
    names = set(tiny().state_dict())
    assert {"cls_token", "pos_embed", "mask_token", "patch_embed.proj.bias", "blocks.3.ls2.gamma", "norm.bias"} < names
    assert not [name for name in names if "register" in name]
    with torch.device("meta"):
        sizes = {name: ENCODERS[name].build() for name in ENCODERS if name.startswith("dinov2")}
    assert [len(each.blocks) for each in sizes.values()] == [12, 12, 24]
    assert [each.taken for each in sizes.values()] == [(2, 5, 8, 11), (2, 5, 8, 11), (4, 11, 17, 23)]
    y = tiny()(torch.randn(1, 3, 28, 28, dtype=torch.float64))
    assert all(each.isfinite().all() for each in y)
