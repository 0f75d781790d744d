"""Kills extractions at random moments and starts them again: is anything lost, twice or different?

    python scripts/benchmarks/extraction_kills.py [--pictures 10000] [--runs 21] [--kills 5]

Each run extracts the same small pictures by 1, 2 or 4 workers in a folder of its own. Workers are processes
that are killed by SIGKILL, at a random time or at a random one of the moments when they write: before or
after a flush, a rename or a link. A killed worker is replaced until the run has had its kills. Then the rows
are read by pyarrow alone and counted, and every file is compared with that of a run that nobody disturbed.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
from vistok.data import open_dataset
from vistok.data.samples import open_samples
from vistok.extraction import extract

SIDE = 16  # pixels
WORKERS = (1, 2, 4)
POINTS = (12, 60)  # a kill in a write comes at one of the first so many calls, one or the other by chance


def main() -> int:
    """Runs all, prints one line a run and the sums; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=4, help="input files")
    parser.add_argument("--shard_size", type=int, default=500)
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--kills", type=int, default=5, help="kills a run")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        in_child(lambda: write_pictures(folder / "pictures", flags.pictures, flags.files))
        torch.manual_seed(0)
        network = SimpleCNNConfig(hidden_channels=4, num_res_blocks=1)
        model = VQModelHF(FSQConfig(levels=[8, 5, 5, 5], image_size=SIDE, network=network)).eval()

        def work(output: Path, worker: int, workers: int) -> None:
            source = open_dataset(str(folder / "pictures"), split="train", memory_budget=0)
            extract(
                model, source, output, shard_size=flags.shard_size, worker_index=worker, num_workers=workers,
                decode_threads=1, on_error="skip", progress=False,
            )  # fmt: skip

        started = time.monotonic()
        in_child(lambda: work(folder / "whole", 0, 1))
        whole = time.monotonic() - started
        expected = hashes(folder / "whole")
        sums: Counter[str] = Counter()
        draw = random.Random(flags.seed)
        for run in range(flags.runs):
            workers = WORKERS[run % len(WORKERS)]
            output = folder / f"run-{run}"
            started = time.monotonic()
            kills = disturbed(work, output, workers, flags.kills, whole, draw)
            found = compare(output, folder / "pictures", expected)
            sums.update(found | {"kills": sum(kills.values()), "runs": 1})
            seconds = time.monotonic() - started
            print(
                json.dumps({"run": run, "workers": workers, **kills, **found, "seconds": round(seconds, 1)}),
                flush=True,
            )
    print(json.dumps(sums))
    return int(any(sums[name] for name in ("lost", "twice", "different_files", "left_over", "without_card")))


def disturbed(
    work, output: Path, workers: int, kills: int, seconds: float, draw: random.Random
) -> dict[str, int]:
    """Runs workers until all of them end by themselves; the first `kills` of them are killed.

    A kill at a time comes early in the `seconds` that one takes undisturbed, so that there is work to kill.
    """
    done = Counter()
    alive: dict[int, tuple[int, float | None]] = {}  # process -> worker, when to kill it

    def start(worker: int) -> None:
        left = kills - sum(done.values()) - sum(1 for _, moment in alive.values() if moment is not None)
        in_write = draw.randrange(1, draw.choice(POINTS)) if left > 0 and draw.random() < 0.5 else None
        pid = os.fork()
        if pid == 0:
            os.setsid()
            if in_write is not None:
                die_at(in_write)
            run_child(lambda: work(output, worker, workers))
        moment = (
            time.monotonic() + draw.uniform(0.03, 0.4) * seconds if left > 0 and in_write is None else None
        )
        alive[pid] = worker, moment if in_write is None else float("inf")

    for worker in range(workers):
        start(worker)
    while alive:
        for pid, (worker, moment) in list(alive.items()):
            if moment is not None and time.monotonic() > moment:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del alive[pid]
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                done["in_a_write" if moment == float("inf") else "at_a_time"] += 1
                start(worker)
            elif status:
                raise SystemExit(f"a worker failed with status {status}")
        time.sleep(0.002)
    return {"at_a_time": done["at_a_time"], "in_a_write": done["in_a_write"]}


def die_at(count: int) -> None:
    """From now on this process kills itself before or after its `count`-th flush, rename or link."""
    calls = itertools.count(1)
    before = random.random() < 0.5

    def dying(function):
        def wrapped(*arguments, **options):
            now = next(calls) == count
            if now and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if now:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    os.fsync, os.rename, os.link = dying(os.fsync), dying(os.rename), dying(os.link)


def compare(output: Path, pictures: Path, expected: dict[str, str]) -> dict[str, int]:
    """Counts what is wrong: pictures lost or twice, files that are others, files that are left over."""
    counts: Counter[tuple[int, int]] = Counter()
    for path in (output / "data").glob("*.parquet"):
        table = pq.read_table(path, columns=["file", "row"])
        counts.update(zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True))
    files = sorted(pictures.glob("*.parquet"))
    wanted = {(f, row) for f, path in enumerate(files) for row in range(pq.read_metadata(path).num_rows)}
    found = hashes(output)
    return {
        "lost": len(wanted - counts.keys()),
        "twice": sum(count - 1 for count in counts.values()) + len(counts.keys() - wanted),
        "different_files": sum(found.get(name) != digest for name, digest in expected.items()),
        "left_over": len(found.keys() - expected.keys()),
        "without_card": int(not (output / "README.md").exists()),
    }


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder; but the card names its folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_pictures(folder: Path, count: int, files: int) -> None:
    """JPEG files of 16 x 16 pixels cut from photographs, some of them damaged, in Parquet files."""
    folder.mkdir()
    source, draw = open_samples("train"), random.Random(0)
    photographs = [source.read(row).decode() for row in range(0, source.num_rows, 7)]
    for file in range(files):
        rows = []
        for row in range(file * count // files, (file + 1) * count // files):
            picture = photographs[row % len(photographs)]
            left, top = draw.randrange(picture.width - SIDE), draw.randrange(picture.height - SIDE)
            data = io.BytesIO()
            picture.crop((left, top, left + SIDE, top + SIDE)).save(data, "JPEG", quality=90)
            broken = row % 101 == 0
            rows.append({"bytes": data.getvalue()[: 200 if broken else None], "path": f"{row}.jpg"})
        labels = [draw.randrange(10) for _ in rows]
        table = pa.table({"image": rows, "label": labels})
        pq.write_table(table, folder / f"train-{file:05d}-of-{files:05d}.parquet")


def in_child(work) -> None:
    """Does something in a process of its own, so that this one has no threads when it forks."""
    pid = os.fork()
    if pid == 0:
        run_child(work)
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"a child failed with status {status}")


def run_child(work) -> None:
    """Ends this process with what `work` did."""
    try:
        work()
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
