"""The embedded pictures: real photographs, disjoint splits, the same rows every time."""

from itertools import islice

import numpy as np
import pytest

from vistok.data import PictureStream, PictureTransform, open_dataset, ordered_batches
from vistok.data.samples import PHOTOGRAPHS


@pytest.fixture(scope="module")
def samples() -> dict:
    return {split: open_dataset("samples", split=split) for split in ("train", "validation")}


def test_splits_show_no_pixel_twice(samples):
    train, validation = (
        {name: [tile for tile in samples[split].tiles if tile.photograph == name] for name in PHOTOGRAPHS}
        for split in ("train", "validation")
    )
    for name in PHOTOGRAPHS:
        assert max(tile.left + tile.side for tile in train[name]) <= min(
            tile.left for tile in validation[name]
        )
        image = samples["train"]._photographs[name]
        for tile in train[name] + validation[name]:
            assert tile.left >= 0 and tile.top >= 0
            assert tile.left + tile.side <= image.width and tile.top + tile.side <= image.height


def test_tiles_are_many_different_and_of_every_photograph(samples):
    assert samples["train"].num_rows == 2400 and samples["validation"].num_rows == 128
    for source in samples.values():
        assert len(set(source.tiles)) == source.num_rows
        assert source.label_names == list(PHOTOGRAPHS)
    labels = [samples["train"].read(row).label for row in range(2400)]
    assert np.bincount(labels).tolist() == [300] * 8
    first = np.asarray(samples["train"].read(0).decode())
    assert first.shape == (96, 96, 3) and first.std() > 5


def test_the_same_rows_every_time(samples):
    again = open_dataset("samples", split="validation")
    assert again.fingerprint == samples["validation"].fingerprint != samples["train"].fingerprint
    assert np.array_equal(again.read(77).decode(), samples["validation"].read(77).decode())


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_samples_stream_like_any_other_source(samples, resolution):
    transform = PictureTransform(resolution, "random_crop", random_flip=True)
    stream = PictureStream(samples["train"], transform, batch_size=16)
    [batch] = islice(stream.batches(), 1)
    assert batch["pixels"].shape == (16, resolution, resolution, 3) and len(batch["label"]) == 16
    batches = list(ordered_batches(samples["validation"], PictureTransform(resolution), batch_size=50))
    assert [len(batch["row"]) for batch in batches] == [50, 50, 28]
