"""A quantizer and a network in somebody else's package work like ours, without a change to vistok."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vistok import FSQConfig, SimpleCNNConfig, VistokImageProcessor, VisualTokenizerConfig, VQModelHF

ROOT = Path(__file__).parents[1]

QUANTIZER = '''
"""Each latent channel becomes one bit: its sign."""

import torch

from vistok import Quantizer, QuantizerOutput, VisualTokenizerConfig
from vistok.configuration import number
from vistok.quantizers import straight_through


class SignConfig(VisualTokenizerConfig):
    """The settings of a sign quantizer."""

    model_type = "plugin_sign"
    bits: int = number(6, at_least=1, below=63)


class Sign(Quantizer):
    """The signs of the latents."""

    config_class = SignConfig

    def __init__(self, bits: int = 6):
        super().__init__()
        SignConfig.check(bits=bits)
        self.codebook_size = 2**bits
        self.codebook_dim = self.latent_dim = self.quantized_dim = bits
        self.bits = bits

    def quantize(self, latents):
        tokens = self.assign(latents)
        return QuantizerOutput(straight_through(latents, self.entries(tokens)), tokens)

    def assign(self, latents):
        return sum((latents[:, bit] > 0).long() << bit for bit in range(self.bits))

    def entries(self, tokens):
        return torch.stack([(tokens >> bit & 1) * 2.0 - 1 for bit in range(self.bits)], dim=1)
'''
NETWORK = '''
"""One convolution down, one up."""

from torch import nn

from vistok import NetworkConfig
from vistok.configuration import number
from vistok.networks import Decoder, Encoder


class PatchConfig(NetworkConfig):
    """The settings of a patch network."""

    model_type = "plugin_patch"
    patch_size: int = number(8, at_least=1)
    width: int = number(12, at_least=1)


class PatchEncoder(Encoder):
    """Patches to features."""

    config_class = PatchConfig

    def __init__(self, patch_size: int, width: int):
        super().__init__()
        self.channels, self.downsample_factor = width, patch_size
        self.conv = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, pixel_values):
        return self.conv(pixel_values)


class PatchDecoder(Decoder):
    """Features to patches."""

    config_class = PatchConfig

    def __init__(self, patch_size: int, width: int):
        super().__init__()
        self.channels = width
        self.conv = nn.ConvTranspose2d(width, 3, patch_size, stride=patch_size)

    @property
    def last_layer(self):
        return self.conv.weight

    def forward(self, features):
        return self.conv(features)
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """The package `sign_plugin`, written to a folder on the path and imported."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "sign_plugin"
    package.mkdir()
    (package / "quantizer.py").write_text(QUANTIZER)
    (package / "network.py").write_text(NETWORK)
    (package / "__init__.py").write_text(
        "from .network import PatchConfig\nfrom .quantizer import Sign, SignConfig\n"
    )
    sys.path.insert(0, str(folder))
    yield importlib.import_module("sign_plugin")
    sys.path.remove(str(folder))


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("codebooks", [1, 3])
def test_both_work_together(plugin, codebooks):
    model = VQModelHF(plugin.SignConfig(num_codebooks=codebooks, image_size=32, network=plugin.PatchConfig()))
    out = model.train()(pictures())
    assert out.reconstruction.shape == (2, 3, 32, 48)
    assert out.tokens.shape == ((2, 3, 4, 6) if codebooks == 3 else (2, 4, 6))
    assert model.codebook_size == 64
    out.reconstruction.mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    tokens = model.encode(pictures()).tokens
    assert torch.equal(tokens, out.tokens)
    assert torch.equal(model.quantizer.index(model.quantizer.lookup(tokens)), tokens)


def test_each_works_with_ours(plugin):
    with_our_network = VQModelHF(plugin.SignConfig(image_size=32, network=SimpleCNNConfig(hidden_channels=4)))
    with_our_quantizer = VQModelHF(FSQConfig(image_size=32, network=plugin.PatchConfig()))
    assert with_our_network.token_shape == (8, 8)
    assert with_our_quantizer.token_shape == (4, 4)


def test_save_and_load_by_every_way(plugin, tmp_path):
    model = VQModelHF(
        plugin.SignConfig(bits=4, image_size=32, network=plugin.PatchConfig(patch_size=16))
    ).eval()
    model.save_pretrained(tmp_path)
    assert VisualTokenizerConfig.from_pretrained(tmp_path) == model.config
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is VistokImageProcessor
    for loaded in (VQModelHF.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded.quantizer) is plugin.Sign
        assert torch.equal(loaded(pictures()).reconstruction, model(pictures()).reconstruction)


def test_its_configuration_is_as_strict_as_ours(plugin):
    for fields, text in (
        ({"bits": 0}, "'bits'.*at least 1"),
        ({"bits": 63}, "'bits'.*below 63"),
        ({"bit": 3}, "SignConfig has no field 'bit'"),
        ({"network": {"model_type": "plugin_patch", "width": "12"}}, "PatchConfig.*'width'"),
    ):
        with pytest.raises(ValueError, match=text):
            plugin.SignConfig(**fields)
    with pytest.raises(ValueError, match="'bits'"):
        plugin.Sign(bits=0)


def test_a_process_without_the_package_says_what_to_import(plugin, tmp_path):
    model = VQModelHF(plugin.SignConfig(image_size=32, network=plugin.PatchConfig()))
    model.save_pretrained(tmp_path / "both")
    VQModelHF(FSQConfig(image_size=32, network=plugin.PatchConfig())).save_pretrained(tmp_path / "network")
    code = """
import sys
from vistok import VQModelHF
for folder in sys.argv[1:]:
    try:
        VQModelHF.from_pretrained(folder)
    except ValueError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "both"), str(tmp_path / "network")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for line, model_type in zip(result.stdout.splitlines(), ("plugin_sign", "plugin_patch"), strict=True):
        assert model_type in line
        assert "import the package that defines it" in line
