import errno
import multiprocessing
import os
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.pipelines import watch
from semiseg.pipelines.datasets import find_dataset, pack, prepare
from semiseg.pipelines.datasets.manifest import Manifest, Record, seen
from semiseg.pipelines.datasets.pack import is_packed, open_pack, packed_bytes
from semiseg.pipelines.documents import read_sealed, sealed
from semiseg.pipelines.errors import UsageError


@pytest.fixture
def manifest(folder_root) -> Manifest:
    """Eight masked images and four bare ones, 40x48."""
    return prepare(find_dataset("folder", folder_root()))


@pytest.fixture
def records(manifest) -> list[Record]:
    return list(manifest.records.values())


@pytest.fixture
def unmarked(records) -> list[Record]:
    """Of which nothing is known but their sizes."""
    return [replace(record, image_mark=None, mask_mark=None) for record in records]


@pytest.fixture
def decoded(monkeypatch) -> list[Path]:
    """The files that were decoded since."""
    files, decode = [], watch.read

    def noted(path, *arguments, **options):
        files.append(path)
        return decode(path, *arguments, **options)

    monkeypatch.setattr(watch, "read", noted)
    return files


def pixels_of(manifest: Manifest) -> Path:
    (path,) = (manifest.folder / "pack").glob("pixels-*")
    return path


def again(manifest: Manifest) -> Manifest:
    """Prepared anew."""
    return prepare(find_dataset("folder", manifest.dataset.root))


def check(manifest: Manifest, packed: pack.Pack) -> None:
    """Everything in the pack is what training sees."""
    for record in manifest.records.values():
        image, mask = seen(manifest, record.id)
        assert np.array_equal(packed.image(record), image)
        assert mask is None or np.array_equal(packed.mask(record), mask)


def test_it_holds_what_training_sees_and_is_made_once(manifest, records, decoded) -> None:
    said, progress = [], []
    options = {"say": said.append, "on_progress": lambda *counts: progress.append(counts)}
    assert not is_packed(records, manifest.folder)
    packed = open_pack(records, manifest.folder, **options)
    assert len(decoded) == 20
    check(manifest, packed)
    size = pixels_of(manifest).stat().st_size
    assert size == packed_bytes(records) == 12 * 40 * 48 * 3 + 8 * 40 * 48
    assert said == [f"packing 12 images: 0.1 MiB into {manifest.folder / 'pack'}"]
    assert progress == [(done, 20) for done in range(1, 21)]

    assert is_packed(records, manifest.folder)
    decoded.clear()
    packed = open_pack(records, manifest.folder, **options)
    assert (len(said), decoded) == (1, [])
    check(manifest, packed)


def test_changed_and_new_files_are_packed_beside_the_others(manifest, records, decoded) -> None:
    first, late = records[:-1], records[-1]
    before = open_pack(first, manifest.folder)
    old = before.image(records[0]).copy()
    count = len(decoded)
    Image.fromarray(255 - old).save(records[0].image, quality=95)
    os.utime(records[0].image, ns=(1, 1))  # the time tells nothing
    manifest = again(manifest)
    packed = open_pack(manifest.records.values(), manifest.folder)
    assert sorted(decoded[count:]) == sorted([records[0].image, late.image, late.mask])
    check(manifest, packed)
    assert np.array_equal(before.image(records[0]), old)  # who reads an older pack goes on reading it


def test_a_pack_of_old_files_is_made_anew_and_readers_keep_theirs(manifest, records) -> None:
    before = open_pack(records, manifest.folder)
    old = {record.id: before.image(record).copy() for record in records}
    first = pixels_of(manifest)
    for number, record in enumerate(records):
        Image.fromarray(np.full((40, 48, 3), number, np.uint8)).save(record.image)
    manifest = again(manifest)
    check(manifest, open_pack(manifest.records.values(), manifest.folder))
    assert pixels_of(manifest).stat().st_size == packed_bytes(records)
    assert not first.exists()
    assert all(np.array_equal(before.image(record), old[record.id]) for record in records)


def test_a_file_that_another_process_writes_anew_meanwhile_is_packed_again(manifest, records, monkeypatch) -> None:
    """As preparing does with a converted copy: what it holds is the same."""
    open_pack(records[1:], manifest.folder)
    watch_of = pack.watch_of

    def meanwhile(records):
        os.utime(records[1].image, ns=(1, 1))
        return watch_of(records)

    monkeypatch.setattr(pack, "watch_of", meanwhile)
    check(manifest, open_pack(records, manifest.folder))


def test_what_newer_records_packed_is_not_given_for_older_ones(manifest, records) -> None:
    old = Image.open(records[0].image)
    Image.fromarray(255 - np.asarray(old)).save(records[0].image, quality=95)
    open_pack(again(manifest).records.values(), manifest.folder)
    with pytest.raises(UsageError, match="changed since it was prepared"):
        open_pack(records, manifest.folder)


def test_a_file_that_is_picture_and_mask_is_packed_as_both(tmp_path, own_cache) -> None:
    file = tmp_path / "gray.png"
    Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).save(file)
    record = Record("gray", file, file, 2, 3)
    packed = open_pack([record])
    assert packed.mask(record).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert packed.image(record).shape == (2, 3, 3)


def test_a_turned_file_is_packed_as_it_is_seen_and_as_it_is_stored(folder_root) -> None:
    """Each of which a run may want, by --files.orientation."""
    root, exif = folder_root(), Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "images/a009.jpg").save(root / "images/a009.jpg", exif=exif)
    for orientation in ("upright", "ignore", "upright"):
        manifest = prepare(find_dataset("folder", root, orientation=orientation))
        record = manifest.records["a009"]
        assert record.image == root / "images/a009.jpg"  # no copy of it
        packed = open_pack(manifest.records.values(), manifest.folder)
        picture, _ = seen(manifest, "a009")
        assert picture.shape == ((48, 40, 3) if orientation == "upright" else (40, 48, 3))
        assert np.array_equal(packed.image(record), picture)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def replace_whole(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"half a picture")


