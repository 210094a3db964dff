import pytest

from semiseg.engine.methods import METHODS
from semiseg.pipelines.views import KINDS, ViewSpec


@pytest.mark.parametrize("name", KINDS)
def test_views_are_known_by_numbers(name) -> None:
    views = ViewSpec(unlabeled=name)
    assert (views.streams, views.windows) == (KINDS[name].streams, KINDS[name].windows)
    assert views.windows >= views.streams  # no image is read of which nothing is shown
    assert (views.windows == 0) == (name == "none")


def test_kinds_are_what_methods_ask_for() -> None:
    assert {method.views.unlabeled for method in METHODS.values()} <= KINDS.keys()
