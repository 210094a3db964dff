"""Every kind of damage to every kind of file that a run, a user or the cache keeps ends in its defined result: it is
refused in one line that names the file and the cure, passed over with a warning, or made anew. Nothing else changes.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from readers import THIN, small
from semiseg.engine.catalogue import load_recipe
from semiseg.engine.checkpoint import header_of, load_network, save_network
from semiseg.engine.models import ENCODERS, build_network, read_state_dict
from semiseg.engine.run import Run
from semiseg.engine.training import verdict
from semiseg.engine.training.state import load_save, write_save
from semiseg.engine.training.verdict import Part
from semiseg.kernels.check import Result
from semiseg.pipelines.datasets import prepare, resolve_split, seen
from semiseg.pipelines.datasets.pack import open_pack
from semiseg.pipelines.documents import sealed
from semiseg.pipelines.errors import UsageError

Use = Callable[[list[str]], Any]
"""Reads the file as the library does, hands lines for the user to a list, and returns what was made of it."""
Bytes = Callable[[bytes], bytes]


def flipped(place: float) -> Bytes:
    """A bit of the byte at this share of the file is another."""

    def flip(whole: bytes) -> bytes:
        at = min(int(place * len(whole)), len(whole) - 1)
        return whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]

    return flip


def holds(data: bytes | dict) -> Bytes:
    """Something else altogether."""
    data = json.dumps(data).encode() if isinstance(data, dict) else data
    return lambda whole: data


CONTENTS: dict[str, Bytes] = {
    "empty": holds(b""),
    "a-byte": lambda whole: whole[:1],
    "half": lambda whole: whole[: len(whole) // 2],
    "a-byte-less": lambda whole: whole[:-1],
    "a-byte-more": lambda whole: whole + b"x",
    "twice": lambda whole: 2 * whole,
    "first-byte": flipped(0),
    "a-bit": flipped(0.5),
    "last-byte": flipped(1),
    "zeros": lambda whole: bytes(len(whole)),
    "a-zero-byte": lambda whole: whole[: len(whole) // 2] + b"\0" + whole[len(whole) // 2 :],
    "no-text": holds(b"\xff\xfe\xfd"),
    "markup": holds(b"<!doctype html>\n<html></html>\n"),
    "null": holds(b"null"),
    "a-list": holds(b"[1, 2]"),
    "another-object": holds({"a": 1}),
    "a-long-number": holds(b'{"step": ' + b"9" * 5000 + b"}"),
    "deep": holds(b"[" * 100_000),
}


def instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something in the place of the file."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


PLACES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "a-folder": instead(Path.mkdir),
    "a-pipe": instead(os.mkfifo),
    "a-loop": instead(lambda path: path.symlink_to(path.name)),
    "a-link-to-nothing": instead(lambda path: path.symlink_to("nothing")),
    "closed": lambda path: path.chmod(0),
}
JSON_STAYS = {"a-bit", "a-zero-byte"}
"""Damages after which a document may say something else, and be one."""
EDITED = {
    "bom": lambda whole: b"\xef\xbb\xbf" + whole,
    "windows": lambda whole: whole.replace(b"\n", b"\r\n"),
}
"""What editors make of a text, which stays what it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A kind of file."""

    make: Callable[[Path], tuple[str, Use]]
    """Writes sound files below a folder; returns the one to damage and its use."""
    result: str
    """Of damage: `refused`, `passed over` or `made anew`; of a log `whole lines` are left; what no cache takes is
    made, and `not kept`."""
    says: str
    """The cure in a refusal, or what a warning says."""
    left: Any = None
    """What is made of it where it is passed over."""
    but: Mapping[str, str] = field(default_factory=dict)
    """Results of some damages, where they differ; `sound` where the file says the same."""
    more: Mapping[str, Bytes] = field(default_factory=dict)
    """Damages of this kind of file alone."""
    without: frozenset[str] | set[str] = frozenset()
    """Damages after which it is a sound file of its kind."""


def saves(folder: Path, file: str, steps: tuple[int, ...]) -> tuple[str, Use]:
    save = None
    for step in steps:
        networks = {"last.safetensors": lambda path, step=step: path.write_text(f"{step}")}
        save = write_save(folder, step, {"steps_done": step, "w": torch.arange(9.0)}, networks, save)

    def use(said: list[str]) -> Any:
        found, state = load_save(folder, said.append)
        assert state["steps_done"] == found[-1].step
        return found[-1].step

    return file, use


def checkpoint(folder: Path) -> tuple[str, Use]:
    recipe = load_recipe("supervised_folder").replace(head_width=8, crop=32, backbone="thin")
    network = build_network("cac", "thin", 2, head_width=8)
    header = header_of(recipe, network, ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    save_network(folder / "best.safetensors", network.state_dict(), header, recipe)

    def use(said: list[str]) -> Any:
        return {
            name: tensor.tolist()
            for name, tensor in load_network(folder / "best.safetensors").network.state_dict().items()
        }

    return "best.safetensors", use


def weights(folder: Path) -> tuple[str, Use]:
    path = folder / "best.pth"
    torch.save({"epoch": 1, "model": {"w": torch.arange(9.0)}}, path)
    return path.name, lambda said: {name: tensor.tolist() for name, tensor in read_state_dict(path).items()}


def recipe(folder: Path) -> tuple[str, Use]:
    Run.create(folder / "run", load_recipe("cac_voc").to_dict(), {}).close()
    return "run/recipe.json", lambda said: Run.open(folder / "run").recipe


def split(folder: Path) -> tuple[str, Use]:
    told = {"name": "all", "checksum": "0", "labeled": ["a"], "unlabeled": ["b"], "val": ["c"], "classes": ["x", "y"]}
    told |= {"class_pct": {}, "contents": {}, "pictures": {}}
    Run.create(folder / "run", {}, told).close()
    return "run/split.json", lambda said: Run.open(folder / "run").split


def log(folder: Path) -> tuple[str, Use]:
    run = Run.create(folder / "run", {}, {})
    for step in range(1, 5):
        run.write({"step": step, "loss": 1 / step, "images_per_s": 3.0})
    run.close()
    return "run/log.jsonl", lambda said: Run.open(folder / "run").log


def list_file(folder: Path) -> tuple[str, Use]:
    dataset = small(folder)
    path = folder / "labelled.txt"
    path.write_bytes(b"a000\na001\n")
    return path.name, lambda said: resolve_split(str(path), dataset).labeled


def manifest(folder: Path) -> tuple[str, Use]:
    dataset, cache = small(folder), folder / "cache"
    path = prepare(dataset, cache=cache, threads=1).folder / "manifest.json"
    return str(path.relative_to(folder)), lambda said: prepare(dataset, cache=cache, threads=1).records


def copy(folder: Path) -> tuple[str, Use]:
    """A picture that the cache holds converted. What is wrong with it is seen by preparation, or at its first use."""
    dataset, cache = small(folder), folder / "cache"
    source = folder / "images/a000.jpg"
    Image.new("L", (9, 8), 7).save(source)
    path = prepare(dataset, cache=cache, threads=1).records["a000"].image

    def use(said: list[str]) -> Any:
        with suppress(UsageError):
            return seen(prepare(dataset, cache=cache, threads=1), "a000")[0].tolist()
        return seen(prepare(dataset, cache=cache, threads=1), "a000")[0].tolist()

    return str(path.relative_to(folder)), use


def pack(folder: Path, pattern: str) -> tuple[str, Use]:
    prepared = prepare(small(folder), cache=folder / "cache", threads=1)
    records = list(prepared.records.values())

    def use(said: list[str]) -> Any:
        packed = open_pack(records, prepared.folder, threads=1)
        return [packed.image(record).tolist() for record in records]

    use([])
    (path,) = (prepared.folder / "pack").glob(pattern)
    return str(path.relative_to(folder)), use


def judgement(folder: Path) -> tuple[str, Use]:
    part = Part("quick", torch.device("cpu"), ("quick",), (), (), 1)

    def use(said: list[str]) -> Any:
        return verdict.verdict(part, said.append)

    use([])
    (path,) = (folder / "cache/verdicts").iterdir()
    return str(path.relative_to(folder)), use


CACHE = {"a-folder": "refused"}
"""Where a file takes its place at once, only a folder is in its way."""
FILES = {
    "state": File(
        make=lambda folder: saves(folder, "state-4.pt", (2, 4)),
        result="passed over",
        says="the save of step 4",
        left=2,
        more={
            "first-entry": lambda whole: whole[:30],
            "no-directory": lambda whole: whole[:-22],
            "zip-of-zeros": lambda whole: whole[:4] + bytes(len(whole) - 4),
            "a-pickle": holds(b"\x80\x04K\x01."),
        },
    ),
    "record": File(
        make=lambda folder: saves(folder, "state-4.json", (2, 4)),
        result="passed over",
        says="damaged",
        left=2,
        without={*JSON_STAYS, "missing"},
        more={
            "no-files": holds({"step": 4}),
            "no-state": holds({"step": 4, "files": {}}),
            "step-of-text": lambda whole: whole.replace(b'"step": 4', b'"step": "4"'),
            "step-true": lambda whole: whole.replace(b'"step": 4', b'"step": true'),
            "step-of-another": lambda whole: whole.replace(b"4", b"2"),
            "files-of-another-type": lambda whole: whole.replace(b'"bytes"', b'"octets"'),
            "files-a-list": holds({"step": 4, "files": ["state-4.pt"]}),
            "a-file-elsewhere": lambda whole: whole.replace(b"last.safetensors", b"../last.safetensors"),
        },
    ),
    "only-state": File(
        make=lambda folder: saves(folder, "state-2.pt", (2,)), result="refused", says="--init .*last.safetensors"
    ),
    "checkpoint": File(
        make=checkpoint,
        result="refused",
        says="pass ",
        more={
            "length-alone": lambda whole: whole[:8],
            "header-alone": lambda whole: whole[: 8 + struct.unpack("<Q", whole[:8])[0]],
            "length-of-all-ones": lambda whole: b"\xff" * 8 + whole[8:],
            "length-zero": lambda whole: bytes(8) + whole[8:],
            "length-beyond-the-end": lambda whole: struct.pack("<Q", len(whole)) + whole[8:],
            "length-one-more": lambda whole: struct.pack("<Q", struct.unpack("<Q", whole[:8])[0] + 1) + whole[8:],
            "another-step": lambda whole: whole.replace(b'\\"step\\": 0', b'\\"step\\": 1'),
        },
    ),
    "weights": File(
        make=weights, result="refused", says="pass ", without={"a-byte-more", "twice", "a-bit", "last-byte"}
    ),
    "recipe": File(
        make=recipe,
        result="refused",
        says="restore it|pass the --out|train again",
        without=JSON_STAYS,
        more={
            "another-version": lambda whole: whole.replace(b'"crop"', b'"window"'),
            "text-for-a-number": lambda whole: whole.replace(b'"crop": 320', b'"crop": "320"'),
            "infinite": lambda whole: whole.replace(b'"crop": 320', b'"crop": Infinity'),
            **EDITED,
            "utf-16": lambda whole: whole.decode().encode("utf-16"),
        },
        but={**dict.fromkeys(EDITED, "sound"), "utf-16": "sound"},
    ),
    "split": File(
        make=split,
        result="refused",
        says="restore it",
        without=JSON_STAYS,
        more={
            "no-labelled": lambda whole: whole.replace(b'"labeled"', b'"labels"'),
            "labelled-a-text": lambda whole: whole.replace(b'[\n  "a"\n ]', b'"a"'),
            "labelled-numbers": lambda whole: whole.replace(b'"a"', b"1"),
            "name-null": lambda whole: whole.replace(b'"all"', b"null"),
            "classes-an-object": lambda whole: whole.replace(b'[\n  "x",\n  "y"\n ]', b'{"x": 0, "y": 1}'),
            **EDITED,
        },
        but={**dict.fromkeys(EDITED, "sound")},
    ),
    "list": File(
        make=list_file,
        result="refused",
        says="write|save|correct|pass|use|make",
        without={"half", "a-byte-less", "twice", "last-byte"},
        more={
            **EDITED,
            "old-mac": lambda whole: whole.replace(b"\n", b"\r"),
            "utf-16": lambda whole: whole.decode().encode("utf-16"),
            "latin-1": lambda whole: whole + b"\xe9\n",
            "a-long-line": lambda whole: whole + b"a" * 10_000_000,
        },
        but={**dict.fromkeys(EDITED, "sound"), "old-mac": "sound", "a-byte-more": "refused"},
    ),
    "log": File(
        make=log,
        result="whole lines",
        says="restore it",
        but={"a-folder": "refused", "a-pipe": "refused", "a-loop": "refused", "closed": "refused"}
        | {**dict.fromkeys(EDITED, "sound"), "blank-lines": "sound"},
        more={
            **EDITED,
            "blank-lines": lambda whole: whole.replace(b"\n", b"\n\n"),
            "utf-16": lambda whole: whole.decode().encode("utf-16"),
            "text-for-numbers": lambda whole: whole.replace(b'"loss": 0.5', b'"loss": "0.5"'),
            "a-number-for-all": lambda whole: whole.replace(b'"loss": 0.5', b'"loss": [0.5]'),
            "infinite": lambda whole: whole.replace(b'"loss": 0.5', b'"loss": 1e999'),
            "a-step-true": lambda whole: whole.replace(b'"step": 2', b'"step": true'),
            "a-step-of-text": lambda whole: whole.replace(b'"step": 2', b'"step": "2"'),
            "no-step": lambda whole: whole.replace(b'"step": 2', b'"stop": 2'),
            "no-line-end": lambda whole: whole.replace(b"\n", b"", 2),
        },
        without={"a-bit"},
    ),
    "manifest": File(
        make=manifest,
        result="made anew",
        says="set SEMISEG_CACHE",
        but=CACHE,
        more={"another-version": lambda whole: sealed({"version": 0}), "of-no-files": holds(sealed({"version": 4}))},
    ),
    "copy": File(make=copy, result="made anew", says="set SEMISEG_CACHE", but=CACHE),
    "index": File(
        make=lambda folder: pack(folder, "index.json"),
        result="made anew",
        says="set SEMISEG_CACHE",
        but=CACHE,
        more={"another-version": lambda whole: sealed({"version": 0}), "of-no-pixels": holds(sealed({"version": 2}))},
    ),
    "pixels": File(
        make=lambda folder: pack(folder, "pixels-*"),
        result="made anew",
        says="set SEMISEG_CACHE",
        but={"closed": "refused"},
    ),
    "verdict": File(
        make=judgement,
        result="made anew",
        says="the verdict is not kept",
        but={"a-folder": "not kept"},
        more={"of-something-else": lambda whole: sealed({"facts": {}, "results": []})},
    ),
}
CASES = [
    pytest.param(name, damage, id=f"{name}-{damage}")
    for name, file in FILES.items()
    for damage in {**CONTENTS, **PLACES, **file.more}
    if damage not in file.without
]


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    """A cache of the test's own, a small encoder, and a check whose verdict is known."""
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(ENCODERS, "thin", THIN)
    result = Result("one", "cpu", "fp32", "x", problem="is 3")
    monkeypatch.setattr(verdict, "examine", lambda part: [result])