@pytest.mark.parametrize("harm", [truncate, flip, replace_whole, append, Path.unlink], ids=lambda harm: harm.__name__)
def test_a_damaged_pack_is_mended(manifest, records, harm) -> None:
    open_pack(records, manifest.folder)
    harm(pixels_of(manifest))
    assert not is_packed(records, manifest.folder)
    check(manifest, open_pack(records, manifest.folder))
    assert is_packed(records, manifest.folder)


def test_of_a_damaged_pack_only_what_is_wrong_is_decoded(manifest, records, decoded) -> None:
    open_pack(records, manifest.folder)
    count = len(decoded)
    flip(pixels_of(manifest))
    said = []
    open_pack(records, manifest.folder, say=said.append)
    assert len(decoded) == count + 1
    assert "checking it" in said[0]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"version":0}', '{"version":1,"pixels":"../a","stamp":[0,0,0],"entries":{}}'],
)
def test_a_foreign_index_is_replaced(manifest, records, text) -> None:
    open_pack(records, manifest.folder)
    (manifest.folder / "pack" / "index.json").write_text(text)
    check(manifest, open_pack(records, manifest.folder))
    pixels_of(manifest)  # there is one


def test_an_entry_beyond_the_file_is_made_anew(manifest, records) -> None:
    open_pack(records, manifest.folder)
    index = manifest.folder / "pack" / "index.json"
    content = read_sealed(index)
    for entry in content["entries"].values():
        entry[2] += 10**9
    content["stamp"][1] += 1
    index.write_bytes(sealed(content))
    check(manifest, open_pack(records, manifest.folder))


def test_a_fault_while_packing_keeps_the_pack_as_it_was(manifest, unmarked) -> None:
    records, few = unmarked, unmarked[:4]
    open_pack(few, manifest.folder)
    size = pixels_of(manifest).stat().st_size
    good = records[7].image.read_bytes()
    records[7].image.write_bytes(good[:500])
    with pytest.raises(UsageError, match=f"{records[7].image.name}: cannot be decoded"):
        open_pack(records, manifest.folder)
    assert pixels_of(manifest).stat().st_size == size
    assert is_packed(few, manifest.folder)
    records[7].image.write_bytes(good)
    check(manifest, open_pack(records, manifest.folder))


def test_a_file_that_is_not_the_one_that_was_prepared_is_not_packed(manifest, records) -> None:
    open_pack(records, manifest.folder)
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(records[5].image)
    with pytest.raises(UsageError, match=f"{records[5].image.name}: changed since it was prepared"):
        open_pack(records, manifest.folder)


def test_a_first_pack_that_fails_leaves_no_pixels(manifest, records) -> None:
    records[3].image.write_bytes(b"")
    with pytest.raises(UsageError, match=records[3].image.name):
        open_pack(records, manifest.folder)
    assert not list((manifest.folder / "pack").glob("pixels-*"))


def test_a_file_of_another_size_or_gone_is_named(manifest, records) -> None:
    wrong = [replace(record, height=41) for record in records]
    with pytest.raises(UsageError, match="is 40x48 and was 41x48"):
        open_pack(wrong, manifest.folder)
    records[2].image.unlink()
    with pytest.raises(UsageError, match=f"{records[2].image.name}: cannot be read"):
        open_pack(records, manifest.folder)


def test_a_disk_without_room_is_refused_before_anything_is_written(manifest, records, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")(2**40, 2**40 - 2**20, 2**20)
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match=r"takes 0\.1 MiB and .* has 1\.0 MiB free: free space") as raised:
        open_pack(records, manifest.folder)
    assert "\n" not in str(raised.value)
    assert not list((manifest.folder / "pack").glob("pixels-*"))


def test_a_disk_that_fills_meanwhile_is_one_line(manifest, records, monkeypatch) -> None:
    written = []

    def pwrite(file: int, data: memoryview, offset: int) -> int:
        written.append(len(data))
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: len(data) // 2 + 1], offset)  # disks may take a part

    write = os.pwrite
    monkeypatch.setattr(pack.os, "pwrite", pwrite)
    with pytest.raises(UsageError, match=r"cannot write the pack .*No space left") as raised:
        open_pack(records, manifest.folder)
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    check(manifest, open_pack(records, manifest.folder))


def test_writes_that_take_a_part_are_continued(manifest, records, monkeypatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(pack.os, "pwrite", lambda file, data, offset: write(file, data[:1000], offset))
    check(manifest, open_pack(records, manifest.folder))


def _pack_in_a_process(records: list[Record], folder: Path, together, answers) -> None:
    said = []
    together.wait()
    packed = open_pack(records, folder, say=said.append)
    answers.put((said, [packed.image(record).copy() for record in records]))


def test_processes_that_pack_at_once_make_one_pack(manifest, records) -> None:
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(3), context.Queue()
    arguments = records, manifest.folder, together, answers
    processes = [context.Process(target=_pack_in_a_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sum("packing" in line for said, _ in found for line in said) == 1
    for _, images in found:
        assert all(np.array_equal(image, seen(manifest, record.id)[0]) for image, record in zip(images, records))
    assert pixels_of(manifest).stat().st_size == packed_bytes(records)


def test_without_records_there_is_an_empty_pack(own_cache) -> None:
    assert packed_bytes([]) == 0
    open_pack([])
