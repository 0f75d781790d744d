"""LlamaGen's VQ-16, encoded and decoded: vistok's network beside its layers computed plainly."""

import copy

import torch
from harness import Case
from plain_vqgan import PlainVQGAN
from torch import Tensor

from vistok import VQConfig, VQGANConfig, VQModelHF


def vq_16(part: str, dtype: torch.dtype, device: str, size: int = 256) -> Case:
    """One picture to its latents, or one grid of vectors to its picture.

    Args:
        part: `"encode"` or `"decode"`.
        dtype: Of ours; the plain layers are float32.
        device: Where.
        size: Height and width in pixels.
    """
    torch.manual_seed(0)
    config = VQConfig(codebook_size=16384, codebook_dim=8, normalize=True, network=VQGANConfig())
    model = VQModelHF(config).eval().to(device)
    plain = PlainVQGAN(model)
    ours = copy.deepcopy(model).to(dtype)
    pixel_values = torch.rand(1, 3, size, size, device=device) * 2 - 1
    quantized = torch.nn.functional.normalize(torch.randn(1, 8, size // 16, size // 16, device=device), dim=1)

    @torch.inference_mode()
    def run_ours() -> Tensor:
        if part == "encode":
            return ours.encode_latents(pixel_values)
        return ours.decode_quantized(quantized)

    @torch.inference_mode()
    def run_plain() -> Tensor:
        return plain.encode(pixel_values) if part == "encode" else plain.decode(quantized)

    case = Case({"ours": run_ours, "plain layers, float32": run_plain})
    reference, result = run_plain(), run_ours().float()
    error = ((result - reference).abs().max() / reference.abs().max()).item()
    case.gate = {"relative error": (error, 1e-4 if dtype == torch.float32 else 5e-2)}
    return case
