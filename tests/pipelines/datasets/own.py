"""What tests of a user's own folders ask of a data set."""

IDS = [f"a{number:03d}" for number in range(12)]
"""Of the images that `folder_root` makes, those with masks first."""


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
