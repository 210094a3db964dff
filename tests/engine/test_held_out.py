"""Images that a run held out are judged again, and none that taught it."""

from __future__ import annotations

import shutil

from semiseg.engine.api import train
from semiseg.engine.data import locate, prepare_data
from semiseg.engine.run import Run


def test_a_network_goes_on_without_being_judged_by_what_it_was_taught(tiny, folder_root):
    """A tenth of 29 masks is two images, of 30 three: the third was a labelled one of the first training."""
    root, told = folder_root(masked=29, bare=1, val=0, height=32), []
    recipe = tiny("supervised", layout="folder", data=root, split="all", steps=1)
    first = train(recipe).out
    held_out = [sample.id for sample in locate(recipe).val]
    shutil.copy(root / "masks/a000.png", root / "masks/a029.png")
    assert len(locate(recipe).val) == 3
    again = recipe.replace(init=first, out=first.parent / "second")
    second = train(again, on_event=lambda event: told.append(event.text)).out
    assert [*Run(second).split["val"]] == held_out
    assert {*Run(second).split["labeled"], *held_out} == {f"a{number:03d}" for number in range(30)}
    assert (
        "--init: 2 images are held out for validation: those that it held out, and none that it was taught by" in told
    )
    assert not any(text.startswith("warning: --init: ") for text in told)

    (root / "val.txt").write_text("\n".join([*held_out, "a000"]))
    told.clear()
    data = prepare_data(again, lambda event: told.append(event.text))
    assert [record.id for record in data.val] == sorted([*held_out, "a000"])
    assert "warning: --init: 1 of 3 images, a000 for one, were labelled in the training" in told

    (root / "val.txt").unlink()
    shutil.rmtree(first)
    assert [record.id for record in prepare_data(again, run=Run(second)).val] == held_out


def test_a_run_that_goes_on_from_another_draws_the_same_images_when_it_is_resumed(tiny, folder_root):
    root = folder_root(masked=29, bare=1, val=0, height=32)
    first = train(tiny("supervised", layout="folder", data=root, split="all", steps=1)).out
    shutil.copy(root / "masks/a000.png", root / "masks/a029.png")
    recipe = tiny("supervised", layout="folder", data=root, split="draw:5@0", init=first, out=first.parent / "second")
    second = train(recipe.replace(steps=1)).out
    shutil.rmtree(first)
    assert prepare_data(recipe, run=Run(second)).split.labeled == tuple(Run(second).split["labeled"])
