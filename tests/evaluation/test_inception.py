"""FID's Inception: numbers of torch-fidelity's own network, and files that load or do not."""

import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from vistok.evaluation.inception import FIDInception, load_inception, resize_as_tensorflow, weights_hash

PICTURES = (torch.arange(3 * 70 * 90) * 37 % 256).to(torch.uint8).view(1, 3, 70, 90)


@pytest.fixture(scope="module")
def network():
    network = FIDInception().eval()
    with torch.no_grad():
        for i, (name, tensor) in enumerate(sorted(network.state_dict().items())):
            if name.endswith("num_batches_tracked"):
                continue
            wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + i).view(tensor.shape)
            if "running_var" in name or "bn.weight" in name:
                tensor.copy_(1 + 0.3 * wave)
            else:
                tensor.copy_(0.1 * wave if tensor.ndim == 1 else wave * (2 / tensor[0].numel()) ** 0.5)
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("inception")
    torch.save(network.state_dict(), folder / "weights.pth")
    without = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(without, folder / "weights.safetensors")
    return folder


def test_features_and_logits_are_those_of_torch_fidelity(network):
    # By torch-fidelity 0.4.0's FeatureExtractorInceptionV3 with these weights and pictures.
    with torch.no_grad():
        features = network.features(PICTURES)
        logits = network.logits(features)
    scale = 290  # the largest value
    expected = torch.tensor([0.1242154, 189.1659851, 289.6299744, 78.4383850, 0.0, 0.0])
    torch.testing.assert_close(features[0, :6], expected, rtol=0, atol=1e-5 * scale)
    assert features.mean().item() == pytest.approx(31.7610798, rel=1e-5)
    expected = torch.tensor([162.0535889, -34.0279999, -196.8710785, -167.4106140])
    torch.testing.assert_close(logits[0, :4], expected, rtol=0, atol=1e-5 * scale)


def test_resizing_by_hand():
    row = torch.tensor([0.0, 10.0, 20.0]).expand(1, 1, 2, 3)
    # TensorFlow 1: pixel i comes from place i * 3 / 6, and the last pixel goes on.
    assert resize_as_tensorflow(row, 6)[0, 0, 0].tolist() == pytest.approx([0, 5, 10, 15, 20, 20])


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_a_file_loads_and_its_container_does_not_change_the_hash(folder, network, file):
    loaded = load_inception(folder / file)
    with torch.no_grad():
        torch.testing.assert_close(loaded.features(PICTURES), network.features(PICTURES), rtol=0, atol=0)
    assert weights_hash(loaded.state_dict()) == weights_hash(network.state_dict())
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_the_hash_sees_a_single_value(network):
    changed = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed["fc.weight"][3, 5] += 1e-3
    assert weights_hash(changed) != weights_hash(network.state_dict())


def test_without_weights_one_line_says_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(
        ValueError, match="pt_inception-2015-12-05-6726825d.pth and give --inception_weights"
    ) as said:
        load_inception()
    assert "\n" not in str(said.value)


def test_torch_fidelity_gives_its_weights_where_it_is_installed(monkeypatch, network):
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = lambda name, features: network
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    assert weights_hash(load_inception().state_dict()) == weights_hash(network.state_dict())


def test_a_file_of_something_else_is_refused(tmp_path, network):
    save_file({"conv.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="lacks .* weights of FID's Inception"):
        load_inception(tmp_path / "other.safetensors")
    wrong = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wrong["fc.weight"] = torch.ones(1000, 2048)  # torchvision's
    save_file(wrong, tmp_path / "torchvision.safetensors")
    with pytest.raises(ValueError, match="fc.weight"):
        load_inception(tmp_path / "torchvision.safetensors")
