"""Where the time of training goes, so that a user sees what to buy: a faster device, or more workers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class Stopwatch:
    """Measures what passed between two looks at it.

    Args:
        device: The device that computes.

    Example:
        >>> watch = Stopwatch(torch.device("cpu"))
        >>> with watch.waiting_for_data():
        ...     batch = [1, 2, 3]
        >>> sorted(watch.read(steps=1, pictures=3))
        ['data_wait_share', 'images_per_second', 'memory_gb', 'seconds_per_step']
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._begin, self._waited = time.perf_counter(), 0.0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the time inside as waiting for pictures."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - begin

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out, such as the writing of a checkpoint."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._begin += time.perf_counter() - begin

    def restart(self) -> None:
        """Begins anew."""
        self._begin, self._waited = time.perf_counter(), 0.0

    def read(self, steps: int, pictures: int) -> dict[str, float]:
        """What passed since the last look, of this process; then it starts anew.

        Args:
            steps: Optimizer steps since then.
            pictures: Pictures since then, over all processes.

        Returns:
            `images_per_second`, `seconds_per_step`, `data_wait_share` (of the time, in [0, 1]) and
            `memory_gb` (10^9 bytes: the most that tensors took on a GPU, what the process holds on a CPU).
        """
        elapsed = max(time.perf_counter() - self._begin, 1e-9)
        values = {
            "images_per_second": pictures / elapsed,
            "seconds_per_step": elapsed / max(steps, 1),
            "data_wait_share": self._waited / elapsed,
            "memory_gb": self._memory() / 1e9,
        }
        self.restart()
        return values

    def _memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return psutil.Process().memory_info().rss
