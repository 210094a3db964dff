"""FixMatch on Pascal VOC with the numbers of UniMatch's program: one strong view, no perturbed features."""

from dataclasses import replace

from semiseg.engine.methods.fixmatch import FixMatchConfig
from semiseg.engine.recipe import Recipe
from semiseg.recipes.schedule import SPLIT
from semiseg.recipes.unimatch_voc import recipe as unimatch


def recipe(split: str = SPLIT, backbone: str = "resnet50") -> Recipe:
    return replace(unimatch(split, backbone), name="fixmatch_voc", method=FixMatchConfig())


if __name__ == "__main__":
    from semiseg.engine.commands.main import main

    main(recipe)
