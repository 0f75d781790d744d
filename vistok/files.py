"""Files that are there whole or not at all: written beside, flushed to the disk, then renamed."""

import contextlib
import os
import socket
import uuid
from pathlib import Path

TEMPORARY = ".tmp-"  # how the names of files begin that are not finished


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
        except FileExistsError:
            return False
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
