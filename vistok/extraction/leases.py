"""Who works on what, among workers that share a folder and nothing else: leases that the dead lose.

A lease is a file that one worker alone can make, `NAME.0`. Whoever finds its holder dead makes `NAME.1`, and
holds it then: of several finders, one succeeds, also on network file systems, whose locks are not to be
trusted. A holder is dead when its process is gone, on this machine and in this container, or when its file
was not touched for a while. That while is measured on the finder's own clock, so that clocks may differ.

A worker that was only asleep may so lose a lease and not know it. That costs the work on one shard and no
more: what both write is the same, and each file appears by a rename.
"""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

from ..files import write_once

TIMEOUT = 120.0  # seconds without a sign of life; network file systems keep a file's old time for up to 60


class Leases:
    """The leases of one worker.

    Args:
        folder: Where the files are; made if needed.
        timeout: Seconds after which a holder on another machine that shows no sign of life counts as dead.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with Leases(folder) as first, Leases(folder) as second:
        ...     first.claim("shard-0"), second.claim("shard-0"), second.claim("shard-1")
        (True, False, True)
    """

    def __init__(self, folder: Path, timeout: float = TIMEOUT):
        self.folder = folder
        self.timeout = timeout
        self._held: dict[str, Path] = {}
        self._seen: dict[Path, tuple[int, float]] = {}  # lease -> its time, and when we first saw that
        self._stop = threading.Event()
        pid = os.getpid()
        self._owner = json.dumps({**_place(), "pid": pid, "started": _started(pid)}).encode()

    def __enter__(self) -> "Leases":
        self.folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._touch_held, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for name in list(self._held):
            self.release(name)
        with contextlib.suppress(OSError):  # others still have leases in it, or it is gone
            self.folder.rmdir()

    def claim(self, name: str) -> bool:
        """Takes a lease, where nobody alive holds it."""
        generations = self._generations(name)
        if generations and not self._is_dead(generations[-1]):
            return False
        number = int(generations[-1].suffix[1:]) + 1 if generations else 0
        path = self.folder / f"{name}.{number}"
        self.folder.mkdir(exist_ok=True)  # gone where another worker has finished all
        try:
            if not write_once(path, self._owner):  # another finder was faster
                return False
        except FileNotFoundError:  # another worker has finished all, and tidied up
            return False
        self._held[name] = path
        return True

    def release(self, name: str) -> None:
        """Gives a lease back."""
        mine = self._held.pop(name)
        for path in self._generations(name):
            if int(path.suffix[1:]) <= int(mine.suffix[1:]):
                path.unlink(missing_ok=True)

    def _generations(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"{name}.*"), key=lambda path: int(path.suffix[1:]))

    def _is_dead(self, lease: Path) -> bool:
        owner = _read_owner(lease)
        place = _place()
        if owner and None not in place.values() and place == {name: owner.get(name) for name in place}:
            return _started(owner["pid"]) != owner["started"]
        try:
            touched = lease.stat().st_mtime_ns
        except FileNotFoundError:  # released just now: the next claim finds it free
            return False
        seen, since = self._seen.get(lease, (None, 0.0))
        if seen != touched:
            self._seen[lease] = touched, time.monotonic()
            return False
        return time.monotonic() - since > self.timeout

    def _touch_held(self) -> None:
        while not self._stop.wait(self.timeout / 8):
            for path in list(self._held.values()):
                try:
                    os.utime(path)
                except OSError:  # lost to another worker while this machine slept
                    continue


def _read_owner(lease: Path) -> dict | None:
    try:
        return json.loads(lease.read_bytes())
    except (OSError, ValueError):  # released just now, or damaged: then its age decides
        return None


def _place() -> dict[str, str | None]:
    """Where process numbers are ours: machine, its start, namespace (a container's); None: nobody tells."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pids = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = pids = None
    return {"host": socket.gethostname(), "boot": boot, "pids": pids}


def _started(pid: int) -> str | None:
    """When a process of this machine began, None where it is gone: another one may have its number later."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
