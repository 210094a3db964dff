"""Whatever a user's file or flag holds, it is taken, or refused by UsageError: never anything else. Each of `READERS`
tries that of one kind of input: a function of an empty folder that makes a test of hypothesis, to be called, or to be
given bytes by a fuzzer (`benchmarks/fuzz.py`).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import chdir, suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from semiseg.engine.catalogue import load_recipe
from semiseg.engine.checkpoint import header_of, load_network, save_network
from semiseg.engine.models import ENCODERS, build_network, from_published
from semiseg.engine.models.published import FORMS
from semiseg.engine.models.state_dict import read_state_dict
from semiseg.engine.recipe import Recipe
from semiseg.engine.run import Run
from semiseg.engine.training.state import load_save, write_save
from semiseg.pipelines.datasets import find_dataset, prepare, resolve_split, seen
from semiseg.pipelines.datasets.classes import read_classes
from semiseg.pipelines.datasets.dataset import Dataset
from semiseg.pipelines.datasets.lists import Names, plain_ids, read_ids, read_ids_present
from semiseg.pipelines.datasets.pack import open_pack
from semiseg.pipelines.datasets.splits import absolute_spec
from semiseg.pipelines.documents import read_sealed, sealed
from semiseg.pipelines.errors import UsageError
from small_run import THIN

Test = Callable[[], None]
IDS = ("a000", "a001", "city/a_000_leftImg8bit", "b c", "é")

refused = suppress(UsageError)

numbers = st.one_of(st.integers(-3, 300), st.sampled_from([2**31, 2**63, -(2**70), 10**400]), st.floats())
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


def texts(*words: str) -> st.SearchStrategy[bytes]:
    """Files of words, separators and whatever; or of any bytes."""
    parts = st.one_of(
        st.sampled_from(words),
        st.sampled_from([*"\n\t ,;:=\"'/\\#.@|", "\r\n", "\r", "\0", "../", ".png", ".jpg", "\ufeff", "\u0301"]),
        st.text(max_size=4),
    )
    joined = st.lists(parts, max_size=25).map(lambda found: "".join(found).encode("utf-8", "surrogatepass"))
    return st.one_of(
        joined, joined.map(lambda data: data.decode("utf-8", "replace").encode("utf-16")), st.binary(max_size=60)
    )


def places(document: Any, before: tuple = ()) -> Iterator[tuple]:
    """The ways to all values in dictionaries and lists."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*before, key))


@st.composite
def changed(draw: Callable, document: Any) -> Any:
    """The JSON document with some of its values replaced, deleted or added to."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        ways = list(places(document))
        if not ways:
            break
        *way, key = draw(st.sampled_from(ways))
        inner = document
        for step in way:
            inner = inner[step]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "delete", "add"]))
        if kind == "replace":
            inner[key] = draw(values)
        elif kind == "delete":
            del inner[key]
        elif isinstance(inner, dict):
            inner[draw(st.text(max_size=5))] = draw(values)
    return document


def documents(whole: str) -> st.SearchStrategy[bytes]:
    """Files in the place of this JSON one: changed, damaged, or something else."""
    data = whole.encode()
    return st.one_of(
        changed(json.loads(whole)).map(lambda document: json.dumps(document).encode()),
        damaged(data, len(data)),
        values.map(lambda value: json.dumps(value).encode()),
        st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.just(b"[" * 100_000),
    )


@st.composite
def damaged(draw: Callable, data: bytes, head: int) -> bytes:
    """A file with bytes changed, mostly of its head, put in or left out, or cut."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(min(head, len(data)) - 1, 0)) | st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["set", "set", "set", "insert", "delete", "cut"]))
        if kind == "set":
            new = draw(st.binary(min_size=1, max_size=4))
            data[at : at + len(new)] = new
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 8))]
        else:
            del data[at:]
    return bytes(data)


def list_files(folder: Path) -> Test:
    path, names = folder / "list.txt", Names(IDS)

    @given(data=texts(*IDS, "image", "mask", "a000.jpg a000.png"))
    def test(data: bytes) -> None:
        path.write_bytes(data)
        for read in (plain_ids, lambda path: read_ids(path, names, "here"), lambda path: read_ids_present(path, names)):
            with refused:
                read(path)

    return test


