import json
import math
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import load_dataset
from kept_columns import extract_with
from token_folders import run, tiny
from torch.utils.data import DataLoader

from vistok.data import DatasetError, open_dataset
from vistok.extraction import IncompleteError, PlanError, ShardError, export, load_tokens
from vistok.extraction.card import push_tokens
from vistok.extraction.reader import _quick


@pytest.fixture
def copied(tokens, tmp_path) -> Path:
    return Path(shutil.copytree(tokens, tmp_path / "copy"))


def key(row: dict) -> tuple[int, int]:
    return int(row["file"]), int(row["row"])


EVERY = [(0, row) for row in range(40)] + [(1, 0)] + [(2, row) for row in range(60)]


def test_all_rows_in_memory(tokens, model):
    dataset = load_tokens(tokens, model=model)
    assert [key(dataset[i]) for i in range(len(dataset))] == EVERY
    row = dataset[57]
    assert row["tokens"].dtype == torch.int64
    assert (row["label"], row["key"], row["view"]) == (7, "057.jpg", 0)
    assert torch.equal(dataset[-1]["tokens"], dataset[100]["tokens"])
    assert not torch.equal(row["tokens"], dataset[58]["tokens"])
    with pytest.raises(IndexError):
        dataset[101]
    assert dataset.codebook_size == 1000


def test_a_data_loader_takes_it(tokens):
    batches = list(DataLoader(load_tokens(tokens), batch_size=40))
    assert [tuple(batch["tokens"].shape) for batch in batches] == [(40, 16), (40, 16), (21, 16)]
    assert batches[1]["label"].tolist()[:3] == [0, 1, 2]


def read(folder: Path, streaming: bool, count: int) -> list[dict]:
    dataset = load_tokens(folder, streaming=streaming)
    rows = list(islice(dataset, count)) if streaming else [dataset[i] for i in range(len(dataset))]
    return sorted(rows, key=key)


@pytest.mark.parametrize("streaming", [False, True])
def test_integers_with_a_null_are_exact(model, jpegs, tmp_path, streaming):
    numbers = [2**60 + 1, None, 5] + [2**63 - 1 - row for row in range(9)]
    folder = extract_with(model, jpegs[:12], tmp_path, {"n": pa.array(numbers, pa.int64())})
    rows = read(folder, streaming, 12)
    assert [row["n"] for row in rows] == numbers
    assert [row["row"] for row in rows] == list(range(12))


@pytest.fixture(scope="module")
def with_nulls(model, jpegs, tmp_path_factory) -> Path:
    """25 pictures in three shards; of the first ten every caption, score and name is null."""
    rows = range(25)
    return extract_with(
        model,
        jpegs[:25],
        tmp_path_factory.mktemp("nulls"),
        {
            "image": pa.array(
                [{"bytes": jpegs[row], "path": f"{row}.jpg" * (row > 9) or None} for row in rows]
            ),
            "caption": pa.array([None if row < 10 else f"picture {row}" for row in rows]),
            "score": pa.array([None if row < 10 else row / 2 for row in rows]),
            "number": pa.array(rows),
        },
    )


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_all_shards_have_the_same_keys(with_nulls, streaming):
    rows = read(with_nulls, streaming, 25)
    expected = {"tokens", "file", "row", "key", "label", "view", "caption", "score", "number"}
    assert all(set(row) == expected for row in rows)
    assert [row["caption"] for row in rows] == [""] * 10 + [f"picture {row}" for row in range(10, 25)]
    assert [row["key"] for row in rows[8:12]] == ["", "", "10.jpg", "11.jpg"]
    assert all(math.isnan(row["score"]) for row in rows[:10])
    assert rows[11]["score"] == 5.5


@pytest.mark.parametrize("options", [{}, {"streaming": True, "buffer_bytes": 0}])
def test_a_data_loader_takes_columns_with_nulls(with_nulls, options):
    loader = DataLoader(load_tokens(with_nulls, **options), batch_size=10)
    seen = {}
    for batch in islice(loader, 3):
        assert batch["tokens"].shape[1:] == (16,)
        assert batch["score"].dtype == torch.float64
        seen |= dict(zip(batch["number"].tolist(), batch["caption"], strict=True))
    assert {number: text for number, text in seen.items() if 8 <= number < 12} == {
        8: "",
        9: "",
        10: "picture 10",
        11: "picture 11",
    }


def test_a_null_for_which_nothing_stands_is_refused_by_a_data_loader(model, jpegs, tmp_path):
    folder = extract_with(model, jpegs[:3], tmp_path, {"n": pa.array([1, None, 3])})
    with pytest.raises((RuntimeError, TypeError), match="NoneType"):
        next(iter(DataLoader(load_tokens(folder), batch_size=3)))


def test_a_dataset_without_labels_has_none(model, jpegs, tmp_path):
    folder = tmp_path / "pictures" / "train"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(jpegs[number])
    run(model, open_dataset(str(folder.parent), split="train", memory_budget=0), tmp_path / "out")
    dataset = load_tokens(tmp_path / "out")
    assert dataset.labels is None
    assert set(dataset[0]) == {"tokens", "file", "row", "key", "view"}


def test_text_in_several_pieces_is_read_in_its_order():
    column = _quick(pa.chunked_array([["a", "b"], ["c"]]))  # as Arrow keeps more than 2 GB of text
    assert [column[i].as_py() for i in range(3)] == ["a", "b", "c"]


