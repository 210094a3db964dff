"""Each rule finds nothing in a tiny healthy tree, and the one violation in a tree that breaks it on purpose."""

from __future__ import annotations

import pytest

from rules import (
    RULES,
    circles,
    command_lines,
    flags,
    imports_between_rooms,
    imports_by_string,
    imports_within_rooms,
    limited_imports,
    long_ones,
    lost_files,
    lost_tests,
    paths_in_strings,
    private_names,
    undocumented,
    words,
)  # fmt: skip
from source_tree import Tree

HEALTHY = {
    "kernels/__init__.py": "from .cutmix import cutmix",
    "kernels/_dispatch.py": "def refuse():\n    'Refuse.'",
    "kernels/cutmix.py": "from . import _dispatch\ndef cutmix():\n    'Mix.'\n    _dispatch.refuse()",
    "pipelines/errors.py": "class UsageError(Exception): ...",
    "pipelines/batch.py": "from .errors import UsageError",
    "pipelines/host.py": "from .batch import UsageError",
    "pipelines/dali.py": "from .batch import UsageError",
    "pipelines/loader.py": "from . import dali, host",
    "engine/console.py": "",
    "engine/methods/method.py": "from ...kernels import cutmix\nfrom ...pipelines.batch import UsageError",
    "engine/methods/cps.py": "from .method import cutmix",
    "engine/methods/cutmix_cps.py": "from .cps import cutmix",
    "engine/evaluation/scores.py": "from importlib.util import find_spec\nfind_spec('nvidia')",
    "engine/training/trainer.py": "from ..evaluation import scores",
    "engine/recipe.py": "import tyro\nname: tyro.conf.Suppress[str] = 'dali'\n'voc'",
    "engine/catalogue.py": "from importlib import import_module\nimport_module('semiseg.recipes')",
    "engine/commands/main.py": "import sys\nimport tyro\nfrom .. import console\nsys.argv",
    "recipes/cps_voc.py": "from semiseg.engine.commands.main import console\ndef recipe(): ...",
    "tests/kernels/test_dispatch.py": "from semiseg.kernels import _dispatch\ndef test_it():\n    _dispatch.refuse()",
    "docs/fidelity.md": "(`tests/kernels/test_dispatch.py::test_it`).",
}
BROKEN = [
    (imports_between_rooms, "kernels/cutmix.py", "from ..pipelines import errors", "kernels/cutmix.py:1"),
    (imports_between_rooms, "pipelines/loader.py", "def f():\n    import semiseg.engine.recipe", "loader.py:2"),
    (imports_within_rooms, "pipelines/batch.py", "from .loader import host", "batch.py:1 imports pipelines/loader.py"),
    (imports_within_rooms, "pipelines/dali.py", "from . import host", "dali.py:1 imports pipelines/host.py"),
    (imports_within_rooms, "engine/console.py", "if TYPE_CHECKING:\n    from .recipe import name", "console.py:2"),
    (imports_within_rooms, "engine/methods/method.py", "from .cps import cutmix", "method.py:1"),
    (imports_within_rooms, "pipelines/blocks.py", "", "pipelines/blocks.py has no place"),
    (circles, "kernels/_dispatch.py", "def f():\n    from .cutmix import cutmix", "_dispatch.py"),
    (imports_by_string, "engine/recipe.py", "import_module('semiseg.recipes.cps_voc')", "recipe.py:1"),
    (imports_by_string, "engine/recipe.py", "importlib.import_module(f'semiseg.{room}')", "recipe.py:1"),
    (imports_by_string, "pipelines/host.py", "__import__(name)", "host.py:1"),
    (imports_by_string, "pipelines/host.py", "find_spec('semiseg.engine')", "host.py:1"),
    (command_lines, "engine/training/trainer.py", "from .. import console", "trainer.py:1"),
    (command_lines, "engine/training/trainer.py", "from ..console import say", "trainer.py:1"),
    (command_lines, "pipelines/host.py", "import sys\nsys.argv", "host.py:2 uses sys.argv"),
    (command_lines, "pipelines/host.py", "from sys import argv", "host.py:1"),
    (command_lines, "engine/training/trainer.py", "import tyro", "trainer.py:1 imports tyro"),
    (command_lines, "engine/recipe.py", "tyro.cli(int)", "recipe.py:1 uses tyro.cli"),
    (command_lines, "recipes/cps_voc.py", "import tyro", "cps_voc.py:1"),
    (limited_imports, "engine/methods/cps.py", "from ...pipelines.loader import host", "cps.py:1"),
    (limited_imports, "engine/methods/cps.py", "from ...kernels.cutmix import cutmix", "cps.py:1"),
    (limited_imports, "engine/evaluation/scores.py", "from ..training import trainer", "scores.py:1"),
    (limited_imports, "engine/models/network.py", "from ..methods.cps import cutmix", "network.py:1"),
    (limited_imports, "engine/models/network.py", "from ..recipe import name", "network.py:1"),
    (limited_imports, "engine/models/network.py", "from ...pipelines.batch import x", "network.py:1"),
    (private_names, "pipelines/host.py", "from .batch import _cut", "host.py:1"),
    (private_names, "pipelines/host.py", "from . import batch\nbatch._cut()", "host.py:2 uses _cut"),
    (private_names, "pipelines/host.py", "from ..kernels import _dispatch", "host.py:1"),
    (private_names, "tests/kernels/test_dispatch.py", "from semiseg.kernels._dispatch import _open", "dispatch.py:1"),
    (private_names, "tests/test_a.py", "from semiseg.kernels import _dispatch", "test_a.py:1"),
    (private_names, "tests/test_a.py", "Trainer(recipe)._evaluate", "test_a.py:1 uses _evaluate"),
    (private_names, "tests/test_a.py", "monkeypatch.setattr(trainer, '_evaluate', 1)", "test_a.py:1 uses _evaluate"),
    (paths_in_strings, "tests/test_a.py", "monkeypatch.setattr('semiseg.engine.recipe.name', 1)", "test_a.py:1"),
    (paths_in_strings, "tests/test_a.py", "import sys\nsys.modules['semiseg.kernels._dispatch']", "test_a.py:2 finds"),
    (paths_in_strings, "tests/test_a.py", "sys.modules[f'semiseg.kernels.{name}']", "test_a.py:1 finds"),
    (paths_in_strings, "tests/test_a.py", "sys.modules.get('semiseg.kernels')", "test_a.py:1 finds"),
    (long_ones, "engine/recipe.py", "def f():\n    'Long.'" + "\n    pass" * 59, "f has 61 lines"),
    (long_ones, "engine/recipe.py", "\n" * 401, "recipe.py has 40"),
    (long_ones, "kernels/aot.py", "\n" * 416, "kernels/aot.py has 41"),
    (undocumented, "engine/recipe.py", "def load():\n    pass", "recipe.py:1 load"),
    (lost_files, "docs/adding.md", "`engine/recipe.py`, `tests/test_gone.py`", "docs/adding.md names tests/test_"),
    (
        lost_tests,
        "docs/a.md",
        "`tests/kernels/test_dispatch.py::test_gone`",
        "a.md names tests/kernels/test_dispatch.py::t",
    ),
    (
        lost_tests,
        "docs/a.md",
        "`tests/kernels/test_gone.py::test_it`",
        "a.md names tests/kernels/test_gone.py::test_it",
    ),
    (lost_tests, "benchmarks/LOG.md", "`test_dispatch.py::test_it`", "LOG.md names test_dispatch.py::test_it"),
]


