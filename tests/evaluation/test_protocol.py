"""The evaluation of a tokenizer: batches never change a number, and what is wrong is said."""

import pytest
import torch
from PIL import Image

from vistok import ContinuousConfig, FSQConfig, SimpleCNNConfig, VQModelHF
from vistok.data import open_dataset
from vistok.evaluation import evaluate
from vistok.evaluation.protocol import _tf32

NETWORK = {"model_type": "vistok_simple_cnn", "hidden_channels": 8}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return VQModelHF(FSQConfig(levels=[8, 5, 5, 5], image_size=32, network=NETWORK, num_codebooks=2))


@pytest.fixture(scope="module")
def source():
    return open_dataset("samples", split="validation")


def test_the_batch_size_changes_no_number(model, source):
    results = [
        evaluate(model, source, batch_size=size, limit=15, progress=False)["metrics"] for size in (1, 7, 64)
    ]
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-6)
    assert results[0]["tokens_per_picture"] == 2 * 8 * 8
    assert results[0]["bits_per_pixel"] == pytest.approx(128 * 9.9657843 / 32**2)


def test_the_protocol_says_how_many_and_at_what_size(model, source):
    protocol = evaluate(model, source, resolution=64, limit=3, progress=False)["protocol"]
    assert (protocol["pictures"], protocol["resolution"], protocol["split"]) == (3, 64, "validation")
    assert protocol["max_samples"] == 3
    assert (protocol["dataset_config_name"], protocol["image_column"]) == (None, None)


@pytest.mark.parametrize("wrong", [{"resolution": 0}, {"resolution": -4}, {"limit": 0}, {"limit": -1}])
def test_numbers_below_one_are_said(model, source, wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be at least 1, got"):
        evaluate(model, source, progress=False, **wrong)


def test_the_folder_one_is_in_has_a_name(model, tmp_path, monkeypatch):
    (tmp_path / "cats" / "validation").mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "cats" / "validation" / "a.png")
    monkeypatch.chdir(tmp_path / "cats")
    protocol = evaluate(model, open_dataset(".", split="validation", config_name="default"), progress=False)[
        "protocol"
    ]
    assert (protocol["dataset"], protocol["image_column"], protocol["max_samples"]) == ("cats", "image", None)
    assert protocol["dataset_config_name"] == "default"


def test_tf32_is_told_of_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert _tf32(torch.device("cuda"))["tf32_convolutions"] is False
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert _tf32(torch.device("cuda"))["tf32_convolutions"] is True
    assert _tf32(torch.device("cpu")) == {}


def test_a_size_that_does_not_fit_is_said(model, source):
    with pytest.raises(ValueError, match="nearest that fit: 48 or 52"):
        evaluate(model, source, resolution=50, limit=2, progress=False)


def test_without_quantization_there_is_no_codebook_to_measure(source):
    continuous = VQModelHF(ContinuousConfig(image_size=32, network=SimpleCNNConfig(hidden_channels=8)))
    metrics = evaluate(continuous, source, limit=3, progress=False)["metrics"]
    assert {"l1", "mse", "psnr", "ssim", "parameters"} == set(metrics)


def test_a_broken_model_is_said(source):
    broken = VQModelHF(FSQConfig(image_size=32, network=NETWORK))
    with torch.no_grad():
        broken.decoder.ups[-1].bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="rows 0, 1 are not finite"):
        evaluate(broken, source, batch_size=2, limit=2, progress=False)
