"""The images and masks under two folders, by their names, and what lists add to them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ..errors import UsageError
from .dataset import IMAGE_SUFFIXES, Sample
from .files import Pictures, check_name, composed, find_pictures, part_of, stem_of
from .lists import Entry, Names, alike, read_list, shown, unknown
from .pairs import called_after, masks_among, paired


class Samples:
    """Everything under the two folders, and what lists add to it."""

    def __init__(self, root: Path, images: Path | None, masks: Path | None):
        self.root, self.images = root, images
        if images and masks and images.samefile(masks):
            masks = None
        folders = [folder for folder in (images, masks) if folder]
        self.found = find_pictures(images, apart=folders[1:]) if images else Pictures(root)
        self.masks_found = find_pictures(masks, apart=folders[:-1]) if masks else None
        among = masks_among(self.found.names)
        self.doubtful: dict[str, tuple[Path, Path]] = {}
        """Two masks that are called after an image, by its id."""
        self.strange: list[str] = []
        """Notes about files that nobody would expect."""
        found = self.found.by_stem()
        if self.masks_found and (self.masks_found.names or self.masks_found.others):
            self.by_pairs = False
            self.masks = self._called_after(self._copies_renamed(self.masks_found.by_stem(), among), found)
            # What has a mask of its own is a picture, whatever it is called.
            among = {mask: image for mask, image in among.items() if stem_of(mask) not in self.masks}
        else:
            self.by_pairs = bool(among)
            self.masks = self._of_pairs(among)
        self.among = {stem_of(mask) for mask in among}
        """Ids of what seems to be a mask among the images."""
        self.all = {id: Sample(id, path, self.masks.get(id)) for id, path in found.items()}
        self.ids = {composed(str(sample.image)): id for id, sample in self.all.items()}
        """By path, of all that was found."""
        self.names = Names.of(self.all.values(), root)
        self.listed: set[str] = set()
        """Ids that lists name as images."""
        self.masks_listed: set[str] = set()

    def from_list(self, path: Path, use: str) -> dict[str, Sample]:
        """The samples that a list names, by id. An image must be there; a mask that is not there is no mask in a list
        for training and a fault in one for validation. Raises UsageError for these, and for an image with two masks."""
        chosen: dict[str, Sample] = {}
        missing: list[Entry] = []
        lost: list[tuple[int, str]] = []
        given: dict[str, tuple[int, str, Path | None]] = {}
        for entry in read_list(path, self.names.ids):
            sample = self._named(entry.image, path.parent)
            if sample is None:
                missing.append(entry)
                continue
            if (label := entry.label) is not None:
                sample = Sample(sample.id, sample.image, self._mask(entry, label, sample, path))
                line, first, mask = given.setdefault(sample.id, (entry.line, label, sample.mask))
                if mask != sample.mask:
                    raise UsageError(
                        f"{path}, line {entry.line}: gives {sample.id} the mask {shown(label)} and line "
                        f"{line} gives it {shown(first)}: keep one of them"
                    )
                if sample.mask is None:
                    lost.append((entry.line, label))
                else:
                    self.masks_listed.add(composed(str(sample.mask)))
            chosen[sample.id] = self.all[sample.id] = sample
        if missing:
            reason = unknown(path, missing, self.names, f"in {self.images or self.root}")
            raise UsageError(self.unread_images() or reason)
        if lost:
            line, first = lost[0]
            where = f"{path}, line {line}: the mask {shown(first)}"
            if use == "validation":
                raise UsageError(f"{where} is not there: add it or correct the list")
            self.strange.append(f"{where} is not there ({len(lost)} in all): the image counts as one without a mask")
        self.strange += self._surprises(path, chosen)
        self.listed |= chosen.keys()
        self.names = Names.of(self.all.values(), self.root)
        return chosen

    def _surprises(self, path: Path, chosen: dict[str, Sample]) -> Iterator[str]:
        """Notes about what a list chose, though something else here is called so."""
        owners = {mask: id for id, mask in self.masks.items() if id in self.all}
        owned = [(sample.id, owners.get(sample.mask)) for sample in chosen.values() if sample.mask]
        if crossed := [(id, owner) for id, owner in owned if owner not in (None, id)]:
            id, owner = crossed[0]
            yield (
                f"{path} gives {len(crossed)} images masks that are called like other images, {id} the one of "
                f"{owner} for one: check that this is meant"
            )
        outside = [sample for sample in chosen.values() if sample.id not in self.names.images]
        if twins := [sample for sample in outside if self.names.called(str(sample.image))]:
            yield (
                f"{path} names {len(twins)} images outside {self.images or self.root} that are called like some there, "
                f"{twins[0].image} for one: those outside are used"
            )

    def settled(self) -> list[str]:
        """Takes the masks out of the images, when all lists were read. The notes about it and about the folders."""
        named = {id for path in self.masks_listed if (id := self.ids.get(path))}
        among = sorted(((self.among | named) - self.listed) & self.all.keys())
        if unclear := [id for id in self.doubtful if self.all[id].mask is None]:
            one, other = self.doubtful[min(unclear)]
            raise UsageError(
                f"{one} and {other.name} may both be the mask of {min(unclear)}: keep one of them, or "
                "name it in train.txt and val.txt with lines 'image mask'"
            )
        for id in among:
            del self.all[id]
        notes = [*self.found.notes(), *(self.masks_found.notes("PNG") if self.masks_found else ()), *self.strange]
        if among:
            used = (
                "are the masks of others there, or drawings" if self.by_pairs else "are masks or drawings, not images"
            )
            notes.append(f"{len(among)} pictures in {self.images} {used}, {among[0]} for one")
        return notes

    def parts(self) -> dict[str, str | None]:
        """The part that images in folders below the one for images belong to, by id."""
        inside = (id for id in self.ids.values() if id in self.all and "/" in id)
        return {id: part_of(id.partition("/")[0]) for id in inside}

    def orphans(self) -> set[str]:
        """The masks that belong to no image, by their relative path without extension."""
        used = {sample.mask for sample in self.all.values()}
        return {id for id, path in self.masks.items() if path not in used}

    def unread_images(self) -> str | None:
        """What to say where no image is in a format that is read."""
        if self.all or not (unread := self.found.unread()):
            return None
        return f"all images in {self.images} are in formats that are not read ({unread}): save them as PNG or JPEG"

    def unread_masks(self) -> str | None:
        """What to say where no mask is in a format that is read."""
        if self.masks or not self.masks_found or not (others := self.masks_found.others):
            return None
        kinds = ", ".join(suffix or "files without extension" for suffix, _ in others.most_common(3))
        return f"all masks in {self.masks_found.folder} are {kinds}: save them as PNG of class indices"

    def masks_of_other_names(self) -> str | None:
        """What to say where there are masks and none is called like an image."""
        orphans = self.orphans()
        if not orphans or len(orphans) < len(self.masks):
            return None
        return called_otherwise((self.masks_found or self.found).folder, orphans, self.all)

    def _copies_renamed(self, masks: dict[str, Path], among: Mapping[str, str | None]) -> dict[str, Path]:
        """The masks by their ids; copies of masks that lie beside their images, too, by the ids of these."""
        for name, image in among.items():
            mask = masks.get(stem_of(name))
            if mask and image and stem_of(image) not in masks and alike(self.found.folder / name, mask):
                masks[stem_of(image)] = masks.pop(stem_of(name))
        return masks

    def _called_after(self, masks: dict[str, Path], images: Mapping[str, Path]) -> dict[str, Path]:
        """The masks by the id of their image, also of those that are called after it and not as it is; where there are
        two such for one, neither. A mask of no image stays by its own."""
        pairs = [(id, after) for id, after in called_after(masks, images).items() if id not in masks]
        for id, (mask, *others) in pairs:
            if others:
                self.doubtful[id] = masks[mask], masks[others[0]]
            else:
                masks[id] = masks.pop(mask)
        if renamed := [masks[id] for id, after in pairs if id in masks]:
            self.strange.append(f"{len(renamed)} masks are called after their images, {renamed[0]} for one")
        if not pairs and masks.keys().isdisjoint(images) and (found := paired(masks, images)):
            image, mask = min(found.items())
            self.strange.append(
                f"{len(found)} masks are called otherwise than their images, and are paired by what differs in names: "
                f"{masks[mask]} is the mask of {images[image]}"
            )
            masks = {image: masks[mask] for image, mask in found.items()}
        return masks

    def _of_pairs(self, among: dict[str, str | None]) -> dict[str, Path]:
        """The masks among the images, by the id of the image; where there are two for one, neither."""
        masks: dict[str, Path] = {}
        for mask, image in among.items():
            if image is None:
                continue
            id = stem_of(image)
            if id in masks:
                self.doubtful[id] = masks.pop(id), self.found.folder / mask
            elif id not in self.doubtful:
                masks[id] = self.found.folder / mask
        return masks

    def _named(self, text: str, folder: Path) -> Sample | None:
        """The image that a list in a folder means: one of those that are known, or else the file that it names."""
        if id := self.names.match(text, folder):
            return self.all[id]
        image = self.names.file(text, folder)
        if image is None or image.suffix.lower() not in IMAGE_SUFFIXES:
            return None
        inside = image.is_relative_to(self.root)
        name = (image.relative_to(self.root) if inside else image.relative_to(image.anchor)).as_posix()
        check_name(name)
        id = stem_of(name)
        known = self.all.get(id, Sample(id, image, None))
        if known.image != image:
            raise UsageError(f"a list names {image}, which has the id of {known.image} ({id}): rename one of them")
        return known

    def _mask(self, entry: Entry, label: str, sample: Sample, path: Path) -> Path | None:
        """The mask that a line's label names: the file, or that of the image where the line may mean it. Raises
        UsageError where image and mask would be of two data sets."""
        named = self.names.file(label, path.parent)
        if named is None:
            return sample.mask if self.names.is_own_mask(entry, sample) else None
        if sample.mask is None or named.is_relative_to(self.root) or self._is_here(entry.image, sample, path.parent):
            return named
        if not alike(named, sample.mask):
            raise UsageError(
                f"{path}, line {entry.line}: the image is {sample.image}, but its mask {shown(label)} is another "
                f"than {sample.mask}: write paths from {self.root}"
            )
        return sample.mask

    def _is_here(self, text: str, sample: Sample, folder: Path) -> bool:
        """Whether what a list says of an image says nothing of another place."""
        file = self.names.file(text, folder)
        return os.path.samefile(file, sample.image) if file else "/" not in text.replace("\\", "/").strip("/")


def called_otherwise(masks: Path, orphans: Collection[str], images: Collection[str]) -> str:
    """What to say where no mask has the name of an image."""
    return (
        f"no mask in {masks} has the name of a training image ({min(orphans)} beside {min(images)}): "
        "name each mask like its image, or write train.txt with lines 'image mask'"
    )
