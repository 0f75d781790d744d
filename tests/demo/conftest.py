"""Small tokenizers of every kind that a page may meet, and a page that runs."""

import os
import sys

import pytest
import torch

sys.path.insert(0, os.path.dirname(__file__))  # importlib mode does not
from serving import serve  # noqa: E402

from vistok import (
    BSQConfig,
    ContinuousConfig,
    FSQConfig,
    MultiScaleVQConfig,
    OptVQConfig,
    SimpleCNNConfig,
    StridedCNNConfig,
    TiTokConfig,
    VQConfig,
    VQModelHF,
)
from vistok.demo.examples import example
from vistok.demo.tokenizers import tokenizer

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
SMALL = SimpleCNNConfig(hidden_channels=8, num_res_blocks=1)
SEQUENCE = TiTokConfig(
    num_latent_tokens=6, image_size=40, patch_size=8, hidden_size=64, num_layers=1, decoder_hidden_size=64,
    decoder_num_layers=1,
)  # fmt: skip
CONFIGS = {
    "grid": FSQConfig(levels=[8, 5, 5, 5], image_size=32, network=SMALL),
    "large": FSQConfig(levels=[8] * 16, image_size=32, network=SMALL),
    "bits": BSQConfig(num_bits=6, image_size=32, network=SMALL),
    "table": VQConfig(codebook_size=32, codebook_dim=4, image_size=32, network=SMALL),
    "residual": VQConfig(
        codebook_size=16,
        codebook_dim=4,
        num_codebooks=3,
        codebook_layout="residual",
        image_size=32,
        network=SMALL,
    ),
    "transport": OptVQConfig(
        codebook_size=32, codebook_dim=4, num_codebooks=2, shared_codebook=True, image_size=32, network=SMALL
    ),
    "scales": MultiScaleVQConfig(
        scales=[1, 2, 4],
        codebook_size=16,
        codebook_dim=4,
        image_size=32,
        network=StridedCNNConfig(hidden_channels=8),
    ),
    "sequence": VQConfig(codebook_size=16, codebook_dim=4, image_size=40, network=SEQUENCE),
    "continuous": ContinuousConfig(latent_dim=4, image_size=32, network=SMALL),
}


@pytest.fixture(scope="session")
def models():
    """A model of each kind by name."""
    made = {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        made[name] = VQModelHF(config).eval()
    return made


@pytest.fixture(scope="session")
def tokenizers(models):
    """The same as the page knows them."""
    return {name: tokenizer(name, model) for name, model in models.items()}


@pytest.fixture(scope="session")
def photograph():
    """A wide photograph, 451 x 300."""
    return example("chelsea")


@pytest.fixture(scope="session")
def folders(models, tmp_path_factory):
    """Folders of some of the models."""
    root = tmp_path_factory.mktemp("tokenizers")
    for name in ("grid", "residual", "sequence", "transport", "continuous"):
        models[name].save_pretrained(root / name)
    return {path.name: str(path) for path in root.iterdir()}


@pytest.fixture(scope="session")
def page(folders, tmp_path_factory):
    """The Space's own app as a process, with small tokenizers."""
    with serve(
        [folders[name] for name in ("grid", "residual", "sequence", "transport", "continuous")]
    ) as served:
        yield served
