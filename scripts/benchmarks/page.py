"""Many visitors at once: what a running page answers, how long it takes and how much memory it needs.

    python scripts/benchmarks/page.py --model outputs/quickstart --visitors 200

Each visitor uploads the same photograph and calls the endpoint `reconstruct`.
"""

import argparse
import collections
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from vistok.data.samples import photograph_files


def resident_megabytes(process: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def visit(url: str, photograph: bytes) -> str:
    """One visitor: the page's answer in a word, or its refusal."""
    with httpx.Client(base_url=f"{url}/gradio_api/", timeout=600, verify=False) as http:
        upload = http.post("upload", files={"files": ("photograph.png", photograph)})
        picture = {"path": upload.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}
        joined = http.post("call/reconstruct", json={"data": [picture, "", 0]})
        if joined.status_code != 200:
            return joined.json()["detail"]
        stream = http.get(f"call/reconstruct/{joined.json()['event_id']}").text
        return re.findall(r"event: (\w+)", stream)[-1]


def main() -> None:
    """Starts the page, floods it, and prints one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder or Hub id of a tokenizer")
    parser.add_argument("--visitors", type=int, default=200, help="visitors at once (default: 200)")
    flags = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vistok.cli", "demo", "--model", flags.model, "--server_port", str(port)]
    page, url = subprocess.Popen(command, stdout=subprocess.DEVNULL), f"http://127.0.0.1:{port}"
    photograph = photograph_files()["astronaut"]
    try:
        while True:
            try:
                httpx.get(f"{url}/config", timeout=60)
                break
            except httpx.TransportError:
                if page.poll() is not None:
                    raise SystemExit("The page did not start") from None
                time.sleep(0.2)
        visit(url, photograph)
        memory, done = [resident_megabytes(page.pid)], threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                memory.append(resident_megabytes(page.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        with ThreadPoolExecutor(flags.visitors) as visitors:
            answers = collections.Counter(
                visitors.map(lambda _: visit(url, photograph), range(flags.visitors))
            )
        seconds = time.perf_counter() - began
        done.set()
        watcher.join()
        began = time.perf_counter()
        alive = visit(url, photograph)
        after = time.perf_counter() - began
    finally:
        page.kill()
        page.wait()
    print(f"{dict(answers)} in {seconds:.1f} s; memory {memory[0]:.0f} MB, at most {max(memory):.0f} MB;")
    print(f"one more visitor afterwards: {alive}, {after:.2f} s")


if __name__ == "__main__":
    main()
