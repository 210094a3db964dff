import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines.cache import cache_root
from semiseg.pipelines.datasets import inspection
from semiseg.pipelines.datasets.layouts import find_dataset
from semiseg.pipelines.datasets.manifest import prepare, seen
from semiseg.pipelines.documents import read_sealed, sealed
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.watch import hash_of


def snapshot(root: Path) -> dict[str, tuple]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(root.rglob("*")) if p.is_file()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def own(folder_root):
    """The folder data set and a function that finds and prepares it."""
    root = folder_root()

    def run(**options):
        return prepare(find_dataset("folder", root), **options)

    run.root = root
    return run


def test_palette_masks_become_index_files_in_the_cache_alone(voc_root, own_cache):
    home = voc_root()
    before = snapshot(home)
    manifest = prepare(find_dataset("voc", home))
    assert snapshot(home) == before
    assert set(manifest.records) == {f"2007_{n:06d}" for n in range(1, 10)}
    for id, record in manifest.records.items():
        with Image.open(record.mask) as mask, Image.open(home / f"SegmentationClass/{id}.png") as palette:
            assert (mask.format, mask.mode, palette.mode) == ("PNG", "L", "P")
            assert np.array_equal(np.asarray(mask), np.asarray(palette))
        assert record.image == home / f"JPEGImages/{id}.jpg"
        assert record.mask.is_relative_to(own_cache)
        assert (record.height, record.width) == (40, 56)


def test_plain_masks_stay_and_unlabelled_images_need_none(own):
    manifest = own()
    assert manifest.records["a000"].mask == own.root / "masks/a000.png"
    assert manifest.records["a011"].mask is None
    assert [p.name for p in manifest.folder.iterdir()] == ["manifest.json"]


def test_histogram_counts_the_training_masks(own):
    manifest = own()
    masks = np.stack([pixels(own.root / f"masks/a00{n}.png") for n in range(6)])
    assert manifest.histogram == tuple((masks == value).sum() for value in range(3))


def test_only_changed_files_are_decoded_again(own):
    seen = []
    own(on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12 + 8, 12 + 8)
    assert [done for done, _ in seen] == list(range(1, 21))
    seen.clear()
    first = own(on_progress=lambda *step: seen.append(step))
    assert seen == []
    mask = own.root / "masks/a000.png"
    Image.fromarray(np.full((40, 48), 2, np.uint8)).save(mask)
    second = own(on_progress=lambda *step: seen.append(step))
    assert seen == [(1, 1)]
    assert second.histogram != first.histogram
    assert own().histogram == second.histogram


def test_touched_file_of_the_same_size_is_decoded_again(own):
    own()
    image = own.root / "images/a000.jpg"
    data = bytearray(image.read_bytes())
    image.write_bytes(data[:20] + bytes(len(data) - 20))
    os.utime(image, ns=(1, 1))
    with pytest.raises(UsageError, match=r"a000\.jpg cannot be decoded"):
        own()


def test_lost_copies_and_broken_manifests_are_made_anew(voc_root):
    dataset = find_dataset("voc", voc_root())
    manifest = prepare(dataset)
    manifest.records["2007_000001"].mask.unlink()
    again = prepare(dataset)
    assert again == manifest
    assert again.records["2007_000001"].mask.is_file()
    file = manifest.folder / "manifest.json"
    content = read_sealed(file)
    others = content | {"version": 0}, content | {"files": {"masks": {"a": {"b": 1}}}}, content | {"files": []}, {}
    for data in (b"", b"{", b"[]", json.dumps(content).encode(), *map(sealed, others)):
        file.write_bytes(data)
        steps = []
        assert prepare(dataset, on_progress=lambda *step: steps.append(step)) == manifest  # noqa: B023
        assert len(steps) == 18
    assert not [p for p in manifest.folder.rglob(".*")]


