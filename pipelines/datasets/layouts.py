"""The layouts of data sets on disk, by name."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError
from .dataset import Dataset

LAYOUTS = ("voc", "cityscapes", "folder", "shapes")


def find_dataset(
    layout: str,
    root: Path | None,
    *,
    images: str | None = None,
    masks: str | None = None,
    classes: Path | None = None,
    train_list: Path | None = None,
    val_list: Path | None = None,
) -> Dataset:
    """Find a data set by its layout (`voc`, `cityscapes`, `folder`, `shapes`) under `root`.

    `images` and `masks` name folders under the root (`masks` also picks another mask folder of VOC), `classes` is a
    class list, `train_list` the training pool and `val_list` the validation images, each in any published list format;
    these three files may be given relative to the root.
    Raises UsageError where something is missing or the arguments do not belong to the layout.
    """
    from . import cityscapes, folder, voc

    options = {
        "images": images,
        "masks": masks,
        "classes": classes,
        "train_list": train_list,
        "val_list": val_list,
    }
    accepted = {
        "voc": ("masks", "classes", "train_list", "val_list"),
        "cityscapes": ("train_list", "val_list"),
        "folder": tuple(options),
        "shapes": (),
    }
    if layout not in accepted:
        raise UsageError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in accepted[layout]:
            raise UsageError(f"--files.{name.replace('_', '-')} has no meaning for the layout {layout}: leave it out")
    if layout == "shapes":
        from . import shapes

        return shapes.find(root and Path(root))
    if root is None:
        raise UsageError(f"the layout {layout} needs the folder of the data set: pass --data ROOT")
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder: pass the root of the data set with --data ROOT")
    for name in given.keys() & {"classes", "train_list", "val_list"}:
        inside = root / given[name]
        given[name] = inside if inside.is_file() and not Path(given[name]).is_file() else Path(given[name])
    return {"voc": voc, "cityscapes": cityscapes, "folder": folder}[layout].find(root, **given)
