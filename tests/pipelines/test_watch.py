import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from semiseg.pipelines import watch as watch_module
from semiseg.pipelines.backends import BACKENDS, available, open_backend
from semiseg.pipelines.datasets import find_dataset, prepare
from semiseg.pipelines.datasets.manifest import watch_of
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.watch import Mark, Watch, hash_of, stamp_of

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)


@pytest.fixture
def root(folder_root):
    return folder_root()


def watched(path):
    return Watch({path: Mark(stamp_of(os.stat(path)), hash_of(path.read_bytes()))})


def test_the_same_bytes_are_the_same_file_whatever_its_date_and_place(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"abc")
    watch = watched(path)
    os.utime(path, ns=(1, 1))
    watch.read(path)
    shutil.copy(path, other)
    os.replace(other, path)
    watch.read(path)
    os.link(path, other)
    watch.read(path)
    other.with_name("unknown").write_bytes(b"")
    assert watch.read(tmp_path / "unknown") == b""


def test_nobody_waits_for_a_pipe_in_the_place_of_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    watch = watched(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError, match=r"a: cannot be read \(is no file\); restore it"):
        watch.read(path)


def test_a_known_file_is_not_hashed(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    watch = watched(path)
    monkeypatch.setattr(watch_module, "hash_of", None)
    watch.read(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(TypeError):
        watch.read(path)


def rewritten(path):
    path.write_bytes(b"xyz")


def renamed(path):
    other = path.with_name("other")
    other.write_bytes(b"xyz")
    shutil.copystat(path, other)
    os.replace(other, path)


@pytest.mark.parametrize("change", [rewritten, renamed])
def test_other_bytes_are_noticed_though_size_and_date_are_kept(tmp_path, change):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    watch, before = watched(path), os.stat(path)
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"a: changed since it was prepared; run `semiseg prepare`"):
            watch.read(path)
    path.unlink()
    with pytest.raises(UsageError, match=r"a: cannot be read \(No such file"):
        watch.read(path)


def test_a_damaged_copy_is_removed_and_made_anew(root):
    Image.fromarray(PIXELS).save(root / "images/scan.bmp")
    manifest = prepare(find_dataset("folder", root))
    record = manifest.records["scan"]
    data = bytearray(record.image.read_bytes())
    watch_of([record]).read(record.image)
    data[len(data) // 2] ^= 1
    record.image.write_bytes(data)
    with pytest.raises(UsageError, match="was damaged and is removed; run `semiseg prepare`, which makes it anew"):
        watch_of([record]).read(record.image)
    assert prepare(find_dataset("folder", root)) == manifest
    watch_of([record]).read(record.image)


def test_what_is_written_while_a_file_is_read_is_noticed_the_next_time(root, monkeypatch):
    manifest = prepare(find_dataset("folder", root))
    record = next(record for record in manifest.records.values() if record.mask)
    watch, path = watch_of([record]), record.image
    data, real, calls = path.read_bytes(), os.fstat, []

    def fstat(file):
        calls.append(file)
        if len(calls) == 2:
            path.write_bytes(data[:-1] + b"x")
        return real(file)

    monkeypatch.setattr(os, "fstat", fstat)
    assert watch.read(path) == data
    with pytest.raises(UsageError, match="changed since it was prepared"):
        watch.read(path)


CASES = [("images", 8), ("images", 90), ("masks", 8), ("masks", 90), ("images", "end"), ("masks", "end")]
"""What is replaced in mid-run: by files of that side, or by themselves without their end."""
HOSTILE = """
import itertools, json, shutil, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from semiseg.pipelines.backends import open_backend
from semiseg.pipelines.datasets import find_dataset, prepare
from semiseg.pipelines.errors import UsageError
from semiseg.pipelines.plan import Planner
from semiseg.pipelines.views import Augmentation, Drawing, ViewSpec

whole = Path(sys.argv[1])
for number, (name, how) in enumerate(json.loads(sys.argv[3])):
    root = whole.with_name(f"hostile{number}")
    shutil.copytree(whole, root)
    manifest = prepare(find_dataset("folder", root))
    records = [manifest.records[sample.id] for sample in manifest.dataset.train if sample.mask]
    sizes = np.array([(record.height, record.width) for record in records])
    drawing = Drawing(views=ViewSpec(unlabeled="none"), crop=32, batch=2, unlabeled_batch=0, labeled=Augmentation(),
        unlabeled=Augmentation(), seed=0, fill=(0, 0, 0))
    planner = Planner(sizes, range(len(records)), (), drawing)
    windows = open_backend(sys.argv[2], records, torch.device("cpu"), 1)(map(planner, itertools.count()))
    next(windows)
    for path in sorted((root / name).iterdir()):
        if how == "end":
            path.write_bytes(path.read_bytes()[:-12])
        else:
            image, draft = np.zeros((how, how, 3), np.uint8), path.with_name("." + path.name)
            Image.fromarray(image if name == "images" else image[..., 0]).save(draft, "PNG")
            draft.rename(path)
    try:
        for _ in range(200):
            next(windows)
        print("nothing was noticed")
    except UsageError as error:
        print(error)
"""


@pytest.mark.parametrize("backend", ["host", "dali"])
def test_files_that_change_in_mid_run_are_named_and_crash_nothing(root, backend):
    if backend == "dali":
        pytest.importorskip("nvidia.dali")
    for path in (root / "images").iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    # In a process of its own: what is tried here used to take it down.
    command = [sys.executable, "-c", HOSTILE, str(root), backend, json.dumps(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(CASES)
    for number, ((name, _), line) in enumerate(zip(CASES, lines)):
        assert re.fullmatch(rf".*hostile{number}/{name}/a\d+\.png: changed since it was prepared; .*", line), line


@pytest.mark.parametrize("backend", BACKENDS)
def test_records_that_were_prepared_are_watched(root, run, make_planner, backend):
    if backend not in available():
        pytest.skip("needs NVIDIA DALI")
    manifest = prepare(find_dataset("folder", root))
    records = [manifest.records[sample.id] for sample in manifest.dataset.train if sample.mask]
    sizes = [(record.height, record.width) for record in records]
    for path in (root / "masks").iterdir():
        Image.fromarray(2 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(UsageError, match=r"masks/a00\d\.png: changed since"):
        next(run(open_backend(backend, records, CPU, 1), make_planner(sizes, "none", crop=32)))