def class_lists(folder: Path) -> Test:
    path = folder / "classes.txt"

    @given(data=texts("road", "0", "1", "255", "#ff8000", "name", "label", "road:128,64,128::"))
    def test(data: bytes) -> None:
        path.write_bytes(data)
        with refused:
            found = read_classes(path)
            assert len(found.names) == len(found.palette) == len(found.stated)
            assert len(found.classes) > 1

    return test


def split_specs(folder: Path) -> Test:
    dataset = small(folder)
    (folder / "labelled.txt").write_text("a000\n")
    words = ["draw:", "1/8", "1", "0", "30", "/", "@", ".5", ",", "all", "voc-cps-", "\0", "labelled.txt", " "]
    parts = st.one_of(st.sampled_from(words), st.text(max_size=3), st.integers(0, 10**30).map(str))

    @given(spec=st.one_of(st.text(max_size=12), st.lists(parts, max_size=7).map("".join)))
    def test(spec: str) -> None:
        with chdir(folder), refused:
            absolute_spec(spec)
            split = resolve_split(spec, dataset)
            assert split.labeled
            assert not set(split.labeled) & set(split.unlabeled)

    return test


def manifests(folder: Path) -> Test:
    dataset, cache = small(folder), folder / "cache"
    sound = prepare(dataset, cache=cache, threads=1)
    path = sound.folder / "manifest.json"
    told = st.one_of(documents(path.read_text()), changed(read_sealed(path)).map(sealed))

    @given(data=told)
    def test(data: bytes) -> None:
        path.write_bytes(data)
        with refused:
            assert prepare(dataset, cache=cache, threads=1).records.keys() == sound.records.keys()

    return test


def packs(folder: Path) -> Test:
    """Whatever index there is, what is had of a pack is what was packed."""
    manifest = prepare(small(folder), cache=folder / "cache", threads=1)
    records = list(manifest.records.values())
    pixels = [seen(manifest, record.id)[0] for record in records]
    open_pack(records, manifest.folder, threads=1)
    index = manifest.folder / "pack/index.json"
    told = documents(index.read_text())

    @given(data=told)
    def test(data: bytes) -> None:
        index.write_bytes(data)
        packed = open_pack(records, manifest.folder, threads=1)
        assert all(np.array_equal(packed.image(record), seen) for record, seen in zip(records, pixels))

    return test


def headers(folder: Path) -> Test:
    """Of a checkpoint of next to no network."""
    path = folder / "best.safetensors"
    recipe = load_recipe("supervised_folder").replace(head_width=8, crop=32)
    with patch.dict(ENCODERS, thin=THIN):
        network = build_network("cac", "thin", 3, head_width=8)
        header = header_of(
            recipe.replace(backbone="thin"), network, ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), step=3
        )
        save_network(path, network.state_dict(), header, recipe)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]
    whole = json.loads(metadata["header"])

    @given(header=st.one_of(changed(whole).map(json.dumps), values.map(json.dumps), st.text(max_size=9)))
    def test(header: str) -> None:
        save_file(network.state_dict(), path, metadata | {"header": header})
        with patch.dict(ENCODERS, thin=THIN), refused:
            found = load_network(path)
            assert len(found.header.classes) == found.network.num_classes == len(found.header.palette)

    return test


def recipes(folder: Path) -> Test:
    names = ["cac_voc", "fixmatch_cityscapes", "unimatch_v2_folder", "supervised_shapes"]
    written = {name: load_recipe(name).to_dict() for name in names}

    @given(document=st.one_of(values, *map(changed, written.values())))
    def test(document: Any) -> None:
        with refused:
            recipe = Recipe.from_dict(document)
            recipe.check()
            assert Recipe.from_dict(recipe.to_dict()) == recipe

    return test


def files_of_runs(folder: Path) -> Test:
    """A recipe.json or a log.jsonl."""
    run = Run.create(folder / "run", load_recipe("cac_voc").to_dict(), {})
    run.close()
    line = json.dumps({"step": 2, "loss": 0.5, "val/miou": None})
    lines = st.lists(documents(line), max_size=4).map(b"\n".join)

    @given(recipe=documents(json.dumps(run.recipe.to_dict())), log=lines)
    def test(recipe: bytes, log: bytes) -> None:
        (run.folder / "recipe.json").write_bytes(recipe)
        (run.folder / "log.jsonl").write_bytes(log)
        with refused:
            assert run.recipe
        steps = [line["step"] for line in run.log]
        assert steps == sorted(steps)

    return test


