"""What other projects' readers make of the exports; their reading is transcribed from their sources."""

import datetime
import io
import json
import linecache
import os
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import load_dataset
from kept_columns import extract_with
from token_folders import SIDE, run, write_pictures

from vistok.data import open_dataset
from vistok.extraction import Views, export, load_tokens


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model, pictures):
    """Tokens of one, two and ten views."""
    folder = tmp_path_factory.mktemp("views")
    for kind in ("center", "flip", "ten_crop"):
        source = open_dataset(str(pictures), split="train", memory_budget=0)
        run(model, source, folder / kind, views=Views(SIDE, kind, crop_range=1.25))
    return folder


class LlamaGenReader(torch.utils.data.Dataset):
    """LlamaGen's `CustomDataset` of dataset/imagenet.py, whose only change is the number of pictures."""

    def __init__(self, code_path: str, image_size: int, count: int):
        self.feature_dir = f"{code_path}/imagenet{image_size}_codes"
        self.label_dir = f"{code_path}/imagenet{image_size}_labels"
        self.flip = "flip" in self.feature_dir
        twin = self.feature_dir.replace("ten_crop/", "ten_crop_105/")
        self.has_twin = os.path.exists(twin) and twin != self.feature_dir
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i: int):
        features = np.load(os.path.join(self.feature_dir, f"{i}.npy"))
        picked = None
        if self.flip:
            picked = torch.randint(low=0, high=features.shape[1], size=(1,)).item()
            features = features[:, picked]
        labels = np.load(os.path.join(self.label_dir, f"{i}.npy"))
        return torch.from_numpy(features), torch.from_numpy(labels), picked


@pytest.mark.parametrize(
    ("kind", "name", "views"),
    [
        ("center", "imagenet_code_c2i", 1),
        ("flip", "imagenet_code_c2i_flip", 2),
        ("ten_crop", "imagenet_code_c2i_flip_ten_crop", 10),
    ],
)
def test_llamagen(folders, tmp_path, kind, name, views):
    done = export("llamagen", folders / kind, tmp_path)
    assert done == {"path": str(tmp_path / name), "pictures": 101, "views": views}
    dataset = load_tokens(folders / kind)
    reader = LlamaGenReader(done["path"], SIDE, 101)
    for i in range(101):
        features, labels, picked = reader[i]
        assert features.dtype == labels.dtype == torch.int64
        assert labels.shape == (1,)
        row = dataset[i * views + (picked or 0)]
        assert labels.item() == row["label"] == i % 10
        # The trainer reshapes a batch of features to (B, L) and of labels to (B,).
        assert torch.equal(features.reshape(1, 1, -1).reshape(1, -1)[0], row["tokens"])
    files = np.load(tmp_path / name / f"imagenet{SIDE}_codes" / "0.npy")
    assert files.shape == (1, views, 16)
    assert len(list((tmp_path / name / f"imagenet{SIDE}_codes").iterdir())) == 101


def test_the_narrow_range_of_ten_crops_is_llamagens_twin(model, source, tmp_path):
    run(model, source, tmp_path / "tokens", views=Views(SIDE, "ten_crop", crop_range=1.05))
    done = export("llamagen", tmp_path / "tokens", tmp_path)
    assert done["path"].endswith("imagenet_code_c2i_flip_ten_crop_105")


@pytest.mark.parametrize(("kind", "views"), [("center", 1), ("ten_crop", 10)])
def test_1d_tokenizer(folders, tmp_path, kind, views):
    path = export("jsonl", folders / kind, tmp_path)["path"]
    dataset = load_tokens(folders / kind)
    with open(path, "rb") as file:
        count = sum(1 for _ in file)
    assert count == 101 * views
    for i in range(count):  # its reader takes lines by number, from 1
        data = json.loads(linecache.getline(path, i + 1).strip())
        assert set(data) == {"class_id", "tokens"}
        assert data["class_id"] == dataset[i]["label"]
        assert torch.equal(torch.tensor(data["tokens"]), dataset[i]["tokens"])


