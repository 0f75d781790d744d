"""OptVQ: the original's numbers, which assignment is used when, its losses, and what they move."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vistok.quantizers import Product
from vistok.quantizers.distance_cross_entropy import _cross_entropy
from vistok.quantizers.optvq import OptVQ, OptVQConfig
from vistok.quantizers.search import nearest
from vistok.quantizers.sinkhorn import sinkhorn_tokens

GOLDEN = Path(__file__).parent / "golden"
CASES = [
    "optvq_nearest_40x16_h4_all",
    "optvq_nearest_48x8_h1_all",
    "optvq_sinkhorn_40x16_h4_all",
    "optvq_sinkhorn_48x16_h4_all_guard",
    "optvq_sinkhorn_48x8_h1_all",
]
PARAMETERS = {
    "embedding": "codebook",
    "projection_weight": "projection_weight",
    "projection_bias": "projection_bias",
}


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    settings = json.loads((GOLDEN / f"{name}.json").read_text())["settings"]
    return load_file(GOLDEN / f"{name}.safetensors"), settings


def build(golden: dict[str, Tensor], settings: dict, **more) -> tuple[Product | OptVQ, OptVQ]:
    """The quantizer, and the one within that has the parameters."""

    def child() -> OptVQ:
        return OptVQ(
            settings["codebook_size"],
            settings["channels"] // settings["num_heads"],
            sinkhorn_iterations=settings["iterations"],
            sinkhorn_epsilon=settings["epsilon"],
            cost_normalization=settings["cost_normalization"],
            projection=settings["use_projection"],
            eval_assignment=settings["assignment"],
            **more,
        )

    heads = settings["num_heads"]
    quantizer = Product(child, heads, shared_codebook=True) if heads > 1 else child()
    own = quantizer.quantizers[0] if heads > 1 else quantizer
    with torch.no_grad():
        for theirs, ours in PARAMETERS.items():
            getattr(own, ours).copy_(golden[f"parameters/{theirs}"])
    return quantizer, own


def latents_and(quantizer: OptVQ, batch: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(batch, quantizer.latent_dim, 5, 4, generator=torch.Generator().manual_seed(seed))


def small(**settings) -> OptVQ:
    torch.manual_seed(0)
    return OptVQ(50, 4, **settings)


# The original's numbers


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_vectors_of_the_original(name: str):
    golden, settings = load(name)
    quantizer, own = build(golden, settings)
    torch.testing.assert_close(own.table(), golden["effective_codebook"], atol=1e-5, rtol=0)
    sinkhorn = settings["assignment"] == "sinkhorn"
    # Where they differ, the original's 1e-8 in denominators changed the plan.
    expected = golden["corrected/tokens"] if sinkhorn else golden["tokens"]
    assert torch.equal(expected, golden["tokens"]) != name.endswith("guard")
    assert torch.equal(quantizer.encode(golden["latents"]), expected)
    out = quantizer.eval()(golden["latents"])
    assert torch.equal(out.tokens, expected)
    if sinkhorn:
        assert torch.equal(quantizer.train()(golden["latents"]).tokens, expected)
    if torch.equal(expected, golden["tokens"]):
        torch.testing.assert_close(out.quantized, golden["quantized"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("loss", ["l2", "l1", "ce"])
@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_of_the_original(name: str, loss: str, monkeypatch):
    golden, settings = load(name)
    quantizer, own = build(golden, settings, loss=loss, codebook_weight=1.0, commitment_weight=1.0)
    # With the original's own tokens: those of its training forward, which is the same as its evaluation.
    rows = golden["tokens"].flatten(0, 1) if settings["num_heads"] > 1 else golden["tokens"]
    monkeypatch.setattr(own, "_transport_tokens", lambda *_: rows.flatten())
    latents = golden["latents"].requires_grad_()
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    torch.testing.assert_close(out.quantized, golden["quantized"], atol=1e-5, rtol=0)
    terms = {"functional": (golden["functional_weights"] * out.quantized).sum()}
    for term, value in out.losses.items():
        theirs = term if loss == "ce" else f"{loss}_{term}"
        terms[theirs] = value
        torch.testing.assert_close(value, golden[f"loss/{theirs}"], atol=1e-5, rtol=1e-5)
    if loss == "l2":
        terms["l2_combined_beta_0.25"] = terms["l2_commitment"] + 0.25 * terms["l2_codebook"]
    leaves = {"latents": latents, **{theirs: getattr(own, ours) for theirs, ours in PARAMETERS.items()}}
    for term, value in terms.items():
        gradients = torch.autograd.grad(value, leaves.values(), retain_graph=True, materialize_grads=True)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            expected = golden.get(f"grad/{term}/{leaf}", torch.zeros_like(gradient))
            torch.testing.assert_close(gradient, expected, atol=2e-5, rtol=1e-4)


def test_default_weights_are_the_originals():
    golden, settings = load("optvq_sinkhorn_48x8_h1_all")
    quantizer, _ = build(golden, settings)
    loss = quantizer(golden["latents"]).loss
    torch.testing.assert_close(loss, golden["loss/l2_combined_beta_0.25"], atol=1e-5, rtol=1e-5)


# Which assignment


def test_training_transports_and_evaluation_takes_the_nearest():
    quantizer = small(sinkhorn_epsilon=20.0)
    latents = latents_and(quantizer)
    rows = latents.movedim(1, -1).reshape(-1, 4)
    transported = sinkhorn_tokens(rows, quantizer.table(), epsilon=20.0).view(6, 5, 4)
    near = nearest(rows, quantizer.table()).view(6, 5, 4)
    assert not torch.equal(transported, near)
    assert torch.equal(quantizer.train()(latents).tokens, transported)
    assert torch.equal(quantizer.eval()(latents).tokens, near)
    for mode in (True, False):
        quantizer.train(mode)
        assert torch.equal(quantizer.encode(latents), near)
        assert torch.equal(quantizer.transport(latents), transported)
        assert quantizer.training == mode


def test_evaluation_by_transport_depends_on_the_batch_but_index_does_not():
    quantizer = small(eval_assignment="sinkhorn").eval()
    latents = latents_and(quantizer)
    tokens = quantizer.encode(latents)
    assert torch.equal(tokens, quantizer.transport(latents))
    assert torch.equal(tokens, quantizer(latents).tokens)
    assert not torch.equal(quantizer.encode(latents[:2]), tokens[:2])
    some = torch.arange(50).repeat(3).view(3, 10, 5)
    assert torch.equal(quantizer.index(quantizer.lookup(some)), some)
    assert torch.equal(quantizer.index(quantizer.lookup(tokens[:1, :1])), tokens[:1, :1])


@pytest.mark.parametrize("name", ["sinkhorn_iterations", "sinkhorn_epsilon", "cost_normalization"])
def test_settings_reach_the_plan(name: str):
    changed = {"sinkhorn_iterations": 1, "sinkhorn_epsilon": 1.0, "cost_normalization": "dim"}[name]
    latents = latents_and(small())
    assert not torch.equal(small(**{name: changed}).transport(latents), small().transport(latents))
    without_matrix = small(sinkhorn_byte_budget=0)
    assert torch.equal(without_matrix.transport(latents), small().transport(latents))


def test_transport_refuses_what_encode_refuses():
    quantizer = small()
    with pytest.raises(ValueError, match="shape"):
        quantizer.transport(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"\[1, 2, 0\]"):
        quantizer.transport(
            torch.zeros(2, 4, 3).index_put_([torch.tensor(i) for i in (1, 2, 0)], torch.tensor(torch.nan))
        )
    with pytest.raises(ValueError, match="mask"):
        quantizer.transport(torch.zeros(2, 4, 3), mask=torch.ones(2, 4, dtype=torch.bool))
    with torch.autocast("cpu", torch.bfloat16):
        latents = latents_and(quantizer)
        inside = quantizer.transport(latents)
    assert torch.equal(inside, quantizer.transport(latents))
    assert torch.equal(quantizer.transport(latents.half()), quantizer.transport(latents.half().float()))


# Losses


@pytest.mark.parametrize("loss", ["l2", "l1", "ce"])
def test_losses_that_weigh_nothing_are_absent(loss: str):
    both = {"cross_entropy"} if loss == "ce" else {"codebook", "commitment"}
    latents = latents_and(small())
    assert set(small(loss=loss)(latents).losses) == both
    assert set(small(loss=loss, codebook_weight=0)(latents).losses) == both - {"codebook"}
    without = {"commitment", "cross_entropy"}
    assert set(small(loss=loss, commitment_weight=0)(latents).losses) == both - without
    assert small(loss=loss).eval()(latents).losses == {}


@pytest.mark.parametrize("projection", [True, False])
@pytest.mark.parametrize("loss", ["l2", "l1", "ce"])
def test_a_frozen_codebook_gets_no_gradient(loss: str, projection: bool):
    quantizer = small(loss=loss, projection=projection)
    quantizer.freeze_codebook()
    latents = latents_and(quantizer).requires_grad_()
    out = quantizer(latents)
    assert set(out.losses) == ({"cross_entropy"} if loss == "ce" else {"commitment"})
    out.loss.backward()
    assert latents.grad.abs().sum() > 0
    assert all(p.grad is None for p in quantizer.parameters())


@pytest.mark.parametrize("loss", ["l2", "l1", "ce"])
def test_masked_places_have_no_part(loss: str):
    latents = latents_and(small())
    mask = torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    garbage = torch.where(mask[:, None], latents, 50.0).requires_grad_()
    quantizer = small(loss=loss)
    out = quantizer(garbage, mask)
    out.loss.backward()
    kept = latents.movedim(1, -1)[mask].clone().requires_grad_()  # (N, 4): a grid without sides
    other = small(loss=loss)
    expected = other(kept)
    expected.loss.backward()
    assert torch.equal(out.tokens[mask], expected.tokens)
    assert ((out.tokens >= 0) & (out.tokens < 50)).all()
    assert torch.equal(quantizer.transport(garbage, mask), out.tokens)
    for name, value in expected.losses.items():
        torch.testing.assert_close(out.losses[name], value)
    torch.testing.assert_close(garbage.grad.movedim(1, -1)[mask], kept.grad)
    assert not garbage.grad.movedim(1, -1)[~mask].any()
    for one, right in zip(quantizer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, right.grad)


def test_without_projection_the_codebook_is_the_table():
    quantizer = small(projection=False)
    assert [name for name, _ in quantizer.named_parameters()] == ["codebook"]
    assert torch.equal(quantizer.table(), quantizer.codebook)
    assert torch.equal(quantizer.lookup(torch.arange(50)[None]), quantizer.codebook.t()[None])


def test_initial_values():
    torch.manual_seed(0)
    quantizer = OptVQ(4096, 64)
    assert quantizer.codebook.std().item() == pytest.approx(1, rel=0.02)
    assert quantizer.projection_weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert quantizer.projection_bias.abs().max() <= 1 / 8
    assert quantizer.projection_bias.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sinkhorn_iterations": 0},
        {"sinkhorn_epsilon": 0.0},
        {"cost_normalization": "mean"},
        {"loss": "l3"},
        {"codebook_weight": -1.0},
        {"eval_assignment": "random"},
        {"sinkhorn_byte_budget": -1},
        {"projection": 1.5},
    ],
    ids=str,
)
def test_bad_settings_are_named(wrong: dict):
    ((name, _),) = wrong.items()
    for build_one in (OptVQ, OptVQConfig):
        with pytest.raises(ValueError, match=name):
            build_one(**wrong)


# What it is for


def used_after_training(quantizer: OptVQ, latents: Tensor) -> int:
    with torch.no_grad():
        quantizer.codebook.mul_(0.1).add_(4)  # all in one corner
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.1)
    for _ in range(160):
        optimizer.zero_grad()
        quantizer(latents).loss.backward()
        optimizer.step()
    return len(quantizer.encode(latents).unique())


def test_a_badly_placed_codebook_learns_to_be_used(monkeypatch):
    latents = torch.randn(4, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    settings = {"projection": False, "codebook_weight": 1.0}
    torch.manual_seed(0)
    assert used_after_training(OptVQ(32, 2, **settings), latents) == 32
    torch.manual_seed(0)
    by_nearest = OptVQ(32, 2, **settings)
    monkeypatch.setattr(by_nearest, "_transport_tokens", lambda rows, mask: by_nearest.nearest_tokens(rows))
    assert used_after_training(by_nearest, latents) < 8


def test_the_assignment_that_encode_does_not_take_is_offered():
    torch.manual_seed(0)
    latents = torch.randn(2, 4, 6, 6)
    quantizer = OptVQ(codebook_size=16, codebook_dim=4)
    offered = quantizer.other_assignments(latents)
    assert {name: tokens.tolist() for name, tokens in offered.items()} == {
        "optimal transport": quantizer.transport(latents).tolist()
    }
    quantizer.eval_assignment = "sinkhorn"
    offered = quantizer.other_assignments(latents)
    assert {name: tokens.tolist() for name, tokens in offered.items()} == {
        "nearest entry": quantizer.index(latents).tolist()
    }


def test_the_cross_entropy_describes_itself():
    # What torch.compile is told of its outputs is true of them, for the transposed rows of one picture too.
    torch.manual_seed(0)
    table, tokens, weights = torch.randn(5, 4), torch.arange(10) % 5, torch.full((10,), 0.1)
    for rows in (torch.randn(10, 4), torch.randn(4, 10).t()):
        for differentiable in (True, False):
            args = rows, table, tokens, weights, differentiable
            torch.library.opcheck(_cross_entropy, args, test_utils=("test_schema", "test_faketensor"))
