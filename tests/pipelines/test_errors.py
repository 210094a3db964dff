"""How many things become one line."""

from __future__ import annotations

import pytest

from semiseg.pipelines.errors import some_of


@pytest.mark.parametrize(
    ("count", "said"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (4, "0, 1, 2 and 1 more"), (9, "0, 1, 2 and 6 more")]
)
def test_the_first_few_are_named_and_the_rest_counted(count, said):
    assert some_of(range(count), 3) == said


def test_what_is_not_shown_is_not_put_into_words():
    told = []
    assert some_of(range(1000), 2, lambda value: told.append(value) or "x", more="more folders") == (
        "x, x and 998 more folders"
    )
    assert told == [0, 1]
