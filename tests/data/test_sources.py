"""Every kind of name opens, and whatever is wrong is one line that says what to do."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image

from vistok.data import (
    DatasetError,
    IndexedSource,
    PictureTransform,
    ShardedSource,
    open_dataset,
    ordered_batches,
)

TRANSFORM = PictureTransform(32)
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*use of fork"),
]


def first_pictures(source, count: int) -> torch.Tensor:
    return torch.cat(
        [batch["pixels"] for batch in ordered_batches(source, TRANSFORM, batch_size=5, limit=count)]
    )


def labels(source) -> list[int]:
    return [
        int(label) for batch in ordered_batches(source, TRANSFORM, batch_size=5) for label in batch["label"]
    ]


@pytest.fixture(scope="module")
def expected(parquet_folder) -> torch.Tensor:
    return first_pictures(open_dataset(str(parquet_folder), split="train"), 12)


@pytest.mark.parametrize("memory_budget", [0, 2**30])
def test_parquet_folder_file_and_glob(parquet_folder, expected, memory_budget):
    kind = IndexedSource if memory_budget else ShardedSource
    for name in ("", "*.parquet", "train-*.parquet", "train-00000-of-00005.parquet"):
        source = open_dataset(str(parquet_folder / name), split="train", memory_budget=memory_budget)
        assert isinstance(source, kind)
        assert source.num_rows == (30 if name.startswith("train-00000") else 97)
        assert source.label_names == ["even", "odd"]
        assert torch.equal(first_pictures(source, 12), expected)
    assert open_dataset(str(parquet_folder / "*.parquet"), split="validation").num_rows == 13


def test_a_glob_never_takes_validation_for_training(parquet_folder):
    with pytest.raises(DatasetError, match="has no split 'train', it has: validation; "):
        open_dataset(str(parquet_folder / "valid*.parquet"), split="train")


def test_column_without_feature(tmp_path, jpegs, write_parquet, expected):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "struct" / "train-0.parquet", jpegs[:12], typed=False)
    (tmp_path / "binary").mkdir()
    columns = {"hash": pa.array([b"x"] * 12, pa.binary()), "webp": pa.array(jpegs[:12], pa.binary())}
    pq.write_table(pa.table(columns), tmp_path / "binary" / "train-0.parquet")
    for name in ("struct", "binary"):
        for memory_budget in (0, 2**30):
            source = open_dataset(str(tmp_path / name), split="train", memory_budget=memory_budget)
            assert torch.equal(first_pictures(source, 12), expected)
    source = open_dataset(str(tmp_path / "binary"), split="train", image_column="hash")
    with pytest.raises(DatasetError, match="row 0 .* cannot be read"):
        first_pictures(source, 1)


def test_folder_of_pictures(tmp_path, jpegs, expected):
    for row, data in enumerate(jpegs[:12]):
        for folder in (tmp_path / "flat", tmp_path / "classes" / ("ab"[row >= 6])):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row:03d}.jpg").write_bytes(data)
    flat = open_dataset(str(tmp_path / "flat"), split="train", memory_budget=0)
    assert isinstance(flat, IndexedSource)  # to datasets it is one shard
    assert not flat.has_labels and torch.equal(first_pictures(flat, 12), expected)
    assert torch.equal(
        first_pictures(open_dataset(str(tmp_path / "flat/*.jpg"), split="train"), 12), expected
    )
    classes = open_dataset(str(tmp_path / "classes"), split="train")
    assert classes.label_names == ["a", "b"] and labels(classes) == [0] * 6 + [1] * 6
    with pytest.raises(DatasetError, match=r"no split 'validation', it has: train; .* subfolder validation/"):
        open_dataset(str(tmp_path / "flat"), split="validation")
    (tmp_path / "flat" / "003.jpg").unlink()
    with pytest.raises(DatasetError, match=r"row 3 of split 'train' .* No such file or directory"):
        first_pictures(flat, 12)


def test_split_subfolders(tmp_path, jpegs):
    for split, start in (("train", 0), ("val", 4)):
        for row in range(start, start + 4):
            folder = tmp_path / split / "ab"[row % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{row}.jpg").write_bytes(jpegs[row])
    assert open_dataset(str(tmp_path), split="train").num_rows == 4
    assert labels(open_dataset(str(tmp_path), split="validation")) == [0, 0, 1, 1]


@pytest.mark.parametrize("memory_budget", [0, 2**30])
def test_webdataset_tars(tmp_path, jpegs, expected, memory_budget):
    for shard in range(3):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as tar:
            for row in range(4 * shard, 4 * shard + 4):
                for name, data in ((f"{row:03d}.jpg", jpegs[row]), (f"{row:03d}.cls", str(row).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    for name in ("", "*.tar"):
        source = open_dataset(str(tmp_path / name), split="train", memory_budget=memory_budget)
        assert isinstance(source, IndexedSource if memory_budget else ShardedSource)
        assert torch.equal(first_pictures(source, 12), expected) and labels(source) == list(range(12))


@pytest.mark.parametrize("memory_budget", [0, 2**30])
@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (1, 2), (3, 0), (2, 2)])
def test_ordered_batches_are_disjoint_complete_and_in_order(
    parquet_folder, memory_budget, world_size, workers
):
    source = open_dataset(str(parquet_folder), split="train", memory_budget=memory_budget)
    ranks = [
        list(
            ordered_batches(
                source, TRANSFORM, batch_size=10, rank=rank, world_size=world_size, num_workers=workers
            )
        )
        for rank in range(world_size)
    ]
    batches = [ranks[k % world_size][k // world_size] for k in range(10)]
    assert [len(batch["row"]) for batch in batches] == [10] * 9 + [7]
    assert sum(map(len, ranks)) == 10
    rows = [row for batch in batches for row in batch["row"].tolist()]
    assert rows == sorted(rows) and len(set(rows)) == 97
    assert [int(label) for batch in batches for label in batch["label"]] == [row % 2 for row in range(97)]


def test_ordered_batches_leave_unreadable_pictures_out(tmp_path, jpegs, write_parquet):
    files = list(jpegs[:23])
    files[4], files[20], files[21], files[22] = b"", None, b"x" * 500, jpegs[22][:300]
    write_parquet(tmp_path / "train-0.parquet", files)
    source = open_dataset(str(tmp_path), split="train")
    with pytest.raises(DatasetError, match="row 4 of split 'train'"):
        list(ordered_batches(source, TRANSFORM, batch_size=5))
    for workers in (0, 2):
        batches = list(ordered_batches(source, TRANSFORM, batch_size=5, num_workers=workers, on_error="skip"))
        assert [row for batch in batches for row in batch["row"].tolist()] == [r for r in range(20) if r != 4]
        assert [int(batch["unreadable"]) for batch in batches] == [1, 0, 0, 0]


def check_error(message_part: str, name: str, split: str = "train", **settings) -> None:
    start = time.monotonic()
    with pytest.raises(DatasetError) as caught:
        open_dataset(name, split=split, **settings)
    message = str(caught.value)
    assert message_part in message
    assert "\n" not in message and len(message) < 600
    assert time.monotonic() - start < 15


def test_errors_of_local_names(tmp_path, parquet_folder, capfd):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("hello\n")
    (tmp_path / "bad").mkdir()
    whole = (parquet_folder / "train-00000-of-00005.parquet").read_bytes()
    (tmp_path / "bad" / "train-0.parquet").write_bytes(whole[: len(whole) // 2])
    folder = str(parquet_folder)
    check_error("the dataset's name is empty", "")
    check_error("there is no file or folder '/no/such/folder'", "/no/such/folder")
    check_error("there is no file or folder './nothing'", "./nothing")
    check_error("holds no pictures, parquet files or tars", str(tmp_path / "empty"))
    check_error("no file matches", str(tmp_path / "*.parquet"))
    check_error("matches files of kind .parquet, .txt", str(tmp_path / "*" / "*"))
    check_error("has no image column, its columns are: text", str(tmp_path / "text"))
    check_error("has no column 'img', its columns are: image, label", folder, image_column="img")
    check_error("column 'label' of dataset", folder, image_column="label")
    check_error("has no split 'test', it has: train, validation; choose one of them", folder, split="test")
    check_error("train-0.parquet again", str(tmp_path / "bad"))
    check_error("has no split 'test', it has: train, validation", "samples", split="test")
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""  # the one line is the error itself


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("memory_budget", [0, 2**30])
def test_parquet_file_that_is_corrupt_inside(tmp_path, parquet_folder, memory_budget, workers):
    for file in parquet_folder.glob("train-*.parquet"):
        data = bytearray(file.read_bytes())
        if "00003" in file.name:
            data[4:400] = bytes(396)  # the header of the first page
        (tmp_path / file.name).write_bytes(data)
    with pytest.raises(
        DatasetError, match=r"cannot read .*train-00003-of-00005.parquet of dataset"
    ) as caught:
        source = open_dataset(str(tmp_path), split="train", memory_budget=memory_budget)
        list(ordered_batches(source, TRANSFORM, batch_size=10, num_workers=workers))
    assert "\n" not in str(caught.value)


class Hub(BaseHTTPRequestHandler):
    """What huggingface.co answers for a gated, a missing, a revision-less, a failing and a slow dataset."""

    def do_GET(self):  # noqa: N802 (the name is http.server's)
        path = self.path
        if "unreachable" in path:
            self.close_connection = True  # without an answer
            return
        if "/api/datasets/me/late-gated" in path and "README" not in path:
            body = json.dumps({"id": "me/late-gated", "sha": "0" * 40, "siblings": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        codes = {
            "gated401": (401, "GatedRepo"),
            "gated403": (403, "GatedRepo"),
            "late-gated": (403, "GatedRepo"),
            "missing": (404, "RepoNotFound"),
            "old": (404, "RevisionNotFound"),
            "broken": (503, ""),
        }
        status, code = next((answer for key, answer in codes.items() if key in path), (404, "EntryNotFound"))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 (the name is http.server's)

    def log_message(self, *_):
        pass


ASK = """
import json, sys, time
from vistok.data import DatasetError, open_dataset
answers = []
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        open_dataset(name, split="train", revision="v9" if "old" in name else None)
    except DatasetError as error:
        answers.append([str(error), time.monotonic() - start])
