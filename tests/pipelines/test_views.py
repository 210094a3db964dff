from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from semiseg.pipelines.views import FILL, IMAGENET_MEAN, Augmentation, ViewSpec


def test_fill_is_the_mean_colour_in_grey_levels() -> None:
    assert tuple(np.rint(255 * np.array(IMAGENET_MEAN)).astype(int)) == FILL


def test_a_method_states_its_views_by_name_and_for_good() -> None:
    views = ViewSpec(unlabeled="pair")
    with pytest.raises(FrozenInstanceError):
        views.unlabeled = "plain"
    with pytest.raises(TypeError):
        ViewSpec("pair")


def test_defaults_are_cac_s_labelled_augmentation() -> None:
    augmentation = Augmentation()
    assert (augmentation.scale, augmentation.range, augmentation.filter) == ("long_side", (0.5, 2.0), "cubic")
    assert augmentation.jitter == augmentation.gray == augmentation.blur == 0
    with pytest.raises(TypeError):
        Augmentation("factors")
