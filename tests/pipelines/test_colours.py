"""Colour matrices against the changes that they stand for, one after another, and against torchvision."""

import colorsys
import itertools

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as torchvision

from semiseg.pipelines import colours
from semiseg.pipelines.colours import Colouring, colour_matrix, colouring, ordered_matrices, unchanged
from semiseg.pipelines.draws import ProcessSamples
from semiseg.pipelines.views import Augmentation

DRAWS = 20_000
LUMA = np.array([0.299, 0.587, 0.114])
STRONG = Augmentation(
    jitter=0.8,
    jitter_order="random",
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    hue=0.25,
    gray=0.2,
    blur=0.5,
    sigma=(0.1, 2.0),
    blur_radius=6,
    blur_last=True,
)


def matrix(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, gray=False) -> np.ndarray:
    return colour_matrix(*(np.array([x]) for x in (brightness, contrast, saturation, hue, gray)))[0].astype(float)


def recoloured(colour, *arguments, **options) -> np.ndarray:
    change = matrix(*arguments, **options)
    return change[:, :3] @ np.asarray(colour, float) + change[:, 3]


def test_no_change_is_exactly_the_identity() -> None:
    assert np.array_equal(matrix(), np.eye(3, 4))


def test_gray_makes_the_three_channels_equal_and_keeps_the_luma() -> None:
    assert np.ptp(matrix(1.2, 0.7, 1.3, 0.05, True), axis=0) == pytest.approx(0, abs=1e-6)
    assert recoloured((255, 0, 0), gray=True) == pytest.approx(0.299 * 255, abs=1e-3)


def test_each_change_alone() -> None:
    colour = np.array([180.0, 90.0, 60.0])
    assert recoloured(colour, brightness=1.3) == pytest.approx(1.3 * colour, abs=1e-3)
    assert recoloured(colour, contrast=0.5) == pytest.approx(117 + 0.5 * (colour - 117), abs=0.1)
    luma = colour @ [0.299, 0.587, 0.114]
    assert recoloured(colour, saturation=0.25) == pytest.approx(luma + 0.25 * (colour - luma), abs=1e-3)


@pytest.mark.parametrize("hue", [-0.1, -0.04, 0.03, 0.1])
@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (128, 128, 128)]
)
def test_hue_turns_the_iq_plane(colour, hue) -> None:
    """The standard library's YIQ has rounded coefficients: hence the tolerance."""
    y, i, q = colorsys.rgb_to_yiq(*(np.array(colour) / 255))
    angle = -2 * np.pi * hue
    turned = y, i * np.cos(angle) - q * np.sin(angle), i * np.sin(angle) + q * np.cos(angle)
    r = turned[0] + 0.9468822 * turned[1] + 0.6235566 * turned[2]
    g = turned[0] - 0.2747880 * turned[1] - 0.6356910 * turned[2]
    b = turned[0] - 1.1085450 * turned[1] + 1.7090070 * turned[2]
    assert recoloured(colour, hue=hue) == pytest.approx(255 * np.array([r, g, b]), abs=6)


@pytest.mark.parametrize("hue", [-0.08, 0.08])
def test_hue_turns_the_way_that_hsv_counts(hue) -> None:
    colours = np.array([(150, 90, 80), (90, 150, 80), (80, 90, 150), (150, 140, 80)])
    for colour in colours:
        before, after = (colorsys.rgb_to_hsv(*(c / 255))[0] for c in (colour, recoloured(colour, hue=hue)))
        assert (after - before + 0.5) % 1 - 0.5 == pytest.approx(hue, abs=0.05)


def test_colours_spread_like_torchvision_s_jitter(photos, make_planner) -> None:
    photo = cv2.imread(str(photos.records[0].image), cv2.IMREAD_COLOR_RGB)[::12, ::12]
    jittered = Augmentation(range=(1.0, 1.0), jitter=1.0)
    view = make_planner(kind="plain", unlabeled=jittered, unlabeled_batch=200)(0).unlabeled[0].views[0]
    ours = np.clip(
        np.rint(
            np.einsum("bij,hwj->bhwi", view.colourings[0].matrix[..., :3], photo)
            + view.colourings[0].matrix[:, None, None, :, 3]
        ),
        0,
        255,
    )
    torch.manual_seed(0)
    jitter, tensor = ColorJitter(0.4, 0.4, 0.4, 0.1), torch.from_numpy(photo.copy()).permute(2, 0, 1)
    theirs = torch.stack([jitter(tensor) for _ in range(200)]).double().numpy()
    assert ours.mean() == pytest.approx(theirs.mean(), abs=5)
    assert ours.std((1, 2)).mean() == pytest.approx(theirs.std((2, 3)).mean(), rel=0.1)
    assert ours.mean((1, 2, 3)).std() == pytest.approx(theirs.mean((1, 2, 3)).std(), rel=0.25)


