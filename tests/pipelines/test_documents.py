"""Files that we have written, and what was made of them since."""

from __future__ import annotations

import json
import os

import pytest

from semiseg.pipelines.documents import opened, read_object, read_sealed, sealed

CONTENT = {"name": "é\udce9", "sizes": [1, -2, 10**30, 0.1], "of": {"": None, "b": [True, {}]}}


def test_what_is_sealed_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(sealed(CONTENT))
    assert read_sealed(path) == CONTENT
    assert json.loads(path.read_text())["content"] == CONTENT


def test_a_single_bit_breaks_the_seal(tmp_path):
    path = tmp_path / "a.json"
    whole = sealed({"counts": {"0": 17, "1": 300}, "copy": None})
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"^not the bytes that were written$"):
            read_sealed(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^not the bytes that were written$"):
            read_sealed(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"[1]", "no object"),
        (b"null", "no object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"\0" * 9, "can't decode"),
    ],
)
def test_what_is_no_object_is_told_in_a_few_words(tmp_path, data, said):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=said) as error:
        read_object(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_object_that_an_editor_has_saved_otherwise_is_the_same(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, indent=1), encoding=encoding, newline="\r\n")
    assert read_object(path) == CONTENT


def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="is no file"):
            opened(path)
        with pytest.raises(ValueError, match=r"^is no file$"):
            read_object(path)
    with pytest.raises(ValueError, match=r"^No such file or directory$"):
        read_object(tmp_path / "a.json")
