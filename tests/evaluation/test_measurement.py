"""What a measurement refuses: wrong sizes, wrong numbers of pictures, one twice."""

import math

import pytest
import torch

from vistok.evaluation import Measures
from vistok.evaluation.measurement import Measurement

from .small_inception import SmallInception


def measured(rows: list[int], measures: Measures | None = None) -> Measurement:
    measurement = Measurement(measures or Measures())
    pixels = torch.randint(0, 256, (len(rows), 3, 16, 16), dtype=torch.uint8)
    measurement.update(torch.tensor(rows), pixels / 127.5 - 1, pixels)
    return measurement


def test_a_split_that_is_too_short_is_said_with_both_numbers():
    measurement = measured([0, 1])
    measurement.skip(torch.tensor([2]))
    with pytest.raises(ValueError, match="Expected 5 pictures, got 2 that can be read and 1 that cannot"):
        measurement.finish(expected=5)


def test_unreadable_pictures_are_of_the_number_and_named():
    measurement = measured([0, 2])
    measurement.skip(torch.tensor([1]))
    result = measurement.finish(expected=3)
    assert (result["pictures"], result["unreadable_rows"]) == (2, [1])


def test_a_picture_that_comes_twice_is_said():
    with pytest.raises(ValueError, match="Expected each picture once, got 3 .* 2 different ones"):
        measured([0, 1, 1]).finish(expected=None)


def test_no_picture_at_all():
    with pytest.raises(ValueError, match="no picture can be read"):
        Measurement(Measures()).finish(expected=None)


def test_a_reconstruction_of_another_size_is_said_with_both():
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="Expected reconstructions of 16 x 16 pixels, .* got 16 x 20"):
        Measurement(Measures()).update(torch.tensor([0]), torch.zeros(1, 3, 16, 20), pixels)


def test_what_is_not_finite_is_named_by_row():
    pixels = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    reconstruction = torch.zeros(3, 3, 16, 16)
    reconstruction[1, 2, 3, 4] = float("nan")
    with pytest.raises(ValueError, match="rows 8 are not finite"):
        Measurement(Measures()).update(torch.tensor([7, 8, 9]), reconstruction, pixels)


def test_extremes_are_the_worst_median_and_best_rows():
    measurement = Measurement(Measures(("psnr",)))
    pixels = torch.full((9, 3, 16, 16), 100, dtype=torch.uint8)
    error = torch.tensor([5, 1, 9, 3, 7, 2, 8, 4, 6]).view(9, 1, 1, 1)
    measurement.update(torch.arange(10, 19), (pixels + error) / 127.5 - 1, pixels)
    extremes = measurement.finish(expected=9)["extremes"]
    assert extremes["by"] == "psnr"
    rows = {kind: [entry["row"] for entry in extremes[kind]] for kind in ("worst", "median", "best")}
    assert rows == {"worst": [12, 16, 14], "median": [18, 10, 17], "best": [13, 15, 11]}


def test_metrics_of_all_pictures_together_need_no_others():
    measures = Measures(("rfid",), inception=SmallInception())
    finished = measured([0, 2], measures)
    finished.update(torch.tensor([1]), torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 128).byte())
    result = finished.finish(expected=3)
    assert result["metrics"].keys() == {"rfid"} and abs(result["metrics"]["rfid"]) < 0.01
    assert (result["pictures"], result["extremes"]) == (3, {})


def test_one_picture_has_no_distribution_and_loses_no_other_number(caplog):
    measures = Measures(("psnr", "rfid", "kid", "inception_score"), inception=SmallInception())
    metrics = measured([4], measures).finish(expected=1)["metrics"]
    assert math.isnan(metrics["rfid"]) and math.isnan(metrics["kid"]) and metrics["psnr"] == math.inf
    assert metrics["inception_score"] == pytest.approx(1)
    assert caplog.messages == ["NaN in the place of rfid, kid: that needs at least 2 pictures"]


def test_a_metric_where_less_is_better_ranks_the_other_way():
    measurement = Measurement(Measures(("l1",)))
    pixels = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    measurement.update(torch.arange(2), (pixels + torch.tensor([1, 9]).view(2, 1, 1, 1)) / 127.5 - 1, pixels)
    assert measurement.finish(expected=2)["extremes"]["worst"][0]["row"] == 1