def test_webdataset(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("vistok.extraction.exporters.PICTURES_PER_TAR", 40)
    path = export("webdataset", folders / "flip", tmp_path)["path"]
    dataset = load_tokens(folders / "flip")
    assert sorted(os.listdir(path)) == ["000000.tar", "000001.tar", "000002.tar"]
    with tarfile.open(f"{path}/000001.tar") as tar:
        assert tar.getnames()[:3] == ["000000040.npy", "000000040.json", "000000040.cls"]
        array = np.load(io.BytesIO(tar.extractfile("000000040.npy").read()))
        assert (array.dtype, array.shape) == (np.uint16, (2, 16))
    stream = load_dataset("webdataset", data_files=f"{path}/*.tar", split="train", streaming=True)
    rows = list(stream)
    assert [row["__key__"] for row in rows] == [f"{i:09d}" for i in range(101)]
    for i, row in enumerate(rows):
        expected = torch.stack([dataset[2 * i]["tokens"], dataset[2 * i + 1]["tokens"]])
        assert np.array_equal(np.array(row["npy"]), expected.numpy())
        assert int(row["cls"]) == i % 10
        assert row["json"] == {"key": f"{i:03d}.jpg"}


def members(path: str) -> list[dict[str, bytes]]:
    """The samples of a tar as webdataset groups them: by their names before the first dot."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            name, _, suffix = member.name.partition(".")
            samples.setdefault(name, {})[suffix] = tar.extractfile(member).read()
    return list(samples.values())


def test_webdataset_has_the_columns_that_were_kept(model, jpegs, tmp_path):
    captions = [None, "a dog", "", "\u72ac \U0001f415", *"efgh"]
    added = [datetime.date(2026, 11, day) for day in range(1, 9)]
    folder = extract_with(
        model,
        jpegs[:8],
        tmp_path,
        {
            "caption": pa.array(captions),
            "n": pa.array([2**60 + 1, None, *range(6)]),
            "text": pa.array([[1, 2]] * 8),  # no captions, whatever its name
            "added": pa.array(added),
        },
    )
    path = export("webdataset", folder, tmp_path)["path"]
    samples = members(f"{path}/000000.tar")
    assert all(set(sample) == {"npy", "json", "txt", "cls"} for sample in samples)
    assert [sample["txt"].decode() for sample in samples] == [caption or "" for caption in captions]
    about = [json.loads(sample["json"]) for sample in samples]
    assert [row["caption"] for row in about] == captions
    assert [row["n"] for row in about] == [2**60 + 1, None, *range(6)]
    assert about[2] == {
        "key": "002.jpg",
        "caption": "",
        "n": 0,
        "text": [1, 2],
        "added": "2026-11-03",
    }
    rows = list(load_dataset("webdataset", data_files=f"{path}/*.tar", split="train", streaming=True))
    assert [row["txt"] for row in rows] == [caption or "" for caption in captions]


def test_without_captions_there_is_no_text(model, jpegs, tmp_path):
    folder = extract_with(model, jpegs[:2], tmp_path, {"url": pa.array(["a", "b"])})
    path = export("webdataset", folder, tmp_path)["path"]
    samples = members(f"{path}/000000.tar")
    assert [set(sample) for sample in samples] == [{"npy", "json", "cls"}] * 2
    assert json.loads(samples[1]["json"]) == {"key": "001.jpg", "url": "b"}


def test_bytes_do_not_go_into_json(model, jpegs, tmp_path):
    folder = extract_with(model, jpegs[:2], tmp_path, {"mask": pa.array([b"a", b"b"])})
    with pytest.raises(
        ValueError, match=r"row 0 of train.parquet has a value of type bytes in a column that"
    ):
        export("webdataset", folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_picture_without_a_label_has_no_class(model, jpegs, tmp_path):
    folder = extract_with(model, jpegs[:4], tmp_path, {"label": pa.array([3, 1, None, 2])})
    for layout in ("llamagen", "jsonl"):
        with pytest.raises(ValueError, match=r"row 2 of train.parquet has no label \(-1\)"):
            export(layout, folder, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []
    path = export("webdataset", folder, tmp_path / "out")["path"]
    assert [sample["cls"] for sample in members(f"{path}/000000.tar")] == [b"3", b"1", b"-1", b"2"]


def test_pictures_without_tokens_stop_or_are_left_out(model, jpegs, tmp_path):
    files = [*jpegs[:10]]
    files[4] = b"broken"
    write_pictures(tmp_path / "pictures" / "train.parquet", files)
    source = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    run(model, source, tmp_path / "tokens", on_error="skip")
    with pytest.raises(ValueError, match="row 4 of train.parquet has no tokens"):
        export("llamagen", tmp_path / "tokens", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    done = export("llamagen", tmp_path / "tokens", tmp_path / "out", skip_unreadable=True)
    assert done["pictures"] == 9
    labels = [np.load(f"{done['path']}/imagenet{SIDE}_labels/{i}.npy")[0] for i in range(9)]
    assert labels == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_what_a_layout_cannot_hold_is_refused(folders, model, jpegs, source, tmp_path):
    with pytest.raises(ValueError, match="layout must be one of llamagen, jsonl, webdataset"):
        export("muse", folders / "center", tmp_path)
    run(model, source, tmp_path / "buckets", views=Views(SIDE, buckets=((16, 16), (8, 16))))
    with pytest.raises(ValueError, match="several shapes"):
        export("jsonl", tmp_path / "buckets", tmp_path)
    folder = tmp_path / "pictures" / "train"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(jpegs[number])
    unlabelled = open_dataset(str(tmp_path / "pictures"), split="train", memory_budget=0)
    run(model, unlabelled, tmp_path / "unlabelled")
    with pytest.raises(ValueError, match="needs labels"):
        export("llamagen", tmp_path / "unlabelled", tmp_path)
    assert export("webdataset", tmp_path / "unlabelled", tmp_path)["pictures"] == 5
    with pytest.raises(ValueError, match="is there already"):
        export("webdataset", tmp_path / "unlabelled", tmp_path)
