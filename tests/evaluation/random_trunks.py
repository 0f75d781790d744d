"""Trunks of LPIPS with random weights, so that no test needs the real ones."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vistok.evaluation.lpips_weights import trunk_shapes


def trunk_weights(network: str, seed: int = 0) -> dict[str, Tensor]:
    """float16 weights whose features neither fade nor grow (He et al. 2015, arXiv:1502.01852)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (
            torch.randn(shape, generator=generator)
            * (math.sqrt(2 / math.prod(shape[1:])) if len(shape) == 4 else 0.1)
        ).half()
        for name, shape in trunk_shapes(network).items()
    }


def trunk_file(network: str, folder: Path) -> str:
    """The path of a safetensors file of such weights, written once a folder: VGG16's has 29 MB."""
    path = folder / f"{network}.safetensors"
    if not path.exists():
        save_file(trunk_weights(network), path)
    return str(path)
