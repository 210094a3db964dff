"""`timm:NAME`, with random weights: nothing is downloaded."""

import sys

import pytest
import torch

from semiseg.engine.models import build_network, encoder_of, load_backbone
from semiseg.pipelines.errors import UsageError


def refusal(call, *args):
    with pytest.raises(UsageError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install -e '.[timm]'" in refusal(encoder_of, "timm:resnet14t")


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs pip install timm")


@pytest.mark.parametrize(
    ("name", "channels", "strides", "multiple"),
    [
        ("resnet18d", (64, 512), (4, 16), 1),
        ("mobilenetv3_small_100", (16, 576), (4, 16), 1),
        ("efficientnet_b0", (24, 320), (4, 16), 1),
        ("convnext_atto", (40, 320), (4, 16), 16),  # its stem takes whole patches of 4 pixels
        ("pvt_v2_b0", (32, 256), (4, 32), 1),  # cannot be dilated
    ],
)
def test_rows_of_models_that_give_maps(timm, name, channels, strides, multiple):
    encoder = encoder_of(f"timm:{name}")
    assert (encoder.channels, encoder.strides, encoder.multiple) == (channels, strides, multiple)
    assert encoder.least == max(multiple, *strides)
    config = timm.models.get_pretrained_cfg(name)
    assert (encoder.mean, encoder.std) == (config.mean, config.std)
    with torch.device("meta"):
        network = build_network("unimatch", f"timm:{name}", 3, head_width=16)
    maps = network.encode(torch.empty(2, 3, 64, 96, device="meta"))
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(channels, strides)]
    assert [each.shape for each in maps] == expected
    assert network.decode(maps).shape == (2, 16, 16, 24)


@pytest.mark.parametrize(
    ("name", "width", "patch"),
    [
        ("vit_tiny_patch16_224", 192, 16),  # positions of a square grid
        ("vit_small_patch16_dinov3", 384, 16),  # rotary ones, and register tokens
        ("vit_small_patch14_reg4_dinov2", 384, 14),
        ("naflexvit_base_patch16_gap", 768, 16),  # takes any size without being asked to
    ],
)
def test_rows_of_vision_transformers(timm, name, width, patch):
    encoder = encoder_of(f"timm:{name}")
    assert (encoder.channels, encoder.strides, encoder.multiple) == ((width,) * 4, (patch,) * 4, patch)
    with torch.device("meta"):
        network = build_network("dpt", f"timm:{name}", 3, head_width=16)
    assert network(torch.empty(2, 3, 4 * patch, 6 * patch, device="meta")).shape == (2, 3, 32, 48)
    assert "pass --network dpt" in refusal(build_network, "cac", f"timm:{name}", 3)


@torch.no_grad()
def test_tokens_of_a_vision_transformer_are_those_of_each_quarter_of_its_depth(timm):
    """Of DINOv2, which timm has, too, they are ours where positions are as they are stored."""
    torch.manual_seed(0)
    whole = timm.create_model("vit_small_patch14_dinov2")
    encoder, ours = encoder_of("timm:vit_small_patch14_dinov2"), encoder_of("dinov2_small").build().eval()
    module = encoder.build().eval()
    module.load_state_dict(encoder.adapt({name: torch.randn_like(x) / 20 for name, x in whole.state_dict().items()}))
    state = {name.removeprefix("model."): x for name, x in module.state_dict().items()}
    ours.load_state_dict(state | {"mask_token": torch.zeros(1, 384)})
    images = torch.randn(1, 3, 518, 518)
    for map, expected in zip(module(images), ours(images), strict=True):
        torch.testing.assert_close(map, expected)


def test_normalisation_is_the_model_s_own(timm):
    assert encoder_of("timm:tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    assert encoder_of("timm:tf_efficientnet_lite0").fill == (128, 128, 128)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("beit_base_patch16_224", "does not take images of any size"),
        ("mixer_s32_224", "does not take images of any size"),
        ("swin_tiny_patch4_window7_224", "does not take images of any size"),
        ("samvit_base_patch16", r"of 32x48 pixels it makes maps of \[\(256, 2, 3\), .* instead of \[\(768, 2, 3\)"),
        ("resnet18x", "no model 'resnet18x'; did you mean timm:resnet18"),
        ("resnet18d.nope", "no weights 'nope' of resnet18d, but .*ra2_in1k"),
        ("", "no model ''"),
    ],
)
def test_models_of_no_use_and_unknown_ones_are_refused(timm, name, said):
    with pytest.raises(UsageError, match=said) as error:
        encoder_of(f"timm:{name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("resnet18d", "unimatch"),
        ("mobilenetv3_small_050", "unimatch"),
        ("convnext_atto", "unimatch"),
        ("vit_tiny_patch16_224", "dpt"),
        ("vit_small_patch16_dinov3", "dpt"),
    ],
)
def test_files_with_timm_s_names_load_strictly(timm, name, decoder, tmp_path):
    whole = timm.create_model(name).eval()
    state = {
        key: torch.rand_like(value) if value.is_floating_point() else value for key, value in whole.state_dict().items()
    }
    whole.load_state_dict(state)
    torch.save(state, tmp_path / "w.pth")
    network = build_network(decoder, f"timm:{name}", 3, head_width=16).eval()
    assert load_backbone(network, tmp_path / "w.pth") == str(tmp_path / "w.pth")
    own = network.backbone.state_dict()
    own = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
    given = {key.replace(".", "_"): value for key, value in state.items()}
    assert all(torch.equal(value, given[key.removeprefix("model.").replace(".", "_")]) for key, value in own.items())

    key = next(key for key in state if key.endswith(("conv1.weight", "conv_dw.weight", "fc1.weight")))
    torch.save({k: v for k, v in state.items() if k != key}, tmp_path / "less.pth")
    message = refusal(load_backbone, network, tmp_path / "less.pth")
    assert "missing" in message
    assert key.rpartition(".")[0].rpartition(".")[2] in message
    torch.save(state | {"strange.weight": torch.zeros(2)}, tmp_path / "more.pth")
    assert "strange.weight unexpected" in refusal(load_backbone, network, tmp_path / "more.pth")


@torch.no_grad()
def test_the_fine_map_is_that_of_timm_s_whole_model(timm, tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("resnet18d").eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    network = build_network("cac", "timm:resnet18d", 3, head_width=16).eval()
    load_backbone(network, tmp_path / "w.pth")
    x = torch.randn(1, 3, 65, 94)
    low = whole.layer1(whole.maxpool(whole.act1(whole.bn1(whole.conv1(x)))))
    torch.testing.assert_close(network.encode(x)[0], low, rtol=0, atol=0)


def test_timm_s_own_weights_are_loaded_by_timm_and_their_licence_is_said(timm, monkeypatch):
    create, network = timm.create_model, build_network("cac", "timm:resnet18d", 3, head_width=16)

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host\nsecond line")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    message = refusal(load_backbone, network, "imagenet")
    assert "timm's resnet18d.ra2_in1k (no route to host)" in message
    assert "--weights FILE" in message

    whole = create("resnet18d")
    torch.nn.init.constant_(whole.layer1[0].bn1.weight, 0.25)
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **options: whole if pretrained else create(name, **options)
    )
    assert load_backbone(network, "imagenet") == "timm's resnet18d.ra2_in1k (licence: apache-2.0)"
    assert (network.backbone.model.layer1[0].bn1.weight == 0.25).all()
