"""Files and folders of a run, written so that a full disk costs nothing that was there."""

from __future__ import annotations

import csv
import errno
import fcntl
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from safetensors import SafetensorError

from ..pipelines.documents import opened
from ..pipelines.errors import UsageError
from .memory import out_of_memory


class DiskFull(UsageError):
    """There is no room, which may change."""


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Atomic write: yields a temporary path, to be written inside, that replaces `path` on success. After an error
    `path` is as it was before. durable: once this is over, a loss of power does not undo it.

    Raises UsageError where it cannot be written.
    """
    draft = path.with_name(f"{path.name[:50]}.part")  # a longer name may be too long for the file system
    with writing(path):
        try:
            draft.touch()
            mode = draft.stat().st_mode
            yield draft
            draft.chmod(mode)  # the umask's, which some libraries pass over
            if durable:
                sync(draft)
            os.replace(draft, path)
            if durable:
                sync(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """A text file, in UTF-8, written as `whole` does. Raises UsageError where it cannot be."""
    with whole(path, durable=durable) as draft:
        draft.write_text(text, encoding="utf-8")


def write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """A table as CSV, its header first, written as `whole` does."""
    with whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def require_own(files: Mapping[Path, str], what: str) -> None:
    """Raises UsageError where something lies in the place of a file of `what`, a prediction for one, that does not
    begin as that does."""
    for path, beginning in files.items():
        if (path.is_symlink() or path.exists()) and not _begins(path, beginning.encode()):
            raise UsageError(f"--out: {path} is there and not of {what}: choose another folder")


def _begins(path: Path, beginning: bytes) -> bool:
    with suppress(OSError), opened(path) as file:
        return file.read(len(beginning)) == beginning
    return False


def sync(path: Path) -> None:
    """Waits until the disk has a file, or the names in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locked(path: Path) -> IO[str] | None:
    """The file, made where it is not there, and kept until it is closed or all processes that have it end; None where
    another one keeps it. Raises UsageError where it cannot be written."""
    with writing(path):
        file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:  # a file system without locks
        pass
    return file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What is written inside to the file raises UsageError where the disk does not take it, DiskFull where it has no
    room."""
    try:
        yield
    except UsageError:
        raise
    # Full disks are RuntimeErrors of torch and errors of safetensors without a number.
    except (OSError, RuntimeError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        full = getattr(error, "errno", None) in (None, errno.ENOSPC, errno.EDQUOT)
        if full and not path.parent.is_dir():  # of which torch's error has no number either
            reason, full = os.strerror(errno.ENOENT), False
        raise (DiskFull if full else UsageError)(
            f"--out: cannot write {path} ({reason}); free space on its disk, or take another folder; a run goes on "
            "from its last save with --resume"
        ) from None


def create_folder(folder: Path) -> None:
    """The folder and those above it, where they are missing. Raises UsageError where it cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UsageError(f"--out: cannot write into {folder} ({error.strerror}); choose another folder") from None


def create_new(folder: Path) -> Path:
    """A folder of this name that was not there before. Of runs that ask for one name at the same time each gets a
    folder of its own: with -2, -3 and so on behind the name."""
    create_folder(folder.parent)
    own = folder
    for number in itertools.count(2):
        with suppress(FileExistsError):
            own.mkdir()
            break
        own = folder.with_name(f"{folder.name}-{number}")
    return own
