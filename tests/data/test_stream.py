"""The stream's laws: exact resume, disjoint shares, whole epochs, chance that comes from the seed alone."""

import os
import random
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch

from vistok.data import (
    DatasetError,
    PictureStream,
    PictureTransform,
    check_layout,
    open_dataset,
    ordered_batches,
    to_pixel_values,
)

# torch's advice where there are fewer cores than workers, and Python 3.12's about forks of threaded processes
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*use of fork"),
]
TRANSFORM = PictureTransform(32, "random_crop", random_flip=True)
BUDGETS = {"permutation": 2**30, "shards": 0}
ORDERS = [*BUDGETS, "unknown lengths"]
B = 8
STEPS = 31  # 31 x 8 = 248 pictures: two and a half epochs of 97


@pytest.fixture(scope="module")
def sources(parquet_folder) -> dict:
    """The same pictures as a source of each kind; "unknown lengths" is what tars and Hub streams are."""
    found = {
        order: open_dataset(str(parquet_folder), split="train", memory_budget=budget)
        for order, budget in BUDGETS.items()
    }
    found["unknown lengths"] = open_dataset(str(parquet_folder), split="train", memory_budget=0)
    found["unknown lengths"].shard_lengths = None
    found["unknown lengths"]._lengths_read = {}
    return found


def stream(source, **settings) -> PictureStream:
    return PictureStream(source, TRANSFORM, **({"batch_size": B, "seed": 3} | settings))


def take(source, count: int, **settings) -> list[dict]:
    batches = stream(source, **settings).batches()
    taken = list(islice(batches, count))
    batches.close()
    return taken


def rows(batches: list[dict]) -> list[int]:
    return [row for batch in batches for row in batch["row"].tolist()]


def equal(a: list[dict], b: list[dict]) -> bool:
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_resume_is_bit_equal(sources, order, num_workers):
    settings = {"num_workers": num_workers, "rank": 1, "world_size": 2}
    whole = take(sources[order], STEPS, **settings)
    assert len({tuple(rows([batch])) for batch in whole}) == STEPS
    for done in (1, 6, 13, 25) if num_workers < 2 else (13,):  # an epoch of a rank ends after 6 batches
        assert equal(take(sources[order], STEPS - done, batches_done=done, **settings), whole[done:]), done
    # resumed twice: 0..7, 7..16, 16..
    parts = take(sources[order], 7, **settings)
    parts += take(sources[order], 9, batches_done=7, **settings)
    parts += take(sources[order], STEPS - 16, batches_done=16, **settings)
    assert equal(parts, whole)


@pytest.mark.parametrize("order", ORDERS[1:])
def test_a_resume_far_into_later_epochs_reads_no_earlier_epoch_twice(sources, monkeypatch, order):
    import copy

    source = copy.copy(sources[order])
    source._lengths_read = dict(enumerate(source.shard_lengths or []))
    reads = []
    read_shard = type(source).read_shard
    monkeypatch.setattr(type(source), "read_shard", lambda self, i: (reads.append(i), read_shard(self, i))[1])
    late = take(source, 2, batches_done=500)  # 41 epochs on
    assert len(reads) <= 3 * source.num_shards
    monkeypatch.undo()
    assert equal(late, take(sources[order], 502)[500:])


def test_batches_done_counts_what_was_handed_out(sources):
    first = stream(sources["permutation"], num_workers=2)
    batches = first.batches()
    taken = list(islice(batches, 5))
    batches.close()
    assert first.batches_done == 5  # and not what workers have made ahead
    assert equal(taken + list(islice(first.batches(), 3)), take(sources["permutation"], 8))


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_permutation_is_the_same_for_any_number_of_workers_and_ranks(sources, workers):
    source = sources["permutation"]
    joined = take(source, 12, batch_size=2 * B)
    ranks = [take(source, 12, rank=rank, world_size=2, num_workers=workers) for rank in range(2)]
    for whole, *parts in zip(joined, *ranks, strict=True):
        assert all(
            torch.equal(whole[key], torch.cat([part[key] for part in parts])) for key in ("pixels", "row")
        )


