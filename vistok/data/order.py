"""Which rows come when: two shuffled orders, each a pure function of seed, epoch and position.

`PermutedOrder` permutes all rows anew in each epoch and can start anywhere at once. `ShardedOrder`, for sets
that can only be read in sequence, permutes the shards and mixes rows in a buffer. Neither holds a random
state: every draw comes from a counter-based generator (Philox, "Parallel random numbers: as easy as 1, 2, 3",
SC11) keyed by what it is for.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from .sources import DatasetError, Picture, ShardedSource


class Purpose(IntEnum):
    """What a generator draws: different purposes never share a stream of numbers."""

    AUGMENTATION = 0
    ROW_ORDER = 1
    SHARD_ORDER = 2
    BUFFER = 3


def generator_for(purpose: Purpose, seed: int, epoch: int, number: int = 0) -> np.random.Generator:
    """Return the generator for a purpose, seed, epoch and number (row or consumer), each in `[0, 2^64)`."""
    # Words 2 and 3 of the counter are free for us: the generator counts in words 0 and 1, 2^128 blocks of
    # them.
    key, counter = np.array([seed, number], np.uint64), np.array([0, 0, purpose, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class PermutedOrder:
    """All rows in a new uniform permutation each epoch, one epoch after the other without end.

    Args:
        num_rows: how many rows there are, at least 1.
        seed: in `[0, 2^64)`.
    """

    def __init__(self, num_rows: int, seed: int):
        self.num_rows, self.seed = num_rows, seed

    def at(self, start: int, count: int) -> list[tuple[int, int]]:
        """Return `(epoch, row)` at the positions `[start, start + count)`."""
        places = (divmod(position, self.num_rows) for position in range(start, start + count))
        return [(epoch, int(_permutation(self.num_rows, self.seed, epoch)[i])) for epoch, i in places]


@lru_cache(maxsize=4)  # a batch touches one epoch, or two at its end; an entry of ImageNet is 10 MB
def _permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return generator_for(Purpose.ROW_ORDER, seed, epoch).permutation(num_rows)


class ShardedOrder:
    """One consumer's share of a sharded source, epoch after epoch without end.

    Each epoch permutes the shards and gives each row to exactly one of the C consumers. Where the source
    knows its shards' lengths, the epoch's rows are cut into C pieces of one length and consumers stay in
    step. Where it does not, S - S mod C of the S shards are dealt whole in turn and the rest are read by
    every consumer, which keeps every C-th row; consumers with shorter shards then start their next epoch
    earlier than others.

    Args:
        source: the rows.
        seed: in `[0, 2^64)`.
        consumer: which share, in `[0, consumers)`.
        consumers: how many shares: ranks times workers.
        buffer_bytes: undecoded bytes held to be mixed. The larger, the better the shuffle.
        size: how many bytes a row holds.
    """

    def __init__(
        self,
        source: ShardedSource,
        seed: int,
        consumer: int,
        consumers: int,
        buffer_bytes: int,
        size: Callable[[Any], int] | None = None,
    ):
        self.source, self.seed = source, seed
        self.consumer, self.consumers = consumer, consumers
        self.buffer_bytes = buffer_bytes
        self.size = size or _size

    def pictures(self, skip: int) -> Iterator[tuple[int, Picture]]:
        """Yield `(epoch, picture)`, without the first `skip`.

        Skipping reads undecoded rows (about 100,000 a second from a local disk), each shard at most once more
        than the current epoch needs: epochs whose shards' lengths are known are skipped by arithmetic.

        Raises:
            DatasetError: there are no rows.
        """
        epoch = empty = 0
        while True:
            length = self._length(epoch) if skip else None
            if length is not None and length <= skip:
                count, skip = length, skip - length
            else:
                count = 0
                for picture in self._mixed(epoch):
                    count += 1
                    if skip:
                        skip -= 1
                    else:
                        yield epoch, picture
            empty = 0 if count else empty + 1
            if empty > self.consumers:  # with fewer rows than consumers, each still gets one within so many
                raise DatasetError(f"dataset {self.source.name!r} has no rows in split {self.source.split!r}")
            epoch += 1

    def _shares(self, epoch: int) -> Iterator[tuple[int, slice]]:
        """Yield this consumer's shards, and which rows of each."""
        order = generator_for(Purpose.SHARD_ORDER, self.seed, epoch).permutation(self.source.num_shards)
        turn = (self.consumer + epoch) % self.consumers  # no consumer gets the longest piece every time
        lengths = self.source.shard_lengths
        if lengths is not None:
            first, end = (place * sum(lengths) // self.consumers for place in (turn, turn + 1))
            start = 0
            for shard in order:
                rows = slice(max(first - start, 0), min(end - start, lengths[shard]))
                if rows.start < rows.stop:
                    yield int(shard), rows
                start += lengths[shard]
            return
        dealt = len(order) - len(order) % self.consumers
        for place, shard in enumerate(order):
            if place >= dealt:
                yield int(shard), slice((turn + place) % self.consumers, None, self.consumers)
            elif place % self.consumers == turn:
                yield int(shard), slice(0, None)

    def _length(self, epoch: int) -> int | None:
        """Return how many rows this consumer has in an epoch, None where a shard was not read yet."""
        total = 0
        for shard, rows in self._shares(epoch):
            length = self.source.known_length(shard)
            if length is None:
                return None
            total += len(range(*rows.indices(length)))
        return total

    def _in_sequence(self, epoch: int) -> Iterator[Picture]:
        for shard, rows in self._shares(epoch):
            yield from islice(self.source.read_shard(shard), rows.start, rows.stop, rows.step)

    def _mixed(self, epoch: int) -> Iterator[Picture]:
        """Yield an epoch's rows; each leaves a buffer of `buffer_bytes` at a place that chance picks."""
        generator = generator_for(Purpose.BUFFER, self.seed, epoch, self.consumer)
        buffer: list[Picture] = []
        held = 0
        for picture in self._in_sequence(epoch):
            buffer.append(picture)
            held += self.size(picture)
            while held > self.buffer_bytes:
                picked = _pop(buffer, int(generator.integers(len(buffer))))
                held -= self.size(picked)
                yield picked
        while buffer:
            yield _pop(buffer, int(generator.integers(len(buffer))))


def _pop(buffer: list[Picture], i: int) -> Picture:
    """Remove entry `i` at the cost of one move: the last one takes its place."""
    buffer[i], buffer[-1] = buffer[-1], buffer[i]
    return buffer.pop()


def _size(picture: Picture) -> int:
    return len(picture.image or b"") + 200  # bytes; 200: the Python objects around it
