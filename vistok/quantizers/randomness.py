"""Random numbers of training that do not depend on how a batch is cut into ranks and micro-batches.

Each sample of the joined batch has a generator of its own, keyed by the seed, the step and its place in the
step. The global generators are left alone.
"""

import hashlib

import torch
from torch import Tensor

from .distributed import counts_of_ranks, from_rank_zero, offset_of_rank, world_size


def shared_seed(device: torch.device) -> int:
    """The seed of torch's default generator (`torch.manual_seed`), on all ranks that of rank 0."""
    if world_size() == 1:
        return torch.initial_seed()
    # 63 bits: a broadcast has no unsigned integers.
    return int(from_rank_zero(torch.tensor(torch.initial_seed() % 2**63, device=device)))


def generator(*key: int | str, device: torch.device) -> torch.Generator:
    """A generator seeded by a key: the same key gives the same numbers."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest) % 2**63)


class SampleStreams:
    """A stream of random numbers for each sample of a step, counted over its forwards and the ranks."""

    def __init__(self):
        self.step = 0
        self._used: dict[int | str, int] = {}

    def begin(self, step: int) -> None:
        """Starts the streams of a step anew."""
        self.step = step
        self._used.clear()

    def next(self, samples: Tensor, stream: int | str) -> list[torch.Generator]:
        """The generators of the samples of one forward.

        Args:
            samples: `(B, ...)`, for its length and device.
            stream: What the numbers are for: another stream has other numbers.
        """
        counts = counts_of_ranks(len(samples), samples.device)
        first = self._used.get(stream, 0)
        self._used[stream] = first + sum(counts)
        first += offset_of_rank(counts)
        seed = shared_seed(samples.device)
        return [
            generator(seed, self.step, stream, first + sample, device=samples.device)
            for sample in range(len(samples))
        ]
