"""Images in memory: what is said of them is what a prediction writes, and nothing around is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.engine import Segmenter, load_network, predict
from semiseg.engine.checkpoint import header_of, save_network
from semiseg.engine.evaluation import memory
from semiseg.engine.models import build_network
from semiseg.kernels import upsample
from semiseg.kernels.precision import PLACES, precision_kept
from semiseg.pipelines.datasets.dataset import voc_colours
from semiseg.pipelines.errors import UsageError

LOOKS = [
    {"scale": 1.0},
    {"protocol": "slide", "window": 32, "scales": (0.5, 1.0, 1.5), "flip": True},
    {"protocol": "unimatch-slide", "window": 24},
    {"protocol": "cps-slide", "window": 32, "scales": (1.0, 1.5)},
    {"protocol": "dino-whole", "multiple": 14},
]


def noise(*size, seed=0):
    """An image (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def segmenter_of(checkpoint, **more):
    return Segmenter(checkpoint, **{"device": "cpu", "precision": "fp32"} | more)


@pytest.fixture
def undecided(tiny, tmp_path):
    """A checkpoint of five classes, none of which it is sure of."""
    recipe, path = tiny("supervised", data=tmp_path), tmp_path / "undecided.safetensors"
    torch.manual_seed(0)
    network = build_network("cac", "resnet18", 5, head_width=16)
    save_network(path, network.state_dict(), header_of(recipe, network, tuple("abcde"), voc_colours(5)), recipe)
    return path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("look", LOOKS)
def test_it_says_what_a_prediction_writes(undecided, tmp_path, look, precision):
    images = [noise(32, 40), noise(61, 45, seed=1), noise(17, 90, seed=2)]
    (tmp_path / "new").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"new/{number}.png")
    done = predict(undecided, tmp_path / "new", tmp_path / "out", device="cpu", precision=precision, **look)
    means = {one.image: one.confidence for one in done.confidences}
    segmenter = segmenter_of(undecided, precision=precision, **look)
    for number, (image, alone) in enumerate(zip(images, segmenter(images), strict=True)):
        written = np.asarray(Image.open(done.out / f"masks/{number}.png"))
        assert len(np.unique(written)) > 1
        for found in (alone, segmenter(image), segmenter(image, probabilities=True)):
            assert found.labels.dtype == np.uint8
            np.testing.assert_array_equal(found.labels, written)
            assert found.confidence.dtype == np.float32
            assert found.confidence.shape == written.shape
            assert found.confidence.mean(dtype=np.float64) == pytest.approx(means[f"{number}.png"], abs=1e-6)
        assert alone.probabilities is None


@pytest.mark.parametrize("look", LOOKS)
def test_probabilities_are_those_of_the_labels(undecided, look):
    image = noise(61, 45)
    labels, sure, shares = segmenter_of(undecided, **look)(image, probabilities=True)
    assert (shares.shape, shares.dtype) == ((5, 61, 45), np.float32)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(shares.argmax(0), labels)
    np.testing.assert_allclose(shares.max(0), sure, atol=1e-6)


def test_probabilities_are_the_softmax_of_what_the_network_says(undecided):
    image, loaded = noise(32, 40), load_network(undecided)
    shown = ((image / 255 - loaded.network.mean) / loaded.network.std).transpose(2, 0, 1)
    with torch.no_grad():
        logits = upsample(loaded.network(torch.from_numpy(shown[None]).float()), (32, 40))[0].double().numpy()
    odds = np.exp(logits)
    found = segmenter_of(undecided, scale=1)(image, probabilities=True)
    np.testing.assert_allclose(found.probabilities, odds / odds.sum(0), atol=1e-5)


@pytest.mark.parametrize("look", LOOKS)
def test_probabilities_do_not_hang_on_how_often_the_network_looks(judged, look):
    found = segmenter_of(judged(bias=(0.0, np.log(3.0))), **look)(noise(50, 50), probabilities=True)
    np.testing.assert_allclose(found.probabilities[1], 0.75, atol=1e-6)


def test_of_two_classes_that_rounding_makes_as_probable_the_label_has_more(judged):
    """Of these logits the second one is larger, and both probabilities round to a half."""
    labels, _, shares = segmenter_of(judged(bias=(0.0, 1e-9)))(noise(32, 32), probabilities=True)
    assert (labels == 1).all()
    assert (shares[1] > shares[0]).all()
    np.testing.assert_allclose(shares, 0.5, atol=1e-6)


