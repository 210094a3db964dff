"""Pictures as people bring them: turned, of many bits, misnamed, damaged; predicted from as trained with."""

import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines import decode
from semiseg.pipelines.datasets import find_dataset, inspection, prepare, seen
from semiseg.pipelines.datasets.doctor import diagnose
from semiseg.pipelines.decode import COLOUR, Reading, read
from semiseg.pipelines.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Upright to stored."""


@pytest.fixture
def root(folder_root):
    return folder_root()


def run(root):
    return prepare(find_dataset("folder", root))


def photograph(path, orientation, upright=PIXELS, mode="RGB", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(upright).convert(mode).transpose(STORED[orientation]).save(path, exif=exif, **options)


def agrees(manifest, id, path):
    """The picture that training sees, which prediction sees too."""
    picture, _ = seen(manifest, id)
    assert np.array_equal(read(path, COLOUR), picture)
    assert (manifest.records[id].height, manifest.records[id].width) == picture.shape[:2]
    return picture


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_upright_as_their_masks_are(root, orientation, suffix):
    (root / "images/a000.jpg").unlink()
    path = root / f"images/a000{suffix}"
    photograph(path, orientation, **({"lossless": True} if suffix == ".webp" else {}))
    manifest = run(root)
    assert np.array_equal(agrees(manifest, "a000", path), PIXELS)
    (note,) = manifest.notes
    assert "1 images carry an EXIF orientation" in note
    assert "1 are turned upright" in note
    assert ("would fit either way" in note) == (orientation < 5)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_photographs_are_turned_alike_in_training_and_prediction(root, mode):
    path = root / "images/phone.jpg"
    photograph(path, 6, mode=mode)
    picture = agrees(run(root), "phone", path)
    stored = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape == PIXELS.shape
    assert np.abs(np.rot90(stored, 3) - picture).max() <= 2  # two decoders of JPEG


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_masks_that_fit_the_stored_picture_alone_keep_it(root, mode, suffix):
    (root / "images/a000.jpg").unlink()
    path = root / f"images/a000{suffix}"
    upright = np.ascontiguousarray(np.rot90(PIXELS, 3))
    photograph(path, 6, upright, mode)
    manifest = run(root)
    picture, mask = seen(manifest, "a000")
    assert picture.shape[:2] == mask.shape == (40, 48)
    assert np.array_equal(picture, np.asarray(Image.fromarray(PIXELS).convert(mode).convert("RGB")))
    assert "1 are used as they are stored" in manifest.notes[0]


def test_what_each_mask_fits_decides_and_what_fits_both_is_upright(root):
    sideways = np.ascontiguousarray(np.rot90(PIXELS, 3))
    for path in ("a000", "a001", "a002"):
        (root / f"images/{path}.jpg").unlink()
    photograph(root / "images/a000.png", 6, sideways)  # its mask fits it as it is stored
    photograph(root / "images/a001.png", 6)
    photograph(root / "images/a002.png", 3)
    photograph(root / "images/free.png", 3)
    manifest = run(root)
    for id in ("a000", "a001", "a002", "free"):
        picture, _ = seen(manifest, id)
        assert np.array_equal(picture, PIXELS), id
    (note,) = manifest.notes
    assert "4 images carry an EXIF orientation" in note
    assert "3 are turned upright, because masks fit them so" in note
    assert "masks disagree and 1 masks would fit either way" in note
    assert not manifest.survey.as_stored
    assert "1 are used as they are stored" in note


def test_what_all_masks_say_holds_for_pictures_that_nothing_is_said_of(root):
    sideways = np.ascontiguousarray(np.rot90(PIXELS, 3))
    for id in ("a000", "a001", "a006"):
        (root / f"images/{id}.jpg").unlink()
    photograph(root / "images/a000.png", 6, sideways)  # its mask fits it as it is stored
    photograph(root / "images/a001.png", 3)
    photograph(root / "images/a006.png", 3)  # for validation
    photograph(root / "images/free.png", 8)  # without a mask
    manifest = run(root)
    assert np.array_equal(seen(manifest, "a000")[0], PIXELS)
    for id in ("a001", "a006"):
        assert np.array_equal(seen(manifest, id)[0], PIXELS[::-1, ::-1]), id
    assert np.array_equal(seen(manifest, "free")[0], np.rot90(PIXELS, 3))
    (note,) = manifest.notes
    assert "1 are used as they are stored, because masks fit them so" in note
    assert "and 3 more, because no mask says otherwise" in note
    assert "prediction uses others so (--files.orientation upright there turns them)" in note
    assert manifest.survey.as_stored
    ignoring = prepare(find_dataset("folder", root, orientation="ignore"))
    for id in ("a000", "a001", "a006", "free"):
        assert np.array_equal(seen(ignoring, id)[0], seen(manifest, id)[0]), id


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientations_may_be_ignored_everywhere(root, orientation, suffix):
    def stored(values):
        return np.asarray(Image.fromarray(values).transpose(STORED[orientation]))

    values = PIXELS[..., 0] % 3
    for folder, pixels, mode in (("images", PIXELS, "RGB"), ("masks", values, "L")):
        for path in (root / folder).glob("a000.*"):
            path.unlink()
        photograph(root / folder / f"a000{suffix}", orientation, pixels, mode)
    assert np.array_equal(seen(run(root), "a000")[0], PIXELS)
    manifest = prepare(find_dataset("folder", root, orientation="ignore"))
    picture, mask = seen(manifest, "a000")
    assert np.array_equal(picture, stored(PIXELS))
    assert np.array_equal(mask, stored(values))
    again = read(root / f"images/a000{suffix}", COLOUR, reading=Reading("ignore"))
    assert np.array_equal(again, picture)
    (note,) = manifest.notes
    assert "1 images carry an EXIF orientation" in note
    assert "all are used as they are stored" in note
    assert np.array_equal(seen(run(root), "a000")[1], values)


def test_a_mask_on_its_side_is_not_to_be_resized(root):
    Image.fromarray(PIXELS.swapaxes(0, 1).copy()).save(root / "images/a000.jpg")
    with pytest.raises(UsageError, match=r"a000\.png is 48x40 but .* 40x48: one of them lies on its side"):
        run(root)


def test_masks_with_an_orientation_are_turned_too(root):
    values = PIXELS[..., 0] % 3
    photograph(root / "masks/a000.png", 6, values, "L")
    assert np.array_equal(seen(run(root), "a000")[1], values)


GRAY = PIXELS[..., 0]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_that_are_used_keep_their_upper_eight(root, suffix):
    path = root / f"images/deep{suffix}"
    Image.fromarray(GRAY.astype(np.uint16) * 257).save(path)
    assert np.array_equal(agrees(run(root), "deep", path), np.dstack([GRAY] * 3))
    Image.fromarray(np.zeros((40, 48), np.uint16)).save(path)
    assert not agrees(run(root), "deep", path).any()


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("deep.png", GRAY.astype(np.uint16) * 16, "holds values from 0 to 4080"),
        ("deep.tif", GRAY.astype(np.uint16) * 16, "holds values from 0 to 4080"),
        ("deep.tif", GRAY.astype(np.int32), "holds values from 0 to 255"),
        ("deep.tif", GRAY.astype(np.int32) - 9, "holds values from -9 to"),
        ("deep.tif", (GRAY / 255).astype(np.float32), "holds fractions"),
    ],
)
def test_other_depths_are_refused_alike_everywhere(root, name, values, says):
    path = root / "images" / name
    Image.fromarray(values).save(path)
    for act in (lambda: run(root), lambda: read(path, COLOUR)):
        with pytest.raises(UsageError, match=f"{name} {says}.*: convert all pictures to 8 bits") as raised:
            act()
        assert "\n" not in str(raised.value)
    assert any("more than 8 bits" in f.text for f in diagnose(find_dataset("folder", root)).findings)


def rgb16(path, values):
    """A 16-bit RGB PNG, which Pillow does not write."""
    rows = np.hstack([np.zeros((40, 1), np.uint8), values.astype(">u2").view(np.uint8).reshape(40, -1)]).tobytes()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 48, 40, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    body = b"".join(struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_16_bits_of_three_channels(root):
    path = root / "images/deep.png"
    rgb16(path, PIXELS.astype(np.uint16) * 256 + 7)
    assert np.array_equal(agrees(run(root), "deep", path), PIXELS)
    for scale in (1, 16):
        rgb16(path, PIXELS.astype(np.uint16) * scale)
        with pytest.raises(UsageError, match=r"deep\.png holds values below"):
            run(root)
    rgb16(path, PIXELS.astype(np.uint16) * 0)
    assert not agrees(run(root), "deep", path).any()


@pytest.mark.parametrize(
    ("mode", "form"),
    [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("L", "JPEG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("RGB", "BMP"),
     ("RGB", "JPEG2000"), ("RGB", "PPM"), ("RGB", "PNG"), ("RGB", "JPEG")],
)  # fmt: skip
def test_one_picture_in_training_and_prediction_whatever_the_format(root, mode, form):
    path = root / "images/other.jpg"
    Image.fromarray(PIXELS).convert(mode).save(path, form)
    agrees(run(root), "other", path)


@pytest.mark.parametrize("form", ["EPS", "ICO", "TGA", "PCX"])
def test_formats_without_a_name_here_are_not_opened(root, form):
    path = root / "images/other.jpg"
    Image.fromarray(PIXELS).save(path, form)
    for act in (lambda: run(root), lambda: read(path, COLOUR)):
        with pytest.raises(UsageError, match=r"cannot be decoded \(not an image of AVIF, BMP"):
            act()


def without_end(data):
    return data[:-12]


def wrong_checksum(data):
    at = data.index(b"IDAT")
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:end] + bytes([data[end] ^ 255]) + data[end + 1 :]


def half_the_rows(data):
    """With right checksums and an end."""
    at = data.index(b"IDAT")
    rows = zlib.decompressobj().decompress(data[at + 4 :])
    body = zlib.compress(rows[: len(rows) // 2])
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return data[: at - 4] + chunk + data[-12:]


@pytest.mark.parametrize("damage", [without_end, wrong_checksum, half_the_rows])
@pytest.mark.parametrize("file", ["images/other.png", "images/gray.png", "masks/a000.png", "masks/a001.png"])
def test_damaged_pngs_are_refused_as_training_would(root, damage, file):
    path = root / file
    pixels = PIXELS if "other" in file else GRAY % 3
    image = Image.fromarray(pixels)
    (image.quantize(3) if "a001" in file else image).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=rf"{path.name} cannot be decoded"):
        run(root)
    assert not diagnose(find_dataset("folder", root)).ok


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_photographs_that_end_early_are_refused(root, keep):
    path = root / "images/a000.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    for act in (lambda: run(root), lambda: read(path, COLOUR)):
        with pytest.raises(UsageError, match=r"a000\.jpg cannot be decoded"):
            act()


def within_pixels(data, part, bytes):
    at = data.index(b"\xff\xda") + 14
    at += int((len(data) - 2 - at) * part)
    return data[:at] + bytes + data[at + len(bytes) :]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: within_pixels(data, 0.5, b"\xff\xd1"), "damaged: unexpected restart"),
        (lambda data: within_pixels(data, 0.9, b"\xff\xff\xff\x4a"), "damaged: unexpected marker"),
        (lambda data: within_pixels(data, 0.9, b"\xff\xd8"), "damaged: unexpected marker"),
        (lambda data: data[:-2], "truncated"),
        (lambda data: data[:-2] + bytes(2), "truncated"),
    ],
)
def test_photographs_damaged_in_the_middle_are_refused(root, mode, damage, says):
    path = root / "images/a000.jpg"
    Image.fromarray(PIXELS).convert(mode).save(path)
    path.write_bytes(damage(path.read_bytes()))
    for act in (lambda: run(root), lambda: read(path, COLOUR)):
        with pytest.raises(UsageError, match=rf"a000\.jpg cannot be decoded \(.*{says}"):
            act()


@pytest.mark.parametrize(
    ("lost", "says"), [(2, "unexpected restart"), (None, None)], ids=["a restart is lost", "all are there"]
)
def test_restarts_are_counted(root, lost, says):
    path = root / "images/a000.jpg"
    Image.fromarray(PIXELS).save(path, restart_marker_blocks=2)
    data = path.read_bytes()
    if lost is None:
        assert data.count(b"\xff\xd3") > 0
        agrees(run(root), "a000", path)
        return
    at = data.index(b"\xff\xd2", data.index(b"\xff\xda"))
    path.write_bytes(data[:at] + data[at + 2 :])
    with pytest.raises(UsageError, match=says):
        run(root)


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"optimize": True}, {"comment": b"\xff\xd9\xff\xd0"}, {"restart_marker_rows": 1},
     {"progressive": True, "restart_marker_blocks": 3}, {"format": "MPO", "save_all": True}],
)  # fmt: skip
@pytest.mark.parametrize("behind", [b"", b"\xff\xd8 another picture"])
def test_whole_photographs_of_every_make_are_taken(root, options, behind):
    path = root / "images/a000.jpg"
    Image.fromarray(PIXELS).save(path, **options)
    path.write_bytes(path.read_bytes() + behind)
    agrees(run(root), "a000", path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("folder", ["images", "masks"])
def test_files_that_are_too_large_are_refused_by_their_header(root, folder, suffix):
    for path in (root / folder).glob("a000.*"):
        path.unlink()
    path = root / folder / f"a000{suffix}"
    Image.new("L", (96, 80)).save(path)
    limit = 40 * 48 / 1e6
    says = rf"{path.name} is 96x80, 0.00768 megapixels where 0.00192 are the limit: cut .* raise --files.max-megapixels"
    for _ in range(2):
        with pytest.raises(UsageError, match=says):
            prepare(find_dataset("folder", root, max_megapixels=limit))
        with pytest.raises(UsageError, match=says):
            read(path, COLOUR, reading=Reading(max_megapixels=limit))
        with pytest.raises(UsageError, match="a JPEG file" if folder == "masks" and suffix == ".jpg" else "a000"):
            run(root)  # what is known from reading without a limit does not lift one


def test_the_header_alone_decides_on_size(root, monkeypatch):
    path = root / "images/a000.png"
    (root / "images/a000.jpg").unlink()
    Image.fromarray(PIXELS).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 40000, 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    says = "a000.png is 40000x30000, 1200 megapixels where 1074 are the limit: .* raise --files.max-megapixels above"
    for act in (lambda: run(root), lambda: read(path, COLOUR)):
        with pytest.raises(UsageError, match=says):
            act()
    monkeypatch.setattr(decode, "free_memory", lambda: None)  # whatever else is running
    with pytest.raises(UsageError, match=r"a000\.png cannot be decoded"):
        read(path, COLOUR, reading=Reading(max_megapixels=1e5))


def test_opencv_has_no_limit_of_its_own(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (1100, 1000)).save(path)
    command = f"from semiseg.pipelines.decode import *; print(read(Path({str(path)!r}), COLOUR).shape)"
    environment = os.environ | {"OPENCV_IO_MAX_IMAGE_PIXELS": str(2**20)}
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment)
    assert done.stdout == "(1000, 1100, 3)\n", done.stderr


@pytest.mark.parametrize("options", [{"orientation": "left"}, {"max_megapixels": 0}, {"max_megapixels": float("nan")}])
def test_readings_without_sense_are_refused(root, options):
    with pytest.raises(UsageError, match=f"--files.{next(iter(options)).replace('_', '-')}: must be"):
        find_dataset("folder", root, **options)


def test_large_pictures_are_taken_without_a_word(root, recwarn):
    Image.new("1", (9600, 9600)).save(root / "images/ortho.png")
    assert run(root).records["ortho"].height == 9600
    assert not [w for w in recwarn if "PIL" in w.filename]


def test_large_files_are_decoded_one_at_a_time(root, monkeypatch):
    at_once, most, lock = [], [], threading.Lock()

    def decode(data, reading):
        reading.check(*Image.open(BytesIO(data)).size)
        with lock:
            at_once.append(1)
            most.append(len(at_once))
        time.sleep(0.01)
        with lock:
            at_once.pop()
        return decode_picture(data, reading)

    decode_picture = inspection.decode_picture
    monkeypatch.setattr(inspection, "decode_picture", decode)
    prepare(find_dataset("folder", root), threads=4)
    assert max(most) > 1
    most.clear()
    monkeypatch.setattr(inspection, "LARGE", 1e-6)
    assert len(prepare(find_dataset("folder", root), threads=4, verify=True).records) == 12
    assert max(most) == 1


def test_a_file_that_does_not_fit_into_the_memory_is_refused(root, monkeypatch):
    Image.new("1", (9600, 9600)).save(root / "images/ortho.png")
    monkeypatch.setattr(decode, "free_memory", lambda: 2**28)
    with pytest.raises(UsageError, match=r"ortho\.png is 9600x9600 and needs more than 0\.3 GiB of memory, 0\.2 are"):
        run(root)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".webp"])
def test_of_several_pages_the_first_is_the_picture_and_a_note_says_so(root, suffix):
    path = root / f"images/pages{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(PIXELS).save(path, save_all=True, append_images=[Image.fromarray(255 - PIXELS)], **options)
    manifest = run(root)
    assert np.array_equal(agrees(manifest, "pages", path), PIXELS)
    assert manifest.notes == (f"1 images hold several pages or frames, {path} for one: the first of each is used",)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pictures_that_hold_no_numbers_are_refused(root, value):
    pixels = np.full((40, 48), value, np.float32)
    Image.fromarray(pixels).save(root / "images/deep.tif")
    with pytest.raises(UsageError, match=r"deep\.tif holds fractions"):
        run(root)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
def test_pictures_may_be_written_to(root, mode):
    path = root / "images/other.tif"
    Image.fromarray(PIXELS).convert(mode).save(path)
    assert read(path, COLOUR).flags.writeable
