"""Sheets of samples: what is drawn where, and what the legend counts."""

import numpy as np
import pytest

from semiseg.engine.sheet import DARK, GAP, LIGHT, MARGIN, PAPER, Panel, Row, draw, font_of, shares

CLASSES = ("ground", "car", "tree")
PALETTE = ((10, 20, 30), (255, 128, 0), (0, 128, 0))
PICTURE = np.full((300, 400, 3), 100, np.uint8)


def mask(height=300, width=400):
    """A quarter of each class, and one that is ignored."""
    values = np.zeros((height, width), np.uint8)
    values[: height // 2, width // 2 :] = 1
    values[height // 2 :, : width // 2] = 2
    values[height // 2 :, width // 2 :] = 255
    return values


def colours(part):
    return set(map(tuple, np.asarray(part).reshape(-1, 3).tolist()))


def test_shares_are_of_all_pixels_and_count_ignored_ones():
    held = shares(mask(), CLASSES)
    assert [(s.value, s.name, s.pixels, s.share) for s in held] == [
        (0, "ground", 30000, 0.25),
        (1, "car", 30000, 0.25),
        (2, "tree", 30000, 0.25),
        (255, "ignored", 30000, 0.25),
    ]


def test_panels_stand_side_by_side():
    sheet = np.asarray(draw([Row.of_sample("a", PICTURE, mask())], CLASSES, PALETTE))
    assert sheet.shape[1] == 2 * MARGIN + 3 * 400 + 2 * GAP
    top = np.flatnonzero((sheet[:, MARGIN + 200] == 100).all(1))[0]
    left = [MARGIN + place * (400 + GAP) for place in range(3)]
    picture, classes, overlay = (sheet[top : top + 300, x : x + 400] for x in left)
    assert (picture == 100).all()
    for y, x, index in ((0, 0, 0), (0, 200, 1), (150, 0, 2)):
        assert colours(classes[y : y + 150, x : x + 200]) == {PALETTE[index]}
    assert colours(classes[150:, 200:]) == {LIGHT, DARK}
    assert colours(overlay[:150, :200]) == colours(overlay[150:, 200:]) == {(100, 100, 100)}
    assert colours(overlay[:150, 200:]) == {(177, 114, 50)}
    legend = colours(sheet[top + 302 :])
    assert {*PALETTE, LIGHT, DARK} <= legend


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (3000, 4000), (40, 48)])
def test_any_size_fits(height, width):
    picture = np.zeros((height, width, 3), np.uint8)
    sheet = draw(
        [Row.of_sample("long\n\t\x1b" * 100, picture, mask(height, width))] * 2, ("n" * 9999, *CLASSES[1:]), PALETTE
    )
    assert sheet.width <= 2400
    assert sheet.height <= 2 * 900
    assert colours(sheet.crop((0, 0, sheet.width, MARGIN))) == {PAPER}


def test_a_shrunk_mask_holds_its_own_colours_alone():
    values = np.random.default_rng(0).choice(np.array([1, 2], np.uint8), (2000, 3000))
    sheet = np.asarray(draw([Row.of_sample("a", np.zeros((2000, 3000, 3), np.uint8), values)], CLASSES, PALETTE))
    middle = sheet[200:500, MARGIN + 760 + GAP + 10 : MARGIN + 2 * 760]
    assert colours(middle) == {PALETTE[1], PALETTE[2]}


def test_a_row_of_other_panels_fits_as_many_as_there_are():
    panels = [Panel("weak", PICTURE), Panel("strong", PICTURE // 2), *(Panel(f"{n}", mask=mask()) for n in range(4))]
    sheet = np.asarray(draw([Row("a", panels, mask())], CLASSES, PALETTE))
    assert sheet.shape[1] == 2 * MARGIN + 6 * 380 + 5 * GAP
    top = np.flatnonzero((sheet[:, MARGIN + 190] == 100).all(1))[0]
    assert colours(sheet[top + 1 : top + 280, MARGIN + 380 + GAP + 1 : MARGIN + 2 * 380 + GAP - 1]) == {(50, 50, 50)}
    assert colours(sheet[top + 1 : top + 140, MARGIN + 5 * (380 + GAP) + 1 :][:, :180]) == {PALETTE[0]}


def test_without_a_mask():
    sheet = draw([Row.of_sample("a", PICTURE, None)], CLASSES, PALETTE)
    assert not colours(sheet) & set(PALETTE)


def test_line_ends_in_names_make_no_lines():
    one, other = (draw([Row.of_sample(name, PICTURE, None)], CLASSES, PALETTE) for name in ("a b c", "a\nb\x1bc"))
    assert np.array_equal(np.asarray(one), np.asarray(other))


def test_letters_of_other_languages_are_drawn():
    """A font without them draws one box for all."""
    drawn = {bytes(font_of(16).getmask(letter)) for letter in "ößłñçйΩ"}
    assert len(drawn) == 7