def test_the_checkpoint_is_read_once(undecided):
    segmenter = segmenter_of(undecided)
    before = segmenter(noise(32, 40))
    weights = [parameter.data_ptr() for parameter in segmenter.network.parameters()]
    undecided.unlink()
    np.testing.assert_array_equal(segmenter(noise(32, 40)).labels, before.labels)
    assert [parameter.data_ptr() for parameter in segmenter.network.parameters()] == weights
    assert segmenter.header.classes[1] == "b"


def test_arrays_may_lie_in_memory_as_they_like_and_stay_as_they_are(undecided):
    segmenter, image = segmenter_of(undecided), noise(32, 40)
    expected = segmenter(image).labels
    held = image.copy()
    held.flags.writeable = False
    backwards = np.ascontiguousarray(image[..., ::-1])[..., ::-1]  # as of frames whose channels are BGR
    spread = np.repeat(image, 2, 1)[:, ::2]
    for same in (held, backwards, spread, np.asarray(Image.fromarray(image))):
        found = segmenter(same)
        np.testing.assert_array_equal(found.labels, expected)
        np.testing.assert_array_equal(same, image)
        assert found.labels.flags.c_contiguous
        assert found.labels.flags.writeable
    assert segmenter([]) == []


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (
            noise(32, 40) / 255,
            r"image: must be RGB as a numpy array \(H, W, 3\) of uint8, .*, is float64 of shape \(32",
        ),
        (noise(32, 40)[..., 0], r"is uint8 of shape \(32, 40\)"),
        (noise(32, 40).transpose(2, 0, 1), r"is uint8 of shape \(3, 32, 40\)"),
        (np.zeros((32, 40, 4), np.uint8), r"is uint8 of shape \(32, 40, 4\)"),
        (noise(32, 40)[None], r"or a list of such, is uint8 of shape \(1, 32, 40, 3\)"),
        (noise(0, 40), r"is uint8 of shape \(0, 40, 3\)"),
        (noise(32, 40).astype(np.int8), "is int8 of"),
        (torch.zeros(32, 40, 3, dtype=torch.uint8), "is a Tensor"),
        (Image.fromarray(noise(32, 40)), r"is a Image; of a Pillow image pass np\.asarray\(ImageOps\.exif_transpose"),
        ("photo.jpg", "is a str"),
        ([noise(32, 40), None], r"^image\[1\]: must be .*is a NoneType"),
    ],
)
def test_what_is_no_image_is_refused(undecided, image, says):
    with pytest.raises(UsageError, match=says):
        segmenter_of(undecided)(image)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"protocol": "nope"}, "--protocol: must be one of"),
        ({"window": 16}, "--window: whole sees images in one piece"),
        ({"widow": 16}, "widow: a protocol has no such setting"),
        ({"layout": "foo"}, "unknown layout 'foo'"),
        ({"precision": "bfloat16"}, "--precision: must be one of"),
        ({"device": "tpu"}, "--device: 'tpu' is no device"),
    ],
)
def test_settings_that_are_none_are_refused_at_once(undecided, settings, says):
    with pytest.raises(UsageError, match=says):
        segmenter_of(undecided, **settings)


def test_an_image_too_large_for_the_memory_is_named(undecided, monkeypatch):
    segmenter, images = segmenter_of(undecided, scale=1.0), [noise(32, 32), noise(300, 320)]
    monkeypatch.setattr(memory, "free_memory_of", lambda device, enough: 5_000_000)
    with pytest.raises(UsageError, match=r"^image\[1\]: is 320x300, for which whole needs more than .*GiB"):
        segmenter(images)
    with pytest.raises(UsageError, match=r"^frame 7: is 320x300"):
        segmenter(images[1], name="frame 7")
    assert segmenter(images[0]).labels.shape == (32, 32)


@pytest.mark.parametrize("setting", ["float64", "bfloat16", "autocast", "no_grad", "inference_mode", "meta"])
def test_what_the_program_around_has_set_does_not_count_and_stays(undecided, around, setting):
    segmenter, image = segmenter_of(undecided), noise(61, 45)
    expected = segmenter(image, probabilities=True)

    def state():
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        numbers = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
        return *modes, *numbers, torch.get_rng_state().tolist(), [place.fp32_precision for place in PLACES]

    with precision_kept(), around[setting]():
        torch.set_float32_matmul_precision("medium")
        before = state()
        found = segmenter(image, probabilities=True)
        assert state() == before
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in segmenter.network.parameters())
