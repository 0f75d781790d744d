"""Outputs of the original projects (golden/*.json says which, at what commit), matched number by number."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vistok.quantizers import EMAVQ, FSQ, IBQ, SFSQ, VQ, GumbelVQ, Product, Residual, SimVQ

GOLDEN = Path(__file__).parent / "golden"
QUANTIZED = {"atol": 1e-5, "rtol": 0}
LOSS = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 2e-5, "rtol": 1e-4}
VQ_CASES = ["vq_taming_32x8", "vq_l2_llamagen_32x8", "vq_l2_titok_32x8"]
FSQ_CASES = ["fsq_atanh_354", "fsq_atanh_8555", "fsq_tan_354", "fsq_tan_8555"]
PRODUCT_CASES = ["product_vq_separate_3x32x12", "product_vq_shared_2x32x8"]
RESIDUAL_CASES = ["residual_vq_separate_3x32x6", "residual_vq_shared_2x48x6"]


ENTROPY_CASES = ["vq_entropy_xyfjason_32x8", "vq_l2_llamagen_32x8", "vq_l2_xyfjason_32x8"]
SFSQ_CASES = ["sfsq_354", "sfsq_8555"]
SIMVQ_CASES = ["simvq_32x8", "simvq_xyfjason_32x8"]
IBQ_CASES = ["ibq_32x8", "ibq_xyfjason_32x8"]
GUMBEL_CASES = [f"gumbel_taming_32x6_{kind}" for kind in ("hard_tau0.5", "hard_tau1.0", "soft_tau0.7")]
EMA_CASES = ["ema_keep_unused_xyfjason_32x6"] + [
    f"ema_laplace_{kind}_32x6" for kind in ("batch_doraemonzzz", "total_fsqpytorch", "total_lucidrains")
]
ELSEWHERE = ("lfq_", "bsq_", "optvq_")  # beside the tests of their method


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    return load_file(GOLDEN / f"{name}.safetensors"), json.loads((GOLDEN / f"{name}.json").read_text())[
        "settings"
    ]


def test_every_case_is_used():
    used = {*VQ_CASES, *ENTROPY_CASES, "vq_rotation_32x6", *FSQ_CASES, *SFSQ_CASES, *SIMVQ_CASES, *IBQ_CASES}
    used |= {*GUMBEL_CASES, *EMA_CASES, *PRODUCT_CASES, *RESIDUAL_CASES}
    found = {path.name.removesuffix(".safetensors") for path in GOLDEN.glob("*.safetensors")}
    assert {name for name in found if not name.startswith(ELSEWHERE)} == used


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)


def matches(actual: Tensor, expected: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), **tolerance)


@pytest.mark.parametrize("name", FSQ_CASES + SFSQ_CASES)
def test_levels(name: str):
    golden, settings = load(name)
    levels = settings["levels"]
    quantizer = SFSQ(levels) if name in SFSQ_CASES else FSQ(levels, bound=name.split("_")[1])
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


def put(quantizer: torch.nn.Module, golden: dict[str, Tensor], *names: str) -> None:
    with torch.no_grad():
        for name in names:
            getattr(quantizer, name).copy_(golden[f"parameters/{name}"])


def compare_terms(golden: dict[str, Tensor], terms: dict[str, Tensor], leaves: dict[str, Tensor]) -> None:
    """Each term's value, and its gradient of each leaf; no path in the source is a gradient of zero."""
    for term, value in terms.items():
        if term != "functional":
            matches(value, golden[f"loss/{term}"], **LOSS)
        for name, gradient in zip(leaves, gradients(value, *leaves.values()), strict=True):
            expected = golden.get(f"grad/{term}/{name}", torch.zeros_like(gradient))
            matches(gradient, expected, **GRADIENT)


def compare_outputs(quantizer: torch.nn.Module, golden: dict[str, Tensor], latents: Tensor):
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    assert torch.equal(quantizer.encode(latents), golden["tokens"])
    matches(out.quantized, golden["quantized"], **QUANTIZED)
    return out, (golden["functional_weights"] * out.quantized).sum()


@pytest.mark.parametrize("name", ENTROPY_CASES)
def test_vq_with_entropy(name: str):
    golden, settings = load(name)
    quantizer = VQ(
        32,
        8,
        normalize=settings.get("normalize", False),
        normalize_losses=name != "vq_l2_xyfjason_32x8",
        commitment_weight=1.0,
        entropy_weight=1.0,
        entropy_temperature=settings["entropy_temperature"],
    )
    put(quantizer, golden, "codebook")
    latents = golden["latents"].requires_grad_()
    out, functional = compare_outputs(quantizer, golden, latents)
    leaves = {"latents": latents, "codebook": quantizer.codebook}
    compare_terms(golden, {"functional": functional, **out.losses}, leaves)
    if "grad/total/latents" in golden:
        total = functional + out.losses["codebook"] + 0.25 * out.losses["commitment"]
        total = total + 0.1 * out.losses["entropy"]
        for name, gradient in zip(leaves, gradients(total, *leaves.values()), strict=True):
            matches(gradient, golden[f"grad/total/{name}"], **GRADIENT)