def test_epochs_are_whole_and_reshuffled(sources):
    seen = rows(take(sources["permutation"], 38))[: 3 * 97]
    epochs = [seen[i : i + 97] for i in range(0, 3 * 97, 97)]
    assert all(sorted(epoch) == list(range(97)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert rows(take(sources["permutation"], 12, seed=4)) != seen[:96]


@pytest.mark.parametrize("order", ORDERS[1:])
@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (1, 2), (2, 0), (3, 1), (2, 2), (5, 0), (7, 0)])
def test_shards_are_dealt_out_once_each_epoch(sources, world_size, workers, order):
    from vistok.data.order import ShardedOrder

    consumers = world_size * max(1, workers)  # fewer shards than consumers, a divisor of them, and more
    for epoch in (0, 1, 2):
        shares = [
            [p.row for p in ShardedOrder(sources[order], 3, c, consumers, 20_000)._mixed(epoch)]
            for c in range(consumers)
        ]
        joined = sorted(row for share in shares for row in share)
        assert len(joined) == 97 and len(set(joined)) == 97
        if order == "shards":
            assert max(map(len, shares)) - min(map(len, shares)) <= 1
    # and what the stream hands out comes from these shares: no row twice among all ranks' first batches
    count = 97 // (B * consumers) * max(1, workers)
    if count and order == "shards":
        first = [
            rows(take(sources[order], count, rank=rank, world_size=world_size, num_workers=workers))
            for rank in range(world_size)
        ]
        flat = [row for part in first for row in part]
        assert len(set(flat)) == len(flat) == count * B * world_size


def test_a_single_shard_is_reshuffled_each_epoch(parquet_folder):
    source = open_dataset(str(parquet_folder), split="validation", memory_budget=0)
    seen = rows(take(source, 3, batch_size=13))
    epochs = [seen[:13], seen[13:26], seen[26:]]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_buffer_mixes_rows_of_different_shards(sources):
    from vistok.data.order import ShardedOrder

    def order(epoch):
        return [p.row for p in ShardedOrder(sources["shards"], 3, 0, 1, 2**20)._mixed(epoch)]

    shards = [row >> 32 for row in order(0)]
    changes = sum(a != b for a, b in zip(shards, shards[1:], strict=False))
    assert changes > 40  # in sequence it would be 4
    assert order(0) != order(1) and order(0) == order(0)


