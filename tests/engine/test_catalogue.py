"""Recipes by name, script and run; scripts are in test_adding.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from semiseg.engine.api import train
from semiseg.engine.catalogue import load_recipe, run_called
from semiseg.engine.places import with_absolute_paths
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


def test_a_run_reads_what_it_read_wherever_it_is_called_from(tiny, voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = train(tiny("supervised", data=voc_root(), steps=1, out=Path("first"))).out
    Path("none").touch()
    recipe = with_absolute_paths(tiny("supervised", init=Path("first"), lists=Path("lists"), weights="weights.pth"))
    assert (recipe.init, recipe.runtime.lists) == (first.absolute(), tmp_path / "lists")
    assert recipe.weights == str(tmp_path / "weights.pth")
    assert with_absolute_paths(tiny("supervised", weights="none")).weights == "none"


def test_the_switches_of_a_published_run_stay(tmp_path):
    run = Run.create(tmp_path / "run", load_recipe("cac_voc", fidelity="published", data=tmp_path).to_dict(), {})
    run.close()
    with pytest.raises(UsageError, match=r"^--fidelity fixed: .* start from the recipe cac_voc"):
        load_recipe(str(run.folder), fidelity="fixed")


def test_what_is_no_run_is_no_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cac_voc").mkdir()
    Path("cac_voc/recipe.json").write_text("{}")
    assert run_called("cac_voc") is None
    for name, said in ((tmp_path, "not the folder of a run"), (tmp_path / "recipe.json", "no recipe is called")):
        with pytest.raises(UsageError, match=said):
            load_recipe(str(name))
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UsageError, match="recipe: not one of this version"):
        load_recipe(str(tmp_path))
