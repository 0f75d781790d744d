"""One pass over a split: what was skipped is named, and single rows are found again."""

import pytest
import torch

from vistok.data import PictureTransform, open_dataset, ordered_batches, pictures_at


@pytest.fixture(params=[10**9, 0], ids=["in memory", "streamed"])
def source(request, tmp_path, jpegs, write_parquet):
    files = [b"no picture" if row in (2, 3, 7) else jpegs[row] for row in range(10)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", files[:6])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", files[6:])
    return open_dataset(str(tmp_path), split="train", memory_budget=request.param)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [1, 2, 10])
def test_what_cannot_be_read_is_named_whatever_the_batches(source, size, workers):
    options = {"batch_size": size, "num_workers": workers, "on_error": "skip"}
    batches = list(ordered_batches(source, PictureTransform(16), keep_empty=True, **options))
    lost = torch.cat([batch["unreadable_rows"] for batch in batches])
    seen = torch.cat([batch["row"] for batch in batches])
    assert len(lost) == 3 == sum(int(batch["unreadable"]) for batch in batches)
    assert len(torch.cat([lost, seen]).unique()) == 10
    assert len(batches) == -(-10 // size)
    without = list(ordered_batches(source, PictureTransform(16), **options))
    assert all(len(batch["row"]) for batch in without)


def test_rows_are_found_again_in_the_order_that_was_asked_for(source, jpegs):
    rows = [
        batch["row"] for batch in ordered_batches(source, PictureTransform(16), batch_size=1, on_error="skip")
    ]
    wanted = [int(rows[i]) for i in (6, 0, 4)]
    found = pictures_at(source, wanted)
    assert [picture.row for picture in found] == wanted
    assert [picture.image for picture in found] == [jpegs[9], jpegs[0], jpegs[6]]
