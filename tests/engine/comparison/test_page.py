"""The page of a comparison."""

from __future__ import annotations

import re
import shutil

import pytest

from semiseg.engine.comparison.page import write_page
from semiseg.engine.comparison.results import finished_of

METHODS = ["supervised_folder", "cps_folder", "cac_folder --lr 0.5"]
MARKUP = "<script>alert(1)"
ESCAPED = "&lt;script&gt;alert(1)"


@pytest.fixture
def page(planned, finish):
    """`page(methods, shares, seeds, …)`: of runs with invented scores."""

    def build(methods=METHODS, shares=("1/2",), seeds=2, **options) -> str:
        comparison = planned(methods, shares, seeds)
        for number, entry in enumerate(comparison.entries):
            finish(entry, 0.4 + 0.01 * number, **options)
        path = write_page(comparison, finished_of(comparison))
        assert path == comparison.out / "comparison.html"
        return path.read_text()

    return build


def test_names_of_classes_files_and_methods_are_no_markup(page):
    text = page(
        [METHODS[0], f"cps_folder --x '{MARKUP}'"], classes=("ground", MARKUP, "$x_1$ & <b>"), samples=(f"a/{MARKUP}",)
    )
    assert "<script" not in text
    assert "<b>" not in text.replace("<b style", "")
    assert text.count(ESCAPED) >= 4  # a method, a class in legend and figure, a file
    assert "$x_1$ &amp; &lt;b&gt;</text>" in text  # which is no formula


def test_the_page_is_one_file_and_needs_no_network(page):
    text = page()
    sources = re.findall(r"(?:src|href)=['\"]([^'\"]*)", text)
    assert sources
    assert all(source.startswith(("data:image/", "#")) or source.endswith("/report.html") for source in sources)
    assert not re.search(r"@import|url\((?!#)|<link|<iframe", text)


def test_all_that_was_run_is_on_the_page(page):
    text = page(shares=("1/2", "1/3"))
    assert text.count("<h2>Gain of each class") == 2
    assert text.count("<h2>The same images") == 2
    assert text.count("/report.html") == 12
    assert text.count("semiseg train cac_folder") == 4
    assert "12 of 12 runs, seeds 0, 1" in text
    first = text[text.index("<h2>The same images") :]
    assert first.count("<figcaption>", 0, first.index("<h2>", 1)) == 5  # image, truth and the methods


def test_settings_are_parted_into_what_differs_and_what_does_not(page):
    text = page()
    different, alike = text[text.index("<h2>Settings") : text.index("<h2>Runs")].split("the same for all")
    rows = {"method.type": ("supervised", "cps", "cac"), "unlabeled.gray": ("", "0", "0.2")}
    rows |= {"method.temperature": ("", "", "0.1")}  # which CAC alone has
    for name, values in rows.items():
        cells = "".join(f"<td class='n'>{value}" for value in values)
        assert f"<td>{name}{cells}</tr>" in different
        assert f"<td>{name}<" not in alike
    for name, value in {"optimizer": "adamw", "unlabeled.flip": "0.5", "branch1.head lr": "0.003"}.items():
        assert f"<td>{name}<td class='n'>{value}</tr>" in alike
        assert f"<td>{name}<" not in different


def test_gains_are_of_all_classes_that_some_draw_has(planned, finish):
    comparison = planned(METHODS[:2], seeds=2)
    for entry in comparison.entries:
        iou = {"ground": 0.5, "car": None if entry.seed == 0 else 0.4, "tree": None}
        finish(entry, iou=iou)
    text = write_page(comparison, finished_of(comparison)).read_text()
    figure = text[text.index("<h2>Gain of each class") :]
    figure = figure[: figure.index("</svg>")]
    assert [name in figure for name in ("ground</text>", "car</text>", "tree</text>")] == [True, True, False]


def test_pictures_side_by_side_are_of_one_seed(planned, finish):
    comparison = planned(METHODS, seeds=2)
    for entry in comparison.entries:
        if (entry.method, entry.seed) != (METHODS[1], 0):
            finish(entry, 0.4)
    text = write_page(comparison, finished_of(comparison)).read_text()
    samples = text[text.index("<h2>The same images") : text.index("<h2>Settings")]
    assert "seed 1</h2>" in samples
    assert samples.count("<figcaption>") == 5


def test_a_page_needs_no_checkpoints(planned, finish):
    comparison = planned(METHODS)
    for entry in comparison.entries:
        finish(entry, 0.4)
    for entry in comparison.entries:
        shutil.rmtree(entry.run.checkpoints)
    assert "<h2>The same images" in write_page(comparison, finished_of(comparison)).read_text()


def test_a_method_alone_has_a_page(page):
    text = page(METHODS[:1], seeds=1)
    assert "Gain of each class" not in text
    assert "<h2>The same images" in text


def test_curves_show_a_peak_that_was_lost_again_but_not_the_first_steps(planned, finish):
    comparison = planned(METHODS[:1])
    (entry,) = comparison.entries
    finish(entry, 0.3)
    log = entry.folder / "log.jsonl"
    scores = (0.03, 0.6, 0.3, 0.31, 0.3)
    log.write_text("".join(f'{{"step": {step}, "val/miou": {score}}}\n' for step, score in enumerate(scores, 1)))
    text = write_page(comparison, finished_of(comparison)).read_text()
    figure = text[text.index("<h2>Curves") : text.index("<h2>The same images")]
    above = figure[figure.index("step<") : figure.index("validation mIoU")]  # the words along the axis
    heights = [float(height) for height in re.findall(r">(\d+)</text>", above)]
    assert heights
    assert min(heights) > 20
    assert max(heights) == 60
