"""How the colours of windows change: drawn factors as matrices that act on grey levels, and blur."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .draws import Draws
from .views import Augmentation

LUMA = np.array([0.299, 0.587, 0.114])
CYCLE = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
MEAN_LUMA = 117.0  # grey level of the mean colour of ImageNet: the centre about which contrast changes in fixed order
ORDERS = np.array(list(itertools.permutations(range(4))))
PER_COLOURING = 7  # random numbers: jitter or not, four strengths, grey, blur


@dataclass(frozen=True, slots=True)
class Colouring:
    """One way to colour each of B windows."""

    matrix: np.ndarray
    """(B, 3, 4) float32, for grey levels 0..255; the last column is added."""
    blur: np.ndarray
    """(B,) bool."""
    sigma: np.ndarray
    """(B,) float32: the standard deviation of the blur, pixels."""
    by_mean: np.ndarray | None = None
    """(B, 3, 3) float32: times the window's mean colour, it is added too. None where nothing depends on the mean."""
    radius: int = 1
    """Pixels that the blur reaches to each side."""
    blur_last: bool = False
    """Blur comes after the matrix, not before."""


def unchanged(count: int) -> Colouring:
    """`count` windows as they are."""
    return Colouring(
        np.tile(np.eye(3, 4, dtype=np.float32), (count, 1, 1)), np.zeros(count, bool), np.ones(count, np.float32)
    )


def colouring(draws: Draws, augmentation: Augmentation) -> Colouring:
    """Colours of each window; PER_COLOURING numbers are drawn.

    A number below a probability, divided by it, is uniform again: what happened by chance needs no other number for
    how it happened.
    """
    jitter, strength = draws.take(), 2 * draws.take(4) - 1
    gray, blur = draws.take() < augmentation.gray, draws.take()
    jittered, blurred = jitter < augmentation.jitter, blur < augmentation.blur
    bounds = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    brightness, contrast, saturation, hue = np.where(jittered[:, None], strength, 0).T * np.array(bounds)[:, None]
    factors = 1 + brightness, 1 + contrast, 1 + saturation, hue

    low, high = augmentation.sigma
    sigma = np.where(blurred, low + (high - low) * blur / (augmentation.blur or 1), low).astype(np.float32)
    by_mean: np.ndarray | None = None
    if augmentation.jitter_order == "fixed":
        matrix = colour_matrix(*factors, gray)
    else:
        order = np.where(jittered, np.floor(jitter / (augmentation.jitter or 1) * len(ORDERS)), 0).astype(np.int64)
        matrix, by_mean = ordered_matrices(*factors, gray, ORDERS[order])
    return Colouring(matrix, blurred, sigma, by_mean, augmentation.blur_radius, augmentation.blur_last)


def colour_matrix(
    brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray, hue: np.ndarray, gray: np.ndarray
) -> np.ndarray:
    """(B, 3, 4) float32 matrices for grey levels 0..255; row vector (r, g, b, 1) on the right.

    Brightness scales, contrast scales about the mean luma, saturation blends with the luma, hue (in turns) rotates the
    IQ plane; gray (bool) then keeps the luma alone. One order and one centre make it one matrix.
    """
    linear = _turn(hue) @ _saturation(saturation)
    linear = np.where(gray[:, None, None], np.tile(LUMA, (3, 1)) @ linear, linear)
    shift = (linear @ np.full(3, MEAN_LUMA)) * (1 - contrast)[:, None]
    matrix = np.concatenate([linear * (brightness * contrast)[:, None, None], shift[..., None]], -1)
    unchanged = (brightness == 1) & (contrast == 1) & (saturation == 1) & (hue == 0) & ~gray
    matrix[unchanged] = np.eye(3, 4)
    return matrix.astype(np.float32)


def ordered_matrices(
    brightness: np.ndarray,
    contrast: np.ndarray,
    saturation: np.ndarray,
    hue: np.ndarray,
    gray: np.ndarray,
    order: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The same changes one after another, contrast about the mean luma that the window then has: (B, 3, 4) float32 for
    its grey levels and (B, 3, 3) float32 for its mean colour.

    order (B, 4): 0 brightness, 1 contrast, 2 saturation, 3 hue, the first one first, as torchvision's ColorJitter has
    them.

    Every change takes a window's mean and its deviations from it to those of the result. Contrast scales the
    deviations and draws the mean to its own luma, as saturation would; the other changes do the same to both. Hue turns
    colours about the grey axis: a third of the circle exchanges the channels, as in HSV, and other turns are near it,
    which those of the IQ plane, where the luma stays, are not.
    """
    scaled, contrasted = (factor[:, None, None] * np.eye(3) for factor in (brightness, contrast))
    saturated, turned = _saturation(saturation), _turn_about_gray(hue)
    deviation = _composed(np.stack([scaled, contrasted, saturated, turned], 1), order)
    mean = _composed(np.stack([scaled, _saturation(contrast), saturated, turned], 1), order)
    luma = np.where(gray[:, None, None], np.tile(LUMA, (3, 1)), np.eye(3))
    deviation, mean = luma @ deviation, luma @ mean
    matrix = np.concatenate([deviation, np.zeros((len(order), 3, 1))], -1)
    return matrix.astype(np.float32), (mean - deviation).astype(np.float32)


def _composed(changes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(B, 3, 3): changes (B, 4, 3, 3) in their order (B, 4), the first one on the right."""
    first, second, third, last = np.take_along_axis(changes, order[..., None, None], 1).swapaxes(0, 1)
    return last @ third @ second @ first


def _saturation(factor: np.ndarray) -> np.ndarray:
    """(B, 3, 3): colours blended with their luma."""
    return factor[:, None, None] * np.eye(3) + (1 - factor)[:, None, None] * np.tile(LUMA, (3, 1))


def _turn(hue: np.ndarray) -> np.ndarray:
    """(B, 3, 3): the IQ plane turned by a share of the circle, the way that HSV counts."""
    turn = np.tile(np.eye(3), (len(hue), 1, 1))
    angle = -2 * np.pi * hue
    turn[:, 1, 1], turn[:, 1, 2] = np.cos(angle), -np.sin(angle)
    turn[:, 2, 1], turn[:, 2, 2] = np.sin(angle), np.cos(angle)
    return np.linalg.inv(TO_YIQ) @ turn @ TO_YIQ


def _turn_about_gray(hue: np.ndarray) -> np.ndarray:
    """(B, 3, 3): colours turned about the grey axis by a share of the circle, the way that HSV counts."""
    angle = 2 * np.pi * hue[:, None, None]
    return np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.sin(angle) / np.sqrt(3) * CYCLE
