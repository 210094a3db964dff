import pytest

from semiseg.engine.methods import METHODS
from semiseg.pipelines.views import KINDS, Augmentation, ViewSpec


@pytest.mark.parametrize("name", KINDS)
def test_views_are_known_by_numbers(name) -> None:
    views = ViewSpec(unlabeled=name)
    assert (views.streams, views.windows) == (KINDS[name].streams, KINDS[name].windows)
    assert views.windows >= views.streams  # no image is read of which nothing is shown
    assert (views.windows == 0) == (name == "none")


def test_kinds_are_what_methods_ask_for() -> None:
    assert {method.views.unlabeled for method in METHODS.values()} <= KINDS.keys()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sigma": (0.0, 2.0)}, "--unlabeled.sigma"),
        ({"sigma": (2.0, 1.0)}, "--unlabeled.sigma"),
        ({"blur_radius": 0}, "--unlabeled.blur-radius"),
        ({"blur_radius": 31}, "--unlabeled.blur-radius"),
        ({"brightness": 1.8}, "--unlabeled.brightness"),
        ({"contrast": -0.1}, "--unlabeled.contrast"),
        ({"saturation": 2.0}, "--unlabeled.saturation"),
        ({"hue": 0.6}, "--unlabeled.hue"),
        ({"native_crop": 0}, "--unlabeled.native-crop"),
        ({"range": (0.0, 1.0)}, "--unlabeled.range: must be two rising numbers from 0.001 to 1000, is (0.0, 1.0)"),
        ({"range": (0.5, 1e30)}, "--unlabeled.range: must be two rising numbers from 0.001 to 1000"),
        ({"range": (2.0, 1.0)}, "--unlabeled.range: must be two rising numbers"),
        ({"even_odds": True, "range": (1.2, 2.0)}, "--unlabeled.range: must have 1 in it for even odds"),
        ({"even_odds": True, "range": (2.0, 0.5)}, "--unlabeled.range: must be two rising numbers"),
        ({"factors": (1.0, 1e9)}, "--unlabeled.factors: must be numbers from 0.001 to 1000"),
        ({"factors": ()}, "--unlabeled.factors: must be numbers"),
        ({"base": 1e-9}, "--unlabeled.base: must be from 0.001 to 1000"),
        ({"longest": 1e9}, "--unlabeled.longest: must be from 0.001 to 1000"),
        ({"filter": "bicubic"}, "--unlabeled.filter: must be one of cubic, antialiased, linear, is bicubic"),
        ({"scale": "factor"}, "--unlabeled.scale: must be one of"),
        ({"padding": "center"}, "--unlabeled.padding: must be one of"),
        ({"jitter_order": "rand"}, "--unlabeled.jitter-order: must be one of"),
    ],
)
def test_what_makes_no_sense_of_views_is_named(changes, field) -> None:
    (fault,) = Augmentation(**changes).faults("--unlabeled.")
    assert fault.startswith(field)


def test_only_mixed_images_have_partners() -> None:
    mixing = {name for name in KINDS if ViewSpec(unlabeled=name).partners}
    assert mixing == {"mixed", "weak_strong"}
    assert not ViewSpec(unlabeled="weak_strong", cutmix="never").partners


@pytest.mark.parametrize(
    ("name", "cutmix"), [("unimatch", "sometimes"), ("u2pl", "sometimes_half"), ("cutmix_seg", "always")]
)
def test_boxes_are_those_of_the_method_s_program(name, cutmix) -> None:
    assert METHODS[name].views.cutmix == cutmix
