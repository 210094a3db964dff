"""Files that we have written, read again as what anybody may have made of them since."""

from __future__ import annotations

import errno
import json
import os
import stat
import zlib
from io import BufferedReader
from pathlib import Path
from typing import Any


def opened(path: Path) -> BufferedReader:
    """A file, to read. Raises OSError where there is none: a pipe or a device would never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is no file", str(path))
    return open(path, "rb")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError, in a few words, where there is none."""
    return _object(_bytes(path))


def sealed(content: dict[str, Any]) -> bytes:
    """An object as JSON behind its checksum, for `read_sealed`."""
    text = json.dumps(content, separators=(",", ":")).encode()
    return _seal(text) + text + b"}"


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that was sealed in a file. Raises ValueError, in a few words, where a single bit is another."""
    data = _bytes(path)
    text = data[len(_seal(b"")) : -1]
    if data != _seal(text) + text + b"}":
        raise ValueError("not the bytes that were written")
    return _object(text)


def _seal(text: bytes) -> bytes:
    return b'{"crc32":"%08x","content":' % zlib.crc32(text)


def _bytes(path: Path) -> bytes:
    try:
        with opened(path) as file:
            return file.read()
    except OSError as error:
        raise ValueError(error.strerror) from None


def _object(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content
