"""Files without rows, and shards whose pictures all cannot be read."""

import io
import tarfile

import pyarrow.parquet as pq
import pytest
from token_folders import run, write_pictures

from vistok.data import DatasetError, open_dataset
from vistok.extraction import export, load_tokens, verify


def test_a_shard_without_a_readable_picture(model, jpegs, tmp_path):
    write_pictures(tmp_path / "pictures" / "train.parquet", [b"broken"] * 30 + jpegs[:10])
    source = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    manifest = run(model, source, tmp_path / "out", on_error="skip")
    assert manifest["unreadable"] == {"unidentified": 30}
    assert [load_tokens(tmp_path / "out")[i]["row"] for i in range(10)] == list(range(30, 40))
    stream = iter(load_tokens(tmp_path / "out", streaming=True))
    assert sorted(next(stream)["row"] for _ in range(10)) == list(range(30, 40))
    assert verify(tmp_path / "out", model=model, source=source).problems == []


def test_a_parquet_file_without_rows(model, jpegs, tmp_path):
    for number, files in enumerate((jpegs[:5], [], jpegs[5:8])):
        write_pictures(tmp_path / "pictures" / f"train-{number:05d}-of-00003.parquet", files)
    source = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    assert run(model, source, tmp_path / "out")["pictures_of_files"] == [5, 0, 3]
    assert len(load_tokens(tmp_path / "out")) == 8
    assert verify(tmp_path / "out", model=model, source=source).problems == []


def test_a_tar_without_samples(model, jpegs, tmp_path):
    (tmp_path / "tars").mkdir()
    for number, count in enumerate((4, 0)):
        with tarfile.open(tmp_path / "tars" / f"train-{number}.tar", "w") as tar:
            for row in range(count):
                member = tarfile.TarInfo(f"{row}.jpg")
                member.size = len(jpegs[row])
                tar.addfile(member, io.BytesIO(jpegs[row]))
    source = open_dataset(str(tmp_path / "tars"), split="train", memory_budget=0)
    assert run(model, source, tmp_path / "out")["pictures_of_files"] == [4, 0]
    assert len(load_tokens(tmp_path / "out")) == 4
    assert verify(tmp_path / "out", model=model, source=source).problems == []


@pytest.mark.parametrize("unreadable", [0, 3])
def test_no_pictures_at_all(model, jpegs, tmp_path, unreadable):
    path = tmp_path / "pictures" / "train.parquet"
    write_pictures(path, [b"broken"] * unreadable or jpegs[:1])
    pq.write_table(pq.read_table(path).slice(0, unreadable), path)
    source = open_dataset(str(path.parent), split="train", memory_budget=0)
    assert run(model, source, tmp_path / "out", on_error="skip")["pictures"] == unreadable
    assert verify(tmp_path / "out").problems == []
    dataset = load_tokens(tmp_path / "out")
    assert len(dataset) == 0
    assert dataset.labels.tolist() == []
    with pytest.raises(IndexError):
        dataset[0]
    with pytest.raises(DatasetError, match="has no rows"):
        next(iter(load_tokens(tmp_path / "out", streaming=True)))
    assert export("jsonl", tmp_path / "out", tmp_path / "e", skip_unreadable=True)["pictures"] == 0
