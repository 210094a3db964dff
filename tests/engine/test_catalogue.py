"""Recipes by name, script and run; scripts are in test_adding.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from semiseg.engine.catalogue import load_recipe, run_called
from semiseg.engine.recipe import Recipe
from semiseg.engine.run import Run
from semiseg.pipelines.errors import UsageError


@pytest.mark.parametrize("spelled", ["{}", "{}/recipe.json"])
def test_a_run_is_the_recipe_of_others(tmp_path, spelled):
    """With all that it was told, also where that goes beyond the switches of the published program."""
    said = load_recipe("fixmatch_voc", fidelity="published", lr=0.3, data=tmp_path, **{"method.threshold": 0.5})
    assert said.method.threshold == 0.5
    run = Run.create(tmp_path / "run", said.replace(out=tmp_path / "run", resume=True).to_dict(), {})
    run.close()
    again = load_recipe(spelled.format(run.folder))
    assert isinstance(again, Recipe)
    assert again == said
    assert load_recipe(spelled.format(run.folder), lr=0.1) == said.replace(lr=0.1)


def test_what_is_no_run_is_no_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cac_voc").mkdir()
    Path("cac_voc/recipe.json").write_text("{}")
    assert run_called("cac_voc") is None
    for name in (tmp_path, tmp_path / "recipe.json"):
        with pytest.raises(UsageError, match="no recipe is called"):
            load_recipe(str(name))
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UsageError, match="recipe: not one of this version"):
        load_recipe(str(tmp_path))
