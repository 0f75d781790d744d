"""Pictures a second, by a clock that the test sets."""

import pytest
import torch

from vistok.evaluation import speed
from vistok.evaluation.speed import LapTimer


@pytest.mark.parametrize(
    ("laps", "rate", "of"),
    [
        ([(8, 4.0)], 2, "one process, which had nothing but its first batch"),
        ([(8, 4.0), (8, 1.0), (4, 1.0)], 6, "one process, without its first batch"),
    ],
)
def test_the_first_batch_counts_only_where_it_is_alone(monkeypatch, laps, rate, of):
    now = iter([time for _, seconds in laps for time in (100.0, 100.0 + seconds)])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(now))
    watch = LapTimer(torch.device("cpu"))
    for pictures, _ in laps:
        watch.start()
        watch.stop(pictures)
    assert (watch.rate(), watch.of) == (rate, of)