@pytest.fixture
def tiny(tmp_path):
    """`tiny(path, text)`: a healthy tree of a few files; in the one at `path` a text stands before what it holds."""

    def write(path: str, text: str) -> Tree:
        for name, own in (HEALTHY | {path: f"{text}\n{HEALTHY.get(path, '')}"}).items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(own)
        return Tree(tmp_path)

    return write


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_healthy_tree_breaks_no_rule(tiny, rule):
    assert not list(rule(tiny("README.md", "")))


@pytest.mark.parametrize(
    ("rule", "path", "text", "said"), BROKEN, ids=[f"{row[0].__name__}-{row[1]}" for row in BROKEN]
)
def test_a_broken_rule_is_named(tiny, rule, path, text, said):
    violations = list(rule(tiny(path, text)))
    assert len(violations) == 1
    assert said in violations[0]


def test_a_word_away_from_home_is_named_but_not_in_a_docstring(tiny):
    tree = tiny("README.md", "")
    assert list(words(tree, {"dali", "voc"}, ("pipelines/*",))) == ["engine/recipe.py:2 says 'dali'"]
    assert not list(words(tree, {"dali", "voc"}, ("engine/*",)))


def test_a_flag_that_takes_other_words_is_named():
    text = "│ --layout {voc,cityscapes,     │\n│     coco}  │\n│ --backend {auto,host} │"
    keys = {"--layout": {"voc", "cityscapes"}, "--backend": {"auto", "host"}, "--network": {"cac"}}
    layout, network = flags(text, keys)
    assert "coco" in layout
    assert "--network takes []" in network
