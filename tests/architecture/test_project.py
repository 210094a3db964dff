"""This project keeps every rule of its architecture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rules import HOMES, LONGER, ORDINARY, RULES, flags, lengths, words
from source_tree import Tree

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tree() -> Tree:
    """This project."""
    return Tree(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(tree, rule):
    violations = list(rule(tree))
    assert not violations, "\n" + "\n".join(violations)


@pytest.fixture(scope="module")
def registries() -> dict[str, dict]:
    from semiseg.engine.methods import METHODS
    from semiseg.engine.models.decoders import DECODERS
    from semiseg.engine.models.encoders import ENCODERS
    from semiseg.pipelines.backends import BACKENDS
    from semiseg.pipelines.datasets.layouts import LAYOUTS
    from semiseg.pipelines.views import KINDS

    return {
        "layouts": LAYOUTS,
        "encoders": ENCODERS,
        "decoders": DECODERS,
        "methods": METHODS,
        "backends": BACKENDS,
        "kinds": KINDS,
    }


def test_flags_take_the_keys_of_the_registries(registries, monkeypatch, capsys):
    from semiseg.engine.commands.main import main

    monkeypatch.setattr(sys, "argv", ["semiseg", "train", "supervised_shapes", "--help"])
    with pytest.raises(SystemExit):
        main()
    keys = {
        "--layout": {*registries["layouts"]},
        "--backbone": {*registries["encoders"]},
        "--network": {*registries["decoders"]},
        "--backend": {"auto", *registries["backends"]},
    }
    violations = list(flags(capsys.readouterr().out, keys))
    assert not violations, "\n" + "\n".join(violations)


def test_methods_have_their_names_and_views_of_known_kinds(registries):
    assert all(method.name == name for name, method in registries["methods"].items())
    assert {method.views.unlabeled for method in registries["methods"].values()} <= set(registries["kinds"])


@pytest.mark.parametrize("vocabulary", HOMES)
def test_words_of_a_registry_stand_at_home(tree, registries, vocabulary):
    violations = list(words(tree, {*registries[vocabulary]} - ORDINARY, HOMES[vocabulary]))
    assert not violations, "\n" + "\n".join(violations)


def test_what_is_short_again_stands_on_no_list(tree):
    assert LONGER.keys() <= dict(lengths(tree)).keys()
