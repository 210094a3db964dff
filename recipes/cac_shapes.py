"""CAC on the embedded data set: the supervised recipe with another method and the colours CAC needs."""

from dataclasses import replace

from semiseg.engine.commands.main import main
from semiseg.engine.methods.cac import CacConfig
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.views import Augmentation
from semiseg.recipes.supervised_shapes import recipe as supervised


def recipe() -> Recipe:
    return replace(
        supervised(),
        name="cac_shapes",
        method=CacConfig(),
        unlabeled=Augmentation(range=(0.75, 1.5), jitter=0.8, gray=0.2, blur=0.5),
    )


if __name__ == "__main__":
    main(recipe)