def draw(augmentation: Augmentation, count: int = DRAWS) -> Colouring:
    samples = ProcessSamples(seed=5, batch=count, rank=0, world=1, shared=1)
    return colouring(samples.draws(1, 0, colours.PER_COLOURING), augmentation)


def applied(picture: np.ndarray, matrix: np.ndarray, by_mean: np.ndarray) -> np.ndarray:
    """Grey levels (H, W, 3), not rounded, of one picture."""
    return picture @ matrix[:, :3].T + matrix[:, 3] + by_mean @ picture.mean((0, 1))


def one_after_another(picture, brightness, contrast, saturation, hue, gray, order) -> np.ndarray:
    """The definition, on pictures: hue as a turn about the grey axis, in an orthonormal basis of the colours."""
    axis = np.linalg.qr(np.column_stack([np.ones(3), [1, -1, 0], [0, 1, -1]]))[0]
    for change in order:
        luma = (picture @ LUMA)[..., None]
        if change == 0:
            picture = brightness * picture
        elif change == 1:
            picture = luma.mean() + contrast * (picture - luma.mean())
        elif change == 2:
            picture = luma + saturation * (picture - luma)
        else:
            coordinates = picture @ axis
            plane = coordinates[..., 1] + 1j * coordinates[..., 2]
            red_to_green = (axis[1, 1:] @ [1, 1j]) / (axis[0, 1:] @ [1, 1j])  # a third of the circle
            plane = plane * np.exp(3j * np.angle(red_to_green) * hue)
            picture = np.stack([coordinates[..., 0], plane.real, plane.imag], -1) @ axis.T
    return np.repeat((picture @ LUMA)[..., None], 3, -1) if gray else picture


@pytest.mark.parametrize("gray", [False, True])
def test_changes_in_any_order_are_one_matrix_and_the_mean_s_share(gray) -> None:
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (7, 9, 3)) * [1.0, 0.5, 0.2]
    orders = list(itertools.permutations(range(4)))
    factors = [*rng.uniform(0.5, 1.5, (3, 24)), rng.uniform(-0.25, 0.25, 24)]
    matrices, by_means = ordered_matrices(*factors, np.full(24, gray), np.array(orders))
    for matrix, by_mean, order, *drawn in zip(matrices, by_means, orders, *factors):
        expected = one_after_another(picture, *drawn, gray, order)
        assert applied(picture, matrix, by_mean) == pytest.approx(expected, abs=1e-3)


def test_a_third_of_the_circle_exchanges_the_channels_as_in_hsv() -> None:
    one = np.ones(1)
    for hue in (1 / 3, -1 / 3):
        matrix, by_mean = ordered_matrices(one, one, one, hue * one, one < 0, np.array([[0, 1, 2, 3]]))
        for colour in [(200, 90, 30), (10, 250, 40), (3, 4, 5)]:
            h, s, v = colorsys.rgb_to_hsv(*(np.array(colour) / 255))
            expected = 255 * np.array(colorsys.hsv_to_rgb((h + hue) % 1, s, v))
            seen = applied(np.array(colour, float)[None, None], matrix[0], by_mean[0])[0, 0]
            assert seen == pytest.approx(expected, abs=1e-3)


def test_changes_but_for_hue_are_torchvision_s_on_pillow_images(photos) -> None:
    photo = Image.open(photos.records[1].image).resize((60, 90))
    rng = np.random.default_rng(1)
    for order in itertools.permutations(range(3)):
        factors = rng.uniform(0.7, 1.3, 3)
        theirs = photo
        for change in order:
            adjust = (torchvision.adjust_brightness, torchvision.adjust_contrast, torchvision.adjust_saturation)[change]
            theirs = adjust(theirs, factors[change])
        matrix, by_mean = ordered_matrices(
            *(np.array([factor]) for factor in factors), np.zeros(1), np.zeros(1, bool), np.array([[*order, 3]])
        )
        ours = np.clip(applied(np.array(photo, float), matrix[0], by_mean[0]), 0, 255)
        assert np.abs(ours - np.array(theirs)).mean() < 2  # bytes between the changes are cut and clipped


