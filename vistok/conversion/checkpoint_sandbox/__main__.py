"""The process: it gives up what it does not need, then opens the file."""

import errno
import os
import sys
from pathlib import Path

from .content import MAX_HEADER, sort_out, write
from .opening import RefusedError, load

try:
    import resource
except ImportError:  # Windows
    resource = None

MEMORY = 512 * 2**20  # bytes on top of the file's own size: with torch itself, a small file stays under 1 GB
OUTPUT = 64 * 2**20  # bytes on top of twice the file's size: tied weights are written once for each name
PROCESSOR_TIME = 3600  # seconds; whoever started it ends it sooner, if still there
_DEEDS = (
    "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.", "winreg.", "_winapi.", "urllib.", "mmap.",
)  # fmt: skip
_HARMLESS_DEEDS = ("os.listdir", "os.scandir", "os.walk", "os.add_dll_directory")  # the import system's
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main(checkpoint: Path, weights: Path) -> None:
    """Opens the checkpoint and writes its weights, or the reason why not to stdout."""
    reason = ""
    try:
        with weights.open("wb") as output:  # before `confine`, after which nothing is opened for writing
            size = checkpoint.stat().st_size
            confine(size)
            write(*sort_out(load(checkpoint)), output, 2 * size + OUTPUT)
    except RefusedError as error:
        reason = str(error)
    except MemoryError:
        reason = "asks for more memory than a file of its size can need"
    except OSError as error:
        reason = f"could not be read: {error.strerror or error}"
        if error.errno == errno.ENOSPC:
            reason = f"needs room in {weights.parents[1]} while it is read: set TMPDIR to a folder with more"
    sys.stdout.buffer.write(reason.encode(errors="replace"))


def confine(size: int) -> None:
    """Limits what this process may do from here on.

    Args:
        size: Of the checkpoint in bytes.
    """
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse_deeds)
    if resource is None:
        return
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: PROCESSOR_TIME,
        resource.RLIMIT_FSIZE: 2 * size + OUTPUT + MAX_HEADER,
    }
    memory = Path("/proc/self/statm")
    if memory.exists():  # elsewhere a limit on addresses is not heeded, or torch's share of it not known
        now = int(memory.read_text().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = now + size + MEMORY
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _refuse_deeds(event: str, arguments: tuple) -> None:
    """An audit hook, which nobody can take away again: no programs, no network, no writing."""
    opens_to_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
    if opens_to_write or (event.startswith(_DEEDS) and event not in _HARMLESS_DEEDS):
        raise RefusedError(f"tried to do what reading weights does not need ({event}): stopped")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
