"""Endless, shuffled, exactly resumable batches of pixels for training.

The only state of a `PictureStream` is one integer, `batches_done`. Order and augmentation are functions of
seed, epoch and position (`order.py`), so a stream that starts at `batches_done=n` gives batch for batch what
the first one would have given, with any number of workers; `datasets`' and torchdata's own stream states are
not exact under a shuffle.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..image_decoding import UnreadableImageError
from .loading import load
from .order import PermutedOrder, Purpose, ShardedOrder, generator_for
from .sources import DatasetError, IndexedSource, Picture, Source
from .transforms import PictureTransform

logger = logging.getLogger(__name__)

BUFFER_BYTES = 256 * 2**20  # undecoded, shared out among a rank's workers: 2,400 ImageNet pictures

Batch = dict[str, torch.Tensor]
OnError = Literal["error", "skip"]


class PictureStream(IterableDataset):
    """An endless stream of augmented batches, reshuffled each epoch, disjoint over ranks and workers.

    How it shuffles depends on the source:

    - rows that can be read in any order (`IndexedSource`: sets below `open_dataset`'s memory budget, and
      pictures that are files): a full permutation each epoch. Rank r takes its slice of each joined batch, so
      R ranks with batch size B give together what one rank gives with batch size R x B; the number of workers
      changes nothing; a resume starts at once;
    - larger sets (`ShardedSource`): the shards are permuted and rows mixed in a buffer of 256 MiB of
      undecoded bytes a rank. Each worker of each rank has its own share, and a resume replays the undecoded
      rows of the current epoch.

    A batch is a dict of
        `pixels`: uint8 `(B, H, W, 3)`, cast it on the device with `to_pixel_values`;
        `row`: int64 `(B,)`, the pictures' numbers in their split;
        `label`: int64 `(B,)`, only where the source has labels;
        `unreadable`: int64 `()`, how many pictures of the batch could not be read.
    B is always `batch_size`: a batch goes on into the next epoch where one ends.

    The stream shards by itself: never pass it to `accelerator.prepare` or `split_dataset_by_node`, which
    would do so again.

    Args:
        source: the rows.
        transform: picture and generator -> pixels.
        batch_size: pictures in a batch of one rank.
        seed: of order and augmentation, in `[0, 2^64)`.
        rank: this process, in `[0, world_size)`.
        world_size: how many processes share the rows.
        num_workers: processes that decode, 0 for this one.
        batches_done: how many batches of this rank to pass over.
        on_error: "error" stops at a picture that cannot be read. "skip" puts the next readable picture of the
            batch in its place, counts it in `unreadable` and leaves the order of all others as it is; a batch
            without a single readable picture stops nevertheless.

    Raises:
        ValueError: an argument is out of range.
        DatasetError: the source has no rows; while iterating: a picture or file cannot be read.

    Example:
        >>> from vistok.data import open_dataset
        >>> source = open_dataset("samples", split="train")
        >>> stream = PictureStream(source, PictureTransform(64, "random_crop"), batch_size=4)
        >>> batch = next(stream.batches())
        >>> tuple(batch["pixels"].shape), stream.batches_done
        ((4, 64, 64, 3), 1)
    """

    def __init__(
        self,
        source: Source,
        transform: PictureTransform,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        batches_done: int = 0,
        on_error: OnError = "error",
    ):
        check_range("batch_size", batch_size, 1)
        check_range("seed", seed, 0, 2**64)
        check_range("world_size", world_size, 1)
        check_range("rank", rank, 0, world_size)
        check_range("num_workers", num_workers, 0)
        check_range("batches_done", batches_done, 0)
        if on_error not in ("error", "skip"):
            raise ValueError(f"on_error must be 'error' or 'skip', got {on_error!r}")
        if source.num_rows == 0:
            raise DatasetError(f"dataset {source.name!r} has no rows in split {source.split!r}")
        self.source, self.transform = source, transform
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world_size, self.num_workers = rank, world_size, num_workers
        self.batches_done, self.on_error = batches_done, on_error

    @property
    def layout(self) -> dict[str, str | int]:
        """What must be equal for `batches_done` to mean the same place: plain values to save beside it."""
        layout = {
            "split": self.source.split,
            "dataset_fingerprint": self.source.fingerprint,
            "transform": repr(self.transform),
            "seed": self.seed,
        }
        if isinstance(self.source, IndexedSource):
            return layout | {"order": "permutation", "global_batch_size": self.batch_size * self.world_size}
        return layout | {
            "order": "shards",
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "num_workers": max(1, self.num_workers),
        }

    def batches(self, pin_memory: bool = False) -> Iterator[Batch]:
        """Yield batches without end, decoded by `num_workers` processes, and count them in `batches_done`.

        The global random state is left alone, and an error of a worker comes as itself, on one line.
        """
        for batch in load(self, self.num_workers, pin_memory):
            self.batches_done += 1
            yield batch

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if workers != max(1, self.num_workers):
            raise ValueError(
                f"The DataLoader has {workers} workers, but the stream was made for {self.num_workers}"
            )
        # torch asks worker 0, 1, ... in turn, so this worker makes batches first, first + workers, ... of
        # this rank.
        first = self.batches_done + index
        make = self._from_permutation if isinstance(self.source, IndexedSource) else self._from_shards
        return make(first, workers)

    def _from_permutation(self, first: int, workers: int) -> Iterator[Batch]:
        order = PermutedOrder(self.source.num_rows, self.seed)
        while True:
            start = (first * self.world_size + self.rank) * self.batch_size
            yield self._batch(
                [(epoch, self.source.read(row)) for epoch, row in order.at(start, self.batch_size)]
            )
            first += workers

    def _from_shards(self, first: int, workers: int) -> Iterator[Batch]:
        # The share belongs to a batch's number, not to a process: after a resume another process may have it.
        consumer = self.rank * workers + first % workers
        order = ShardedOrder(
            self.source, self.seed, consumer, self.world_size * workers, BUFFER_BYTES // workers
        )
        rows = []
        for row in order.pictures(skip=first // workers * self.batch_size):
            rows.append(row)
            if len(rows) == self.batch_size:
                yield self._batch(rows)
                rows = []

    def _batch(self, rows: Sequence[tuple[int, Picture]]) -> Batch:
        pictures = [picture for _, picture in rows]
        generators = [
            generator_for(Purpose.AUGMENTATION, self.seed, epoch, picture.row) for epoch, picture in rows
        ]
        pixels = pixels_of(self.source, pictures, generators, self.transform, self.on_error)
        readable = [i for i, values in enumerate(pixels) if values is not None]
        if not readable:
            raise DatasetError(
                f"none of the {len(rows)} pictures of a batch (row {pictures[0].row} and others) of dataset "
                f"{self.source.name!r} can be read: check its files"
            )
        chosen = [
            i if pixels[i] is not None else next((j for j in readable if j > i), readable[0])
            for i in range(len(rows))
        ]
        return batch_of(
            [pixels[i] for i in chosen], [pictures[i] for i in chosen], unreadable=len(rows) - len(readable)
        )


def pixels_of(
    source: Source,
    pictures: Sequence[Picture],
    generators: Sequence[np.random.Generator],
    transform: PictureTransform,
    on_error: OnError,
) -> list[np.ndarray | None]:
    """Decode and transform pictures: uint8 `(H, W, 3)` each, None for those that cannot be read under "skip".

    Raises:
        DatasetError: a picture cannot be read and `on_error` is "error"; names row and reason.
    """
    pixels = []
    for picture, generator in zip(pictures, generators, strict=True):
        try:
            pixels.append(transform(picture.decode(), generator))
        except UnreadableImageError as error:
            where = f"row {picture.row} of split {source.split!r} of dataset {source.name!r}"
            message = f"{where} cannot be read: {str(error).rstrip('.')}"
            if on_error == "error":
                raise DatasetError(f"{message}; --on_unreadable skip leaves such pictures out") from error
            logger.warning(message)
            pixels.append(None)
    return pixels


def batch_of(pixels: Sequence[np.ndarray], pictures: Sequence[Picture], unreadable: int) -> Batch:
    """Stack one batch, at least one picture."""
    batch = {
        "pixels": torch.from_numpy(np.stack(pixels)),
        "row": torch.tensor([picture.row for picture in pictures]),
        "unreadable": torch.tensor(unreadable),
    }
    if pictures[0].label is not None:
        batch["label"] = torch.tensor([picture.label for picture in pictures])
    return batch


def to_pixel_values(pixels: torch.Tensor) -> torch.Tensor:
    """Turn uint8 `(B, H, W, 3)` in [0, 255] into float32 `(B, 3, H, W)` in [-1, 1] on the same device.

    The result is in channels-last memory, which convolutions like: nothing is transposed. 0 becomes exactly
    -1 and 255 exactly 1.
    """
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1.0)


def check_layout(saved: dict[str, str | int], current: dict[str, str | int]) -> None:
    """Refuse to resume a stream whose order would be another one.

    Raises:
        ValueError: names the first field that differs, and both values.
    """
    for field in saved | current:
        before, now = saved.get(field), current.get(field)
        if before != now:
            raise ValueError(
                f"The order of pictures cannot be continued: {field} was {before!r}, now it is {now!r}: "
                "set it back, or start a new run"
            )


def check_range(name: str, value: int, low: int, end: int | None = None) -> None:
    """Raise ValueError where `value` is not in `[low, end)`."""
    if value < low or (end is not None and value >= end):
        raise ValueError(
            f"{name} must be at least {low}{f' and below {end}' if end is not None else ''}, got {value}"
        )
