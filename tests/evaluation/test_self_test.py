"""The self-test passes where all is right, in under a second, and sees what is wrong."""

import importlib
import time

import pytest
import torch

from vistok.evaluation import LPIPS, Measures
from vistok.evaluation.self_test import SelfTestError, self_test

from .random_trunks import trunk_file
from .small_inception import SmallInception

module = importlib.import_module("vistok.evaluation.self_test")
measures_module = importlib.import_module("vistok.evaluation.measures")


@pytest.fixture(scope="module")
def all_measures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trunks")
    lpips = {f"lpips_{name}": LPIPS(name, trunk_file(name, folder)).eval() for name in ("vgg", "alex")}
    return Measures(measures_module.METRICS, lpips, SmallInception())


def test_it_takes_less_than_a_second(all_measures):
    self_test(all_measures)  # imports torchmetrics
    begin = time.process_time()
    self_test(all_measures)
    assert time.process_time() - begin < 1


def truncated(pixel_values: torch.Tensor) -> torch.Tensor:
    return pixel_values.clamp(-1, 1).add(1).mul(127.5).to(torch.uint8)


def test_truncation_instead_of_rounding_is_seen(monkeypatch):
    monkeypatch.setattr(module, "to_levels", truncated)
    with pytest.raises(
        SelfTestError, match=r"-0\.\d+ levels off on average: are they cut off instead of rounded"
    ):
        self_test(Measures())


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        (
            "psnr",
            lambda a, b: 10 * torch.log10(2 / (a - b).square().flatten(1).mean(1)),
            "psnr of pictures 1 levels",
        ),
        ("ssim", lambda a, b: torch.full((len(a),), 0.99), "ssim of equal pictures must be 1, got 0.99"),
        ("l1", lambda a, b: (a - b).flatten(1).abs().mean(1) + 1e-6, "l1 of equal pictures must be 0"),
        ("psnr", lambda a, b: torch.full((len(a),), float("nan")), "must be inf, got nan"),
    ],
)
def test_a_wrong_metric_is_seen(monkeypatch, name, wrong, said):
    monkeypatch.setitem(measures_module._FORMULAE, name, wrong)
    with pytest.raises(SelfTestError, match=said):
        self_test(Measures())


def test_a_wrong_distance_of_features_is_seen(monkeypatch, all_measures):
    class Half:
        def __init__(self, metric):
            self.metric = metric

        def update(self, *arguments, **options):
            self.metric.update(*arguments, **options)

        def compute(self):
            return self.metric.compute() / 2

    right = module.frechet_distance
    monkeypatch.setattr(module, "frechet_distance", lambda dim: Half(right(dim)))
    with pytest.raises(SelfTestError, match="rfid of features shifted by 1 must be 16, got 8"):
        self_test(Measures(("rfid",), inception=SmallInception()))


def test_planted_degradations_give_the_psnr_by_hand():
    pictures = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    found = Measures(("psnr", "l1", "mse")).of_pictures(pictures + 51, pictures)  # a fifth of the range
    assert found["psnr"].item() == pytest.approx(13.9794001, abs=1e-5)
    assert found["l1"].item() == pytest.approx(0.2, rel=1e-6)
    assert found["mse"].item() == pytest.approx(0.04, rel=1e-6)