print(json.dumps(answers))
"""


def ask(names: list[str], tmp_path: Path, **environment: str) -> list[list]:
    environment = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(
        [sys.executable, "-c", ASK, *names], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(done.stdout)


def test_errors_of_the_hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    gated = "is gated: accept the terms on https://huggingface.co/datasets/"
    missing = "is neither a local path nor a dataset on the Hub that you may read"
    parts = {
        "me/gated401": gated,
        "me/gated403": gated,
        "me/late-gated": gated,
        "me/missing": missing,
        "not a name!": missing,
        "me/old": "has no revision 'v9'",
        "me/broken": "the Hub answered 503",
        "me/unreachable": f"is no local path, and {endpoint} is out of reach",
    }
    try:
        answers = ask(list(parts), tmp_path, HF_ENDPOINT=endpoint)
    finally:
        server.shutdown(), server.server_close()
    for (name, part), (message, seconds) in zip(parts.items(), answers, strict=True):
        assert part in message and name in message and "\n" not in message
        assert seconds < 15


def test_offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_error("'me/data' is no local path, and HF_HUB_OFFLINE forbids asking the Hub", "me/data")


def test_importing_vistok_data_loads_no_datasets():
    program = "import sys, vistok.data; print(sorted({'datasets', 'skimage', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(("name", "missing"), [("samples", "skimage"), ("/tmp", "datasets")])
def test_a_missing_library_is_named(monkeypatch, name, missing):
    import importlib.util

    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_error('pip install "vistok[train]"', name)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_flat_split_folders_have_no_labels(tmp_path, split):
    for name, count in (("train", 3), ("validation", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (16, 16)).save(tmp_path / name / f"{i}.png")
    source = open_dataset(str(tmp_path), split=split)
    assert source.num_rows == {"train": 3, "validation": 2}[split]
    assert not source.has_labels
    assert source.read(0).decode().size == (16, 16)
