"""FixMatch on Cityscapes with the numbers of UniMatch's program: OHEM, every label counts."""

from dataclasses import replace

from semiseg.engine.methods.fixmatch import FixMatchConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes.schedule import SPLIT
from semiseg.recipes.unimatch_cityscapes import OHEM
from semiseg.recipes.unimatch_cityscapes import recipe as unimatch


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    method = FixMatchConfig(ohem=OHEM, threshold=0.0)
    return replace(unimatch(split, backbone), name="fixmatch_cityscapes", method=method)


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