def contents(folder: Path) -> dict[str, Any]:
    """Every file that may be read with its bytes, and all others with what they are."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        found[str(path.relative_to(folder))] = (
            path.read_bytes() if stat.S_ISREG(kind) and os.access(path, os.R_OK) else kind
        )
    return found


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_damage_ends_in_its_defined_result(tmp_path, name, damage):
    file = FILES[name]
    relative, use = file.make(tmp_path)
    path = tmp_path / relative
    sound, whole = use([]), path.read_bytes()
    if damage in PLACES:
        PLACES[damage](path)
    else:
        path.write_bytes({**CONTENTS, **file.more}[damage](whole))
        assert path.read_bytes() != whole
    if damage == "closed" and os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    before, said = contents(tmp_path), []
    result = file.but.get(damage, file.result)
    if result == "refused":
        with pytest.raises(UsageError, match=file.says) as told:
            use(said)
        assert "\n" not in str(told.value)
        assert str(tmp_path) in str(told.value)
    else:
        found = use(said)
        assert any(re.search(file.says, line) for line in said) == (result in ("passed over", "not kept"))
        if result == "whole lines":
            assert all(line in sound for line in found)
        else:
            assert found == (file.left if result == "passed over" else sound)
    if result == "made anew":
        assert use(again := []) == sound
        assert not again
    in_cache = "cache/" if relative.startswith("cache/") else "nowhere"
    assert kept(contents(tmp_path), in_cache) == kept(before, in_cache)


def kept(found: dict[str, Any], but: str) -> dict[str, Any]:
    """What does not lie below a folder."""
    return {place: data for place, data in found.items() if not place.startswith(but)}


def test_every_kind_of_file_is_damaged_in_every_way_that_is_known():
    counts = Counter(case.values[0] for case in CASES)
    assert min(counts.values()) >= 20
    assert counts.total() >= 350
