"""ADE20K, the 150 classes of its scene parsing challenge: `images/{training,validation}` and `annotations` alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UsageError
from .dataset import IGNORE, Dataset, Layout, Remap, Sample, voc_colours
from .files import first_folder, orphan_notes
from .parts import Part, check_validation, parted, pictures_of

CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven",
    "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier",
    "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
"""Those of the label values 1 to 150."""
PALETTE = voc_colours(1 + len(CLASSES))[1:]
CLASS_OF = np.full(256, IGNORE, np.uint8)
"""Class index by label value; 0 is no class."""
CLASS_OF[1 : 1 + len(CLASSES)] = np.arange(len(CLASSES))
LABELS = Remap(
    name="ade20k",
    table=CLASS_OF.tobytes(),
    values="label values of ADE20K",
    reason="whose classes begin at 1",
    largest=len(CLASSES),
    cure="restore the file from ADEChallengeData2016.zip; masks whose classes begin at 0 are read with --layout folder "
    "and a class list",
    ignores=False,
)
LEVELS = ("", "ADEChallengeData2016", "ade/ADEChallengeData2016", "ADE20K", "ade20k")
CURE = "unpack ADEChallengeData2016.zip there"


def find(root: Path, *, train_list: Path | None = None, val_list: Path | None = None) -> Dataset:
    """The data set under its root. Ids are the challenge's file names: ADE_train_00000001."""
    home = first_folder((root / level for level in LEVELS), "images/training")
    if home is None:
        raise UsageError(f"no ADE20K in {root} (looked for images/training): pass the folder ADEChallengeData2016")
    train, val = (_part(home, part) for part in ("training", "validation"))
    pool, validation = parted(train, val, CURE, train_list=train_list, val_list=val_list)
    check_validation(validation, f"mask in {home / 'annotations'}", CURE)
    return Dataset(
        layout="ade20k",
        root=home,
        classes=CLASSES,
        palette=PALETTE,
        train=pool,
        val=validation,
        notes=(*train.notes, *val.notes),
    )


LAYOUT = Layout(find=find, classes=CLASSES, palette=PALETTE, levels=LEVELS)


def _part(home: Path, name: str) -> Part:
    found, masks_found = (pictures_of(home / tree / name) for tree in ("images", "annotations"))
    images, masks = found.by_stem(), masks_found.by_stem()
    samples = {id: Sample(id, image, masks.get(id), LABELS if id in masks else None) for id, image in images.items()}
    notes = [*found.notes(), *masks_found.notes("PNG"), *orphan_notes(masks.keys() - images.keys())]
    return Part(found.folder, samples, notes)