def test_vq_with_rotation():
    golden, _ = load("vq_rotation_32x6")
    quantizer = VQ(32, 6, commitment_weight=1.0, gradient="rotation")
    put(quantizer, golden, "codebook")
    latents = golden["latents"].requires_grad_()
    out, functional = compare_outputs(quantizer, golden, latents)
    leaves = {"latents": latents, "codebook": quantizer.codebook}
    compare_terms(golden, {"functional": functional}, leaves)
    for value in out.losses.values():  # the source has one squared error with a gradient to both sides
        matches(value, golden["loss/squared_error"], **LOSS)
    to_latents, to_codebook = gradients(out.loss, *leaves.values())
    matches(to_latents, golden["grad/squared_error/latents"], **GRADIENT)
    matches(to_codebook, golden["grad/squared_error/codebook"], **GRADIENT)


@pytest.mark.parametrize("name", SIMVQ_CASES)
def test_simvq(name: str):
    golden, _ = load(name)
    quantizer = SimVQ(32, 8, commitment_weight=1.0)
    put(quantizer, golden, "codebook", "projection_weight", "projection_bias")
    if "effective_codebook" in golden:
        matches(quantizer.table(), golden["effective_codebook"], **QUANTIZED)
    latents = golden["latents"].requires_grad_()
    out, functional = compare_outputs(quantizer, golden, latents)
    leaves = {"latents": latents, **dict(quantizer.named_parameters())}
    compare_terms(golden, {"functional": functional, **out.losses}, leaves)


@pytest.mark.parametrize("name", IBQ_CASES)
def test_ibq(name: str):
    golden, _ = load(name)
    quantizer = IBQ(32, 8, normalize=False, codebook_weight=1.0, entropy_weight=1.0)
    put(quantizer, golden, "codebook")
    latents = golden["latents"].requires_grad_()
    out, functional = compare_outputs(quantizer, golden, latents)
    losses = out.losses
    terms = {"functional": functional, "commitment": losses["commitment"]}
    if name == "ibq_32x8":
        terms |= {name: losses[name] for name in ("double_quantization", "codebook")}
        terms["combined_beta_0.25"] = (
            losses["double_quantization"] + losses["commitment"] + 0.25 * losses["codebook"]
        )
        entropy = golden["loss/sample_entropy"] - golden["loss/codebook_entropy"]
        matches(losses["entropy"], entropy, **LOSS)
    else:
        terms["codebook_plus_double_quantization"] = losses["codebook"] + losses["double_quantization"]
        terms["entropy"] = losses["entropy"]
    leaves = {"latents": latents, "codebook": quantizer.codebook}
    compare_terms(golden, terms, leaves)
    if "grad/total/latents" in golden:
        total = functional + terms["combined_beta_0.25"] + 0.05 * losses["entropy"]
        for name, gradient in zip(leaves, gradients(total, *leaves.values()), strict=True):
            matches(gradient, golden[f"grad/total/{name}"], **GRADIENT)


@pytest.mark.parametrize("name", GUMBEL_CASES)
def test_gumbel(name: str, monkeypatch):
    golden, settings = load(name)
    quantizer = GumbelVQ(
        32,
        6,
        kl_weight=1.0,
        temperature=settings["temperature"],
        straight_through=settings["straight_through"],
    )
    monkeypatch.setattr(quantizer, "noise", lambda logits: golden["gumbel_noise"])
    put(quantizer, golden, "codebook")
    weight, bias = (golden[f"parameters/projection_{part}"].requires_grad_() for part in ("weight", "bias"))
    latents = golden["latents"].requires_grad_()
    logits = torch.nn.functional.conv2d(latents, weight, bias)
    out = quantizer(logits)
    assert torch.equal(out.tokens, golden["tokens"])
    matches(out.quantized, golden["quantized"], **QUANTIZED)
    functional = (golden["functional_weights"] * out.quantized).sum()
    leaves = {"latents": latents, "codebook": quantizer.codebook}
    leaves |= {"projection_weight": weight, "projection_bias": bias}
    compare_terms(golden, {"functional": functional, "kl": out.losses["kl"]}, leaves)
    still = quantizer.eval()(logits)
    assert torch.equal(still.tokens, golden["eval/tokens"])
    assert torch.equal(quantizer.encode(logits), golden["eval/tokens"])
    matches(still.quantized, golden["eval/quantized"], **QUANTIZED)


@pytest.mark.parametrize("name", EMA_CASES)
@pytest.mark.parametrize("by_step", [False, True])
def test_ema(name: str, by_step: bool):
    golden, settings = load(name)
    keeps_unused = name == "ema_keep_unused_xyfjason_32x6"
    quantizer = EMAVQ(
        32,
        6,
        commitment_weight=1.0,
        decay=settings["decay"],
        epsilon=0.0 if keeps_unused else settings["eps"],
        revival_threshold=0.0,
    )
    for state, value in (("codebook", "codebook"), ("counts", "count"), ("sums", "sum")):
        getattr(quantizer, state).copy_(golden[f"before/{value}"])
    if by_step:
        quantizer.set_step(0)
    for step, latents in enumerate(golden["latents"], start=1):
        out = quantizer(latents)
        if by_step:
            quantizer.set_step(step)
        assert torch.equal(out.tokens, golden[f"step{step}/tokens"])
        matches(out.quantized, golden[f"step{step}/quantized"], **QUANTIZED)
        matches(out.losses["commitment"], golden[f"step{step}/loss/commitment"], **LOSS)
        matches(quantizer.counts, golden[f"step{step}/count"], **QUANTIZED)
        matches(quantizer.sums, golden[f"step{step}/sum"], atol=1e-5, rtol=1e-5)
        matches(quantizer.codebook, golden[f"step{step}/codebook"], atol=1e-5, rtol=1e-5)


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
