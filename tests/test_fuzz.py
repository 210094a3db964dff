"""Whatever a user's file or flag holds, it is taken, or refused by UsageError: never anything else.

SEMISEG_FUZZ=10000 python -m pytest tests/test_fuzz.py tries so many inputs a target.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import kills
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.checkpoint import header_of, load_network, save_network
from semiseg.engine.models import ENCODERS, Encoder, build_network, from_published
from semiseg.engine.models.published import FORMS
from semiseg.engine.models.state_dict import read_state_dict
from semiseg.engine.recipe import Recipe
from semiseg.pipelines.datasets import find_dataset, prepare, resolve_split, seen
from semiseg.pipelines.datasets.files import read_classes, stated_colours
from semiseg.pipelines.datasets.lists import Names, plain_ids, read_ids, read_ids_present
from semiseg.pipelines.datasets.splits import absolute_spec
from semiseg.pipelines.errors import UsageError

EXAMPLES = int(os.environ.get("SEMISEG_FUZZ", "200"))
IDS = ("a000", "a001", "city/a_000_leftImg8bit", "b c", "é")

fuzzed = settings(max_examples=EXAMPLES)
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


@fuzzed
@given(data=texts(*IDS, "image", "mask", "a000.jpg a000.png"))
def test_list_files(tmp_path, data):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    names = Names(IDS)
    for read in (plain_ids, lambda path: read_ids(path, names, "here"), lambda path: read_ids_present(path, names)):
        with refused:
            read(path)


@fuzzed
@given(data=texts("road", "0", "1", "255", "#ff8000", "name", "label", "road:128,64,128::"))
def test_class_lists(tmp_path, data):
    path = tmp_path / "classes.txt"
    path.write_bytes(data)
    with refused:
        names, colours = read_classes(path)
        assert len(names) == len(colours) == len(set(names)) == len(stated_colours(path))


SPECS = ["draw:", "1/8", "1", "0", "30", "/", "@", ".5", ",", "all", "voc-cps-", "\0", "labelled.txt", " "]
spec_parts = st.one_of(st.sampled_from(SPECS), st.text(max_size=3), st.integers(0, 10**30).map(str))


@fuzzed
@given(spec=st.one_of(st.text(max_size=12), st.lists(spec_parts, max_size=7).map("".join)))
def test_split_specs(dataset, spec):
    with refused:
        absolute_spec(spec)
        split = resolve_split(spec, dataset)
        assert split.labeled
        assert not set(split.labeled) & set(split.unlabeled)


@pytest.fixture
def dataset(folder_root, monkeypatch):
    """A small folder data set, which is also the working folder."""
    root = folder_root(masked=4, bare=1, val=1, height=8, width=9)
    monkeypatch.chdir(root)
    (root / "labelled.txt").write_text("a000\n")
    return find_dataset("folder", root)


@fuzzed
@given(draw=st.data())
def test_manifests(dataset, draw):
    path = prepare(dataset, workers=1).folder / "manifest.json"
    whole = path.with_name("whole.json")
    if not whole.exists():
        shutil.copy(path, whole)
    text = draw.draw(
        st.one_of(changed(json.loads(whole.read_text())).map(json.dumps), st.text(max_size=20), st.just("[" * 100_000))
    )
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with refused:
        for id in prepare(dataset, workers=1).records:
            assert id
    path.unlink(missing_ok=True)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """The header of a checkpoint of next to no network, and a function that writes it with another one."""
    monkeypatch.setitem(
        ENCODERS, "thin", Encoder(build=kills.Thin, channels=(8, 16), strides=(4, 16), multiple=1, weights=dict)
    )
    network = build_network("cac", "thin", 3, head_width=8)
    recipe = load_recipe("supervised_folder").replace(backbone="thin", head_width=8, crop=32)
    path = tmp_path / "best.safetensors"
    header = header_of(recipe, network, ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), step=3, miou=0.5)
    save_network(path, network.state_dict(), header, recipe)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]

    def write(header: str) -> Path:
        save_file(network.state_dict(), path, metadata | {"header": header})
        return path

    return json.loads(metadata["header"]), write


@fuzzed
@given(draw=st.data())
def test_headers_of_checkpoints(checkpoint, draw):
    header, write = checkpoint
    texts = st.one_of(changed(header).map(json.dumps), values.map(json.dumps), st.text(max_size=9))
    path = write(draw.draw(texts))
    with refused:
        found = load_network(path)
        assert len(found.header.classes) == found.network.num_classes == len(found.header.palette)


@fuzzed
@given(
    draw=st.data(), name=st.sampled_from(["cac_voc", "fixmatch_cityscapes", "unimatch_v2_folder", "supervised_shapes"])
)
def test_recipes(draw, name):
    document = draw.draw(st.one_of(changed(load_recipe(name).to_dict()), values))
    with refused:
        recipe = Recipe.from_dict(document)
        recipe.check()
        assert Recipe.from_dict(recipe.to_dict()) == recipe


@fuzzed
@given(draw=st.data())
def test_weights_files(tmp_path, draw):
    """Published ones, by the names that are in them, and files of any bytes."""
    path = tmp_path / draw.draw(st.sampled_from(["a.pth", "a.safetensors"]))
    sizes = st.lists(st.integers(0, 3), max_size=4)
    kinds = st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64])
    tensors = st.builds(lambda size, kind: torch.zeros(size, dtype=kind), sizes, kinds)
    names = st.sampled_from([*(form.sign + "x" for form in FORMS.values()), "module.classifier.1.weight", "epoch", ""])
    held = st.one_of(
        tensors, tensors, st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
    )
    state = draw.draw(st.dictionaries(names | st.text(max_size=6), held, max_size=5))
    state = draw.draw(st.sampled_from([state, {"model": state}, {"state_dict": {"model_ema": state}}]))
    torch.save(state, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    path.write_bytes(draw.draw(st.one_of(st.just(whole), damaged(whole, len(whole)), st.binary(max_size=80))))
    with refused:
        from_published(read_state_dict(path))
    with refused:
        load_network(path)


def encoded(kind: str, mode: str) -> bytes:
    """A small picture."""
    from io import BytesIO

    pixels = np.random.default_rng(0).integers(0, 3 if mode != "RGB" else 255, (8, 9, 3) if mode == "RGB" else (8, 9))
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "P":
        image.putpalette(list(range(9)))
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def sealed(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, so that decoders look into them."""
    data, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        if end > len(data):
            break
        data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))
        at = end
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("role", ["images", "masks"])
@fuzzed
@given(draw=st.data())
def test_pictures(dataset, kind, role, draw):
    """What preparation takes, training and evaluation read as it was prepared."""
    data = draw.draw(damaged(encoded(kind, "RGB" if role == "images" else "P" if kind == "PNG" else "L"), 64))
    if kind == "PNG" and draw.draw(st.booleans()):
        data = sealed(data)
    sample = next(sample for sample in dataset.train if sample.id == "a000")
    path: Path = sample.image if role == "images" else sample.mask
    path.write_bytes(data)
    with refused:
        manifest = prepare(dataset, workers=1)
        picture, mask = seen(manifest, "a000")
        record = manifest.records["a000"]
        assert picture.shape == (record.height, record.width, 3)
        assert mask.shape == (record.height, record.width)
