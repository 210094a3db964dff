"""What pages are made of."""

from __future__ import annotations

import base64

from semiseg.engine.page import embedded, figure_of, legend, svg

MARKUP = "<script>alert(1)</script>"


def test_a_figure_keeps_its_words_as_text_and_markup_in_them_is_none():
    figure = figure_of(figsize=(2, 1))
    figure.text(0, 0, MARKUP)
    text = svg(figure)
    assert text.startswith("<svg")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;</text>" in text
    assert "<script" not in text


def test_a_picture_is_part_of_the_page():
    assert base64.b64encode(b"bytes").decode() in embedded(b"bytes", "jpeg")
    assert "data:image/jpeg;" in embedded(b"bytes", "jpeg")


def test_a_legend_has_the_colour_of_each_class():
    text = legend((MARKUP, "b"), ((1, 2, 3), (4, 5, 6)))
    assert text.index("rgb(1, 2, 3)") < text.index("&lt;script&gt;") < text.index("rgb(4, 5, 6)")
