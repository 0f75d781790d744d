"""Files that are there whole or not at all: written beside, flushed to the disk, then renamed."""

import contextlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

from .messages import one_line

TEMPORARY = ".tmp-"  # how the names of files begin that are not finished


class WriteError(ValueError):
    """Files could not be written; the message says why."""


def temporary_beside(path: Path) -> Path:
    """A name that nobody else uses, in the folder of `path`, for what will be renamed to it."""
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:32]
    return path.with_name(f"{TEMPORARY}{path.name}-{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file; a kill or a power cut leaves the one before, or the new one."""
    with _finished_beside(path, data) as temporary:
        temporary.rename(path)
    flush(path.parent)


def write_once(path: Path, data: bytes) -> bool:
    """Writes a file unless it is there, whoever writes it at the same moment.

    Returns:
        Whether this call wrote it.
    """
    with _finished_beside(path, data) as temporary:
        try:
            os.link(temporary, path)  # unlike a rename, it replaces nothing
        except FileExistsError:  # or ours, where the answer of a network file system was lost
            return temporary.stat().st_nlink == 2
        except OSError:  # a file system without links: two writers of the same moment could both succeed
            if path.exists():
                return False
            temporary.rename(path)
    flush(path.parent)
    return True


@contextlib.contextmanager
def _finished_beside(path: Path, data: bytes):
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Asks the disk to keep a file's content, or a folder's list of names, before anything else happens."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Lets files appear in a folder whole: written beside, flushed, then moved one by one.

    Args:
        folder: Where they go; files of the same names are replaced.
        write: Writes them into a folder.

    Raises:
        WriteError: They could not be written; the folder is as it was.
    """
    temporary = folder / f"{TEMPORARY}publish"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        for path in files:
            flush(path)
    except Exception as error:  # libraries report a full disk as errors of their own
        shutil.rmtree(temporary, ignore_errors=True)
        raise WriteError(
            f"Could not write to {folder} ({free_space(folder)} are free): {reason_of(error)}; make room and "
            "go on"
        ) from error
    for path in files:
        target = folder / path.relative_to(temporary)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    shutil.rmtree(temporary)
    flush(folder)


def reason_of(error: Exception) -> str:
    """Why something could not be written, on one line."""
    # torch.save says "unexpected pos 64 vs 0" or "iostream error" where a write was cut short.
    cut_short = isinstance(error, RuntimeError) and re.search("unexpected pos|iostream error", str(error))
    return "a write was cut short, as on a full disk" if cut_short else one_line(error)


def free_space(folder: Path) -> str:
    """How much room there is where a folder is, for a message."""
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
    except OSError:
        return "an unknown number of bytes"
