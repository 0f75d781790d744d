"""How fast a model is, measured while it works."""

import math
import time

import torch

from .ranks import summed


class LapTimer:
    """Pictures a second of one process, without the first batch, in which libraries choose their kernels.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._begin = 0.0
        self._laps: list[tuple[int, float]] = []

    def start(self) -> None:
        """Begins a lap."""
        self._wait()
        self._begin = time.perf_counter()

    def stop(self, pictures: int) -> None:
        """Ends a lap of that many pictures."""
        self._wait()
        self._laps.append((pictures, time.perf_counter() - self._begin))

    @property
    def of(self) -> str:
        """What `rate` is of, on this rank."""
        return f"one process, {'without' if len(self._laps) > 1 else 'which had nothing but'} its first batch"

    def rate(self) -> float:
        """Pictures a second, over all ranks' processes; every rank must call it."""
        laps = self._laps[1:] or self._laps
        pictures, seconds = summed(
            torch.tensor([sum(n for n, _ in laps), sum(t for _, t in laps)], dtype=torch.float64)
        ).tolist()
        return pictures / seconds if seconds else math.nan

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