def rgb(*size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


IMAGES = {
    "gray.png": Image.fromarray(rgb(40, 48)[..., 0]),
    "gray.jpg": Image.fromarray(rgb(40, 48)[..., 0]),
    "gray16.png": Image.fromarray(rgb(40, 48)[..., 0].astype(np.uint16) * 257),
    "alpha.png": Image.fromarray(np.dstack([rgb(40, 48), rgb(40, 48)[..., :1]])),
    "gray_alpha.png": Image.fromarray(rgb(40, 48)[..., :2]),
    "palette.png": Image.fromarray(rgb(40, 48)).quantize(64),
    "bits.png": Image.fromarray(rgb(40, 48)[..., 0] > 99),
    "cmyk.jpg": Image.fromarray(rgb(40, 48)).convert("CMYK"),
    "bitmap.bmp": Image.fromarray(rgb(40, 48)),
    "scan.tif": Image.fromarray(rgb(40, 48)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_unusual_images_become_rgb_files_in_the_cache(own, own_cache, name):
    path = own.root / "images" / name
    IMAGES[name].save(path)
    record = own().records[path.stem]
    assert record.image.is_relative_to(own_cache)
    with Image.open(record.image) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (48, 40))
    if not name.startswith("gray16"):
        assert np.array_equal(pixels(record.image), np.asarray(Image.open(path).convert("RGB")))
    else:
        assert np.array_equal(pixels(record.image)[..., 1], rgb(40, 48)[..., 0])


@pytest.mark.parametrize("name", ["plain.png", "plain.jpg", "plain.jpeg"])
def test_rgb_images_are_used_in_place(own, name):
    path = own.root / "images" / name
    Image.fromarray(rgb(40, 48)).save(path)
    assert own().records["plain"].image == path


VALUES = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 3


def save_bits(path: Path, bits: int) -> None:
    """A gray PNG of 1, 2 or 4 bits, written by hand because Pillow writes only palettes of so few."""
    import struct
    import zlib

    rows = np.unpackbits(VALUES[:, :, None] % 2**bits, axis=2)[:, :, 8 - bits :].reshape(40, -1)
    data = np.hstack([np.zeros((40, 1), np.uint8), np.packbits(rows, axis=1)]).tobytes()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 48, 40, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_masks_of_other_depths_keep_their_values(own, bits):
    path = own.root / "masks/a000.png"
    if bits == 16:
        Image.fromarray(VALUES.astype(np.uint16)).save(path)
    else:
        save_bits(path, bits)
    record = own().records["a000"]
    with Image.open(record.mask) as mask:
        assert (mask.format, mask.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(mask), VALUES & (2 ** min(bits, 8) - 1))


def truncated(root):
    path = root / "images/a001.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def truncated_mask(root):
    path = root / "masks/a001.png"
    Image.fromarray(rgb(40, 48)[..., 0] % 3).save(path)
    path.write_bytes(path.read_bytes()[:-200])


def write_mask(root, mask, name="a001.png", **options):
    Image.fromarray(mask).save(root / "masks" / name, **options)


def jpeg_mask(root):
    (root / "masks/a001.png").unlink()
    write_mask(root, VALUES, "a001.jpg")


FAULTS = {
    "truncated JPEG": (truncated, r"images/a001\.jpg cannot be decoded \(.*truncated.*\): replace the file"),
    "truncated mask": (truncated_mask, r"masks/a001\.png cannot be decoded"),
    "text": (
        lambda root: (root / "images/a001.jpg").write_text("<html>"),
        r"a001\.jpg cannot be decoded \(not an image of AVIF, BMP, .*WEBP\)",
    ),
    "empty": (lambda root: (root / "images/a001.jpg").write_bytes(b""), r"a001\.jpg cannot be decoded"),
    "size": (lambda root: write_mask(root, VALUES[:-1]), r"a001\.png is 48x39 but its image .*a001\.jpg is 48x40"),
    "RGB": (
        lambda root: write_mask(root, rgb(40, 48)),
        r"a001\.png has 3 channels \(RGB\).* convert colours to class ind",
    ),
    "gray RGB": (
        lambda root: write_mask(root, np.dstack([VALUES + 2] * 3)),
        r"a001\.png has label values 3, 4 but the 3 classes are 0 to 2 \(255 ignored\)",
    ),
    "JPEG": (jpeg_mask, r"a001\.jpg is a JPEG file, which changes label values: export it anew as PNG"),
    "values": (
        lambda root: write_mask(root, VALUES * 2),
        r"a001\.png has label values 4 but the 3 classes are 0 to 2 \(255 ignored\)",
    ),
    "16 bits": (lambda root: write_mask(root, VALUES.astype(np.uint16) * 500), r"a001\.png has label values 500, 1000"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_line_that_names_the_file(own, name):
    damage, what = FAULTS[name]
    damage(own.root)
    with pytest.raises(UsageError, match=what) as error:
        own()
    assert "\n" not in str(error.value)
    assert "doctor" not in str(error.value)
    with pytest.raises(UsageError, match=what):  # a fault is not remembered as fine
        own()


def test_further_faults_are_counted(own):
    truncated(own.root)
    write_mask(own.root, VALUES + 7, "a002.png")
    write_mask(own.root, VALUES[:-1], "a003.png")
    with pytest.raises(UsageError, match=r"a001\.jpg.* \(2 more faults: run `semiseg doctor` to see all\)$"):
        own()


def test_two_classes_as_0_and_255(folder_root):
    root = folder_root()
    (root / "classes.txt").write_text("ground\ncrack\n")
    for path in (root / "masks").iterdir():
        Image.fromarray((VALUES > 0).astype(np.uint8) * 255).save(path)
    dataset = find_dataset("folder", root)
    with pytest.raises(UsageError, match=r"mark crack by 255, which means ignore, .*write 1 instead of 255"):
        prepare(dataset)
    for name in ("a000", "a006"):  # one for training, one for validation
        Image.fromarray((VALUES > 0).astype(np.uint8)).save(root / f"masks/{name}.png")
    assert prepare(dataset).histogram[1] > 0


def test_other_class_count_is_checked_anew(own):
    own()
    (own.root / "classes.txt").write_text("ground\ncar\n")
    with pytest.raises(UsageError, match="has label values 2 but the 2 classes are 0 to 1"):
        own()


def test_unwritable_cache(own, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UsageError, match=r"cannot write to the cache .*: set SEMISEG_CACHE elsewhere"):
        own(cache=blocked)


def test_cache_root(monkeypatch):
    monkeypatch.setenv("SEMISEG_CACHE", "/some/cache")
    assert cache_root() == Path("/some/cache")
    monkeypatch.delenv("SEMISEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/semiseg")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache/semiseg"


def test_images_beside_the_pool_are_prepared_too(voc_root):
    home = voc_root()
    shutil.copy(home / "JPEGImages/2007_000001.jpg", home / "JPEGImages/beside.jpg")
    assert prepare(find_dataset("voc", home)).records["beside"].mask is None


def test_copies_of_two_mask_folders_are_never_confused(voc_root):
    home = voc_root()
    official = prepare(find_dataset("voc", home)).records["2007_000001"].mask
    (home / "SegmentationClassAug").mkdir()
    for path in (home / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(home / "SegmentationClassAug" / path.name)
    steps = []
    augmented = prepare(find_dataset("voc", home)).records["2007_000001"].mask
    again = prepare(
        find_dataset("voc", home, masks="SegmentationClass"), on_progress=lambda *step: steps.append(step)
    ).records["2007_000001"]
    assert again.mask == official
    assert np.array_equal(pixels(official), pixels(augmented)[:, ::-1])
    assert not np.array_equal(pixels(official), pixels(augmented))
    assert steps == []


def test_relative_roots_share_the_manifest(own, monkeypatch):
    own()
    monkeypatch.chdir(own.root.parent)
    steps = []
    prepare(find_dataset("folder", Path(own.root.name)), on_progress=lambda *step: steps.append(step))
    assert steps == []


def rewritten(path, data):
    path.write_bytes(data)


def copied_over(path, data):
    """As rsync -t and cp -p do it: another file takes the name."""
    draft = path.with_name("draft")
    draft.write_bytes(data)
    shutil.copystat(path, draft)
    os.replace(draft, path)


@pytest.mark.parametrize("way", [rewritten, copied_over])
@pytest.mark.parametrize("name", ["a000.tif", "a000.png"])
def test_a_mask_mended_in_place_is_read_again_though_size_and_time_are_kept(own, way, name):
    path = own.root / "masks" / name
    (own.root / "masks/a000.png").unlink()

    def encoded(values):
        data = io.BytesIO()
        image = Image.fromarray(values)
        image.save(data, "TIFF") if path.suffix == ".tif" else image.save(data, "PNG", compress_level=0)
        return data.getvalue()

    def mend(values):
        before = os.stat(path)
        assert len(encoded(values)) == before.st_size
        way(path, encoded(values))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    path.write_bytes(encoded(VALUES))
    assert np.array_equal(seen(own(), "a000")[1], VALUES)
    mend(2 - VALUES)
    assert np.array_equal(seen(own(), "a000")[1], 2 - VALUES)
    mend(VALUES * 4)
    with pytest.raises(UsageError, match=rf"{name} has label values 4, 8 but the 3 classes are 0 to 2"):
        own()


def test_a_new_date_alone_makes_nothing_be_decoded_again(own, monkeypatch):
    Image.fromarray(rgb(40, 48)).save(own.root / "images/scan.bmp")
    first = own()
    for path in own.root.rglob("*.*"):
        os.utime(path, ns=(1, 1))
    monkeypatch.setattr(inspection, "decode_picture", None)
    monkeypatch.setattr(inspection, "decode_mask", None)
    steps = []
    again = own(on_progress=lambda *step: steps.append(step))
    assert len(steps) == 21
    assert again.histogram == first.histogram
    assert again.records["scan"] == first.records["scan"]
    steps.clear()
    own(on_progress=lambda *step: steps.append(step))
    assert steps == []


def test_a_cut_copy_is_made_anew(own):
    Image.fromarray(rgb(40, 48)).save(own.root / "images/scan.bmp")
    copy = own().records["scan"].image
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1])
    assert own().records["scan"].image == copy
    assert copy.read_bytes() == whole


OTHER_FILE = io.BytesIO()
Image.new("RGB", (48, 40)).save(OTHER_FILE, "PNG")
OTHER = {"size": OTHER_FILE.tell(), "hash": hash_of(OTHER_FILE.getbuffer())}
"""As the manifest would vouch for it."""


@pytest.mark.parametrize(
    "change",
    [
        {"copy": "images/other.png"},
        {"copy": OTHER | {"name": "../other.png"}},
        {"copy": OTHER | {"name": "images/../../other.png"}},
        {"copy": OTHER | {"name": "{cache}/other.png"}},
        {"copy": OTHER | {"name": 7}},
        {"copy": []},
        {"stamp": [1, 2]},
        {"stamp": "abc"},
        {"height": "40"},
        {"height": 40.0},
        {"height": True},
        {"height": -40, "width": -48},
        {"width": 10**400},
        {"orientation": 9},
        {"orientation": None},
        {"counts": {"x": 1}},
        {"counts": {"256": 1920}},
        {"counts": {"-1": 1920}},
        {"counts": {"0": 1}},
        {"counts": {"0": 1.5}},
        {"counts": [1]},
        {"colours": {"0": "red"}},
        {"palette": 3},
        {"bits": "no"},
        {"more": 1},
        [],
        None,
        "x",
    ],
)
def test_what_a_manifest_says_that_cannot_be_is_not_believed(own, change, own_cache):
    Image.fromarray(rgb(40, 48)).save(own.root / "images/scan.bmp")
    mask = Image.fromarray(VALUES)
    mask.putpalette([9, 9, 9, 8, 8, 8, 7, 7, 7])
    mask.save(own.root / "masks/scan.png")
    first = own()
    (own_cache / "other.png").write_bytes(OTHER_FILE.getbuffer())
    file = first.folder / "manifest.json"
    content = read_sealed(file)
    for files in content["files"].values():
        for name, facts in files.items():
            files[name] = facts | change if isinstance(change, dict) else change
    file.write_bytes(sealed(json.loads(json.dumps(content).replace("{cache}", str(own_cache)))))
    steps = []
    assert own(on_progress=lambda *step: steps.append(step)) == first
    assert len(steps) == 22


@pytest.mark.parametrize("name", ["x" * 240, "é" * 125, "day/" + "y" * 251])
def test_copies_of_files_with_long_names(folder_root, name):
    root = folder_root(masked=4, bare=0, val=0)
    for kind, old, suffix in (("images", ".jpg", ".bmp"), ("masks", ".png", ".gif")):
        (root / kind / name).parent.mkdir(exist_ok=True)
        with Image.open(root / kind / f"a000{old}") as picture:
            picture.save(root / kind / f"{name}{suffix}")
        (root / kind / f"a000{old}").unlink()
    manifest = prepare(find_dataset("folder", root))
    record = manifest.records[name]
    assert record.image.is_relative_to(manifest.folder)
    assert np.array_equal(seen(manifest, name)[0], np.asarray(Image.open(root / f"images/{name}.bmp")))
    assert np.array_equal(seen(manifest, name)[1], np.asarray(Image.open(root / f"masks/{name}.gif")))
