"""One finite pass over a split: each picture once, in order, none padded, none dropped."""

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import IterableDataset, get_worker_info

from .loading import load
from .order import Purpose, generator_for
from .sources import SHARD_BITS, IndexedSource, Picture, Source
from .stream import Batch, OnError, batch_of, check_range, pixels_of
from .transforms import PictureTransform


def ordered_batches(
    source: Source,
    transform: PictureTransform,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    limit: int | None = None,
    on_error: OnError = "error",
    keep_empty: bool = False,
) -> Iterator[Batch]:
    """Yield this rank's batches of a split: batch k of the split goes to rank `k % world_size`.

    Over the ranks, every picture comes exactly once; the split's last batch is as short as it must be, so
    ranks may have one batch more or less than others. Batches have the keys of `PictureStream`'s and
    `unreadable_rows`, int64 `(unreadable,)`. A random crop draws by row alone.

    Args:
        source: the rows.
        transform: picture and generator -> pixels.
        batch_size: pictures in a batch.
        rank: this process, in `[0, world_size)`.
        world_size: how many processes share the split.
        num_workers: processes that decode, 0 for this one.
        limit: take only the split's first `limit` rows.
        on_error: "error" stops at a picture that cannot be read, "skip" leaves it out and makes its batch
            shorter.
        keep_empty: yield a batch of which no picture can be read too, with no pictures, so that what was
            skipped can be counted.

    Raises:
        ValueError: an argument is out of range.
        DatasetError: a picture or a file cannot be read.
    """
    check_range("batch_size", batch_size, 1)
    check_range("world_size", world_size, 1)
    check_range("rank", rank, 0, world_size)
    check_range("num_workers", num_workers, 0)
    if on_error not in ("error", "skip"):
        raise ValueError(f"on_error must be 'error' or 'skip', got {on_error!r}")
    batches = _OrderedBatches(source, transform, batch_size, rank, world_size, limit, on_error)
    return (batch for batch in load(batches, num_workers) if keep_empty or len(batch["row"]))


def pictures_at(source: Source, rows: Sequence[int]) -> list[Picture]:
    """Return the undecoded rows of these numbers, in this order; a streamed shard is read up to its last one.

    Raises:
        DatasetError: a file cannot be read.
    """
    if isinstance(source, IndexedSource):
        return [source.read(row) for row in rows]
    found: dict[int, Picture] = {}
    for shard in {row >> SHARD_BITS for row in rows}:
        wanted = {row for row in rows if row >> SHARD_BITS == shard}
        for picture in source.read_shard(shard):
            if picture.row in wanted:
                found[picture.row] = picture
                wanted.remove(picture.row)
                if not wanted:
                    break
    return [found[row] for row in rows]


class _OrderedBatches(IterableDataset):
    def __init__(
        self,
        source: Source,
        transform: PictureTransform,
        batch_size: int,
        rank: int,
        world_size: int,
        limit: int | None,
        on_error: OnError,
    ):
        self.source, self.transform, self.batch_size = source, transform, batch_size
        self.rank, self.world_size = rank, world_size
        self.limit, self.on_error = limit, on_error

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for pictures in self._rows(self.rank + self.world_size * index, self.world_size * workers):
            yield self._batch(pictures)

    def _rows(self, first: int, step: int) -> Iterator[list[Picture]]:
        """Yield the undecoded batches first, first + step, ... of the split."""
        if isinstance(self.source, IndexedSource):
            end = self.source.num_rows if self.limit is None else min(self.limit, self.source.num_rows)
            for start in range(first * self.batch_size, end, step * self.batch_size):
                yield [self.source.read(row) for row in range(start, min(start + self.batch_size, end))]
            return
        pictures = (p for shard in range(self.source.num_shards) for p in self.source.read_shard(shard))
        pictures = islice(pictures, self.limit)
        number = 0
        while rows := list(islice(pictures, self.batch_size)):
            if number % step == first:
                yield rows
            number += 1

    def _batch(self, pictures: list[Picture]) -> Batch:
        """Decode a batch; without pictures where none of it can be read, so that workers stay in step."""
        generators = [generator_for(Purpose.AUGMENTATION, 0, 0, picture.row) for picture in pictures]
        pixels = pixels_of(self.source, pictures, generators, self.transform, self.on_error)
        lost = [pictures[i].row for i, values in enumerate(pixels) if values is None]
        if len(lost) == len(pictures):
            batch = {
                "pixels": torch.zeros(0, 0, 0, 3, dtype=torch.uint8),
                "row": torch.zeros(0, dtype=torch.int64),
                "unreadable": torch.tensor(len(lost)),
            }
        else:
            kept = [i for i, values in enumerate(pixels) if values is not None]
            batch = batch_of([pixels[i] for i in kept], [pictures[i] for i in kept], len(lost))
        return batch | {"unreadable_rows": torch.tensor(lost, dtype=torch.int64)}
