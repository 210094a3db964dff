"""What tests of a user's own folders put there, and ask of a data set."""

import numpy as np
from PIL import Image

from semiseg.pipelines.datasets import find_dataset, prepare

IDS = [f"a{number:03d}" for number in range(12)]
"""Of the images that `folder_root` makes, those with masks first."""
VALUES = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 3
COLOURS = ((0, 0, 0), (200, 0, 0), (0, 0, 200))
ORDERS = {"a000": (0, 2, 1), "a001": (0, 1, 2), "a002": (2, 1, 0)}


def ids(samples):
    return [sample.id for sample in samples]


def used(dataset):
    """Masks by the id of their image, all ids, and the notes in one."""
    samples = (*dataset.train, *dataset.val, *dataset.extra)
    masks = {sample.id: sample.mask for sample in samples if sample.mask}
    return masks, sorted(sample.id for sample in samples), "\n".join(dataset.notes)


def write(path, text):
    path.write_text(text)
    return path


def indexed(path, values, order, colours=COLOURS):
    """The same picture for the eye, whatever the order of its palette."""
    image = Image.fromarray(np.argsort(order).astype(np.uint8)[values], "P")
    image.putpalette([channel for index in order for channel in colours[index]])
    image.save(path)


def masks_of(root, make):
    for path in sorted((root / "masks").iterdir()):
        path.unlink()
        make(path)


def run(root, **options):
    return prepare(find_dataset("folder", root, **options))


def assert_kept(root, manifest):
    """What the cache holds vouches for all files: none is read again."""
    steps = []
    assert prepare(find_dataset("folder", root), on_progress=lambda *step: steps.append(step)) == manifest
    assert steps == []