def test_augmentation_is_keyed_by_seed_epoch_and_row(sources):
    def by_key(**settings):
        seen = {}
        for number, batch in enumerate(take(sources["permutation"], 25, **settings)):
            for i, row in enumerate(batch["row"].tolist()):
                seen[(number * len(batch["row"]) + i) // 97, row] = batch["pixels"][i]
        return seen

    by_eight, by_five = by_key(), by_key(batch_size=5)
    shared = by_eight.keys() & by_five.keys()
    assert len(shared) > 100
    assert all(torch.equal(by_eight[key], by_five[key]) for key in shared)
    twice = [row for row in range(97) if (0, row) in by_eight and (1, row) in by_eight]
    other = sum(not torch.equal(by_eight[0, row], by_eight[1, row]) for row in twice)
    assert len(twice) * 0.5 < other  # a new crop or a new flip each epoch
    reseeded = by_key(seed=4)
    assert any(not torch.equal(by_eight[0, row], reseeded[0, row]) for row in range(97))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_random_states_are_left_alone(sources, parquet_folder, num_workers):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    source = open_dataset(str(parquet_folder), split="validation")
    take(sources["permutation"], 3, num_workers=num_workers)
    take(sources["shards"], 3, num_workers=num_workers)
    list(ordered_batches(source, TRANSFORM, batch_size=4, num_workers=num_workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist() and before[2] == random.getstate()


def test_global_random_states_change_nothing(sources):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    first = take(sources["permutation"], 3, num_workers=2)
    torch.manual_seed(2), np.random.seed(2), random.seed(2)
    assert equal(first, take(sources["permutation"], 3, num_workers=2))


@pytest.mark.parametrize("order", BUDGETS)
def test_dataset_smaller_than_a_batch(parquet_folder, order):
    source = open_dataset(str(parquet_folder), split="validation", memory_budget=BUDGETS[order])
    for workers in (0, 2):
        batches = take(source, 3, batch_size=40, num_workers=workers)
        assert [tuple(batch["pixels"].shape) for batch in batches] == [(40, 32, 32, 3)] * 3
        assert len(set(rows(batches))) == 13
    resumed = take(source, 2, batch_size=40, batches_done=1)
    assert equal(resumed, take(source, 3, batch_size=40)[1:])


def test_more_consumers_than_rows(tmp_path, jpegs, write_parquet):
    write_parquet(tmp_path / "train-0.parquet", jpegs[:2])
    source = open_dataset(str(tmp_path), split="train", memory_budget=0)
    seen = {row for rank in range(5) for row in rows(take(source, 2, batch_size=1, rank=rank, world_size=5))}
    assert seen == {0, 1}


@pytest.mark.parametrize("order", BUDGETS)
def test_empty_dataset_is_an_error_and_no_endless_loop(tmp_path, write_parquet, order):
    write_parquet(tmp_path / "train-0.parquet", [])
    source = open_dataset(str(tmp_path), split="train", memory_budget=BUDGETS[order])
    with pytest.raises(DatasetError, match="has no rows in split 'train'"):
        take(source, 1)


def test_layout_is_plain_and_refuses_another_order(sources):
    import json

    saved = json.loads(json.dumps(stream(sources["shards"], num_workers=2).layout))
    check_layout(saved, stream(sources["shards"], num_workers=2, batches_done=9).layout)
    for change, field in [({"num_workers": 4}, "num_workers was 2, now it is 4"),
                          ({"num_workers": 2, "world_size": 2}, "world_size was 1, now it is 2"),
                          ({"num_workers": 2, "batch_size": 4}, "batch_size was 8, now it is 4"),
                          ({"num_workers": 2, "seed": 4}, "seed was 3, now it is 4")]:  # fmt: skip
        with pytest.raises(ValueError, match=field):
            check_layout(saved, stream(sources["shards"], **change).layout)
    with pytest.raises(ValueError, match="order was 'shards', now it is 'permutation'"):
        check_layout(saved, stream(sources["permutation"], num_workers=2).layout)


def test_layout_of_a_permutation_allows_what_changes_nothing(sources, parquet_folder):
    source = sources["permutation"]
    saved = stream(source).layout
    check_layout(saved, stream(source, num_workers=4).layout)
    check_layout(saved, stream(source, batch_size=B // 2, world_size=2, rank=1).layout)
    with pytest.raises(ValueError, match="global_batch_size was 8, now it is 16"):
        check_layout(saved, stream(source, world_size=2).layout)
    other = open_dataset(str(parquet_folder), split="validation")
    with pytest.raises(ValueError, match="split was 'train', now it is 'validation'"):
        check_layout(saved, stream(other).layout)


def test_a_fingerprint_follows_the_rows_and_not_the_place(tmp_path, jpegs, write_parquet):
    def fingerprint(folder, files):
        write_parquet(tmp_path / folder / "train-0.parquet", files)
        return open_dataset(str(tmp_path / folder), split="train").fingerprint

    assert fingerprint("a", jpegs[:3]) == fingerprint("b", jpegs[:3]) != fingerprint("c", jpegs[:4])


@pytest.mark.parametrize("order", BUDGETS)
@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_pictures(tmp_path, jpegs, write_parquet, order, workers, caplog):
    files = list(jpegs[:24])
    write_parquet(tmp_path / "good" / "train-0.parquet", files)
    files[5], files[17], files[18] = files[5][:200], b"<html>404</html>", None
    write_parquet(tmp_path / "bad" / "train-0.parquet", files)
    good, bad = (
        open_dataset(str(tmp_path / name), split="train", memory_budget=BUDGETS[order])
        for name in ("good", "bad")
    )
    with pytest.raises(
        DatasetError, match=r"row (5|17|18) of split 'train' of dataset .* cannot be read: "
    ) as caught:
        take(bad, 10, num_workers=workers)
    assert "\n" not in str(caught.value)
    whole = take(good, 12, num_workers=workers) if order == "permutation" else None
    skipped = take(bad, 12, num_workers=workers, on_error="skip")
    assert sum(int(batch["unreadable"]) for batch in skipped) == 12  # three in each of four epochs
    assert all(batch["pixels"].shape[0] == B for batch in skipped)
    assert not {5, 17, 18} & set(rows(skipped))
    for before, after in zip(whole or [], skipped, strict=False):
        kept = [i for i, row in enumerate(before["row"].tolist()) if row not in (5, 17, 18)]
        assert torch.equal(before["row"][kept], after["row"][kept])
        assert torch.equal(before["pixels"][kept], after["pixels"][kept])
    assert equal(skipped[4:], take(bad, 8, num_workers=workers, on_error="skip", batches_done=4))


def test_a_batch_without_any_readable_picture_stops(tmp_path, write_parquet):
    write_parquet(tmp_path / "train-0.parquet", [b"no picture"] * 9)
    with pytest.raises(DatasetError, match="none of the 8 pictures of a batch"):
        take(open_dataset(str(tmp_path), split="train"), 1, on_error="skip")


def test_a_dead_worker_does_not_hang(parquet_folder):
    program = f"""
import os, signal
from vistok.data import *
source = open_dataset({str(parquet_folder)!r}, split="train")
parent, read = os.getpid(), source.read
dies = lambda row: row == 60 and os.getpid() != parent
source.read = lambda row: os.kill(os.getpid(), signal.SIGKILL) if dies(row) else read(row)
stream = PictureStream(source, PictureTransform(32), batch_size=8, num_workers=2)
try:
    for batch in stream.batches(): pass
except (DatasetError, RuntimeError) as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert done.stdout.startswith("DatasetError a data worker died"), done.stdout + done.stderr


def test_a_stream_survives_pickling_for_spawned_workers(sources):
    import pickle

    for source in sources.values():
        copy = pickle.loads(pickle.dumps(stream(source)))
        assert equal(list(islice(copy, 3)), take(source, 3))


@pytest.mark.parametrize(("settings", "message"), [
    ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ({"seed": -1}, "seed must be at least 0"),
    ({"rank": 2, "world_size": 2}, "rank must be at least 0 and below 2, got 2"),
    ({"num_workers": -1}, "num_workers must be at least 0"),
    ({"batches_done": -1}, "batches_done must be at least 0"),
    ({"on_error": "ignore"}, "on_error must be 'error' or 'skip', got 'ignore'"),
])  # fmt: skip
def test_arguments_out_of_range(sources, settings, message):
    with pytest.raises(ValueError, match=message):
        stream(sources["permutation"], **settings)


def test_a_dataloader_with_other_workers_is_refused(sources):
    loader = torch.utils.data.DataLoader(stream(sources["permutation"]), batch_size=None, num_workers=2)
    with pytest.raises(ValueError, match="The DataLoader has 2 workers, but the stream was made for 0"):
        next(iter(loader))


def test_to_pixel_values_is_exact_at_the_ends():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, -1, -1, 3).contiguous()
    kept = pixels.clone()
    values = to_pixel_values(pixels)
    assert values.dtype == torch.float32 and values.shape == (2, 3, 16, 16)
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert values.min() == -1 and values.max() == 1 and torch.equal(pixels, kept)
    expected = pixels.numpy().astype(np.float64).transpose(0, 3, 1, 2) / 255 * 2 - 1
    assert np.abs(values.numpy() - expected).max() < 1e-7


def test_closing_early_does_not_sleep(sources, monkeypatch):
    import time

    naps = []  # closing datasets' own shuffled stream sleeps 5 s
    monkeypatch.setattr(time, "sleep", naps.append)
    for source in sources.values():
        take(source, 1)
    assert sum(naps) < 1
