"""The Space as Hugging Face runs it: its app in a process of its own, in an empty folder."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
APP = ROOT / "spaces" / "reconstruct" / "app.py"


@dataclass(frozen=True)
class Served:
    """A running page: where it is, its process, its temporary folder and what it printed."""

    url: str
    process: subprocess.Popen
    folder: Path
    log: Path

    def memory(self) -> int:
        """Resident bytes of the process."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def cached(self) -> list[Path]:
        """The files that it keeps."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@contextmanager
def serve(models: Sequence[str], command: Sequence[str] = (str(APP),), **variables: str) -> Iterator[Served]:
    """Starts the app and waits until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="vistok-page-") as root:
        here, folder, log = (Path(root) / name for name in ("here", "tmp", "log"))
        here.mkdir()
        folder.mkdir()
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "VISTOK_MODELS": " ".join(models),
            "GRADIO_SERVER_PORT": str(port),
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=here, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        served = Served(f"http://127.0.0.1:{port}", process, folder, log)
        try:
            _wait(served)
            yield served
        finally:
            process.kill()
            process.wait()


def _wait(served: Served) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if served.process.poll() is not None:
            break
        try:
            if httpx.get(f"{served.url}/config", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"The page did not start: {served.log.read_text()[-2000:]}")