def test_no_chance_changes_nothing() -> None:
    same = unchanged(3)
    assert (same.matrix == np.eye(3, 4)).all()
    assert not same.blur.any()
    never = draw(Augmentation(jitter_order="random"), 50)
    assert never.matrix == pytest.approx(np.tile(np.eye(3, 4), (50, 1, 1)), abs=1e-6)
    assert never.by_mean == pytest.approx(0, abs=1e-6)
    assert not never.blur.any()


def test_chances_orders_and_sigmas_have_the_laws_told(monkeypatch) -> None:
    orders = []

    def spy(*arguments):
        orders.append(arguments)
        return ordered_matrices(*arguments)

    monkeypatch.setattr(colours, "ordered_matrices", spy)
    drawn = draw(STRONG)
    ((brightness, contrast, saturation, hue, gray, order),) = orders
    jittered = brightness != 1
    assert jittered.mean() == pytest.approx(0.8, abs=0.01)
    for factor, centre, reach in ((brightness, 1, 0.5), (contrast, 1, 0.5), (saturation, 1, 0.5), (hue, 0, 0.25)):
        quantiles = np.quantile(factor[jittered], [0, 0.25, 0.5, 0.75, 1])
        assert quantiles == pytest.approx(centre + reach * np.linspace(-1, 1, 5), abs=0.03 * reach)
    _, counts = np.unique(order[jittered], axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts / jittered.sum() == pytest.approx(1 / 24, abs=0.006)
    first = [brightness[jittered & (order[:, 0] == change)].mean() for change in range(4)]
    assert first == pytest.approx([1] * 4, abs=0.02)  # the order says nothing about the factors
    assert (gray.mean(), drawn.blur.mean()) == pytest.approx((0.2, 0.5), abs=0.012)
    sigma = drawn.sigma[drawn.blur]
    assert np.quantile(sigma, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx(np.linspace(0.1, 2.0, 5), abs=0.03)
    chances = np.corrcoef([jittered, gray, drawn.blur])
    assert np.abs(chances - np.eye(3)).max() < 0.03


def test_strong_colours_spread_like_torchvision_s_on_pillow_images(photos) -> None:
    """Means and spreads of a photograph: lightness, contrast, red minus blue."""

    def measures(pictures: np.ndarray) -> np.ndarray:
        luma = pictures @ LUMA
        return np.stack([luma.mean((1, 2)), luma.std((1, 2)), (pictures[..., 0] - pictures[..., 2]).mean((1, 2))], 1)

    photo = Image.open(photos.records[0].image).resize((25, 20))
    drawn, picture = draw(STRONG, 1500), np.array(photo, float)
    ours = np.stack([applied(picture, *both) for both in zip(drawn.matrix, drawn.by_mean)])
    torch.manual_seed(0)
    jitter = ColorJitter(0.5, 0.5, 0.5, 0.25)
    pictures = [jitter(photo) if torch.rand(()) < 0.8 else photo for _ in range(1500)]
    theirs = np.stack([np.array(one.convert("L").convert("RGB") if torch.rand(()) < 0.2 else one) for one in pictures])
    ours, theirs = measures(np.clip(np.rint(ours), 0, 255)), measures(theirs.astype(float))
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    difference = np.abs(np.quantile(ours, levels, axis=0) - np.quantile(theirs, levels, axis=0))
    assert difference.max() < 6
    assert difference.mean() < 3


@pytest.mark.parametrize("order", ["fixed", "random"])
def test_each_strength_belongs_to_its_change(order):
    draws = ProcessSamples(seed=0, batch=64, rank=0, world=1, shared=1).draws(0, 0, colours.PER_COLOURING)
    strength = 1 + 0.3 * (2 * draws.numbers[:, 1:5] - 1)
    one = {"jitter": 1.0, "jitter_order": order, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    brightness = colouring(draws, Augmentation(**one | {"brightness": 0.3})).matrix[:, :, :3]
    np.testing.assert_allclose(brightness, strength[:, 0, None, None] * np.eye(3), atol=1e-5)
    draws = ProcessSamples(seed=0, batch=64, rank=0, world=1, shared=1).draws(0, 0, colours.PER_COLOURING)
    contrast = colouring(draws, Augmentation(**one | {"contrast": 0.3})).matrix[:, :, :3]
    np.testing.assert_allclose(contrast, strength[:, 1, None, None] * np.eye(3), atol=1e-5)
