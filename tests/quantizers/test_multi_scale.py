"""Multi-scale quantization against the paper's maths written out, and its sequence of tokens in a model."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vistok import MultiScaleVQConfig, SimpleCNNConfig, VQModelHF, draw_sheet, write_model_card
from vistok.data import open_dataset
from vistok.evaluation import evaluate
from vistok.quantizers import MultiScaleVQ

VAR_SCALES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
VARIANTS = [
    {},
    {"normalize": True},
    {"phi_ratio": 0.0},
    {"phi_ratio": 1.0, "num_phis": 1},
    {"num_phis": 2},
    {"scales": VAR_SCALES},
    {"scales": [7]},
    {"scales": [4, 4], "num_phis": 3},
]


def quantizer_with(scales=(1, 2, 3, 5, 6), **fields) -> MultiScaleVQ:
    torch.manual_seed(0)
    quantizer = MultiScaleVQ(scales=scales, codebook_size=40, codebook_dim=6, **fields)
    with torch.no_grad():
        quantizer.codebook.normal_()
    return quantizer.double()


def latents_of(quantizer: MultiScaleVQ, batch: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    side = quantizer.scales[-1]
    return 1.5 * torch.randn(batch, 6, side, side, generator=draw, dtype=torch.float64)


def written_out(quantizer: MultiScaleVQ, latents: Tensor, phis: list[int]) -> tuple[Tensor, list[Tensor]]:
    """Tokens, and the quantized vectors after each scale: Algorithm 1 of the paper, with its smoothing."""
    codebook, ratio, side = quantizer.codebook, quantizer.phi_ratio, latents.shape[-1]
    left, total, tokens, sums = latents.detach(), 0, [], []
    for scale, phi in zip(quantizer.scales, phis, strict=True):
        rows = F.adaptive_avg_pool2d(left, scale).movedim(1, -1)
        if quantizer.normalize:
            best = (F.normalize(rows, dim=-1) @ F.normalize(codebook, dim=-1).t()).argmax(-1)
        else:
            best = (rows.unsqueeze(-2) - codebook).square().sum(-1).argmin(-1)
        tokens.append(best.flatten(1))
        part = F.interpolate(codebook[best].movedim(-1, 1), (side, side), mode="bicubic", align_corners=False)
        if ratio:
            smooth = F.conv2d(part, quantizer.phi_kernels[phi], quantizer.phi_biases[phi], padding=1)
            part = (1 - ratio) * part + ratio * smooth
        total = total + part
        sums.append(total)
        left = left - part.detach()
    return torch.cat(tokens, 1), sums


def phis_of(quantizer: MultiScaleVQ) -> list[int]:
    """By hand, of the ticks 1/2K, 3/2K ... and of 1/12, 4.33/12, 7.67/12, 11/12 for four."""
    count = 1 if quantizer.phi_kernels is None else len(quantizer.phi_kernels)
    known = {
        (5, 4): [0, 1, 2, 2, 3],  # the middle lies between two: rounding decides in VAR, and so here
        (10, 4): [0, 0, 1, 1, 1, 2, 2, 3, 3, 3],
        (5, 2): [0, 0, 0, 1, 1],
        (2, 3): [0, 2],
    }
    return known.get((len(quantizer.scales), count), [0] * len(quantizer.scales))


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_tokens_losses_and_gradients_are_the_papers(fields: dict, masked: bool):
    quantizer = quantizer_with(**fields).train()
    latents = latents_of(quantizer).requires_grad_()
    mask = torch.ones(3, *latents.shape[2:], dtype=torch.bool)
    if masked:
        mask[:, :, 4:] = False
        mask[1] = False
        mask[1, 0, 0] = True
    seen = latents.masked_fill(~mask.unsqueeze(1), 0)
    tokens, sums = written_out(quantizer, seen, phis_of(quantizer))
    out = quantizer(latents, mask) if masked else quantizer(latents)
    assert torch.equal(out.tokens, tokens)
    assert torch.equal(quantizer.encode(seen.detach()), tokens)
    assert torch.equal(quantizer.index(seen.detach()), tokens)
    torch.testing.assert_close(out.quantized, sums[-1])

    def mean(one: Tensor, other: Tensor) -> Tensor:
        return (one - other).square().movedim(1, -1)[mask].mean()

    codebook = sum(mean(total, latents.detach()) for total in sums) / len(sums)
    commitment = 0.25 * sum(mean(total.detach(), latents) for total in sums) / len(sums)
    torch.testing.assert_close(out.losses, {"codebook": codebook, "commitment": commitment})
    leaves = [latents, *quantizer.parameters()]
    weights = torch.randn_like(sums[-1])
    wanted = torch.autograd.grad(codebook + commitment + (weights * seen).sum(), leaves)
    found = torch.autograd.grad(out.loss + (weights * out.quantized).sum(), leaves)
    torch.testing.assert_close(found, wanted)


def test_the_gradient_of_the_vectors_reaches_the_latents_alone():
    quantizer = quantizer_with().train()
    latents = latents_of(quantizer).requires_grad_()
    weights = torch.randn_like(latents)
    (weights * quantizer(latents).quantized).sum().backward()
    assert torch.equal(latents.grad, weights)
    assert [p.grad for p in quantizer.parameters()] == [None] * 3
    quantizer.freeze_codebook()
    assert set(quantizer(latents).losses) == {"commitment"}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 14])
def test_as_many_convolutions_as_scales_are_one_each(count: int):
    torch.manual_seed(0)
    quantizer = MultiScaleVQ(scales=[*range(1, count + 1)], codebook_size=4, codebook_dim=2, num_phis=count)
    vectors = [quantizer.lookup(torch.zeros(1, end, dtype=torch.int64)) for end in _ends(quantizer)]
    with torch.no_grad():
        quantizer.phi_biases += torch.arange(1.0, count + 1)[:, None]
    for place, end in enumerate(_ends(quantizer)):
        moved = quantizer.lookup(torch.zeros(1, end, dtype=torch.int64)) - vectors[place]
        expected = 0.5 * sum(range(1, place + 2))
        torch.testing.assert_close(moved, torch.full_like(moved, expected))


def _ends(quantizer: MultiScaleVQ) -> list[int]:
    return [sum(s * s for s in quantizer.scales[: place + 1]) for place in range(len(quantizer.scales))]


def test_the_first_scales_decode_alone():
    quantizer = quantizer_with()
    latents = latents_of(quantizer)
    tokens, sums = written_out(quantizer, latents, phis_of(quantizer))
    for end, total in zip([1, 5, 14, 39, 75], sums, strict=True):
        torch.testing.assert_close(quantizer.lookup(tokens[:, :end]), total)
    for wrong in (0, 2, 13, 74, 76):
        with pytest.raises(ValueError, match=r"\(B, 75\), or .* one of 1, 5, 14, 39, 75, got \(3, "):
            quantizer.lookup(torch.zeros(3, wrong, dtype=torch.int64))
    with pytest.raises(ValueError, match="shape"):
        quantizer.lookup(torch.zeros(3, 1, 5, dtype=torch.int64))


@pytest.mark.parametrize("grid", [(6, 5), (5, 6), (5, 5), (7, 7), (36,), (6, 6, 1), ()], ids=str)
def test_another_grid_is_refused(grid: tuple[int, ...]):
    quantizer = quantizer_with()
    latents = torch.zeros(2, 6, *grid)
    for call in (quantizer, quantizer.encode, quantizer.index):
        with pytest.raises(ValueError, match=r"grid of 6 x 6, the last of the scales \[1, 2, 3, 5, 6\], got"):
            call(latents)
    with pytest.raises(ValueError, match="grid of 6 x 6"):
        quantizer.token_shape(grid)


@pytest.mark.parametrize("scales", [[], [0, 4], [4.0], 4, [1, 2**10]], ids=str)
def test_wrong_scales_are_refused(scales):
    for make in (MultiScaleVQ, MultiScaleVQConfig):
        with pytest.raises(ValueError, match="scales"):
            make(scales=scales)


def test_several_codebooks_are_refused():
    for layout in ("product", "residual"):
        with pytest.raises(ValueError, match="num_codebooks must be 1 with several scales, got 2"):
            MultiScaleVQConfig(num_codebooks=2, codebook_layout=layout)


def test_training_fits_entries_and_convolutions():
    torch.manual_seed(0)
    coarse = torch.randn(64, 4, 2, 2)
    latents = F.interpolate(coarse, (6, 6), mode="bilinear") + 0.2 * torch.randn(64, 4, 6, 6)
    quantizer = MultiScaleVQ(scales=[1, 2, 4, 6], codebook_size=64, codebook_dim=4, initialization="normal")
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
    losses = []
    for step in range(150):
        quantizer.set_step(step)
        loss = quantizer(latents).losses["codebook"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    tokens = quantizer.encode(latents)
    errors = [
        (quantizer.lookup(tokens[:, :end]) - latents).square().mean().item() for end in _ends(quantizer)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * latents.var()


# In a model


def model_with(scales=(1, 2, 4, 8), image_size: int = 32) -> VQModelHF:
    torch.manual_seed(0)
    network = SimpleCNNConfig(hidden_channels=8, num_res_blocks=1)  # 4 pixels per place
    config = MultiScaleVQConfig(
        scales=scales, codebook_size=50, codebook_dim=4, image_size=image_size, network=network
    )
    return VQModelHF(config).eval()


def pictures(height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def test_flat_tokens_are_the_tokens():
    model = model_with()
    out = model.encode(pictures())
    assert model.token_shape == (85,)
    flat = model.get_image_tokens(pictures())
    assert torch.equal(flat, out.tokens)
    for size in ({}, {"height": 8}, {"height": 8, "width": 8}):
        assert torch.equal(model.decode_image_tokens(flat, **size), model.decode(out.tokens))
    with pytest.raises(ValueError, match=r"\(B, 85\) for a grid of 8 x 8, got \(2, 21\)"):
        model.decode_image_tokens(flat[:, :21])
    with pytest.raises(ValueError, match="grid of 8 x 8, the last of the scales"):
        model.decode_image_tokens(flat, 4, 16)


@torch.no_grad()
def test_the_first_scales_decode_to_pictures():
    model = model_with()
    tokens = model.encode(pictures()).tokens
    shown = [model.decode(tokens[:, :end]) for end in (1, 5, 21, 85)]
    assert {tuple(picture.shape) for picture in shown} == {(2, 3, 32, 32)}
    assert torch.equal(shown[-1], model.decode_quantized(model.quantizer.lookup(tokens)))
    assert len({float(picture.sum()) for picture in shown}) == 4
    with pytest.raises(ValueError, match="one of 1, 5, 21, 85"):
        model.decode(tokens[:, :20])


def test_pictures_and_scales_must_fit():
    with pytest.raises(
        ValueError, match="image_size 64 does not fit the quantizer: .* 8 x 8, .* got 16 x 16"
    ):
        model_with(image_size=64)
    for height, width in ((32, 48), (64, 64)):
        with pytest.raises(ValueError, match=f"grid of 8 x 8, .* got {height // 4} x {width // 4}"):
            model_with().encode(pictures(height, width))


@torch.no_grad()
def test_sheets_cards_and_evaluation_take_a_sequence(tmp_path):
    model = model_with()
    out = model(pictures())
    sheet = draw_sheet(pictures(), out.reconstruction.clamp(-1, 1), out.tokens, model.codebook_size)
    assert sheet.width > 3 * 256
    card = write_model_card(model, tmp_path).read_text()
    assert "int64 (1, 85)" in card
    assert "| scales | (1, 2, 4, 8) |" in card
    metrics = evaluate(model, open_dataset("samples", split="validation"), limit=3, progress=False)["metrics"]
    assert metrics["tokens_per_picture"] == 85
    assert 0 < metrics["codebook_usage"] <= 1
