"""Outputs of the original projects (golden/*.json says which, at what commit), matched number by number."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vistok.quantizers import FSQ, VQ, Product, Residual

GOLDEN = Path(__file__).parent / "golden"
QUANTIZED = {"atol": 1e-5, "rtol": 0}
LOSS = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 2e-5, "rtol": 1e-4}
VQ_CASES = ["vq_taming_32x8", "vq_l2_llamagen_32x8", "vq_l2_titok_32x8"]
FSQ_CASES = ["fsq_atanh_354", "fsq_atanh_8555", "fsq_tan_354", "fsq_tan_8555"]
PRODUCT_CASES = ["product_vq_separate_3x32x12", "product_vq_shared_2x32x8"]
RESIDUAL_CASES = ["residual_vq_separate_3x32x6", "residual_vq_shared_2x48x6"]


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    return load_file(GOLDEN / f"{name}.safetensors"), json.loads((GOLDEN / f"{name}.json").read_text())[
        "settings"
    ]


def test_every_case_is_used():
    used = {*VQ_CASES, *FSQ_CASES, *PRODUCT_CASES, *RESIDUAL_CASES}
    assert {path.stem for path in GOLDEN.glob("*.safetensors")} == used


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)


def matches(actual: Tensor, expected: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), **tolerance)


@pytest.mark.parametrize("name", FSQ_CASES)
def test_fsq(name: str):
    golden, settings = load(name)
    quantizer = FSQ(settings["levels"], bound=name.split("_")[1])
    latents = golden["latents"].requires_grad_()
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    assert torch.equal(quantizer.encode(latents), golden["tokens"])
    matches(out.quantized, golden["quantized"], **QUANTIZED)
    (gradient,) = gradients((golden["functional_weights"] * out.quantized).sum(), latents)
    matches(gradient, golden["grad/functional/latents"], **GRADIENT)
    assert out.losses == {}
    matches(quantizer.lookup(golden["lookup_tokens"]), golden["lookup_vectors"], **QUANTIZED)
    assert torch.equal(quantizer.index(golden["lookup_vectors"]), golden["lookup_tokens"])


@pytest.mark.parametrize("name", VQ_CASES)
def test_vq(name: str):
    golden, settings = load(name)
    quantizer = VQ(
        settings["codebook_size"],
        settings["codebook_dim"],
        normalize=settings.get("normalize", False),
        codebook_weight=1.0,
        commitment_weight=1.0,
    )
    with torch.no_grad():
        quantizer.codebook.copy_(golden["parameters/codebook"])
    latents = golden["latents"].requires_grad_()
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    assert torch.equal(quantizer.encode(latents), golden["tokens"])
    matches(out.quantized, golden["quantized"], **QUANTIZED)
    terms = {"functional": (golden["functional_weights"] * out.quantized).sum(), **out.losses}
    for term, value in terms.items():
        if term != "functional":
            matches(value, golden[f"loss/{term}"], **LOSS)
        for leaf, gradient in zip(
            ("latents", "codebook"), gradients(value, latents, quantizer.codebook), strict=True
        ):
            expected = golden.get(
                f"grad/{term}/{leaf}", torch.zeros_like(gradient)
            )  # no path in the source: zero
            matches(gradient, expected, **GRADIENT)


@pytest.mark.parametrize(
    ("legacy", "codebook_weight", "commitment_weight"), [("true", 0.25, 1.0), ("false", 1.0, 0.25)]
)
def test_both_placements_of_beta(legacy: str, codebook_weight: float, commitment_weight: float):
    golden, _ = load("vq_taming_32x8")
    quantizer = VQ(32, 8, codebook_weight=codebook_weight, commitment_weight=commitment_weight)
    with torch.no_grad():
        quantizer.codebook.copy_(golden["parameters/codebook"])
    latents = golden["latents"].requires_grad_()
    loss = quantizer(latents).loss
    name = f"combined_legacy_{legacy}_beta_0.25"
    matches(loss, golden[f"loss/{name}"], **LOSS)
    to_latents, to_codebook = gradients(loss, latents, quantizer.codebook)
    matches(to_latents, golden[f"grad/{name}/latents"], **GRADIENT)
    matches(to_codebook, golden[f"grad/{name}/codebook"], **GRADIENT)


def several(
    layout: type, golden: dict[str, Tensor], settings: dict
) -> tuple[Product | Residual, list[Tensor]]:
    tables = golden["parameters/codebooks"]
    quantizer = layout(
        lambda: VQ(tables.shape[1], tables.shape[2], codebook_weight=1.0, commitment_weight=1.0),
        settings["num_codebooks"],
        settings["shared"],
    )
    with torch.no_grad():
        for child, table in zip(quantizer.quantizers, tables, strict=True):
            child.codebook.copy_(table)
    return quantizer, [child.codebook for child in quantizer.quantizers]


@pytest.mark.parametrize("name", PRODUCT_CASES)
def test_product(name: str):
    golden, settings = load(name)
    quantizer, codebooks = several(Product, golden, settings)
    latents = golden["latents"].requires_grad_()
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    assert torch.equal(quantizer.encode(latents), golden["tokens"])
    matches(out.quantized, golden["quantized"], **QUANTIZED)
    functional = (golden["functional_weights"] * out.quantized).sum()
    matches(gradients(functional, latents)[0], golden["grad/functional/latents"], **GRADIENT)
    # The source has one squared error with a gradient to both sides; here each side is a loss of that value.
    for value in out.losses.values():
        matches(value, golden["loss/squared_error"], **LOSS)
    to_latents, *to_codebooks = gradients(out.loss, latents, *codebooks)
    matches(to_latents, golden["grad/squared_error/latents"], **GRADIENT)
    matches(torch.stack(to_codebooks), golden["grad/squared_error/codebooks"], **GRADIENT)


@pytest.mark.parametrize("name", RESIDUAL_CASES)
def test_residual(name: str):
    golden, settings = load(name)
    quantizer, codebooks = several(Residual, golden, settings)
    stages = range(settings["num_codebooks"])
    latents = golden["latents"].requires_grad_()
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    assert torch.equal(quantizer.encode(latents), golden["tokens"])
    matches(out.quantized, golden["corrected/quantized"], **QUANTIZED)
    functional = (golden["functional_weights"] * out.quantized).sum()
    # The source multiplies the straight-through gradient by the number of stages.
    matches(gradients(functional, latents)[0], golden["corrected/grad/functional/latents"], **GRADIENT)
    for value in out.losses.values():
        matches(value, golden["corrected/loss/squared_error_stages"].mean(), **LOSS)
    to_latents, *to_codebooks = gradients(out.loss, latents, *codebooks)
    matches(to_latents, mean(golden, "grad/squared_error_{}/latents", stages), **GRADIENT)
    matches(torch.stack(to_codebooks), mean(golden, "grad/squared_error_{}/codebooks", stages), **GRADIENT)


def mean(golden: dict[str, Tensor], name: str, stages: range) -> Tensor:
    return torch.stack([golden[name.format(stage)] for stage in stages]).mean(0)