def test_datasets_reads_the_shards_too(tokens, tmp_path):
    ours = load_tokens(tokens)
    for arguments in ((str(tokens),), ("parquet",)):
        files = (
            {}
            if len(arguments) == 1 and arguments[0] != "parquet"
            else {"data_files": f"{tokens}/data/*.parquet"}
        )
        theirs = load_dataset(*arguments, **files, split="train", cache_dir=str(tmp_path))
        assert len(theirs) == 101
        for i in (0, 40, 100):
            assert theirs[i]["tokens"] == ours[i]["tokens"].tolist()
            assert theirs[i]["key"] == ours[i]["key"]
    stream = load_dataset("parquet", data_files=f"{tokens}/data/*.parquet", split="train", streaming=True)
    assert [key(row) for row in stream] == EVERY


@pytest.mark.parametrize("consumers", [1, 2, 3])
def test_ranks_of_a_stream_share_an_epoch(tokens, consumers):
    total = 0
    seen: list[tuple[int, int]] = []
    for rank in range(consumers):
        stream = iter(load_tokens(tokens, streaming=True, seed=3, rank=rank, world_size=consumers))
        share = 101 * (rank + 1) // consumers - 101 * rank // consumers
        seen += [key(next(stream)) for _ in range(share)]
        total += share
    assert total == 101
    assert sorted(seen) == EVERY
    assert seen != EVERY


def test_a_stream_is_the_same_again_and_goes_on(tokens):
    stream = iter(load_tokens(tokens, streaming=True, seed=5))
    first = [key(next(stream)) for _ in range(250)]  # two epochs and a half
    assert sorted(first[:101]) == sorted(first[101:202]) == EVERY
    assert first[:101] != first[101:202]
    later = iter(load_tokens(tokens, streaming=True, seed=5, skip=150))
    assert [key(next(later)) for _ in range(100)] == first[150:]
    other = iter(load_tokens(tokens, streaming=True, seed=6))
    assert [key(next(other)) for _ in range(101)] != first[:101]


def test_workers_of_a_data_loader_share_a_stream(tokens):
    loader = DataLoader(load_tokens(tokens, streaming=True), batch_size=None, num_workers=2)
    rows = []
    for row in loader:
        rows.append(key(row))
        if len(rows) == 100:
            break
    assert len(set(rows)) >= 99


def test_another_tokenizer_is_refused_with_both_values(tokens):
    other = tiny()
    with torch.no_grad():
        other.to_latents.bias.add_(0.1)
    with pytest.raises(PlanError, match=r"with weights_sha256 [0-9a-f]{64}, the model .* has [0-9a-f]{64}"):
        load_tokens(tokens, model=other)
    with pytest.raises(PlanError, match="config_sha256"):
        load_tokens(tokens, model=tiny(image_mean=[0.4, 0.5, 0.5]))


def test_what_is_not_complete_is_refused(copied):
    (copied / "manifest.json").unlink()
    with pytest.raises(IncompleteError, match="6 of 6 shards are there and no manifest.json"):
        load_tokens(copied)
    with pytest.raises(PlanError, match="holds no tokens"):
        load_tokens(copied / "data")


def test_a_folder_that_is_missing_is_one_line(hub, monkeypatch):
    with pytest.raises(DatasetError) as missing:
        load_tokens("tokens/train")
    assert str(missing.value).startswith("'tokens/train' is neither a local path nor a dataset on the Hub")
    assert "\n" not in str(missing.value)

    def unplugged(*_, **__):
        raise ConnectionError("Name or service not known\n[Errno -2]")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unplugged)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unplugged)
    with pytest.raises(
        DatasetError, match="^'tokens/train' is no local path, and .* is out of reach"
    ) as away:
        load_tokens("tokens/train")
    assert "\n" not in str(away.value)


def test_everybody_says_the_same_about_another_manifest(copied, hub, tmp_path):
    manifest = json.loads((copied / "manifest.json").read_bytes())
    manifest["pictures"] += 1
    (copied / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    messages = set()
    for use in (
        load_tokens,
        lambda tokens: export("jsonl", tokens, tmp_path),
        lambda tokens: push_tokens(tokens, "org/another-manifest"),
    ):
        with pytest.raises(PlanError, match="manifest.json lists other shards than are there") as refused:
            use(copied)
        messages.add(str(refused.value))
    assert len(messages) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_a_flipped_bit_of_the_payload_is_found_on_reading(copied, streaming):
    draw = np.random.default_rng(0)
    path = sorted((copied / "data").glob("*.parquet"))[3]
    whole = path.read_bytes()
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[draw.integers(4, len(whole) - 8)] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match="damaged"):
            dataset = load_tokens(copied, streaming=streaming)
            if streaming:
                rows = iter(dataset)
                [next(rows) for _ in range(101)]


def test_exchanged_shards_are_found_on_reading(copied):
    shards = sorted((copied / "data").glob("*.parquet"))
    a, b = shards[0].read_bytes(), shards[3].read_bytes()
    shards[0].write_bytes(b)
    shards[3].write_bytes(a)
    with pytest.raises(ShardError, match="damaged or exchanged"):
        load_tokens(copied)
    with pytest.raises(ShardError, match="is another shard: its shard is 3, expected 0"):
        load_tokens(copied, checksums=False)


def test_a_shard_of_another_extraction_is_refused(copied, model, pictures, tmp_path):
    source = open_dataset(str(pictures), split="train", memory_budget=0)
    run(model, source, tmp_path / "other", batch_size=4)
    for suffix in (".parquet", ".json"):
        name = f"train-00000-of-00006{suffix}"
        shutil.copy(tmp_path / "other" / "data" / name, copied / "data" / name)
    with pytest.raises(ValueError, match="another plan"):
        load_tokens(copied)


def test_unknown_options_are_refused(tokens):
    with pytest.raises(TypeError, match="seed"):
        load_tokens(tokens, seed=1)
    with pytest.raises(ValueError, match="below world_size 2, got 2"):
        load_tokens(tokens, streaming=True, rank=2, world_size=2)
