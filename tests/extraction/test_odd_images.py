"""The 47 odd kinds of image bytes among 2,000 good ones: places are kept, reasons said, memory is flat."""

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from odd_images import odd_images
from PIL import Image
from token_folders import run

from vistok.data import DatasetError, open_dataset
from vistok.extraction import load_tokens
from vistok.extraction.shards import STATUSES

GOOD = 2000


@pytest.fixture(scope="module")
def files() -> list[tuple[str, bytes, str]]:
    """Name, bytes and expected status of all, the odd ones at random places."""
    draw = np.random.default_rng(0)
    good = []
    for number in range(GOOD):
        data = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(data, "PNG")
        good.append((f"good {number}", data.getvalue(), "ok"))
    odd = [(o.name, o.data, o.expected if isinstance(o.expected, str) else "ok") for o in odd_images()]
    together = good + odd
    random.Random(0).shuffle(together)
    return together


def write(folder: Path, files: list[tuple[str, bytes, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": data, "path": name} for name, data, _ in files]
    pq.write_table(pa.table({"image": rows}), folder / "train.parquet", row_group_size=200)
    return folder


def test_skip_keeps_every_place_and_reports_each_reason(files, model, tmp_path):
    source = open_dataset(str(write(tmp_path / "mixed", files)), split="train", memory_budget=0)
    manifest = run(model, source, tmp_path / "out", shard_size=500, on_error="skip")
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out" / "data").glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["row"] for row in rows] == list(range(GOOD + 47))
    assert [row["key"] for row in rows] == [name for name, _, _ in files]
    assert [STATUSES[row["status"]] for row in rows] == [status for _, _, status in files]
    assert all((row["tokens"] is None) == (row["status"] > 0) for row in rows)
    reasons = [status for _, _, status in files if status != "ok"]
    assert manifest["unreadable"] == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert len(load_tokens(tmp_path / "out")) == len(files) - len(reasons)

    # The tokens of the good ones are those of the good ones alone, which have other neighbours.
    good = [file for file in files if file[2] == "ok"]
    source = open_dataset(str(write(tmp_path / "good", good)), split="train", memory_budget=0)
    run(model, source, tmp_path / "good-out", shard_size=500)
    alone = {row["key"]: row["tokens"] for p in (tmp_path / "good-out" / "data").glob("*.parquet")
             for row in pq.read_table(p).to_pylist()}  # fmt: skip
    assert {row["key"]: row["tokens"] for row in rows if row["status"] == 0} == alone


def test_error_stops_at_the_first_and_names_it(files, model, tmp_path):
    source = open_dataset(str(write(tmp_path / "mixed", files)), split="train", memory_budget=0)
    first = next(number for number, (_, _, status) in enumerate(files) if status != "ok")
    with pytest.raises(DatasetError, match=rf"row {first} of train.parquet \({files[first][0]}\)") as stopped:
        run(model, source, tmp_path / "out", shard_size=500)
    assert "--on_error skip" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert not list((tmp_path / "out" / "data").glob("*.json"))
    assert not list((tmp_path / "out" / "data").glob(".tmp*"))
    run(model, source, tmp_path / "out", shard_size=500, on_error="skip")  # the same plan


def test_memory_stays_flat(files, model, tmp_path):
    code = """
import json, resource, sys
import torch
torch.set_num_threads(1)
from vistok import VQModelHF
from vistok.data import open_dataset
from vistok.extraction import extract
model = VQModelHF.from_pretrained(sys.argv[1], dtype=torch.float32)
peaks = []
for name in ("good", "mixed"):
    source = open_dataset(f"{sys.argv[2]}/{name}", split="train", memory_budget=0)
    extract(model, source, f"{sys.argv[2]}/{name}-out", batch_size=8, shard_size=500, decode_threads=1,
            on_error="skip", progress=False)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(peaks))
"""
    write(tmp_path / "mixed", files)
    write(tmp_path / "good", [file for file in files if file[0].startswith("good")])
    result = subprocess.run(
        [sys.executable, "-c", code, model.name_or_path, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    before, after = json.loads(result.stdout.splitlines()[-1])
    assert after - before < 64  # MB: bombs of 100 to 3,600 megapixels are among them
