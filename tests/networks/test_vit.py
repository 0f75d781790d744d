"""ViT: positions and attention against their formulae, any size, cost, precision, compilation."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vistok import FSQConfig, ViTConfig, VQModelHF
from vistok.networks import build_decoder, build_encoder
from vistok.networks.vit import angles, linear_attention, rotate

SIZES = {"tiny": (192, 512, 3, 5.3), "small": (384, 1024, 6, 21), "base": (768, 2048, 12, 85)}
KINDS = list(itertools.product(("softmax", "linear"), ("rotary", "sincos")))
over_kinds = pytest.mark.parametrize(("attention", "positions"), KINDS)


def small(attention: str = "softmax", positions: str = "rotary", **fields) -> ViTConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 2}
    return ViTConfig(**sizes | fields, attention=attention, positions=positions)


def tokenizer(config: ViTConfig) -> VQModelHF:
    torch.manual_seed(0)
    return VQModelHF(FSQConfig(levels=[8, 5, 5, 5], image_size=64, network=config)).eval()


def pictures(height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("size", SIZES)
def test_parameters_of_the_documented_sizes(size: str):
    hidden_size, intermediate_size, num_heads, millions = SIZES[size]
    with torch.device("meta"):
        config = ViTConfig(hidden_size=hidden_size, intermediate_size=intermediate_size, num_heads=num_heads)
        for part in (build_encoder(config), build_decoder(config, 4)):
            assert sum(p.numel() for p in part.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


@over_kinds
def test_one_model_takes_every_size_and_aspect(attention: str, positions: str):
    model = tokenizer(small(attention, positions))
    for height, width in ((64, 64), (64, 96), (96, 64), (8, 8)):
        out = model(pictures(height, width))
        assert out.tokens.shape == (2, height // 8, width // 8)
        assert out.reconstruction.shape == (2, 3, height, width)


def test_half_of_the_angles_are_of_the_row_and_half_of_the_column():
    found = angles(3, 5, 8, torch.device("cpu")).view(3, 5, 8)
    for row, column, i in itertools.product(range(3), range(5), range(4)):
        assert found[row, column, i].item() == pytest.approx(row * 10_000 ** (-i / 4))
        assert found[row, column, 4 + i].item() == pytest.approx(column * 10_000 ** (-i / 4))


def test_rotary_scores_depend_on_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(2, 16, dtype=torch.float64)
    places = angles(6, 7, 8, torch.device("cpu")).double()
    q, k = (rotate(x.expand(1, 42, 16), places.cos(), places.sin())[0] for x in (query, key))
    scores = (q @ k.T).view(6, 7, 6, 7)
    assert torch.equal(q[0], query)  # the first place turns nothing
    torch.testing.assert_close(q.norm(dim=1), query.norm().expand(42))
    for down, right in ((1, 0), (0, 1), (3, 2)):
        moved = scores[down:, right:, down:, right:]
        torch.testing.assert_close(moved, scores[: 6 - down, : 7 - right, : 6 - down, : 7 - right])
    assert scores[0, 0, 0, 1] != scores[0, 0, 1, 0]  # a row is no column


def test_sines_and_cosines_are_added_to_the_patches():
    encoder = build_encoder(small(positions="sincos")).eval()
    for layer in encoder.transformer.layers:
        torch.nn.init.zeros_(layer.attention.out.weight)
        torch.nn.init.zeros_(layer.down.weight)
    features = encoder(torch.zeros(1, 3, 24, 16))
    for row, column in itertools.product(range(3), range(2)):
        at = [row * 10_000 ** (-i / 8) for i in range(8)] + [column * 10_000 ** (-i / 8) for i in range(8)]
        patch = encoder.patch_embed.bias + torch.tensor([*map(math.sin, at), *map(math.cos, at)])
        torch.testing.assert_close(features[0, :, row, column], F.layer_norm(patch, (32,), eps=1e-6))


def explicit_attention(module, x: Tensor, places: Tensor | None) -> Tensor:
    """One head after another, by the matrix of all pairs of places."""
    heads = []
    width = x.shape[1] // module.num_heads
    for part in range(module.num_heads):
        q, k, v = (x @ module.qkv.weight[i * x.shape[1] + part * width :][:width].T for i in range(3))
        if module.linear:
            q, k = F.silu(q), F.silu(k)
        if places is not None:
            q, k = (
                torch.view_as_real(torch.complex(*y.chunk(2, dim=1)) * torch.exp(1j * places))
                .movedim(2, 1)
                .flatten(1)
                for y in (q, k)
            )
        scores = q @ k.T
        weights = scores / len(x) if module.linear else (scores / math.sqrt(width)).softmax(1)
        heads.append(weights @ v)
    attended = torch.cat(heads, dim=1)
    if module.linear:
        attended = F.layer_norm(
            attended * module.gate(x).sigmoid(), (x.shape[1],), module.norm.weight, module.norm.bias, 1e-6
        )
    return attended @ module.out.weight.T


@over_kinds
@torch.no_grad()
def test_attention_is_its_formula(attention: str, positions: str):
    torch.manual_seed(0)
    module = build_encoder(small(attention, positions)).double().transformer.layers[0].attention
    x = torch.randn(2, 15, 32, dtype=torch.float64)
    places = angles(3, 5, 8, torch.device("cpu")).double() if positions == "rotary" else None
    turned = (None, None) if places is None else (places.cos(), places.sin())
    for row, found in zip(x, module(x, *turned), strict=True):
        torch.testing.assert_close(found, explicit_attention(module, row, places))


def test_linear_attention_of_many_places_stays_finite_in_half_precision():
    q, k, v = torch.full((3, 1, 1, 4096, 16), 20.0, dtype=torch.float16)
    assert linear_attention(q, k, v / 20).isfinite().all()


def test_linear_attention_costs_four_times_as_much_for_four_times_the_patches():
    def flops(attention: str, length: int) -> int:
        encoder = build_encoder(small(attention, num_layers=1)).eval()
        # The counter does not know the fused kernel of a CPU.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 3, length, length))
        return counter.get_total_flops()

    assert flops("linear", 128) == 4 * flops("linear", 64)
    assert flops("softmax", 128) > 5 * flops("softmax", 64)


@over_kinds
def test_gradients_reach_every_weight_and_checkpointing_keeps_them(attention: str, positions: str):
    plain = tokenizer(small(attention, positions)).train()
    checkpointed = copy.deepcopy(plain)
    enable = getattr(
        checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable
    )
    enable()
    for model in (plain, checkpointed):
        (model(pictures()).reconstruction - pictures()).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert one.grad.any(), name
        assert torch.equal(one.grad, other.grad), name


@pytest.mark.parametrize(("attention", "positions"), [KINDS[0], KINDS[-1]])
@torch.no_grad()
def test_compiles_without_a_break_for_any_size(attention: str, positions: str):
    model = tokenizer(small(attention, positions, num_layers=1))
    encode = torch.compile(model.encode_latents, fullgraph=True, backend="aot_eager")
    decode = torch.compile(model.decode, fullgraph=True, backend="aot_eager")
    for size in ((64, 64), (64, 96)):
        tokens = model.encode(pictures(*size)).tokens
        torch.testing.assert_close(encode(pictures(*size)), model.encode_latents(pictures(*size)))
        torch.testing.assert_close(decode(tokens), model.decode(tokens))


@over_kinds
@torch.no_grad()
def test_bfloat16_is_near_float32(attention: str, positions: str):
    encoder = build_encoder(small(attention, positions)).eval()
    wanted = encoder(pictures())
    found = encoder.bfloat16()(pictures().bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found - wanted).abs().mean() < 0.02


@over_kinds
def test_saved_and_loaded_is_the_same(attention: str, positions: str, tmp_path):
    model = tokenizer(small(attention, positions))
    model.save_pretrained(tmp_path)
    loaded = VQModelHF.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pictures()).reconstruction, model(pictures()).reconstruction)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="hidden_size 100 must be a multiple of 4 times num_heads 6"):
        ViTConfig(hidden_size=100)