def saves(folder: Path) -> Test:
    """Of two the newer, its state or its record."""
    for step in (2, 4):
        write_save(folder, step, {"steps_done": step, "w": torch.arange(9)}, {}, None)
    record, state = folder / "state-4.json", folder / "state-4.pt"
    written, whole = record.read_text(), state.read_bytes()

    @given(draw=st.data())
    def test(draw: st.DataObject) -> None:
        of_record = draw.draw(st.booleans())
        record.write_bytes(draw.draw(documents(written)) if of_record else written.encode())
        state.write_bytes(whole if of_record else draw.draw(damaged(whole, len(whole))))
        said: list[str] = []
        with refused:
            found, values = load_save(folder, said.append)
            assert values["steps_done"] == found[-1].step
            assert said or values["steps_done"] == 4

    return test


def weights_files(folder: Path) -> Test:
    """Published ones, by the names that are in them, and files of any bytes."""
    sizes = st.lists(st.integers(0, 3), max_size=4)
    kinds = st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64])
    tensors = st.builds(lambda size, kind: torch.zeros(size, dtype=kind), sizes, kinds)
    names = st.sampled_from([*(form.sign + "x" for form in FORMS.values()), "module.classifier.1.weight", "epoch", ""])
    held = st.one_of(
        tensors, tensors, st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
    )
    states = st.dictionaries(names | st.text(max_size=6), held, max_size=5)

    @given(draw=st.data(), name=st.sampled_from(["a.pth", "a.safetensors"]), state=states)
    def test(draw: st.DataObject, name: str, state: dict[str, Any]) -> None:
        path, wrapped = folder / name, [state, {"model": state}, {"state_dict": {"model_ema": state}}]
        file = BytesIO()
        torch.save(draw.draw(st.sampled_from(wrapped)), file)
        whole = file.getvalue()
        path.write_bytes(draw.draw(st.one_of(st.just(whole), damaged(whole, len(whole)), st.binary(max_size=80))))
        with refused:
            from_published(read_state_dict(path))
        with refused:
            load_network(path)

    return test


def pictures(folder: Path) -> Test:
    """What preparation takes, training and evaluation read as it was prepared."""
    dataset, cache = small(folder), folder / "cache"
    sample = next(sample for sample in dataset.train if sample.id == "a000")
    whole = {"images": {"PNG": "RGB", "JPEG": "RGB"}, "masks": {"PNG": "P", "JPEG": "L"}}
    kinds = st.sampled_from([(role, kind) for role, modes in whole.items() for kind in modes])

    @given(draw=st.data(), of=kinds, seal=st.booleans())
    def test(draw: st.DataObject, of: tuple[str, str], seal: bool) -> None:
        role, kind = of
        data = draw.draw(damaged(encoded(kind, whole[role][kind]), 64))
        sample.image.write_bytes(encoded("JPEG", "RGB"))
        sample.mask.write_bytes(encoded("PNG", "L"))
        path = sample.image if role == "images" else sample.mask
        path.write_bytes(with_checksums(data) if kind == "PNG" and seal else data)
        with refused:
            manifest = prepare(dataset, cache=cache, threads=1)
            picture, mask = seen(manifest, "a000")
            record = manifest.records["a000"]
            assert picture.shape == (record.height, record.width, 3)
            assert mask.shape == (record.height, record.width)

    return test


def small(root: Path) -> Dataset:
    """Five pictures a000 to a004 of three classes, all but the last with masks, a003 for validation."""
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number in range(5):
        (root / f"images/a{number:03d}.jpg").write_bytes(encoded("JPEG", "RGB"))
        if number < 4:
            (root / f"masks/a{number:03d}.png").write_bytes(encoded("PNG", "L"))
    (root / "classes.txt").write_text("ground\ncar\t#ff8000\ntree\n")
    (root / "val.txt").write_text("a003\n")
    return find_dataset("folder", root)


def encoded(kind: str, mode: str) -> bytes:
    """A picture of 8 x 9 pixels."""
    pixels = np.random.default_rng(0).integers(0, 3 if mode != "RGB" else 255, (8, 9, 3) if mode == "RGB" else (8, 9))
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "P":
        image.putpalette(list(range(9)))
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, so that decoders look into them."""
    data, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        if end > len(data):
            break
        data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))
        at = end
    return bytes(data)


READERS: dict[str, Callable[[Path], Test]] = {
    reader.__name__: reader
    for reader in (
        list_files, class_lists, split_specs, manifests, packs, headers, recipes, files_of_runs, saves, weights_files,
        pictures,
    )
}  # fmt: skip
